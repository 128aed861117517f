"""The frame of a training stage: its accelerator, its folder, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env, set_seed
from peft import PeftModel
from torch import nn

from preflab.core.config import dump_settings
from preflab.core.durable import CHECKSUMS, CURVES, RESULT, DamagedError, check_stage, digests, read_metrics
from preflab.core.records import UserError
from preflab.core.results import Result, frame
from preflab.core.rundir import finish_stage, open_stage, read_json, write_json, write_manifest
from preflab.core.terminal import say
from preflab.model.adapters import Task
from preflab.model.precision import check_bf16, has_bf16
from preflab.model.responses import transformers_model
from preflab.page.curves import curves, draw_curves
from preflab.stats.definitions import definition_of
from preflab.training.as_run import PROMPTS, as_run, training_prompts
from preflab.training.push import PUSHED, check_push, push
from preflab.training.settings import NOT_IN_RESULT, TrainSettings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from transformers import PreTrainedTokenizerBase

    from preflab.data.splits import Splits
    from preflab.data.tokenize import ChatTemplate
    from preflab.model.in_memory import InMemory
    from preflab.model.responses import Model
    from preflab.training.model import TrainingSettings


@dataclass(frozen=True)
class Prepared:
    """A run that is about to train; `fingerprint` is that of the model it starts from."""

    accelerator: Accelerator
    template: ChatTemplate
    splits: Splits
    model: Model
    fingerprint: str
    held: InMemory | None = None
    """The model that came from memory; `model` is it, with a fresh adapter where one is trained."""

    @property
    def dtype(self) -> str:
        """Of the weights that training started with; of an adapter, of the frozen ones below it."""
        return str(next(iter(self.model.parameters())).dtype).removeprefix("torch.")


@dataclass(frozen=True, repr=False)
class TrainResult(Result):
    """A finished training run: its folder, the model to go on with, and the last value of each metric. `in_memory` is
    the trained model and its tokenizer, where the model was given in memory.
    """

    output_dir: Path
    model: Path
    metrics: dict[str, float]
    in_memory: tuple[Model, PreTrainedTokenizerBase] | None = field(default=None, compare=False)

    def load(self) -> tuple[Model, PreTrainedTokenizerBase]:
        """The trained model and its tokenizer: those in memory, where it was trained there; else loaded."""
        if self.in_memory:
            return self.in_memory
        from preflab.model.configs import is_reward_model
        from preflab.model.load import load_model
        from preflab.model.tokenizers import load_tokenizer

        name = str(self.model)
        task: Task = "reward" if is_reward_model(name) else "policy"
        return load_model(name, task, dtype=torch.float32), load_tokenizer(name)

    def to_pandas(self) -> pd.DataFrame:
        """The metrics by optimizer step, a row for each step that has some; `eval_` ones are of held-out rows."""
        found: pd.DataFrame = frame(read_metrics(self.output_dir)).groupby("step").first()
        return found

    def figure(self) -> Figure | None:
        """Every metric against the step, as in `training_curves.png`."""
        return curves(read_metrics(self.output_dir))

    def __str__(self) -> str:
        meant = {name: f" ({found})" for name in self.metrics if (found := definition_of(name))}
        shown = [f"  {name:24} {value:.4g}{meant.get(name, '')}" for name, value in self.metrics.items()]
        curves = self.output_dir / CURVES
        return "\n".join([*shown, f"model:  {self.model}", f"curves: {curves}"])


def start_accelerator(settings: TrainSettings) -> Accelerator:
    """Devices, precision and trackers, and the seed of everything that follows."""
    if settings.push_to_hub:
        check_push(settings.push_to_hub)
    trackers = [name for name in settings.report_to if name != "none"]
    state = join_processes()
    if settings.bf16:
        check_bf16(state.device)
    with state.main_process_first():  # whose measurement is everybody's
        bf16 = has_bf16(state.device) if settings.bf16 is None else settings.bf16
    try:
        accelerator = make_accelerator(bf16=bf16, log_with=trackers or None, project_dir=str(settings.output_dir))
    except ValueError as error:
        raise UserError(f"bf16: {error}") from None
    set_seed(settings.seed)
    return accelerator


def join_processes() -> PartialState:
    """What processes there are, and the device of this one.

    Processes on the CPU must be told so: else each would believe to be alone, and all would write to one folder.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def make_accelerator(*, bf16: bool = False, **options: Any) -> Accelerator:
    """An Accelerator of this precision, whatever precision an earlier stage in the same Python session had."""
    join_processes()
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="bf16" if bf16 else "no", **options)


def start_stage(accelerator: Accelerator, settings: TrainSettings, command: str, inputs: dict[str, str]) -> bool:
    """Claim the output folder for this run; false where it is finished already, and there is nothing to do.

    `inputs` are fingerprints of what the run is made from, besides its settings.
    """
    relevant = {"command": command, **inputs, "settings": settings.model_dump(mode="json", exclude=NOT_IN_RESULT)}
    with accelerator.main_process_first():
        # Only the first process may clear the folder; the others come after it and find a run under way.
        overwrite = settings.overwrite and accelerator.is_main_process
        state = open_stage(settings.output_dir, relevant, overwrite=overwrite)
    if state == "done":
        return False
    if accelerator.is_main_process:
        dump_settings(settings, settings.output_dir / "config.yaml")
        write_manifest(
            settings.output_dir,
            command=command,
            settings=settings.model_dump(mode="json"),
            seed=settings.seed,
            data=inputs,
        )
    return True


def finish_training(
    accelerator: Accelerator, settings: TrainingSettings, start: Prepared, model: Path, *, step: int
) -> TrainResult:
    """Write history and curves, mark the stage as done, and push the model if that is wanted.

    The result's metrics are the last ones up to `step`, of which the model has the weights. Its `overlap`, null without
    held-out rows, counts `rows` and `prompts` that are held out and also trained on, of all `held_out_rows` and
    `held_out_prompts`; its `as_run` says what was used.
    """
    folder, splits = settings.output_dir, start.splits
    if accelerator.is_main_process:
        rows = read_metrics(folder)
        write_json(folder / "training_history.json", rows)
        draw_curves(rows, folder / CURVES)
        write_json(folder / PROMPTS, training_prompts(splits))
        overlap, metrics = splits.overlap, _last_metrics(rows, step)
        write_json(folder / RESULT, {
            "model": str(model.relative_to(folder)),
            "step": step,
            "metrics": metrics,
            "definitions": {name: found for name in metrics if (found := definition_of(name))},
            "overlap": overlap and overlap.to_json(),
            "as_run": as_run(settings, splits, start.dtype, accelerator.mixed_precision),
        })  # fmt: skip
        finish_stage(folder, digests(folder, _files_of_result(folder)))
    accelerator.wait_for_everyone()
    result = finished_result(accelerator, settings)
    return replace(result, in_memory=(start.model, start.template.tokenizer)) if start.held else result


def _last_metrics(rows: Sequence[Mapping[str, float | None]], step: int) -> dict[str, float | None]:
    """The last value of every metric that ever had one, up to a step. An evaluation's is null where the last evaluation
    had none, and never that of an earlier one.
    """
    known = [(name, value) for row in rows if (row["step"] or 0) <= step for name, value in row.items()]
    last = {name: value for name, value in known if value is not None or name.startswith("eval_")}
    measured = {name for name, value in known if value is not None}
    return {name: value for name, value in last.items() if name in measured}


def finished_result(accelerator: Accelerator, settings: TrainSettings) -> TrainResult:
    """What a finished stage left; pushed now, if it is to be and has not been yet."""
    folder = settings.output_dir
    model, metrics = _read_result(folder)
    if not any(model.glob("*.safetensors*")):
        raise UserError(
            f"{folder}: the run is finished, but its model is gone from {model}; --overwrite trains it anew"
        )
    if accelerator.is_main_process:
        try:
            check_stage(folder)
        except DamagedError as error:
            raise UserError(f"{error}; --overwrite trains the run anew") from None
    if settings.push_to_hub and accelerator.is_main_process:
        push(folder, model, metrics, settings.push_to_hub)
    return TrainResult(folder, model, metrics)


def _files_of_result(folder: Path) -> list[Path]:
    """What a finished training leaves, besides pictures and checkpoints; a model's folder is known by its checksums."""
    rows = [path for kind in ("*.json", "*.jsonl") for path in folder.glob(kind)]
    kept = [path for path in rows if path.name not in ("stage.json", "manifest.json", PUSHED)]
    return [*kept, *folder.glob(f"*/{CHECKSUMS}")]


def _read_result(folder: Path) -> tuple[Path, dict[str, float]]:
    """The model that a finished run has left, and its last metrics (NaN where JSON has null)."""
    path = folder / RESULT
    result = read_json(path)
    parts = [result.get(name) for name in ("model", "metrics")] if isinstance(result, dict) else []
    if not parts or not isinstance(parts[0], str) or not isinstance(parts[1], dict):
        raise UserError(
            f"{path}: does not say which `model` and `metrics` the run ended with, so it is not as preflab wrote it; "
            "--overwrite trains it anew"
        )
    metrics = {name: math.nan if value is None else value for name, value in parts[1].items()}
    if strange := [name for name, value in metrics.items() if not isinstance(value, (int, float))]:
        raise UserError(f"{path}: {strange[0]} is no number; --overwrite trains the run anew")
    return folder / parts[0], metrics


def announce(accelerator: Accelerator, text: str) -> None:
    """Tell the person at the terminal, once."""
    if accelerator.is_main_process:
        say(text)


def fingerprint_weights(model: nn.Module) -> str:
    """A hash of all weights by name, precision and value, and of the configuration, which says what they mean: the base
    of the rotary embedding, a soft-cap, the scale of an adapter.
    """
    configs = [json.loads(transformers_model(model).config.to_json_string())]
    if isinstance(model, PeftModel):
        configs += [adapter.to_dict() for _, adapter in sorted(model.peft_config.items())]
    meant = [{name: config[name] for name in config.keys() - _NOT_IN_MEANING} for config in configs]
    digest = hashlib.blake2b(json.dumps(meant, sort_keys=True, default=_sorted).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


_NOT_IN_MEANING = {"_name_or_path", "base_model_name_or_path", "transformers_version", "peft_version"}


def _sorted(value: object) -> object:
    return sorted(value) if isinstance(value, set) else str(value)
