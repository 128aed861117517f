"""One win rate in all places, recomputed by hand from responses and from what the judge said; and which one it is."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
from no_pictures import draw_nothing
from tiny_studies import tiny_study

from preflab.cli import main
from preflab.core.rundir import read_json, read_jsonl, write_jsonl
from preflab.judging import endpoint
from preflab.judging.command import judge_responses
from preflab.judging.language import AskedJudge, language_judge
from preflab.judging.parse import Failure, Reply
from preflab.judging.settings import AskingSettings, JudgeSettings, JudgingSettings, WinrateSettings, narrowed
from preflab.judging.winrate import compute_winrate
from preflab.page.curves import curve_panels
from preflab.stats.definitions import MEAN_PREFERENCE, STD, STD_SHORT, TIES_HALF, win_rate_head
from preflab.stats.study import Judge
from preflab.stats.wording import exact_percent
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.contest_figures import overview_panels, subset_panels
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.compare.tables import figure_rows
from preflab.studies.grid.command import run_grid
from preflab.studies.grid.settings import GridSettings
from preflab.training.stage import TrainResult

JUDGE = "gpt=openai:fake@http://127.0.0.1:9/v1"


def first_is_better(first: str, second: str) -> float | None:
    """What the judge says, with a liking for the first place; None: it says nothing that can be used."""
    digest = hashlib.sha256(f"{first}|{second}".encode()).digest()
    return None if digest[0] < 16 else min(0.99, 0.15 + digest[1] / 320)


class Backend:
    """A judge in this process that is asked in a frame, and answers by the two texts in it."""

    identity: Mapping[str, object] = {"model": "fake"}

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = sorted(set(texts), key=len, reverse=True)

    def count_tokens(self, _: str) -> int | None:
        return None

    def ask(
        self,
        prompts: Sequence[str],
        read: Callable[[Reply], object],
        report: Callable[[int, Reply | Failure], None],
    ) -> None:
        for number, prompt in enumerate(prompts):
            places = sorted((prompt.rindex(f"\n{text}\n"), text) for text in self.texts if f"\n{text}\n" in prompt)
            preference = first_is_better(places[-2][1], places[-1][1])
            if preference is None:
                report(number, Failure("nothing was said"))
                continue
            reply = Reply("A", {"A": math.log(preference), "B": math.log(1 - preference)})
            read(reply)
            report(number, reply)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The texts that the judge knows; it is in the place of an endpoint."""
    texts: list[str] = []
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("PREFLAB_CACHE", str(tmp_path / "cache"))

    def judge(judge: Judge, settings: JudgingSettings, seed: int) -> AskedJudge:
        return language_judge(judge, narrowed(settings, AskingSettings), seed, Backend(texts))

    monkeypatch.setattr("preflab.judging.endpoint.KIND", replace(endpoint.KIND, make=judge))
    return texts


def by_hand(rows: Sequence[tuple[str, str, str]]) -> tuple[float, int]:
    """Mean over prompts of the mean over their samples of the mean preference over both orders: of (prompt, response,
    opponent).
    """
    of_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt, ours, theirs in rows:
        one, other = first_is_better(ours, theirs), first_is_better(theirs, ours)
        if ours == theirs:
            of_prompt[prompt].append(0.5)
        elif one is not None and other is not None:
            of_prompt[prompt].append((one + (1 - other)) / 2)
    return float(np.mean([np.mean(points) for points in of_prompt.values()])), len(of_prompt)


def written(folder: Path) -> list[tuple[str, str, str]]:
    """Two files of responses: 20 prompts with one to three rows each, every fifth response the same in both."""
    rows, number = [], 0
    for prompt in range(20):
        for _ in range(1 + prompt % 3):
            number += 1
            theirs = f"Base says {number}."
            rows.append((f"Question {prompt}?", theirs if number % 5 == 0 else f"The other says {number}.", theirs))
    for place, name in ((1, "dpo"), (2, "base")):
        write_jsonl(folder / f"{name}.jsonl", [{"prompt": row[0], "response": row[place]} for row in rows])
    return rows


@pytest.mark.slow
def test_all_commands_give_the_win_rate_that_the_rows_give(tmp_path: Path, asked: list[str]) -> None:
    rows = written(tmp_path)
    asked += [text for row in rows for text in row[1:]]
    value, prompts = by_hand(rows)
    soft: dict[str, Any] = {"verdict_from": "first_token", "orders": "both"}
    files = [str(tmp_path / f"{name}.jsonl") for name in ("dpo", "base")]
    path = tmp_path / "v.json"
    told = judge_responses(JudgeSettings(responses=files[0], opponent=files[1], judge=JUDGE, output=path, **soft))
    assert f"win rate   {value:.3f} [" in str(told)
    assert MEAN_PREFERENCE in str(told)
    stated = read_json(path)["win_rate"]
    assert (stated["value"], stated["prompts"]) == (pytest.approx(value), prompts)
    shown = json.loads(str(compute_winrate(WinrateSettings(files=(path,), json=True))))["files"][0]["contest"]
    assert shown["win_rate"]["value"] == pytest.approx(value)
    assert (shown["win_rate"]["n"], shown["definition"]) == (prompts, MEAN_PREFERENCE)
    text = str(compute_winrate(WinrateSettings(files=(path,))))
    assert "win rate (mean preference)" in text.splitlines()[0]
    out = tmp_path / "out"
    result = compare_models(CompareSettings(models=(files[1], files[0]), judge=(JUDGE,), out=out, **soft))
    assert f"win rate: {MEAN_PREFERENCE}" in str(result)
    assert read_json(out / "verdicts" / "gpt" / "dpo.json")["win_rate"]["value"] == pytest.approx(value)
    (line,) = csv.DictReader((out / "analysis" / "winrates.csv").read_text().splitlines())
    assert (float(line["win_rate"]), int(line["win_rate_n"])) == (pytest.approx(value), prompts)
    assert line["definition"] == "mean preference"
    figures = csv.DictReader((out / "analysis" / "dpo_analysis_results.csv").read_text().splitlines())
    (row,) = (each for each in figures if each["metric"] == "win_rate")
    assert (float(row["value"]), row["definition"]) == (pytest.approx(value), MEAN_PREFERENCE)
    page = html.unescape((out / "report.html").read_text(encoding="utf-8"))
    assert exact_percent(value) in page
    assert "Win rate (mean preference)" in page
    assert MEAN_PREFERENCE in page


def test_a_grid_gives_it_too(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_runs.write_model(tmp_path / "model")
    draw_nothing(monkeypatch)
    prompts = "sandbox:preferences?rows=12&split=test&seed=3"
    settings: dict[str, Any] = {"models": (f"m={model}",), "temperatures": (1.0,), "prompts": (prompts,)}
    settings |= {"max_new_tokens": 6, "num_return_sequences": 3, "dtype": "float32", "out": tmp_path / "grid"}
    run_grid(GridSettings(**settings, judge=("gold",)))  # so that the judge can know the texts
    ours = list(read_jsonl(tmp_path / "grid" / "cells" / "m-t1" / "responses.jsonl"))
    theirs = {row["row"]: row["response"] for row in read_jsonl(tmp_path / "grid" / "opponent.jsonl")}
    pairs = [(str(row["row"]), row["response"], theirs[row["row"]]) for row in ours]
    asked += [text for pair in pairs for text in pair[1:]]
    result = run_grid(GridSettings(**settings, judge=(JUDGE,), verdict_from="first_token"))
    (cell,) = result.cells
    assert cell.win_rate is not None
    assert (cell.win_rate.value, cell.win_rate.n) == (pytest.approx(by_hand(pairs)[0]), by_hand(pairs)[1])
    assert f"win rate: {MEAN_PREFERENCE}" in str(result)
    (line,) = csv.DictReader((tmp_path / "grid" / "analysis" / "winrates.csv").read_text().splitlines())
    assert (float(line["win_rate"]), line["definition"]) == (pytest.approx(by_hand(pairs)[0]), "mean preference")


def test_std_and_win_rate_say_which_they_are(tmp_path: Path) -> None:
    study = tiny_study(tmp_path)
    analysis = analyse(study)
    rows = list(figure_rows(analysis))
    deviations = [row for row in rows if row["metric"].endswith("_std")]
    assert {row["metric"] for row in deviations} == {"score_std", "score_diff_std", "reward_std"}
    assert all(row["definition"] == STD for row in deviations)
    assert all(row["definition"] == TIES_HALF for row in rows if row["metric"] in ("win_rate", "win_rate_longer"))
    scores = np.array([case.answers["dpo"].scores["gold"] for case in study.cases])
    (std,) = (
        row["value"]
        for row in rows
        if (row["metric"], row.get("model"), row.get("judge")) == ("score_std", "dpo", "gold")
    )
    assert std == pytest.approx(math.sqrt(((scores - scores.mean()) ** 2).sum() / len(scores)))
    for panel in (*overview_panels(study, analysis)[:3], *subset_panels(study, analysis)):
        import matplotlib.pyplot as plt

        figure, axis = plt.subplots()
        panel.draw(axis)
        assert "win rate (ties half)" in axis.get_xlabel()
        plt.close(figure)
    assert f"reward, {STD_SHORT}" in [panel.title for panel in curve_panels([{"step": 1, "reward_std": 1.0}])]
    assert win_rate_head([]) == win_rate_head([TIES_HALF]) == "win rate (ties half)"
    assert win_rate_head([TIES_HALF, MEAN_PREFERENCE]) == "win rate (ties half or mean preference)"
    assert f"reward_std               0.5 ({STD})" in str(TrainResult(Path("run"), Path("m"), {"reward_std": 0.5}))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("winrate", (TIES_HALF, MEAN_PREFERENCE)),
        ("judge", (MEAN_PREFERENCE,)),
        ("compare", (TIES_HALF,)),
        ("score", (STD,)),
    ],
)
def test_help_says_it(command: str, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for each in words:
        assert each in shown
