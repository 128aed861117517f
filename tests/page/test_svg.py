"""Figures as SVG fit a page: its colours in light and in dark, its font, and no names that clash."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from tiny_studies import CHAT, REWARD, tiny_study

from preflab.page.style import VARIABLES, Panel, as_svg, compose
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.figures import ReportFigure, report_figures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportFigure, ...]:
    study = tiny_study(tmp_path_factory.mktemp("svg"), models=("base", "dpo"), judges=(REWARD, CHAT))
    return report_figures(study, analyse(study))


def test_each_figure_has_its_place_in_the_report(figures: tuple[ReportFigure, ...]) -> None:
    assert [(figure.section, figure.label, len(figure.panels)) for figure in figures] == [
        *[("answer", "", 2), ("scores", "", 1), ("scores", "dpo, reward", 4), ("lengths", "dpo", 4)],
        *[("judges", "", 1)] * 3,  # agreement, flips, depth
        *[("diversity", "", 2), ("subsets", "", 2)],
        *[("training", "base", 2), ("training", "dpo", 2)],
    ]


def test_svg_is_drawn_in_the_pages_own_colours_and_font(figures: tuple[ReportFigure, ...]) -> None:
    every = "\n".join(panel for figure in figures for panel in figure.panels)
    ET.fromstring(f"<page>{every}</page>")
    assert {f"var({name})" for name in ("--ink", "--muted", "--grid", "--paper")} <= set(
        re.findall(r"var\([^)]*\)", every)
    )
    for fixed in (*VARIABLES, "#000000", "#ffffff", "black", "white", "DejaVu", "<style", "<metadata", "<!DOCTYPE"):
        assert fixed not in every
    texts = re.findall(r'<text [^>]*style="([^"]*)"', every)
    assert texts
    assert all("font-family: inherit" in style and "fill: var(" in style for style in texts), "else it is black"


def test_svgs_of_one_page_do_not_mix(figures: tuple[ReportFigure, ...]) -> None:
    every = "\n".join(panel for figure in figures for panel in figure.panels)
    ids = re.findall(r'\bid="([^"]+)"', every)
    assert len(ids) == len(set(ids)) > 20
    assert all(name.startswith("figure-") for name in ids)
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', every)
    assert {name for pair in used for name in pair if name} <= set(ids)


def test_svg_says_what_it_shows_and_is_the_same_every_time() -> None:
    panel = Panel('a < b & "c"', lambda axis: axis.plot([0, 1], [0, 1]))
    first, second = (as_svg(compose([panel]), title=panel.title, id="one") for _ in range(2))
    assert first == second
    assert "var(--paper)" not in first, "the page shows through"
    root = ET.fromstring(first)
    assert root.get("role") == "img"
    assert (root.get("width"), root.get("height")) == ("100%", None)
    assert root.get("viewBox")
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == panel.title
    assert root.get("aria-labelledby") == title.get("id") == "one-title"
