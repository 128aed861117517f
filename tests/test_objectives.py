"""Objectives as what their papers say they are: golden values, limits, symmetries, gradients checked by differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from preflab.objectives import OBJECTIVES, Loss, PairLogps, bradley_terry, dpo

LN_2 = math.log(2)
FIELDS = ("chosen", "rejected", "reference_chosen", "reference_rejected", "chosen_tokens", "rejected_tokens")


def pairs(*rows: tuple[float, float, float, float, int, int]) -> PairLogps:
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]
    return PairLogps(**dict(zip(FIELDS, columns, strict=True)))


def swapped(given: PairLogps) -> PairLogps:
    return PairLogps(
        given.rejected,
        given.chosen,
        given.reference_rejected,
        given.reference_chosen,
        given.rejected_tokens,
        given.chosen_tokens,
    )


SOME = pairs((-10, -12, -11, -11, 5, 6), (-30, -20, -29, -22, 9, 4), (-3, -90, -4, -70, 1, 40))


def test_dpo_golden_values() -> None:
    """β 0.1. Log-ratios of the first pair are −10 + 11 = 1 and −12 + 11 = −1, so rewards ±0.1, margin 0.2 and loss
    ln(1 + e^−0.2) = 0.598139. The second: −30 + 29 = −1 and −20 + 22 = 2, margin −0.3, loss ln(1 + e^0.3) = 0.854355.
    """
    loss, values = dpo(SOME, beta=0.1)
    assert loss[:2].tolist() == pytest.approx([0.598138869, 0.854355244])
    assert values["rewards/chosen"][:2].tolist() == pytest.approx([0.1, -0.1])
    assert values["rewards/rejected"][:2].tolist() == pytest.approx([-0.1, 0.2])
    assert values["rewards/margins"][:2].tolist() == pytest.approx([0.2, -0.3])
    assert values["rewards/accuracies"].tolist() == [1, 0, 1]
    assert values["logps/chosen"].tolist() == [-10, -30, -3]
    assert values["logps/rejected"].tolist() == [-12, -20, -90]


def test_dpo_sums_and_does_not_average_over_tokens() -> None:
    longer = replace(SOME, chosen_tokens=SOME.chosen_tokens * 7, rejected_tokens=SOME.rejected_tokens * 3)
    assert torch.equal(dpo(SOME).per_example, dpo(longer).per_example)


def test_label_smoothing_golden_value() -> None:
    """ε 0.25, m 0.2: 0.75 · ln(1 + e^−0.2) + 0.25 · ln(1 + e^0.2) = 0.75 · 0.598139 + 0.25 · 0.798139 = 0.648139."""
    assert float(dpo(SOME, label_smoothing=0.25).per_example[0]) == pytest.approx(0.648138869)


def test_sft_term_golden_value() -> None:
    """α 2 on log π(y_w) = −10 over 5 tokens adds 2 · 10 / 5 = 4."""
    assert float(dpo(SOME, sft_weight=2.0).per_example[0]) == pytest.approx(4.598138869)
    assert torch.equal(dpo(SOME, sft_weight=0.0).per_example, dpo(SOME).per_example)


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_is_ln_2_at_the_reference(beta: float, smoothing: float) -> None:
    at = replace(SOME, reference_chosen=SOME.chosen, reference_rejected=SOME.rejected)
    loss, values = dpo(at, beta=beta, label_smoothing=smoothing)
    assert loss.tolist() == pytest.approx([LN_2] * 3, rel=1e-15)
    assert values["rewards/accuracies"].tolist() == [0, 0, 0], "a tie is no success"


def test_dpo_symmetries() -> None:
    """Swapped responses turn the margin round; −log σ(m) + log σ(−m) = −m; half smoothed, the order does not matter."""
    own, other = dpo(SOME), dpo(swapped(SOME))
    margin = own.values["rewards/margins"]
    torch.testing.assert_close(other.values["rewards/margins"], -margin)
    torch.testing.assert_close(own.per_example - other.per_example, -margin)
    half = dpo(SOME, label_smoothing=0.5).per_example
    torch.testing.assert_close(half, dpo(swapped(SOME), label_smoothing=0.5).per_example)
    torch.testing.assert_close(dpo(SOME, label_smoothing=1.0).per_example, other.per_example)


def test_conservative_dpo_is_least_where_its_label_noise_says() -> None:
    """The minimum of cDPO is at σ(m) = 1 − ε, and not at an infinite margin."""
    epsilon, beta = 0.1, 1.0
    margins = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    zeros = torch.zeros_like(margins)
    given = PairLogps(margins, zeros, zeros, zeros, zeros + 1, zeros + 1)
    best = float(margins[dpo(given, beta=beta, label_smoothing=epsilon).per_example.argmin()])
    assert best == pytest.approx(math.log((1 - epsilon) / epsilon), abs=0.005)
    plain = dpo(given, beta=beta).per_example
    assert (plain.diff() < 0).all(), "without smoothing, a larger margin is always better"


def test_a_constant_in_the_reference_does_not_matter() -> None:
    moved = replace(SOME, reference_chosen=SOME.reference_chosen + 3, reference_rejected=SOME.reference_rejected + 3)
    torch.testing.assert_close(dpo(moved).per_example, dpo(SOME).per_example)


def test_bradley_terry_golden_values() -> None:
    """Rewards 1.5 and 0.5: ln(1 + e^−1) = 0.313262. Equal rewards: ln 2, and no success."""
    loss, values = bradley_terry(torch.tensor([1.5, 2.0, -1.0]), torch.tensor([0.5, 2.0, 1.0]))
    assert loss.tolist() == pytest.approx([0.313261688, LN_2, math.log(1 + math.exp(2))])
    assert values["accuracy"].tolist() == [1, 0, 0]
    assert values["margin"].tolist() == [1, 0, -2]


def test_bradley_terry_knows_differences_only() -> None:
    better, worse = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        bradley_terry(better + 7, worse + 7).per_example, bradley_terry(better, worse).per_example
    )
    probabilities = (-bradley_terry(better, worse).per_example).exp() + (
        -bradley_terry(worse, better).per_example
    ).exp()
    torch.testing.assert_close(probabilities, torch.ones(5, dtype=torch.float64))


def on_pairs(objective: Callable[..., Loss], **options: float) -> Callable[..., Tensor]:
    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        count = torch.tensor([5, 6, 2])
        reference = torch.tensor([-11.0, -29.0, -4.0], dtype=chosen.dtype)
        return objective(PairLogps(chosen, rejected, reference, reference - 1, count, count), **options).per_example

    return loss


# One row for each objective, and one more for each of its options.
PROPERTIES = {
    "dpo": on_pairs(dpo),
    "dpo, smoothed": on_pairs(dpo, label_smoothing=0.2),
    "dpo with SFT": on_pairs(dpo, sft_weight=1.0),
    "Bradley-Terry": lambda better, worse: bradley_terry(better, worse).per_example,
}


def test_every_objective_has_a_row() -> None:
    assert set(OBJECTIVES) <= set(PROPERTIES)


@pytest.mark.parametrize("name", PROPERTIES)
def test_gradcheck(name: str) -> None:
    inputs = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 - 10
    assert torch.autograd.gradcheck(PROPERTIES[name], tuple(inputs.requires_grad_().unbind()))


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e4, 1e8])
def test_extreme_inputs_stay_finite(name: str, dtype: torch.dtype, size: float) -> None:
    """−log σ(m) is |m| for a very wrong margin, not −log 0."""
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=dtype)
    better, worse = (size * signs).requires_grad_(), (-size * signs).requires_grad_()
    loss = PROPERTIES[name](better, worse)
    assert loss.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss.sum(), (better, worse)))


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_better_chosen_response_is_never_worse(name: str) -> None:
    """The gradient never pulls the better response down or the worse one up, unless labels may be wrong."""
    better = torch.linspace(-40, 40, 3, dtype=torch.float64).requires_grad_()
    worse = torch.zeros(3, dtype=torch.float64).requires_grad_()
    up, down = torch.autograd.grad(PROPERTIES[name](better, worse).sum(), (better, worse))
    if "smoothed" not in name:
        assert (up <= 0).all()
        assert (down >= 0).all()
    assert up[0] < 0 < down[0], "where the order is wrong, both are moved"
