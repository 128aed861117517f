"""Small policies and reward models of several families, and what they give responses."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import tiny_model
from tiny_tokenizers import WORDS, gemma3, llama3, mistral, pythia, qwen

from preflab.core.rundir import read_jsonl
from preflab.sample.score import load_scores, score_responses
from preflab.sample.settings import ScoreSettings
from preflab.training.settings import RewardSettings

# Pad tokens of their own, none, and one that is the terminator too (Pythia, Llama, Mistral).
FAMILIES: dict[str, Any] = {
    "qwen2": qwen,
    "gpt_neox": pythia,
    "llama": llama3,
    "mistral": mistral,
    "gemma3_text": gemma3,
    "gpt2": pythia,
}


def some_words(draw: random.Random, most: int = 9) -> str:
    return " ".join(draw.choices(WORDS.split(), k=draw.randint(2, most)))


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def policy(folder: Path, architecture: str) -> Path:
    tokenizer = FAMILIES[architecture]()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    tiny_model(architecture, vocab_size=len(tokenizer), **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reward_settings(model: Path, pairs: str, output_dir: Path, **others: Any) -> RewardSettings:
    named = "human-assistant" if "gpt" in model.name else None
    options = {"max_steps": 1, "learning_rate": 1e-2, "report_to": ("none",), "chat_template": named, **others}
    return RewardSettings(model=str(model), train_data=(pairs,), output_dir=output_dir, **options)


def scored(model: Path, data: str, output: Path, **others: Any) -> list[dict[str, Any]]:
    result = score_responses(ScoreSettings(data=(data,), reward_model=str(model), output=output, **others))
    assert load_scores(result.output).summary == result.summary
    return list(read_jsonl(result.output))


def both_scores(rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([[row["score_chosen"], row["score_rejected"]] for row in rows]).ravel()
