"""The one report of an experiment, from what its stages left on disk; no model is needed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preflab.core.config import differing
from preflab.core.durable import read_object
from preflab.core.records import DisagreementError, UserError
from preflab.core.terminal import status
from preflab.experiment.page import write_experiment
from preflab.experiment.plan import read_plan
from preflab.experiment.rows import HEAD as EXPERIMENT
from preflab.experiment.rows import read_experiment, read_results
from preflab.experiment.settings import ReportSettings
from preflab.studies import heads, study_in


def report_experiment(folder: Path) -> Path:
    """Write `report.html` into an experiment's folder, as far as its stages are done.

    Raises UserError where the folder holds no experiment. Raises DisagreementError, once the page is written, where a
    stage's stored figures do not follow from its own rows: that stage is left out of the page.
    """
    experiment = read_experiment(folder)
    with status("reading the stages"):
        results = read_results(experiment)
    path, manifest = folder / "report.html", _manifest(folder)
    with status("writing the report"):
        write_experiment(
            experiment, results, path, changed=_changed(folder), again=_command(manifest), manifest=manifest
        )
    if results.contradictions:
        raise DisagreementError("\n".join(results.contradictions), shown=f"written to {path}")
    return path


def _manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / "manifest.json"
    return read_object(path) if path.exists() else {}


def _command(manifest: Mapping[str, Any]) -> str:
    """The command that made the experiment, to be typed again; empty where nothing tells."""
    settings = manifest.get("settings") or {}
    words = [settings.get("experiment"), *(settings.get("assignments") or ())]
    return shlex.join(["preflab", "run", *map(str, words)]) if words[0] else ""


def _changed(folder: Path) -> dict[str, dict[str, Any]]:
    """By stage, the settings that differ from their defaults, from the experiment's file as it was run."""
    path = folder / "experiment.yaml"
    try:
        plan = read_plan(path, ()) if path.exists() else None
    except UserError:  # of another version, or edited: the page can do without
        plan = None
    stages = plan.stages if plan else ()
    return {stage.name: differing(stage.settings, but=(stage.kind.place,)) for stage in stages}


def build_report(settings: ReportSettings) -> object:
    """Read the rows of an experiment's folder, or of a study's, and write what follows from them.

    Raises UserError where the folder is neither.
    """
    if (settings.folder / EXPERIMENT).exists():
        return report_experiment(settings.folder)
    if study := study_in(settings.folder):
        return study.report_on(settings.folder)
    files = ", ".join([EXPERIMENT, *heads()])
    raise UserError(f"{settings.folder}: holds no study and no experiment (none of {files})")
