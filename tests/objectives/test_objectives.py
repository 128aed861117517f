"""Every objective of the table as its docstring has it: golden values, what it is normalised by, limits, gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objective_rows import FAR, FIELDS, ROWS, SOME, Row, at_the_reference, objective, pairs, responses_of
from torch import Tensor

from preflab.core.ties import Precision
from preflab.objectives import OBJECTIVES, PSI, PairLogps

of_every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
of_every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def losses(row: Row, chosen: Tensor, rejected: Tensor, like: PairLogps = SOME) -> Tensor:
    """With other log-probabilities of the policy."""
    return row.loss(replace(like, chosen=chosen, rejected=rejected)).per_example


def in_precision(given: PairLogps, dtype: torch.dtype) -> PairLogps:
    return PairLogps(*(getattr(given, name).to(dtype) for name in FIELDS))


def test_every_objective_has_a_row() -> None:
    assert set(ROWS) >= set(OBJECTIVES)
    assert {name.split(",")[0].split(" ")[0] for name in ROWS} == set(OBJECTIVES)


@of_every_row
def test_golden_values(row: Row) -> None:
    """The arithmetic stands in the table of rows."""
    assert row.loss(SOME).per_example[:2].tolist() == pytest.approx(row.golden, rel=1e-8)


@of_every_row
def test_losses_are_one_per_example(row: Row) -> None:
    """Not a mean over the batch: each is what it is alone."""
    together = row.loss(SOME).per_example
    alone = [row.loss(PairLogps(*(getattr(SOME, name)[i : i + 1] for name in FIELDS))).per_example for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@of_every_row
def test_what_it_is_normalised_by(row: Row) -> None:
    """Pitfall 13. Sums do not see the number of tokens; means see nothing else than what a token has."""
    longer = replace(SOME, chosen_tokens=SOME.chosen_tokens * 7, rejected_tokens=SOME.rejected_tokens * 3)
    repeated = PairLogps(*(getattr(SOME, name) * 4 for name in FIELDS))
    expected = row.loss(SOME).per_example
    same = {
        "sum": torch.equal(row.loss(longer).per_example, expected),
        "mean": torch.allclose(row.loss(repeated).per_example, expected, rtol=1e-12),
    }
    assert same == {kind: kind == row.lengths for kind in ("sum", "mean")}


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.at_reference is not None])
def test_where_policy_and_reference_agree(row: Row) -> None:
    expected = [row.at_reference] * 3
    assert row.loss(at_the_reference(SOME)).per_example.tolist() == pytest.approx(expected, rel=1e-8)


@of_every_row
def test_of_a_very_long_margin(row: Row) -> None:
    loss = float(row.loss(FAR).per_example[0])
    if math.isfinite(row.far):
        assert loss == pytest.approx(row.far, abs=1e-12)
    else:
        assert math.copysign(loss, row.far) == loss
        assert math.isfinite(loss)
        assert abs(loss) > 100


@of_every_objective
def test_the_table_says_whether_there_is_a_reference(name: str) -> None:
    """References that no one computed are no numbers, and so is the loss of an objective that reads them after all."""
    nothing = torch.full_like(SOME.chosen, math.nan)
    unknown = replace(SOME, reference_chosen=nothing, reference_rejected=nothing)
    assert bool(ROWS[name].loss(unknown).per_example.isnan().all()) is OBJECTIVES[name].reference
    assert all(
        OBJECTIVES[name].reference or not value.isnan().any() for value in ROWS[name].loss(unknown).values.values()
    )


@of_every_row
def test_gradcheck(row: Row) -> None:
    inputs = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 - 14
    chosen, rejected = inputs.requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda c, r: losses(row, c, r), (chosen, rejected))


@pytest.mark.slow
@of_every_row
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_extreme_inputs_stay_finite(row: Row, dtype: torch.dtype) -> None:
    """−log σ(m) is |m| for a very wrong margin, not −log 0; a probability of 1 has odds, though rounded ones."""
    for size in (0.0, 1e-6, 1e4, 1e8):
        chosen = torch.tensor([0.0, -size, -size / 2], dtype=dtype).requires_grad_()
        rejected = torch.tensor([-size, 0.0, -size / 2], dtype=dtype).requires_grad_()
        loss = losses(row, chosen, rejected, in_precision(SOME, dtype))
        assert loss.dtype == dtype
        assert loss.isfinite().all()
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss.sum(), (chosen, rejected)))


@of_every_row
def test_what_is_reported_is_finite_and_has_no_say_in_the_loss(row: Row) -> None:
    for value in row.loss(SOME).values.values():
        assert value.isfinite().all()
        assert value.shape == row.loss(SOME).per_example.shape


@of_every_row
def test_where_the_order_is_wrong_the_margin_is_widened(row: Row) -> None:
    """Whatever else an objective wants of each response: it moves the chosen one up against the rejected one."""
    reference = torch.full((2,), -20.0, dtype=torch.float64)
    wrong = pairs((-21, -19, -20, -20, 5, 5), (-24, -20, -20, -20, 5, 5))
    chosen, rejected = wrong.chosen.requires_grad_(), wrong.rejected.requires_grad_()
    given = replace(wrong, reference_chosen=reference, reference_rejected=reference)
    up, down = torch.autograd.grad(losses(row, chosen, rejected, given).sum(), (chosen, rejected))
    assert (up - down < 0).all()


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.lengths != "sum" and name != "r_dpo"])
def test_a_response_without_tokens_has_no_mean(name: str) -> None:
    """Tokenisation refuses one. Should it ever come so far, its loss is no number, and the run stops; it is never 0."""
    empty = pairs((0, -5, 0, -6, 0, 3))
    assert not ROWS[name].loss(empty).per_example.isfinite().any()


# ---- what ties objectives to one another ----------------------------------------------------------------------------

ONE_TOKEN = replace(SOME, chosen_tokens=torch.ones(3), rejected_tokens=torch.ones(3))


def same(left: str, right: str, given: PairLogps, options: dict[str, object], others: dict[str, object]) -> None:
    found, expected = (
        objective(name, **words)(given).per_example for name, words in ((left, options), (right, others))
    )
    torch.testing.assert_close(found, expected)


def test_of_one_token_the_mean_is_the_sum() -> None:
    same("ipo", "psipo", ONE_TOKEN, {"beta": 0.3}, {"beta": 0.3, "psi": PSI["identity"], "label_smoothing": 0.0})
    same("ln_dpo", "dpo", ONE_TOKEN, {"beta": 0.3}, {"beta": 0.3})
    same("simpo", "cpo", ONE_TOKEN, {"beta": 0.3, "gamma_beta_ratio": 0.0}, {"beta": 0.3, "sft_weight": 0.0})


def test_at_the_neutral_setting_it_is_dpo() -> None:
    same("r_dpo", "dpo", SOME, {"beta": 0.3, "alpha": 0.0}, {"beta": 0.3})
    same("robust_dpo", "dpo", SOME, {"beta": 0.3, "label_smoothing": 0.0}, {"beta": 0.3})
    flat = replace(SOME, reference_chosen=torch.zeros(3), reference_rejected=torch.zeros(3))
    same("cpo", "dpo", flat, {"beta": 0.3, "sft_weight": 0.0}, {"beta": 0.3})
    same("cpo", "dpo", flat, {"beta": 0.3, "sft_weight": 0.7}, {"beta": 0.3, "sft_weight": 0.7})


def test_orpo_of_one_token_is_the_log_of_its_odds() -> None:
    """p = 0.8 and 0.25: odds 4 and 1/3, their ratio 12: −ln 0.8 + β·ln(1 + 1/12)."""
    given = replace(ONE_TOKEN, chosen=torch.full((3,), math.log(0.8)), rejected=torch.full((3,), math.log(0.25)))
    found = objective("orpo", beta=0.7)(given).per_example
    assert found.tolist() == pytest.approx([-math.log(0.8) + 0.7 * math.log(1 + 1 / 12)] * 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("side", ["chosen", "rejected", "both"])
def test_orpo_of_a_probability_that_rounds_to_1(dtype: torch.dtype, side: str) -> None:
    """Its odds are infinite; the loss and its gradient are not, and a nearly certain response is close to it."""
    certain, other = torch.zeros(1, dtype=dtype), torch.full((1,), -3.0, dtype=dtype)
    chosen = (certain if side != "rejected" else other).clone().requires_grad_()
    rejected = (certain if side != "chosen" else other).clone().requires_grad_()
    count = torch.ones(1, dtype=dtype)
    given = PairLogps(chosen, rejected, certain, certain, count, count)
    loss = objective("orpo", beta=0.5)(given).per_example
    up, down = torch.autograd.grad(loss.sum(), (chosen, rejected))
    assert all(value.isfinite().all() for value in (loss, up, down))
    assert float(up) <= -1, "the likelihood of the chosen response is raised in any case"


def test_orpo_of_a_nearly_certain_response_is_exact() -> None:
    """1 − e^a of a small a, in float32: 1 less the rounded e^a would have lost half of its digits."""
    given = pairs((-3, -1e-5, 0, 0, 1, 1), (-1e-5, -3, 0, 0, 1, 1))
    rough = ROWS["orpo"].loss(in_precision(given, torch.float32)).per_example
    torch.testing.assert_close(rough.double(), ROWS["orpo"].loss(given).per_example, rtol=1e-6, atol=0)


# ---- what is reported -----------------------------------------------------------------------------------------------

# Implicit rewards of the first two pairs at the rows' β: chosen, then rejected.
REWARDS = {
    **dict.fromkeys(("dpo", "robust_dpo", "hinge", "r_dpo", "exo", "nca", "sppo", "psipo"), ((0.1, -0.1), (-0.1, 0.2))),
    **dict.fromkeys(("apo_zero", "apo_down"), ((0.1, -0.1), (-0.1, 0.2))),
    "ipo": ((0.1 / 5, -0.1 / 9), (-0.1 / 6, 0.2 / 4)),
    "ln_dpo": ((5 / 5, -5 / 9), (-5 / 6, 10 / 4)),
    "simpo": ((2 * -10 / 5, 2 * -30 / 9), (2 * -12 / 6, 2 * -20 / 4)),
    "cpo": ((-1.0, -3.0), (-1.2, -2.0)),
    "orpo": ((0.1 * -2, 0.1 * -10 / 3), (0.1 * -2, 0.1 * -5)),
}


@pytest.mark.parametrize("name", [name for name, line in OBJECTIVES.items() if line.data == "pairs"])
def test_reported_values(name: str) -> None:
    values = ROWS[name].loss(SOME).values
    chosen, rejected = (torch.tensor(side, dtype=torch.float64) for side in REWARDS[name])
    torch.testing.assert_close(values["rewards/chosen"][:2], chosen)
    torch.testing.assert_close(values["rewards/rejected"][:2], rejected)
    torch.testing.assert_close(values["rewards/margins"][:2], chosen - rejected)
    won = (1 + (chosen - rejected).round(decimals=9).sign()) / 2
    assert values["rewards/accuracies"][:2].tolist() == won.tolist(), "a tie is half a success"
    assert values["logps/chosen"].tolist() == [-10, -30, -3]
    assert values["logps/rejected"].tolist() == [-12, -20, -90]


def test_reported_values_of_kto() -> None:
    """z = 0.2: a wanted reward beyond it and an unwanted one below are right; a reward of exactly z is a tie."""
    chosen, rejected = torch.tensor([[-8.0, -30, 0], [-12, -20, -68]], dtype=torch.float64)
    given = replace(SOME, chosen=chosen, rejected=rejected)
    values = objective("kto", beta=0.1)(given).values
    assert values["rewards"].tolist() == pytest.approx([0.3, -0.1, -0.1, 0.2, 0.4, 0.2])
    assert values["logps"].tolist() == [-8, -12, -30, -20, 0, -68]
    assert values["accuracies"].tolist() == [1, 1, 0, 0.5, 1, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    ("precision", "noise", "ties"),
    [("float32", 1e-6, True), ("float32", 1e-3, False), ("bfloat16", 1e-3, True), ("bfloat16", 0.5, False)],
)
def test_before_the_first_step_rounding_decides_nothing(
    name: str, precision: Precision, noise: float, ties: bool
) -> None:
    """Log-probabilities of hundreds of nats, the reference's off by what another batch does to them: ties, all of them.
    What is beyond rounding is none, nor is a difference between responses where there is no reference.
    """
    random = torch.Generator().manual_seed(0)
    policy = -200 - 300 * torch.rand(2, 50, generator=random)
    reference = policy * (1 + noise * torch.rand(2, 50, generator=random) * torch.tensor([[1], [-1]]))
    lengths = torch.full((50,), 40.0)
    given = PairLogps(*policy, *reference, lengths, lengths, precision)
    line = OBJECTIVES[name]
    options = {"psi": PSI["identity"]} if name == "psipo" else {}
    if line.data == "labels":
        found = line.loss(responses_of(given, kl=0.0)).values["accuracies"]
    else:
        found = line.loss(given, **options).values["rewards/accuracies"]
    share_of_ties = float((found == 0.5).float().mean())
    if line.reference and ties:
        assert share_of_ties == 1
    else:
        assert share_of_ties < 0.2


def test_no_gradient_flows_through_the_kl() -> None:
    given = responses_of(SOME)
    kl = given.statistics["kl"].clone().requires_grad_()
    moving = replace(given, policy=given.policy.clone().requires_grad_(), statistics={"kl": kl})
    OBJECTIVES["kto"].loss(moving).per_example.sum().backward()
    assert moving.policy.grad is not None
    assert kl.grad is None
