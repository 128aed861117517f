"""Settings of models: where one comes from, and what is trained of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from preflab.core.config import Settings, Values

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ModelSettings(Settings):
    model: str = Field(description="Hub id, folder, adapter folder or .gguf file of the model to start from.")
    dtype: Dtype = Field(
        default="auto",
        description="Precision of the weights. auto: float32, with bfloat16 arithmetic where the device is faster in "
        "it; LoRA's frozen weights are then bfloat16 themselves.",
    )
    chat_template: str | None = Field(
        default=None,
        description="Chat template for a model that has none: chatml or human-assistant; or the name of one of several "
        "that its tokenizer brings. Saved with the tokenizer.",
    )
    chat_template_kwargs: Values = Field(
        default={},
        description="Values for the chat template's own switches, such as enable_thinking=false. Saved with the "
        "tokenizer, so that all that follows asks the model in the same way.",
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub's model; by default its main branch."
    )
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")


class LoraSettings(Settings):
    lora: bool = Field(default=False, description="Train a low-rank adapter instead of all weights.")
    lora_r: int = Field(
        default=16, ge=1, description="Rank of the adapter (as published replications of DPO on HH use)."
    )
    lora_alpha: int = Field(
        default=32,
        ge=1,
        description="The adapter's output is scaled by lora_alpha / lora_r (as published DPO runs on HH use).",
    )
    lora_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Dropout in front of the adapter (as published replications of DPO on HH use).",
    )
    lora_target_modules: tuple[str, ...] = Field(
        default=(), description="Names of the linear layers to adapt; by default all of the backbone."
    )
