"""Rows that are used though what they say of themselves raises a doubt: scores that tie or contradict the order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypedDict

from preflab.core.records import Comparison
from preflab.data.tokenize import Dropped

_FIRST_ROWS = 10

TIED = "tied scores"
INVERTED = "inverted scores"
LEFT_OUT = "ties left out"
FURTHER = "further responses left out"
DISAGREEING = "disagreeing scores"

MEANING = {
    TIED: "chosen and rejected have the same score",
    INVERTED: "rejected has a higher score than chosen",
    LEFT_OUT: "of responses with one score, the first is used",
    FURTHER: "of a list of good and one of bad responses, the first of each make the pair",
    DISAGREEING: "overall_score and fine-grained_score rank the responses differently",
}


class Remark(TypedDict):
    """How many rows a remark is about, and the numbers of the first of them."""

    count: int
    first_rows: list[int]


class RemarkTally:
    """Remarks on comparisons, found as they pass.

    Attributes:
        found: remark -> the rows that it is about.
        scored: how many of the comparisons have scores.
    """

    def __init__(self) -> None:
        self.found: dict[str, Remark] = {}
        self.scored = 0

    def watch(self, items: Iterable[Comparison | Dropped]) -> Iterator[Comparison | Dropped]:
        for item in items:
            if isinstance(item, Comparison):
                self.add(item)
            yield item

    def add(self, item: Comparison) -> None:
        self.scored += bool(item.scores)
        for remark in remarks_on(item):
            found = self.found.setdefault(remark, {"count": 0, "first_rows": []})
            found["count"] += 1
            if len(found["first_rows"]) < _FIRST_ROWS:
                found["first_rows"].append(item.row)


def remarks_on(item: Comparison) -> Iterator[str]:
    margins = [better - worse for better, worse in pairwise(item.scores)]
    if any(margin < 0 for margin in margins):
        yield INVERTED
    elif any(margin == 0 for margin in margins):
        yield TIED
    if item.meta.get("tied_responses_left_out"):
        yield LEFT_OUT
    if item.meta.get("further_responses_left_out"):
        yield FURTHER
    if item.meta.get("scores_disagree"):
        yield DISAGREEING


def described(remarks: Mapping[str, Remark]) -> list[str]:
    """A line for each remark, with the setting that drops such rows where there is one."""
    lines = []
    for remark, found in remarks.items():
        more = "…" if found["count"] > len(found["first_rows"]) else ""
        advice = "; min_score_margin drops them" if remark in (TIED, INVERTED) else ""
        rows = f"{found['count']} (row {', '.join(map(str, found['first_rows']))}{more})"
        lines.append(f"{remark}: {rows}, {MEANING[remark]}{advice}")
    return lines


def with_margin(item: Comparison, margin: float) -> Comparison | Dropped:
    """Only the responses, from the best on, that each lie at least `margin` in score below the one before; as Dropped
    if that leaves none to compare. What has no scores stays as it is.
    """
    kept: list[int] = []
    for index, score in enumerate(item.scores):
        if not kept or item.scores[kept[-1]] - score >= margin:
            kept.append(index)
    if len(kept) == len(item.responses) or not item.scores:
        return item
    if len(kept) < 2:
        shown = ", ".join(f"{score:g}" for score in item.scores)
        return Dropped(item.row, "score margin", f"the scores {shown} differ by less than {margin:g}")
    return _only(item, kept)


def _only(item: Comparison, kept: Sequence[int]) -> Comparison:
    return replace(
        item,
        responses=tuple(item.responses[index] for index in kept),
        reasoning=tuple(item.reasoning[index] for index in kept) if item.reasoning else (),
        scores=tuple(item.scores[index] for index in kept),
    )
