"""`preflab compare` from end to end on models of the sandbox, and on files that other tools wrote."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from no_pictures import PAGE, draw_nothing

from preflab import cli
from preflab.core.records import UserError
from preflab.core.rundir import read_json, read_jsonl
from preflab.experiment.report import build_report
from preflab.experiment.settings import ReportSettings
from preflab.sandbox.gold import gold_reward
from preflab.stats.study import Study, verdict
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.report import ReportResult
from preflab.studies.compare.rows import read_study
from preflab.studies.compare.settings import CompareSettings

pytestmark = pytest.mark.slow

PROMPTS = "sandbox:preferences?rows=14&split=test&seed=3"
FIGURES = {
    *("model_comparison.png", "dpo_score_comparison.png", "response_length_analysis.png"),
    *("delta_hist.png", "score_hist.png"),
}
TABLES = {
    *("dpo_eval_results.json", "dpo_comparison_results.csv", "worst_cases.csv", "dpo_analysis_results.csv"),
    *("model_comparison_results.json", "winrates.md", "winrates.csv", "winrates.tex"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    base = tiny_runs.write_model(folder / "base")
    tiny_runs.run("dpo", base, folder / "dpo", max_steps=4, save_strategy="no")
    tiny_runs.run("reward", base, folder / "reward", max_steps=4, save_strategy="no")
    return {"base": base, "dpo": folder / "dpo", "reward": folder / "reward" / "model"}


def settings(models: dict[str, Path], out: Path, **changes: Any) -> CompareSettings:
    values: dict[str, Any] = {
        "models": (f"base={models['base']}", str(models["dpo"])),
        "prompts": (PROMPTS,),
        "reward_model": (f"rm={models['reward']}",),
        "judge": ("gold",),
        "max_new_tokens": 12,
        "dtype": "float32",
        "out": out,
    }
    return CompareSettings(**values | changes)


@pytest.fixture(scope="module")
def done(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportResult, Study]:
    out = tmp_path_factory.mktemp("compare") / "out"
    return compare_models(settings(models, out)), read_study(out)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which take longer than all the rest."""
    draw_nothing(monkeypatch, PAGE)


def test_the_study_has_everybodys_answers_and_scores(done: tuple[ReportResult, Study]) -> None:
    _, study = done
    assert [model.name for model in study.models] == ["base", "dpo"], "a run's folder gives its model, and its name"
    assert [(judge.name, judge.kind) for judge in study.judges] == [("gold", "gold"), ("rm", "reward_model")], (
        "the truth has the first word"
    )
    assert {case.subset for case in study.cases} <= {"fact", "task", "harmful", "borderline"}
    for case in study.cases:
        for answer in case.answers.values():
            if answer.text.strip():
                assert answer.scores["gold"] == gold_reward(case.prompt[-1].content, answer.text)
                assert "rm" in answer.scores
    assert study.training["dpo"], "the curves of a run come along"
    assert not study.training["base"]
    assert len(study.preference_data["rm"]) == len(study.cases) == len({case.prompt for case in study.cases})


def test_scores_are_those_that_the_score_command_gives(done: tuple[ReportResult, Study], tmp_path: Path) -> None:
    result, study = done
    folder = result.report.parent
    reward_model = study.judges[1].source
    with pytest.raises(SystemExit) as end:
        cli.main(["score", str(folder / "responses" / "dpo.jsonl"), "--reward-model", reward_model,
                  "--output", str(tmp_path / "dpo.jsonl"), "--batch-size", "3"])  # fmt: skip
    assert end.value.code in (0, None)
    again = {(row["row"], row["sample"]): row["score"] for row in read_jsonl(tmp_path / "dpo.jsonl")}
    ours = {(case.row, case.sample): case.answers["dpo"].scores.get("rm") for case in study.cases}
    assert {key: score for key, score in ours.items() if score is not None} == pytest.approx(again, abs=1e-4)


def test_tables_figures_and_report_are_there(done: tuple[ReportResult, Study]) -> None:
    result, study = done
    assert {path.name for path in (result.report.parent / "analysis").iterdir()} >= FIGURES | TABLES
    rows = read_json(result.report.parent / "analysis" / "dpo_eval_results.json")
    scored = [case for case in study.cases if all("rm" in answer.scores for answer in case.answers.values())]
    assert [row["score_diff"] for row in rows if row["score_diff"] is not None] == pytest.approx(
        [case.answers["dpo"].scores["rm"] - case.answers["base"].scores["rm"] for case in scored]
    )
    assert "<title>" in result.report.read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_does_nothing_again_and_a_judge_can_be_added(
    done: tuple[ReportResult, Study], models: dict[str, Path]
) -> None:
    result, _ = done
    out = result.report.parent
    before = {
        path: path.stat().st_mtime_ns for path in [*out.glob("responses/*.jsonl"), *out.glob("scores/rm/*.jsonl")]
    }
    again = compare_models(settings(models, out, judge=("gold", f"second=reward:{models['reward']}")))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.analysis.contests[0] == result.analysis.contests[0]
    assert {contest.judge for contest in again.analysis.contests} == {"rm", "gold", "second"}


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_was_renamed_is_finished_all_the_same(
    models: dict[str, Path], done: tuple[ReportResult, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done[1].folder, tmp_path / "renamed")
    monkeypatch.setattr("preflab.sample.generate.generate", None)
    monkeypatch.setattr("preflab.sample.score.rewards", None)
    again = compare_models(settings(models, tmp_path / "renamed"))
    assert again.analysis == done[0].analysis
    monkeypatch.chdir(tmp_path)
    assert compare_models(settings(models, Path("renamed"))).analysis == done[0].analysis
    with pytest.raises(UserError, match=r"settings\.max_new_tokens: 12 there, 13 now"):
        compare_models(settings(models, tmp_path / "renamed", max_new_tokens=13))


@pytest.mark.usefixtures("undrawn")
def test_the_report_is_made_again_from_rows_alone(done: tuple[ReportResult, Study], tmp_path: Path) -> None:
    result, _ = done
    copy = tmp_path / "elsewhere"
    for name in ("study.json", "prompts.jsonl"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes((result.report.parent / name).read_bytes())
    for path in [*result.report.parent.glob("responses/*.jsonl"), *result.report.parent.glob("scores/*/*.jsonl")]:
        target = copy / path.relative_to(result.report.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert (
        build_report(ReportSettings(folder=copy)).analysis
        == build_report(ReportSettings(folder=result.report.parent)).analysis
    )


def test_rebuilding_imports_neither_torch_nor_transformers(done: tuple[ReportResult, Study]) -> None:
    code = (
        "import sys; from preflab.cli import main\n"
        "try: main(['report', sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'a model library was imported'"
    )
    command = [sys.executable, "-c", code, str(done[0].report.parent)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert ended.returncode == 0, ended.stderr


# ---- files of other tools ------------------------------------------------------------------------------------------


def outputs(path: Path, generator: str, answers: dict[str, str], **more: Any) -> str:
    rows = [
        {"instruction": i, "output": o, "generator": generator, "dataset": "koala", **more} for i, o in answers.items()
    ]
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.mark.usefixtures("undrawn")
def test_alpaca_evals_files_are_compared_without_a_model(tmp_path: Path) -> None:
    a = outputs(tmp_path / "a.json", "a", {"Hi there.": "Hello.", "Name a bird.": "A wren lives here."})
    b = outputs(tmp_path / "b.json", "b", {"Name a bird.": "", "Hi there.": "Good day to you."})
    compare_models(CompareSettings(models=(a, b), judge=("gold",), out=tmp_path / "out"))
    study = read_study(tmp_path / "out")
    assert [case.answers["b"].text for case in study.cases] == ["Good day to you.", ""]
    assert {case.subset for case in study.cases} == {"koala"}
    assert all(
        answer.capped is None and answer.tokens is None for case in study.cases for answer in case.answers.values()
    )


@pytest.mark.usefixtures("undrawn")
def test_scores_in_the_files_are_a_scorer(tmp_path: Path) -> None:
    a = outputs(tmp_path / "a.json", "a", {"Hi.": "Hello."}, score=1.5)
    b = outputs(tmp_path / "b.json", "b", {"Hi.": "Good day."}, score=2)
    result = compare_models(CompareSettings(models=(a, b), out=tmp_path / "out"))
    (contest,) = result.analysis.contests
    assert (contest.judge, contest.wins, contest.difference and contest.difference.value) == ("score", 1, 0.5)


@pytest.mark.usefixtures("undrawn")
def test_a_response_that_cannot_be_scored_is_an_error_and_never_a_loss(models: dict[str, Path], tmp_path: Path) -> None:
    a = outputs(tmp_path / "a.json", "a", {"Hi.": "Hello.", "Ho.": "Well."})
    b = outputs(tmp_path / "b.json", "b", {"Hi.": "", "Ho.": "Good."})
    result = compare_models(
        CompareSettings(models=(a, b), reward_model=(f"rm={models['reward']}",), dtype="float32", out=tmp_path / "out")
    )
    (contest,) = result.analysis.contests
    assert (contest.errors, contest.wins + contest.losses + contest.ties) == (1, 1)


@pytest.mark.usefixtures("undrawn")
def test_preferred_responses_can_take_part(tmp_path: Path) -> None:
    compare_models(CompareSettings(models=("rejected", "chosen"), prompts=(PROMPTS,), judge=("gold",), out=tmp_path))
    study = read_study(tmp_path)
    judge = study.judges[0]
    outcomes = [verdict(case, judge, "chosen", "rejected", study.baseline) for case in study.cases]
    assert sum(o is not None and o.outcome == "win" for o in outcomes) > len(outcomes) / 2


@pytest.mark.usefixtures("undrawn")
def test_reward_bench_results_tell_how_often_the_reward_model_is_right(tmp_path: Path) -> None:
    texts = [
        ("User: 1+1?\n\nAssistant: 2.", "User: 1+1?\n\nAssistant: three."),
        ("User: hi\n\nBot: Hi.", "User: hi\n\nBot: No."),
    ]
    rows = [
        {
            "text_chosen": good,
            "text_rejected": bad,
            "scores_chosen": c,
            "scores_rejected": r,
            "subset": "math",
            "results": 1,
        }
        for (good, bad), (c, r) in zip(texts, [(2, 0.5), (-1.5, 1)], strict=True)
    ]
    (tmp_path / "rb.json").write_text(json.dumps(rows))
    settings = CompareSettings(
        models=("rejected", "chosen"), prompts=(str(tmp_path / "rb.json"),), out=tmp_path / "out"
    )
    analysis = compare_models(settings).analysis
    (contest,) = analysis.contests
    assert (contest.judge, contest.wins, contest.losses, contest.difference and contest.difference.value) == (
        "score", 1, 1, pytest.approx(-0.5)
    )  # fmt: skip
    assert contest.subsets.keys() == {"math"}
    assert analysis.depth[0].accuracy.value == 0.5


@pytest.mark.usefixtures("undrawn")
def test_several_sources_make_subsets(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(4)]
    (tmp_path / "x.json").write_text(json.dumps(rows[:2]))
    (tmp_path / "y.json").write_text(json.dumps(rows[2:]))
    specs = (str(tmp_path / "x.json"), str(tmp_path / "y.json"))
    compare_models(CompareSettings(models=("rejected", "chosen"), prompts=specs, judge=("gold",), out=tmp_path / "out"))
    assert [case.subset for case in read_study(tmp_path / "out").cases] == [specs[0]] * 2 + [specs[1]] * 2


@pytest.mark.usefixtures("undrawn")
def test_one_preferred_response_stands_beside_each_of_several_samples(models: dict[str, Path], tmp_path: Path) -> None:
    wanted = settings(models, tmp_path, num_return_sequences=3, reward_model=())
    players = ("chosen", str(models["dpo"]))
    (contest,) = compare_models(wanted.model_copy(update={"models": players})).analysis.contests
    cases = read_study(tmp_path).cases
    prompts = len({case.row for case in cases})
    assert len(cases) == 3 * prompts
    assert len({case.answers["chosen"].text for case in cases if case.row == 1}) == 1
    assert contest.wins + contest.ties + contest.losses + contest.errors == 3 * prompts
    assert contest.win_rate is not None
    assert contest.win_rate.n <= prompts, "samples of one prompt are not counted as prompts"


@pytest.mark.usefixtures("undrawn")
def test_a_sample_of_the_prompts_of_files_is_compared(tmp_path: Path) -> None:
    answers = {f"prompt {n}": f"answer {n}" for n in range(20)}
    a, b = (outputs(tmp_path / f"{name}.json", name, answers) for name in "ab")
    values: dict[str, Any] = {"models": (a, b), "judge": ("gold",), "max_samples": 6}
    compare_models(CompareSettings(**values, out=tmp_path / "one"))
    compare_models(CompareSettings(**values, seed=1, out=tmp_path / "two"))
    one, two = ([case.prompt for case in read_study(tmp_path / name).cases] for name in ("one", "two"))
    assert len(one) == len(two) == 6
    assert one != two


@pytest.mark.usefixtures("undrawn")
def test_rows_that_are_not_asked_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": p, "chosen": "a", "rejected": r} for p, r in (("p", "b"), ("q", "a"), ("p", "c"))]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    compare_models(
        CompareSettings(
            models=("rejected", "chosen"), prompts=(str(tmp_path / "x.json"),), judge=("gold",), out=tmp_path
        )
    )
    told = capsys.readouterr().err
    assert "1 rows cannot be used, identical responses (row 2)" in told
    assert "1 prompts stand in the data more than once" in told


@pytest.mark.usefixtures("undrawn")
def test_what_is_printed_reads_well(done: tuple[ReportResult, Study], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["report", str(done[0].report.parent)])
    shown = capsys.readouterr().out
    assert "\\x" not in shown
    assert "report.html" in shown


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def complaint(**changes: Any) -> str:
    with pytest.raises(UserError) as error:
        compare_models(CompareSettings(**changes))
    return str(error.value)


@pytest.mark.usefixtures("undrawn")
def test_bad_input_is_named(tmp_path: Path) -> None:
    a = outputs(tmp_path / "a.json", "a", {"Hi.": "Hello."})
    b = outputs(tmp_path / "b.json", "b", {"Ho.": "Hello."})
    out = tmp_path / "out"
    assert "have no partner" in complaint(models=(a, b), judge=("gold",), out=out)
    assert "put names in front" in complaint(models=(a, a), judge=("gold",), out=out)
    assert "--prompts" in complaint(models=("chosen", "rejected"), judge=("gold",), out=out)
    assert "come without preferences" in complaint(
        models=("chosen", "rejected"), prompts=("sandbox:prompts?rows=3",), judge=("gold",), out=tmp_path / "p"
    )
    assert "two judges are called gold" in complaint(models=(a, f"c={a}"), judge=("gold", "gold"), out=out)
    assert "openai:MODEL" in complaint(models=(a, f"c={a}"), judge=("gpt-4o",), out=out)
    assert "no such file" in complaint(models=(str(tmp_path / "none.json"), a), judge=("gold",), out=out)
    assert not out.exists() or not list(out.glob("responses/*")), "nothing is written before the input is known to fit"


@pytest.mark.usefixtures("undrawn")
def test_another_comparison_in_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    a = outputs(tmp_path / "a.json", "a", {"Hi.": "Hello."})
    b = outputs(tmp_path / "b.json", "b", {"Hi.": "Good day."})
    values: dict[str, Any] = {"models": (a, b), "judge": ("gold",), "out": tmp_path / "out"}
    compare_models(CompareSettings(**values))
    before = (tmp_path / "out" / "responses" / "b.jsonl").read_bytes()
    outputs(tmp_path / "b.json", "b", {"Hi.": "Something else."})
    assert "was made from other inputs" in complaint(**values)
    assert (tmp_path / "out" / "responses" / "b.jsonl").read_bytes() == before
    compare_models(CompareSettings(**values, overwrite=True))
    assert (tmp_path / "out" / "responses" / "b.jsonl").read_bytes() != before


@pytest.mark.usefixtures("undrawn")
def test_a_model_takes_the_place_of_a_file_when_asked_to(models: dict[str, Path], tmp_path: Path) -> None:
    a = outputs(tmp_path / "a.json", "a", {"Hi.": "Hello."})
    values: dict[str, Any] = {"judge": ("gold",), "out": tmp_path / "out", "max_new_tokens": 4, "dtype": "float32"}
    compare_models(CompareSettings(models=(a, f"b={a}"), **values))
    assert "was made from other inputs" in complaint(models=(a, f"b={models['base']}"), **values)
    compare_models(CompareSettings(models=(a, f"b={models['base']}"), overwrite=True, **values))
    assert read_study(tmp_path / "out").cases[0].answers["b"].text != "Hello."


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no study and no experiment \(none of experiment\.json, study\.json"):
        build_report(ReportSettings(folder=tmp_path))


def test_the_report_says_what_was_held_out_and_trained_on_as_well(
    models: dict[str, Path], done: tuple[ReportResult, Study], tmp_path: Path
) -> None:
    base, held_out = models["base"], tiny_runs.TRAIN
    tiny_runs.run("dpo", base, tmp_path / "dpo", max_steps=1, save_strategy="no", eval_data=(held_out,))
    found = compare_models(settings({**models, "dpo": tmp_path / "dpo"}, tmp_path / "out"))
    (told,) = re.findall(r"dpo: (\d+) of (\d+) held-out prompts, and (\d+) of (\d+) held-out rows", page_of(found))
    assert told[0] == told[1]
    assert told[2] == told[3] == "20"
    assert "held-out prompts, and" not in page_of(done[0])


def page_of(result: ReportResult) -> str:
    return html.unescape(result.report.read_text(encoding="utf-8"))
