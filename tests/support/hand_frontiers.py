"""Frontiers put together from means, with a known spread over prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from preflab.core.rundir import write_json, write_jsonl
from preflab.studies.frontier.rows import (
    BestOf,
    Frontier,
    Measures,
    Policy,
    best_of_measures,
    kl_bound,
    policy_measures,
)

PROMPTS = 100

Means = tuple[float, float, float]
"""KL, gold and proxy of a point."""


def frontier(
    points: Mapping[str, Mapping[float, Means]],
    *,
    best_of: Sequence[tuple[int, float, float]] = ((1, 1.0, 0.0), (4, 1.2, 0.4), (64, 1.4, 0.8)),
    seeds: int = 3,
    prompts: int = PROMPTS,
    noise: float = 0.2,
    between_seeds: float = 0.02,
    kl_ratio: float = 1.0,
) -> Frontier:
    """Objective -> β -> means. `noise` is the standard deviation over prompts, which all share half of it;
    `between_seeds` how far the outer seeds lie from the mean, `kl_ratio` how many times as far from the reference the
    last seed leads as the first, whose KLs are those of `points`. best_of: n, gold, proxy.
    """
    rng = np.random.default_rng(0)
    shared = _spread(rng, prompts) * noise

    def measures(kl: float, gold: float, proxy: float) -> Measures:
        return Measures(
            np.full(prompts, kl),
            gold + shared + _spread(rng, prompts) * noise,
            proxy + _spread(rng, prompts) * noise,
            np.zeros(prompts),
        )

    policies = [
        Policy(
            name=f"{objective}-{beta}-{seed}",
            objective=objective,
            settings={"beta": beta},
            seed=seed,
            measures=measures(kl * kl_ratio ** (seed / max(seeds - 1, 1)), gold + shift, proxy + shift),
        )
        for objective, betas in points.items()
        for beta, (kl, gold, proxy) in betas.items()
        for seed, shift in enumerate(np.linspace(-between_seeds, between_seeds, seeds) if seeds > 1 else [0.0])
    ]
    of_reference = tuple(BestOf(n, measures(kl_bound(n), gold, proxy)) for n, gold, proxy in best_of)
    return Frontier("sft", "reward", tuple(policies), of_reference, {"gold": 1.0, "proxy": 1.0})


def without_gold(given: Frontier) -> Frontier:
    """The same, of prompts that are not the sandbox's."""

    def blind(measures: Measures) -> Measures:
        return replace(measures, gold=np.full(len(measures.kl), np.nan))

    return replace(
        given,
        policies=tuple(replace(policy, measures=blind(policy.measures)) for policy in given.policies),
        best_of=tuple(replace(best, measures=blind(best.measures)) for best in given.best_of),
        spread={"gold": float("nan"), "proxy": 1.0},
    )


def _spread(rng: np.random.Generator, prompts: int) -> np.ndarray:
    """Values over prompts of mean 0 and standard deviation 1, exactly."""
    values = rng.normal(size=prompts)
    return (values - values.mean()) / values.std()


ROWS = [
    {"row": 3, "sample": 0, "kl": 1.0, "gold": 1.0, "proxy": 0.5},
    {"row": 3, "sample": 1, "kl": 3.0, "gold": 0.0, "proxy": None},
    {"row": 7, "sample": 0, "kl": 0.5, "gold": -1.0, "proxy": -0.5},
    {"row": 7, "sample": 1, "kl": 0.5, "gold": 2.0, "proxy": 1.5},
]


def write_frontier(place: Path) -> Path:
    """A frontier of one policy, as the command leaves it."""
    reference = [{"row": row, "sample": s, "gold": s / 2, "proxy": float(s)} for row in (3, 7) for s in range(4)]
    write_jsonl(place / "prompts.jsonl", [{"row": 3}, {"row": 7}])
    write_jsonl(place / "responses" / "dpo.jsonl", ROWS)
    write_jsonl(place / "reference.jsonl", reference)
    policy = {"name": "dpo", "objective": "dpo", "settings": {"beta": 0.1}, "seed": 0, "source": "runs/dpo"}
    head: dict[str, Any] = {
        "reference": "runs/sft",
        "reward_model": "runs/reward",
        "samples": 2,
        "policies": [policy | policy_measures(ROWS, [3, 7], samples=2, lowest=0.0).figures()],
        "best_of_n": [{"of": n, **best_of_measures(reference, [3, 7], n, lowest=0.0).figures()} for n in (1, 2, 4)],
    }
    write_json(place / "frontier.json", head)
    return place
