"""Objectives on pairs with a reference against TRL's DPO trainer: the same weights, the same ids, one batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from objective_rows import objective
from tiny_tokenizers import qwen
from torch import Tensor
from trl_batches import ROWS, arguments, assert_same_gradients, comparisons, only, our_step, policy, their_step

from preflab.core.records import TokenizedComparison
from preflab.model.prefix import prefix_batch
from preflab.model.responses import ResponseLogps
from preflab.objectives import OBJECTIVES, Loss, PairLogps
from preflab.training.losses import loss_of
from preflab.training.preference_settings import settings_of
from preflab.training.steps import Responses, StepOutput, means, pair_step

pytestmark = pytest.mark.slow

pytest.importorskip("trl", reason="TRL is installed with the test extra on Python 3.11 and later")

BETA = 0.3


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config = arguments(DPOConfig, tmp_path_factory.mktemp("trl"), beta=BETA, per_device_train_batch_size=3)
    return DPOTrainer(policy(0), policy(1), args=config, train_dataset=Dataset.from_list(ROWS), processing_class=qwen())


@pytest.fixture(scope="module")
def batch(trainer: Any) -> dict[str, Tensor]:
    return dict(next(iter(trainer.get_train_dataloader())))


@pytest.fixture
def use(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let TRL's trainer use these losses, and other settings."""

    def use(*losses: str, weights: tuple[float, ...] = (1.0,), **settings: float) -> None:
        monkeypatch.setattr(trainer, "loss_types", list(losses))
        monkeypatch.setattr(trainer, "loss_weights", list(weights))
        for name, value in settings.items():
            monkeypatch.setattr(trainer, name, value)

    return use


def test_log_probabilities_per_response(trainer: Any, batch: dict[str, Tensor]) -> None:
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    found = ResponseLogps(policy(0))(prefix_batch(comparisons(batch))).detach()
    expected = torch.stack([chosen, rejected], dim=1).flatten()
    assert expected.abs().min() > 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# TRL's name of the loss, and our hyper-parameters besides β (TRL has its own for ε).
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("sigmoid", {}),
    "robust_dpo": ("robust", {"label_smoothing": 0.2}),
    "ipo": ("ipo", {}),
    "hinge": ("hinge", {}),
    "ln_dpo": ("sigmoid_norm", {}),
    "apo_zero": ("apo_zero", {}),
    "apo_down": ("apo_down", {}),
    "exo": ("exo_pair", {"label_smoothing": 0.05}),
    "nca": ("nca_pair", {}),
    "sppo": ("sppo_hard", {}),
}
ELSEWHERE = {"simpo", "cpo", "orpo", "kto"}  # test_against_trl_others
NOT_IN_TRL = {"r_dpo", "psipo"}


def test_every_objective_that_trl_has_is_compared() -> None:
    assert set(LOSSES) | ELSEWHERE | NOT_IN_TRL == set(OBJECTIVES)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_and_metrics(
    name: str, trainer: Any, batch: dict[str, Tensor], use: Callable[..., None]
) -> None:
    theirs, options = LOSSES[name]
    use(theirs, **options)
    trainer._metrics["train"].clear()
    expected = their_step(trainer, batch)
    logged = {name: values[0] for name, values in trainer._metrics["train"].items() if values}
    output, model = our_step(objective(name, beta=BETA, **options), comparisons(batch))
    torch.testing.assert_close(output.loss_sum.detach() / len(ROWS), expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(model, trainer.model)
    ours = means(output.totals)
    shared = {n for n in ours if n not in ("loss", "logps/chosen_change")}
    assert shared <= set(logged)
    if name in ("ipo", "ln_dpo"):  # TRL reports β·Δ in sums, also where its loss takes means
        shared = {n for n in shared if n.startswith("logps/")}
    assert {n: ours[n] for n in shared} == pytest.approx({n: logged[n] for n in shared}, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_conservative_dpo(trainer: Any, batch: dict[str, Tensor], epsilon: float, use: Callable[..., None]) -> None:
    """TRL has it as "aot" on a single pair."""
    use("aot", label_smoothing=epsilon)
    smoothed = objective("dpo", beta=BETA, label_smoothing=epsilon)
    for index, row in enumerate(comparisons(batch)):
        expected = their_step(trainer, only(batch, index))
        output, model = our_step(smoothed, [row])
        torch.testing.assert_close(output.loss_sum.detach(), expected, rtol=1e-4, atol=1e-4)
        assert_same_gradients(model, trainer.model)


def mixture(*mix: str, **options: float) -> Callable[[PairLogps], Loss]:
    """What `train dpo --mix …` trains by."""
    settings = settings_of("dpo")(model="-", train_data=("-",), beta=BETA, mix=mix, **options)
    step = partial(pair_step, objective=loss_of(settings))
    assert isinstance(step, partial)
    return step.keywords["objective"]


def test_a_mixture_of_losses_by_weight(trainer: Any, batch: dict[str, Tensor], use: Callable[..., None]) -> None:
    use("sigmoid", "ipo", "apo_zero", weights=(1.0, 0.5, 0.2))
    expected = their_step(trainer, batch)
    mixed = mixture(f"ipo?weight=0.5&beta={BETA}", f"apo_zero?weight=0.2&beta={BETA}")
    output, model = our_step(mixed, comparisons(batch))
    torch.testing.assert_close(output.loss_sum.detach() / len(ROWS), expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(model, trainer.model)


@pytest.mark.parametrize("how", ["sft_weight", "mix"])
def test_the_sft_term(how: str, trainer: Any, batch: dict[str, Tensor], use: Callable[..., None]) -> None:
    """On one pair they are the same. Over several, TRL's is a mean over tokens and ours, as the paper's, over pairs."""
    use("sigmoid", "sft", weights=(1.0, 0.7))
    objective = mixture(sft_weight=0.7) if how == "sft_weight" else mixture("sft?weight=0.7")
    rows = comparisons(batch)
    for index, row in enumerate(rows):
        expected = their_step(trainer, only(batch, index))
        output, model = our_step(objective, [row])
        torch.testing.assert_close(output.loss_sum.detach(), expected, rtol=1e-4, atol=1e-4)
        assert_same_gradients(model, trainer.model)
    theirs = their_step(trainer, batch)
    output, _ = our_step(objective, rows)
    lengths = torch.tensor([len(row.response_ids[0]) for row in rows])
    own = torch.stack([sft_of(row) for row in rows])
    over_tokens, over_pairs = (own * lengths).sum() / lengths.sum(), own.mean()
    difference = theirs - output.loss_sum.detach() / len(rows)
    torch.testing.assert_close(difference, 0.7 * (over_tokens - over_pairs), rtol=1e-3, atol=1e-4)


def sft_of(row: TokenizedComparison) -> Tensor:
    """−log π(y_w)/|y_w|."""
    with torch.no_grad():
        return -ResponseLogps(policy(0))(prefix_batch([row]))[0] / len(row.response_ids[0])


def test_the_step_of_a_recipe_is_that_of_its_settings() -> None:
    """Else the comparisons above would be of something that no command runs."""
    values = torch.tensor([-5.0, -7.0])
    responses = Responses(values, torch.tensor([2, 3]), (2,))
    settings = settings_of("dpo")(model="-", train_data=("-",), mix=("simpo?weight=2&beta=3",))
    with_nan: StepOutput = pair_step(responses, objective=loss_of(settings))
    assert with_nan.loss_sum.isnan(), "dpo has no reference here"
    assert set(with_nan.totals) >= {"loss/dpo", "loss/simpo"}
    better, worse = values[:1], values[1:]
    given = PairLogps(better, worse, better, worse, torch.tensor([2]), torch.tensor([3]))
    expected = objective("simpo", beta=3.0)(given)
    assert means(with_nan.totals)["loss/simpo"] == pytest.approx(float(expected.per_example))
