"""Intervals and tests over prompts: against hand-computed values, scipy, and their own promise (coverage)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from preflab.stats import statistics
from preflab.stats.statistics import (
    Floats,
    draw_resamples,
    mcnemar_exact,
    mean_estimate,
    per_prompt,
    rate_estimate,
    ratio_estimate,
    sign_test,
    wilson,
    wilson_estimate,
)

NAN = float("nan")


def test_resamples_draw_whole_studies_and_follow_the_seed() -> None:
    counts = draw_resamples(7, seed=3)
    assert counts.shape == (statistics.RESAMPLES, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean() == pytest.approx(1)
    assert counts.var() == pytest.approx(6 / 7, rel=0.05)  # binomial(7, 1/7)
    assert (counts == draw_resamples(7, seed=3)).all()
    assert (counts != draw_resamples(7, seed=4)).any()


def test_a_huge_study_gets_fewer_resamples_but_never_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "LARGEST_TABLE", 60_000)
    assert len(draw_resamples(100, seed=0)) == 600
    assert len(draw_resamples(1000, seed=0)) == statistics.FEWEST_RESAMPLES


def test_samples_of_a_prompt_are_averaged_before_prompts() -> None:
    values = np.array([1.0, 0.0, 0.0, NAN, NAN, 1.0])
    means = per_prompt(values, np.array([0, 1, 1, 1, 2, 3]), 5)
    assert means[:2].tolist() == [1.0, 0.0]
    assert np.isnan(means).tolist() == [False, False, True, False, True]
    estimate = mean_estimate(means, draw_resamples(5, 0))
    assert estimate is not None
    assert (estimate.value, estimate.n) == (pytest.approx(2 / 3), 3)


def test_many_samples_of_few_prompts_do_not_make_an_interval_narrow() -> None:
    """Ten prompts answered a hundred times alike are ten observations, not a thousand."""
    points = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], 100)
    by_prompt = per_prompt(points, np.repeat(np.arange(10), 100), 10)
    clustered, naive = rate_estimate(by_prompt, draw_resamples(10, 0)), rate_estimate(points, draw_resamples(1000, 0))
    assert clustered is not None
    assert naive is not None
    assert clustered.value == naive.value == pytest.approx(0.7)
    assert clustered.high - clustered.low > 5 * (naive.high - naive.low)


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=40)
    ours = mean_estimate(values, draw_resamples(40, 0))
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(1))
    assert ours is not None
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_replicates_that_lie_to_one_side_correct_the_levels() -> None:
    """Efron's formula by hand: a quarter of the replicates lie below the estimate, and no skewness."""
    offsets = np.linspace(-1, 3, 4001)
    bias = stats.norm.ppf(0.25)
    levels = stats.norm.cdf(2 * bias + stats.norm.ppf([0.025, 0.975]))
    assert statistics._bca(offsets, 0.0) == pytest.approx(-1 + 4 * levels, abs=0.01)


def test_a_ratio_resamples_both_sides_together() -> None:
    """Numerators in proportion to denominators leave nothing uncertain; a mean of ratios would differ."""
    denominators = np.array([1.0, 2.0, 5.0, 0.0, 3.0])
    counts = draw_resamples(5, 0)
    exact = ratio_estimate(0.4 * denominators, denominators, counts)
    assert exact is not None
    assert (exact.value, exact.low, exact.high, exact.n) == (*[pytest.approx(0.4)] * 3, 4)
    uneven = ratio_estimate(np.array([1.0, 0.0, 2.0, 0.0, 3.0]), denominators, counts)
    assert uneven is not None
    assert uneven.value == pytest.approx(6 / 11)
    assert uneven.low < 6 / 11 < uneven.high
    assert ratio_estimate(np.zeros(5), np.zeros(5), counts) is None


def test_a_large_mean_loses_no_digits() -> None:
    values = np.random.default_rng(0).normal(size=50)
    near, far = mean_estimate(values, draw_resamples(50, 0)), mean_estimate(values + 1e9, draw_resamples(50, 0))
    assert near is not None
    assert far is not None
    assert far.low - 1e9 == pytest.approx(near.low, abs=1e-5)
    assert far.high - 1e9 == pytest.approx(near.high, abs=1e-5)


DRAWS: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
    "wins and losses": (lambda rng, n: (rng.random(n) < 0.7) * 1.0, 0.7),
    "mostly wins": (lambda rng, n: (rng.random(n) < 0.9) * 1.0, 0.9),
    "with ties": (lambda rng, n: rng.choice([0.0, 0.5, 1.0], size=n, p=[0.2, 0.3, 0.5]), 0.65),
    "preferences": (lambda rng, n: rng.beta(2, 1, size=n), 2 / 3),
    "skewed": (lambda rng, n: rng.exponential(size=n), 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAWS)
def test_95_percent_of_intervals_hold_the_truth(kind: str) -> None:
    draw, truth = DRAWS[kind]
    rng, counts = np.random.default_rng(1), draw_resamples(60, 0)
    estimates = [mean_estimate(draw(rng, 60), counts) for _ in range(400)]
    held = np.mean([estimate is not None and estimate.low <= truth <= estimate.high for estimate in estimates])
    assert 0.91 <= held <= 0.99


def test_where_all_prompts_agree_resampling_does_not_pretend_to_be_certain() -> None:
    for value in (0.0, 0.5, 1.0):
        estimate = rate_estimate(np.full(20, value), draw_resamples(20, 0))
        assert estimate is not None
        assert estimate.value == value
        assert estimate.high - estimate.low > 0.1
        assert 0 <= estimate.low <= value <= estimate.high <= 1


def test_wilson_by_hand() -> None:
    z = stats.norm.ppf(0.975)
    rate, n = 0.65, 40
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    assert wilson(rate, n) == (pytest.approx(centre - half), pytest.approx(centre + half))
    assert wilson(0.0, 12)[0] == 0.0
    assert wilson(1.0, 12)[1] == 1.0
    estimate = wilson_estimate(np.array([1.0, NAN, 0.5, 0.0]))
    assert estimate is not None
    assert (estimate.value, estimate.n) == (0.5, 3)
    assert (estimate.low, estimate.high) == wilson(0.5, 3)
    assert wilson_estimate(np.array([NAN])) is None


def test_sign_test_by_hand() -> None:
    # 5 wins, 1 loss, ties and unjudged left out: 2 · (C(6,0) + C(6,1)) / 2⁶
    assert sign_test(np.array([1, 1, 1, 0.75, 1, 0, 0.5, 0.5, NAN])) == pytest.approx(2 * (1 + 6) / 64)
    assert sign_test(np.array([0.5, 0.5])) == 1.0
    assert sign_test(np.array([NAN])) is None


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar_exact(7, 1) == mcnemar_exact(1, 7)
    assert mcnemar_exact(0, 0) == 1.0
