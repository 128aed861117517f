"""Models and adapters, written to folders that other tools load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from preflab.core.durable import whole_folder
from preflab.model.adapters import write_config
from preflab.model.files import quiet
from preflab.model.responses import Model, transformers_model, usual_attention
from preflab.model.tokenizers import check_stated


def save_model(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    stop_ids: Sequence[int] = (),
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a model (or its adapter) and its tokenizer in Hugging Face's format. The folder appears whole or not at
    all, with the SHA-256 of its files.

    `stop_ids` become what generation stops at; `weights` stand in for the model's own where those are sharded.
    """
    attention = transformers_model(model).config._attn_implementation
    inner = usual_attention(model)
    if stop_ids and inner.can_generate():
        inner.generation_config.eos_token_id = list(stop_ids)
        inner.generation_config.pad_token_id = tokenizer.pad_token_id
    if inner.can_generate():
        _make_valid(inner)
    with whole_folder(folder) as unfinished, quiet():
        if isinstance(model, PeftModel):
            # A row that was added for the padding token is never read, and the base model does not have it.
            model.save_pretrained(str(unfinished), state_dict=weights, save_embedding_layers=False)
            write_config(model, unfinished)
        else:
            inner.save_pretrained(str(unfinished), state_dict=weights)
        tokenizer.save_pretrained(unfinished)
        check_stated(tokenizer, unfinished)
    inner.set_attn_implementation(attention)  # training may go on
    return folder


def _make_valid(model: PreTrainedModel) -> None:
    """Leave of generation settings that contradict each other only the ids: transformers reads such settings (a
    temperature without sampling, as many models have), and goes by none of them, but would not write them.
    """
    own = model.generation_config
    try:
        own.validate(strict=True)
    except ValueError:
        ids = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**ids)  # type: ignore[no-untyped-call]
