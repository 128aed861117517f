"""An experiment's one report: what it found, how the trainings went, and what was planned, from what lies on disk."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hand_experiments import stage, write_experiment, write_grid, write_study, write_training

from preflab.cli import main
from preflab.core.records import DisagreementError, UserError
from preflab.core.rundir import read_json, write_json, write_text
from preflab.experiment.figures import MOST_LINES, lines_of, training_panels
from preflab.experiment.report import build_report, report_experiment
from preflab.experiment.rows import Training, read_experiment
from preflab.experiment.settings import ReportSettings
from preflab.stats.results import Estimate
from preflab.stats.statistics import draw_resamples, rate_estimate
from preflab.stats.wording import duration
from preflab.studies.grid.findings import grid_findings
from preflab.studies.grid.rows import GridCell, read_grid

if TYPE_CHECKING:
    from browser import OpenPage

pytest_plugins = ("browser",)

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings over two betas and two seeds, a comparison, a grid with a failed judge, and a stage that waits."""
    root = tmp_path_factory.mktemp("trial")
    stages = [stage("sft", "train sft")]
    write_training(root / "sft")
    for beta in (0.1, 0.5):
        for seed in (0, 1):
            name = f"dpo-beta-{beta}-seed-{seed}"
            stages.append(stage(name, "train dpo", group="dpo", variant={"beta": beta, "seed": seed}, after=["sft"]))
            write_training(root / name, loss=0.4 + beta / 10 + seed / 100)
            write_text(root / name / "training_curves.png", "drawn")
    write_study(root / "compare", "w" * 30 + "l" * 4)
    write_text(root / "compare" / "report.html", "the comparison's own")
    stages.append(stage("compare", "compare", after=["sft"]))
    write_grid(root / "grid", {("dpo", None, 0.25): "w" * 40, ("dpo", None, 1.0): "w" * 12 + "l" * 26 + "ee"})
    stages.append(stage("grid", "grid"))
    stages.append(stage("judge", "judge", status="failed", reason=f"no key {EVIL}", seconds=0.4))
    stages.append(stage("later", "compare", status="waiting", seconds=None))
    write_study(root / "later", "l" * 34, title="of another run")
    return write_experiment(root, stages)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return report_experiment(folder).read_text(encoding="utf-8")


def words(page: str) -> str:
    """What a reader sees, without tags."""
    body = re.sub(r"<(script|style|svg|head)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("&#34;", '"')


def test_the_answer_comes_first_then_the_parts_then_the_plan(page: str) -> None:
    assert "As in a paper." not in page, "what a file says of itself is no finding of this run"
    main = words(page.partition('<main id="main">')[2])
    order = ["Does it help?", "compare: dpo is better than base", "grid: dpo is better than chosen"]
    places = [main.index(part) for part in [*order, "Against the baseline"]]
    assert places == sorted(places)
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert titles == ["Comparison: compare", "Grid: grid", "Trainings", "The plan"]


def test_a_comparison_links_to_its_own_report(page: str) -> None:
    assert 'href="./compare/report.html"' in page
    assert "dpo says so" not in page, "cases stand there, not here"


def test_a_grid_shows_its_figure_and_every_cell_with_n_and_judge(page: str) -> None:
    assert "Against chosen, gpt-4o judging" in page
    assert re.search(r"31\.6.%.*?n = 38", words(page)), "12 of 38, the errors left out"
    assert "2 of 80 judgements failed" in words(page)


def test_trainings_stand_in_a_table_with_what_was_swept(page: str) -> None:
    seen = words(page)
    assert re.search(r"Stage beta seed Steps Loss Accuracy Margin Log-prob\. of chosen, change Time", seen)
    assert re.search(r"dpo-beta-0\.5-seed-1 train dpo 0\.5 1 30 0\.49 held-out 0\.46 70\.0.% held-out 70\.0.%", seen)
    assert "−2.00 to −12.00, held-out" in seen
    assert 'href="./dpo-beta-0.5-seed-1/training_curves.png"' in page


def test_what_failed_is_told_with_its_reason_and_what_waits_without_results(page: str) -> None:
    seen = words(page)
    assert "Failed: judge." in seen
    assert "no key" in seen
    assert "Not finished yet: later." in seen
    assert "Comparison: later" not in seen


def test_text_of_stages_is_never_markup(page: str) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in page


def test_report_dispatches_to_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_report(ReportSettings(folder=folder)) == folder / "report.html"
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder)])
    assert ended.value.code == 0
    assert f"written to {folder / 'report.html'}" in capsys.readouterr().out


def test_the_plan_tells_settings_that_differ_and_the_command(tmp_path: Path) -> None:
    plan = "values: {data: a.jsonl}\nstages:\n  dpo: {run: train dpo, model: m, train_data: '${data}', beta: 0.3}\n"
    write_text(tmp_path / "experiment.yaml", plan)
    settings = {"experiment": "my plan.yaml", "assignments": ["data=a.jsonl"]}
    write_json(tmp_path / "manifest.json", {"command": "run", "settings": settings, "seed": 7})
    write_training(tmp_path / "dpo")
    seen = words(report_experiment(write_experiment(tmp_path, [stage("dpo", "train dpo")])).read_text())
    assert all(part in seen for part in ("train_data: a.jsonl", "model: m", "beta: 0.3"))
    assert "learning_rate:" not in seen
    assert "preflab run &#39;my plan.yaml&#39; data=a.jsonl" in seen


def test_a_file_that_contradicts_itself_is_left_out_and_refused(tmp_path: Path) -> None:
    cells = {("dpo", None, 1.0): "w" * 12, ("dpo", None, 0.5): "w" * 12}
    write_grid(tmp_path / "grid", cells)
    write_grid(tmp_path / "other", cells)
    path = next((tmp_path / "grid" / "cells").glob("*/gpt-4o.json"))
    found = read_json(path)
    write_json(path, {**found, "win_rates": {**found["win_rates"], "model_winrate": 0.1}})
    write_experiment(tmp_path, [stage("grid", "grid"), stage("other", "grid")])
    with pytest.raises(DisagreementError, match=re.escape(str(path))):
        report_experiment(tmp_path)
    seen = words((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "grid cannot be read, and is left out" in seen
    assert "Grid: other" in seen


def test_a_grid_that_failed_shows_the_cells_that_are_judged(tmp_path: Path) -> None:
    write_grid(tmp_path / "grid", {("dpo", None, 1.0): "w" * 12})
    write_experiment(tmp_path, [stage("grid", "grid", status="failed", reason="a cell failed")])
    seen = words(report_experiment(tmp_path).read_text(encoding="utf-8"))
    assert "these are the cells that were judged" in seen
    assert "100.0" in seen


@pytest.mark.parametrize("text", ["[]", "{}", '{"name": 1, "title": 1, "description": 1, "stages": [{"name": "a"}]}'])
def test_an_edited_experiment_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="holds no experiment"):
        read_experiment(tmp_path)
    write_text(tmp_path / "experiment.json", text)
    with pytest.raises(UserError, match="not an experiment that this version wrote"):
        read_experiment(tmp_path)


# ---- what is drawn and said ----


def trainings(folder: Path, betas: int, seeds: int = 2) -> list[Training]:
    stages = [
        stage(f"dpo-{beta}-{seed}", "train dpo", group="dpo", variant={"beta": beta / 10, "seed": seed})
        for beta in range(1, betas + 1)
        for seed in range(seeds)
    ]
    rows = tuple({"step": step, "loss": 1 / step} for step in (1, 2, 3))
    return [Training(one, rows) for one in read_experiment(write_experiment(folder, stages)).stages]


def test_runs_that_differ_in_their_seed_make_one_line(tmp_path: Path) -> None:
    runs = trainings(tmp_path, betas=3)
    labels = ("beta 0.10", "beta 0.20", "beta 0.30")
    assert {label: len(own) for label, own in lines_of(runs).items()} == dict.fromkeys(labels, 2)
    assert [panel.title for panel in training_panels(runs)] == ["loss, training data"]


def test_too_many_lines_are_not_drawn(tmp_path: Path) -> None:
    assert training_panels(trainings(tmp_path, betas=MOST_LINES))
    assert training_panels(trainings(tmp_path, betas=MOST_LINES + 1)) == []


def said(folder: Path, cells: dict[tuple[str, int | None, float], str]) -> str:
    write_grid(folder, cells)
    return " ".join(finding.text for finding in grid_findings(read_grid(folder))).replace("\u00a0", " ")


def test_a_grid_claims_only_what_its_intervals_show(tmp_path: Path) -> None:
    text = said(tmp_path / "a", {("dpo", None, 0.5): "wl" * 20, ("dpo", None, 1.0): "wwlwl" * 8})
    assert "No clear difference between dpo and chosen" in text
    assert "no win rate changes by more than separate intervals can show" in text
    text = said(tmp_path / "b", {("dpo", 10, 0.5): "l" * 40, ("dpo", 20, 0.5): "w" * 39 + "l"})
    assert "dpo is better than chosen at temperature 0.5, step 20" in text
    assert "it rises from 0 % at step 10 to 98 % at 20" in text


def null_grids(models: int, steps: int, *, grids: int = 500, prompts: int = 256) -> list[list[GridCell]]:
    """Grids of models that are as good as the opponent: every prompt of every cell is a coin."""
    rng, counts = np.random.default_rng(7), draw_resamples(prompts, 0)

    @cache
    def rate(wins: int) -> Estimate | None:
        return rate_estimate((np.arange(prompts) < wins).astype(float), counts)

    return [
        [
            GridCell(f"m{model}", step, 1.0, "gold", "base", wins, 0, prompts - wins, 0, rate(wins))
            for model in range(models)
            for step, wins in enumerate(rng.binomial(prompts, 0.5, size=steps).tolist())
        ]
        for _ in range(grids)
    ]


@pytest.mark.parametrize(("models", "steps"), [(1, 4), (1, 22), (22, 1), (11, 2)])
def test_where_nothing_differs_few_grids_claim_a_difference(models: int, steps: int) -> None:
    """However many cells the best is picked from, and however many lines the one that changes most: in at most 5 % of
    grids; the limits are those of chance around that, with the corrections left out it is 10 to 44 %.
    """
    grids = null_grids(models, steps)
    found = [" ".join(finding.text for finding in grid_findings(cells)) for cells in grids]
    alone = np.mean([any(cell.win_rate and cell.win_rate.low > 0.5 for cell in cells) for cells in grids])
    assert alone > 0.07, "each cell by itself claims more than that, or this test shows nothing"
    assert np.mean(["is better than" in text or "is worse than" in text for text in found]) <= 0.05
    assert np.mean([" rises " in text or " falls " in text for text in found]) <= 0.08


def test_a_grid_says_how_many_cells_an_interval_holds_for(tmp_path: Path) -> None:
    outcomes = "w" * 30 + "l" * 14  # by itself clear; not as the best of 12
    assert "dpo is better than chosen" in said(tmp_path / "one", {("dpo", None, 0.5): outcomes})
    text = said(tmp_path / "many", {("dpo", step, 0.5): outcomes for step in range(12)})
    assert "No clear difference between dpo and chosen" in text
    assert "which holds for all 12 cells together; 44 prompts)" in text


def test_a_grid_says_nothing_from_few_prompts_or_from_errors(tmp_path: Path) -> None:
    text = said(tmp_path / "a", {("dpo", None, 0.5): "w" * 5, ("dpo", None, 1.0): "l" * 5})
    assert text == "Nothing can be said about which model is better: only 5 prompts were judged by gpt-4o."
    assert "all 12 judgements failed" in said(tmp_path / "b", {("dpo", None, 0.5): "e" * 12})


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h")],
)
def test_time_is_told_in_the_units_that_matter(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
    assert duration(100_000) == "1 d 4 h"


# ---- size, and the page itself ----


def test_a_hundred_and_fifty_trainings_stay_small(tmp_path: Path) -> None:
    names = [f"{objective}-{beta}-{seed}" for objective in range(10) for beta in range(3) for seed in range(5)]
    stages = []
    for name in names:
        objective, beta, seed = name.split("-")
        variant = {"beta": float(beta), "seed": int(seed)}
        stages.append(stage(name, f"train objective{objective}", group=f"o{objective}", variant=variant))
        write_training(tmp_path / name)
    page = report_experiment(write_experiment(tmp_path, stages)).read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    assert all(f">{name}<" in page for name in names)
    assert '<details class="figures"><summary>train objective0: 15 runs' in page


def test_the_page_stands_in_a_browser_light_and_dark_wide_and_narrow(folder: Path, open_page: OpenPage) -> None:
    address = report_experiment(folder).as_uri()
    for width, scheme in ((1280, "light"), (390, "dark")):
        with open_page(viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            before = page.evaluate("getComputedStyle(document.body).backgroundColor")
            page.click("#theme")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
            assert asked == [address]


@pytest.mark.parametrize(
    ("assignments", "heading"),
    [
        ([], "Does it help?"),
        (["output_dir=runs/here"], "Does it help?"),
        (["train=mine.jsonl"], "trial"),
        (["model=./mine", "title=Mine"], "Does it help?"),  # the title on disk is the one that was given
    ],
)
def test_a_title_stands_only_over_what_it_was_written_for(tmp_path: Path, assignments: list[str], heading: str) -> None:
    write_experiment(tmp_path, [])
    write_json(tmp_path / "manifest.json", {"settings": {"experiment": "e.yaml", "assignments": assignments}})
    page = report_experiment(tmp_path).read_text(encoding="utf-8")
    assert f'<h1 id="question">{heading}</h1>' in page
