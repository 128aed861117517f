"""Small tokenizers with the special tokens, splitting rules and chat templates of five model families.

Their vocabularies hold the words of `WORDS` whole, so that golden rows can be read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = (
    "Be brief . Hello there Hi ! How can I help ? What is two plus Two four I do not know system user assistant model "
    "Human Assistant : You are Qwen , created by Alibaba Cloud a helpful"
)
# The word splitting of Qwen 2 and Llama 3 (they differ in how many digits stay together).
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)


def shipped_template(name: str) -> str:
    """A family's template as TRL ships it. TRL is found, not imported, since that takes seconds."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def qwen(template: str = "qwen2_5") -> PreTrainedTokenizerFast:
    backend = _byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    )
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = shipped_template(template)
    return tokenizer


def llama3() -> PreTrainedTokenizerFast:
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend = _byte_level(marks, pre_tokenizers.Split(Regex(_SPLIT), "isolated"))
    backend.post_processor = _bos_first("<|begin_of_text|>", 0)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
    )
    tokenizer.chat_template = shipped_template("llama3")
    return tokenizer


def gemma3() -> PreTrainedTokenizerFast:
    backend = _metaspace(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"])
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    backend.post_processor = _bos_first("<bos>", 2)
    backend.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = shipped_template("gemma3")
    return tokenizer


def mistral() -> PreTrainedTokenizerFast:
    backend = _metaspace(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.post_processor = _bos_first("<s>", 1)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = MISTRAL_TEMPLATE
    return tokenizer


def pythia() -> PreTrainedTokenizerFast:
    """A base model's tokenizer: one special token for everything, and no chat template."""
    backend = _byte_level(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False), use_regex=True)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, pad_token=end)


def _byte_level(marks: list[str], split: pre_tokenizers.PreTokenizer, *, use_regex: bool = False) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = split if use_regex else pre_tokenizers.Sequence([split, to_bytes])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*WORDS.split(), WORDS, "\n\n", "_start", "_end"], trainer)
    return backend


def _metaspace(marks: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    # Words are kept apart while the vocabulary is learned; the families then split in their own ways.
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    alphabet = ["\n", "▁", *map(chr, range(33, 127))]
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([*WORDS.split(), WORDS], trainer)
    return backend


def _bos_first(token: str, token_id: int) -> processors.PostProcessor:
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, token_id)])
