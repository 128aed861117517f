"""Differences between points of a frontier, and what of them is noise.

Two things make a difference uncertain: which prompts were asked (everybody the same ones, so differences are taken
prompt by prompt), and which seed a run was trained with. Few seeds tell little of the latter, so runs that stand
equally far from the reference are taken together: a run's variance between seeds is that of all of them, or its own
where that is larger. Intervals are Banerjee's (1960), which err on the wide side whatever the two variances are.

What is pooled is taken to be about equally noisy. Of sentences over six objectives of three seeds without a difference,
1 % claim one where that is so, 3 % where one objective's seeds lie three times as far apart, 7 % where they are those
of the yardstick (simulated; 5 % is what is aimed at).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import t

from preflab.stats.statistics import CONFIDENCE, Floats
from preflab.studies.frontier.rows import Curve, known_means

FEWEST_SEEDS = 2
"""A single run does not tell how much runs differ, so it is not compared."""

FARTHEST = 5.0
"""How many times as far from the reference the second of two points may be for a KL between them to be read."""


@dataclass(frozen=True, slots=True)
class Variance:
    """Of a mean, and the degrees of freedom behind it."""

    value: float
    freedom: int


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a difference: a measure as [seeds, prompts]; `seeds` is the variance of its mean that is of seeds,
    None where nothing was trained.
    """

    values: Floats
    seeds: Variance | None = None

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.values))


def trained_sides(values: Mapping[str, Floats]) -> dict[str, Side]:
    """Sides of runs equally far from the reference, each [seeds, prompts]; those of too few seeds are left out."""
    known = {name: each for name, each in values.items() if len(each) >= FEWEST_SEEDS}
    own = {name: float(known_means(each, axis=1).var(ddof=1)) for name, each in known.items()}
    freedoms = {name: len(each) - 1 for name, each in known.items()}
    freedom = sum(freedoms.values())
    pooled = sum(own[name] * freedoms[name] for name in known) / freedom if freedom else 0.0
    return {
        name: Side(each, Variance(max(own[name], pooled) / len(each), freedom))
        for name, each in known.items()
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two means, and the independent parts of its variance."""

    value: float
    parts: tuple[Variance, ...]

    def clear(self, comparisons: int) -> int:
        """1 or −1 where the interval, as one of so many (Bonferroni), lies above or below zero; else 0."""
        tail = 1 - (1 - CONFIDENCE) / (2 * comparisons)
        width = math.sqrt(sum(part.value * float(t.ppf(tail, part.freedom)) ** 2 for part in self.parts))
        return 0 if abs(self.value) <= width else int(math.copysign(1, self.value))


def difference(ours: Side, theirs: Side) -> Difference:
    """Ours − theirs, over the prompts that both have."""
    by_prompt = known_means(ours.values, axis=0) - known_means(theirs.values, axis=0)
    by_prompt = by_prompt[~np.isnan(by_prompt)]
    of_prompts = Variance(float(by_prompt.var(ddof=1)) / len(by_prompt), len(by_prompt) - 1)
    return Difference(
        float(by_prompt.mean()), (of_prompts, *(side.seeds for side in (ours, theirs) if side.seeds is not None))
    )


def gold_at(curve: Curve, level: float) -> Floats | None:
    """Gold reward at a KL: [seeds, prompts], every seed's read from its own runs, between the two that are nearest in
    KL, piecewise linear in √KL. None where no seed's runs lie close enough on both sides.
    """
    runs: dict[int | None, list[tuple[float, Floats]]] = {}
    for point in curve:
        for seed, kl, gold in zip(point.seeds, point.by_seed("kl").tolist(), point.gold, strict=True):
            runs.setdefault(seed, []).append((max(kl, 0.0), gold))
    read = [gold for own in runs.values() if (gold := _between(own, level)) is not None]
    return np.stack(read) if read else None


def _between(run: list[tuple[float, Floats]], level: float) -> Floats | None:
    """run: KL and gold [prompts] of one seed at each strength."""
    for (near, before), (far, after) in pairwise(sorted(run, key=lambda point: point[0])):
        if near <= level <= far <= FARTHEST * near and near < far:
            share = (math.sqrt(level) - math.sqrt(near)) / (math.sqrt(far) - math.sqrt(near))
            between: Floats = (1 - share) * before + share * after
            return between
    return None
