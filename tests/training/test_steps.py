"""From responses to loss and metrics: pairs, weights, and sums of which means are taken once."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from objective_rows import ROWS
from torch import Tensor

from preflab.objectives import bradley_terry, dpo, kto
from preflab.training.steps import (
    Known,
    Responses,
    StepFn,
    add_totals,
    label_step,
    means,
    pair_step,
    reward_step,
    sft_step,
)

WIDTHS = (2, 3, 2, 4, 2)
RANDOM = torch.Generator().manual_seed(0)
VALUES = torch.randn(sum(WIDTHS), generator=RANDOM, dtype=torch.float64) * 3
REFERENCE = torch.randn(sum(WIDTHS), generator=RANDOM, dtype=torch.float64) * 3
COUNTS = torch.randint(1, 30, (sum(WIDTHS),), generator=RANDOM)
WANTED = torch.rand(sum(WIDTHS), generator=RANDOM) > 0.4
STEPS: dict[str, StepFn] = {
    "reward": partial(reward_step, center=0.1),
    "dpo": partial(pair_step, objective=partial(dpo, beta=0.3, label_smoothing=0.1, sft_weight=0.2)),
    **{name: partial(pair_step, objective=row.loss) for name, row in ROWS.items() if not name.startswith("kto")},
    "kto": partial(label_step, objective=partial(kto, desirable_weight=1.5)),
}


def responses(first: int = 0, last: int = len(WIDTHS), values: Tensor = VALUES) -> Responses:
    """Those of the comparisons from `first` up to `last`."""
    here = slice(sum(WIDTHS[:first]), sum(WIDTHS[:last]))
    known, statistics = Known(REFERENCE[here], WANTED[here]), {"kl": torch.tensor(1.3)}
    return Responses(values[here], COUNTS[here], WIDTHS[first:last], known, statistics=statistics)


def test_all_pairs_of_a_comparison_weigh_one() -> None:
    better, worse, weights = responses().pairs
    names = [f"{i}>{j}" for i, j in zip(better.tolist(), worse.tolist(), strict=True)]
    assert names[:5] == ["0>1", "2>3", "2>4", "3>4", "5>6"]
    assert names[5:11] == ["7>8", "7>9", "7>10", "8>9", "8>10", "9>10"]
    assert weights.tolist() == pytest.approx([1] + [1 / 3] * 3 + [1] + [1 / 6] * 6 + [1])


def test_a_ranking_counts_as_much_as_a_pair() -> None:
    """The loss of a comparison of four responses is the mean of its six pairs' losses, by hand."""
    own = VALUES[7:11]
    by_hand = torch.stack([bradley_terry(own[i], own[j]).per_example for i in range(4) for j in range(i + 1, 4)]).mean()
    output = reward_step(responses(3, 4))
    torch.testing.assert_close(output.loss_sum, by_hand)
    assert means(output.totals)["loss"] == pytest.approx(float(by_hand))
    accuracy = np.mean([float(own[i] > own[j]) for i in range(4) for j in range(i + 1, 4)])
    assert means(output.totals)["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("cuts", [(0, 5), (0, 1, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_neither_loss_nor_metrics_depend_on_how_a_batch_is_cut(name: str, cuts: tuple[int, ...]) -> None:
    whole = STEPS[name](responses())
    parts = [STEPS[name](responses(first, last)) for first, last in pairwise(cuts)]
    torch.testing.assert_close(sum(part.loss_sum for part in parts), whole.loss_sum, rtol=1e-12, atol=0)
    found = means(add_totals([part.totals for part in parts]))
    assert found == pytest.approx(means(whole.totals), rel=1e-9)


@pytest.mark.parametrize("name", STEPS)
def test_the_loss_that_is_shown_is_the_loss_that_is_trained(name: str) -> None:
    output = STEPS[name](responses())
    weight = sum(WIDTHS) if name == "kto" else len(WIDTHS)
    assert means(output.totals)["loss"] == pytest.approx(float(output.loss_sum) / weight)
    assert not any(total.requires_grad for total in output.totals.values())


def test_sft_divides_by_response_tokens() -> None:
    output = sft_step(responses())
    torch.testing.assert_close(output.loss_sum, -VALUES.sum())
    assert means(output.totals)["loss"] == pytest.approx(-float(VALUES.sum()) / int(COUNTS.sum()))


def test_reward_mean_and_deviation_are_pooled_over_all_responses() -> None:
    parts = [reward_step(responses(i, i + 1)).totals for i in range(len(WIDTHS))]
    found = means(add_totals(parts))
    assert found["reward_mean"] == pytest.approx(np.mean(VALUES.numpy()))
    assert found["reward_std"] == pytest.approx(np.std(VALUES.numpy()))


def test_the_deviation_of_equal_rewards_is_zero_and_not_nan() -> None:
    same = torch.full((4,), 0.1)
    found = means(reward_step(Responses(same, torch.ones(4), (2, 2))).totals)
    assert found["reward_std"] == pytest.approx(0, abs=1e-6)


def test_centering_is_the_mean_square_of_a_comparisons_rewards() -> None:
    """c 0.5 on rewards 1, 2 and 3: 0.5 · (1 + 4 + 9) / 3."""
    given = Responses(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), (3,))
    added = reward_step(given, center=0.5).loss_sum - reward_step(given).loss_sum
    assert float(added) == pytest.approx(0.5 * 14 / 3)


def test_nothing_known_is_not_a_number_and_not_zero() -> None:
    empty = {"loss": torch.zeros(3), "reward_std": torch.zeros(3)}
    assert all(np.isnan(value) for value in means(empty).values())


def test_labels_are_reported_by_side() -> None:
    """Rewards 0.1·(−2 + 5), 0.1·(−9 + 8) and 0.1·(−4 + 4); z = 0.1·2. Means of each side, and of all."""
    values, reference = torch.tensor([[-2.0, -9, -4], [-5, -8, -4]], dtype=torch.float64)
    known, statistics = Known(reference, torch.tensor([True, False, False])), {"kl": torch.tensor(2.0)}
    given = Responses(values, torch.ones(3), (2, 1), known, statistics=statistics)
    output = label_step(given, objective=kto)
    losses = [1 / (1 + np.exp(0.3 - 0.2)), 1 / (1 + np.exp(0.2 + 0.1)), 1 / (1 + np.exp(0.2))]
    assert float(output.loss_sum) == pytest.approx(sum(losses))
    assert means(output.totals) == pytest.approx(
        {
            "loss": sum(losses) / 3,
            "rewards/chosen": 0.3,
            "rewards/rejected": -0.05,
            "logps/chosen": -2,
            "logps/rejected": -6.5,
            "rewards/accuracies": 1,
            "logps/chosen_change": 3,
            "kl": 2,
        }
    )


def test_without_a_reference_there_is_no_change_from_it() -> None:
    given = Responses(VALUES, COUNTS, WIDTHS)
    found = pair_step(given, objective=ROWS["orpo"].loss)
    assert np.isfinite(float(found.loss_sum))
    assert "logps/chosen_change" not in found.totals
    assert pair_step(given, objective=dpo).loss_sum.isnan(), "a reference that is not there is no number"
