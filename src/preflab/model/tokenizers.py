"""Tokenizers of models, and the tokens that a model needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from preflab.model.adapters import adapter_base
from preflab.model.files import gguf, loading, where
from preflab.model.snapshots import final_model
from preflab.records import UserError


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; of an adapter folder without one, its base model's; of a checkpoint, its run's."""
    name = final_model(name) or name
    if (base := adapter_base(name)) and not (Path(name) / "tokenizer_config.json").exists():
        name = base
    with loading(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(where(name), **gguf(name), trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise UserError(f"{name} has only a slow tokenizer; preflab needs a fast one (tokenizer.json)")
    return tokenizer


def pad_apart_from(terminators: Sequence[int], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Give a reward model a pad token that does not end responses.

    transformers reads the score at the last token that is not the pad token: with pad = terminator it would pool one
    token early. Uses a token that is there for padding, else adds one.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in terminators:
        known = [
            token
            for token in ("<|padding|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]")
            if token in tokenizer.get_vocab()
        ]
        tokenizer.pad_token = known[0] if known else "<|pad|>"
        if not known:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    if tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
