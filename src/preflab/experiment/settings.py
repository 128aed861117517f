"""Settings of what runs a whole chain, and of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from preflab.core.config import Positional, Settings
from preflab.core.records import UserError


class RunSettings(Settings):
    """Run an experiment: its stages in their order, each as far as it is not done, and one report at the end."""

    experiment: Annotated[Path, Positional()] = Field(
        description="The experiment's file, as docs/experiments.md has it."
    )
    assignments: Annotated[tuple[str, ...], Positional()] = Field(
        default=(),
        description="key=value: a value (model=./my-model), a stage's setting (dpo.beta=0.2), what it sweeps "
        "(dpo.sweep.beta=[0.1,0.2]), a setting for all (settings.seed=1), or output_dir.",
    )
    overwrite: bool = Field(
        default=False, description="Discard, and make anew, stages made from other inputs, and all that follows them."
    )
    dry_run: bool = Field(
        default=False, description="Run nothing: show the stages, with the steps and tokens of each training."
    )
    measure: bool = Field(
        default=False,
        description="With dry_run: take the first step of each training whose input is made, and say how long it took "
        "and how much memory was in use at the peak. Nothing of it is kept.",
    )

    @model_validator(mode="after")
    def _measures_in_a_dry_run(self) -> RunSettings:
        if self.measure and not self.dry_run:
            raise UserError("measure is a kind of dry run: give dry_run with it, or leave it out")
        return self


class ReportSettings(Settings):
    """Make tables, figures and the report of a study or an experiment again, from its rows."""

    folder: Annotated[Path, Positional()] = Field(description="Folder of a study, or of an experiment.")
