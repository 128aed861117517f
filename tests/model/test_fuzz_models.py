"""Damaged files of models, tokenizers, adapters and GGUF: one message or a model, never a traceback, a hang, or memory
without bound.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from mutations import bounded
from tiny_gguf import write_gguf

from preflab.core.records import Comparison, Message, UserError
from preflab.data.splits import template_of
from preflab.model.adapters import add_lora
from preflab.model.load import load_model
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer
from preflab.sample.sampling import Sampling, encode_prompts, generate

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, "x", "", [], {}, [1], {"a": 1}, "../../etc/passwd", "\x00"),
    *(10**12, -(10**12), 2**63, 10**400, 1e308, "9" * 5000, [[[[]]]]),
)
JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
OTHERS = ("chat_template.jinja", "special_tokens_map.json", "model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_runs.write_model(tmp_path_factory.mktemp("fuzz") / "model")
    tokens = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>", "lstrip": False}}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    return folder


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    adapted = add_lora(_policy(model), "policy", r=2, alpha=2, dropout=0.0, targets=())
    return save_model(adapted, load_tokenizer(str(model)), model.parent / "adapter")


@pytest.fixture(scope="module")
def gguf(model: Path) -> Path:
    return write_gguf(model, model.parent / "tiny.gguf")


def _policy(folder: Path) -> Any:
    return load_model(str(folder), "policy", dtype=torch.float32)


def use(folder: Path) -> None:
    """Tokenise, load and generate, as commands do. A UserError is how a damaged file may end, and nothing else."""
    said = "fine"
    try:
        with bounded():
            template = template_of(str(folder), None)
            model = _policy(folder).eval()
            prompts, _ = encode_prompts([Comparison((Message("user", "Hello there"),), ())], template)
            list(generate(model, template, prompts, Sampling(temperature=0.0, max_new_tokens=3)))
    except UserError as error:
        said = str(error)
    assert said.strip()
    assert len(said) < 3000
    assert "report!" not in said


def of_keys(content: Any, draw: random.Random) -> Any:
    """A JSON value in which one place, anywhere, holds something else or is gone."""
    places: list[tuple[Any, Any]] = []

    def gather(value: Any, depth: int) -> None:
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in list(entries)[:40]:
            places.append((value, key))
            if depth < 3:
                gather(inner, depth + 1)

    gather(content, 0)
    holder, key = draw.choice(places)
    if draw.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = draw.choice(ODD)
    return content


def of_bytes(data: bytes, draw: random.Random) -> bytes:
    kind = draw.randrange(6)
    if kind == 0:
        return data[: draw.randrange(len(data))]
    if kind == 1:
        return b""
    if kind == 2:
        start = draw.randrange(len(data))
        return data[:start] + bytes(min(512, len(data) - start)) + data[start + 512 :]
    if kind == 3:
        return data[: draw.randrange(len(data))] + draw.randbytes(30) + data[draw.randrange(len(data)) :]
    found = bytearray(data)
    for _ in range(draw.choice((1, 8, 64))):
        found[draw.randrange(min(len(found), draw.choice((32, 400, 10**9))))] = draw.randrange(256)
    return bytes(found)


def mutate(path: Path, draw: random.Random) -> None:
    if path.suffix == ".json" and draw.random() < 0.75:
        path.write_text(json.dumps(of_keys(json.loads(path.read_text()), draw)))
    elif path.suffix == ".json" and draw.random() < 0.3:
        path.write_text(draw.choice(("[" * 100_000, "[]", "null", "1", '{"a":' * 50_000, '"x"', "NaN", "{}")))
    else:
        path.write_bytes(of_bytes(path.read_bytes(), draw))


def damaged(source: Path, file: str, place: Path, seed: int, times: int) -> None:
    draw = random.Random(f"{file} {seed}")
    for number in range(times):
        copy = place / f"{number}" / source.name
        shutil.copytree(source, copy)
        (copy / "checksums.json").unlink(missing_ok=True)  # which would find all of it at once
        mutate(copy / file, draw)
        use(copy)
        shutil.rmtree(copy.parent)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("file", [*JSON_FILES, *OTHERS])
def test_a_damaged_model_folder(file: str, seed: int, model: Path, tmp_path: Path) -> None:
    if not (model / file).exists():
        pytest.skip(f"this version of transformers writes no {file}")
    damaged(model, file, tmp_path, seed, 12)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "base_model.json"])
def test_a_damaged_adapter(file: str, seed: int, adapter: Path, tmp_path: Path) -> None:
    damaged(adapter, file, tmp_path, seed, 12)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_gguf_file(seed: int, gguf: Path, tmp_path: Path) -> None:
    draw = random.Random(seed)
    data = gguf.read_bytes()
    for number in range(12):
        copy = tmp_path / f"{number}.gguf"
        copy.write_bytes(of_bytes(data, draw))
        use(copy)
        copy.unlink()


def _counts(*values: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:8] + struct.pack("<QQ", *values) + data[24:]


@pytest.mark.parametrize("change", [_counts(2**60, 1), _counts(1, 2**62), _counts(0, 0), lambda data: data[:2000]])
def test_a_gguf_file_that_says_more_than_it_holds(change: Callable[[bytes], bytes], gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(change(gguf.read_bytes()))
    with pytest.raises(UserError):
        load_tokenizer(str(path))
    with pytest.raises(UserError):
        _policy(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 10**12),
        ("vocab_size", 10**12),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 5000),
        ("num_labels", 10**9),
        ("intermediate_size", "64"),
        ("num_attention_heads", 0),
        ("hidden_size", 10**400),
        ("max_position_embeddings", -1),
        ("id2label", 3),
    ],
)
def test_sizes_that_no_model_has_are_named(key: str, value: Any, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / "checksums.json").unlink(missing_ok=True)
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=rf"config\.json: {key} is "):
        load_tokenizer(str(copy))
    with pytest.raises(UserError, match=rf"config\.json: {key} is "):
        _policy(copy)


@pytest.mark.parametrize("part", ["../other.safetensors", "/etc/passwd", "gone.safetensors", 3])
def test_an_index_that_points_elsewhere_is_refused(part: Any, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / "checksums.json").unlink(missing_ok=True)
    (copy / "model.safetensors").rename(tmp_path / "other.safetensors")
    names = {"weight_map": {"model.embed_tokens.weight": part}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(names))
    with pytest.raises(UserError, match=r"index\.json"):
        _policy(copy)
