"""Studies, each a folder here and a line in this table: what it takes and does, and the file that its folders have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from preflab.core.config import Settings, resolved
from preflab.core.plugins import load, names_file, names_plugin
from preflab.core.records import UserError
from preflab.core.rundir import read_json, write_manifest
from preflab.studies.base import Study

STUDIES: Mapping[str, Study] = {
    "compare": Study(
        settings="preflab.studies.compare.settings:CompareSettings",
        run="preflab.studies.compare.command:compare_models",
        help="Compare models, or files of responses: generate, score, judge, analyse, report.",
        head="study.json",
        extends=frozenset({"models", "reward_model", "judge", "title"}),
        report="preflab.studies.compare.report:report_study",
        on_page="preflab.studies.compare.on_page:ON_PAGE",
    ),
    "grid": Study(
        settings="preflab.studies.grid.settings:GridSettings",
        run="preflab.studies.grid.command:run_grid",
        help="Judge models, or training checkpoints, at several temperatures.",
        head="grid.json",
        extends=frozenset({"models", "judge", "temperatures"}),
        report="preflab.studies.grid.report:report_grid",
        on_page="preflab.studies.grid.on_page:ON_PAGE",
    ),
    "frontier": Study(
        settings="preflab.studies.frontier.settings:FrontierSettings",
        run="preflab.studies.frontier.command:measure_frontier",
        help="Measure policies against their KL from the reference: gold reward, a reward model's score, best-of-n.",
        head="frontier.json",
        extends=frozenset({"models"}),
        report="preflab.studies.frontier.report:report_frontier",
        on_page="preflab.studies.frontier.on_page:ON_PAGE",
    ),
}


def heads() -> list[str]:
    """The file that makes a folder one of a study, of each in the table."""
    return [study.head for study in STUDIES.values()]


def other_study(name: str) -> Study | None:
    """A study that is not ours: `file.py:name`, or an installed package's. It leaves a manifest that says which it was,
    so that its folder can be reported on.

    Raises UserError where the file, or what is named in it, is no study.
    """
    if name in STUDIES or not names_plugin(name, "studies"):
        return None
    study = load(name, "studies", STUDIES).value
    if not isinstance(study, Study):
        raise UserError(f"{name}: is no preflab.studies.base.Study")
    return replace(study, run=partial(_run_other, name, study))


def _run_other(name: str, study: Study, settings: Settings) -> object:
    found = study.function()(settings)
    folder = getattr(settings, study.place)
    command = str(Path(name).absolute()) if names_file(name) else name
    write_manifest(folder, command=command, settings=resolved(settings), seed=getattr(settings, "seed", 0), data={})
    return found


def study_in(folder: Path) -> Study | None:
    """The study that made a folder: by the file that its folders have, or by the manifest of one that is not ours."""
    for study in STUDIES.values():
        if (folder / study.head).exists():
            return study
    manifest = read_json(path) if (path := folder / "manifest.json").exists() else {}
    command = manifest.get("command") if isinstance(manifest, dict) else None
    found = other_study(command) if isinstance(command, str) else None
    return found if found and (folder / found.head).exists() else None
