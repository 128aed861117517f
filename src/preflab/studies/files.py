"""The prompts of a study, and everybody's responses to them, as files that all the rest counts by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preflab.core.config import Settings, shared_values
from preflab.core.output import finish_output, open_output
from preflab.core.records import Message, Pair, UserError, messages_from_json, messages_to_json
from preflab.core.rundir import fingerprint, read_jsonl, to_json
from preflab.core.terminal import say
from preflab.data.answers import AnswerRow, apart, format_of_prompts, match_answers, read_answers
from preflab.data.column_use import ColumnTally, tell_columns
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.sources import open_sources
from preflab.data.splits import count_by_reason, tell_notes
from preflab.data.tokenize import Dropped
from preflab.judging.players import Entry
from preflab.model.in_memory import InMemory
from preflab.sample.generate import generate_responses
from preflab.sample.settings import GenerateSettings
from preflab.stats.alignment import align
from preflab.studies.settings import StudySettings

Row = dict[str, Any]
SUBSET_COLUMNS = ("category", "subset", "dataset")
"""Columns that name a prompt's subset, where `subset_by` is not given; the first that is there."""


def read_files(settings: StudySettings, files: Mapping[str, str]) -> dict[str, tuple[AnswerRow, ...]]:
    """The rows of files of responses, by name, as the settings say that files are read."""
    beside = (*settings.prompts, *files.values())
    read = partial(read_answers, form=settings.format, columns=settings.columns, beside=beside)
    return {name: read(spec, tell=tell_columns) for name, spec in files.items()}


def study_prompts(settings: StudySettings, given: Mapping[str, Sequence[AnswerRow]], files: Sequence[str]) -> list[Row]:
    """What is to be answered: the prompts of the settings' sources, or of the first file of responses; each once, and
    numbered from 1. All that follows counts by these numbers. `given` are the rows of `files`.
    """
    if settings.prompts:
        found = list(_prompts_of_sources(settings, files))
    elif given:
        rows = next(iter(given.values()))
        found = [_prompt_row(row.prompt, row.row, _subset(row.meta, settings.subset_by)) for row in rows]
    else:
        raise UserError("prompts: missing; name the prompts that the models are to answer with --prompts")
    if settings.subset_by and found and all(row["subset"] is None for row in found):
        raise UserError(f"subset_by: no prompt has a column `{settings.subset_by}`")
    unique: dict[str, Row] = {}
    for row in found:
        unique.setdefault(to_json(row["prompt"]), row)
    if not unique:
        raise UserError("prompts: there is no prompt that can be used")
    # Rows of files of responses are samples of a prompt: nobody is asked for them.
    if settings.prompts and (twice := len(found) - len(unique)):
        say(f"{twice} prompts stand in the data more than once, and are asked once")
    chosen = list(unique.values())
    if settings.max_samples and len(chosen) > settings.max_samples:
        drawn = np.random.default_rng(settings.seed).choice(len(chosen), settings.max_samples, replace=False)
        chosen = [chosen[index] for index in sorted(drawn)]
    return [{"row": number, **row} for number, row in enumerate(chosen, 1)]


def _prompts_of_sources(settings: StudySettings, files: Sequence[str]) -> Iterator[Row]:
    """Rows that cannot be used are counted and told."""
    source = open_sources(settings.prompts, settings.columns, beside=files)
    tell_notes(source)
    dropped: list[Dropped] = []
    formats = choose_formats(source, format_of_prompts(settings.format, files))
    columns = ColumnTally(formats)
    for item in read_comparisons(source, formats, columns):
        if isinstance(item, Dropped):
            dropped.append(item)
            continue
        by_part = source.parts[source.part_of(item.row)].name if source.parts else None
        # Of several sources each makes a subset, unless a column was asked for.
        subset = by_part if by_part and not settings.subset_by else _subset(item.meta, settings.subset_by)
        row = _prompt_row(item.prompt, item.row, subset)
        if len(item.responses) > 1:
            # What was thought before a response is nothing that a study judges or scores.
            sides = {"chosen": apart(item, 0).response, "rejected": apart(item, -1).response}
            row |= {**sides, **_scores_of_both(item.meta)}
        yield row
    tell_columns(columns.columns(source))
    for reason, rows in count_by_reason(dropped).items():
        numbers = ", ".join(map(str, rows["rows"][:5]))
        say(f"{source.name}: {rows['count']} rows cannot be used, {reason} (row {numbers})")


def _scores_of_both(meta: Mapping[str, Any]) -> dict[str, float]:
    """What a reward model said of both sides, in rows of ours (`score_chosen`) and RewardBench's (`scores_chosen`)."""
    for name in ("score", "scores"):
        found = {f"score_{which}": meta.get(f"{name}_{which}") for which in ("chosen", "rejected")}
        if all(isinstance(value, (int, float)) for value in found.values()):
            return {which: float(value) for which, value in found.items() if value is not None}
    return {}


def _prompt_row(prompt: Sequence[Message], source_row: int, subset: str | None) -> Row:
    return {"prompt": messages_to_json(prompt), "subset": subset, "source_row": source_row}


def _subset(meta: Mapping[str, Any], column: str | None) -> str | None:
    names = (column,) if column else SUBSET_COLUMNS
    return next((str(meta[name]) for name in names if meta.get(name) not in (None, "")), None)


def keep_rows(path: Path, rows: Sequence[Row], *, seed: int, overwrite: bool) -> None:
    """Write rows unless they are there already. Raises UserError where others are in the way."""
    made_from = {"rows": fingerprint(rows)}
    if open_output(path, "study", Settings(), made_from, seed=seed, overwrite=overwrite) != "done":
        finish_output(path, rows)


def generate_for_study(
    settings: StudySettings, entry: Entry, folder: Path, held: InMemory | None = None, **changed: Any
) -> None:
    """Let a model answer the prompts in a study's folder; `changed` are settings that differ from the study's. `held`
    is the model, where it is in memory.
    """
    own = {
        "model": entry.source,
        "prompts": (str(folder / "prompts.jsonl"),),
        "format": "prompts",
        "columns": (),
        "max_samples": None,
        "output": folder / "responses" / f"{entry.name}.jsonl",
    }
    values = shared_values(settings, GenerateSettings) | own | changed
    generate_responses(GenerateSettings(**values), held, tell=False)


def side(prompts: Sequence[Row], which: str) -> list[AnswerRow]:
    """The preferred, or rejected, responses of the study's prompts."""
    if any(which not in row for row in prompts):
        raise UserError(
            f"`{which}` stands for responses of preference data, but the prompts come without preferences; name "
            "preference data with --prompts"
        )
    return [
        AnswerRow(row["row"], 0, messages_of(row), row[which], meta={"score": row.get(f"score_{which}")})
        for row in prompts
    ]


def messages_of(row: Row) -> tuple[Message, ...]:
    return messages_from_json(row["prompt"])


def answers_of(name: str, rows: Sequence[AnswerRow], prompts: Sequence[Row], *, some: bool) -> list[Row]:
    """Responses as rows of the study, in the order of its prompts. With `some`, the prompts are a sample, and responses
    to others are left aside; else these are an error, as prompts without a response are.
    """
    asked = [AnswerRow(row["row"], 0, messages_of(row), "") for row in prompts]
    wanted = {question.prompt for question in asked}
    by_prompt: dict[tuple[Message, ...], list[AnswerRow]] = {}
    for row in rows:
        if not some or row.prompt in wanted:
            by_prompt.setdefault(row.prompt, []).append(row)
    match_answers({"the prompts": asked, name: [answers[0] for answers in by_prompt.values()]})
    return [
        {
            "row": question.row,
            "sample": sample,
            "prompt": messages_to_json(question.prompt),
            "response": answer.response,
            **({"reasoning": answer.reasoning} if answer.reasoning else {}),
            "tokens": answer.tokens,
            "finish": answer.finish,
            "meta": dict(answer.meta),
        }
        for question in asked
        for sample, answer in enumerate(by_prompt[question.prompt])
    ]


def check_aligned(files: Mapping[str, Path]) -> None:
    """Say now, before anybody judges, which prompts are left out because somebody has not answered them. Raises
    UserError where the responses cannot be laid side by side, or nothing is left.
    """
    aligned = align({name: read_jsonl(path, whole=True) for name, path in files.items()})
    if not aligned.rows:
        raise UserError("there is no prompt that all models have answered")
    if aligned.left_out:
        prompt, names = next(iter(aligned.left_out.items()))
        say(
            f"{len(aligned.left_out)} prompts are left out, because not all models have answered them: the first is "
            f"prompt {prompt}, without a response by {', '.join(names)}"
        )


def pairs_of(responses: Path, opponents: Path) -> list[Pair]:
    """A study's responses beside those of an opponent, to be judged."""
    aligned = align({"model": read_jsonl(responses, whole=True), "opponent": read_jsonl(opponents, whole=True)})
    return [
        Pair(
            sample_id=f"{row}/{sample}",
            prompt=messages_of(both["model"]),
            response=both["model"]["response"],
            opponent=both["opponent"]["response"],
        )
        for (row, sample), both in aligned.rows.items()
    ]
