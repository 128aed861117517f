"""The Ψ of ΨPO: one that is known by name, or a function of the user's own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

from preflab.core.own_function import FAILURES, load_function, names_function, place_of
from preflab.core.records import UserError
from preflab.objectives import PSI


def read_psi(spec: str, *, label_smoothing: float) -> Callable[[float], float]:
    """A name of `PSI`, or `file.py:function` from a probability to a number.

    Raises UserError where there is none, where it is not finite at the two probabilities that are asked for, 1 − ε and
    ε, or not greater at the first, so that rejected responses would be preferred.
    """
    if spec in PSI:
        psi, where = PSI[spec], spec
    elif names_function(spec):
        function, path = load_function(spec, "for psi")
        psi, where = function, spec
    else:
        raise UserError(f"psi: found {spec!r}; one of {', '.join(PSI)}, or file.py:function, is needed")
    values = []
    for probability in (1 - label_smoothing, label_smoothing):
        try:
            value = float(psi(probability))
        except (ZeroDivisionError, OverflowError):
            value = math.inf
        except FAILURES as error:
            place = place_of(error, path) if spec not in PSI else where
            raise UserError(
                f"psi: {place}: {type(error).__name__}: {error}, at the probability {probability}"
            ) from error
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
    if spec in PSI or not names_function(spec):
        return spec
    return hashlib.sha256(load_function(spec, "for psi")[1].read_bytes()).hexdigest()[:16]
