"""The figures of one verdict file, by itself: as a study of two models before one judge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preflab.core.origins import leaks_of
from preflab.core.records import Outcome, Pair, SampleVerdict, unit_of
from preflab.judging.verdicts import VerdictFile
from preflab.stats.contests import Frame, contest, frame
from preflab.stats.judgements import OUTCOMES, row_of
from preflab.stats.results import Contest, Estimate
from preflab.stats.statistics import numbered, wilson_estimate
from preflab.stats.study import Answer, Case, Judge, Player, Study
from preflab.stats.wording import MANY_EMPTY, many_empty, told_of

_NO_TEXTS = Pair("", (), "", "")


@dataclass(frozen=True, slots=True)
class FileFigures:
    """What a verdict file says. `rates` are means over prompts of the shares of their samples, errors too, with
    Wilson's interval over prompts; `same_text` counts the samples whose two responses are one text, which tie.
    """

    file: Path
    judgements: int
    samples: int
    prompts: int
    rates: Mapping[Outcome, Estimate]
    same_text: int
    contest: Contest


def file_figures(file: VerdictFile, *, seed: int = 0) -> FileFigures:
    """All that follows from the rows of a verdict file; what needs the responses' texts only where it has them."""
    samples = file.samples
    data = frame(_as_study(file, samples), seed)
    judge, model, opponent = data.study.judges[0], data.study.models[1].name, data.study.baseline
    found = contest(data, judge, model, opponent)
    assert found is not None, "a verdict file has judgements"
    if samples.keys() - file.pairs.keys():
        lacking = "the file lacks texts of responses"
        unknown: dict[str, Any] = {"same_length": None, "length_controlled": None, "length_controlled_note": lacking}
        found = replace(found, by_length={}, **unknown)
    same_text = sum(pair.response == pair.opponent for pair in file.pairs.values())
    counted = (len(file.judgements), len(samples), data.prompts)
    return FileFigures(file.path, *counted, _rates(data, samples), same_text, found)


def what_to_know(file: VerdictFile) -> list[str]:
    """What stands against the verdicts of a file, in sentences: responses that say nothing, and prompts that somebody
    was trained on (as its metadata says).
    """
    said = []
    names = (_named(file.metadata, "model", "the model"), _named(file.metadata, "opponent", "the opponent"))
    empty = shares_empty(file)
    if max(empty) >= MANY_EMPTY:
        said.append(many_empty(dict(zip(names, empty, strict=True))))
    if found := told_of(leaks_of(file.metadata.get("trained_on"))):
        said.append(found)
    return said


def shares_empty(file: VerdictFile) -> tuple[float, float]:
    """Which shares of the model's responses and of the opponent's say nothing: means over prompts, as in a study."""
    if not file.pairs:
        return 0.0, 0.0
    prompt_of = numbered(unit_of(pair.prompt) or row_of(sample_id) for sample_id, pair in file.pairs.items())
    samples = np.bincount(prompt_of)
    sides = ([pair.response for pair in file.pairs.values()], [pair.opponent for pair in file.pairs.values()])
    ours, theirs = (
        float((np.bincount(prompt_of, weights=[not text.strip() for text in texts]) / samples).mean())
        for texts in sides
    )
    return ours, theirs


def _rates(data: Frame, samples: Mapping[str, SampleVerdict]) -> dict[Outcome, Estimate]:
    outcomes = np.array([found.outcome for found in samples.values()])
    rates = {outcome: wilson_estimate(data.by_prompt((outcomes == outcome).astype(float))) for outcome in OUTCOMES}
    return {outcome: rate for outcome, rate in rates.items() if rate}


def _as_study(file: VerdictFile, samples: Mapping[str, SampleVerdict]) -> Study:
    model = _named(file.metadata, "model", "model")
    opponent = _named(file.metadata, "opponent", file.opponent_word)
    if model == opponent:
        opponent = f"{opponent} ({file.opponent_word})"
    judge = Judge(_named(file.metadata, "judge", "unnamed judge"), "openai", "")
    rows: dict[str, int] = {}

    def case(sample_id: str, found: SampleVerdict) -> Case:
        texts = file.pairs.get(sample_id, _NO_TEXTS)
        row = rows.setdefault(row_of(sample_id), len(rows))
        answers = {
            name: Answer(text, None, None, {}) for name, text in ((opponent, texts.opponent), (model, texts.response))
        }
        prompt = file.prompts.get(sample_id, ())
        place = sample_id.rpartition("/")[2]
        sample = int(place) if re.fullmatch("[0-9]{1,9}", place) else 0
        return Case(
            row,
            sample,
            prompt,
            None,
            answers,
            {(judge.name, model): found},
        )

    return Study(
        folder=file.path.parent,
        title=file.path.name,
        models=(Player(opponent, ""), Player(model, "")),
        judges=(judge,),
        cases=tuple(case(sample_id, found) for sample_id, found in samples.items()),
        preference_data={},
        training={},
    )


def _named(metadata: Mapping[str, Any], name: str, otherwise: str) -> str:
    value = metadata.get(name)
    return value if isinstance(value, str) and value.strip() else otherwise
