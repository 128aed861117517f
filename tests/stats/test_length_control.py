"""The length-controlled win rate: on data with a known answer, against statsmodels, and where it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from preflab.stats.length_control import (
    FEWEST_PROMPTS,
    LARGEST_THETA,
    PRIOR_STD,
    LengthControlled,
    fit,
    length_controlled,
)
from preflab.stats.statistics import Floats, draw_resamples, wilson


def simulated(seed: int, *, theta: float, phi: float, n: int = 300, longer: float = 0.0) -> tuple[Floats, Floats]:
    """Points and differences in length of a judge that follows the model exactly."""
    rng = np.random.default_rng(seed)
    longer_by = rng.normal(longer, 60, size=n).round()
    chance = 1 / (1 + np.exp(-theta - phi * np.tanh(longer_by / longer_by.std())))
    return (rng.random(n) < chance) * 1.0, longer_by


def controlled(points: Floats, longer_by: Floats, samples: int = 1) -> LengthControlled:
    prompts = len(points) // samples
    return length_controlled(points, longer_by, np.repeat(np.arange(prompts), samples), draw_resamples(prompts, 0))


def rates(found: LengthControlled) -> tuple[float, float, float]:
    assert found.rate is not None
    return found.rate.low, found.rate.value, found.rate.high


@pytest.mark.parametrize(("theta", "phi"), [(0.0, 1.5), (0.4, 1.0), (-0.5, -1.0), (0.4, 0.0)])
def test_a_known_answer_is_recovered(theta: float, phi: float) -> None:
    points, longer_by = simulated(0, theta=theta, phi=phi, n=5_000, longer=40)
    truth = 1 / (1 + np.exp(-theta))
    low, value, high = rates(controlled(points, longer_by))
    assert value == pytest.approx(truth, abs=0.03)
    assert low <= truth <= high
    if phi:  # the raw win rate is far off
        assert abs(points.mean() - truth) > 0.05


@pytest.mark.slow
def test_95_percent_of_intervals_hold_the_truth() -> None:
    truth = 1 / (1 + np.exp(-0.4))
    found = [rates(controlled(*simulated(seed, theta=0.4, phi=1.2, n=200, longer=30))) for seed in range(150)]
    assert 0.90 <= np.mean([low <= truth <= high for low, _, high in found]) <= 0.99


def test_the_fit_is_that_of_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points, length_term = rng.choice([0.0, 0.3, 0.5, 1.0], size=80), np.tanh(rng.normal(0.3, 1, size=80))
    weights = rng.integers(0, 3, size=80).astype(np.float64)
    monkeypatch.setattr("preflab.stats.length_control.PRIOR_STD", 1e6)
    model = sm.GLM(points, sm.add_constant(length_term), family=sm.families.Binomial(), freq_weights=weights)
    assert fit(points, length_term, weights[None], np.zeros((1, 2)))[0] == pytest.approx(model.fit().params, abs=1e-6)


def test_the_prior_is_on_the_length_coefficient_alone() -> None:
    """At the fitted values the gradient of likelihood and prior vanishes, without a pull on θ."""
    points, longer_by = simulated(1, theta=0.5, phi=1.0, n=50)
    length_term = np.tanh(longer_by / longer_by.std())
    theta, phi = fit(points, length_term, np.ones((1, 50)), np.zeros((1, 2)))[0]
    rest = points - 1 / (1 + np.exp(-theta - phi * length_term))
    assert rest.sum() == pytest.approx(0, abs=1e-5)
    assert rest @ length_term == pytest.approx(phi / PRIOR_STD**2, abs=1e-5)


@pytest.mark.parametrize("points", [np.array([1.0] * 14 + [0.0] * 6), np.array([1.0, 0.5, 0.25, 0.0] * 5)])
def test_equal_lengths_give_the_raw_win_rate(points: Floats) -> None:
    low, value, high = rates(controlled(points, np.zeros(20)))
    assert value == pytest.approx(points.mean(), abs=1e-6)
    assert low < value < high


def test_swapping_model_and_opponent_gives_the_rest() -> None:
    points, longer_by = simulated(3, theta=0.4, phi=1.0, longer=20)
    low, value, high = rates(controlled(points, longer_by))
    assert rates(controlled(1 - points, -longer_by)) == (
        pytest.approx(1 - high, abs=1e-6),
        pytest.approx(1 - value, abs=1e-6),
        pytest.approx(1 - low, abs=1e-6),
    )


def test_a_judge_that_only_counts_words_is_seen_through() -> None:
    """Length separates wins from losses, so plain maximum likelihood has no finite answer."""
    longer_by = np.random.default_rng(0).normal(30, 50, size=400).round() + 0.5
    points = (longer_by > 0) * 1.0
    low, value, high = rates(controlled(points, longer_by))
    assert points.mean() > 0.7
    assert value == pytest.approx(0.5, abs=0.06)
    assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_one_outcome_throughout_stays_finite_and_uncertain(outcome: float) -> None:
    longer_by = np.random.default_rng(0).normal(0, 50, size=30)
    low, value, high = rates(controlled(np.full(30, outcome), longer_by))
    assert value == pytest.approx(outcome, abs=1e-4)
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.1
    theta = fit(np.full(30, outcome), np.tanh(longer_by), np.ones((1, 30)), np.zeros((1, 2)))[0, 0]
    assert abs(theta) == LARGEST_THETA


@pytest.mark.parametrize("samples", [1, 2])
def test_ties_throughout_stay_uncertain(samples: int) -> None:
    """Each prompt is tied, or won by one sample and lost by the other: all resamples give one half."""
    points = np.full(30, 0.5) if samples == 1 else np.tile([1.0, 0.0], 30)
    low, value, high = rates(controlled(points, np.zeros(len(points)), samples))
    assert value == pytest.approx(0.5)
    assert (low, high) == pytest.approx(wilson(0.5, 30))


def test_samples_share_the_weight_of_their_prompt() -> None:
    points, longer_by = simulated(5, theta=0.3, phi=1.0, n=60)
    once, often = controlled(points, longer_by), controlled(points.repeat(7), longer_by.repeat(7), samples=7)
    assert rates(often) == pytest.approx(rates(once), abs=1e-6)
    assert often.rate is not None
    assert often.rate.n == 60


def test_where_it_cannot_be_told_the_reason_stands() -> None:
    few = FEWEST_PROMPTS - 1
    unjudged = np.array([1.0] * few + [np.nan] * 20)
    assert controlled(unjudged, np.arange(len(unjudged)) * 1.0) == LengthControlled(
        None, f"fewer than {FEWEST_PROMPTS} prompts were judged"
    )
    outcomes = np.tile([1.0, 0.0], 20)
    same = controlled(outcomes, np.full(40, 12.0))
    assert same == LengthControlled(None, "the lengths differ in much the same way on every prompt")
    nearly = controlled(outcomes, 1000 + np.tile([0.0, 0.0, 1.0, 1.0], 10))
    assert nearly.rate is None


def test_a_rate_that_rests_on_few_equal_lengths_says_so() -> None:
    points, longer_by = simulated(0, theta=0.0, phi=1.0, longer=100)
    found = controlled(points, longer_by)
    assert found.rate is not None
    assert found.reason == f"its response is the longer one on {100 * np.mean(longer_by > 0):.0f}\u00a0% of prompts"
    assert "shorter" in controlled(1 - points, -longer_by).reason
    assert not controlled(*simulated(0, theta=0.0, phi=1.0)).reason
