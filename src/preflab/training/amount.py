"""What a training would take: its steps and tokens by its own planner, and what its first step takes on this device."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import get_scheduler

from preflab.core.failures import is_out_of_memory
from preflab.core.plugins import names_plugin
from preflab.core.records import Amount, UserError
from preflab.data.comparisons import Need
from preflab.data.sources import is_on_hub
from preflab.data.splits import load_splits, load_template
from preflab.model.prefix import prefix_batch
from preflab.training.fit import Statistics, adamw, passes_of, plan_steps
from preflab.training.loop import response_values, train
from preflab.training.model import TrainingSettings
from preflab.training.rows import BestRows, RankedRows
from preflab.training.settings import RewardSettings, SFTSettings
from preflab.training.steps import StepFn


def training_amount(run: Callable[..., object], settings: TrainingSettings, *, measure: bool) -> Amount:
    """Optimizer steps of a training and tokens over all of them, in prefix layout; no weights are loaded for these.

    With `measure`, `run` (the function that trains by such settings) takes the first step, in which the longest rows
    are, in a folder that is removed again. Raises UserError where the rows cannot be read; without `measure`, also
    where that would download them or run a user's own function.
    """
    if not measure:
        _refuse_what_is_not_at_hand(settings)
        settings = settings.model_copy(update={"trust_remote_code": False})
    need = _need(settings)
    template = load_template(settings, "reward" if isinstance(settings, RewardSettings) else "policy")
    data = load_splits(settings, template, need=need, seed=settings.seed).training
    rows = (BestRows if need == "demonstrations" else RankedRows)(data, prefix_batch)
    steps = plan_steps(rows, settings, settings.gradient_accumulation_steps).steps
    tokens = int(rows.lengths[np.concatenate([step.rows for step in steps])].sum())
    seconds, memory = _first_step(run, settings) if measure else (None, None)
    return Amount(len(steps), tokens, seconds, memory)


def _need(settings: TrainingSettings) -> Need:
    if isinstance(settings, SFTSettings):
        return "demonstrations"
    is_ranking = isinstance(settings, RewardSettings) or settings.line.data != "labels"
    return "rankings" if is_ranking else "labels"


def _refuse_what_is_not_at_hand(settings: TrainingSettings) -> None:
    if settings.format and names_plugin(settings.format, "formats"):
        raise UserError(f"its rows are read by {settings.format}, and a dry run runs no function of yours")
    if remote := [spec for spec in (*settings.train_data, *settings.eval_data) if is_on_hub(spec)]:
        raise UserError(f"{remote[0]} lies on a hub; its rows are not downloaded to be counted")


class _StoppedError(Exception):
    """Not a failure: how a training is left after its first step, with its seconds and the bytes in use at the peak."""

    def __init__(self, seconds: float, memory: int | None) -> None:
        super().__init__(seconds, memory)
        self.seconds, self.memory = seconds, memory


def _first_step(run: Callable[..., object], settings: TrainingSettings) -> tuple[float, int | None]:
    with TemporaryDirectory() as folder:
        alone = {"output_dir": Path(folder) / "run", "overwrite": False, "report_to": ("none",), "push_to_hub": None}
        _forget_peak()
        try:
            run(settings.model_copy(update=alone), fit=_fit_one_step)
        except _StoppedError as taken:
            return taken.seconds, taken.memory
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"its first step runs out of memory ({str(error).splitlines()[0]})") from error
    raise AssertionError("a training in an empty folder begins with its first step")


def _fit_one_step(
    accelerator: Accelerator,
    module: nn.Module,
    training: RankedRows,
    _held_out: RankedRows | None,
    step_fn: StepFn,
    settings: TrainingSettings,
    *,
    on_start: Callable[[nn.Module], None] | None = None,
    statistics: Statistics = lambda *_: {},
    **_: Any,
) -> NoReturn:
    """As `preflab.training.fit.fit`, for the first step. Of a reference, only what this step reads is computed."""
    steps = plan_steps(training, settings, passes_of(settings, accelerator)).steps[:1]
    optimizer = adamw(module, settings, accelerator.device)
    prepared, optimizer = accelerator.prepare(module, optimizer)
    if on_start:
        training.reference = response_values(accelerator, prepared, training, steps[0].micro_batches)
        if others := training.mismatched:
            others.reference = response_values(accelerator, prepared, others, steps[0].micro_batches)
    scheduler = get_scheduler("constant", optimizer)
    started = time.perf_counter()
    next(
        train(
            *(accelerator, prepared, optimizer, scheduler, training, steps, step_fn),
            max_grad_norm=settings.max_grad_norm,
            statistics_of=partial(statistics, prepared, training),
        )
    )
    if accelerator.device.type != "cpu":
        torch.accelerator.synchronize(accelerator.device)
    raise _StoppedError(time.perf_counter() - started, _peak(accelerator.device))


def _forget_peak() -> None:
    """Count memory anew; where the system cannot, the process's peak so far stays in what `_peak` finds."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak(device: torch.device) -> int | None:
    """Bytes at the peak: of a GPU's memory, or of the whole process, its libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
        import sys
    except ImportError:  # on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
