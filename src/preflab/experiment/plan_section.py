"""The last section of an experiment's page: every stage, what was asked of it, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from preflab.core.rundir import to_json
from preflab.experiment.rows import Experiment, PlanStage, Status
from preflab.page.cells import Cell, Table
from preflab.page.sections import Section, run_tables
from preflab.stats.wording import NOTHING, duration

MOST_ROWS = 24  # of a plan that is not folded

WORDS: Mapping[Status, str] = {
    "waiting": "has not run",
    "running": "running, or stopped on the way",
    "done": "done",
    "skipped": "done before, unchanged",
    "failed": "failed",
}


def plan_section(
    experiment: Experiment, changed: Mapping[str, Mapping[str, Any]], again: str, manifest: Mapping[str, Any]
) -> Section:
    """The plan, and how to make it again.

    changed: by stage, the settings that differ from their defaults.
    again: the command; empty where it is not known.
    manifest: of the whole run, where there is one; else empty.
    """
    stages = experiment.stages
    tables = [_failures([stage for stage in stages if stage.status == "failed"])] if _any_failed(stages) else []
    rows = tuple(
        (
            Cell(stage.name, f"after {', '.join(stage.after)}" if stage.after else ""),
            Cell(stage.command),
            Cell(_settings(changed.get(stage.name, {})) or NOTHING),
            Cell(WORDS[stage.status]),
            Cell(NOTHING if stage.seconds is None else duration(stage.seconds)),
        )
        for stage in stages
    )
    head = ("Stage", "Command", "Settings that differ from the defaults", "Status", "Time")
    tables.append(Table(f"The plan: {len(stages)} stages", head, rows, folded=len(rows) > MOST_ROWS))
    remarks = []
    if again:
        remarks.append(f"Made by `{again}`. The same command makes what is missing, and skips what is done.")
    facts = {name: fact for name, fact in manifest.items() if name not in ("command", "settings")}  # told above
    return Section("plan", "The plan", (*tables, *run_tables(facts)), remarks=tuple(remarks))


def _any_failed(stages: Iterable[PlanStage]) -> bool:
    return any(stage.status == "failed" for stage in stages)


def _failures(stages: Iterable[PlanStage]) -> Table:
    rows = tuple(
        (Cell(stage.name), Cell(stage.command), Cell(stage.reason or "no reason is known")) for stage in stages
    )
    return Table("What failed", ("Stage", "Command", "Reason"), rows)


def _settings(changed: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {_plain(value)}" for name, value in changed.items())


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else to_json(value)
