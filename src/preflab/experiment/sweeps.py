"""Several of one stage: what is swept, crossed, and which instance of one stage goes with which of another.

A variant says what a sweep gave an instance, here or in a stage that it follows: {"beta": 0.1, "seed": 0}. Two variants
agree where they do not contradict one another: what was swept under one name goes hand in hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as crossed_product
from pathlib import Path
from typing import Any

from preflab.experiment.references import fill, references

Variant = Mapping[str, Any]


@dataclass(frozen=True)
class Instance:
    """What others can name of a stage: its product by `${name}`, its folder by `${name.folder}`."""

    name: str
    variant: Variant
    folder: Path
    product: Path


Instances = Mapping[str, Sequence[Instance]]
"""The instances of each stage by its name in the file."""


def stages_in(value: object) -> list[str]:
    """The stages that `${…}` in a text, or in the texts of a list, name; each once."""
    return list(dict.fromkeys(name.removesuffix(".folder") for name in references(value)))


def crossed(sweep: Mapping[str, Sequence[Any]]) -> Iterator[Variant]:
    """Every combination of one value of each; of nothing swept, the one combination of nothing."""
    for values in crossed_product(*sweep.values()):
        yield dict(zip(sweep, values, strict=True))


def joined(variants: Sequence[Variant], others: Sequence[Variant]) -> list[Variant]:
    """Every combination of a variant with another that agrees with it, each once."""
    together = [{**one, **other} for one in variants for other in others if _agree(one, other)]
    return [variant for place, variant in enumerate(together) if variant not in together[:place]]


def _agree(one: Variant, other: Variant) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def shown(value: object) -> object:
    """A swept value as a variant holds it: a stage by its name."""
    return fill(value, lambda name: name) if isinstance(value, str) else value


def name_of(group: str, variant: Variant) -> str:
    """`dpo`, {"beta": 0.1, "seed": 0} -> `dpo-beta-0.1-seed-0`, which a folder, and a `name=`, can be called."""
    parts = [f"-{name}-{_word(value)}" for name, value in variant.items()]
    return group + "".join(parts)


def _word(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^\w.]+", "-", text).strip("-.") if not isinstance(value, (int, float)) else text


def put_in(text: str, variant: Variant, instances: Instances) -> list[tuple[str, list[Instance]]]:
    """A text with `${…}` filled in, once for every instance that agrees with the variant, and the instances meant.

    A name in front, as in `dpo=${dpo}`, is told apart by what the variant leaves open: `dpo-beta-0.1=…`.
    """
    found: list[tuple[Variant, dict[str, Instance]]] = [(variant, {})]
    for stage in stages_in(text):
        found = [
            ({**so_far, **instance.variant}, {**chosen, stage: instance})
            for so_far, chosen in found
            for instance in instances[stage]
            if _agree(so_far, instance.variant)
        ]
    return [
        (_told_apart(str(fill(text, _lookup(chosen))), text, so_far, variant), list(chosen.values()))
        for so_far, chosen in found
    ]


def _lookup(chosen: Mapping[str, Instance]) -> Callable[[str], Path]:
    def found(name: str) -> Path:
        instance = chosen[name.removesuffix(".folder")]
        return instance.folder if name.endswith(".folder") else instance.product

    return found


def _told_apart(filled: str, text: str, so_far: Variant, variant: Variant) -> str:
    left_open = {name: value for name, value in so_far.items() if name not in variant}
    named = re.match(r"[\w.-]+(?==)", text)
    return name_of(named[0], left_open) + filled[named.end() :] if named else filled
