"""Stages that take no time: commands that write what they were given into a file, and what experiments make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from preflab.core.command import StageCommand
from preflab.core.config import Positional, Settings
from preflab.core.records import Amount, UserError
from preflab.core.rundir import read_json, write_json
from preflab.experiment.outlook import Outlook
from preflab.experiment.run import RunResult, run_experiment
from preflab.experiment.settings import RunSettings


class MakeSettings(Settings):
    """A command that makes one thing of one."""

    source: str = Field(description="What it is made from.")
    beta: float = Field(default=0.1, gt=0, description="A number.")
    seed: int = Field(default=0, description="Another.")
    lora: bool = Field(default=False, description="Says what is made.")
    batch_size: int = Field(default=8, description="Changes nothing.")
    output_dir: Path = Field(default=Path("runs/make"), description="Where to.")
    overwrite: bool = Field(default=False, description="Discard what is there.")


class GatherSettings(Settings):
    """A command that makes one thing of several."""

    things: Annotated[tuple[str, ...], Positional()] = Field(description="What it is made from.")
    judge: str | None = Field(default=None, description="One thing more.")
    title: str = Field(default="-", description="Can be changed later.")
    seed: int = Field(default=0, description="A number.")
    out: Path = Field(default=Path("runs/gather.json"), description="Where to.")


CALLS: list[str] = []
"""The folders' names of the stages that have run."""
FAILING: dict[str, BaseException] = {}
"""Folder's name -> what the stage raises once it has begun."""
LEARNED: dict[str, int] = {}
"""Folder's name -> what becomes of the stage, where that is not always the same."""


def make(settings: MakeSettings) -> str:
    _begin(settings.output_dir)
    made = settings.model_dump(mode="json", exclude={"batch_size"}) | {"learned": LEARNED.get(settings.output_dir.name)}
    path = settings.output_dir / ("merged" if settings.lora else "model")
    if not path.exists():  # else its work is done, as a training finds it
        write_json(path, made)
    return "made"


def product_of(settings: MakeSettings) -> str:
    return "merged" if settings.lora else "model"


def amount(run: object, settings: MakeSettings, *, measure: bool) -> Amount:
    assert run is make
    if settings.seed < 0:
        raise UserError("no row can be used\nbecause of its seed")
    return Amount(1200, 3400, 2.5, 1_500_000_000) if measure else Amount(1, 3400)


def gather(settings: GatherSettings) -> str:
    _begin(settings.out.parent)
    write_json(settings.out, settings.model_dump(mode="json"))
    return "gathered"


def _begin(folder: Path) -> None:
    CALLS.append(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "begun").touch()
    if error := FAILING.get(folder.name):
        raise error


KINDS = {
    "make": StageCommand(
        MakeSettings,
        "fake_stages:make",
        "Make one thing of one.",
        product="fake_stages:product_of",
        harmless=frozenset({"batch_size", "overwrite"}),
        amount="fake_stages:amount",
    ),
    "gather": StageCommand(
        GatherSettings,
        "fake_stages:gather",
        "Make one thing of several.",
        place="out",
        file="things.json",
        product="things.json",
        head="things.json",
        extends=frozenset({"title", "things"}),
    ),
}

CHAIN = """
title: A chain
output_dir: out
values: {start: hub/model, other: [x, y]}
settings: {seed: 3}
stages:
  gather: {run: gather, things: ["first=${first}", "second=${second}"]}
  first: {run: make, source: "${start}"}
  second: {run: make, source: "${first}", beta: 0.2}
  apart: {run: make, source: elsewhere}
"""


def install(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let `preflab run` know these commands alone, with a report that says nothing; work in `folder`."""

    def report(output_dir: Path) -> Path:
        CALLS.append("report")
        write_json(output_dir / "report.html", read_json(output_dir / "experiment.json"))
        return output_dir / "report.html"

    CALLS.clear()
    FAILING.clear()
    LEARNED.clear()
    patch.setattr("preflab.commands.COMMANDS", KINDS)
    patch.setattr("preflab.experiment.report.report_experiment", report)
    patch.chdir(folder)


def write(text: str = CHAIN) -> Path:
    path = Path("experiment.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def start(
    *assignments: str, overwrite: bool = False, dry_run: bool = False, measure: bool = False
) -> RunResult | Outlook:
    """Run the experiment of the working folder; `CALLS` then tells of this run alone."""
    CALLS.clear()
    settings = RunSettings(
        experiment=Path("experiment.yaml"),
        assignments=assignments,
        overwrite=overwrite,
        dry_run=dry_run,
        measure=measure,
    )
    return run_experiment(settings)


def refused(*assignments: str, overwrite: bool = False) -> str:
    """What is said where the experiment cannot be run, or fails."""
    with pytest.raises(UserError) as error:
        start(*assignments, overwrite=overwrite)
    return str(error.value)


def statuses(folder: Path = Path("out")) -> dict[str, str]:
    return {entry["name"]: entry["status"] for entry in read_json(folder / "experiment.json")["stages"]}
