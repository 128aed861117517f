"""CPO, SimPO, ORPO and KTO against TRL's own trainers: the same weights, the same ids."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from objective_rows import objective
from tiny_tokenizers import qwen
from torch import Tensor
from trl_batches import ROWS, arguments, assert_same_gradients, our_step, policy, split, their_step

from preflab.core.records import TokenizedComparison
from preflab.model.prefix import prefix_batch
from preflab.model.responses import ResponseLogps
from preflab.objectives import kto
from preflab.training.steps import Known, Responses, label_step, means

pytestmark = pytest.mark.slow

pytest.importorskip("trl", reason="TRL is installed with the test extra on Python 3.11 and later")

LONG_PROMPTS = [
    TokenizedComparison((5, 6, 7, 8), ((9, 10, 11, 12, 13), (14, 15)), 1),
    TokenizedComparison((20, 21), ((22, 23), (24, 25, 26, 27, 28)), 2),
    TokenizedComparison((30, 31, 32, 33, 34, 35), ((36,), (37, 38, 39)), 3),
]
ONE_TOKEN_PROMPTS = [TokenizedComparison(row.prompt_ids[:1], row.response_ids, row.row) for row in LONG_PROMPTS]


def as_trl(rows: list[TokenizedComparison]) -> dict[str, Tensor]:
    """The batch that TRL's CPO and ORPO trainers make of these rows."""
    batch = {}
    for side, name in enumerate(("chosen", "rejected")):
        parts = [(row.prompt_ids, row.response_ids[side]) for row in rows]
        longest = max(len(prompt) + len(response) for prompt, response in parts)
        columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for prompt, response in parts:
            padding = longest - len(prompt) - len(response)
            columns["input_ids"].append([*prompt, *response, *[0] * padding])
            columns["attention_mask"].append([1] * (longest - padding) + [0] * padding)
            columns["labels"].append([-100] * len(prompt) + [*response] + [-100] * padding)
        batch |= {f"{name}_{column}": torch.tensor(values) for column, values in columns.items()}
    return batch


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    folder = tmp_path_factory.mktemp("trl")
    data, tokenizer = Dataset.from_list(ROWS), qwen()
    return {
        name: kind(policy(0), args=arguments(config, folder / name), train_dataset=data, processing_class=tokenizer)
        for name, kind, config in (("cpo", CPOTrainer, CPOConfig), ("orpo", ORPOTrainer, ORPOConfig))
    }


def set_all(monkeypatch: pytest.MonkeyPatch, trainer: Any, **settings: object) -> None:
    for name, value in settings.items():
        monkeypatch.setattr(trainer, name, value, raising=name != "simpo_gamma")  # set where it is used only


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_cpo(epsilon: float, trainers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its likelihood term is a mean over the tokens of a batch, ours over the pairs: the same on a single pair."""
    trainer = trainers["cpo"]
    options = {"beta": 0.3, "label_smoothing": epsilon}
    set_all(monkeypatch, trainer, loss_type="sigmoid", cpo_alpha=0.0, **options)
    expected = their_step(trainer, as_trl(LONG_PROMPTS))
    output, model = our_step(objective("cpo", sft_weight=0.0, **options), LONG_PROMPTS, reference=False)
    torch.testing.assert_close(output.loss_sum.detach() / 3, expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(model, trainer.model)
    set_all(monkeypatch, trainer, cpo_alpha=0.7)
    for row in LONG_PROMPTS:
        expected = their_step(trainer, as_trl([row]))
        output, model = our_step(objective("cpo", sft_weight=0.7, **options), [row], reference=False)
        torch.testing.assert_close(output.loss_sum.detach(), expected, rtol=1e-4, atol=1e-4)
        assert_same_gradients(model, trainer.model)


def test_simpo(trainers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its γ is our ratio times β."""
    trainer = trainers["cpo"]
    set_all(monkeypatch, trainer, loss_type="simpo", cpo_alpha=0.0, beta=2.5, simpo_gamma=1.375, label_smoothing=0.0)
    trainer._stored_metrics["train"].clear()
    expected = their_step(trainer, as_trl(LONG_PROMPTS))
    output, model = our_step(objective("simpo", beta=2.5, gamma_beta_ratio=0.55), LONG_PROMPTS, reference=False)
    torch.testing.assert_close(output.loss_sum.detach() / 3, expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(model, trainer.model)
    logged, ours = trainer._stored_metrics["train"], means(output.totals)
    shared = [name for name in ours if name.startswith("rewards/")]
    assert len(shared) == 4
    assert {n: ours[n] for n in shared} == pytest.approx({n: logged[n][0] for n in shared}, rel=1e-4, abs=1e-4)


def test_orpo(trainers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's likelihood is of the prompt too, but for its first token, which nothing predicts: so it is the same where
    the prompt is that token alone, on single pairs (it is a mean over the tokens of a batch).
    """
    trainer = trainers["orpo"]
    set_all(monkeypatch, trainer, beta=0.3)
    for row in ONE_TOKEN_PROMPTS:
        expected = their_step(trainer, as_trl([row]))
        output, model = our_step(objective("orpo", beta=0.3), [row], reference=False)
        torch.testing.assert_close(output.loss_sum.detach(), expected, rtol=1e-4, atol=1e-4)
        assert_same_gradients(model, trainer.model)


def test_orpo_of_longer_prompts_differs_by_the_likelihood_alone(
    trainers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The odds-ratio term is the same; the difference is a mean over all tokens against a mean over pairs of means."""
    trainer = trainers["orpo"]
    set_all(monkeypatch, trainer, beta=0.3)
    batch = as_trl(LONG_PROMPTS)
    theirs = their_step(trainer, batch)
    output, _ = our_step(objective("orpo", beta=0.3), LONG_PROMPTS, reference=False)
    model = policy(0)
    with torch.no_grad():
        everything = batch["chosen_input_ids"].masked_fill(batch["chosen_attention_mask"] == 0, -100)
        of_batch = model(
            batch["chosen_input_ids"], attention_mask=batch["chosen_attention_mask"], labels=everything
        ).loss
        of_pairs = []
        for row in LONG_PROMPTS:
            alone = as_trl([row])
            of_pairs.append(model(alone["chosen_input_ids"], labels=alone["chosen_labels"]).loss)
    difference = theirs - output.loss_sum.detach() / 3
    torch.testing.assert_close(difference, of_batch - torch.stack(of_pairs).mean(), rtol=1e-4, atol=1e-4)
    assert abs(float(difference)) > 0.01


# ---- KTO -----------------------------------------------------------------------------------------------------------

UNPAIRED = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row, side in zip([*ROWS, ROWS[0]], ("chosen", "rejected", "rejected", "rejected"), strict=True)
]


@pytest.fixture(scope="module")
def kto_trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    config = arguments(KTOConfig, tmp_path_factory.mktemp("trl"), beta=0.3, per_device_train_batch_size=4)
    return KTOTrainer(
        policy(0), policy(1), args=config, train_dataset=Dataset.from_list(UNPAIRED), processing_class=qwen()
    )


@pytest.mark.parametrize("turned", [False, True], ids=["kl as it is", "kl below 0"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.6)])
def test_kto(turned: bool, weights: tuple[float, float], kto_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On TRL's own mismatched rows; with policy and reference changing places, the estimate is on the other side of 0,
    where both take 0.
    """
    first, second = (1, 0) if turned else (0, 1)
    kto_trainer.model.load_state_dict(policy(first).state_dict())
    kto_trainer.ref_model.load_state_dict(policy(second).state_dict())
    set_all(monkeypatch, kto_trainer, desirable_weight=weights[0], undesirable_weight=weights[1])
    batch = dict(next(iter(kto_trainer.get_train_dataloader())))
    kto_trainer._metrics["train"].clear()
    expected = their_step(kto_trainer, batch)
    logged = {name: values[0] for name, values in kto_trainer._metrics["train"].items() if values}
    rows, mismatched = (
        prefix_batch([TokenizedComparison(prompt, (response,)) for prompt, response in split(batch, prefix)])
        for prefix in ("", "KL_")
    )
    module, reference = ResponseLogps(policy(first)), ResponseLogps(policy(second))
    with torch.no_grad():
        known = Known(reference(rows), batch["label"].bool())
        kl = float(np.mean((module(mismatched) - reference(mismatched)).double().numpy()))
    assert (kl < 0) != (logged["kl"] > 0)
    statistics = {"kl": torch.tensor(max(0.0, kl))}
    objective = partial(kto, beta=0.3, desirable_weight=weights[0], undesirable_weight=weights[1])
    given = Responses(module(rows), rows.token_counts, rows.widths, known, statistics=statistics)
    output = label_step(given, objective=objective)
    loss = output.loss_sum / len(UNPAIRED)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(module.model, kto_trainer.model)
    ours = means(output.totals)
    shared = ("kl", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
    assert {n: ours[n] for n in shared} == pytest.approx({n: logged[n] for n in shared}, rel=1e-4, abs=1e-4)
