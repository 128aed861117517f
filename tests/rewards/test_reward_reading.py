"""Reward models from elsewhere are read where plain transformers reads them, whatever their template ends with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from scored_models import FAMILIES, both_scores, policy, reward_settings, scored, some_words, write
from tiny_models import tiny_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preflab.core.records import Comparison, Message
from preflab.data.splits import template_of
from preflab.judging.scorer import make_scorer
from preflab.judging.settings import JudgingSettings
from preflab.stats.study import Judge
from preflab.training.reward import train_reward

pytestmark = pytest.mark.slow

TAILS = {"nothing": "", "line break": "\n", "eos": "{eos}", "eos, line break": "{eos}\n", "eos twice": "{eos}{eos}"}
TURNS = (
    "{{% for message in messages %}}{{{{ '### ' + message['role'] + ':\\n' + message['content'] }}}}"
    "{{% if message['role'] == 'assistant' %}}{{{{ {tail} }}}}{{% else %}}{{{{ '\\n' }}}}{{% endif %}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '### assistant:\\n' }}}}{{% endif %}}"
)


def reward_model(folder: Path, architecture: str, tail: str, *, pad: str = "own") -> Path:
    """As its author left it: `pad` is the configuration's, the tokenizer's "own", the EOS, or "none"."""
    tokenizer = FAMILIES[architecture]()
    tokenizer.chat_template = TURNS.format(tail=json.dumps(tail.format(eos=tokenizer.eos_token)))
    pads = {"own": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id, "none": None}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": pads[pad]}
    tiny_model(architecture, task="reward", vocab_size=len(tokenizer), **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chats(rows: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
    return [
        [*row["prompt"], {"role": "assistant", "content": row[side]}] for row in rows for side in ("chosen", "rejected")
    ]


def plainly(folder: Path, rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """One conversation after the other, by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return np.array([
            float(model(**tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)).logits)
            for chat in chats(rows)
        ])  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    draw = random.Random(0)
    rows = [
        {"prompt": some_words(draw), "chosen": some_words(draw, 20), "rejected": some_words(draw)} for _ in range(5)
    ]
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", *rows)


@pytest.mark.parametrize("tail", TAILS.values(), ids=list(TAILS))
@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_score_is_that_of_plain_transformers(architecture: str, tail: str, pairs: str, tmp_path: Path) -> None:
    folder = reward_model(tmp_path / "model", architecture, tail)
    rows = scored(folder, pairs, tmp_path / "s.jsonl")
    assert len(rows) == 5
    assert both_scores(rows) == pytest.approx(plainly(folder, rows), abs=1e-5)
    assert both_scores(rows).std() > 0.1


@pytest.mark.parametrize("pad", ["own", "eos", "none"])
@pytest.mark.parametrize("tail", TAILS.values(), ids=list(TAILS))
def test_whatever_the_pad_token_is(tail: str, pad: str, pairs: str, tmp_path: Path) -> None:
    folder = reward_model(tmp_path / "model", "qwen2", tail, pad=pad)
    rows = scored(folder, pairs, tmp_path / "s.jsonl")
    assert both_scores(rows) == pytest.approx(plainly(folder, rows), abs=1e-5)


@pytest.mark.parametrize("tail", TAILS.values(), ids=list(TAILS))
def test_a_judge_reads_as_score_does(tail: str, pairs: str, tmp_path: Path) -> None:
    folder = reward_model(tmp_path / "model", "llama", tail)
    rows = scored(folder, pairs, tmp_path / "s.jsonl")
    judge = make_scorer(Judge("mine", "reward_model", str(folder)), JudgingSettings(), 0)
    asked = [
        Comparison((Message("user", row["prompt"][0]["content"]),), (row[side],), row=2 * at + place)
        for at, row in enumerate(rows)
        for place, side in enumerate(("chosen", "rejected"))
    ]
    found = judge.scores(asked)
    assert [found[item.row] for item in asked] == pytest.approx(plainly(folder, rows), abs=1e-5)


@pytest.mark.parametrize(("tail", "lora"), [("\n", False), ("{eos}\n", True), ("{eos}{eos}", False), ("", True)])
def test_training_goes_on_where_the_model_was_read(tail: str, lora: bool, pairs: str, tmp_path: Path) -> None:
    """Before any step that matters, the scores of a run are those of the model that it starts from."""
    folder = reward_model(tmp_path / "model", "qwen2", tail)
    settings = reward_settings(folder, pairs, tmp_path / "run", lora=lora, learning_rate=1e-9, lora_dropout=0.0)
    final = train_reward(settings).model
    rows = scored(final, pairs, tmp_path / "s.jsonl")
    assert both_scores(rows) == pytest.approx(plainly(folder, rows), abs=1e-4)
    assert both_scores(rows) == pytest.approx(plainly(final, rows), abs=1e-5)


def test_a_template_called_by_name_is_read_at_its_terminator(tmp_path: Path) -> None:
    folder = reward_model(tmp_path / "model", "qwen2", "\n")
    row = Comparison((Message("user", "Hello"),), ("Hi !",))
    named, own = (template_of(str(folder), name, task="reward") for name in ("chatml", None))
    assert named.encode(row).response_ids[0][-1] == named.terminator_id
    assert own.tokenizer.decode([own.encode(row).response_ids[0][-1]]) == "\n"
    assert named.fingerprint != own.fingerprint


@pytest.mark.parametrize("architecture", FAMILIES)
def test_an_adapter_scores_a_padded_batch_elsewhere(architecture: str, pairs: str, tmp_path: Path) -> None:
    """As the merged model does: on the base model as it is, with PEFT and the adapter's own tokenizer."""
    base = policy(tmp_path / architecture, architecture)
    settings = reward_settings(base, pairs, tmp_path / "run", lora=True, learning_rate=3e-2, max_steps=3)
    merged = train_reward(settings).model
    rows = scored(merged, pairs, tmp_path / "s.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model = PeftModel.from_pretrained(model, tmp_path / "run" / "adapter").eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    batch = tokenizer.apply_chat_template(chats(rows), padding=True, return_tensors="pt", return_dict=True)
    assert int(batch["input_ids"].max()) < model.config.vocab_size
    with torch.no_grad():
        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].numpy()
    assert found == pytest.approx(both_scores(rows), abs=1e-4)
    assert plainly(merged, rows) == pytest.approx(both_scores(rows), abs=1e-5)
    of_adapter = both_scores(scored(tmp_path / "run" / "adapter", pairs, tmp_path / "a.jsonl"))
    assert of_adapter == pytest.approx(both_scores(rows), abs=1e-4)
