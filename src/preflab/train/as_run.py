"""What a training was, for whoever tells of its model: written at its end, and read off its folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preflab.core.origins import AsRun, Leak, Origin, Run
from preflab.stats.study import Judge
from preflab.core.config import differing
from preflab.data.overlap import prompt_hash
from preflab.core.durable import read_object
from preflab.judge.players import Entry, model_of
from preflab.core.records import Message, UserError
from preflab.core.rundir import read_json, stage_state

if TYPE_CHECKING:  # what loads torch, which takes seconds
    from preflab.data.cache import TokenizedDataset
    from preflab.data.splits import Splits
    from preflab.train.model import TrainingSettings

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


def leak_of(runs: Iterable[Run], prompts: Iterable[tuple[Message, ...]]) -> Leak:
    """How many of these prompts, each counted once, the trainings that made a model have trained on."""
    asked = {prompt_hash(prompt) for prompt in prompts}
    seen: set[int] = set()
    unknown = 0
    for run in runs:
        if run.command is None:
            continue
        known = _prompts_of(Path(run.folder))
        unknown += known is None
        seen |= asked & (known or set())
    return Leak(len(seen), len(asked), unknown)


def _prompts_of(folder: Path) -> set[int] | None:
    """The prompts that a run trained on; None where it does not say, as runs of earlier versions do not."""
    path = folder / PROMPTS
    try:
        found = read_json(path) if path.exists() else None
    except UserError:
        return None
    return set(found) if isinstance(found, list) and all(type(each) is int for each in found) else None


def origin_of(kind: str, source: str, prompts: Iterable[tuple[Message, ...]], responses: Path | None = None) -> Origin:
    """Where a model, a judge (both by `source`) or the writer of a file of responses comes from.

    responses: the file that a study keeps of them, beside which it stands in which precision they were sampled.
    """
    written_by = model_behind(Path(source)) if kind == "file" else None
    model = written_by and model_of(written_by) if kind == "file" else source
    runs = tuple(runs_of(model)) if model and kind not in ("chosen", "rejected") else ()
    trained = any(run.command for run in runs)
    leak = leak_of(runs, prompts) if trained else None
    return Origin(kind, source, written_by, _dtype(responses) if responses else None, runs, leak)


def _dtype(responses: Path) -> str | None:
    summary = responses.with_name(f"{responses.name.removesuffix('.jsonl')}.summary.json")
    found = read_object(summary).get("dtype") if summary.exists() else None
    return found if isinstance(found, str) else None


def as_run_of_study(
    folder: Path,
    sources: Mapping[str, Any],
    entries: Iterable[Entry],
    judges: Iterable[Judge],
    prompts: Iterable[tuple[Message, ...]],
) -> AsRun:
    """What is known of all that a study in `folder` was made from."""
    asked = tuple(prompts)
    models = {
        entry.name: origin_of(entry.kind, entry.source, asked, folder / "responses" / f"{entry.name}.jsonl")
        for entry in entries
    }
    read = {judge.name: judge for judge in judges if judge.kind in ("reward_model", "hf") and judge.source}
    return AsRun(sources, models, {name: origin_of("judge", judge.source, asked) for name, judge in read.items()})


def model_behind(responses: Path) -> str | None:
    """The model that wrote a file of responses, as the manifest beside it says; None where there is none of ours."""
    manifest = responses.with_name(f"{responses.name.removesuffix('.jsonl')}.manifest.json")
    try:
        found = read_json(manifest) if manifest.exists() else {}
        model = found["settings"]["model"] if found.get("command") == "generate" else None
    except (UserError, KeyError, TypeError, AttributeError):
        return None
    return model if isinstance(model, str) else None
