"""What ends a response: the template's terminator, the tokenizer's EOS, and the ids that the model's own files name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_models import tiny_model
from tiny_tokenizers import qwen
from transformers import AutoModelForCausalLM, GenerationConfig

from preflab.core.records import Comparison, Message, UserError
from preflab.data.splits import template_of
from preflab.model.configs import own_stop_ids
from preflab.model.load import load_model
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer
from preflab.sample.sampling import Sampling, encode_prompts, generate
from preflab.training.merge import merge_adapter
from preflab.training.settings import MergeSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Its generation_config.json names ids 300 and 7, its config.json 301 besides."""
    folder = tiny_runs.write_model(tmp_path / "model")
    set_key(folder / "config.json", "eos_token_id", [300, 301])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [300, 7]}))
    return folder


def set_key(path: Path, key: str, value: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_all_of_them_stop_and_each_stands_once(model: Path) -> None:
    template = template_of(str(model), None)
    eos = template.tokenizer.eos_token_id
    assert template.stop_ids == (template.terminator_id, 300, 7, 301)
    assert eos == template.terminator_id
    assert template.stops == {"stop_ids": [7, 300, 301]}


@pytest.mark.slow
def test_a_response_ends_where_the_models_own_list_says(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tokenizer = qwen()
    tiny_model("qwen2", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sampling = Sampling(temperature=1.0, max_new_tokens=40, seed=1)

    def respond() -> Any:
        template = template_of(str(folder), None)
        prompts, _ = encode_prompts([Comparison((Message("user", "Hello there"),), ())], template)
        ((found,),) = generate(load_model(str(folder), "policy", dtype=torch.float32), template, prompts, sampling)
        return found

    before = respond()
    assert before.tokens > 5
    stop = before.ids[4]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [stop]}))
    after = respond()
    assert (after.ids, after.finish) == (before.ids[: before.ids.index(stop)], "eos")


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_all_of_them_survive_training(model: Path, tmp_path: Path, lora: bool) -> None:
    changes = {**(tiny_runs.LORA if lora else {}), "max_steps": 1, "eval_data": ()}
    final = tiny_runs.run("sft", model, tmp_path / "run", **changes).model
    terminator = template_of(str(model), None).terminator_id
    assert set(GenerationConfig.from_pretrained(final).eos_token_id) == {terminator, 300, 7, 301}
    assert set(AutoModelForCausalLM.from_pretrained(final).generation_config.eos_token_id) >= {300, 7, 301}
    assert set(template_of(str(final), None).stop_ids) == {terminator, 300, 7, 301}
    if lora:
        adapter = tmp_path / "run" / "adapter"
        assert set(template_of(str(adapter), None).stop_ids) == {terminator, 300, 7, 301}
        merged = merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path / "merged")).model
        assert set(GenerationConfig.from_pretrained(merged).eos_token_id) == {terminator, 300, 7, 301}


@pytest.mark.parametrize("others", [{"temperature": 0.6, "top_p": 0.9}, {"early_stopping": True}, {"top_k": 0}])
def test_generation_settings_that_contradict_each_other_do_not_lose_a_training(
    model: Path, tmp_path: Path, others: dict[str, Any]
) -> None:
    """transformers reads them, with a warning, and would not write them."""
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [300, 7], "do_sample": False, **others}))
    trained = load_model(str(model), "policy", dtype=torch.float32)
    saved = save_model(trained, load_tokenizer(str(model)), tmp_path / "saved", stop_ids=(5, 300, 7))
    assert GenerationConfig.from_pretrained(saved).eos_token_id == [5, 300, 7]


@pytest.mark.parametrize("value", ["</s>", [1, "2"], 1.5, True, {"id": 3}, 10**30])
def test_what_is_no_id_is_refused(model: Path, value: Any) -> None:
    set_key(model / "generation_config.json", "eos_token_id", value)
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id is .*; it must be a token's id"):
        own_stop_ids(str(model))
