"""A dialogue with two responses, and a small tokenizer of each family to render it with."""

from __future__ import annotations

from collections.abc import Callable

import tiny_tokenizers
from transformers import PreTrainedTokenizerFast

from preflab.core.records import Comparison, Message
from preflab.data.templates import apply_named_template

SYSTEM = Message("system", "Be brief.")
DIALOGUE = (
    Message("user", "Hello there"),
    Message("assistant", "Hi! How can I help?"),
    Message("user", "What is two plus two?"),
)
RESPONSES = ("Two plus two is four.", "I do not know.")


def pythia_with_template() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizers.pythia()
    apply_named_template(tokenizer, "human-assistant")
    return tokenizer


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "qwen2.5": tiny_tokenizers.qwen,
    "llama3": tiny_tokenizers.llama3,
    "gemma3": tiny_tokenizers.gemma3,
    "mistral": tiny_tokenizers.mistral,
    "pythia": pythia_with_template,
}


def comparison(family: str = "qwen2.5", responses: tuple[str, ...] = RESPONSES, row: int = 7) -> Comparison:
    prompt = DIALOGUE if family == "mistral" else (SYSTEM, *DIALOGUE)
    return Comparison(prompt, responses, row)
