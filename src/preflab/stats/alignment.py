"""Everybody's responses to the same prompts, laid side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from preflab.core.records import UserError

Row = dict[str, Any]
Key = tuple[int, int]
"""Number of a prompt, and which of the responses to it."""


@dataclass(frozen=True)
class Aligned:
    """`rows` has everybody's response by prompt and sample; `left_out` the prompts that somebody has not answered, and
    who.
    """

    rows: Mapping[Key, Mapping[str, Row]]
    left_out: Mapping[int, tuple[str, ...]]


def align(responses: Mapping[str, Iterable[Row]]) -> Aligned:
    """Name -> rows with `row` (of the prompt) and `sample`; the same side by side, in the order of the first.

    A prompt that one of them has not answered is left out for all. One response stands beside each of several. Raises
    UserError where two have several responses to a prompt, and not equally many.
    """
    answered = {name: _by_prompt(rows) for name, rows in responses.items()}
    prompts = dict.fromkeys(prompt for rows in answered.values() for prompt in rows)
    rows: dict[Key, dict[str, Row]] = {}
    left_out: dict[int, tuple[str, ...]] = {}
    for prompt in prompts:
        if missing := tuple(name for name, own in answered.items() if prompt not in own):
            left_out[prompt] = missing
            continue
        numbers = {name: len(own[prompt]) for name, own in answered.items()}
        samples = max(numbers.values())
        if odd := [name for name, number in numbers.items() if number not in (1, samples)]:
            most = max(numbers, key=lambda name: numbers[name])
            raise UserError(
                f"prompt {prompt}: {most} has {samples} responses and {odd[0]} {numbers[odd[0]]}; every model needs as "
                "many as the others, or one that is set beside each of them"
            )
        for sample in range(samples):
            rows[prompt, sample] = {
                name: own[prompt][sample if numbers[name] > 1 else 0] for name, own in answered.items()
            }
    return Aligned(rows, left_out)


def _by_prompt(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["row"], []).append(row)
    return {prompt: sorted(own, key=lambda row: int(row["sample"])) for prompt, own in found.items()}
