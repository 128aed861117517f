"""What a frontier says, in words: who gains more at equal KL, who loses to best-of-n, whose gold reward falls while the
reward model's score rises.

Only differences that their intervals show are claimed (see `frontier_differences`). Within a sentence the intervals
hold together, at 95 % for all comparisons in it (Bonferroni). KL is taken as measured; its own error is small beside
that of gold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from preflab.stats.results import Finding
from preflab.stats.wording import FEWEST_PROMPTS, UNIT, exact_percent, listed, number, prompts, told_of
from preflab.studies.frontier.differences import FEWEST_SEEDS, Difference, Side, difference, gold_at, trained_sides
from preflab.studies.frontier.rows import Curve, Frontier, Point, best_of_n, curves

LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Nats of KL at which objectives are compared; those are read that most of them reach."""

MOST_LEVELS = 2
YARDSTICK = "dpo"
"""The objective that the others are compared with; the first one where it does not take part."""

BEST_OF_N = "best-of-n"

UNREAD = 0.01
"""Share of responses that the reward model cannot read from which on it is told."""


def reading(frontier: Frontier) -> tuple[Finding, ...]:
    """The sentences that the report shows with the figures, most important first."""
    said = told_of(frontier.trained_on)
    return (*([Finding(f"{said}.", "warning")] if said else []), *_of_rewards(frontier))


def _of_rewards(frontier: Frontier) -> tuple[Finding, ...]:
    if frontier.prompts < FEWEST_PROMPTS:
        return (Finding(f"Too few prompts to read anything from: {prompts(frontier.prompts)}.", "warning"),)
    if not frontier.has_gold:
        text = (
            "The prompts are not the sandbox's, so nobody knows their gold reward: the figures show what the reward "
            "model says, and over-optimisation, where it happens, cannot be seen in them."
        )
        return (Finding(text, "warning"),)
    found, best_of = curves(frontier), best_of_n(frontier)
    levels = _levels(found)
    return (
        *(sentence for level in levels for sentence in _at_equal_kl(found, level)),
        *(sentence for level in levels for sentence in _against_best_of_n(found, best_of, level)),
        *_overoptimised(found, best_of),
        *_unread(frontier),
        *_peaks(found, best_of),
        _basis(frontier, found, _about_the_bound(best_of, levels)),
    )


def yardstick_of(found: Mapping[str, Curve]) -> str:
    """The objective that the others are compared with."""
    return YARDSTICK if YARDSTICK in found else next(iter(found))


def _levels(found: Mapping[str, Curve]) -> list[float]:
    """The levels that most objectives reach, in ascending order."""
    reached = {level: len(_sides_at(found, level)) for level in LEVELS}
    best = sorted((level for level in LEVELS if reached[level]), key=lambda level: (-reached[level], level))
    return sorted(best[:MOST_LEVELS])


def _sides_at(found: Mapping[str, Curve], level: float) -> dict[str, Side]:
    """Gold of every objective of which enough seeds reach this KL."""
    there = {name: gold for name, curve in found.items() if (gold := gold_at(curve, level)) is not None}
    return trained_sides(there)


# ---- who gains more --------------------------------------------------------------------------------------------------


def _at_equal_kl(found: Mapping[str, Curve], level: float) -> Iterator[Finding]:
    """Every objective against the yardstick at this KL."""
    there, yardstick = _sides_at(found, level), yardstick_of(found)
    if yardstick not in there or len(there) < 2:
        return
    base = there.pop(yardstick)
    differences = {name: difference(side, base) for name, side in there.items()}
    sides = {name: each.clear(len(there)) for name, each in differences.items()}
    more, less, unclear = ([name for name in there if sides[name] == side] for side in (1, -1, 0))
    value = number(base.mean, signed=True)
    lead = f"At a KL of {_nats(level)} from the reference, where {yardstick} has a gold reward of {value}, "
    said = [f"{_with_differences(more, differences)} {_have(more)} more"] if more else []
    said += [f"{_with_differences(less, differences)} {_have(less)} less"] if less else []
    if unclear:
        rest = "the others" if said else "the other objectives"
        said.append(f"no difference to {rest} is clear ({listed(unclear)})")
    yield Finding(f"{lead}{'; '.join(said)}.", "neutral")


def _against_best_of_n(found: Mapping[str, Curve], best_of: Curve, level: float) -> Iterator[Finding]:
    """Every objective against best-of-n at this KL."""
    base, there = gold_at(best_of, level), _sides_at(found, level)
    if base is None or not there:
        return
    differences = {name: difference(side, Side(base)) for name, side in there.items()}
    sides = {name: each.clear(len(there)) for name, each in differences.items()}
    value = number(float(np.nanmean(base)), signed=True)
    lost, won, unclear = ([name for name in there if sides[name] == side] for side in (-1, 1, 0))
    lead = f"Best-of-n reaches {value} at a KL of at most {_nats(level)}"
    said = []
    if lost:
        everybody = len(lost) == len(there) and len(lost) > 1
        said.append(f"all {len(lost)} objectives lose to it" if everybody else f"{listed(lost)} {_lose(lost)} to it")
        worst, best = (function(lost, key=lambda name: differences[name].value) for function in (min, max))
        gap = _plain(differences[best])
        said[-1] += f", by {gap} ({best}) to {_plain(differences[worst])} ({worst})" if worst != best else f", by {gap}"
    if won:
        said.append(f"{_with_differences(won, differences)} {_have(won)} more")
    if unclear:
        said.append(f"no difference to {listed(unclear)} is clear")
    yield Finding(f"{lead}: {'; '.join(said)}.", "bad" if lost else "good" if won else "neutral")


# ---- over-optimisation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """A point of a path with what it is compared by."""

    point: Point
    gold: Side
    proxy: Side


def _paths(found: Mapping[str, Curve], best_of: Curve) -> dict[str, list[_Step]]:
    """Every objective from the reference on, and best-of-n; points of too few seeds are left out.

    Points equally far along their curves share their variance between seeds: near the reference and far from it, it
    differs tenfold.
    """
    start, *others = (_Step(point, Side(point.gold), Side(point.proxy)) for point in best_of)
    paths = {name: [start] for name in found}
    for place in range(max(map(len, found.values()))):
        there = {name: curve[place] for name, curve in found.items() if place < len(curve)}
        gold = trained_sides({name: point.gold for name, point in there.items()})
        proxy = trained_sides({name: point.proxy for name, point in there.items()})
        for name in gold:
            paths[name].append(_Step(there[name], gold[name], proxy[name]))
    return {name: path for name, path in paths.items() if len(path) > 1} | {BEST_OF_N: [start, *others]}


def _overoptimised(found: Mapping[str, Curve], best_of: Curve) -> Iterator[Finding]:
    """Where gold falls while the proxy rises as KL grows, where the proxy does not rise meanwhile, where gold does not
    fall.
    """
    paths, reference = _paths(found, best_of), best_of[0]
    comparisons = 2 * sum(math.comb(len(path), 2) for path in paths.values())
    changes = {name: [_change(near, far) for near, far in combinations(path, 2)] for name, path in paths.items()}
    falls = {name: [c for c in own if c.gold.clear(comparisons) < 0] for name, own in changes.items()}
    hidden = {
        name: min(rising, key=lambda change: change.gold.value)
        for name, own in falls.items()
        if (rising := [change for change in own if change.proxy.clear(comparisons) > 0])
    }
    if hidden:
        strongest = min(hidden, key=lambda name: hidden[name].gold.value)
        shown = [strongest, *([BEST_OF_N] if BEST_OF_N in hidden and strongest != BEST_OF_N else [])]
        examples = "; ".join(f"{name} {_described(hidden[name], reference)}" for name in shown)
        lead = f"Over-optimisation, gold falling while the reward model's score rises: {listed(list(hidden))}"
        yield Finding(f"{lead}. Most of all {examples}.", "warning")
    if seen := [name for name, own in falls.items() if own and name not in hidden]:
        said = f"With {listed(seen)} gold falls too, but the reward model's score does not clearly rise meanwhile"
        ends = {
            name: next(c for c in changes[name] if c.near is reference and c.far is paths[name][-1].point)
            for name in seen
        }
        blind = [n for n, c in ends.items() if c.proxy.clear(comparisons) > 0 and c.gold.clear(comparisons) < 1]
        if blind:
            whose = "them" if blind == seen and len(seen) > 1 else listed(blind)
            said += f"; at the far end of {whose} it still sees a gain over the reference, where none of gold is clear"
        yield Finding(f"{said}.", "warning")
    if rest := [name for name, own in falls.items() if not own]:
        yield Finding(f"With {listed(rest)} no fall of gold is clear at the KLs that were reached.", "neutral")


@dataclass(frozen=True, slots=True)
class _Change:
    """From one point of a path to a later one."""

    near: Point
    far: Point
    gold: Difference
    proxy: Difference


def _change(near: _Step, far: _Step) -> _Change:
    return _Change(near.point, far.point, difference(far.gold, near.gold), difference(far.proxy, near.proxy))


def _described(change: _Change, reference: Point) -> str:
    """ "from KL 1.3 to 8.7 (beta 0.1): gold +1.43 to +1.04, reward model +0.55 to +0.72"."""
    near, far = change.near, change.far
    start = "the reference to KL" if near is reference else f"KL {number(near.mean('kl'))} to"
    label = f" ({far.label})" if far.label else ""
    golds, proxies = (
        f"{number(near.mean(name), signed=True)} to {number(far.mean(name), signed=True)}" for name in ("gold", "proxy")
    )
    return f"from {start} {number(far.mean('kl'))}{label}: gold {golds}, reward model {proxies}"


def _unread(frontier: Frontier) -> Iterator[Finding]:
    """Whose responses the reward model could not read."""
    everybody = {policy.name: policy.measures for policy in frontier.policies}
    everybody["the reference"] = frontier.best_of[0].measures
    shares = {name: float(measures.unread.mean()) for name, measures in everybody.items()}
    told = sorted((name for name in shares if shares[name] >= UNREAD), key=lambda name: -shares[name])
    if told:
        others = f", and of {len(told) - 1} others fewer" if len(told) > 2 else ""
        shown = [f"{exact_percent(shares[name])} of {name}" for name in (told[:1] if others else told)]
        text = (
            f"The reward model cannot read some responses, empty ones say: {listed(shown)}{others}. Each counts with "
            "the lowest score of the reference's responses"
        )
        yield Finding(f"{text}.", "warning")


# ---- where gold is highest -------------------------------------------------------------------------------------------


def _peaks(found: Mapping[str, Curve], best_of: Curve) -> Iterator[Finding]:
    """Where measured gold is highest on each curve, and whether one objective's highest is clearly the highest."""
    tops = {name: max(curve, key=lambda point: point.mean("gold")) for name, curve in found.items()}
    nearest = [name for name, curve in found.items() if tops[name] is curve[0]]
    farthest = [name for name, curve in found.items() if tops[name] is curve[-1] and name not in nearest]
    inside = [name for name in found if name not in nearest and name not in farthest]
    said = [f"within the sweep with {listed(inside)}, {_spans(inside, tops)}"] if inside else []
    for names, end, beyond in ((nearest, "nearest to", "nearer"), (farthest, "farthest from", "farther")):
        if names:
            which = "the one" if len(names) == 1 else "those"
            said.append(
                f"with {listed(names)} no swept point does better than {which} {end} the reference, "
                f"{_spans(names, tops)}, so the peak may lie {beyond}"
            )
    limit = max(best_of, key=lambda point: point.mean("gold"))
    said.append(f"of best-of-n, {limit.label} ({_gold(limit)}); the reference has {_gold(best_of[0])}")
    yield Finding(f"Where measured gold is highest: {'; '.join(said)}.", "neutral")
    if len(tops) > 1:
        yield _highest(tops, _paths(found, best_of))


def _highest(tops: Mapping[str, Point], paths: Mapping[str, Sequence[_Step]]) -> Finding:
    """Which objective has the highest gold, if one clearly does. Tops are chosen by what is compared, so as many
    comparisons count as could have been made: those of all pairs of points.
    """
    sides = {name: step.gold for name, path in paths.items() for step in path if step.point is tops.get(name)}
    points = sum(len(path) - 1 for name, path in paths.items() if name in tops)
    best = max(tops, key=lambda name: tops[name].mean("gold"))
    label = f", {tops[best].label}" if tops[best].label else ""
    lead = f"The highest gold of all policies is measured with {best} ({_gold(tops[best])} at {_kl(tops[best])}{label})"
    unclear = [
        name
        for name in tops
        if name != best
        and not ({name, best} <= sides.keys() and difference(sides[best], sides[name]).clear(math.comb(points, 2)) > 0)
    ]
    if unclear:
        return Finding(f"{lead}, but it is not clear that {listed(unclear)} cannot reach as much.", "neutral")
    others = "the highest of the other" if len(tops) == 2 else "the highest of each other objective"
    caveat = f"as the highest of {points} points on the same prompts it reads a little too high itself"
    return Finding(f"{lead}, clearly more than {others}; {caveat}.", "neutral")


def _spans(names: Sequence[str], tops: Mapping[str, Point]) -> str:
    """ "at 0.63 to 0.77 nats" """
    kls = sorted(tops[name].mean("kl") for name in names)
    return f"at {number(kls[0])} to {_nats(kls[-1])}" if len(kls) > 1 else f"at {_nats(kls[0])}"


# ---- what it rests on ------------------------------------------------------------------------------------------------


def _about_the_bound(best_of: Curve, levels: Sequence[float]) -> str:
    """Which way it errs that the KL of best-of-n is an upper bound: at equal KL its n would be larger, which is better
    while its gold rises with n, and may be worse where it does not.
    """
    read = [level for level in levels if gold_at(best_of, level) is not None]
    peak = max(best_of, key=lambda point: point.mean("gold")).mean("kl")
    rising, beyond = ([level for level in read if (level < peak) is before] for before in (True, False))
    said = []
    if rising:
        said.append(f"at {_all_nats(rising)}, where its gold still rises, it may do better than said here, not worse")
    if beyond:
        said.append(f"at {_all_nats(beyond)}, where its gold no longer rises, it may do better or worse than said here")
    return f" The KL of best-of-n is an upper bound: {'; '.join(said)}." if said else ""


def _basis(frontier: Frontier, found: Mapping[str, Curve], bound: str) -> Finding:
    """What all of it rests on."""
    seeds = sorted({len(point.gold) for curve in found.values() for point in curve})
    runs = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else "1 seed" if seeds == [1] else f"{seeds[0]} seeds"
    alone = ""
    if seeds[0] < FEWEST_SEEDS:
        which = "no policies are" if len(seeds) == 1 else "points of one seed are not"
        alone = f"; how much training runs differ cannot be told from one seed, so {which} compared"
    text = (
        f"This rests on {prompts(frontier.prompts)} and {runs} for each point{alone}. Differences are named where "
        f"their 95{UNIT} intervals, together for all comparisons of a sentence, leave out zero."
    )
    truth = f" The gold reward is the score by {frontier.gold}." if frontier.gold else ""
    return Finding(f"{text}{bound}{truth}", "neutral")


# ---- wording ---------------------------------------------------------------------------------------------------------


def _nats(kl: float) -> str:
    shown = f"{kl:g}" if kl in LEVELS else number(kl)
    return f"{shown} nat" if kl == 1 else f"{shown} nats"


def _all_nats(levels: Sequence[float]) -> str:
    return f"{listed([f'{level:g}' for level in levels])} {'nat' if list(levels) == [1] else 'nats'}"


def _kl(point: Point) -> str:
    return _nats(point.mean("kl"))


def _gold(point: Point) -> str:
    return number(point.mean("gold"), signed=True)


def _plain(difference: Difference) -> str:
    return number(abs(difference.value))


def _with_differences(names: Sequence[str], differences: Mapping[str, Difference]) -> str:
    ordered = sorted(names, key=lambda name: -abs(differences[name].value))
    return listed([f"{name} ({number(differences[name].value, signed=True)})" for name in ordered])


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _lose(names: Sequence[str]) -> str:
    return "loses" if len(names) == 1 else "lose"
