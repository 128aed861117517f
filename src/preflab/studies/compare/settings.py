"""Settings of `preflab compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from preflab.core.config import Positional
from preflab.judging.table import forms
from preflab.sample.settings import SamplingSettings
from preflab.studies.settings import StudySettings


class CompareSettings(StudySettings, SamplingSettings):
    """Compare two or more models, or files of their responses: generate, score, judge, analyse, report."""

    models: Annotated[tuple[str, ...], Positional()] = Field(
        min_length=2,
        description="The baseline, then those that should be better: models, folders of training runs, files of "
        "responses, or `chosen` (of the prompts' preference data). `name=…` in front names one; ID@REVISION is a hub's "
        "model at a branch, tag or commit, here and wherever a model is named.",
    )
    reward_model: tuple[str, ...] = Field(
        default=(), description="Scorers of all responses: reward models, length, gold or file.py:function."
    )
    judge: tuple[str, ...] = Field(
        default=(),
        description=f"Judges of each model against the baseline: {forms()}.",
    )
    title: str = Field(default="Did it get better?", description="Heading of the report.")
    out: Path = Field(
        default=Path("runs/compare"), description="Folder of the comparison; an unfinished one is gone on with."
    )
