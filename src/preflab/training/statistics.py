"""What an objective needs to know of all rows of a step at once, found before the step's first forward pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from preflab.core.records import UserError
from preflab.data.batches import Indices, plan_evaluation
from preflab.objectives import Statistic, StepValues
from preflab.training.loop import response_values
from preflab.training.rows import RankedRows
from preflab.training.settings import TrainSettings
from preflab.training.stage import join_processes


def find_statistics(
    accelerator: Accelerator,
    settings: TrainSettings,
    statistics: Mapping[str, Statistic],
    module: nn.Module,
    rows: RankedRows,
    indices: Indices,
) -> dict[str, Tensor]:
    """[] each, in float32, of these rows all together: of a step's, or of all that are held out.

    The last step of an epoch can be left with one row, of which an estimate is then a poor one.
    """
    values = {
        mismatched: _values(accelerator, settings, module, rows.mismatched if mismatched else rows, indices)
        for mismatched in {statistic.mismatched for statistic in statistics.values()}
    }
    found = {name: statistic.of(values[statistic.mismatched]) for name, statistic in statistics.items()}
    return {name: value.float().to(accelerator.device) for name, value in found.items()}


def statistics_batches(rows: RankedRows, indices: Indices, settings: TrainSettings) -> list[Indices]:
    """The forward passes in which these rows are read for a statistic."""
    size, tokens = settings.per_device_eval_batch_size, settings.max_tokens_per_batch
    return [indices[part] for part in plan_evaluation(rows.lengths[indices], batch_size=size, max_tokens=tokens)]


def need_several_rows(settings: TrainSettings, statistics: Mapping[str, Statistic]) -> None:
    """Raises UserError where a step would have one row, of which nothing can be estimated."""
    passes = settings.gradient_accumulation_steps * int(join_processes().num_processes)
    rows = settings.per_device_train_batch_size * passes
    if statistics and rows < 2 and settings.max_tokens_per_batch is None:
        raise UserError(
            f"{', '.join(statistics)} is estimated from all rows of an optimizer step, and with "
            "per_device_train_batch_size 1 and gradient_accumulation_steps 1 there is one: an estimate of nothing but "
            "noise. Give at least 2 rows per step (TRL advises 16 to 128)"
        )


def _values(
    accelerator: Accelerator, settings: TrainSettings, module: nn.Module, rows: RankedRows | None, indices: Indices
) -> StepValues:
    assert rows is not None, "mismatched rows are made where a statistic is of them"
    places = torch.from_numpy(rows.places(indices))
    values = torch.from_numpy(response_values(accelerator, module, rows, statistics_batches(rows, indices, settings)))
    reference = torch.full_like(values, float("nan")) if rows.reference is None else torch.from_numpy(rows.reference)
    return StepValues(values[places], reference[places], rows.token_counts[places])
