"""Settings of the commands that compare models and report on it."""

from __future__ import annotations

from pydantic import Field

from preflab.core.config import Values
from preflab.data.columns import COLUMNS_HELP, ColumnNames
from preflab.judging.settings import FORMAT_WITH_ANSWERS, JudgingSettings
from preflab.sample.settings import DecodingSettings


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
