"""Comparisons on an experiment's page: one, or all that a sweep made of it, against their baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from preflab.page.cells import Cell, Table, estimate
from preflab.page.sections import Figure, Section, anchor, leading, with_name
from preflab.page.style import panels_as_svg
from preflab.stats.definitions import win_rate_head
from preflab.stats.results import Analysis, Contest, Finding
from preflab.stats.study import Study
from preflab.stats.wording import capital, exact_percent, p_value
from preflab.studies.base import OnPage, Part
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.contest_figures import against_baseline, overview_panels
from preflab.studies.compare.rows import read_study

LEADING = 4  # findings of a comparison; the others stand in its own report
LEADING_PANELS = 2  # of a comparison: win rates by the judges with the first word
MOST_DRAWN = 6  # comparisons of one sweep that are drawn, or that get words
MOST_ROWS = 16  # of a table that is not folded


def _read(folder: Path) -> tuple[Study, Analysis]:
    study = read_study(folder)
    return study, analyse(study)


def _findings(found: tuple[Study, Analysis]) -> Sequence[Finding]:
    return found[1].findings


def _sections(parts: Sequence[Part]) -> Iterator[Section]:
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.group, []).append(part)
    for group, own in groups.items():
        yield _section(group, own)


def _section(group: str, parts: Sequence[Part]) -> Section:
    alone = len(parts) == 1
    findings: list[Finding] = []
    figures: list[Figure] = []
    for part in parts[:MOST_DRAWN]:
        study, analysis = part.found
        first = [with_name(part.name, found) for found in leading(analysis.findings, 1)]
        findings += analysis.findings[:LEADING] if alone else first
        panels = overview_panels(study, analysis)[: min(len(against_baseline(study, analysis)), LEADING_PANELS)]
        if panels:
            drawn = panels_as_svg(panels, anchor("figure", part.name))
            figures.append(Figure("" if alone else part.name, drawn, unfolded=not figures))
    rows = [
        (Cell(part.name, part.swept, part.report), *_cells(contest))
        for part in parts
        for contest in part.found[1].contests
        if contest.opponent == part.found[0].baseline
    ]
    told = [contest.definition for part in parts for contest in part.found[1].contests]
    head = ("Report", "Model", "Judge", capital(win_rate_head(told)), "Sign test, p", "Win rate at equal lengths")
    note = "The first column leads to the comparison’s own report, with every case."
    table = Table("Against the baseline", head, tuple(rows), note, folded=len(rows) > MOST_ROWS)
    return Section(
        anchor("comparison", group),
        f"Comparison: {group}",
        (table,),
        figures=tuple(figures),
        findings=tuple(findings),
    )


def _cells(contest: Contest) -> tuple[Cell, ...]:
    return (
        Cell(contest.model, f"against {contest.opponent}"),
        Cell(contest.judge),
        estimate(contest.win_rate, exact_percent, with_n=True),
        Cell(p_value(contest.p_value)),
        estimate(contest.length_controlled, exact_percent),
    )


ON_PAGE = OnPage(_read, _findings, _sections)
