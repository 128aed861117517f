"""Models that preflab cannot use are refused in one sentence before any work; adapters work or say why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from model_kinds import adapted, logits, other_kind
from peft import PeftModel
from safetensors.torch import load_file, save_file
from scored_models import policy, reward_settings, scored, write
from shared_cases import case
from tiny_models import tiny_model
from tiny_tokenizers import pythia, qwen
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from preflab.core.records import UserError
from preflab.core.rundir import read_jsonl
from preflab.model.adapters import add_lora
from preflab.model.load import load_model
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer
from preflab.sample.generate import generate_responses
from preflab.sample.settings import GenerateSettings
from preflab.training.merge import merge_adapter
from preflab.training.reward import train_reward
from preflab.training.settings import MergeSettings

PAIRS = [{"prompt": "Hello", "chosen": "Hi ! How can I help ?", "rejected": "What ?"}] * 3


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{**row, "prompt": f"Hello {'there ' * at}"} for at, row in enumerate(PAIRS)]
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", *rows)


def respond(model: Path, prompts: str, output: Path) -> list[dict[str, Any]]:
    settings = GenerateSettings(model=str(model), prompts=(prompts,), output=output, max_new_tokens=4, temperature=0)
    return list(read_jsonl(generate_responses(settings).output))


# ---- kinds of models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("deberta", "is a DebertaV2ForSequenceClassification; preflab reads decoders with one score head"),
        ("two labels", "has 2 labels; a reward model has one"),
        ("five labels", "has 5 labels; a reward model has one"),
        ("t5", "is an encoder-decoder"),
        ("bert", "is a BertForMaskedLM; preflab reads decoders"),
    ],
)
def test_another_kind_of_model_is_refused_for_scoring(kind: str, said: str, pairs: str, tmp_path: Path) -> None:
    folder = other_kind(tmp_path / "model", kind)
    with pytest.raises(UserError, match=said):
        scored(folder, pairs, tmp_path / "s.jsonl")
    if kind in ("bert", "t5"):
        with pytest.raises(UserError, match=said):
            respond(folder, pairs, tmp_path / "r.jsonl")
        with pytest.raises(UserError, match=said):
            tiny_runs.run("sft", folder, tmp_path / "run")


# ---- tokens without a row of embeddings -----------------------------------------------------------------------------


def test_tokens_beyond_the_embeddings_are_named(tmp_path: Path) -> None:
    folder = policy(tmp_path / "qwen2", "qwen2")
    tokenizer = load_tokenizer(str(folder))
    rows = len(tokenizer)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(folder)
    used = write(tmp_path / "a.jsonl", PAIRS[0], {**PAIRS[0], "prompt": "Hello <tool>"})
    unused = write(tmp_path / "b.jsonl", *PAIRS)
    said = rf"row 2 uses id {rows}, the model has {rows} rows"
    with pytest.raises(UserError, match=said):
        tiny_runs.run("dpo", folder, tmp_path / "dpo", train_data=(used,), eval_data=())
    with pytest.raises(UserError, match=said):
        respond(folder, used, tmp_path / "r.jsonl")
    assert len(respond(folder, unused, tmp_path / "r.jsonl")) == 3


def test_case_14_names_row_id_and_rows(tmp_path: Path) -> None:
    data = case("14-tokenizer-larger-than-embeddings") / "28-added-token.jsonl"
    folder = tiny_runs.write_model(tmp_path / "model")
    tokenizer = load_tokenizer(str(folder))
    rows = len(tokenizer)
    tokenizer.add_tokens(["<|note|>"])
    tokenizer.save_pretrained(folder)
    for work in (
        lambda: tiny_runs.run("sft", folder, tmp_path / "sft", train_data=(str(data),), eval_data=()),
        lambda: tiny_runs.run("reward", folder, tmp_path / "reward", train_data=(str(data),), eval_data=()),
        lambda: respond(folder, str(data), tmp_path / "r.jsonl"),
    ):
        with pytest.raises(UserError, match=rf"row 1 uses id {rows}, the model has {rows} rows"):
            work()


@pytest.mark.slow
def test_case_20_pads_within_the_base(tmp_path: Path) -> None:
    data = case("20-reward-adapter-elsewhere") / "00-plain.jsonl"
    base = tiny_runs.write_model(tmp_path / "model")
    tokenizer = load_tokenizer(str(base))
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(base)
    lora = {**tiny_runs.LORA, "train_data": (str(data),), "eval_data": (), "max_steps": 3}
    merged = tiny_runs.run("reward", base, tmp_path / "run", **lora).model
    adapter = tmp_path / "run" / "adapter"
    own = AutoTokenizer.from_pretrained(adapter)
    inner = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model = PeftModel.from_pretrained(inner, adapter).eval()
    model.config.pad_token_id = own.pad_token_id
    rows = scored(merged, str(data), tmp_path / "s.jsonl")
    chats = [
        [*row["prompt"], {"role": "assistant", "content": row[side]}] for row in rows for side in ("chosen", "rejected")
    ]
    batch = own.apply_chat_template(chats, padding=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    expected = [row[f"score_{side}"] for row in rows for side in ("chosen", "rejected")]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


# ---- adapters -------------------------------------------------------------------------------------------------------


HEADS: dict[str, dict[str, Any]] = {
    "head by LoRA": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings by LoRA": {"target_modules": ["q_proj", "embed_tokens"]},
    "both saved": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "head saved": {"modules_to_save": ["lm_head"]},
    "tokens added": {"grown": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", HEADS)
def test_an_adapter_of_head_or_embeddings_is_merged_first(kind: str, tied: bool, pairs: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    tokenizer = qwen()
    model = tiny_model("qwen2", vocab_size=len(tokenizer), tie_word_embeddings=tied)
    save_model(model, tokenizer, base)
    adapter = adapted(base, tmp_path / "adapter", **HEADS[kind])
    with pytest.raises(UserError, match=r"changes the (output head|embeddings) \(.*\); merge it first \(preflab merge"):
        tiny_runs.run("dpo", adapter, tmp_path / "dpo", train_data=(pairs,), eval_data=(), lora=True)
    assert len(respond(adapter, pairs, tmp_path / "r.jsonl")) == 3
    merged = merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path / "merged")).model
    torch.testing.assert_close(logits(merged), logits(adapter), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(merged)[..., : len(tokenizer)], logits(base), atol=1e-3)
    assert len(load_tokenizer(str(merged))) == logits(merged).shape[-1]
    tiny_runs.run("dpo", merged, tmp_path / "dpo", train_data=(pairs,), eval_data=(), max_steps=1, lora=True)


@pytest.mark.slow
def test_an_adapter_without_all_of_its_tensors_is_refused(tmp_path: Path) -> None:
    base = policy(tmp_path / "qwen2", "qwen2")
    adapter = adapted(base, tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    gone = sorted(weights)[1]
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, path)
    with pytest.raises(UserError, match=rf"lacks {gone} \(1 missing, 0 unexpected\)"):
        merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path / "merged"))
    save_file({**weights, "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(2, 32)}, path)
    with pytest.raises(UserError, match=r"has .*layers\.9.*, which its configuration does not ask for"):
        load_model(str(adapter), "policy", dtype=torch.float32)
    save_file({**weights, gone: torch.ones(5, 7)}, path)
    with pytest.raises(UserError, match=r"q_proj\.lora_."):
        load_model(str(adapter), "policy", dtype=torch.float32)


@pytest.mark.parametrize("change", [{"layers_to_transform": [0]}, {"target_modules": ["v_proj"]}, {"r": 4}])
def test_an_adapter_whose_configuration_is_of_another_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    base = policy(tmp_path / "qwen2", "qwen2")
    adapter = adapted(base, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match="lora_"):
        load_model(str(adapter), "policy", dtype=torch.float32)


def ours(base: str, folder: Path) -> Path:
    model: Any = load_model(base, "policy", dtype=torch.float32)
    model = add_lora(model, "policy", r=2, alpha=2, dropout=0.0, targets=())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    return save_model(model, load_tokenizer(base), folder)


def test_an_adapter_finds_its_base_from_another_folder_and_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    policy(Path("runs/base/qwen2"), "qwen2")
    adapter = ours("runs/base/qwen2", Path("runs/sft/adapter"))
    expected = logits(adapter)
    written = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert written == str(tmp_path / "work" / "runs" / "base" / "qwen2")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(logits(tmp_path / "work" / "runs" / "sft" / "adapter"), expected)
    shutil.move(tmp_path / "work" / "runs", tmp_path / "elsewhere")
    assert torch.equal(logits(tmp_path / "elsewhere" / "sft" / "adapter"), expected)


def test_an_older_adapter_with_a_relative_base_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy(Path("runs/base/qwen2"), "qwen2")
    adapter = ours("runs/base/qwen2", Path("runs/sft/adapter"))
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "runs/base/qwen2"}))
    (adapter / "base_model.json").unlink()
    expected = logits(adapter)
    monkeypatch.chdir("/")
    assert torch.equal(logits(tmp_path / "runs" / "sft" / "adapter"), expected)


@pytest.mark.slow
def test_the_configuration_of_an_adapter_is_written_in_one_order(tmp_path: Path) -> None:
    base = policy(tmp_path / "qwen2", "qwen2")
    first, second = (ours(str(base), tmp_path / name) / "adapter_config.json" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    targets = json.loads(first.read_text())["target_modules"]
    assert targets == sorted(targets)
    assert len(targets) > 3


@pytest.mark.slow
def test_a_reward_adapter_pads_with_a_token_of_its_base(pairs: str, tmp_path: Path) -> None:
    base = policy(tmp_path / "gpt2", "gpt2")
    before = len(pythia())
    train_reward(reward_settings(base, pairs, tmp_path / "run", lora=True, max_steps=1))
    assert len(load_tokenizer(str(tmp_path / "run" / "adapter"))) == before


def test_a_configuration_of_fewer_layers_than_the_weights_is_refused(tmp_path: Path) -> None:
    for architecture, key in (("qwen2", "num_hidden_layers"), ("gpt2", "n_layer"), ("gpt_neox", "num_hidden_layers")):
        path = policy(tmp_path / architecture, architecture) / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: 1, "layer_types": None}))
        with pytest.raises(UserError, match=r"weights are of no layer that its configuration names, such as .*1\."):
            load_model(str(path.parent), "policy", dtype=torch.float32)
