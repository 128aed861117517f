"""A frontier: policies of one reference, and what they gain and lose as they move away from it; read from its folder.

frontier.json          reference, reward model, `samples` of a policy to each prompt, and for each policy {name,
                       objective, settings, seed, source} with its figures; `best_of_n` the same for the best `of` so
                       many of the reference's responses; in both `n` counts prompts. `trained_on` says of policies,
                       reference and reward model on how many of the prompts each was trained, null where unknown
prompts.jsonl          what was asked
responses/NAME.jsonl   a policy's responses, each with its `kl`, `proxy` and, where the truth is known, `gold`
reference.jsonl        many responses of the reference to each prompt, from which best-of-n is taken

Gold is the sandbox's true reward (or the scorer that was named as the truth), proxy the reward model's score, KL the
divergence of a policy's responses from the reference's, in nats per response. A response that the reward model cannot
read (an empty one, say) has no proxy in its row and counts everywhere with the lowest one of the reference's
responses: left out, it would raise the mean of a policy that learns to write such responses. `unread` is their share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preflab.core.file_format import without_format
from preflab.core.origins import Leak, leaks_of
from preflab.core.records import DisagreementError, UserError
from preflab.core.rundir import read_json, read_jsonl
from preflab.core.ties import is_score
from preflab.stats.statistics import Floats, floats, per_prompt
from preflab.stats.wording import setting

Row = Mapping[str, Any]
MEASURES = ("kl", "gold", "proxy")
HEAD = "frontier.json"


@dataclass(frozen=True, slots=True)
class Measures:
    """KL, gold and proxy reward by prompt, and the share of its responses that the reward model could not read ([P]
    each, means over a prompt's responses).

    `gold` is NaN throughout where the truth is not known.
    """

    kl: Floats
    gold: Floats
    proxy: Floats
    unread: Floats

    def figures(self) -> dict[str, float | int]:
        """Means over prompts with their standard errors (over prompts), as `frontier.json` states them."""
        found: dict[str, float | int] = {"n": len(self.kl), "unread": float(self.unread.mean())}
        for name in MEASURES:
            values = getattr(self, name)
            known = values[~np.isnan(values)]
            found[name] = float(known.mean()) if known.size else math.nan
            found[f"{name}_se"] = float(known.std(ddof=1) / math.sqrt(known.size)) if known.size > 1 else math.nan
        return found


@dataclass(frozen=True, slots=True)
class Policy:
    """A trained policy.

    Attributes:
        objective: what it was trained with ("dpo"), or its own name where nothing tells.
        settings: the training settings in which policies of this objective differ, besides the seed ({"beta": 0.1}).
        seed: of its training, where it is known.
    """

    name: str
    objective: str
    settings: Mapping[str, Any]
    seed: int | None
    measures: Measures


@dataclass(frozen=True, slots=True)
class BestOf:
    """The best of n responses of the reference, by the proxy. `measures.kl` is the bound for every prompt."""

    n: int
    measures: Measures


@dataclass(frozen=True, slots=True)
class Frontier:
    """Policies of one reference on the same prompts.

    Attributes:
        best_of: in ascending order of n, from n = 1: the reference itself.
        spread: gold, proxy -> standard deviation over the reference's responses, a unit that both can be shown in.
        trained_on: of the prompts, those that a model was trained on, by its name, where that is known.
        gold: the scorer that was named as the truth; None where it is the sandbox's own reward, or nobody knows it.
    """

    reference: str
    reward_model: str
    policies: tuple[Policy, ...]
    best_of: tuple[BestOf, ...]
    spread: Mapping[str, float]
    trained_on: Mapping[str, Leak] = field(default_factory=dict)
    gold: str | None = None

    @property
    def prompts(self) -> int:
        return len(self.best_of[0].measures.kl)

    @property
    def has_gold(self) -> bool:
        return not np.isnan(self.best_of[0].measures.gold).all()


@dataclass(frozen=True, slots=True)
class Point:
    """Policies that differ in their seed alone (or one n of best-of-n): measures are [seeds, prompts]."""

    label: str
    seeds: tuple[int | None, ...]
    kl: Floats
    gold: Floats
    proxy: Floats

    def mean(self, measure: str) -> float:
        """Over seeds."""
        return float(self.by_seed(measure).mean())

    def by_seed(self, measure: str) -> Floats:
        """[seeds] means over prompts."""
        return known_means(getattr(self, measure), axis=1)


Curve = tuple[Point, ...]
"""Points of one objective, nearest to the reference first."""


def curves(frontier: Frontier) -> dict[str, Curve]:
    """Objective -> its points, in the order of the policies."""
    groups: dict[str, dict[str, list[Policy]]] = {}
    for policy in frontier.policies:
        label = strength(policy.settings)
        groups.setdefault(policy.objective, {}).setdefault(label, []).append(policy)
    return {
        objective: tuple(
            sorted((_point(label, group) for label, group in points.items()), key=lambda point: point.mean("kl"))
        )
        for objective, points in groups.items()
    }


def strength(settings: Mapping[str, Any]) -> str:
    """ "beta 0.1, lora true": the settings that set one point of an objective apart from its others."""
    return ", ".join(f"{name} {setting(value)}" for name, value in settings.items())


def best_of_n(frontier: Frontier) -> Curve:
    """Best-of-n as a curve; its KL is an upper bound."""
    return tuple(
        Point(f"n = {best.n}", (None,), *(getattr(best.measures, name)[None] for name in MEASURES))
        for best in frontier.best_of
    )


def _point(label: str, policies: Sequence[Policy]) -> Point:
    ordered = sorted(policies, key=lambda policy: (policy.seed is None, policy.seed or 0))
    seeds = tuple(policy.seed for policy in ordered)
    return Point(label, seeds, *(np.stack([getattr(policy.measures, name) for policy in ordered]) for name in MEASURES))


def known_means(values: Floats, axis: int) -> Floats:
    """Means along an axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0.0).sum(axis), known.sum(axis)
    means: Floats = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means


# ---- from rows -----------------------------------------------------------------------------------------------------


def kl_bound(n: int) -> float:
    """log n − (n − 1)/n: an upper bound of KL(best of n ‖ reference) in nats (Beirami et al., 2024)."""
    return math.log(n) - (n - 1) / n


def lowest_proxy(reference: Sequence[Row]) -> float:
    """What a response counts with that the reward model cannot read; NaN where it can read none of the reference's."""
    return min((row["proxy"] for row in reference if row["proxy"] is not None), default=math.nan)


def policy_measures(rows: Sequence[Row], prompts: Sequence[int], *, samples: int, lowest: float) -> Measures:
    """A policy's responses by prompt; `lowest` is `lowest_proxy`. Raises UserError where they are not so many responses
    to each of these prompts.
    """
    if Counter(row["row"] for row in rows) != dict.fromkeys(prompts, samples):
        raise UserError(f"these are not {samples} responses to each prompt of the frontier and none to any other")
    if strange := [row for row in rows if not is_score(row["kl"])]:
        raise UserError(
            f"{len(strange)} of {len(rows)} responses have no finite KL, the first to prompt {strange[0]['row']}: its "
            f"`kl` is {strange[0]['kl']}"
        )
    places = {row: place for place, row in enumerate(prompts)}
    prompt_of = np.array([places[row["row"]] for row in rows], np.int64)
    values = (floats([row["kl"] for row in rows]), floats([row["gold"] for row in rows]), *_proxies(rows, lowest))
    return Measures(*(per_prompt(each, prompt_of, len(prompts)) for each in values))


def best_of_measures(rows: Sequence[Row], prompts: Sequence[int], n: int, *, lowest: float) -> Measures:
    """Gold and proxy of the response with the highest proxy among n, in expectation over all ways to draw n of each
    prompt's responses without replacement.

    Of N responses in ascending order of the proxy, the i-th (from 1) is the best of C(i − 1, n − 1) of the C(N, n)
    draws. Raises UserError where a prompt has fewer than n.
    """
    by_prompt: dict[int, list[Row]] = {row: [] for row in prompts}
    for row in rows:
        if row["row"] not in by_prompt:
            raise UserError(f"there are responses to prompt {row['row']}, which is none of the frontier's")
        by_prompt[row["row"]].append(row)
    found = []
    for prompt, own in by_prompt.items():
        if len(own) < n:
            raise UserError(f"prompt {prompt} has {len(own)} responses, too few to take the best of {n}")
        ordered = sorted(own, key=lambda row: -math.inf if row["proxy"] is None else row["proxy"])
        draws = math.comb(len(ordered), n)
        shares = np.array([math.comb(place, n - 1) / draws for place in range(len(ordered))])
        found.append([shares @ each for each in (floats([row["gold"] for row in ordered]), *_proxies(ordered, lowest))])
    return Measures(np.full(len(prompts), kl_bound(n)), *np.array(found).T)


def _proxies(rows: Sequence[Row], lowest: float) -> tuple[Floats, Floats]:
    """The proxy that each response counts with, and whether the reward model could not read it (1 or 0)."""
    proxies = floats([row["proxy"] for row in rows])
    unread = np.isnan(proxies)
    return np.where(unread, lowest, proxies), unread.astype(np.float64)


# ---- on disk -------------------------------------------------------------------------------------------------------


def read_frontier(folder: Path) -> Frontier:
    """The frontier that a folder holds, every figure computed from the rows.

    Raises DisagreementError where `frontier.json` states other figures, UserError where there is no frontier.
    """
    path = folder / HEAD
    if not path.exists():
        raise UserError(f"{folder}: holds no frontier (no {HEAD}); `preflab frontier` makes one")
    try:
        head = without_format(path, read_json(path))
        prompts = [row["row"] for row in read_jsonl(folder / "prompts.jsonl", whole=True)]
        reference = list(read_jsonl(folder / "reference.jsonl", whole=True))
        samples, lowest = head["samples"], lowest_proxy(reference)
        return Frontier(
            reference=head["reference"],
            reward_model=head["reward_model"],
            policies=tuple(
                _policy(folder, entry, prompts, samples=samples, lowest=lowest) for entry in head["policies"]
            ),
            best_of=tuple(_best_of(path, entry, reference, prompts, lowest=lowest) for entry in head["best_of_n"]),
            spread={name: _spread(row[name] for row in reference) for name in ("gold", "proxy")},
            trained_on=leaks_of(head.get("trained_on")),
            gold=head.get("gold"),
        )
    except (LookupError, TypeError, AttributeError, OSError, ValueError, ArithmeticError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: not a frontier that this version wrote ({error!r})") from error


def _policy(folder: Path, entry: Mapping[str, Any], prompts: Sequence[int], *, samples: int, lowest: float) -> Policy:
    path = folder / "responses" / f"{entry['name']}.jsonl"
    try:
        measures = policy_measures(list(read_jsonl(path, whole=True)), prompts, samples=samples, lowest=lowest)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _check(folder / HEAD, entry["name"], entry, measures)
    return Policy(**{name: entry[name] for name in ("name", "objective", "settings", "seed")}, measures=measures)


def _best_of(
    path: Path, entry: Mapping[str, Any], rows: Sequence[Row], prompts: Sequence[int], *, lowest: float
) -> BestOf:
    try:
        measures = best_of_measures(rows, prompts, entry["of"], lowest=lowest)
    except UserError as error:
        raise UserError(f"{path.parent / 'reference.jsonl'}: {error}") from error
    _check(path, f"best of {entry['of']}", entry, measures)
    return BestOf(entry["of"], measures)


def _spread(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.std(known)) if known else math.nan


def _check(path: Path, name: str, stated: Mapping[str, Any], measures: Measures) -> None:
    """Raise DisagreementError where a stated figure does not follow from the rows."""
    for figure, value in measures.figures().items():
        there = stated[figure]
        agrees = math.isnan(value) if there is None else math.isclose(there, value, rel_tol=1e-9, abs_tol=1e-12)
        if not agrees:
            raise DisagreementError(f"{path}: {figure} of {name} is {there}, but its rows say {value:.6g}")
