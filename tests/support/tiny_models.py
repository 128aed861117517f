"""Tiny random models of every architecture that is supported, with weights large enough that attention matters."""

from __future__ import annotations

from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

VOCABULARY = 128
WINDOW = 4

_MODERN = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "qwen2": _MODERN,
    "qwen3": {**_MODERN, "head_dim": 8},
    "llama": _MODERN,
    "mistral": {**_MODERN, "head_dim": 8, "sliding_window": WINDOW},
    "gemma3_text": {
        **_MODERN,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_neox": {**{k: v for k, v in _MODERN.items() if k != "num_key_value_heads"}},
    "gpt2": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}
ARCHITECTURES: tuple[str, ...] = tuple(_OPTIONS)


def tiny_config(architecture: str, **others: Any) -> PretrainedConfig:
    """Hidden size 32, two layers, 128 tokens; a sliding window of 4 where the architecture has one."""
    # No special tokens: ids below 128 that mean something would be found in random ids.
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    options = {"vocab_size": VOCABULARY, "initializer_range": 0.3, **special, **_OPTIONS[architecture], **others}
    return AutoConfig.for_model(architecture, **options)


def tiny_model(
    architecture: str, *, seed: int = 0, task: Literal["policy", "reward"] = "policy", **others: Any
) -> PreTrainedModel:
    """A model in evaluation mode and float32; `others` go to its config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if task == "reward":
            model = AutoModelForSequenceClassification.from_config(tiny_config(architecture, num_labels=1, **others))
        else:
            model = AutoModelForCausalLM.from_config(tiny_config(architecture, **others))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:  # biases and norms start at constants, behind which a mistake could hide
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.float().eval()
