"""What the judgements of a sample say together, and how many points that is."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType

from preflab.core.records import Judgement, Message, Outcome, Pair, SampleVerdict, unit_of
from preflab.stats.definitions import MEAN_PREFERENCE, TIES_HALF


def leaning(points: float) -> Outcome:
    """The outcome that points in [0, 1] come to: more than half is a win."""
    return "win" if points > 0.5 else "loss" if points < 0.5 else "tie"


OUTCOMES: tuple[Outcome, ...] = ("win", "loss", "tie", "error")


POINTS: Mapping[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def combine(
    judgements: Iterable[Judgement], pairs: Mapping[str, Pair] = MappingProxyType({})
) -> dict[str, SampleVerdict]:
    """What the judgements of each sample say together, by `sample_id`, in the order of first appearance.

    Where `pairs` (by `sample_id`) show that both responses are the same text, that is a tie, whatever was judged: a
    preference between them is of the place, or of rounding.
    """
    grouped: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        grouped.setdefault(judgement.sample_id, []).append(judgement)
    same = {sample_id for sample_id, pair in pairs.items() if pair.response == pair.opponent}
    return {sample_id: _together(group, same_text=sample_id in same) for sample_id, group in grouped.items()}


def _together(judgements: Sequence[Judgement], *, same_text: bool) -> SampleVerdict:
    if same_text:
        return SampleVerdict("tie", POINTS["tie"], None, tuple(judgements))
    outcomes = {judgement.outcome for judgement in judgements}
    if "error" in outcomes:
        return SampleVerdict("error", None, None, tuple(judgements))
    points = sum(j.preference if j.preference is not None else POINTS[j.outcome] for j in judgements) / len(judgements)
    both_orders = {"model_first", "opponent_first"} <= {judgement.order for judgement in judgements}
    flipped = {"win", "loss"} <= outcomes if both_orders else None
    return SampleVerdict(leaning(points), points, flipped, tuple(judgements))


def counts(verdicts: Iterable[SampleVerdict | Judgement]) -> dict[Outcome, int]:
    """How many wins, losses, ties and errors there are, in this order; those that there are none of count 0."""
    found = [verdict.outcome for verdict in verdicts]
    return {outcome: found.count(outcome) for outcome in OUTCOMES}


def definition(judgements: Iterable[Judgement]) -> str:
    """Which of the usual win rates the win rate of these judgements is; two orders are averaged in either."""
    return MEAN_PREFERENCE if any(each.preference is not None for each in judgements) else TIES_HALF


def mean_points(samples: Mapping[str, SampleVerdict], prompts: Mapping[str, Sequence[Message]]) -> tuple[float, int]:
    """The win rate of samples (both by `sample_id`), NaN of none, and the number of prompts that it rests on."""
    by_prompt: dict[Hashable, list[float]] = {}
    for sample_id, found in samples.items():
        if found.points is not None:
            unit = unit_of(prompts.get(sample_id, ())) or row_of(sample_id)
            by_prompt.setdefault(unit, []).append(found.points)
    means = [math.fsum(points) / len(points) for points in by_prompt.values()]
    return (math.fsum(means) / len(means) if means else math.nan), len(means)


_SAMPLE_ID = re.compile(r"(\d+)/(\d+)")  # ours: row of the prompt, and which of its samples


def row_of(sample_id: str) -> str:
    """The part of a sample's name that says whose prompt it is, in files that lack the prompts."""
    ours = _SAMPLE_ID.fullmatch(sample_id)
    return ours[1] if ours else sample_id
