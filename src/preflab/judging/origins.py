"""Where models, judges and files of responses come from, and which prompts they were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from preflab.core.durable import read_object
from preflab.core.origins import AsRun, Leak, Origin, Run
from preflab.core.records import Message, UserError
from preflab.core.rundir import read_json
from preflab.data.overlap import prompt_hash
from preflab.judging.players import Entry
from preflab.stats.study import Judge
from preflab.training.as_run import PROMPTS, model_of, runs_of


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
    read = {judge.name: judge for judge in judges if judge.is_trained and judge.source}
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
