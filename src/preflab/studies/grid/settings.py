"""Settings of `preflab grid`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from preflab.core.config import Positional
from preflab.judging.table import forms
from preflab.studies.settings import StudySettings


class GridSettings(StudySettings):
    """Models, or the checkpoints of their training, at several temperatures, each judged against the same opponent."""

    models: Annotated[tuple[str, ...], Positional()] = Field(
        min_length=1,
        description="Models or folders of training runs; `name=…` in front names one. `RUN/checkpoints` stands for all "
        "checkpoints that a run has kept.",
    )
    temperatures: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="Sampling temperatures (the DPO paper's: 0.25, 0.5, 0.75, 1).",
    )
    opponent: str = Field(
        default="chosen",
        description="What every cell is judged against: the preferred responses of the prompts' data (`chosen`), or a "
        "file of responses.",
    )
    judge: tuple[str, ...] = Field(
        min_length=1,
        description=f"Judges of every cell: {forms()}.",
    )
    out: Path = Field(default=Path("runs/grid"), description="Folder of the grid; an unfinished one is gone on with.")
