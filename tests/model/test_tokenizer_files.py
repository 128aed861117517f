"""A tokenizer splits text as the folder's tokenizer.json says, at load and after every save, whatever its class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_models import tiny_model
from tiny_tokenizers import gemma3, llama3, mistral, pythia, qwen
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from preflab.core.records import UserError
from preflab.model.adapters import add_lora
from preflab.model.load import load_model
from preflab.model.save import save_model
from preflab.model.tokenizers import PROBE, load_tokenizer
from preflab.training.merge import merge_adapter
from preflab.training.settings import MergeSettings

pytestmark = pytest.mark.slow


def digits(backend: Tokenizer) -> None:
    """SmolLM2 and others: single digits, under the name of GPT-2's class."""
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), to_bytes])


def words_of_three(backend: Tokenizer) -> None:
    split = pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+|."), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])


def lower(backend: Tokenizer) -> None:
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def no_prefix(backend: Tokenizer) -> None:
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    backend.decoder = decoders.Metaspace(prepend_scheme="never")


def nothing(_: Tokenizer) -> None: ...


# The class that a folder names, its model, its tokenizer, and how its tokenizer.json splits.
KINDS: dict[str, tuple[str, str, Callable[[], Any], Callable[[Tokenizer], None]]] = {
    "gpt2 digits": ("GPT2Tokenizer", "llama", pythia, digits),
    "gpt2 lower": ("GPT2TokenizerFast", "gpt2", pythia, lower),
    "qwen2 plain": ("Qwen2Tokenizer", "qwen2", qwen, nothing),
    "qwen2 digits": ("Qwen2TokenizerFast", "qwen2", qwen, words_of_three),
    "neox digits": ("GPTNeoXTokenizerFast", "gpt_neox", pythia, digits),
    "cohere plain": ("CohereTokenizerFast", "llama", pythia, nothing),
    "llama no prefix": ("LlamaTokenizer", "llama", mistral, no_prefix),
    "llama prefix": ("LlamaTokenizerFast", "mistral", mistral, nothing),
    "llama bytes": ("LlamaTokenizerFast", "llama", llama3, nothing),
    "gemma lower": ("GemmaTokenizerFast", "gemma3_text", gemma3, lower),
    "no class": ("PreTrainedTokenizerFast", "qwen2", qwen, words_of_three),
    "unknown class": ("SomebodysTokenizer", "qwen2", qwen, words_of_three),
}


def model_folder(folder: Path, kind: str) -> Path:
    name, architecture, build, change = KINDS[kind]
    tokenizer = build()
    change(tokenizer.backend_tokenizer)
    vocabulary = len(tokenizer)
    tiny_model(architecture, vocab_size=vocabulary).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": name}))
    return folder


def stated(folder: Path, text: str = PROBE) -> list[int]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_tokenizer_json_at_load_and_after_saving(kind: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", kind)
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.backend_tokenizer.encode(PROBE, add_special_tokens=False).ids == stated(folder)
    own = KINDS[kind][2]()
    assert (tokenizer.eos_token, tokenizer.bos_token) == (own.eos_token, own.bos_token)
    assert len(tokenizer) == len(own)
    model = load_model(str(folder), "policy", dtype=torch.float32)
    saved = save_model(model, tokenizer, tmp_path / "saved")
    assert stated(saved) == stated(folder)
    for again in (load_tokenizer(str(saved)), AutoTokenizer.from_pretrained(saved)):
        assert again.backend_tokenizer.encode(PROBE, add_special_tokens=False).ids == stated(folder)


def test_transformers_alone_would_split_otherwise(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    differs = {
        kind
        for number, kind in enumerate(KINDS)
        for folder in [model_folder(tmp_path / str(number), kind)]
        if AutoTokenizer.from_pretrained(folder).encode(PROBE, add_special_tokens=False) != stated(folder)
    }
    assert differs >= {"gpt2 lower", "gemma lower", "cohere plain", "neox digits"}


def test_a_merged_folder_splits_as_the_adapters_does(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "gpt2 digits")
    model = load_model(str(folder), "policy", dtype=torch.float32)
    adapted = add_lora(model, "policy", r=2, alpha=2, dropout=0.0, targets=())
    adapter = save_model(adapted, load_tokenizer(str(folder)), tmp_path / "adapter")
    merged = merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path / "merged")).model
    assert stated(merged) == stated(folder)
    assert AutoTokenizer.from_pretrained(merged).encode(PROBE, add_special_tokens=False) == stated(folder)


@pytest.mark.parametrize("damage", ["gone", "no vocabulary", "only special tokens", "not a tokenizer"])
def test_a_tokenizer_that_reads_no_text_is_refused(damage: str, tmp_path: Path) -> None:
    folder = tiny_runs.write_model(tmp_path / "model")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    if damage == "gone":
        path.unlink()
    elif damage == "no vocabulary":
        path.write_text(json.dumps({**content, "model": {**content["model"], "vocab": {}, "merges": []}}))
    elif damage == "only special tokens":
        vocabulary = {token["content"]: token["id"] for token in content["added_tokens"]}
        path.write_text(json.dumps({**content, "model": {**content["model"], "vocab": vocabulary, "merges": []}}))
    else:
        path.write_text("[1, 2]")
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(str(folder))


def test_a_folder_with_the_older_files_of_its_class_is_read(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "gpt2 digits")
    plain = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(plain["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in plain["merges"]))
    (folder / "tokenizer.json").unlink()
    assert load_tokenizer(str(folder)).decode(load_tokenizer(str(folder)).encode("Hello there")) == "Hello there"
