"""A grid of models, training checkpoints and temperatures: every cell generated and judged, then set side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from preflab.core.config import dump_settings, named
from preflab.core.durable import read_object
from preflab.core.file_format import with_format
from preflab.core.origins import Origin, trained_on
from preflab.core.output import alone
from preflab.core.records import UserError
from preflab.core.rundir import read_jsonl, write_json, write_manifest
from preflab.core.terminal import progress_bar
from preflab.data.answers import is_answer_file
from preflab.judging.command import judge_pairs_with
from preflab.judging.kinds import make_judge, spec_of
from preflab.judging.origins import origin_of
from preflab.judging.players import Entry, read_entries, short_name
from preflab.judging.protocol import ReadyJudge
from preflab.model.snapshots import snapshots_of, step_of
from preflab.studies.files import (
    answers_of,
    generate_for_study,
    keep_rows,
    messages_of,
    pairs_of,
    read_files,
    side,
    study_prompts,
)
from preflab.studies.grid.report import GridResult, report_grid
from preflab.studies.grid.settings import GridSettings
from preflab.studies.panel import read_judges, try_out


@dataclass(frozen=True, slots=True)
class Cell:
    """A model at a temperature; `model` and `step` say whose checkpoint it is, where it is one."""

    entry: Entry
    model: str
    step: int | None
    temperature: float

    @property
    def name(self) -> str:
        return f"{self.entry.name}-t{self.temperature:.12g}"


@alone("out", "grid.json")
def run_grid(settings: GridSettings) -> GridResult:
    """Fill what is missing of a grid, then write its tables and figures. The folder is described at
    `preflab.studies.grid.rows`.

    A cell that fails does not stop the others. Raises UserError at the end where some did: the same command tries them
    again.
    """
    folder, cells = settings.out, _cells(settings)
    judges = read_judges(settings.judge)
    models = list(dict.fromkeys(cell.entry.source for cell in cells))
    try_out(models, judges, settings)
    opponent = _write_opponent(settings)
    write_json(folder / "grid.json", with_format({
        "opponent": opponent,
        "judges": {judge.name: spec_of(judge) for judge in judges},
        "cells": [{"name": c.name, "model": c.model, "step": c.step, "temperature": c.temperature} for c in cells],
    }))  # fmt: skip
    # Each is made when it is first needed, after the first cell's responses, and then kept.
    ready = cache(lambda judge: make_judge(judge, settings, seed=settings.seed))
    prompts = [messages_of(row) for row in read_jsonl(folder / "prompts.jsonl")]
    origin = cache(lambda source: origin_of("model", source, prompts))
    failed: dict[str, str] = {}
    with progress_bar() as bar:
        task = bar.add_task("cells", total=len(cells), shown="")
        for cell in cells:
            bar.update(task, description=f"cells, now {cell.name}")
            try:
                _fill(settings, cell, map(ready, judges), opponent, origin(cell.entry.source))
            except UserError as error:
                failed[cell.name] = str(error)
            bar.update(task, advance=1, shown=f"{len(failed)} failed" if failed else "")
    result = report_grid(folder)
    if len(failed) < len(cells):
        dump_settings(settings, folder / "config.yaml")
        write_manifest(folder, command="grid", settings=settings.model_dump(mode="json"), seed=settings.seed, data={})
    if failed:
        reasons = {name: reason.replace("\n", "\n    ") for name, reason in failed.items()}
        listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed; what is done is kept, and the same command tries these again:"
            f"\n{listed}"
        )
    return result


def _cells(settings: GridSettings) -> list[Cell]:
    """Every model, or every checkpoint of a run, at every temperature."""
    whose: dict[str, tuple[str, int | None]] = {}
    words: list[str] = []
    for word in settings.models:
        name, source = named(word)
        if is_answer_file(source) or source in ("chosen", "rejected"):
            raise UserError(f"{word}: a grid samples from models; compare files of responses with `preflab compare`")
        if Path(source).name != "checkpoints":
            words.append(word)
            continue
        run = name or short_name(str(Path(source).parent))
        for step, model in _steps(Path(source)).items():
            whose[f"{run}-step-{step}"] = (run, step)
            words.append(f"{run}-step-{step}={model}")
    entries = read_entries(words)
    return [
        Cell(entry, *whose.get(entry.name, (entry.name, None)), temperature)
        for entry in entries
        for temperature in dict.fromkeys(settings.temperatures)
    ]


def _steps(checkpoints: Path) -> Mapping[int, Path]:
    """Step -> model, for the checkpoints that a run has kept and the model that it ended with."""
    found = {step: path for path in snapshots_of(checkpoints) if (step := step_of(str(path))) is not None}
    run = checkpoints.parent
    if (result := run / "result.json").exists():
        step = read_object(result).get("step")
        if not isinstance(step, int):
            raise UserError(f"{result}: does not say which `step` the run's model is of; --overwrite trains it anew")
        found[step] = run  # of the best step, where that one was kept
    if not found:
        raise UserError(f"{checkpoints}: there is no checkpoint in it; train with --save-steps and --save-total-limit")
    return found


def _write_opponent(settings: GridSettings) -> str:
    """Keep prompts and the opponent's responses to them; its name."""
    files = {}
    if is_answer_file(settings.opponent):
        files = {short_name(settings.opponent): settings.opponent}
    elif settings.opponent not in ("chosen", "rejected"):
        raise UserError(
            f"opponent: found {settings.opponent!r}; `chosen`, or a file of responses, is needed (let a model respond "
            "with `preflab generate`)"
        )
    folder = settings.out
    given = read_files(settings, files)
    prompts = study_prompts(settings, given, tuple(files.values()))
    name, rows = next(iter(given.items()), (settings.opponent, ()))
    kept = answers_of(name, rows or side(prompts, name), prompts, some=settings.max_samples is not None)
    keep_rows(folder / "prompts.jsonl", prompts, seed=settings.seed, overwrite=settings.overwrite)
    keep_rows(folder / "opponent.jsonl", kept, seed=settings.seed, overwrite=settings.overwrite)
    return name


def _fill(settings: GridSettings, cell: Cell, ready: Iterable[ReadyJudge], opponent: str, origin: Origin) -> None:
    """Generate and judge one cell, as far as it is not done."""
    folder = settings.out / "cells" / cell.name
    generate_for_study(
        settings,
        cell.entry,
        settings.out,
        output=folder / "responses.jsonl",
        temperature=cell.temperature,
        # The others repeat the likeliest response.
        num_return_sequences=settings.num_return_sequences if cell.temperature else 1,
    )
    pairs = pairs_of(folder / "responses.jsonl", settings.out / "opponent.jsonl")
    facts: dict[str, object] = {"temperature": cell.temperature, "step": cell.step, "source": cell.entry.source}
    facts["trained_on"] = trained_on({cell.name: origin})
    given: dict[str, Any] = {"model": cell.name, "opponent": opponent, "facts": facts, "overwrite": settings.overwrite}
    for judge in ready:
        judge_pairs_with(judge, pairs, folder / f"{judge.judge.name}.json", **given)
