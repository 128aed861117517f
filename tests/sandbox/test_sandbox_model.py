"""The tiny model of the sandbox and its tokenizer."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preflab.sandbox.gold import words_of
from preflab.sandbox.tiny import build_tiny_model, build_tokenizer
from preflab.sandbox.world import World, preference_rows

COW = "Where does a cow live?"

# The tiny model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", seed=1)


def test_any_text_survives_the_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = Random(0)
    texts = [COW, "  two  spaces \n\n and\tlines\r\n", "Übung 日本語 🎉👩‍👩‍👧 \x00\x7f ▁Ġ don't 3.14", ""]
    texts += [
        "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(40)) for _ in range(50)
    ]
    for text in texts:
        wanted = unicodedata.normalize("NFC", text)
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False) == wanted


def test_each_word_of_the_sandbox_is_one_token(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row in preference_rows(World(seed=13), rows=200, split="train", style="TRL"):
        for text in (row["prompt"], row["chosen"], row["rejected"]):
            signs = sum(not (sign.isalnum() or sign == " ") for sign in text)
            assert len(tokenizer(text)["input_ids"]) == len(words_of(text)) + signs, text


def test_a_chat_has_one_terminator_a_turn_and_no_other_turns(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    chat = [
        {"role": "user", "content": COW},
        {"role": "assistant", "content": "A cow lives in a barn."},
        {"role": "user", "content": "Thanks."},
    ]
    for turns in (1, 2, 3):
        ids = tokenizer.apply_chat_template(chat[:turns], tokenize=True, return_dict=True)["input_ids"]
        assert ids.count(tokenizer.eos_token_id) == ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == turns
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == f"<|im_start|>user\n{COW}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(chat[:2], tokenize=False).startswith(prompt)


def test_the_saved_tokenizer_is_the_built_one(folder: Path) -> None:
    saved, built = AutoTokenizer.from_pretrained(folder), build_tokenizer()
    assert saved.get_vocab() == built.get_vocab()
    text = f"<|im_start|>user\n{COW} Unknown wörds<|im_end|>"
    assert saved(text)["input_ids"] == built(text)["input_ids"]


def test_the_same_seed_builds_the_same_model_and_leaves_torch_alone(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    same, other = (build_tiny_model(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = {path: AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (folder, same, other)}
    assert all(torch.equal(weights[folder][name], weights[same][name]) for name in weights[folder])
    assert not all(torch.equal(weights[folder][name], weights[other][name]) for name in weights[folder])


def test_the_model_folder_knows_its_tokenizer(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen2"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.config.vocab_size == len(tokenizer)
