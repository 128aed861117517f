"""The files of a study's folder -> a study; described at `preflab.stats.study`.

Files are only read together that belong together: scores and verdicts are about the very responses beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType

from preflab.core.durable import read_metrics
from preflab.core.file_format import without_format
from preflab.core.origins import AsRun, as_run_of
from preflab.core.records import Pair, UserError, messages_from_json, unit_of
from preflab.core.rundir import read_json, read_jsonl
from preflab.core.ties import ROUNDING, Precision, is_score, root_mean_square
from preflab.judging.verdicts import VerdictFile, read_verdicts
from preflab.stats.alignment import Key, Row, align
from preflab.stats.judgements import combine
from preflab.stats.study import JUDGE_KINDS, Answer, Case, Judge, Player, ScoredPair, Study


def read_study(folder: Path) -> Study:
    """The study that lies in a folder.

    Prompts that one of the models has not answered are no cases. Raises UserError where there is no study, or where its
    files do not fit each other, DisagreementError where a verdict file contradicts itself.
    """
    if not (folder / "study.json").exists():
        raise UserError(f"{folder}: holds no study (no study.json); `preflab compare` makes one")
    head = without_format(folder / "study.json", read_json(folder / "study.json"))
    try:
        models = tuple(Player(**entry) for entry in head["models"])
        judges = tuple(Judge(*(entry[name] for name in ("name", "kind", "source"))) for entry in head["judges"])
        title = str(head["title"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / 'study.json'}: not a study that this version wrote ({error})") from None
    _check_names(folder / "study.json", models, judges)
    try:
        return _with_rows(folder, title, models, judges)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:  # rows that somebody has edited
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder}: a row of its files lacks what a study needs ({error!r})") from error


def _check_names(path: Path, models: tuple[Player, ...], judges: tuple[Judge, ...]) -> None:
    """Names are names of files in the study's folder, and nowhere else."""
    for kind, names in (("models", [m.name for m in models]), ("judges", [j.name for j in judges])):
        plain = all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in names)
        if not plain or len(set(names)) < len(names):
            raise UserError(
                f"{path}: the {kind} are called {', '.join(map(str, names))}; plain names that differ are needed"
            )
    if len(models) < 2 or any(judge.kind not in tuple(JUDGE_KINDS) for judge in judges):
        raise UserError(f"{path}: two models are needed, and judges of the kinds {', '.join(JUDGE_KINDS)}")


def _with_rows(folder: Path, title: str, models: tuple[Player, ...], judges: tuple[Judge, ...]) -> Study:
    cases = _read_cases(folder, models, judges)
    preference_data = {
        judge.name: pairs for judge in judges if judge.is_scorer and (pairs := _scored_pairs(folder, judge))
    }
    return Study(
        folder=folder,
        title=title,
        models=models,
        judges=tuple(_scaled(folder, judge, cases, preference_data.get(judge.name, ())) for judge in judges),
        cases=cases,
        preference_data=preference_data,
        training={model.name: read_metrics(folder / "training", f"{model.name}.jsonl") for model in models},
        overlaps={model.name: found for model in models if (found := _overlap(folder, model.name))},
        as_run=_as_run(folder / "as_run.json"),
    )


def _as_run(path: Path) -> AsRun:
    return as_run_of(read_json(path), str(path)) if path.exists() else AsRun()


def _overlap(folder: Path, model: str) -> dict[str, int]:
    path = folder / "training" / f"{model}.overlap.json"
    return {name: int(value) for name, value in read_json(path).items()} if path.exists() else {}


def _scaled(folder: Path, judge: Judge, cases: tuple[Case, ...], pairs: tuple[ScoredPair, ...]) -> Judge:
    """A judge with the precision and the size of its scores. Where nothing tells the precision, it is float32."""
    if judge.kind != "reward_model":
        return judge
    summaries = sorted((folder / "scores" / judge.name).glob("*.summary.json"))
    told = {read_json(path).get("precision") for path in summaries}
    known: list[Precision] = [precision for precision in ROUNDING if precision in told]
    answers = [answer for case in cases for answer in case.answers.values()]
    scores = [answer.scores[judge.name] for answer in answers if judge.name in answer.scores]
    scores += [score for pair in pairs for score in (pair.score_chosen, pair.score_rejected)]
    coarsest: Precision = max(known, key=lambda precision: ROUNDING[precision], default="float32")
    return replace(judge, precision=coarsest, size=root_mean_square(scores))


Scores = Mapping[tuple[str, str], Mapping[Key, Row]]
"""(Judge, model) -> the rows of its file of scores."""


def _read_cases(folder: Path, models: tuple[Player, ...], judges: tuple[Judge, ...]) -> tuple[Case, ...]:
    prompts = {row["row"]: row for row in _needed(folder / "prompts.jsonl")}
    responses = align({model.name: _needed(folder / "responses" / f"{model.name}.jsonl") for model in models}).rows
    _check_prompts(folder, prompts, responses)
    scores = {
        (judge.name, model.name): _by_key(_needed(_scores_path(folder, judge.name, model.name)))
        for judge in judges
        if judge.is_scorer
        for model in models
    }
    _check_scores(folder, scores, responses)
    files = {
        (judge.name, model.name): read_verdicts(path)
        for judge in judges
        for model in models[1:]
        if not judge.is_scorer and (path := folder / "verdicts" / judge.name / f"{model.name}.json").exists()
    }
    pairs = {model.name: _pairs(responses, prompts, model.name, models[0].name) for model in models[1:]}
    for (_, model), file in files.items():
        _check_verdicts(file, pairs[model])
    verdicts = {pair: combine(file.judgements, pairs[pair[1]]) for pair, file in files.items()}
    first: dict[tuple[str, int, str], float] = {}

    def score(judge: str, row: Row, value: float) -> float:
        """One score for one text, whoever wrote it: batches differ in their rounding, and that is no preference."""
        return first.setdefault((judge, row["row"], row["response"]), float(value))

    def answer(name: str, row: Row) -> Answer:
        key = (row["row"], row["sample"])
        own = {
            judge: score(judge, row, rows[key]["score"])
            for (judge, model), rows in scores.items()
            if model == name and key in rows and is_score(rows[key]["score"])
        }
        capped = None if row.get("finish") is None else row["finish"] == "length"
        return Answer(row["response"], row.get("tokens"), capped, own)

    def case(key: Key) -> Case:
        found = {
            pair: samples[sample] for pair, samples in verdicts.items() if (sample := f"{key[0]}/{key[1]}") in samples
        }
        prompt = messages_from_json(prompts[key[0]]["prompt"])
        answers = {name: answer(name, row) for name, row in responses[key].items()}
        return Case(key[0], key[1], prompt, _subset_of(prompts[key[0]]), answers, found)

    return tuple(case(key) for key in responses)


def _scores_path(folder: Path, judge: str, model: str) -> Path:
    return folder / "scores" / judge / f"{model}.jsonl"


def _pairs(
    responses: Mapping[Key, Mapping[str, Row]], prompts: Mapping[int, Row], model: str, baseline: str
) -> dict[str, Pair]:
    """What there is to judge of a model, by `sample_id`."""
    found = {}
    for (row, sample), both in responses.items():
        prompt = messages_from_json(prompts[row]["prompt"])
        sample_id = f"{row}/{sample}"
        found[sample_id] = Pair(sample_id, prompt, both[model]["response"], both[baseline]["response"])
    return found


# ---- do the files belong together? -----------------------------------------------------------------------------------

_APART = (
    "so these files do not belong together; put the right one back, or run `preflab compare` again with --overwrite"
)


def _check_prompts(folder: Path, prompts: Mapping[int, Row], responses: Mapping[Key, Mapping[str, Row]]) -> None:
    for (number, sample), answers in responses.items():
        for name, row in answers.items():
            path = folder / "responses" / f"{name}.jsonl"
            if number not in prompts:
                raise UserError(
                    f"{path}: there is a response to prompt {number}, which prompts.jsonl does not have, {_APART}"
                )
            if not isinstance(row["response"], str) or not isinstance(row.get("tokens"), (int, NoneType)):
                raise TypeError(f"response {number}/{sample} of {name}")
            asked = messages_from_json(prompts[number]["prompt"])
            if "prompt" in row and unit_of(messages_from_json(row["prompt"])) != unit_of(asked):
                raise UserError(
                    f"{path}: response {number}/{sample} is to another prompt than prompt {number} of prompts.jsonl, "
                    f"{_APART}"
                )


def _check_scores(folder: Path, scores: Scores, responses: Mapping[Key, Mapping[str, Row]]) -> None:
    for (judge, model), rows in scores.items():
        for answers in responses.values():
            answer = answers[model]
            scored = rows.get((answer["row"], answer["sample"]), answer)
            if scored.get("response", answer["response"]) != answer["response"]:
                raise UserError(
                    f"{_scores_path(folder, judge, model)}: row {answer['row']}/{answer['sample']} is the score of "
                    f"another text than {folder / 'responses' / f'{model}.jsonl'} has there, {_APART}"
                )


def _check_verdicts(file: VerdictFile, pairs: Mapping[str, Pair]) -> None:
    for sample_id, judged in file.pairs.items():
        ours = pairs.get(sample_id)
        if ours and (judged.response, judged.opponent) != (ours.response, ours.opponent):
            raise UserError(
                f"{file.path}: sample {sample_id} is a verdict on other texts than the responses here, {_APART}"
            )


def _check_pair(path: Path, row: Row, prompt: Row | None) -> None:
    """Whether a pair of preference data is the one that the study's prompts come from."""
    if prompt and any(row[side] != prompt.get(side, row[side]) for side in ("chosen", "rejected")):
        raise UserError(f"{path}: row {row['row']} scores other texts than that row of prompts.jsonl has, {_APART}")


# ---- the rest --------------------------------------------------------------------------------------------------------


def _subset_of(prompt: Row) -> str | None:
    """The subset that a prompt belongs to, as text."""
    subset = prompt.get("subset")
    return None if subset is None else str(subset)


def _scored_pairs(folder: Path, judge: Judge) -> tuple[ScoredPair, ...]:
    path = _scores_path(folder, judge.name, "preference_data")
    prompts = {row["row"]: row for row in _rows(folder / "prompts.jsonl")}
    rows = list(_rows(path))
    for row in rows:
        _check_pair(path, row, prompts.get(row["row"]))
    return tuple(
        ScoredPair(
            row["row"],
            messages_from_json(row["prompt"]),
            *(row[name] for name in ("chosen", "rejected", "score_chosen", "score_rejected")),
        )
        for row in rows
        if is_score(row.get("score_chosen")) and is_score(row.get("score_rejected"))
    )


def _by_key(rows: Iterable[Row]) -> dict[Key, Row]:
    return {(row["row"], row["sample"]): row for row in rows}


def _rows(path: Path) -> Iterator[Row]:
    return read_jsonl(path, whole=True) if path.exists() else iter(())


def _needed(path: Path) -> Iterator[Row]:
    if not path.exists():
        raise UserError(f"{path}: is missing; run `preflab compare` again")
    return read_jsonl(path, whole=True)
