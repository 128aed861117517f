"""Settings of the commands that compare models and report on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from preflab.core.config import Positional, Settings, Values
from preflab.data.columns import COLUMNS_HELP, ColumnNames
from preflab.judge.settings import FORMAT_WITH_ANSWERS, JudgingSettings
from preflab.train.settings import DecodingSettings, SamplingSettings


class StudySettings(DecodingSettings, JudgingSettings):
    """What models answer, and how the answers are scored."""

    prompts: tuple[str, ...] = Field(
        default=(),
        description="Sources of held-out prompts; by default those of the first file of responses. Of several sources, "
        "each makes a subset.",
    )
    format: str | None = Field(default=None, description=FORMAT_WITH_ANSWERS)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    max_samples: int | None = Field(default=None, ge=1, description="Compare on a seeded sample of this many prompts.")
    subset_by: str | None = Field(
        default=None,
        description="Column of the prompts to analyse by; by default `category`, `subset` or `dataset`, where there is "
        "one.",
    )
    chat_template: str | None = Field(default=None, description="Named chat template for models that come without one.")
    chat_template_kwargs: Values = Field(
        default={}, description="Values for the switches of the models' chat templates, such as enable_thinking=false."
    )
    overwrite: bool = Field(default=False, description="Discard what was made before and start anew.")


class CompareSettings(StudySettings, SamplingSettings):
    """Compare two or more models, or files of their responses: generate, score, judge, analyse, report."""

    models: Annotated[tuple[str, ...], Positional()] = Field(
        min_length=2,
        description="The baseline, then those that should be better: models, folders of training runs, files of "
        "responses, or `chosen` (of the prompts' preference data). `name=…` in front names one; ID@REVISION is a hub's "
        "model at a branch, tag or commit, here and wherever a model is named.",
    )
    reward_model: tuple[str, ...] = Field(default=(), description="Reward models that score all responses.")
    judge: tuple[str, ...] = Field(
        default=(),
        description="Judges of each model against the baseline: openai:MODEL (or openai:MODEL@URL), hf:MODEL, "
        "reward:R, gold or human.",
    )
    title: str = Field(default="Did it get better?", description="Heading of the report.")
    out: Path = Field(
        default=Path("runs/compare"), description="Folder of the comparison; an unfinished one is gone on with."
    )


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
        description="Judges of every cell: openai:MODEL (or openai:MODEL@URL), hf:MODEL, reward:R or gold.",
    )
    out: Path = Field(default=Path("runs/grid"), description="Folder of the grid; an unfinished one is gone on with.")


class ReportSettings(Settings):
    """Make tables, figures and the report of a comparison, a grid, a frontier or an experiment again, from its rows."""

    folder: Annotated[Path, Positional()] = Field(description="Folder of a comparison, grid, frontier or experiment.")
