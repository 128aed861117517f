"""Models of kinds that preflab cannot use, and adapters as other programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_config
from tiny_tokenizers import qwen
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from preflab.model.load import load_model
from preflab.model.tokenizers import load_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def other_kind(folder: Path, kind: str) -> Path:
    tokenizer = qwen()
    size: dict[str, Any] = {"vocab_size": len(tokenizer)}
    build: dict[str, Any] = {
        "deberta": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**size, **SMALL, num_labels=1)),
        "two labels": lambda: AutoModelForSequenceClassification.from_config(
            tiny_config("qwen2", num_labels=2, **size)
        ),
        "five labels": lambda: AutoModelForSequenceClassification.from_config(
            tiny_config("gpt2", num_labels=5, **size)
        ),
        "bert": lambda: BertForMaskedLM(BertConfig(**size, **SMALL)),
        "t5": lambda: T5ForConditionalGeneration(T5Config(**size, d_model=32, d_kv=8, d_ff=32, num_layers=1)),
    }
    build[kind]().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapted(base: Path, folder: Path, *, grown: int = 0, **options: Any) -> Path:
    """An adapter that does something, as its author saved it."""
    tokenizer = load_tokenizer(str(base))
    model: Any = load_model(str(base), "policy", dtype=torch.float32)
    if grown:
        tokenizer.add_tokens([f"<new{number}>" for number in range(grown)])
        model.resize_token_embeddings(len(tokenizer))
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, **{"target_modules": ["q_proj"], **options}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator)) if "lora_A" not in name else None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logits(folder: Path) -> torch.Tensor:
    model: Any = load_model(str(folder), "policy", dtype=torch.float32).eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[7, 30, 12, 45, 26]])).logits
    return found
