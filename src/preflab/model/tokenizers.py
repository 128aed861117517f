"""Tokenizers of models, and the tokens that a model needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from preflab.core.records import UserError
from preflab.model.adapters import adapter_base, base_revision
from preflab.model.files import find_file, gguf, loading, of_revision, where
from preflab.model.responses import Model, transformers_model
from preflab.model.snapshots import final_model

_FOR_PADDING = ("<|padding|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>")
_NEW_PAD = "<|pad|>"


PROBE = (
    "Hello there! I'm 12345 and 3.14; it's 20% of 1000000, I'LL say.\n\n\n\tdef f(x):\n        return x**2  # ok\r\n"
    "   three   spaces "
    "你好世界。日本語 한국어 😀👩\u200d👩 café Straße naïve e\u0301 مرحبا שלום Привет ½ ﬁ A\u00a0b CamelCase\n end "
)
"""Text that tokenizers split in different ways: digits, spaces, tabs, line breaks, code, scripts, accents, emoji."""


def load_tokenizer(
    name: str, *, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; of an adapter folder without one, its base model's; of a checkpoint, its run's.

    It splits text as the folder's tokenizer.json says. transformers builds some kinds anew from their vocabulary and
    merges alone; where that splits a probe otherwise, the file is loaded as it stands.

    Raises:
        UserError: there is no tokenizer, it is damaged, or it makes no tokens of text.
    """
    of_revision(name, revision)  # of a local path there is none
    name = final_model(name) or name
    if (base := adapter_base(name)) and not (Path(name) / "tokenizer_config.json").exists():
        name, revision = base, base_revision(name)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, **of_revision(name, revision)}
    with loading(name, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where(name), **gguf(name), **options)
        file = find_file(name, "tokenizer.json", revision)
        if tokenizer.is_fast and file is not None:
            stated = Tokenizer.from_file(str(file))
            if _splits(tokenizer.backend_tokenizer) != _splits(stated):
                tokenizer = _as_stated(tokenizer, stated, where(name), options)
    check_tokenizer(tokenizer, name)
    return tokenizer


def _as_stated(
    rebuilt: PreTrainedTokenizerBase, stated: Tokenizer, name: str, options: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """The tokenizer of a tokenizer.json itself, with the special tokens that its class would have given it."""
    marks = {key: token for key, token in rebuilt.special_tokens_map.items() if isinstance(token, str)}
    known = {key: token for key, token in marks.items() if stated.token_to_id(token) is not None}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(name, **{**known, **options})
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if _splits(tokenizer.backend_tokenizer) != _splits(stated):
        raise UserError(
            f"{name}: transformers does not read its tokenizer.json as it stands: {_difference(tokenizer, stated)}"
        )
    return tokenizer


def check_stated(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise UserError where the tokenizer.json that was written to a folder does not split text as `tokenizer` does."""
    stated = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if _splits(tokenizer.backend_tokenizer) != _splits(stated):
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} does not survive saving: {_difference(tokenizer, stated)}"
        )


def _splits(backend: Tokenizer) -> tuple[list[int], str]:
    ids = backend.encode(PROBE, add_special_tokens=False).ids
    return ids, backend.decode(ids, skip_special_tokens=False)


def same_splits(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers make the same ids of the probe, and the same text of these."""
    return _splits(one.backend_tokenizer) == _splits(other.backend_tokenizer)


def _difference(tokenizer: PreTrainedTokenizerBase, stated: Tokenizer) -> str:
    (ours, text), (theirs, own_text) = _splits(tokenizer.backend_tokenizer), _splits(stated)
    if ours == theirs:
        return f"it decodes {text!r} where the file has {own_text!r}"
    start = next((at for at, (one, two) in enumerate(zip(ours, theirs, strict=False)) if one != two), 0)
    found, wanted = ([stated.id_to_token(i) for i in ids[start : start + 5]] for ids in (ours, theirs))
    return f"from token {start} of a probe on it has {found}, where the file has {wanted}"


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a slow tokenizer, and one without a vocabulary, which would read every text as nothing."""
    if not tokenizer.is_fast:
        raise UserError(f"{name} has only a slow tokenizer; preflab needs a fast one (tokenizer.json)")
    backend = tokenizer.backend_tokenizer
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    if set(backend.encode("Hello there, how are you?", add_special_tokens=False).ids) <= special:
        raise UserError(
            f"{name}: its tokenizer makes no tokens of text but special ones; tokenizer.json, or the vocabulary that "
            "it is made from, is missing or damaged"
        )


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


def check_ids(model: Model, largest: int, who: str) -> None:
    """Refuse an id that the model's embeddings have no row for; `who` uses it: "row 3", say."""
    rows = embedding_rows(transformers_model(model))
    if largest >= rows:
        raise UserError(
            f"{who} uses id {largest}, the model has {rows} rows of embeddings: tokens were added to its tokenizer "
            "without a row for each (resize_token_embeddings); the ids below that are its own"
        )


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
