"""Reward modelling against TRL's own trainer: the same weights, the same ids, one batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import qwen
from trl_batches import ROWS, arguments, assert_same_gradients

from preflab.core.records import TokenizedComparison
from preflab.model.prefix import prefix_batch
from preflab.model.responses import ResponseRewards
from preflab.training.steps import Responses, means, reward_step

pytestmark = pytest.mark.slow

pytest.importorskip("trl", reason="TRL is installed with the test extra on Python 3.11 and later")


@pytest.fixture(scope="module")
def reward_trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    config = arguments(RewardConfig, tmp_path_factory.mktemp("trl"), per_device_train_batch_size=3)
    tokenizer = qwen()
    model = tiny_model("qwen2", task="reward", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    rows = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in ROWS]
    return RewardTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


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
    assert_same_gradients(module.model, reward_trainer.model)


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
