"""`report.html`: a study and its figures as one file.

The first screen, the tables and the figures are static HTML. The cases follow at the end of the page, compressed; the
case browser (data.js, diff.js, browser.js, controls.js) reads them once the page stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preflab.core.durable import read_object
from preflab.core.rundir import write_text
from preflab.page.layout import lay_out
from preflab.stats.definitions import STD, TIES_HALF
from preflab.stats.results import Analysis
from preflab.stats.study import Study
from preflab.studies.compare.cases import pack_cases
from preflab.studies.compare.figures import ReportFigure, report_figures
from preflab.studies.compare.sections import making, sections

SCRIPTS = ("data.js", "diff.js", "browser.js", "controls.js")


def write_report(study: Study, analysis: Analysis, path: Path) -> None:
    """Write the report of a study as one HTML file.

    A `manifest.json` in the study's folder, where there is one, tells how it was made (`rundir.write_manifest`).
    """
    manifest_path = study.folder / "manifest.json"
    manifest = read_object(manifest_path) if manifest_path.exists() else {}
    write_text(path, render(study, analysis, report_figures(study, analysis), manifest))


def render(study: Study, analysis: Analysis, figures: Sequence[ReportFigure], manifest: Mapping[str, Any]) -> str:
    """The page, from records alone; `figures` as `report_figures` gives them."""
    return lay_out(
        "page.html.j2",
        SCRIPTS,
        study=study,
        findings=analysis.findings,
        sections=sections(study, analysis, figures),
        making=making(study, manifest),
        definitions=list(dict.fromkeys(contest.definition for contest in analysis.contests)) or [TIES_HALF],
        std=STD,
        overview=[panel for figure in figures if figure.section == "answer" for panel in figure.panels],
        cases=pack_cases(study),
        subsets=sorted({case.subset for case in study.cases if case.subset is not None}),
    )
