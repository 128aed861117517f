"""`${name}` in an experiment's file: which names a text holds, and the text with something in their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from preflab.experiment.file import did_you_mean

_REFERENCE = re.compile(r"\$\{\s*([^{}]*?)\s*\}")


def references(value: object) -> Iterator[str]:
    """The names within `${…}` in a text, or in the texts of a list, in their order."""
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)


def fill(text: str, found: Callable[[str], object]) -> object:
    """A text with what `found` gives for each name; of a text that is one name and no more, that itself."""
    whole = _REFERENCE.fullmatch(text)
    return found(whole[1]) if whole else _REFERENCE.sub(lambda match: str(found(match[1])), text)


def fill_values(value: Any, values: Mapping[str, Any]) -> Any:
    """`value` with `${name}` replaced where it names a value; other names stay. A list within a list is spliced.

    Raises ValueError for a list of values amid other text.
    """
    if isinstance(value, list):
        filled = [(item, fill_values(item, values)) for item in value]
        return [part for item, made in filled for part in (made if isinstance(made, list) and item != made else [made])]
    if not isinstance(value, str):
        return value

    def found(name: str) -> object:
        if name not in values:
            return f"${{{name}}}"
        if isinstance(values[name], list) and not _REFERENCE.fullmatch(value):
            raise ValueError(f"${{{name}}} is a list, and cannot stand amid other text: {value}")
        return values[name]

    return fill(value, found)


def resolve_values(values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The values, with those that they name put into one another."""
    named = {name: set(references(value)) for name, value in values.items()}
    for name, others in named.items():
        for other in sorted(others - values.keys()):
            problems.append(f"values.{name}: there is no value {other}" + did_you_mean(other, values))
    resolved: dict[str, Any] = {}
    try:
        for name in TopologicalSorter(named).static_order():
            if name in values:
                resolved[name] = fill_values(values[name], resolved)
    except CycleError as error:
        problems.append(f"values: each of these needs the one before: {' → '.join(error.args[1])}")
    except ValueError as error:
        problems.append(f"values: {error}")
    return {**values, **resolved}


def ordered(after: Mapping[str, set[str]], problems: list[str]) -> list[str]:
    """Names in an order in which each comes after those that it needs, and else as they came; without a way, none."""
    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        problems.append(
            f"stages: each of these needs the one before, so none can be the first: {' → '.join(error.args[1])}"
        )
        return []
    order: list[str] = []
    waiting = list(after)
    while waiting:
        order.append(next(name for name in waiting if after[name] <= set(order)))
        waiting.remove(order[-1])
    return order
