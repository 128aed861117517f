"""What the papers say of their objectives: gradients, optima, symmetries, what they are unbiased by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from objective_rows import ROWS, SOME, objective, pairs, responses_of
from torch import Tensor

from preflab.objectives import OBJECTIVES, Loss, PairLogps, bradley_terry, dpo, kto, sft, weighted

LN_2 = math.log(2)


def swapped(given: PairLogps) -> PairLogps:
    return PairLogps(
        given.rejected,
        given.chosen,
        given.reference_rejected,
        given.reference_chosen,
        given.rejected_tokens,
        given.chosen_tokens,
    )


def gradients(loss: Callable[[PairLogps], Loss], given: PairLogps = SOME) -> tuple[Tensor, Tensor]:
    """∂loss/∂log π(y_w) and ∂loss/∂log π(y_l) of each pair."""
    chosen, rejected = given.chosen.clone().requires_grad_(), given.rejected.clone().requires_grad_()
    total = loss(replace(given, chosen=chosen, rejected=rejected)).per_example.sum()
    up, down = torch.autograd.grad(total, (chosen, rejected))
    return up, down


def at_margins(margins: Tensor) -> PairLogps:
    """Pairs of these log-ratios of the chosen response; those of the rejected one are 0."""
    zeros, ones = torch.zeros_like(margins), torch.ones_like(margins)
    return PairLogps(margins, zeros, zeros, zeros, ones, ones)


def best_margin(loss: Callable[[PairLogps], Loss]) -> float:
    margins = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    return float(margins[loss(at_margins(margins)).per_example.argmin()])


# ---- gradients as the papers write them out -------------------------------------------------------------------------

DELTA_W, DELTA_L = SOME.chosen - SOME.reference_chosen, SOME.rejected - SOME.reference_rejected


def test_gradient_of_dpo() -> None:
    """Rafailov et al., 2023, section 4: −β·σ(r_l − r_w)·(∇log π(y_w) − ∇log π(y_l))."""
    weight = 0.3 * torch.sigmoid(0.3 * (DELTA_L - DELTA_W))
    torch.testing.assert_close(gradients(objective("dpo", beta=0.3)), (-weight, weight))


def test_gradient_of_ipo() -> None:
    """2·(h − 1/(2β)), h = Δ_w/|y_w| − Δ_l/|y_l|, over the length of each."""
    slope = 2 * (DELTA_W / SOME.chosen_tokens - DELTA_L / SOME.rejected_tokens - 1 / 0.6)
    expected = (slope / SOME.chosen_tokens, -slope / SOME.rejected_tokens)
    torch.testing.assert_close(gradients(objective("ipo", beta=0.3)), expected)


def test_gradient_of_simpo() -> None:
    """Meng et al., 2024: −β·σ(β·(a_l − a_w) + γ)·(∇log π(y_w)/|y_w| − ∇log π(y_l)/|y_l|)."""
    behind = SOME.rejected / SOME.rejected_tokens - SOME.chosen / SOME.chosen_tokens
    weight = 2 * torch.sigmoid(2 * behind + 2 * 0.4)
    expected = (-weight / SOME.chosen_tokens, weight / SOME.rejected_tokens)
    torch.testing.assert_close(gradients(objective("simpo", beta=2.0, gamma_beta_ratio=0.4)), expected)


def test_gradient_of_kto() -> None:
    """Ethayarajh et al., 2024: λ·β·σ(g)·σ(−g)·∇log π, up for a wanted response and down for an unwanted one."""
    gain_w, gain_l = 0.3 * (DELTA_W - 2), 0.3 * (2 - DELTA_L)
    expected = (
        -1.5 * 0.3 * torch.sigmoid(gain_w) * torch.sigmoid(-gain_w),
        0.7 * 0.3 * torch.sigmoid(gain_l) * torch.sigmoid(-gain_l),
    )
    found = gradients(objective("kto", beta=0.3, desirable_weight=1.5, undesirable_weight=0.7))
    torch.testing.assert_close(found, expected)


def test_gradient_of_orpo() -> None:
    """Hong et al., 2024: that of the likelihood, and −β·(1 + odds_w/odds_l)⁻¹·(∇log π_w/(1 − P_w) − ∇log π_l/(1 − P_l))
    with P = e^a and ∇log π per token.
    """
    p_w, p_l = (SOME.chosen / SOME.chosen_tokens).exp(), (SOME.rejected / SOME.rejected_tokens).exp()
    ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
    expected = (
        (-1 - 0.3 / (1 + ratio) / (1 - p_w)) / SOME.chosen_tokens,
        0.3 / (1 + ratio) / (1 - p_l) / SOME.rejected_tokens,
    )
    torch.testing.assert_close(gradients(objective("orpo", beta=0.3)), expected)


# ---- where each is least --------------------------------------------------------------------------------------------


def logit(p: float) -> float:
    return math.log(p / (1 - p))


# Of a single pair whose rejected response stays where it is. `math.inf`: the more the better.
OPTIMA: dict[str, tuple[Callable[[PairLogps], Loss], float]] = {
    "dpo": (objective("dpo", beta=0.5), math.inf),
    "conservative dpo: σ(m) = 1 − ε": (objective("dpo", beta=0.5, label_smoothing=0.1), logit(0.9) / 0.5),
    "exo: its preference is the label's": (objective("exo", beta=0.5, label_smoothing=0.1), logit(0.9) / 0.5),
    "ipo: 1/(2β)": (objective("ipo", beta=0.1), 5.0),
    "sppo: 1/(2β)": (objective("sppo", beta=0.1), 5.0),
    "hinge: 1/β and beyond": (objective("hinge", beta=0.25), 4.0),
    "apo_zero": (objective("apo_zero", beta=0.5), math.inf),
    "nca: σ(r_w) = 2/3": (objective("nca", beta=0.5), logit(2 / 3) / 0.5),
    "robust_dpo": (objective("robust_dpo", beta=0.5), math.inf),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_where_it_is_least(name: str) -> None:
    loss, expected = OPTIMA[name]
    assert best_margin(loss) == pytest.approx(min(expected, 12), abs=0.01)


def test_exo_is_a_divergence() -> None:
    """Zero where the policy's preference is the label's, and nowhere less."""
    margins = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    losses = objective("exo", beta=1.0, label_smoothing=0.2)(at_margins(margins)).per_example
    assert float(losses.min()) == pytest.approx(0, abs=1e-5)
    exact = at_margins(torch.tensor([logit(0.8)], dtype=torch.float64))
    assert float(objective("exo", beta=1.0, label_smoothing=0.2)(exact).per_example) == pytest.approx(0, abs=1e-12)


def test_apo_down_pushes_both_down() -> None:
    """The rejected response from the start, the chosen one as soon as the rejected one lies below it."""
    start = pairs((-10, -10, -10, -10, 5, 5))
    up, down = gradients(objective("apo_down", beta=0.1), start)
    assert float(up) == pytest.approx(0, abs=1e-12)
    assert float(down) == pytest.approx(0.1 / 4)
    later, _ = gradients(objective("apo_down", beta=0.1), pairs((-10, -40, -10, -10, 5, 5)))
    assert float(later) > 0, "down the loss is down for the chosen response"
    zero, _ = gradients(objective("apo_zero", beta=0.1), pairs((-10, -40, -10, -10, 5, 5)))
    assert float(zero) == pytest.approx(-0.1 / 4), "apo_zero pulls it up, wherever the rejected one is"


# ---- what they are for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_robust_dpo_is_unbiased_under_flipped_labels(epsilon: float) -> None:
    """Chowdhury et al., 2024: (1 − ε)·L̂(y_w, y_l) + ε·L̂(y_l, y_w) is DPO's loss on clean labels."""
    robust = objective("robust_dpo", beta=0.3, label_smoothing=epsilon)
    expected = (1 - epsilon) * robust(SOME).per_example + epsilon * robust(swapped(SOME)).per_example
    torch.testing.assert_close(expected, dpo(SOME, beta=0.3).per_example)


def test_r_dpo_takes_length_out_of_the_reward() -> None:
    """Labels follow a reward r = q + α·|y|; the policy that maximises r − α·|y| = q under the KL, for which β·Δ = q, is
    where R-DPO's expected gradient is zero. With the sign of α turned round it is not.
    """
    beta, alpha = 0.5, 0.2
    quality = torch.tensor([1.0, -0.5], dtype=torch.float64)
    lengths = torch.tensor([3.0, 9.0], dtype=torch.float64)
    ratio = quality / beta
    zero = torch.zeros(1, dtype=torch.float64)
    given = PairLogps(ratio[:1], ratio[1:], zero, zero, lengths[:1], lengths[1:])
    reward = quality + alpha * lengths
    first_wins = float(torch.sigmoid(reward[0] - reward[1]))

    def expected_slope(sign: float) -> float:
        loss = objective("r_dpo", beta=beta, alpha=sign * alpha)
        as_given, turned = gradients(loss, given)[0], gradients(loss, swapped(given))[1]
        return float(first_wins * as_given + (1 - first_wins) * turned)

    assert expected_slope(1) == pytest.approx(0, abs=1e-12)
    assert abs(expected_slope(-1)) > 0.05


def test_a_longer_chosen_response_needs_less_of_a_margin() -> None:
    longer = replace(SOME, chosen_tokens=SOME.chosen_tokens + 10)
    loss = objective("r_dpo", beta=0.1, alpha=0.05)
    assert (loss(longer).per_example < loss(SOME).per_example).all()


def test_dpo_symmetries() -> None:
    """Swapped responses turn the margin round; −log σ(m) + log σ(−m) = −m; half smoothed, the order does not matter."""
    own, other = dpo(SOME), dpo(swapped(SOME))
    margin = own.values["rewards/margins"]
    torch.testing.assert_close(other.values["rewards/margins"], -margin)
    torch.testing.assert_close(own.per_example - other.per_example, -margin)
    half = dpo(SOME, label_smoothing=0.5).per_example
    torch.testing.assert_close(half, dpo(swapped(SOME), label_smoothing=0.5).per_example)
    torch.testing.assert_close(dpo(SOME, label_smoothing=1.0).per_example, other.per_example)


@pytest.mark.parametrize(
    "name", ["dpo", "robust_dpo", "hinge", "r_dpo", "exo", "psipo", "apo_zero", "nca", "sppo", "kto"]
)
def test_which_know_differences_between_responses_only(name: str) -> None:
    """A constant in the reference moves those that judge each response by itself."""
    moved = replace(SOME, reference_chosen=SOME.reference_chosen + 3, reference_rejected=SOME.reference_rejected + 3)
    same = torch.allclose(ROWS[name].loss(moved).per_example, ROWS[name].loss(SOME).per_example)
    assert same is (name not in ("apo_zero", "nca", "sppo", "kto"))


# ---- labels, rewards, mixtures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_kto_where_policy_and_reference_agree(weight: float) -> None:
    """λ/2, when the KL is 0 too."""
    given = replace(responses_of(SOME, kl=0.0), reference=responses_of(SOME).policy)
    loss, values = kto(given, desirable_weight=weight)
    assert loss.tolist() == [weight / 2, 0.5] * 3
    assert values["accuracies"].tolist() == [0.5] * 6, "a tie is half a success"


def test_bradley_terry_golden_values() -> None:
    """Rewards 1.5 and 0.5: ln(1 + e^−1) = 0.313262. Equal rewards: ln 2, and half a success."""
    loss, values = bradley_terry(torch.tensor([1.5, 2.0, -1.0]), torch.tensor([0.5, 2.0, 1.0]))
    assert loss.tolist() == pytest.approx([0.313261688, LN_2, math.log(1 + math.exp(2))])
    assert values["accuracy"].tolist() == [1, 0.5, 0]
    assert values["margin"].tolist() == [1, 0, -2]


def test_bradley_terry_knows_differences_only() -> None:
    better, worse = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shifted = bradley_terry(better + 7, worse + 7).per_example
    torch.testing.assert_close(shifted, bradley_terry(better, worse).per_example)
    wins, losses = (-bradley_terry(better, worse).per_example).exp(), (-bradley_terry(worse, better).per_example).exp()
    torch.testing.assert_close(wins + losses, torch.ones(5, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda b, w: bradley_terry(b, w).per_example, (better.requires_grad_(), worse.requires_grad_())
    )


def test_sft_is_per_token_of_the_chosen_response() -> None:
    """10/5, 30/9, 3/1."""
    assert sft(SOME).per_example.tolist() == pytest.approx([2, 30 / 9, 3])


def test_a_mixture_is_the_sum_of_its_terms_by_weight() -> None:
    terms = {"dpo": (0.8, objective("dpo")), "ipo": (0.5, objective("ipo", beta=0.2)), "sft": (2.0, sft)}
    loss, values = weighted(terms)(SOME)
    by_hand = 0.8 * dpo(SOME).per_example + 0.5 * OBJECTIVES["ipo"].loss(SOME, beta=0.2).per_example
    torch.testing.assert_close(loss, by_hand + 2 * sft(SOME).per_example)
    own = dpo(SOME).values
    assert set(values) == {*own, "loss/dpo", "loss/ipo", "loss/sft"}
    assert all(torch.equal(values[name], value) for name, value in own.items()), "the first term's"
    torch.testing.assert_close(values["loss/sft"], sft(SOME).per_example)
    torch.testing.assert_close(values["loss/ipo"], OBJECTIVES["ipo"].loss(SOME, beta=0.2).per_example)
