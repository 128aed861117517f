"""The rows of a comparison -> analysis, tables, figures and the report; no model is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from preflab.core.results import Result, frame
from preflab.core.terminal import status
from preflab.page.style import compose
from preflab.page.winrates import flat
from preflab.stats.results import Analysis
from preflab.stats.wording import TONE_MARKS, meanings
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.contest_figures import overview_panels
from preflab.studies.compare.figures import draw_figures
from preflab.studies.compare.page import write_report
from preflab.studies.compare.rows import read_study
from preflab.studies.compare.tables import contest_row, write_tables

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class ReportResult(Result):
    """Where the report lies, and the figures in it."""

    report: Path
    analysis: Analysis

    def to_pandas(self) -> pd.DataFrame:
        """Win rates, a row for each model against the baseline before each judge or scorer, as in `winrates.csv`."""
        return frame(flat([contest_row(contest) for contest in self.analysis.contests]))

    def figure(self) -> Figure | None:
        """Win rates and mean scores, as in `model_comparison.png`; None where nobody judged or scored."""
        panels = overview_panels(read_study(self.report.parent), self.analysis)
        return compose(panels) if panels else None

    def __str__(self) -> str:
        lines = [f"{TONE_MARKS.get(finding.tone, ' ')} {finding.text}" for finding in self.analysis.findings]
        lines += meanings(contest.definition for contest in self.analysis.contests)
        return "\n".join([*lines, f"tables and figures: {self.report.parent / 'analysis'}", f"report: {self.report}"])


OF_ONE = (
    *("dpo_score_comparison-*.png", "response_length_analysis-*.png", "training_curves-*.png"),
    *("delta_hist-*.png", "score_hist-*.png"),
)
"""Figures that bear the name of a model or a judge."""


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
