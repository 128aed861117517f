"""The rows of a comparison or a grid -> analysis, tables, figures and the report; no model is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from preflab.studies.compare.analyse import analyse
from preflab.stats.definitions import SHORT
from preflab.experiment.rows import HEAD as EXPERIMENT
from preflab.studies.frontier.rows import HEAD as FRONTIER
from preflab.studies.frontier.rows import Frontier, read_frontier
from preflab.studies.frontier.findings import reading
from preflab.studies.grid.rows import read_grid
from preflab.studies.grid.findings import grid_findings
from preflab.stats.results import Analysis, Finding, GridCell
from preflab.studies.rows import read_study
from preflab.stats.wording import interval, percent
from preflab.studies.frontier.figures import draw_frontier
from preflab.studies.compare.figures import draw_figures, draw_grid
from preflab.experiment.report import report_experiment
from preflab.studies.settings import ReportSettings
from preflab.studies.compare.page import write_report
from preflab.studies.frontier.tables import write_frontier_tables
from preflab.studies.compare.tables import write_tables
from preflab.page.winrates import grid_row, write_winrates
from preflab.core.terminal import status


@dataclass(frozen=True)
class ReportResult:
    """Where the report lies, and the figures in it."""

    report: Path
    analysis: Analysis

    def __str__(self) -> str:
        lines = [f"{_MARKS.get(finding.tone, ' ')} {finding.text}" for finding in self.analysis.findings]
        lines += _meanings(contest.definition for contest in self.analysis.contests)
        return "\n".join([*lines, f"tables and figures: {self.report.parent / 'analysis'}", f"report: {self.report}"])


@dataclass(frozen=True)
class GridResult:
    """What a grid found, as `analysis/winrates.*` has it."""

    output_dir: Path
    cells: tuple[GridCell, ...]

    def __str__(self) -> str:
        lines = [
            f"{cell.model} {'' if cell.step is None else f'step {cell.step} '}T={cell.temperature:g}: "
            + (
                f"{percent(cell.win_rate.value)} against {cell.opponent} ({interval(cell.win_rate)}, "
                f"{cell.win_rate.n} prompts), says {cell.judge}"
                if cell.win_rate
                else f"nothing judged, {cell.errors} errors"
            )
            for cell in self.cells
        ]
        said = [f"{_MARKS.get(found.tone, ' ')} {found.text}" for found in grid_findings(self.cells)]
        lines += _meanings(cell.definition for cell in self.cells)
        return "\n".join([*said, *lines, f"tables and figures: {self.output_dir / 'analysis'}"])


@dataclass(frozen=True)
class FrontierResult:
    """What a frontier found, and its reading."""

    output_dir: Path
    frontier: Frontier
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        lines = [f"{_MARKS.get(finding.tone, ' ')} {finding.text}" for finding in self.findings]
        return "\n".join([*lines, f"tables and figures: {self.output_dir / 'analysis'}"])


def _meanings(definitions: Iterable[str]) -> list[str]:
    """Which win rate it is, or which ones they are."""
    found = dict.fromkeys(definitions)
    return [f"win rate{f' ({SHORT[each]})' if len(found) > 1 else ''}: {each}" for each in found]


OF_ONE = (
    *("dpo_score_comparison-*.png", "response_length_analysis-*.png", "training_curves-*.png"),
    *("delta_hist-*.png", "score_hist-*.png"),
)
"""Figures that bear the name of a model or a judge."""

_MARKS = {"good": "+", "bad": "-", "warning": "!"}


def build_report(settings: ReportSettings) -> ReportResult | GridResult | FrontierResult | Path:
    """Read the rows of a comparison's folder, or of a grid's, a frontier's or an experiment's, and write what follows
    from them.
    """
    if (settings.folder / EXPERIMENT).exists():
        return report_experiment(settings.folder)
    if (settings.folder / FRONTIER).exists():
        return report_frontier(settings.folder)
    is_grid = (settings.folder / "grid.json").exists()
    return report_grid(settings.folder) if is_grid else report_study(settings.folder)


def report_study(folder: Path) -> ReportResult:
    """Tables, figures and `report.html` of a comparison from its rows alone."""
    study = read_study(folder)
    with status("analysing"):
        analysis = analyse(study)
    for pattern in OF_ONE:  # what was drawn of models or judges that have left the study does not stay behind
        for path in (folder / "analysis").glob(pattern):
            path.unlink()
    with status("writing tables and figures"):
        write_tables(study, analysis, folder / "analysis")
        draw_figures(study, analysis, folder / "analysis")
    with status("writing the report"):
        write_report(study, analysis, folder / "report.html")
    return ReportResult(folder / "report.html", analysis)


def report_grid(folder: Path) -> GridResult:
    """Tables and figures of a grid from its rows alone."""
    cells = read_grid(folder)
    if cells:
        write_winrates([grid_row(cell) for cell in cells], folder / "analysis")
        draw_grid(cells, folder / "analysis")
    return GridResult(folder, cells)


def report_frontier(folder: Path) -> FrontierResult:
    """Tables, figures and reading of a frontier from its rows alone."""
    frontier = read_frontier(folder)
    write_frontier_tables(frontier, folder / "analysis")
    with status("drawing figures"):
        draw_frontier(frontier, folder / "analysis")
    return FrontierResult(folder, frontier, reading(frontier))
