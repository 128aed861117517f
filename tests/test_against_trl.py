"""DPO and reward modelling against TRL's own trainers: the same weights, the same ids, one batch."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import qwen
from torch import Tensor, nn

from preflab.model.prefix import prefix_batch
from preflab.model.responses import ResponseLogps, ResponseRewards
from preflab.objectives import dpo
from preflab.records import TokenizedComparison
from preflab.train.steps import Known, Responses, StepOutput, means, pair_step, reward_step

pytest.importorskip("trl", reason="TRL is installed with the test extra on Python 3.11 and later")

ROWS = [
    {
        "prompt": "What is two plus two?",
        "chosen": " Two plus two is four, I know.",
        "rejected": " I do not know you",
    },
    {"prompt": "Hello there! How can I help you?", "chosen": " Hi!", "rejected": " Be brief. Be brief. Be brief."},
    {"prompt": "Who are you?", "chosen": " I am Qwen, created by Alibaba Cloud.", "rejected": " You are not Qwen"},
]
BETA = 0.3


def policy(seed: int) -> Any:
    return tiny_model("qwen2", seed=seed, vocab_size=len(qwen()))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    folder = tmp_path_factory.mktemp("trl")
    arguments = DPOConfig(
        str(folder),
        beta=BETA,
        per_device_train_batch_size=3,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
    )
    return DPOTrainer(
        policy(0), policy(1), args=arguments, train_dataset=Dataset.from_list(ROWS), processing_class=qwen()
    )


@pytest.fixture
def batch(trainer: Any) -> dict[str, Tensor]:
    return dict(next(iter(trainer.get_train_dataloader())))


def comparisons(batch: dict[str, Tensor]) -> list[TokenizedComparison]:
    """The ids that TRL trains on, by its own masks: chosen responses in the first half, rejected ones in the second."""
    split = []
    for ids, attended, completion in zip(
        batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True
    ):
        real = attended.bool()
        split.append((tuple(ids[real & (completion == 0)].tolist()), tuple(ids[completion == 1].tolist())))
    half = len(split) // 2
    assert all(split[i][0] == split[i + half][0] for i in range(half))
    return [TokenizedComparison(split[i][0], (split[i][1], split[i + half][1]), i) for i in range(half)]


def only(batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """One comparison of TRL's batch."""
    return {name: value[[index, index + len(value) // 2]] for name, value in batch.items()}


def our_step(
    model: nn.Module, reference: nn.Module, rows: list[TokenizedComparison], **options: float
) -> tuple[StepOutput, ResponseLogps]:
    laid_out, module = prefix_batch(rows), ResponseLogps(model)
    with torch.no_grad():
        known = ResponseLogps(reference)(laid_out)
    responses = Responses(module(laid_out), laid_out.token_counts, laid_out.widths, Known(known))
    return pair_step(responses, objective=partial(dpo, beta=BETA, **options)), module


def test_log_probabilities_per_response(trainer: Any, batch: dict[str, Tensor]) -> None:
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    found = ResponseLogps(policy(0))(prefix_batch(comparisons(batch))).detach()
    expected = torch.stack([chosen, rejected], dim=1).flatten()
    assert expected.abs().min() > 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_dpo_loss_metrics_and_gradients(trainer: Any, batch: dict[str, Tensor]) -> None:
    rows = comparisons(batch)
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    expected = trainer.compute_loss(trainer.model, batch)
    expected.backward()
    logged = {name: values[0] for name, values in trainer._metrics["train"].items() if values}
    output, module = our_step(policy(0), policy(1), rows)
    loss = output.loss_sum / len(rows)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    ours = means(output.totals)
    shared = [name for name in ours if name not in ("loss", "logps/chosen_change")]
    assert set(shared) <= set(logged)
    assert {name: ours[name] for name in shared} == pytest.approx({n: logged[n] for n in shared}, rel=1e-4, abs=1e-4)
    grads = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    for name, parameter in module.model.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-3, atol=1e-4 * float(grads[name].abs().max()))


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_label_smoothing(trainer: Any, batch: dict[str, Tensor], epsilon: float, monkeypatch: Any) -> None:
    """TRL writes conservative DPO as "aot" on a single pair, and "robust" as the unbiased form of its two terms."""
    monkeypatch.setattr(trainer, "label_smoothing", epsilon)
    for index, row in enumerate(comparisons(batch)):
        monkeypatch.setattr(trainer, "loss_types", ["aot"])
        conservative = trainer.compute_loss(trainer.model, only(batch, index)).item()
        output, _ = our_step(policy(0), policy(1), [row], label_smoothing=epsilon)
        assert output.loss_sum.item() == pytest.approx(conservative, rel=1e-4, abs=1e-4)
        monkeypatch.setattr(trainer, "loss_types", ["robust"])
        robust = trainer.compute_loss(trainer.model, only(batch, index)).item()
        clean = our_step(policy(0), policy(1), [row])[0].loss_sum.item()
        turned = TokenizedComparison(row.prompt_ids, row.response_ids[::-1])
        flipped = our_step(policy(0), policy(1), [turned])[0].loss_sum.item()
        unbiased = ((1 - epsilon) * clean - epsilon * flipped) / (1 - 2 * epsilon)
        assert unbiased == pytest.approx(robust, rel=1e-4, abs=1e-4)


def test_the_sft_term(trainer: Any, batch: dict[str, Tensor], monkeypatch: Any) -> None:
    """On one pair; over several, TRL's term is a mean over tokens and the paper's one over pairs."""
    monkeypatch.setattr(trainer, "loss_types", ["sigmoid", "sft"])
    monkeypatch.setattr(trainer, "loss_weights", [1.0, 0.7])
    for index, row in enumerate(comparisons(batch)):
        expected = trainer.compute_loss(trainer.model, only(batch, index)).item()
        output, _ = our_step(policy(0), policy(1), [row], sft_weight=0.7)
        assert output.loss_sum.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def reward_trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    arguments = RewardConfig(
        str(tmp_path_factory.mktemp("trl")),
        per_device_train_batch_size=3,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
    )
    tokenizer = qwen()
    model = tiny_model("qwen2", task="reward", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    rows = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in ROWS]
    return RewardTrainer(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def test_reward_loss_and_gradients(reward_trainer: Any) -> None:
    batch = dict(next(iter(reward_trainer.get_train_dataloader())))
    model = copy.deepcopy(reward_trainer.model)
    reward_trainer.model.train()
    expected, outputs = reward_trainer.compute_loss(reward_trainer.model, dict(batch), return_outputs=True)
    expected.backward()
    # TRL does not say where a prompt ends, and a reward model need not know: the common beginning will do.
    rows = []
    half = len(batch["input_ids"]) // 2
    for index in range(half):
        better, worse = (
            batch["input_ids"][i][batch["attention_mask"][i].bool()].tolist() for i in (index, index + half)
        )
        start = next(i for i, (one, other) in enumerate(zip(better, worse, strict=False)) if one != other)
        rows.append(TokenizedComparison(tuple(better[:start]), (tuple(better[start:]), tuple(worse[start:])), index))
    laid_out, module = prefix_batch(rows), ResponseRewards(model)
    rewards = module(laid_out)
    torch.testing.assert_close(rewards.view(-1, 2).T.flatten(), outputs.logits[:, 0], rtol=1e-4, atol=1e-4)
    output = reward_step(Responses(rewards, laid_out.token_counts, laid_out.widths))
    loss = output.loss_sum / len(rows)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    metrics = reward_trainer._metrics["train"]
    assert means(output.totals)["accuracy"] == pytest.approx(metrics["accuracy"][0])
    assert means(output.totals)["margin"] == pytest.approx(metrics["margin"][0], rel=1e-4)
    assert means(output.totals)["reward_mean"] == pytest.approx(metrics["mean_reward"][0], rel=1e-4, abs=1e-5)
    grads = {name: parameter.grad for name, parameter in reward_trainer.model.named_parameters()}
    for name, parameter in module.model.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-3, atol=1e-4 * float(grads[name].abs().max()))


def test_centering_pulls_each_reward_to_zero(reward_trainer: Any, monkeypatch: Any) -> None:
    """Ours is c·mean(r²). TRL's c·mean((r_w + r_l)²) is four times that, less c·mean((r_w − r_l)²) of the margins."""
    batch = dict(next(iter(reward_trainer.get_train_dataloader())))
    with torch.no_grad():
        plain, outputs = reward_trainer.compute_loss(reward_trainer.model, dict(batch), return_outputs=True)
        monkeypatch.setattr(reward_trainer.args, "center_rewards_coefficient", 0.25)
        theirs = reward_trainer.compute_loss(reward_trainer.model, dict(batch)) - plain
    better, worse = outputs.logits[:, 0].chunk(2)
    rewards = torch.stack([better, worse], dim=1).flatten()
    responses = Responses(rewards, torch.ones(len(rewards)), (2,) * len(better))
    centered = reward_step(responses, center=0.25).loss_sum / len(better)
    ours = float(centered - plain)
    assert ours == pytest.approx(0.25 * float(rewards.square().mean()), rel=1e-4)
    margins = float((better - worse).square().mean())
    assert float(theirs) == pytest.approx(4 * ours - 0.25 * margins, rel=1e-4)
