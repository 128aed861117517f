"""An experiment's `report.html`: what its stages found, how the trainings went, and the plan, as one file.

It holds no cases; these stand in the reports of the comparisons, to which it links.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preflab.core.rundir import write_text
from preflab.experiment.plan_section import plan_section
from preflab.experiment.rows import Experiment, Results
from preflab.experiment.sections import first_findings, sections
from preflab.page.layout import lay_out
from preflab.stats.wording import duration, heading


def write_experiment(
    experiment: Experiment,
    results: Results,
    path: Path,
    *,
    changed: Mapping[str, Mapping[str, Any]],
    again: str,
    manifest: Mapping[str, Any],
) -> None:
    """Write the report of an experiment as one HTML file; the last three as `plan_section` takes them."""
    plan = plan_section(experiment, changed, again, manifest)
    page = lay_out(
        "experiment.html.j2",
        (),
        heading=_heading(experiment, manifest),
        summary=_summary(experiment),
        findings=first_findings(experiment, results),
        sections=(*sections(experiment, results), plan),
    )
    write_text(path, page)


def _heading(experiment: Experiment, manifest: Mapping[str, Any]) -> str:
    assignments = [str(each) for each in (manifest.get("settings") or {}).get("assignments") or ()]
    return heading(experiment.title, experiment.name, assignments)


def _summary(experiment: Experiment) -> str:
    """ "12 stages, 11 of them finished · 3 min 20 s"."""
    count, finished = len(experiment.stages), sum(stage.is_finished for stage in experiment.stages)
    stages = "1 stage" if count == 1 else f"{count} stages"
    parts = [stages if finished == count else f"{stages}, {finished} of them finished"]
    if seconds := sum(stage.seconds or 0 for stage in experiment.stages):
        parts.append(duration(seconds))
    return " · ".join([experiment.name, *parts])
