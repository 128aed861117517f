"""The Ψ of ΨPO: one that is known by name, or a function of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable

from preflab.core.plugins import FAILURES, Plugin, load_file, names_file
from preflab.core.records import UserError
from preflab.objectives import PSI


def read_psi(spec: str, *, label_smoothing: float) -> Callable[[float], float]:
    """A name of `PSI`, or `file.py:function` from a probability to a number.

    Raises UserError where there is none, where it is not finite at the two probabilities that are asked for, 1 − ε and
    ε, or not greater at the first, so that rejected responses would be preferred.
    """
    if spec in PSI:
        plugin = Plugin(PSI[spec], spec)
    elif names_file(spec):
        plugin = load_file(spec, "psi")
    else:
        raise UserError(f"psi: found {spec!r}; one of {', '.join(PSI)}, or file.py:function, is needed")
    psi, where = plugin.value, spec
    values = []
    for probability in (1 - label_smoothing, label_smoothing):
        try:
            value = float(psi(probability))
        except (ZeroDivisionError, OverflowError):
            value = math.inf
        except FAILURES as error:
            problem = f"{type(error).__name__}: {error}"
            raise UserError(f"psi: {plugin.place(error)}: {problem}, at the probability {probability}") from error
        if not math.isfinite(value):
            raise UserError(
                f"psi: {where} is not finite at the probability {probability}; a label_smoothing above 0 keeps "
                "away from 0 and 1"
            )
        values.append(value)
    if values[0] <= values[1]:
        raise UserError(
            f"psi: {where} is {values[0]:g} at the probability {1 - label_smoothing:g} and {values[1]:g} at "
            f"{label_smoothing:g}: it must rise, or training would go away from the chosen responses"
        )
    return lambda probability: float(psi(probability))


def psi_fingerprint(spec: str) -> str:
    """Changes with the file of a user's own function."""
    if spec in PSI or not names_file(spec):
        return spec
    return load_file(spec, "psi").fingerprint[:16]
