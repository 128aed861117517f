"""Batches of TRL's trainers as rows of ours: the same weights, the same ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_model
from tiny_tokenizers import qwen
from torch import Tensor, nn

from preflab.core.records import TokenizedComparison
from preflab.model.prefix import prefix_batch
from preflab.model.responses import ResponseLogps
from preflab.objectives import Loss, PairLogps
from preflab.training.steps import Known, Responses, StepOutput, pair_step

ROWS = [
    {
        "prompt": "What is two plus two?",
        "chosen": " Two plus two is four, I know.",
        "rejected": " I do not know you",
    },
    {"prompt": "Hello there! How can I help you?", "chosen": " Hi!", "rejected": " Be brief. Be brief. Be brief."},
    {"prompt": "Who are you?", "chosen": " I am Qwen, created by Alibaba Cloud.", "rejected": " You are not Qwen"},
]


def policy(seed: int) -> Any:
    """A policy (0) or a reference (1)."""
    return tiny_model("qwen2", seed=seed, vocab_size=len(qwen()))


def arguments(kind: type[Any], folder: Path, **others: Any) -> Any:
    """The configuration of a trainer of TRL on the CPU."""
    return kind(str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], **others)


def split(batch: dict[str, Tensor], prefix: str = "") -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and response of each sequence, by TRL's own masks."""
    names = ("input_ids", "attention_mask", "completion_mask")
    found = []
    for ids, attended, completion in zip(*(batch[prefix + name] for name in names), strict=True):
        real = attended.bool()
        found.append((tuple(ids[real & (completion == 0)].tolist()), tuple(ids[completion == 1].tolist())))
    return found


def comparisons(batch: dict[str, Tensor]) -> list[TokenizedComparison]:
    """The rows of a batch of DPO: chosen responses in the first half, rejected ones in the second."""
    sequences = split(batch)
    half = len(sequences) // 2
    rows = []
    for i, ((prompt, chosen), (other, rejected)) in enumerate(zip(sequences[:half], sequences[half:], strict=True)):
        assert prompt == other
        rows.append(TokenizedComparison(prompt, (chosen, rejected), i))
    return rows


def only(batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """One comparison of TRL's batch."""
    return {name: value[[index, index + len(value) // 2]] for name, value in batch.items()}


def our_step(
    objective: Callable[[PairLogps], Loss], rows: list[TokenizedComparison], *, reference: bool = True
) -> tuple[StepOutput, nn.Module]:
    """What a step on these rows gives, and the model with its gradients: those of the mean over the rows."""
    laid_out, module = prefix_batch(rows), ResponseLogps(policy(0))
    known = Known()
    if reference:
        with torch.no_grad():
            known = Known(ResponseLogps(policy(1))(laid_out))
    responses = Responses(module(laid_out), laid_out.token_counts, laid_out.widths, known)
    output = pair_step(responses, objective=objective)
    (output.loss_sum / len(rows)).backward()
    return output, module.model


def their_step(trainer: Any, batch: dict[str, Tensor]) -> Tensor:
    """A trainer's loss, and gradients in its model."""
    trainer.model.train()
    trainer.model.zero_grad()
    loss: Tensor = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return loss.detach()


def assert_same_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    grads = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = grads[name]
        assert expected is not None
        assert float(expected.abs().max()) > 0, name
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
