"""Settings of responding and of scoring responses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from preflab.core.config import MOST_SEED, Positional, Settings, Values
from preflab.data.columns import COLUMNS_HELP, ColumnNames
from preflab.data.settings import DataSettings
from preflab.model.settings import Dtype, ModelSettings
from preflab.stats.definitions import ACCURACY, STD


class DecodingSettings(Settings):
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Sample from the likeliest tokens that hold this share of the probability."
    )
    top_k: int = Field(default=0, ge=0, description="Sample from this many likeliest tokens; 0: from all.")
    repetition_penalty: float = Field(
        default=1.0, gt=0, description="Above 1 makes tokens that were used before less likely."
    )
    num_return_sequences: int = Field(default=1, ge=1, description="Responses per prompt.")
    max_new_tokens: int = Field(default=512, ge=1, description="Token cap of a response.")
    seed: int = Field(default=42, ge=0, le=MOST_SEED, description="Seed of sampling, and of the choice of prompts.")


class SamplingSettings(DecodingSettings):
    temperature: float = Field(default=1.0, ge=0, description="Sampling temperature; 0 takes the likeliest token.")


class GenerateSettings(ModelSettings, SamplingSettings):
    """Responses of a model to prompts, one line each."""

    prompts: tuple[str, ...] = Field(
        description="Sources of prompts: files, hub ids or sandbox:…, also preference data."
    )
    format: str | None = Field(default=None, description=DataSettings.model_fields["format"].description)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    max_samples: int | None = Field(default=None, ge=1, description="Answer a seeded sample of this many prompts.")
    max_prompt_length: int = Field(
        default=1024, ge=1, description="Longest prompt in tokens; its oldest tokens go first."
    )
    batch_size: int = Field(default=16, ge=1, description="Responses generated at once.")
    output: Path = Field(
        default=Path("runs/responses.jsonl"), description="File of responses; an unfinished one is gone on with."
    )
    overwrite: bool = Field(default=False, description="Discard what was made before and start anew.")


class ScoreSettings(Settings):
    """Rewards of responses, or of the ranked responses of preference data."""

    data: Annotated[tuple[str, ...], Positional()] = Field(
        description="Sources to score: preference data, or files of responses such as `preflab generate` writes. Their "
        f"accuracy is the {ACCURACY}; reward_std is the {STD} over all responses."
    )
    reward_model: str = Field(
        description="Hub id, folder or adapter folder of a reward model with one label; or another scorer: length, "
        "gold (the sandbox's own) or file.py:function."
    )
    chat_template: str | None = Field(
        default=None, description="Named chat template for a reward model that comes without one."
    )
    chat_template_kwargs: Values = Field(
        default={}, description="Values for the switches of the reward model's chat template."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub's reward model.")
    format: str | None = Field(default=None, description=DataSettings.model_fields["format"].description)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    max_samples: int | None = Field(default=None, ge=1, description="Score a seeded sample of this many rows.")
    max_length: int = Field(default=1024, ge=2, description="Longest prompt and response together, in tokens.")
    max_prompt_length: int = Field(
        default=1024, ge=1, description="Longest prompt in tokens; its oldest tokens go first."
    )
    dtype: Dtype = Field(
        default="auto",
        description="Precision of the weights; auto: bfloat16 where the device is faster in it, else float32.",
    )
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")
    batch_size: int = Field(default=16, ge=1, description="Comparisons per forward pass.")
    seed: int = Field(default=42, ge=0, le=MOST_SEED, description="Seed of the sample.")
    output: Path = Field(
        default=Path("runs/scores.jsonl"), description="File of scores, one line per row; a summary lies beside it."
    )
    overwrite: bool = Field(default=False, description="Discard what was made before and start anew.")
