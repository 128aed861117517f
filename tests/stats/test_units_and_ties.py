"""One unit and one rule of ties in all commands: rows of a prompt are its samples, the same text ties with itself."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from preflab.core.config import Settings
from preflab.core.records import Comparison, DisagreementError, Judgement, Message, Outcome, Pair, UserError
from preflab.core.rundir import write_json, write_jsonl
from preflab.experiment.report import build_report
from preflab.experiment.settings import ReportSettings
from preflab.judging.command import JudgeResult
from preflab.judging.file_figures import FileFigures, file_figures
from preflab.judging.orders import BOTH
from preflab.judging.protocol import JudgeRequest
from preflab.judging.scorer import ScoringJudge
from preflab.judging.settings import WinrateSettings
from preflab.judging.verdicts import read_verdicts, write_verdicts
from preflab.judging.winrate import compute_winrate
from preflab.rewards.rows import extremes, summarize
from preflab.stats.judgements import leaning
from preflab.stats.results import Contest
from preflab.stats.study import Judge
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.rows import read_study
from preflab.studies.compare.tables import evaluation_rows

PROMPTS, SAMPLES = 24, 3


def figures(path: Path) -> FileFigures:
    return file_figures(read_verdicts(path))


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


# ---- the unit --------------------------------------------------------------------------------------------------------


def won(place: int) -> Outcome:
    """Of 24 prompts with three samples each, 17 are won and 7 lost: p 0.064 by prompts, 0.0026 by rows."""
    return "win" if place % PROMPTS < 17 else "loss"


@pytest.mark.parametrize("spaced", [False, True])
def test_rows_of_a_prompt_are_samples_of_it_whatever_they_are_called(tmp_path: Path, spaced: bool) -> None:
    ids = [f"{place + 1}/0" for place in range(PROMPTS * SAMPLES)]  # as files with a row of its own for each response
    pairs = {
        each: Pair(each, user(f"Question {place % PROMPTS}" + " " * (spaced and place >= PROMPTS)), f"a {each}", "b")
        for place, each in enumerate(ids)
    }
    judgements = [Judgement(each, won(place)) for place, each in enumerate(ids)]
    path = tmp_path / "a.json"
    write_verdicts(path, judgements, metadata={}, opponent_word="baseline", pairs=pairs)
    found = figures(path)
    assert (found.samples, found.prompts) == (72, 24)
    assert found.contest.p_value == pytest.approx(0.0639, abs=1e-4)
    assert found.contest.win_rate is not None
    assert found.contest.win_rate.n == 24
    assert found.contest.wilson == pytest.approx((0.5083, 0.8509), abs=1e-4)


@pytest.mark.parametrize("prompt", ["prompt", "instruction"])
def test_a_prompt_counts_where_the_responses_are_not_in_the_file(tmp_path: Path, prompt: str) -> None:
    rows = [{prompt: f"Question {place % PROMPTS}", "verdict": won(place)} for place in range(PROMPTS * SAMPLES)]
    write_json(tmp_path / "a.json", {"results": rows})
    assert (figures(tmp_path / "a.json").samples, figures(tmp_path / "a.json").prompts) == (72, 24)


def test_instructions_that_come_again_in_alpacaeval_are_one_prompt(tmp_path: Path) -> None:
    rows = [
        {
            "instruction": f"Question {place % PROMPTS}",
            "output_1": "b",
            "output_2": f"a {place}",
            "preference": 2.0 if won(place) == "win" else 1.0,
        }
        for place in range(PROMPTS * SAMPLES)
    ]
    write_json(tmp_path / "annotations.json", rows)
    found = figures(tmp_path / "annotations.json")
    assert (found.samples, found.prompts) == (72, 24)
    assert found.contest.p_value == pytest.approx(0.0639, abs=1e-4)


# ---- ties ------------------------------------------------------------------------------------------------------------


def noisy_scores(seed: int = 1) -> list[tuple[str, str, float, float]]:
    """300 responses of two models with their scores: 293 are the same, and of their scores 4 + 3 differ by rounding; of
    the others the first model's are better.
    """
    draw = random.Random(seed)
    rows = []
    for place in range(300):
        base, score = f"response {place}", draw.gauss(0, 1)
        if place < 7:
            rows.append((base, f"better {place}", score, score + 1))
        else:
            noise = 1e-7 if place < 11 else -1e-7 if place < 14 else 0.0
            rows.append((base, base, score, score + noise))
    return rows


def test_a_verdict_on_the_same_text_is_a_tie_whatever_a_file_says(tmp_path: Path) -> None:
    rows = [
        {
            "sample_id": f"{place}/0",
            "prompt": f"Question {place}",
            "model_response": ours,
            "baseline_response": theirs,
            "verdict": "model" if own > other else "baseline" if own < other else "tie",
        }
        for place, (theirs, ours, other, own) in enumerate(noisy_scores())
    ]
    counted = {"model": 11, "baseline": 3, "tie": 286, "error": 0}  # as an earlier version wrote it
    write_json(tmp_path / "a.json", {"win_counts": counted, "results": rows})
    found = figures(tmp_path / "a.json")
    contest = found.contest
    assert (contest.wins, contest.losses, contest.ties, found.same_text) == (7, 0, 293, 293)
    assert contest.p_value == pytest.approx(2 * 0.5**7)


def study(folder: Path, rows: Sequence[tuple[str, str, float | None, float | None]]) -> Path:
    """A study of base and dpo by the scores of a reward model and the verdicts of a language model."""
    judges = [
        {"name": "rm", "kind": "reward_model", "source": "runs/reward"},
        {"name": "gpt", "kind": "openai", "source": "gpt"},
    ]
    models = [{"name": name, "source": name} for name in ("base", "dpo")]
    write_json(folder / "study.json", {"title": "by hand", "models": models, "judges": judges})
    prompts = [
        {"row": place, "prompt": [{"role": "user", "content": f"Question {place}"}], "subset": None}
        for place in range(1, len(rows) + 1)
    ]
    write_jsonl(folder / "prompts.jsonl", prompts)
    for name, side in (("base", 0), ("dpo", 1)):
        answers: list[dict[str, Any]] = [
            {**prompt, "sample": 0, "response": row[side]} for prompt, row in zip(prompts, rows, strict=True)
        ]
        write_jsonl(folder / "responses" / f"{name}.jsonl", answers)
        scored = [{**answer, "score": row[2 + side]} for answer, row in zip(answers, rows, strict=True)]
        write_jsonl(folder / "scores" / "rm" / f"{name}.jsonl", scored)
    pairs = {
        f"{prompt['row']}/0": Pair(f"{prompt['row']}/0", user(f"Question {prompt['row']}"), row[1], row[0])
        for prompt, row in zip(prompts, rows, strict=True)
    }
    said = [Judgement(sample_id, "win") for sample_id in pairs]
    path = folder / "verdicts" / "gpt" / "dpo.json"
    write_verdicts(path, said, metadata={"judge": "gpt"}, opponent_word="baseline", pairs=pairs)
    return folder


def contests(folder: Path) -> dict[str, Contest]:
    return {contest.judge: contest for contest in analyse(read_study(folder)).contests}


@pytest.mark.slow
def test_in_a_comparison_too_the_same_text_ties_with_itself(tmp_path: Path) -> None:
    found = contests(study(tmp_path, noisy_scores()))
    for contest in found.values():
        assert (contest.wins, contest.losses, contest.ties, contest.errors) == (7, 0, 293, 0)
        assert contest.p_value == pytest.approx(2 * 0.5**7)
    assert found["rm"].difference is not None
    assert found["rm"].difference.value == pytest.approx(7 / 300)


def test_texts_that_nobody_could_score_tie_where_they_are_the_same(tmp_path: Path) -> None:
    found = contests(study(tmp_path, [("", "", None, None), ("", "a", None, 1.0), ("b", "a", 0.0, 1.0)]))["rm"]
    assert (found.wins, found.losses, found.ties, found.errors) == (1, 0, 1, 1)


# ---- files that belong together --------------------------------------------------------------------------------------

DIFFERENT = [(f"base {place}", f"dpo {place}", 0.0, 1.0) for place in range(12)]


def swap(folder: Path, *names: str) -> None:
    """Give two files of a folder each other's name."""
    one, two = (folder / name for name in names)
    between = folder / "between"
    one.rename(between)
    two.rename(one)
    between.rename(two)


@pytest.mark.parametrize(
    ("folder", "names", "complaint"),
    [
        ("scores/rm", ("base.jsonl", "dpo.jsonl"), r"scores/rm/base\.jsonl: row 1/0 is the score of another text"),
        ("responses", ("base.jsonl", "dpo.jsonl"), r"scores/rm/base\.jsonl: row 1/0 is the score of another text"),
    ],
)
def test_swapped_files_do_not_turn_the_answer_around(
    tmp_path: Path, folder: str, names: tuple[str, str], complaint: str
) -> None:
    study(tmp_path, DIFFERENT)
    assert contests(tmp_path)["rm"].wins == 12
    swap(tmp_path / folder, *names)
    with pytest.raises(UserError, match=complaint):
        build_report(ReportSettings(folder=tmp_path))
    assert not (tmp_path / "report.html").exists()


def test_verdicts_on_other_responses_are_refused(tmp_path: Path) -> None:
    study(tmp_path, DIFFERENT)
    path = tmp_path / "verdicts" / "gpt" / "dpo.json"
    document = json.loads(path.read_text())
    for row in document["results"]:
        row["model_response"], row["baseline_response"] = row["baseline_response"], row["model_response"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"verdicts/gpt/dpo\.json: sample 1/0 is a verdict on other texts"):
        read_study(tmp_path)


def test_responses_to_other_prompts_are_refused(tmp_path: Path) -> None:
    study(tmp_path, DIFFERENT)
    path = tmp_path / "responses" / "dpo.jsonl"
    path.write_text(path.read_text().replace("Question 3", "Question 30"))
    with pytest.raises(UserError, match=r"responses/dpo\.jsonl: response 3/0 is to another prompt"):
        read_study(tmp_path)


# ---- rounding --------------------------------------------------------------------------------------------------------

NEAR = [("a", "b", 1.0, 1.0 + 1e-7), ("a", "b", 1.0, 1.008), ("a", "b", 1.0, 1.5), ("a", "b", 0.0, 0.008)]


@pytest.mark.parametrize(("precision", "counted"), [(None, (3, 1)), ("float32", (3, 1)), ("bfloat16", (1, 3))])
def test_what_the_precision_of_the_scores_explains_is_a_tie(
    tmp_path: Path, precision: str | None, counted: tuple[int, int]
) -> None:
    folder = study(
        tmp_path,
        [(f"{ours}{place}", f"{theirs}{place}", *scores) for place, (ours, theirs, *scores) in enumerate(NEAR)],
    )
    if precision:
        write_json(folder / "scores" / "rm" / "dpo.summary.json", {"precision": precision})
    found = contests(folder)["rm"]
    assert (found.wins, found.ties) == counted
    rows = evaluation_rows(read_study(folder))
    assert sum(row["score_diff"] == 0 for row in rows) == counted[1]


def test_a_tie_is_half_a_success_in_a_score_file_too() -> None:
    rows = [{"score_chosen": 2.0, "score_rejected": 2.0 - noise} for noise in (0.0, 1e-6, 0.01, 1.0)]
    assert summarize(rows)["accuracy"] == (0.5 + 0.5 + 1 + 1) / 4
    assert summarize(rows, "bfloat16")["accuracy"] == (0.5 + 0.5 + 0.5 + 1) / 4


@pytest.mark.parametrize("score", [None, math.nan, 1e300, pytest.param(10**400, id="long"), "0.5", True])
def test_a_score_that_is_no_number_is_named(score: object) -> None:
    with pytest.raises(UserError, match=r"row 7: found the scores .*; finite numbers are needed"):
        summarize([{"row": 7, "score_chosen": score, "score_rejected": 0.0}])


@pytest.mark.parametrize("score", [None, math.nan, 1e300, -1e300, "0.5"])
def test_in_a_comparison_such_a_score_is_as_good_as_none(tmp_path: Path, score: Any) -> None:
    folder = study(tmp_path, [("a", "b", 0.0, score), ("c", "d", 0.0, 1.0)])
    found = contests(folder)["rm"]
    assert (found.wins, found.errors) == (1, 1)


def test_a_scorer_is_asked_once_for_each_text_and_never_about_two_that_are_one() -> None:
    asked: list[str] = []

    def scores(comparisons: Sequence[Comparison]) -> dict[int, float | str]:
        asked.extend(item.responses[0] for item in comparisons)
        return {item.row: float(len(item.responses[0])) for item in comparisons}

    pairs = [
        Pair("1/0", user("q"), "long", "short "),
        Pair("2/0", user("q"), "short ", "short "),
        Pair("3/0", user("q"), "long", "long"),
    ]
    scorer = ScoringJudge(Judge("rm", "reward_model", "rm", "bfloat16"), Settings(), 0, {}, scores)
    found = scorer.judgements(JudgeRequest(pairs, (), Path("journal"), "baseline"))
    assert [judgement.outcome for judgement in found] == ["loss", "tie", "tie"]
    assert asked == ["long", "short "]


def test_the_highest_and_the_lowest_rewarded_response_can_be_read() -> None:
    rows = [
        {"row": 1, "prompt": "p", "chosen": "good", "rejected": "bad", "score_chosen": 1.0, "score_rejected": -2.0},
        {"row": 2, "prompt": "q", "responses": ["a", "b", "c"], "scores": [0.0, 3.0, 1.0]},
    ]
    assert extremes(rows) == {
        "highest": {"row": 2, "prompt": "q", "response": "b", "score": 3.0},
        "lowest": {"row": 1, "prompt": "p", "response": "bad", "score": -2.0},
    }
    assert extremes(rows[:0]) == {}


# ---- one win rate ----------------------------------------------------------------------------------------------------


def soft(folder: Path) -> Path:
    """Both orders by the first token's probabilities, two samples of each prompt."""
    draw = random.Random(3)
    judgements, pairs = [], {}
    for row in range(1, 13):
        for sample in range(2):
            sample_id = f"{row}/{sample}"
            pairs[sample_id] = Pair(sample_id, user(f"Question {row}"), f"dpo {row}.{sample}", f"base {row}")
            for order in BOTH:
                preference = round(draw.random(), 3)
                judgements.append(Judgement(sample_id, leaning(preference), order, preference))
    path = folder / "verdicts" / "gpt" / "dpo.json"
    write_verdicts(path, judgements, metadata={"judge": "gpt"}, opponent_word="baseline", pairs=pairs)
    return path


def test_the_file_states_the_win_rate_that_every_command_shows(tmp_path: Path) -> None:
    path = soft(tmp_path)
    stated = json.loads(path.read_text())["win_rate"]
    found = figures(path)
    assert found.contest.win_rate is not None
    assert stated["value"] == pytest.approx(found.contest.win_rate.value)
    assert stated["prompts"] == found.contest.win_rate.n == 12
    assert "probability" in stated["definition"]
    for shown in (str(JudgeResult(read_verdicts(path))), str(compute_winrate(WinrateSettings(files=(path,))))):
        assert f"{stated['value']:.3f}" in shown
        assert stated["definition"] in shown


def test_a_win_rate_that_the_rows_do_not_give_is_refused(tmp_path: Path) -> None:
    path = soft(tmp_path)
    document = json.loads(path.read_text())
    document["win_rate"]["value"] += 0.01
    path.write_text(json.dumps(document))
    with pytest.raises(DisagreementError, match="win_rate: "):
        read_verdicts(path)


def test_win_rates_of_verdicts_without_preferences_say_that_ties_are_half(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    said: list[Outcome] = ["win", "tie", "loss", "error", "win"]
    judgements = [Judgement(f"{n}/0", outcome) for n, outcome in enumerate(said)]
    write_verdicts(path, judgements, metadata={}, opponent_word="baseline", pairs={})
    stated = json.loads(path.read_text())["win_rate"]
    assert (stated["value"], stated["prompts"]) == (2.5 / 4, 4)
    assert "a tie 1/2" in stated["definition"]
    nothing = tmp_path / "b.json"
    write_verdicts(nothing, [Judgement("1/0", "error")], metadata={}, opponent_word="baseline", pairs={})
    assert read_verdicts(nothing).judgements[0].outcome == "error"
