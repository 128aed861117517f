"""Settings of `preflab frontier`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from preflab.core.config import MOST_SEED, Positional, Settings, Values
from preflab.data.columns import COLUMNS_HELP, ColumnNames
from preflab.model.settings import Dtype, ModelSettings
from preflab.sample.settings import GenerateSettings


class RolloutSettings(Settings):
    """What policies sample: always at temperature 1 from the whole vocabulary, because KL is of what was sampled."""

    num_return_sequences: int = Field(default=1, ge=1, description="Responses of each policy to each prompt.")
    max_new_tokens: int = Field(default=512, ge=1, description="Token cap of a response.")
    max_prompt_length: int = Field(
        default=1024, ge=1, description=GenerateSettings.model_fields["max_prompt_length"].description
    )
    seed: int = Field(default=42, ge=0, le=MOST_SEED, description="Seed of sampling, and of the choice of prompts.")


class FrontierSettings(RolloutSettings):
    """Gold reward and a reward model's score of policies against their KL from the reference, best-of-n beside them."""

    models: Annotated[tuple[str, ...], Positional()] = Field(
        min_length=1,
        description="Policies: folders of training runs (which tell objective, settings and seed) or models; `name=…` "
        "in front names one.",
    )
    reference: str = Field(description="Model, or folder of a training run, that all of them started from.")
    reward_model: str = Field(
        description="The proxy: hub id or folder of a reward model with one label, length, or file.py:function."
    )
    gold: str | None = Field(
        default=None,
        description="The truth: any of these; by default the sandbox's own, where all prompts are the sandbox's.",
    )
    prompts: tuple[str, ...] = Field(description="Sources of held-out prompts; of the sandbox's, the truth is known.")
    format: str | None = Field(default=None, description=GenerateSettings.model_fields["format"].description)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    max_samples: int | None = Field(default=None, ge=1, description="Answer a seeded sample of this many prompts.")
    best_of_n: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(2, 4, 8, 16, 32, 64),
        description="Best-of-n of the reference, by the reward model; the largest n is how many responses are drawn.",
    )
    chat_template: str | None = Field(default=None, description="Named chat template for models that come without one.")
    chat_template_kwargs: Values = Field(
        default={}, description="Values for the switches of the policies' chat template, such as enable_thinking=false."
    )
    dtype: Dtype = Field(
        default="auto",
        description="Precision of the weights; auto: float32, because the rounding of shorter ones is as large as a "
        "small KL.",
    )
    trust_remote_code: bool = Field(
        default=False, description=ModelSettings.model_fields["trust_remote_code"].description
    )
    batch_size: int = Field(default=64, ge=1, description="Responses generated, or read for KL or scores, at once.")
    out: Path = Field(
        default=Path("runs/frontier"),
        description="Folder of the frontier; policies that are done are not sampled again.",
    )
    overwrite: bool = Field(default=False, description="Discard what was made before and start anew.")
