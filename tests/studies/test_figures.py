"""Figures show the numbers of the rows and of the analysis, and each study gets those that apply to it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_studies import judged
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from tiny_studies import CHAT, MODELS, REWARD, tiny_study

from preflab.page import marks, style
from preflab.page.style import GREY, INK, Panel, compose, looks, panels_as_svg, shown
from preflab.stats.results import Analysis, Estimate
from preflab.stats.study import Study
from preflab.studies.compare import figures
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.contest_figures import (
    MOST_SUBSETS,
    agreement_panels,
    diversity_panels,
    flip_panels,
    overview_panels,
    subset_panels,
)
from preflab.studies.compare.depth_figures import depth_panels
from preflab.studies.compare.figures import draw_figures
from preflab.studies.compare.length_figures import length_panels, lengths
from preflab.studies.compare.score_figures import score_panels
from preflab.studies.grid.figures import draw_grid, winrate_vs_step, winrate_vs_temperature
from preflab.studies.grid.rows import GridCell


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return tiny_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def analysis(study: Study) -> Analysis:
    return analyse(study)


def drawn(panels: Sequence[Panel]) -> dict[str, Axes]:
    return axes_of(compose(panels))


def axes_of(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}


def counts(axis: Axes) -> list[np.ndarray]:
    return [patch.get_data().values for patch in axis.patches if isinstance(patch, StepPatch)]


def vertical_lines(axis: Axes) -> list[float]:
    """Where `axvline` drew over the whole height."""
    return [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [0, 1]]


def intervals(axis: Axes) -> list[tuple[float, float]]:
    """(low, high) of every horizontal interval, from top to bottom."""
    lines = [line for line in axis.collections if isinstance(line, LineCollection)]
    return [(float(line.get_segments()[0][0][0]), float(line.get_segments()[0][1][0])) for line in lines]


# ---- what is drawn -------------------------------------------------------------------------------------------------


def test_the_four_pictures_of_scores(study: Study, analysis: Analysis) -> None:
    axes = drawn(score_panels(study, analysis, "dpo", "gold"))
    scatter, differences, cumulated, boxes = axes.values()
    ours = np.array([case.answers["dpo"].scores["gold"] for case in study.cases])
    theirs = np.array([case.answers["base"].scores["gold"] for case in study.cases])

    (points,) = (found for found in scatter.collections if isinstance(found, PathCollection))
    assert np.asarray(points.get_offsets()).tolist() == np.column_stack([theirs, ours]).tolist()
    diagonal = scatter.lines[0]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert scatter.get_xlim() == scatter.get_ylim()

    assert counts(differences)[0].sum() == len(study.cases)
    assert vertical_lines(differences) == [0, pytest.approx((ours - theirs).mean())]

    steps = {str(line.get_label()): line for line in cumulated.lines}
    assert set(steps) == {"base", "dpo"}
    assert sorted(set(steps["dpo"].get_xdata()[1:])) == sorted(set(ours))
    assert steps["dpo"].get_ydata()[-1] == 1

    assert [text.get_text() for text in boxes.get_xticklabels()] == ["base", "dpo"]
    means = [line.get_ydata()[0] for line in boxes.lines if line.get_marker() == "D"]
    assert means == [pytest.approx(theirs.mean()), pytest.approx(ours.mean())]


def test_the_mean_difference_of_length_is_that_of_the_table_where_prompts_have_samples(study: Study) -> None:
    first, *others = study.cases
    more = tuple(replace(first, sample=sample) for sample in range(1, 9))
    several = replace(study, cases=(first, *more, *others))
    analysis = analyse(several)
    differences = drawn(length_panels(several, analysis, "dpo"))["Difference of length"]
    words = {figures.name: figures.words.value for figures in analysis.models}
    assert vertical_lines(differences) == [0, pytest.approx(words["dpo"] - words["base"])]
    over_cases = (lengths(several, "dpo") - lengths(several, "base")).mean()
    assert words["dpo"] - words["base"] != pytest.approx(over_cases)


def test_ties_stand_on_the_zero_line() -> None:
    for differences in ([-2.0, 0.0, 0.0, 5.0], [0.0, 0.0], [3.0], [-1e-3, 400.0]):
        edges = marks.edges_around_zero(np.array(differences))
        found, _ = np.histogram(differences, edges)
        assert found.sum() == len(differences)
        width = edges[1] - edges[0]
        assert np.isclose(np.abs(edges / width % 1), 0.5).all(), "zero is in the middle of a bin"


@pytest.mark.parametrize("scores", [[1.0], [1.0, 1.0 + 2e-16], [0.0, 0.0], [-5.0, 1e9]])
def test_every_score_is_in_a_bin(scores: list[float]) -> None:
    edges = marks.bin_edges(scores)
    assert np.diff(edges).min() > 0
    assert np.histogram(scores, edges)[0].sum() == len(scores)


def test_a_case_without_a_score_is_left_out_of_both_sides(study: Study, analysis: Analysis) -> None:
    first = study.cases[0]
    bare = replace(first.answers["dpo"], scores={})
    holed = replace(study, cases=(replace(first, answers={**first.answers, "dpo": bare}), *study.cases[1:]))
    (points,) = drawn(score_panels(holed, analysis, "dpo", "gold"))["Each case by gold"].collections
    assert len(np.asarray(points.get_offsets())) == len(study.cases) - 1
    assert score_panels(study, analysis, "dpo", "nobody") == []


def test_the_overview_shows_the_intervals_of_the_analysis(study: Study, analysis: Analysis) -> None:
    axes = drawn(overview_panels(study, analysis))
    assert list(axes) == [
        *(f"Wins against base, {judge} judging" for judge in ("gold", "reward", "gpt-4o")),
        *("Mean score by reward", "Mean score by gold"),
    ]
    for judge in ("gold", "reward", "gpt-4o"):
        axis = axes[f"Wins against base, {judge} judging"]
        rates = [
            rate
            for contest in analysis.contests
            if contest.judge == judge and contest.opponent == "base"
            for rate in (contest.win_rate, None if contest.length_controlled_note else contest.length_controlled)
            if rate
        ]
        assert intervals(axis) == [(rate.low, rate.high) for rate in rates]
        assert vertical_lines(axis) == [0.5]
        assert axis.get_xlim() == (0, 1)
        values = [text.get_text() for text in axis.texts]
        assert values == [f"{100 * rate.value:.1f}\u00a0%" for rate in rates]
        assert [label.get_text() for label in axis.get_yticklabels()] == ["sft", "dpo"]
    means = [figures.scores["gold"].mean for figures in analysis.models]
    assert intervals(axes["Mean score by gold"]) == [(mean.low, mean.high) for mean in means]


def test_lengths_their_difference_and_what_they_have_to_do_with_wins(study: Study, analysis: Analysis) -> None:
    means, differences, against_score, wins = drawn(length_panels(study, analysis, "dpo")).values()
    assert intervals(means) == [(figures.words.low, figures.words.high) for figures in analysis.models]

    difference = lengths(study, "dpo") - lengths(study, "base")
    assert counts(differences)[0].sum() == len(study.cases)
    assert vertical_lines(differences) == [0, pytest.approx(difference.mean())]

    legend = against_score.get_legend()
    assert legend is not None
    by_name = {figures.name: figures.scores["reward"].length_pearson for figures in analysis.models}
    expected = [f"{name}, r = {by_name[name]:.2f}".replace("-", "−") for name in ("base", "dpo")]
    assert [text.get_text() for text in legend.get_texts()] == expected

    contest = analysis.contest("gold", "dpo", "base")
    assert contest is not None
    rates = list(contest.by_length.values())
    assert [line.get_ydata()[0] for line in wins.lines if line.get_marker() == "o"] == [rate.value for rate in rates]
    segments = [line.get_segments()[0] for line in wins.collections if isinstance(line, LineCollection)]
    assert [(low[1], high[1]) for low, high in segments] == [(rate.low, rate.high) for rate in rates]


def test_depth_sets_generated_text_beside_preference_data(study: Study, analysis: Analysis) -> None:
    (panel,) = depth_panels(study, analysis)
    (axis,) = drawn([panel]).values()
    assert [heights.sum() for heights in counts(axis)] == [pytest.approx(1)] * (1 + len(MODELS))
    (depth,) = analysis.depth
    assert vertical_lines(axis) == [depth.low, depth.high]


def test_agreement_is_written_into_its_cells(analysis: Analysis) -> None:
    (axis,) = drawn(agreement_panels(analysis)).values()
    assert len(axis.texts) == 2 * len(analysis.agreements) == 6
    names = [label.get_text() for label in axis.get_yticklabels()]
    for pair in analysis.agreements:
        places = {
            (names.index(pair.first), names.index(pair.second)),
            (names.index(pair.second), names.index(pair.first)),
        }
        inside = {text.get_text() for text in axis.texts if text.get_position() in places}
        assert pair.accuracy
        assert pair.kappa
        assert inside == {f"{100 * pair.accuracy.value:.0f}\u00a0%\nκ = {pair.kappa.value:.2f}"}


def test_flips_only_where_both_orders_were_judged(study: Study, analysis: Analysis) -> None:
    (axis,) = drawn(flip_panels(study, analysis)).values()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["gpt-4o"]
    alone = judged("wwl")
    assert flip_panels(alone, analyse(alone)) == []


def test_subsets_show_their_rates_and_of_very_many_the_largest(study: Study, analysis: Analysis) -> None:
    axis = drawn(subset_panels(study, analysis))["Win rate by subset, gpt-4o"]
    subsets = [c.subsets for c in analysis.contests if c.judge == "gpt-4o" and c.opponent == "base"]
    expected = {(rate.low, rate.high) for found in subsets for rate in found.values()}
    assert set(intervals(axis)) == expected
    rate = Estimate(0.5, 0.4, 0.6, 3)
    many = {f"s{n}": replace(rate, n=n) for n in range(1, 31)}
    crowded = replace(analysis, contests=tuple(replace(c, subsets=many) for c in analysis.contests))
    title, axis = next(iter(drawn(subset_panels(study, crowded)).items()))
    assert title == f"Win rate by subset, gold (the {MOST_SUBSETS} largest of 30)"
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [f"s{n} ({n})" for n in range(30, 30 - MOST_SUBSETS, -1)]


@pytest.mark.slow
def test_signs_of_trouble_have_the_names_that_a_reader_knows(study: Study, analysis: Analysis) -> None:
    varied, signs = drawn(diversity_panels(study, analysis)).values()
    named = [label.get_text() for label in varied.get_yticklabels()]
    assert named == ["distinct-1", "distinct-2", "distinct-3", "repeated 4-grams"]
    assert "hit the token cap" in [label.get_text() for label in signs.get_yticklabels()]
    caps = [figures.shares["hit_cap"] for figures in analysis.models]
    assert set(intervals(signs)) >= {(share.low, share.high) for share in caps}
    unknown = replace(
        analysis,
        models=tuple(replace(f, shares={k: v for k, v in f.shares.items() if k != "hit_cap"}) for f in analysis.models),
    )
    signs = drawn(diversity_panels(study, unknown))["Signs of trouble"]
    assert "hit the token cap" not in [label.get_text() for label in signs.get_yticklabels()]


# ---- grids ---------------------------------------------------------------------------------------------------------


def cell(model: str, step: int | None, temperature: float, value: float | None, judge: str = "gold") -> GridCell:
    rate = None if value is None else Estimate(value, value - 0.1, value + 0.05, 20)
    return GridCell(model, step, temperature, judge, "chosen", 10, 1, 9, 0, rate)


GRID = (
    *(cell("sft", None, temperature, 0.6 - temperature / 10) for temperature in (1.0, 0.25, 0.5)),
    *(cell("dpo", step, temperature, 0.5 + step / 1000) for step in (200, 100) for temperature in (0.7, 1.0)),
    cell("broken", None, 0.5, None),
)


def test_error_bands_end_at_the_intervals() -> None:
    figure = winrate_vs_temperature(GRID)
    assert figure is not None
    (axis,) = figure.axes
    lines = {
        str(line.get_label()): line for line in axis.lines if len(line.get_xdata()) > 1 and line.get_marker() != "None"
    }
    assert set(lines) == {"sft", "dpo · step 200", "dpo · step 100"}
    assert list(lines["sft"].get_xdata()) == [0.25, 0.5, 1.0]
    band = axis.collections[0].get_paths()[0].vertices
    assert {round(y, 6) for x, y in band if x == 0.25} == {round(0.575 - 0.1, 6), round(0.575 + 0.05, 6)}
    assert sorted(text.get_text() for text in axis.texts) == ["dpo · step 100", "dpo · step 200", "sft"]


def test_win_rate_against_step_has_a_line_for_each_temperature() -> None:
    figure = winrate_vs_step(GRID)
    assert figure is not None
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["T = 0.7", "T = 1"]
    assert list(axis.lines[0].get_xdata()) == [100, 200]


def test_a_grid_without_steps_has_no_figure_of_steps(tmp_path: Path) -> None:
    stale = tmp_path / "winrate_vs_step.png"
    stale.write_text("of an earlier grid")
    draw_grid([cell("sft", None, 0.25, 0.5), cell("sft", None, 1.0, 0.5)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["winrate_vs_temperature.png"]
    draw_grid([cell("sft", None, 0.25, 0.5)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_at_the_ends_of_lines_keep_apart() -> None:
    figure = winrate_vs_temperature([cell(name, None, t, 0.5) for name in "abc" for t in (0.1, 0.2)])
    assert figure is not None
    (axis,) = figure.axes
    heights = sorted(text.xyann[1] for text in axis.texts)
    low, high = axis.get_ylim()
    assert min(np.diff(heights)) > 0.05 * (high - low)


# ---- files ---------------------------------------------------------------------------------------------------------


def names_of(study: Study, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    with monkeypatch.context() as patch:
        saved: set[str] = set()
        patch.setattr(style, "save_png", lambda _, path: saved.add(path.name))
        draw_figures(study, analyse(study), Path("nowhere"))
    return saved


def test_the_files_that_a_study_gets(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"model_comparison.png", "dpo_score_comparison.png", "response_length_analysis.png", "diversity.png"}
    judged_twice = {"judge_agreement.png", "flip_rates.png", "winrate_by_subset.png", "reward_model_depth.png"}
    others = {f"dpo_score_comparison-{who}.png" for who in ("sft-reward", "dpo-gold", "sft-gold")}
    curves = {f"training_curves-{model}.png" for model in MODELS}
    pairs = {"delta_hist.png", "score_hist.png"}
    assert names_of(study, monkeypatch) == {
        *(common | judged_twice | others | curves | pairs),
        "response_length_analysis-sft.png",
    }
    small = tiny_study(tmp_path, models=("base", "dpo"), judges=(CHAT,), training=False)
    assert names_of(small, monkeypatch) == {
        *(common - {"dpo_score_comparison.png"}),
        *("flip_rates.png", "winrate_by_subset.png"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [1, 2])
def test_tiny_and_odd_studies_can_be_drawn(prompts: int, tmp_path: Path) -> None:
    models = ("base", "a-very-long-name/of_a-model-7b-instruct-v0.3", "$x$", "_hidden", "κ<&>")
    odd = tiny_study(tmp_path, models=models, judges=(REWARD, CHAT), prompts=prompts, training=False)
    flat = {name: replace(answer, scores={"reward": 1.0}) for name, answer in odd.cases[0].answers.items()}
    odd = replace(odd, cases=tuple(replace(case, answers=flat) for case in odd.cases))
    found = analyse(odd)
    panels = [
        *overview_panels(odd, found),
        *length_panels(odd, found, "$x$"),
        *score_panels(odd, found, "κ<&>", "reward"),
    ]
    svg = "".join(panels_as_svg(panels, "odd"))
    for name in ("a-very-lon…truct-v0.3", "$x$", "_hidden", "κ&lt;&amp;&gt;"):
        assert name in svg
    ET.fromstring(f"<page>{svg}</page>")


def test_a_png_is_written_whole(study: Study, analysis: Analysis, tmp_path: Path) -> None:
    style.save_or_remove(figures._composed(overview_panels(study, analysis)), tmp_path / "deep" / "a.png")
    assert (tmp_path / "deep" / "a.png").read_bytes().endswith(b"IEND\xaeB`\x82")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


@pytest.mark.slow
def test_a_scatter_of_very_many_points_stays_small(tmp_path: Path) -> None:
    large = tiny_study(tmp_path, models=("base", "dpo"), judges=(REWARD,), prompts=2000, training=False)
    panels = [*score_panels(large, analyse(large), "dpo", "reward"), *length_panels(large, analyse(large), "dpo")]
    svg = "".join(panels_as_svg(panels, "large"))
    assert svg.count("<image") >= 2
    assert len(svg) < 300_000


def test_each_model_is_told_apart_without_colour() -> None:
    names = ["base", *(f"m{n}" for n in range(9))]
    found = looks(names)
    assert found["base"].color == GREY
    assert len({(look.marker, str(look.line)) for look in found.values()}) == len(names)
    assert len({look.color for look in list(found.values())[:7]}) == 7
    assert INK not in {look.color for look in found.values()}


def test_labels_are_short_and_harmless() -> None:
    assert shown("a" * 30) == f"{'a' * 10}…{'a' * 10}"
    assert shown("two\nlines\x1b[2J") == r"two lines\x1b[2J"
    assert shown("_name") == " _name"
