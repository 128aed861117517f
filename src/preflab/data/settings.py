"""Settings of data: what is trained on, what is held out, and what is looked at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from preflab.core.config import Positional, Settings, Values
from preflab.data.columns import COLUMNS_HELP, ColumnNames
from preflab.model.settings import ModelSettings


class DataSettings(Settings):
    train_data: tuple[str, ...] = Field(
        description="Sources to train on: files, hub ids or sandbox:…, each with an optional slice: data.jsonl[:-300]."
    )
    eval_data: tuple[str, ...] = Field(default=(), description="Held-out sources.")
    format: str | None = Field(
        default=None,
        description="Format of the rows: a name (see `preflab data formats`) or file.py:function; else detected.",
    )
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    train_split_ratio: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Without eval_data: the share of prompts to train on; the rest is held out.",
    )
    max_train_samples: int | None = Field(default=None, ge=1, description="Train on a seeded sample of this many rows.")
    max_eval_samples: int | None = Field(
        default=None, ge=1, description="Evaluate on a seeded sample of this many rows."
    )
    max_length: int = Field(
        default=512,
        ge=2,
        description="Longest prompt and response together, in tokens (as published DPO runs on HH use).",
    )
    max_prompt_length: int = Field(
        default=358,
        ge=1,
        description="Longest prompt in tokens; its oldest tokens go first (as published DPO runs on HH use).",
    )
    min_score_margin: float | None = Field(
        default=None,
        ge=0,
        description="Drop pairs whose own scores differ by less than this (0: pairs that their scores contradict).",
    )
    on_too_long: Literal["drop", "raise"] = Field(
        default="drop", description="What to do with a response that does not fit."
    )


class InspectSettings(Settings):
    """What is in a data source: format, counts, what would be dropped and why, lengths, duplicates, rendered rows."""

    source: Annotated[tuple[str, ...], Positional()] = Field(description="Sources: files, hub ids or sandbox:….")
    format: str | None = Field(default=None, description=DataSettings.model_fields["format"].description)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    model: str | None = Field(
        default=None, description="Model whose tokenizer and template count tokens and render rows."
    )
    chat_template: str | None = Field(default=None, description=ModelSettings.model_fields["chat_template"].description)
    chat_template_kwargs: Values = Field(
        default={}, description="Values for the chat template's own switches, such as enable_thinking=false."
    )
    max_length: int = Field(default=512, ge=2, description=DataSettings.model_fields["max_length"].description)
    max_prompt_length: int = Field(
        default=358, ge=1, description=DataSettings.model_fields["max_prompt_length"].description
    )
    rows: int = Field(default=1, ge=0, description="How many rows to print token by token.")
    json_output: bool = Field(default=False, alias="json", description="Print JSON instead of tables.")


class FormatsSettings(Settings):
    """The formats of preference data that are known by name."""
