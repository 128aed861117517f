"""The training loop: one for every objective. It knows neither objectives nor settings nor files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from preflab.core.records import UserError
from preflab.core.ties import Precision
from preflab.data.batches import Indices, Step
from preflab.model.prefix import PrefixBatch
from preflab.training.steps import Known, Responses, StepFn, Totals, add_totals


class Rows(Protocol):
    """Tokenised comparisons with what the objective needs of each."""

    def batch(self, indices: Indices) -> tuple[PrefixBatch, Known]:
        """The comparisons in prefix layout, and what is known of their responses."""
        ...

    def weight(self, indices: Indices) -> float:
        """What the loss of these comparisons is divided by: their number, or their response tokens."""
        ...

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[rows + 1] where the responses of each comparison start in a flat array over all of them."""
        ...


class NotFiniteError(UserError):
    """A loss or gradient that is no number, or infinite."""


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did. `totals` and `tokens` (in prefix layout) are over all processes."""

    step: int
    totals: Totals
    learning_rate: float
    grad_norm: float
    tokens: int


def train(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    rows: Rows,
    plan: Sequence[Step],
    step_fn: StepFn,
    *,
    max_grad_norm: float,
    first: int = 0,
    statistics_of: Callable[[Indices], Mapping[str, Tensor]] = lambda _: {},
) -> Iterator[StepReport]:
    """Take the optimizer steps `plan[first:]`, one per item of the iteration; what to do between them is the caller's.

    `statistics_of` is given the rows of a step, over all processes and forward passes, before its first one: what it
    finds out of them all together does not depend on how they are cut, and `step_fn` is given it with each. A
    non-finite loss or gradient raises NotFiniteError before the weights are touched.
    """
    module.train()
    for index in range(first, len(plan)):
        weight, statistics = rows.weight(plan[index].rows), statistics_of(plan[index].rows)
        passes = plan[index].of_process(accelerator.process_index, accelerator.num_processes)
        parts, tokens = [], 0
        for number, indices in enumerate(passes):
            last = number == len(passes) - 1
            accelerator.sync_gradients = last
            with nullcontext() if last else accelerator.no_sync(module):
                # A process without rows of its own in this pass still takes part in the synchronisation, at weight
                # zero.
                batch, responses = _forward(
                    accelerator, module, rows, indices if len(indices) else plan[index].rows[:1]
                )
                output = step_fn(replace(responses, statistics=statistics))
                # Gradients are averaged over processes, the loss is a mean over all of them: hence the factor.
                share = accelerator.num_processes / weight if len(indices) else 0.0
                accelerator.backward(output.loss_sum * share)
            if len(indices):
                parts.append(output.totals)
                tokens += len(batch.input_ids)
            else:
                parts.append({name: torch.zeros_like(value) for name, value in output.totals.items()})
        grad_norm = _clip(accelerator, module, max_grad_norm)
        totals, tokens = _over_processes(accelerator, add_totals(parts), tokens)
        _stop_unless_finite(totals, grad_norm, index, plan[index])
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield StepReport(index + 1, totals, rate, grad_norm, tokens)


def response_values(
    accelerator: Accelerator,
    module: nn.Module,
    rows: Rows,
    plan: Sequence[Indices],
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """What the module says of every response of the rows, without gradients: [R] in the order of `rows.offsets`, on
    every process. `advance` is told how many comparisons each forward pass has dealt with.
    """
    offsets = rows.offsets
    values = torch.zeros(int(offsets[-1]), dtype=torch.float64)
    training = module.training
    module.eval()
    step = Step(tuple(plan))
    with torch.no_grad():
        for indices in step.of_process(accelerator.process_index, accelerator.num_processes):
            _, responses = _forward(accelerator, module, rows, indices if len(indices) else plan[0])
            if len(indices):
                places = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in indices])
                values[torch.from_numpy(places)] = responses.values.cpu().double()  # not every accelerator has float64
                advance(len(indices) * accelerator.num_processes)
    module.train(training)
    # Every response was computed by one process and is zero elsewhere, so the sum gathers without rounding.
    return _sum_over_processes(accelerator, values).numpy()


def _forward(
    accelerator: Accelerator, module: nn.Module, rows: Rows, indices: Indices
) -> tuple[PrefixBatch, Responses]:
    batch, known = rows.batch(indices)
    batch = batch.to(accelerator.device)
    with accelerator.autocast():
        values = module(batch)
    precision = precision_in_use(accelerator, module)
    return batch, Responses(values, batch.token_counts, batch.widths, known.to(accelerator.device), precision)


def precision_in_use(accelerator: Accelerator, module: nn.Module) -> Precision:
    """The lower one of the arithmetic's and the weights' precision: it decides how far rounding can move an answer.

    What is computed in float32 after that (log-softmax, sums, a reward head) makes nothing more exact.
    """
    half = accelerator.mixed_precision == "bf16" or any(p.dtype == torch.bfloat16 for p in module.parameters())
    return "bfloat16" if half else "float32"


def _clip(accelerator: Accelerator, module: nn.Module, max_grad_norm: float) -> float:
    norm = accelerator.clip_grad_norm_(module.parameters(), max_grad_norm)
    return float("nan") if norm is None else float(norm)


def _over_processes(accelerator: Accelerator, totals: Totals, tokens: int) -> tuple[Totals, int]:
    stacked = torch.stack([*totals.values(), torch.full((3,), tokens).to(next(iter(totals.values())))])
    summed = _sum_over_processes(accelerator, stacked)
    return dict(zip(totals, summed[:-1], strict=True)), int(summed[-1, 0])


def _sum_over_processes(accelerator: Accelerator, values: Tensor) -> Tensor:
    """The sum of float64 values on the CPU; they meet on the devices, where there are several."""
    if accelerator.num_processes == 1:
        return values
    summed: Tensor = accelerator.reduce(values.to(accelerator.device), reduction="sum")
    return summed.cpu()


def _stop_unless_finite(totals: Totals, grad_norm: float, index: int, step: Step) -> None:
    loss = float(totals["loss"][0])
    if np.isfinite(loss) and np.isfinite(grad_norm):
        return
    rows = ", ".join(map(str, step.rows[:8].tolist())) + ("…" if len(step.rows) > 8 else "")
    raise NotFiniteError(
        f"step {index + 1}: the loss is {loss} and the norm of its gradient {grad_norm}; training stopped before the "
        f"weights were touched (rows {rows} of the tokenised data). A lower learning_rate, or bfloat16 or float32 "
        "instead of float16, is what usually helps"
    )
