"""Tokenizers of models, and the tokens that a model needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from preflab.model.adapters import adapter_base
from preflab.model.files import gguf, loading, where
from preflab.model.snapshots import final_model
from preflab.records import UserError

_FOR_PADDING = ("<|padding|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>")
_NEW_PAD = "<|pad|>"


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


def pad_apart_from(
    terminators: Sequence[int], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, *, grow: bool = True
) -> None:
    """Give a reward model a pad token that does not end responses.

    transformers reads the score at the last token that is not the pad token: with pad = terminator it would pool one
    token early. Uses a token that is there for padding; else adds one. Without `grow`, embeddings get no row more, for
    an adapter must fit its base model as that is: where none is left, another control token serves.
    """
    if (found := padding_for(terminators, tokenizer, rows=None if grow else embedding_rows(model))) is None:
        raise UserError(
            f"{tokenizer.name_or_path}: there is no token to pad with but the one that ends a response, and an adapter "
            "cannot add one: train all weights"
        )
    if found not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"pad_token": found})
    tokenizer.pad_token = found
    assert isinstance(tokenizer.pad_token_id, int)
    pad_with(tokenizer.pad_token_id, tokenizer, model)


def pad_with(token_id: int, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Let a reward model's configuration name its pad token, with a row in the embeddings where it has none."""
    if token_id >= embedding_rows(model):
        model.resize_token_embeddings(len(tokenizer))
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = token_id
    if (token := tokenizer.convert_ids_to_tokens(token_id)) is not None:
        tokenizer.pad_token = str(token)


def embedding_rows(model: PreTrainedModel) -> int:
    """How many ids a model knows."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Module)
    assert isinstance(embeddings.weight, Tensor)
    return len(embeddings.weight)


def padding_for(
    terminators: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, rows: int | None = None
) -> str | None:
    """The token to pad with, which ends no response; in embeddings of that many `rows`, if given. None: there is none.

    It may be one that begins turns, since only the last token of a sequence tells padding from text.
    """
    vocabulary, most = tokenizer.get_vocab(), float("inf") if rows is None else rows

    def fits(token: str | None) -> bool:
        return token in vocabulary and vocabulary[token] not in terminators and vocabulary[token] < most

    for token in (tokenizer.pad_token, *_FOR_PADDING):
        if fits(token):
            return token
    if len(tokenizer) < most:
        return _NEW_PAD
    others = [tokenizer.unk_token, *(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)]
    return next((token for token in others if fits(token)), None)
