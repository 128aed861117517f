"""The win rate to expect at equal lengths: a logistic model as in AlpacaEval 2 (Dubois et al., 2024).

    logit P(the model's response is preferred) = θ + φ · tanh((length − opponent's length) / s)

with lengths in characters, as there, and s the standard deviation of their difference. The length-controlled win rate
is σ(θ): what the fitted judge would say with the length term at zero. Where lengths do not differ it equals the raw
win rate.

AlpacaEval's model has a third term, the difficulty of each instruction, estimated once from the many models of its
leaderboard, and a pull towards what two rewritten baselines show of the judge. No other set of prompts has either, so
both are left out: θ and φ describe the prompts at hand. Where a model's responses are almost always shorter (or
longer), equal lengths occur on prompts of another kind only (those with short answers), and the rate, which rests on
them, then lies further from the raw one than AlpacaEval's does, which is what `reason` then says.
docs/results/length-control.md sets the two beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflab.stats.results import Estimate
from preflab.stats.statistics import Floats, percentiles, wilson
from preflab.stats.wording import percent

FEWEST_PROMPTS = 10
RESAMPLES = 500  # refits; fewer than for a mean, for speed

# A weak prior on φ, normal with this standard deviation, keeps it finite where length separates wins from losses; in
# AlpacaEval's own fits it lies between -0.3 and 3. θ is free.
PRIOR_STD = 2.0
LARGEST_THETA = 12.0  # σ(12) = 0.999994: where every response won, θ stops here

# The share of prompts whose response is the longer (or the shorter) one from which on equal lengths are rare.
ONE_SIDED = 0.85
LEAST_SPREAD = 0.05  # standard deviation of the length term; below it φ cannot be told from θ

ITERATIONS = 30
LARGEST_STEP = 2.0
CONVERGED = 1e-6


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """The rate, or None with the `reason` why not; a reason beside a rate says why to read it with care."""

    rate: Estimate | None
    reason: str


def length_controlled(
    points: Floats, longer_by: Floats, prompt_of: NDArray[np.int64], counts: Floats
) -> LengthControlled:
    """Fit the model to all judged cases.

    Args:
        points: [cases], 1 for a win, 0 for a loss, between for ties and preferences; NaN where not judged.
        longer_by: [cases], length of the model's response − length of the opponent's, in any unit.
        prompt_of: [cases], index of each case's prompt. A prompt's samples share its weight.
        counts: [resamples, prompts] of `statistics.draw_resamples`; whole prompts are resampled.
    """
    judged = ~np.isnan(points)
    points, longer_by, prompt_of = points[judged], longer_by[judged], prompt_of[judged]
    samples = np.bincount(prompt_of, minlength=counts.shape[1])
    prompts = int(np.count_nonzero(samples))
    if prompts < FEWEST_PROMPTS:
        return LengthControlled(None, f"fewer than {FEWEST_PROMPTS} prompts were judged")
    spread = longer_by.std()
    length_term = np.tanh(longer_by / spread) if spread else np.sign(longer_by)
    if length_term.any() and length_term.std() < LEAST_SPREAD:
        return LengthControlled(None, "the lengths differ in much the same way on every prompt")
    weights = 1 / samples[prompt_of]
    resampled = counts[:RESAMPLES, prompt_of] * weights
    resampled = resampled[resampled.sum(axis=1) > 0]
    start = fit(points, length_term, weights[None, :], np.zeros((1, 2)))
    replicates = _sigmoid(fit(points, length_term, resampled, np.repeat(start, len(resampled), axis=0))[:, 0])
    value = float(_sigmoid(start[0, 0]))
    low, high = percentiles(replicates)
    if high - low < CONVERGED:  # all prompts say the same: resampling cannot show how sure that is
        low, high = wilson(value, prompts)
    return LengthControlled(Estimate(value, min(low, value), max(high, value), prompts), _caution(longer_by, weights))


def fit(points: Floats, length_term: Floats, weights: Floats, start: Floats) -> Floats:
    """θ and φ ([fits, 2]) of greatest posterior likelihood, for each row of `weights` [fits, cases], by Newton's method
    from `start` [fits, 2]. Points between 0 and 1 count as that share of a win and the rest of a loss.
    """
    design = np.stack([np.ones_like(length_term), length_term], axis=1)  # [cases, 2]
    products = np.stack([design[:, 0], length_term, length_term**2], axis=1)  # entries of the Hessian, [cases, 3]
    precision = 1 / PRIOR_STD**2
    fitted: Floats = start.copy()
    for _ in range(ITERATIONS):
        expected = _sigmoid(fitted @ design.T)  # [fits, cases]
        gradient = (weights * (points - expected)) @ design
        gradient[:, 1] -= precision * fitted[:, 1]
        a, b, d = ((weights * expected * (1 - expected)) @ products).T
        d = d + precision
        a = a + 1e-9  # all expected wins: the Hessian vanishes, and the bound on θ holds
        determinant = a * d - b * b
        step = np.stack(
            [
                (d * gradient[:, 0] - b * gradient[:, 1]) / determinant,
                (a * gradient[:, 1] - b * gradient[:, 0]) / determinant,
            ],
            axis=1,
        ).clip(-LARGEST_STEP, LARGEST_STEP)
        before, fitted = fitted, fitted + step
        fitted[:, 0] = fitted[:, 0].clip(-LARGEST_THETA, LARGEST_THETA)
        if np.abs(fitted - before).max() < CONVERGED:
            break
    return fitted


def _sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def _caution(longer_by: Floats, weights: Floats) -> str:
    for side, share in (("longer", weights[longer_by > 0].sum()), ("shorter", weights[longer_by < 0].sum())):
        if (share := share / weights.sum()) >= ONE_SIDED:
            return f"its response is the {side} one on {percent(share)} of prompts"
    return ""
