"""The training loop on a small model and random rows: the gradients that the optimizer saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from preflab.data.batches import Indices, Step, plan_training
from preflab.training.loop import Rows, StepReport, train
from preflab.training.steps import StepFn

Grads = dict[str, Tensor]


class OneOfMany:
    """An accelerator that believes to be one of several processes, and hears nothing of the others."""

    device = torch.device("cpu")
    mixed_precision = "no"

    def __init__(self, process_index: int = 0, num_processes: int = 1) -> None:
        self.process_index = process_index
        self.num_processes = num_processes
        self.sync_gradients = True

    def no_sync(self, _module: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, limit: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, limit)

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        return tensor


def gradients(
    module: nn.Module,
    rows: Rows,
    step_fn: StepFn,
    plan: Sequence[Step],
    accelerator: Any = None,
    *,
    learning_rate: float = 0.0,
    clip: float = 1e9,
    statistics_of: Callable[[Indices], Mapping[str, Tensor]] = lambda _: {},
) -> tuple[list[Grads], list[StepReport]]:
    """The gradients as the optimizer saw them in each step, and the reports."""
    seen: list[Grads] = []
    optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate)
    optimizer.register_step_pre_hook(
        lambda *_: seen.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
    )
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    accelerator = accelerator or OneOfMany()
    given = (accelerator, module, optimizer, schedule, rows, plan, step_fn)
    reports = train(*given, max_grad_norm=clip, statistics_of=statistics_of)
    return seen, list(reports)


def planned(
    lengths: Indices, *, batch_size: int | None = None, max_tokens: int | None = None, passes: int
) -> Sequence[Step]:
    return plan_training(
        lengths, epochs=1.0, max_steps=-1, batch_size=batch_size or 1, max_tokens=max_tokens, passes=passes, seed=3
    ).steps


def averaged(shares: Sequence[Sequence[Grads]]) -> list[Grads]:
    """What DDP makes of the gradients of several processes."""
    return [
        {name: torch.stack([grads[name] for grads in step]).mean(dim=0) for name in step[0]}
        for step in zip(*shares, strict=True)
    ]


def assert_same(found: Sequence[Grads], expected: Sequence[Grads], relative: float = 1e-6) -> None:
    assert len(found) == len(expected) > 1
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        largest = max(float(grad.norm()) for grad in theirs.values())
        assert largest > 0
        for name, grad in theirs.items():
            assert float((ours[name] - grad).norm()) <= relative * max(float(grad.norm()), 0.1 * largest), name
