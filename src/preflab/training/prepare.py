"""What every training run does before it trains: devices, template, data, model, and a claim on its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import nn

from preflab.data.comparisons import Need
from preflab.data.splits import check_rows, load_splits, load_template
from preflab.model.adapters import Task, adapter_base, refuse_head_of_its_own
from preflab.model.in_memory import InMemory
from preflab.model.responses import check_positions
from preflab.training.model import TrainingSettings, load_trainable, put_trained
from preflab.training.stage import (
    Prepared,
    TrainResult,
    announce,
    fingerprint_weights,
    finished_result,
    start_accelerator,
    start_stage,
)


def prepare(
    settings: TrainingSettings,
    command: str,
    *,
    task: Task,
    need: Need,
    inputs: Mapping[str, str] = MappingProxyType({}),
    held: InMemory | None = None,
) -> Prepared | TrainResult:
    """Make all ready for training; or the result, where the folder holds this very run and it is finished.

    `inputs` are fingerprints of what the run is made from besides settings, model and data; `held` is the model, where
    the settings' name stands for one in memory.
    """
    accelerator = start_accelerator(settings)
    template = load_template(settings, task, held)
    if settings.lora and adapter_base(settings.model):
        refuse_head_of_its_own(settings.model)
    splits = load_splits(settings, template, need=need, seed=settings.seed)
    model = load_trainable(settings, task, template, accelerator.device, held)
    for dataset in filter(None, (splits.training, splits.held_out)):
        check_rows(model, dataset)
        check_positions(model, dataset.longest, f"lower max_length (now {settings.max_length})")
    fingerprint = fingerprint_weights(model)
    if not start_stage(accelerator, settings, command, {"model": fingerprint, **splits.fingerprints, **inputs}):
        result = finished_result(accelerator, settings)
        if held is None:
            return result
        put_trained(model, result.output_dir, task)
        return replace(result, in_memory=(model, template.tokenizer))
    announce(accelerator, splits.report())
    if accelerator.num_processes > 1 and any(isinstance(part, nn.Dropout) and part.p for part in model.modules()):
        announce(
            accelerator,
            f"dropout is drawn by each of the {accelerator.num_processes} processes for itself, so another number of "
            "processes trains other weights; with lora_dropout 0 it does not matter",
        )
    return Prepared(accelerator, template, splits, model, fingerprint, held)
