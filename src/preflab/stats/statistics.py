"""Intervals and tests of means and ratios over prompts.

The prompt is the unit throughout: samples of one prompt are not independent of each other, so they are averaged first,
and whole prompts are resampled. Values come as arrays with one entry per prompt of the study, NaN where a prompt has
none. All figures of a study share one set of resamples, so they can be set beside each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from preflab.stats.results import Estimate

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)

RESAMPLES = 2000
FEWEST_RESAMPLES = 400
LARGEST_TABLE = 20_000_000  # entries of `draw_resamples`; studies of more prompts make do with fewer resamples


def draw_resamples(prompts: int, seed: int) -> Floats:
    """How often each prompt is drawn in each bootstrap resample: [resamples, prompts]; each row sums to `prompts`."""
    resamples = max(FEWEST_RESAMPLES, min(RESAMPLES, LARGEST_TABLE // max(prompts, 1)))
    drawn = np.random.default_rng(seed).integers(prompts, size=(resamples, prompts))
    drawn += np.arange(resamples)[:, None] * prompts
    counts = np.bincount(drawn.ravel(), minlength=resamples * prompts)
    return counts.reshape(resamples, prompts).astype(np.float64)


def floats(values: Sequence[float | None]) -> Floats:
    """The values as an array, NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def numbered(units: Iterable[Hashable]) -> NDArray[np.int64]:
    """The number of each one's unit, from 0 in the order of first appearance: what `prompt_of` is everywhere."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(unit, len(numbers)) for unit in units], dtype=np.int64)


def per_prompt(values: Floats, prompt_of: NDArray[np.int64], prompts: int) -> Floats:
    """Mean of each prompt's values ([cases] with the prompt's index of each case -> [prompts]); NaN values are no
    values, and a prompt without any is NaN.
    """
    known = ~np.isnan(values)
    sums = np.bincount(prompt_of[known], weights=values[known], minlength=prompts)
    numbers = np.bincount(prompt_of[known], minlength=prompts)
    means: Floats = np.divide(sums, numbers, out=np.full(prompts, np.nan), where=numbers > 0)
    return means


def ratio_estimate(numerators: Floats, denominators: Floats, counts: Floats) -> Estimate | None:
    """Σ numerators / Σ denominators ([prompts] each) with its BCa bootstrap interval over prompts (Efron, 1987), or
    None where the denominators are zero. n counts the prompts with a denominator.
    """
    total = denominators.sum()
    if not total:
        return None
    value = float(numerators.sum() / total)
    # With the residuals' sums instead of the numerators' nothing is lost to rounding, however large the mean is.
    residuals = numerators - value * denominators
    scale = np.abs(residuals).max()
    n = int(np.count_nonzero(denominators))
    if scale <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, value, value, n)
    weights = counts @ denominators
    offsets = (counts @ (residuals / scale))[weights > 0] / weights[weights > 0]
    acceleration = float((residuals**3).sum() / (6 * (residuals**2).sum() ** 1.5))
    low, high = value + scale * _bca(offsets, acceleration)
    return Estimate(value, float(low), float(high), n)


def _bca(offsets: Floats, acceleration: float) -> Floats:
    """The two quantiles of the replicates' offsets from the estimate, at levels corrected for bias and skewness."""
    ties = np.abs(offsets) < 1e-9
    below = float(np.mean(np.where(ties, 0.5, offsets < 0)))
    bias = norm.ppf(np.clip(below, 1 / (2 * len(offsets)), 1 - 1 / (2 * len(offsets))))
    shifted = bias + norm.ppf(TAILS)
    levels = norm.cdf(bias + shifted / np.maximum(1 - acceleration * shifted, 0.1))
    return np.asarray(np.quantile(offsets, levels), dtype=np.float64)


def mean_estimate(values: Floats, counts: Floats) -> Estimate | None:
    """Mean over prompts with its bootstrap interval; None where no prompt has a value."""
    known = ~np.isnan(values)
    return ratio_estimate(np.where(known, values, 0.0), known.astype(np.float64), counts)


def rate_estimate(values: Floats, counts: Floats) -> Estimate | None:
    """`mean_estimate` of values in [0, 1]. Where all prompts say the same, resampling shows nothing of how sure that
    is, and Wilson's interval stands in.
    """
    estimate = mean_estimate(values, counts)
    return wilson_estimate(values) if estimate and estimate.low == estimate.high else estimate


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a rate (ties count half, so rate · n need not be whole) over n > 0 prompts."""
    low, high = proportion_confint(rate * n, n, alpha=1 - CONFIDENCE, method="wilson")
    return (float(low) if rate > 0 else 0.0), (float(high) if rate < 1 else 1.0)


def wilson_estimate(values: Floats) -> Estimate | None:
    """Mean of values in [0, 1] over prompts with Wilson's interval; None where no prompt has a value."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    rate = float(known.mean())
    return Estimate(rate, *wilson(rate, known.size), known.size)


def sign_test(points: Floats) -> float | None:
    """Two-sided exact sign test of prompts won (points > 1/2) against prompts lost; None where nothing was judged."""
    wins, losses = int((points > 0.5).sum()), int((points < 0.5).sum())
    if not (wins or losses):
        return None if np.isnan(points).all() else 1.0
    return float(binomtest(wins, wins + losses).pvalue)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """McNemar's exact test of the prompts that only one of two models won."""
    return float(mcnemar([[0, only_first], [only_second, 0]], exact=True).pvalue)


def percentiles(replicates: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap replicates."""
    low, high = np.quantile(replicates, TAILS)
    return float(low), float(high)
