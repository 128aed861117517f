"""Several models on the same prompts: what is missing is generated, scored and judged, then all of it is reported."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from preflab.core.config import dump_settings, shared_values, source_of
from preflab.core.file_format import with_format
from preflab.core.origins import AsRun, trained_on
from preflab.core.output import alone
from preflab.core.rundir import read_jsonl, write_json, write_jsonl, write_manifest
from preflab.core.ties import is_score
from preflab.data.answers import is_answer_file, read_answers
from preflab.data.templates import CHAT_TEMPLATES
from preflab.judging.command import judge_pairs_with
from preflab.judging.kinds import make_judge
from preflab.judging.origins import as_run_of_study
from preflab.judging.players import Entry, read_entries, short_name
from preflab.model.in_memory import InMemory
from preflab.rewards.scorers import Scorer, find_scorer
from preflab.sample.score import score_responses
from preflab.sample.settings import ScoreSettings
from preflab.stats.study import Judge
from preflab.studies.compare.report import ReportResult, report_study
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.files import (
    answers_of,
    check_aligned,
    generate_for_study,
    keep_rows,
    messages_of,
    pairs_of,
    read_files,
    side,
    study_prompts,
)
from preflab.studies.panel import OWN_SCORES, read_judges, try_out
from preflab.training.as_run import overlap_of, training_of

Row = dict[str, Any]


@alone("out", "study.json")
def compare_models(settings: CompareSettings, held: Mapping[str, InMemory] = MappingProxyType({})) -> ReportResult:
    """Everything from models to `report.html`. Each part is skipped where it is done, and gone on with where it is not.

    The folder is described at `preflab.stats.study`. `held` are the models in memory, by the names of those that the
    settings' words stand for.
    """
    folder, entries = settings.out, read_entries(settings.models, partial(_generator_of, settings))
    judges = read_judges(settings.judge, settings.reward_model)
    files = {entry.name: entry.source for entry in entries if entry.kind == "file"}
    given = read_files(settings, files)
    prompts = study_prompts(settings, given, tuple(files.values()))
    ready = {
        entry.name: answers_of(
            entry.name,
            given.get(entry.name) or side(prompts, entry.kind),
            prompts,
            some=settings.max_samples is not None,
        )
        for entry in entries
        if entry.kind != "model"
    }
    models = [entry.source for entry in entries if entry.kind == "model" and entry.name not in held]
    try_out(models, judges, settings)
    keep = partial(keep_rows, seed=settings.seed, overwrite=settings.overwrite)
    if settings.overwrite:  # until it is whole again, the folder holds no study
        (folder / "study.json").unlink(missing_ok=True)
    keep(folder / "prompts.jsonl", prompts)
    for name, rows in ready.items():
        keep(folder / "responses" / f"{name}.jsonl", rows)
    for entry in entries:
        if entry.kind == "model":
            generate_for_study(settings, entry, folder, held.get(entry.name))
    check_aligned({entry.name: folder / "responses" / f"{entry.name}.jsonl" for entry in entries})
    if own := _own_scores(folder, entries, ready, prompts):
        judges = (*judges, own)
    for judge in judges:
        if judge.is_scorer and judge is not own:
            _score(settings, judge, entries, prompts)
    used = _as_run(settings, entries, [judge for judge in judges if judge is not own], prompts)
    for judge in judges:
        if not judge.is_scorer:
            _judge(settings, judge, entries, used)
    _copy_training(folder, entries)
    write_json(folder / "as_run.json", used)
    # The last model is the one that a report is about: not the preferred responses, if these take part.
    baseline, *others = entries
    ordered = [baseline, *sorted(others, key=lambda entry: entry.kind in ("model", "file"))]
    write_json(folder / "study.json", with_format({
        "title": settings.title,
        "models": [{"name": entry.name, "source": entry.source} for entry in ordered],
        "judges": [{"name": judge.name, "kind": judge.kind, "source": judge.source} for judge in judges],
    }))  # fmt: skip
    dump_settings(settings, folder / "config.yaml")
    write_manifest(folder, command="compare", settings=settings.model_dump(mode="json"), seed=settings.seed, data={})
    return report_study(folder)


def _as_run(
    settings: CompareSettings, entries: Sequence[Entry], judges: Sequence[Judge], prompts: Sequence[Row]
) -> AsRun:
    """Where prompts, models and judges come from; the terminal is told by the report's findings."""
    files = [entry.source for entry in entries if entry.kind == "file"]
    drawn = settings.max_samples is not None
    sources = {
        "sources": settings.prompts or files[:1],
        "asked": len(prompts),
        "drawn": drawn,
        "seed": settings.seed if drawn else None,
    }
    return as_run_of_study(settings.out, sources, entries, judges, map(messages_of, prompts))


# ---- scores and verdicts -------------------------------------------------------------------------------------------


def _own_scores(
    folder: Path, entries: Sequence[Entry], ready: Mapping[str, Sequence[Row]], prompts: Sequence[Row]
) -> Judge | None:
    """Scores that files bring with them (of responses, or RewardBench's of both sides), where everything has one."""
    if len(ready) < len(entries) or not all(
        is_score(row["meta"].get("score")) for rows in ready.values() for row in rows
    ):
        return None
    scores = folder / "scores" / OWN_SCORES
    for name, rows in ready.items():
        write_jsonl(scores / f"{name}.jsonl", [{**row, "score": float(row["meta"]["score"])} for row in rows])
    write_jsonl(scores / "preference_data.jsonl", [row for row in prompts if "score_chosen" in row])
    return Judge(OWN_SCORES, "reward_model", "the files' own scores")


def _score(settings: CompareSettings, judge: Judge, entries: Sequence[Entry], prompts: Sequence[Row]) -> None:
    """Score everybody's responses, and the preference data that the prompts come from, if they do."""
    scorer = find_scorer(judge.source)
    responses, scores = settings.out / "responses", settings.out / "scores" / judge.name
    files = {entry.name: (responses / f"{entry.name}.jsonl", "prompt-response") for entry in entries}
    pairs = [row for row in prompts if "chosen" in row]
    if pairs:
        files["preference_data"] = (settings.out / "prompts.jsonl", "trl")
    else:
        for path in scores.glob("preference_data.*"):  # of prompts that the study had before
            path.unlink()
    keep = partial(keep_rows, seed=settings.seed, overwrite=settings.overwrite)
    for name, (data, form) in files.items():
        output = scores / f"{name}.jsonl"
        if scorer:
            rows, columns = (pairs, _OF_PAIRS) if name == "preference_data" else (list(read_jsonl(data)), _OF_RESPONSES)
            keep(output, _scored(scorer, rows, columns, settings.batch_size))
            continue
        if not any(row.get("response", "-").strip() for row in read_jsonl(data)):
            keep(output, [])  # of a model that says nothing at all, there is nothing to score
            continue
        named = settings.chat_template if settings.chat_template in CHAT_TEMPLATES else None  # not one of a model's own
        own = {
            "data": (str(data),),
            "format": form,
            "reward_model": judge.source,
            "output": output,
            "chat_template": settings.judge_chat_template or named,
            "chat_template_kwargs": settings.judge_chat_template_kwargs,
        }
        values = shared_values(settings, ScoreSettings) | {"max_samples": None, "columns": ()} | own
        score_responses(ScoreSettings(**values), tell=False)


_OF_RESPONSES = {"response": "score"}
_OF_PAIRS = {"chosen": "score_chosen", "rejected": "score_rejected"}


def _scored(scorer: Scorer, rows: Sequence[Row], columns: Mapping[str, str], batch_size: int) -> list[Row]:
    """Rows with a function's scores of the texts in some of their columns; without those that it has none for."""
    prompts = [messages_of(row) for row in rows]
    found = {
        score: scorer.scores(prompts, [row[column] for row in rows], batch_size=batch_size)
        for column, score in columns.items()
    }
    scored = [{**row, **{name: values[place] for name, values in found.items()}} for place, row in enumerate(rows)]
    return [row for row in scored if not any(isinstance(row[name], str) for name in found)]


def _judge(settings: CompareSettings, judge: Judge, entries: Sequence[Entry], used: AsRun) -> None:
    """Let a judge compare everybody with the baseline."""
    baseline, *others = (settings.out / "responses" / f"{entry.name}.jsonl" for entry in entries)
    ready = make_judge(judge, settings, seed=settings.seed)
    for path in others:
        judge_pairs_with(
            ready,
            pairs_of(path, baseline),
            settings.out / "verdicts" / judge.name / f"{path.stem}.json",
            model=path.stem,
            opponent=baseline.stem,
            overwrite=settings.overwrite,
            facts={"trained_on": trained_on({name: used.models[name] for name in (path.stem, baseline.stem)})},
        )


def _copy_training(folder: Path, entries: Sequence[Entry]) -> None:
    (folder / "training").mkdir(parents=True, exist_ok=True)
    for entry in entries:
        copy, shared = (folder / "training" / f"{entry.name}.{ending}" for ending in ("jsonl", "overlap.json"))
        for path in (copy, shared):
            path.unlink(missing_ok=True)  # of a model that had this name before
        if entry.kind == "model" and (metrics := training_of(entry.source)):
            shutil.copyfile(metrics, copy)
            if overlap := overlap_of(metrics.parent):
                write_json(shared, overlap)


def _generator_of(settings: CompareSettings, spec: str) -> str | None:
    """Who wrote a file of responses, where AlpacaEval's `generator` says so in all rows."""
    files = [source for word in settings.models if is_answer_file(source := source_of(word))]
    rows = read_answers(spec, settings.format, settings.columns, beside=(*files, *settings.prompts))
    found = {str(row.meta.get("generator", "")) for row in rows}
    return short_name(found.pop()) if len(found) == 1 and "" not in found else None
