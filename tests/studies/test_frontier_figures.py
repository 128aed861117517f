"""Figures of a frontier show what its rows say."""

from __future__ import annotations

from pathlib import Path

import hand_frontiers
import numpy as np
import pytest
from matplotlib import image
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from preflab.page.style import Panel, compose
from preflab.studies.frontier.figures import draw_frontier, frontier_panels, gain_panels

POINTS = {
    "dpo": {1.0: (0.5, 1.4, 0.3), 0.1: (5.0, 0.9, 0.7)},
    "ipo": {1.0: (0.7, 1.3, 0.2), 0.1: (9.0, 1.0, 0.5)},
}


def lines(panel: Panel) -> dict[str, tuple[list[float], list[float]]]:
    """Label -> x and y of each line of a panel."""
    axis = Figure().subplots()
    panel.draw(axis)
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in axis.get_lines()
    }


def test_each_objective_has_a_picture_with_its_points_and_the_yardsticks() -> None:
    panels = frontier_panels(hand_frontiers.frontier(POINTS))
    assert [panel.title for panel in panels] == ["dpo", "ipo"]
    drawn = lines(panels[1])
    kl, gold = drawn["the objective, mean over seeds"]
    assert kl == pytest.approx([0.7, 9.0])
    assert gold == pytest.approx([1.3, 1.0])
    assert drawn["dpo"][1] == pytest.approx([1.4, 0.9])
    assert drawn["best-of-n, at the bound of its KL"][1] == pytest.approx(
        [1.2, 1.4]
    )  # the reference itself has no place on a log axis
    assert drawn["the reference"][1] == pytest.approx([1.0, 1.0])
    assert "dpo" not in lines(panels[0]), "nobody stands beside himself"


def test_the_band_goes_from_the_lowest_seed_to_the_highest() -> None:
    axis = Figure().subplots()
    frontier_panels(hand_frontiers.frontier(POINTS, between_seeds=0.3))[0].draw(axis)
    (band,) = (artist for artist in axis.collections if isinstance(artist, PolyCollection))
    heights = {round(float(y), 6) for y in band.get_paths()[0].vertices[:, 1]}
    assert heights == {1.1, 1.7, 0.6, 1.2}


def test_gains_are_over_the_reference_in_its_spread() -> None:
    drawn = lines(gain_panels(hand_frontiers.frontier(POINTS))[1])
    assert drawn["gold reward"][1] == pytest.approx([0.4, -0.1])
    assert drawn["reward model's score"][1] == pytest.approx([0.3, 0.7])


@pytest.mark.slow
def test_pictures_are_written_and_those_that_do_not_apply_removed(tmp_path: Path) -> None:
    frontier = hand_frontiers.frontier(POINTS)
    draw_frontier(frontier, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"frontier.png", "overoptimisation.png"}
    assert image.imread(tmp_path / "frontier.png").std() > 0.01
    draw_frontier(hand_frontiers.without_gold(frontier), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"overoptimisation.png"}


def test_without_gold_the_proxy_is_drawn_alone() -> None:
    panels = gain_panels(hand_frontiers.without_gold(hand_frontiers.frontier(POINTS)))
    assert set(lines(panels[0])) == {"the reference", "reward model's score"}


def test_panels_stand_alone_in_a_report_too() -> None:
    frontier = hand_frontiers.frontier(POINTS)
    for panel in (*frontier_panels(frontier), *gain_panels(frontier)):
        (axis,) = compose([panel]).axes
        assert axis.get_xlabel() == "KL from the reference in nats"
