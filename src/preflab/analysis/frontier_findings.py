"""What a frontier says, in words: who gains more at equal KL, who loses to best-of-n, whose gold reward falls while the
reward model's score rises.

Only differences that their intervals show are claimed. An interval of a difference is made of two parts: how prompts
differ (the prompts are the same for everybody, so differences are taken prompt by prompt), and how training runs with
different seeds differ, pooled over what stands in one sentence. Within a sentence the intervals hold together, at 95 %
for all comparisons in it (Bonferroni). KL is taken as measured; its own error is small beside that of gold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from scipy.stats import norm, t

from preflab.analysis.frontier import Curve, Frontier, Point, best_of_n, curves
from preflab.analysis.results import Finding
from preflab.analysis.statistics import CONFIDENCE, Floats
from preflab.analysis.wording import FEWEST_PROMPTS, UNIT, capital, listed, number, prompts

LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Nats of KL at which objectives are compared; those are read that most of them reach."""

MOST_LEVELS = 2
YARDSTICK = "dpo"
"""The objective that the others are compared with; the first one where it does not take part."""

BEST_OF_N = "best-of-n"


def reading(frontier: Frontier) -> tuple[Finding, ...]:
    """The sentences that the report shows with the figures, most important first."""
    if frontier.prompts < FEWEST_PROMPTS:
        return (Finding(f"Too few prompts to read anything from: {prompts(frontier.prompts)}.", "warning"),)
    if not frontier.has_gold:
        text = (
            "The prompts are not the sandbox's, so nobody knows their gold reward: the figures show what the reward "
            "model says, and over-optimisation, where it happens, cannot be seen in them."
        )
        return (Finding(text, "warning"),)
    found = curves(frontier)
    yardstick = best_of_n(frontier)
    levels = _levels(found)
    return (
        *(sentence for level in levels for sentence in _at_equal_kl(found, level)),
        *(sentence for level in levels for sentence in _against_best_of_n(found, yardstick, level)),
        *_overoptimised({**found, BEST_OF_N: yardstick}, yardstick[0]),
        *_peaks(found, yardstick),
        _basis(frontier, found),
    )


def yardstick_of(found: Mapping[str, Curve]) -> str:
    """The objective that the others are compared with."""
    return YARDSTICK if YARDSTICK in found else next(iter(found))


# ---- differences -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Difference:
    """Of means; `error` is its standard error, `freedom` the degrees of freedom behind the part that is of seeds."""

    value: float
    error: float
    freedom: int

    def clear(self, comparisons: int) -> int:
        """1 or −1 where the interval, as one of so many, lies above or below zero; else 0."""
        tail = 1 - (1 - CONFIDENCE) / (2 * comparisons)
        width = self.error * float(t.ppf(tail, self.freedom) if self.freedom else norm.ppf(tail))
        return 0 if abs(self.value) <= width else int(math.copysign(1, self.value))


@dataclass(frozen=True, slots=True)
class _SeedSpread:
    """Variance of a measure between runs that differ in their seed only, pooled, and its degrees of freedom."""

    variance: float
    freedom: int


def _seed_spread(values: Iterable[Floats]) -> _SeedSpread:
    """values: [seeds, prompts] of each point."""
    squares, freedom = 0.0, 0
    for each in values:
        means = np.nanmean(each, axis=1)
        squares += float(((means - means.mean()) ** 2).sum())
        freedom += len(means) - 1
    return _SeedSpread(squares / freedom if freedom else 0.0, freedom)


def _difference(ours: Floats, theirs: Floats, spread: _SeedSpread, *, trained: tuple[bool, bool]) -> _Difference:
    """Of [seeds, prompts] each; `trained` says which of the two came out of training, and so depends on a seed."""
    by_prompt = np.nanmean(ours, axis=0) - np.nanmean(theirs, axis=0)
    by_prompt = by_prompt[~np.isnan(by_prompt)]
    runs = sum(1 / len(side) for side, depends in zip((ours, theirs), trained, strict=True) if depends)
    variance = by_prompt.var(ddof=1) / len(by_prompt) + spread.variance * runs
    return _Difference(float(by_prompt.mean()), math.sqrt(variance), spread.freedom)


def gold_at(curve: Curve, level: float) -> Floats | None:
    """Gold reward of a curve at a KL: [seeds, prompts], between its two nearest points linear in √KL (in which gold is
    nearly straight: Gao et al., 2023); None beyond its ends.
    """
    for near, far in pairwise(curve):
        low, high = math.sqrt(max(near.mean("kl"), 0)), math.sqrt(max(far.mean("kl"), 0))
        if low <= math.sqrt(level) <= high:
            share = (math.sqrt(level) - low) / (high - low) if high > low else 0.0
            seeds = min(len(near.gold), len(far.gold))
            between: Floats = (1 - share) * near.gold[:seeds] + share * far.gold[:seeds]
            return between
    return None


def _levels(found: Mapping[str, Curve]) -> list[float]:
    """The levels that most objectives reach, in ascending order."""
    reached = {level: sum(gold_at(curve, level) is not None for curve in found.values()) for level in LEVELS}
    best = sorted((level for level in LEVELS if reached[level]), key=lambda level: (-reached[level], level))
    return sorted(best[:MOST_LEVELS])


# ---- who gains more --------------------------------------------------------------------------------------------------


def _at_equal_kl(found: Mapping[str, Curve], level: float) -> Iterator[Finding]:
    """Every objective against the yardstick at this KL."""
    there = {name: gold for name, curve in found.items() if (gold := gold_at(curve, level)) is not None}
    yardstick = yardstick_of(found)
    if yardstick not in there or len(there) < 2:
        return
    spread = _seed_spread(there.values())
    base = there.pop(yardstick)
    differences = {name: _difference(gold, base, spread, trained=(True, True)) for name, gold in there.items()}
    sides = {name: difference.clear(len(there)) for name, difference in differences.items()}
    more, less, unclear = ([name for name in there if sides[name] == side] for side in (1, -1, 0))
    value = number(float(np.nanmean(base)), signed=True)
    lead = f"At a KL of {_nats(level)} from the reference, where {yardstick} has a gold reward of {value}, "
    said = [f"{_with_differences(more, differences)} {_have(more)} more"] if more else []
    said += [f"{_with_differences(less, differences)} {_have(less)} less"] if less else []
    if unclear:
        rest = "the others" if said else "the other objectives"
        said.append(f"no difference to {rest} is clear ({listed(unclear)})")
    yield Finding(f"{lead}{'; '.join(said)}.", "neutral")


def _against_best_of_n(found: Mapping[str, Curve], yardstick: Curve, level: float) -> Iterator[Finding]:
    """Every objective against best-of-n at this KL."""
    base = gold_at(yardstick, level)
    there = {name: gold for name, curve in found.items() if (gold := gold_at(curve, level)) is not None}
    if base is None or not there:
        return
    spread = _seed_spread(there.values())
    differences = {name: _difference(gold, base, spread, trained=(True, False)) for name, gold in there.items()}
    sides = {name: difference.clear(len(there)) for name, difference in differences.items()}
    value = number(float(np.nanmean(base)), signed=True)
    lost, won, unclear = ([name for name in there if sides[name] == side] for side in (-1, 1, 0))
    lead = f"Best-of-n reaches {value} at a KL of at most {_nats(level)}"
    said = []
    if lost:
        everybody = len(lost) == len(there) and len(lost) > 1
        said.append(f"all {len(lost)} objectives lose to it" if everybody else f"{listed(lost)} {_lose(lost)} to it")
        worst, best = (function(lost, key=lambda name: differences[name].value) for function in (min, max))
        gaps = f"by {_plain(differences[best])} ({best})"
        said[-1] += f", {gaps} to {_plain(differences[worst])} ({worst})" if worst != best else f", {gaps}"
    if won:
        said.append(f"{_with_differences(won, differences)} {_have(won)} more")
    if unclear:
        said.append(f"no difference to {listed(unclear)} is clear")
    yield Finding(f"{lead}: {'; '.join(said)}.", "bad" if lost else "good" if won else "neutral")


# ---- over-optimisation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fall:
    """Two points of a curve, the nearer one first, between which gold falls."""

    near: Point
    far: Point
    gold: float


def _overoptimised(found: Mapping[str, Curve], reference: Point) -> Iterator[Finding]:
    """Where gold falls while the proxy rises as KL grows, where both fall, and where gold does not fall."""
    hidden: dict[str, _Fall] = {}
    seen: dict[str, _Fall] = {}
    paths = {name: curve if curve[0] is reference else (reference, *curve) for name, curve in found.items()}
    spreads = {
        measure: _seed_spread(getattr(point, measure) for path in paths.values() for point in path)
        for measure in ("gold", "proxy")
    }
    pairs = sum(math.comb(len(path), 2) for path in paths.values())
    for name, path in paths.items():
        falls = list(_falls(path, spreads, trained=name != BEST_OF_N, comparisons=2 * pairs))
        rising = [fall for fall, proxy in falls if proxy > 0]
        if rising:
            hidden[name] = min(rising, key=lambda fall: fall.gold)
        elif falls:
            seen[name] = min((fall for fall, _ in falls), key=lambda fall: fall.gold)
    if hidden:
        strongest = min(hidden, key=lambda name: hidden[name].gold)
        shown = [strongest, *([BEST_OF_N] if BEST_OF_N in hidden and strongest != BEST_OF_N else [])]
        examples = "; ".join(f"{name} {_fall(hidden[name])}" for name in shown)
        lead = f"Over-optimisation, gold falling while the reward model's score rises: {listed(list(hidden))}"
        yield Finding(f"{lead}. Most of all {examples}.", "warning")
    if seen:
        said = f"With {listed(list(seen))} gold falls too, but the reward model's score does not clearly rise meanwhile"
        yield Finding(f"{said}.", "warning")
    if rest := [name for name in found if name not in hidden and name not in seen]:
        yield Finding(f"With {listed(rest)} no fall of gold is clear at the KLs that were reached.", "neutral")


def _falls(
    path: Sequence[Point], spreads: Mapping[str, _SeedSpread], *, trained: bool, comparisons: int
) -> Iterator[tuple[_Fall, int]]:
    """Every two points of a path, which begins at the reference, between which gold clearly falls; and where the proxy
    clearly goes meanwhile.
    """
    for near, far in combinations(path, 2):
        sides = (trained, trained and near is not path[0])
        change = {
            measure: _difference(getattr(far, measure), getattr(near, measure), spread, trained=sides)
            for measure, spread in spreads.items()
        }
        if change["gold"].clear(comparisons) < 0:
            yield _Fall(near, far, change["gold"].value), change["proxy"].clear(comparisons)


def _fall(fall: _Fall) -> str:
    """ "from KL 1.3 to 8.7 (beta 0.1): gold +1.43 to +1.04, reward model +0.55 to +0.72"."""
    kls, golds, proxies = (
        f"{number(fall.near.mean(name), signed=signed)} to {number(fall.far.mean(name), signed=signed)}"
        for name, signed in (("kl", False), ("gold", True), ("proxy", True))
    )
    label = f" ({fall.far.label})" if fall.far.label else ""
    return f"from KL {kls}{label}: gold {golds}, reward model {proxies}"


def _peaks(found: Mapping[str, Curve], yardstick: Curve) -> Iterator[Finding]:
    """Where gold is highest."""
    tops = {name: max(curve, key=lambda point: point.mean("gold")) for name, curve in found.items()}
    best = max(tops, key=lambda name: tops[name].mean("gold"))
    kls = sorted(top.mean("kl") for top in tops.values())
    top, limit = tops[best], max(yardstick, key=lambda point: point.mean("gold"))
    spans = f"between {number(kls[0])} and {_nats(kls[-1])}" if len(kls) > 1 else f"at {_nats(kls[0])}"
    label = f", {top.label}" if top.label else ""
    text = (
        f"gold is highest {spans} of KL: of all policies with {best} ({_gold(top)} at {_nats(top.mean('kl'))}{label}), "
        f"of best-of-n with {limit.label} ({_gold(limit)}); the reference has {_gold(yardstick[0])}"
    )
    yield Finding(f"{capital(text)}.", "neutral")


def _basis(frontier: Frontier, found: Mapping[str, Curve]) -> Finding:
    """What all of it rests on."""
    seeds = sorted({len(point.gold) for curve in found.values() for point in curve})
    runs = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else "1 seed" if seeds == [1] else f"{seeds[0]} seeds"
    alone = "; with one seed each, how much training runs differ is not in the intervals" if seeds == [1] else ""
    text = (
        f"This rests on {prompts(frontier.prompts)} and {runs} for each point{alone}. Differences are named where "
        f"their 95{UNIT} intervals, together for all comparisons of a sentence, leave out zero. The KL of best-of-n is "
        "an upper bound, so it may do better at equal KL than said here, not worse"
    )
    return Finding(f"{text}.", "neutral")


# ---- wording ---------------------------------------------------------------------------------------------------------


def _nats(kl: float) -> str:
    shown = f"{kl:g}" if kl in LEVELS else number(kl)
    return f"{shown} nat" if kl == 1 else f"{shown} nats"


def _gold(point: Point) -> str:
    return number(point.mean("gold"), signed=True)


def _plain(difference: _Difference) -> str:
    return number(abs(difference.value))


def _with_differences(names: Sequence[str], differences: Mapping[str, _Difference]) -> str:
    ordered = sorted(names, key=lambda name: -abs(differences[name].value))
    return listed([f"{name} ({number(differences[name].value, signed=True)})" for name in ordered])


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _lose(names: Sequence[str]) -> str:
    return "loses" if len(names) == 1 else "lose"
