"""What a training was, for whoever tells of its model: written at its end, and read off its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preflab.core.config import differing
from preflab.core.durable import read_object
from preflab.core.origins import Run
from preflab.core.records import UserError
from preflab.core.rundir import read_json, stage_state

if TYPE_CHECKING:  # what loads torch, which takes seconds
    from preflab.data.cache import TokenizedDataset
    from preflab.data.splits import Splits
    from preflab.training.model import TrainingSettings

PROMPTS = "training_prompts.json"
"""File of a run with the hash of every prompt that it trained on (`preflab.data.overlap.prompt_hash`)."""

_TOLD_APART = {"model", "revision", "train_data", "eval_data", "output_dir", "overwrite"}
_LONGEST_CHAIN = 20  # trainings of which each starts from the one before


# ---- written by the training -----------------------------------------------------------------------------------------


def as_run(settings: TrainingSettings, splits: Splits, dtype: str, arithmetic: str) -> dict[str, Any]:
    """What a training has used: where it started, precision, data with the rows that were read of it, settings that
    differ from their defaults.

    arithmetic: the precision in which was computed, as Accelerate calls it.
    """
    from preflab.model.files import commit_of

    start = settings.model
    beside = _relative(start, settings.output_dir) if Path(start).exists() else None
    held_out = splits.held_out and _counts(splits.held_out)
    if held_out:
        ratio = settings.train_split_ratio
        held_out |= {"sources": settings.eval_data} if settings.eval_data else {"split": ratio and round(1 - ratio, 6)}
    return {
        "model": {
            "from": start,
            "beside": beside,
            "revision": settings.revision,
            "commit": None if beside else commit_of(start, settings.revision),
            "dtype": dtype,
            "arithmetic": "as the weights" if arithmetic == "no" else arithmetic,
        },
        "data": {"training": {**_counts(splits.training), "sources": settings.train_data}, "held_out": held_out},
        "settings": differing(settings, but=_TOLD_APART),
    }


def training_prompts(splits: Splits) -> list[int]:
    """The hash of every prompt that is trained on, each once, in ascending order."""
    return sorted(set(splits.training.text_hashes[0].tolist()))


def _relative(path: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # of another drive
        return str(Path(path).absolute())


def _counts(dataset: TokenizedDataset) -> dict[str, Any]:
    return {
        "rows": len(dataset),
        "prompts": len(set(dataset.text_hashes[0].tolist())),
        "dropped": {reason: found["count"] for reason, found in dataset.dropped.items()},
    }


# ---- read off its folder ---------------------------------------------------------------------------------------------


def runs_of(model: str) -> Iterator[Run]:
    """The trainings that made a model, the last one first; where none lies beside it, its id or folder alone.

    Where a folder does not tell, that is said: nothing is taken from anywhere else.
    """
    for number in range(_LONGEST_CHAIN):
        folder = _run_folder(Path(model)) if Path(model).exists() else None
        if folder is None:
            if not number:
                yield _beginning(model)
            return
        run, before = _run(folder)
        yield run
        if before is None:
            return
        model = before


def _run_folder(model: Path) -> Path | None:
    """The folder of the training run that a model, its adapter, or one of its checkpoints lies in, or that it is."""
    beside = model.parent if model.name in ("model", "merged_model", "adapter") else None
    snapshot = model.parent.parent if model.parent.name == "checkpoints" else None
    return next((place for place in (model, beside, snapshot) if place and _is_training(place)), None)


def _is_training(folder: Path) -> bool:
    try:
        stage = stage_state(folder)
    except UserError:
        return True  # of which nothing can be told
    return stage is not None and str(stage.inputs.get("command", "train ")).startswith("train ")


def _run(folder: Path) -> tuple[Run, str | None]:
    """A run as its folder tells, and the model that it started from, where that can be followed further."""
    try:
        stage = stage_state(folder)
        result = read_json(folder / "result.json") if (folder / "result.json").exists() else {}
        assert stage is not None, "the caller has seen it"
        command, given = str(stage.inputs["command"]), dict(stage.inputs["settings"])
        told: Mapping[str, Any] = result.get("as_run") or {}
        run = Run(str(folder), command, result.get("step"), given.get("model"), told)
        return run, _before(folder, run)
    except (UserError, KeyError, TypeError, AttributeError, ValueError):
        return Run(str(folder), None, None, None, {}), None


def _before(folder: Path, run: Run) -> str | None:
    beside = (run.told.get("model") or {}).get("beside")
    if beside and (folder / beside).exists():
        return str(os.path.relpath(folder / str(beside)))
    return run.start


def _beginning(model: str) -> Run:
    """A model that no training beside it made: one of the hub, with the commit that lies in its cache, or a folder."""
    if Path(model).exists():
        return Run(model, None, None, None, {})
    from preflab.model.files import commit_of

    return Run(model, None, None, None, {"model": {"commit": commit_of(model)}})


def model_of(source: str) -> str:
    """The model itself, where the folder of a finished training run is given."""
    result = Path(source) / "result.json"
    if not result.exists():
        return source
    model = read_object(result).get("model")
    if not isinstance(model, str):
        raise UserError(f"{result}: does not say which `model` the run ended with; name the model's own folder")
    return str(Path(source) / model)


def training_of(model: str) -> Path | None:
    """The metrics that the training of a model left beside it."""
    metrics = Path(model).parent / "metrics.jsonl"
    return metrics if Path(model).is_dir() and metrics.exists() else None


def overlap_of(run: Path) -> dict[str, int]:
    """How many held-out rows and prompts of a run were trained on as well; empty where nothing was held out, or a
    version that did not count them made it.
    """
    result = run / "result.json"
    found = read_object(result).get("overlap") if result.exists() else None
    return found if isinstance(found, dict) else {}
