"""The sandbox's model: a tiny, untrained Qwen2 with a tokenizer of its own, as a folder in Hugging Face's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from preflab.sandbox.grammar import sentences

PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MAX_LENGTH = 512
MOST_TOKENS = 4096  # more than the merges of all the sandbox's words need


def build_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's byte-level BPE with merges of our own, by which each word of the sandbox is one token.

    Any other text falls back to pieces and bytes, and comes back unchanged but for Unicode's canonical composition
    (NFC), as with Qwen2.
    """
    # transformers rebuilds the tokenizer of a Qwen2 folder from its vocabulary and merges alone, so everything else
    # must be Qwen2's own.
    qwen = Qwen2Tokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = qwen.normalizer, qwen.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS, min_frequency=1, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator((text for sentence in sentences() for text in (sentence, f" {sentence}")), trainer)
    learned = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learned["merges"]]  # pairs, which transformers' own hint does not know of
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        pad_token=PAD,
        unk_token=PAD,
        eos_token=END,
        extra_special_tokens=[TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
    )


def build_tiny_model(out_dir: Path, *, seed: int = 0, hidden_size: int = 64, layers: int = 2) -> Path:
    """Write an untrained model and its tokenizer to `out_dir`, and return that. The same seed gives the same weights.

    Grouped-query attention (4 heads of queries, 2 of keys and values), tied embeddings, float32; about 0.17 million
    parameters.
    """
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    return out_dir
