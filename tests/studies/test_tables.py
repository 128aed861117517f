"""Tables hold the rows and the figures of the analysis, and can be read back."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hand_studies import GOLD, case, judged, scored, study
from tiny_studies import MODELS, tiny_study

from preflab.core.records import Message
from preflab.page.cases import LONGEST, cases_as_markdown, gains, markdown_cell, prompt_text
from preflab.page.winrates import as_latex, as_markdown, csv_text, escape_latex, write_winrates
from preflab.stats.results import Analysis, Estimate
from preflab.stats.study import Study
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.tables import (
    WORST,
    comparison_rows,
    figure_rows,
    lost_cases,
    misranked_pairs,
    write_tables,
)
from preflab.studies.grid.report import grid_row
from preflab.studies.grid.rows import GridCell


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return tiny_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def analysis(tiny: Study) -> Analysis:
    return analyse(tiny)


@pytest.fixture(scope="module")
def folder(tiny: Study, analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "analysis"
    write_tables(tiny, analysis, folder)
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_of_a_study(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *("dpo_eval_results.json", "model_comparison_results.json", "dpo_analysis_results.csv"),
        *("dpo_comparison_results.csv", "worst_cases.csv", "cases.md"),
        *("winrates.md", "winrates.csv", "winrates.tex"),
    }


# ---- the last model against the baseline ---------------------------------------------------------------------------


def test_evaluation_rows_are_the_last_model_and_the_baseline_by_the_reward_model(tiny: Study, folder: Path) -> None:
    rows = json.loads((folder / "dpo_eval_results.json").read_text(encoding="utf-8"))
    assert len(rows) == len(tiny.cases)
    for row, found in zip(rows, tiny.cases, strict=True):
        dpo, base = found.answers["dpo"], found.answers["base"]
        assert (row["dpo_output"], row["base_output"]) == (dpo.text, base.text)
        assert (row["dpo_score"], row["base_score"]) == (dpo.scores["reward"], base.scores["reward"])
        assert row["score_diff"] == row["dpo_score"] - row["base_score"]
    assert rows[0]["prompt"] == "How do I make tea? Please help."


def test_the_sums_follow_from_the_rows(folder: Path) -> None:
    rows = pd.DataFrame(json.loads((folder / "dpo_eval_results.json").read_text(encoding="utf-8")))
    sums = json.loads((folder / "model_comparison_results.json").read_text(encoding="utf-8"))
    assert (sums["model"], sums["baseline"], sums["scorer"]) == ("dpo", "base", "reward")
    for name in ("dpo_score", "base_score", "score_diff"):
        assert sums[f"{name}_mean"] == pytest.approx(rows[name].mean())
    assert sums["win_rate"] == pytest.approx(((rows.score_diff > 0) + 0.5 * (rows.score_diff == 0)).mean())


def test_the_whole_analysis_is_in_the_json(folder: Path, analysis: Analysis) -> None:
    stored = json.loads((folder / "model_comparison_results.json").read_text(encoding="utf-8"))["analysis"]
    assert [entry["name"] for entry in stored["models"]] == list(MODELS)
    assert [entry["wins"] for entry in stored["contests"]] == [contest.wins for contest in analysis.contests]
    first = analysis.contests[0].win_rate
    assert first
    assert stored["contests"][0]["win_rate"] == {
        "value": first.value,
        "low": first.low,
        "high": first.high,
        "n": first.n,
    }


def test_a_score_that_is_not_there_is_null(tiny: Study, tmp_path: Path) -> None:
    first = tiny.cases[0]
    bare = replace(first, answers={**first.answers, "dpo": replace(first.answers["dpo"], scores={})})
    holed = replace(tiny, cases=(bare, *tiny.cases[1:]))
    write_tables(holed, analyse(holed), tmp_path)
    row = json.loads((tmp_path / "dpo_eval_results.json").read_text(encoding="utf-8"))[0]
    assert (row["dpo_score"], row["score_diff"]) == (None, None)
    assert row["base_score"] == first.answers["base"].scores["reward"]
    assert read_csv(tmp_path / "dpo_comparison_results.csv")[0]["dpo_gold_score"] == ""


def test_without_a_scorer_there_are_no_evaluation_rows(tmp_path: Path) -> None:
    alone = judged("wwlte")
    (tmp_path / "dpo_eval_results.json").write_text("[] of an earlier comparison")
    write_tables(alone, analyse(alone), tmp_path)
    assert not (tmp_path / "dpo_eval_results.json").exists()
    stored = json.loads((tmp_path / "model_comparison_results.json").read_text(encoding="utf-8"))
    assert {name for name in stored if name != "analysis"} == {"model", "baseline"}


# ---- every figure --------------------------------------------------------------------------------------------------


def test_every_figure_has_its_line(folder: Path, analysis: Analysis) -> None:
    rows = read_csv(folder / "dpo_analysis_results.csv")
    places = [tuple(row[name] for name in ("model", "opponent", "judge", "subset", "metric")) for row in rows]
    found = dict(zip(places, rows, strict=True))
    assert len(found) == len(rows), "no figure stands there twice"
    dpo = next(figures for figures in analysis.models if figures.name == "dpo")
    assert float(found["dpo", "", "", "", "words"]["low"]) == dpo.words.low
    assert float(found["dpo", "", "gold", "", "score_mean"]["value"]) == dpo.scores["gold"].mean.value
    for contest in analysis.contests:
        own = (contest.model, contest.opponent, contest.judge)
        assert contest.win_rate
        assert contest.wilson
        assert float(found[(*own, "", "win_rate")]["value"]) == contest.win_rate.value
        assert float(found[(*own, "", "win_rate_wilson")]["low"]) == contest.wilson[0]
        assert found[(*own, "", "wins")]["value"] == str(float(contest.wins))
        for subset, rate in contest.subsets.items():
            assert found[(*own, subset, "win_rate")]["n"] == str(rate.n)
    metrics = {row["metric"] for row in rows}
    assert metrics >= {
        "distinct_2",
        "hit_cap",
        "refusal",
        "mcnemar_p_value",
        "cohens_kappa",
        "longer_is_better_accuracy",
    }
    assert metrics >= {"length_pearson", "flip_rate", "score_diff_std", "outside_familiar_scores", "shift"}


def test_figures_without_a_value_have_no_line() -> None:
    alone = judged("wwl")
    metrics = {row["metric"] for row in figure_rows(analyse(alone))}
    assert not metrics & {"tokens", "hit_cap", "score_diff_mean", "flip_rate", "score_mean"}
    assert {"win_rate", "sign_test_p_value"} <= metrics


# ---- cases ---------------------------------------------------------------------------------------------------------


def test_all_texts_scores_and_verdicts_of_every_case(tiny: Study, folder: Path) -> None:
    rows = read_csv(folder / "dpo_comparison_results.csv")
    assert len(rows) == len(tiny.cases)
    for row, found in zip(rows, tiny.cases, strict=True):
        for model in MODELS:
            assert row[f"{model}_output"] == found.answers[model].text
            assert float(row[f"{model}_reward_score"]) == found.answers[model].scores["reward"]
        assert row["dpo_gpt-4o_verdict"] == found.verdicts["gpt-4o", "dpo"].outcome
        difference = found.answers["dpo"].scores["gold"] - found.answers["base"].scores["gold"]
        assert row["dpo_gold_verdict"] == ("win" if difference > 0 else "loss" if difference < 0 else "tie")
        assert "base_gold_verdict" not in row


@pytest.mark.parametrize(
    "text", ["=1+1", "+2", "-3", "@x", 'a "b", c', "two\nlines\r\nthree", "NA", "", " x ", "π → 😀"]
)
def test_csv_keeps_the_text_of_a_model(text: str) -> None:
    one = study([case(1, {"base": text, "dpo": "fine"})])
    (row,) = csv.DictReader(io.StringIO(csv_text(comparison_rows(one)), newline=""))
    assert (row["base_output"], row["dpo_output"]) == (text, "fine")


def test_worst_cases_are_the_deepest_losses_and_the_worst_ranked_pairs(tiny: Study, folder: Path) -> None:
    lost = study([case(n, {"base": "b", "dpo": "d"}, scores=scores(n)) for n in range(30)], GOLD)
    assert [(row["row"], row["difference"]) for row in lost_cases(lost)] == [(n, -float(n)) for n in range(29, 19, -1)]
    assert len(lost_cases(scored([1.0, -1.0, 0.0]))) == 1, "a win or a tie is no loss"

    rows = read_csv(folder / "worst_cases.csv")
    misranked = [row for row in rows if row["kind"] == "misranked"]
    assert len(misranked) == WORST
    wrong = sorted(
        pair.score_chosen - pair.score_rejected
        for pair in tiny.preference_data["reward"]
        if pair.score_chosen < pair.score_rejected
    )
    assert [float(row["difference"]) for row in misranked] == [pytest.approx(value) for value in wrong[:WORST]]
    assert all(
        float(row["score"]) - float(row["other_score"]) == pytest.approx(float(row["difference"])) for row in rows
    )
    assert misranked_pairs(replace(tiny, preference_data={})) == []


def scores(n: int) -> dict[str, dict[str, float]]:
    return {"base": {"gold": float(n)}, "dpo": {"gold": 0.0}}


def test_gains_are_by_the_first_scorer_else_by_the_first_judge() -> None:
    judge, ranked = gains(scored([0.5, -1.0, 2.0]), "dpo")
    assert judge is not None
    assert (judge.name, [(gain, found.row) for gain, found in ranked]) == ("reward", [(2.0, 2), (0.5, 0), (-1.0, 1)])
    judge, ranked = gains(judged("lwte-"), "dpo")
    assert judge is not None
    assert judge.name == "gpt-4o"
    assert [(gain, found.row) for gain, found in ranked] == [(0.5, 1), (0.0, 2), (-0.5, 0)]
    assert gains(judged("w"), "base") == (None, [])


def test_cases_are_the_ten_largest_gains_losses_and_ties() -> None:
    text = cases_as_markdown(scored([float(n) for n in range(-12, 13)] + [0.0] * 12))
    parts = text.split("\n## ")
    assert [part.splitlines()[0] for part in parts[1:]] == ["Largest gains", "Largest losses", "Ties"]
    ends = [[line.split(" | ")[-1].strip(" |") for line in part.splitlines()[4:] if line] for part in parts[1:]]
    assert ends[0] == [f"+{n}" for n in range(12, 2, -1)]
    assert ends[1] == [str(-n) for n in range(12, 2, -1)]
    assert ends[2] == ["+0"] * 10
    assert "None." in cases_as_markdown(scored([1.0]))
    assert "Nobody judged" in cases_as_markdown(study([case(1, {"base": "a", "dpo": "b"})]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", r"a \| b"),
        ("one\n\ntwo\tthree", "one two three"),
        ("`rm -rf`", r"\`rm -rf\`"),
        ("<script>alert(1)</script> & co", "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co"),
        ("**bold** [link](x) # $x$ ~~no~~", r"\*\*bold\*\* \[link\](x) \# \$x\$ \~\~no\~\~"),
        ("back\\slash", "back\\\\slash"),
        ("\x1b[31mred", r"\\x1b\[31mred"),
        ("", " "),
    ],
)
def test_text_in_a_markdown_cell_is_no_markup(text: str, shown: str) -> None:
    assert markdown_cell(text) == shown


def test_long_text_is_cut_in_markdown() -> None:
    assert markdown_cell("x" * LONGEST) == "x" * LONGEST
    assert markdown_cell("x" * (LONGEST + 1)) == "x" * (LONGEST - 1) + "…"


def test_a_prompt_of_several_turns_names_who_speaks() -> None:
    turns = (Message("system", "Be kind."), Message("user", "Hi"))
    assert prompt_text(turns) == "System: Be kind.\n\nUser: Hi"
    assert prompt_text(turns[1:]) == "Hi"


# ---- win rates -----------------------------------------------------------------------------------------------------

RATE = Estimate(0.6125, 0.5, 0.7, 80)
ROWS: list[dict[str, Any]] = [
    {"judge": "a_b|c", "model": "50% & more", "wins": 3, "win_rate": RATE, "p_value": 0.0004},
    {"judge": "x", "model": "[y]", "wins": 0, "win_rate": None, "p_value": None},
]


def test_win_rates_as_markdown() -> None:
    assert as_markdown(ROWS).splitlines() == [
        "| judge | model | wins | win rate | p |",
        "| --- | --- | ---: | ---: | ---: |",
        "| a\\_b\\|c | 50% &amp; more | 3 | 61.3\u00a0% [50.0, 70.0] | < 0.001 |",
        r"| x | \[y\] | 0 | – | – |",
    ]


def test_win_rates_as_latex() -> None:
    assert as_latex(ROWS).splitlines() == [
        r"\begin{tabular}{llrrr}",
        r"\hline",
        r"judge & model & wins & win rate & p \\",
        r"\hline",
        r"a\_b\textbar{}c & 50\% \& more & 3 & 61.3 \% [50.0, 70.0] & \textless{} 0.001 \\",
        r"x & {[y]} & 0 & -- & -- \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_every_sign_that_latex_would_obey_is_escaped() -> None:
    assert escape_latex(r"\input{x} $1 #2 ~^ a_b") == (
        r"\textbackslash{}input\{x\} \$1 \#2 \textasciitilde{}\textasciicircum{} a\_b"
    )
    assert escape_latex("two\nlines") == "two lines"


def test_win_rates_as_csv_are_plain_numbers(folder: Path, analysis: Analysis) -> None:
    rows = read_csv(folder / "winrates.csv")
    for row, contest in zip(rows, analysis.contests, strict=True):
        assert (row["judge"], row["model"], row["opponent"]) == (contest.judge, contest.model, contest.opponent)
        assert [int(row[name]) for name in ("wins", "ties", "losses", "errors")] == [
            *(contest.wins, contest.ties, contest.losses, contest.errors)
        ]
        assert contest.win_rate
        assert float(row["win_rate"]) == contest.win_rate.value
        assert (float(row["win_rate_low"]), float(row["win_rate_high"])) == (
            contest.win_rate.low,
            contest.win_rate.high,
        )
        assert int(row["win_rate_n"]) == contest.win_rate.n


def test_the_table_of_a_grid(tmp_path: Path) -> None:
    cells = [
        GridCell("sft", None, 0.25, "gold", "chosen", 5, 1, 4, 0, RATE),
        GridCell("dpo", 200, 1.0, "gold", "chosen", 0, 0, 0, 10, None),
    ]
    write_winrates([grid_row(found) for found in cells], tmp_path)
    first, second = read_csv(tmp_path / "winrates.csv")
    assert (first["step"], first["temperature"], first["win_rate"]) == ("", "0.25", "0.6125")
    assert (second["step"], second["errors"], second["win_rate"], second["win_rate_low"]) == ("200", "10", "", "")
    assert "| sft | – | 0.25 | chosen |" in (tmp_path / "winrates.md").read_text(encoding="utf-8")
    assert r"dpo & 200 & 1 & chosen & 0 & 0 & 0 & 10 & -- & ties half & 0 & -- \\" in (
        tmp_path / "winrates.tex"
    ).read_text(encoding="utf-8")


def test_nothing_judged_is_said(tmp_path: Path) -> None:
    write_winrates([], tmp_path)
    assert (tmp_path / "winrates.md").read_text(encoding="utf-8") == "No contests.\n"
    assert (tmp_path / "winrates.csv").read_text(encoding="utf-8").strip() == ""
