"""What stands in the tables of the page: figures put into words, in cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from preflab.stats.results import Estimate
from preflab.stats.wording import NOTHING, number, span


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a table's cell: the figure, and in smaller type what belongs to it (an interval, a count).

    `href` makes a link of the figure; empty where it is none.
    """

    text: str
    detail: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first cell of a row names it. `caption` may be followed by a `note`.

    A `folded` table shows its caption only, until it is opened.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    folded: bool = False


def estimate(value: Estimate | None, form: Callable[[float], str] = number, *, with_n: bool = False) -> Cell:
    """A figure with its interval, both in the given form, and the number of prompts that it rests on."""
    if value is None:
        return Cell(NOTHING)
    count = f" · n = {value.n}" if with_n else ""
    return Cell(form(value.value), span(value.low, value.high, form) + count)
