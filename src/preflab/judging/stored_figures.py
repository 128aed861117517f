"""Counts and rates that a verdict file states, beside those that follow from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from preflab.core.records import Outcome, UserError

_COUNTS: Mapping[str, Outcome] = {
    **dict.fromkeys(("model", "win", "wins"), "win"),
    **dict.fromkeys(("chosen", "baseline", "opponent", "loss", "losses"), "loss"),
    **dict.fromkeys(("tie", "ties"), "tie"),
    **dict.fromkeys(("error", "errors"), "error"),
}
_RATES: Mapping[str, Outcome] = {
    "model_winrate": "win",
    **dict.fromkeys(("chosen_winrate", "baseline_winrate", "opponent_winrate"), "loss"),
    "tie_rate": "tie",
    "error_rate": "error",
}
_SIDES: Mapping[str, Outcome] = {"model": "win", "opponent": "loss"}  # as the metadata calls them
_COUNT_TABLES = ("win_counts",)
_RATE_TABLES = ("win_rates", "winrates")
_LARGEST = 1e12  # far beyond any count, and small enough to reckon with


@dataclass(frozen=True, slots=True)
class StoredFigure:
    """A count, or a rate (a share or a percentage), of the samples with an outcome, as the file states it."""

    table: str
    name: str
    value: float
    outcome: Outcome
    is_rate: bool

    def is_called(self, word: str) -> bool:
        """Whether its name calls the opponent by this word."""
        return self.name.lower() in (word, f"{word}_winrate")


def stored_figures(path: Path, document: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[StoredFigure, ...]:
    """The counts and rates that stand in a document. Model and opponent may be called by their names in the metadata.

    Raises UserError for one that is not a number, or whose name says nothing, so that nothing stays unchecked.
    """
    sides: dict[str, Outcome] = {
        str(metadata[side]).lower(): outcome for side, outcome in _SIDES.items() if side in metadata
    }
    if len(sides) < len(_SIDES):  # one name for both says nothing
        sides = {}
    named: dict[bool, Mapping[str, Outcome]] = {
        False: {**sides, **_COUNTS},
        True: {**{f"{name}_winrate": outcome for name, outcome in sides.items()}, **_RATES},
    }
    found = []
    for table in (*_COUNT_TABLES, *_RATE_TABLES):
        values, is_rate = document.get(table), table in _RATE_TABLES
        if values is not None and not isinstance(values, dict):
            raise UserError(
                f"{path}: `{table}` is {str(values)[:60]!r}; an object with a number for each name is needed"
            )
        for name, value in (values or {}).items():
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
                raise UserError(f"{path}: `{table}.{name}` is {str(value)[:60]!r}; a number is needed")
            outcome = named[is_rate].get(name.lower())
            if outcome is None:
                known = ", ".join(named[is_rate])
                raise UserError(f"{path}: `{table}.{name}`: what this counts cannot be told; known are {known}")
            found.append(StoredFigure(table, name, value, outcome, is_rate))
    return tuple(found)


def unlike_rows(stored: Sequence[StoredFigure], counted: Mapping[Outcome, int]) -> str:
    """A table of all stored figures beside those of the rows where any differs by more than rounding; else "".

    Rates are shares or percentages: percentages, if one of them is above 1. Rounding is judged by the digits of the
    finest rate, because a number such as 0.60 is stored as 0.6. Shares of 1 and 0 alone show no rounding: all and none.
    """
    rates = [figure.value for figure in stored if figure.is_rate]
    total = sum(counted.values())
    scale = 100 if any(value > 1 for value in rates) else 1
    digits = max([0, *(_decimals(value) for value in rates)])
    tolerance = 1e-9 + (0.5 * 10.0**-digits if digits or scale == 100 else 0.0)
    lines, differ = [], False
    for figure in stored:
        right = counted[figure.outcome] * (scale / total if figure.is_rate else 1)
        agrees = abs(right - figure.value) <= (tolerance if figure.is_rate else 0)
        differ |= not agrees
        name = f"{figure.table}.{figure.name}"
        lines.append((name, f"{figure.value:.6g}", f"{right:.6g}", "" if agrees else "  <- differs"))
    if not differ:
        return ""
    lines.insert(0, ("", "stored", f"from the rows ({total})", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {right:>{widths[2]}}{mark}" for name, value, right, mark in lines
    )


def _decimals(value: float) -> int:
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
