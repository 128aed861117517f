"""Files of models that are damaged, or made to do harm: found before a library allocates what they ask for."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from preflab.core.durable import read_object
from preflab.core.records import UserError

# What a configuration's number may be at most; far above any model that fits a machine, far below what hangs one.
_MOST: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 10_000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "ffn_dim"), 2**22),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads"), 2**16),
    **dict.fromkeys(("head_dim", "kv_channels", "num_experts", "num_local_experts", "n_routed_experts"), 2**16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "sliding_window"), 2**31),
    "vocab_size": 2**26,
    "num_labels": 100_000,
}
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_FLOATS = {"F64", "F32", "F16", "BF16"}


def check_folder(folder: Path) -> None:
    """Refuse what the files of a local model's folder say, where no library could make sense of it.

    Raises:
        UserError: configurations that are no JSON objects, sizes that are no such numbers or beyond what the weights
            hold, an index of weights that points elsewhere, weights of another kind of numbers.
    """
    names = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
    configs = {name: read_object(folder / name) for name in names if (folder / name).is_file()}
    if (folder / "tokenizer.json").is_file():
        state = (folder / "tokenizer.json").stat()
        _check_tokenizer(folder / "tokenizer.json", state.st_mtime_ns, state.st_size)
    headers = tensors_of(folder)
    if config := configs.get("config.json"):
        check_numbers(config, folder / "config.json", tensors=len(headers) or None)
        if not config.get("quantization_config"):
            _check_kinds(headers, folder)


def check_numbers(config: Mapping[str, Any], path: Path | str, *, tensors: int | None = None) -> None:
    """Refuse sizes that no model has: they would be allocated, or looped over. `tensors`: how many weights."""
    for inner in ("text_config", "llm_config"):
        if isinstance(config.get(inner), dict):
            check_numbers(config[inner], path, tensors=tensors)
    for key, most in _MOST.items():
        value = config.get(key)
        if value is None or isinstance(value, (list, dict)) or value is False:
            continue
        if type(value) is not int:
            raise UserError(f"{path}: {key} is {value!r:.60}; it must be a whole number")
        if not (0 if key in ("sliding_window", "num_experts", "num_local_experts") else 1) <= value <= most:
            raise UserError(f"{path}: {key} is {shown_number(value)}; it must be from 1 to {most}")
        if key in _LAYERS and tensors is not None and value > tensors:
            raise UserError(f"{path}: {key} is {value}, but the weights beside it are only {tensors} tensors")
    kinds = config.get("architectures")
    if kinds is not None and not (isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)):
        raise UserError(f"{path}: architectures is {kinds!r:.60}; it must be a list of names")
    labels = config.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise UserError(f"{path}: id2label is {labels!r:.60}; it must be an object of ids and names")


def shown_number(value: int) -> str:
    """A number as a message can hold it."""
    return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"


def read_header(path: Path) -> dict[str, Any]:
    """Name -> dtype, shape and place of the tensors in a safetensors file. Raises UserError where they do not fit."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, 100_000_000):
            raise UserError(f"{path}: is not a whole safetensors file: it is cut, or another kind of file")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise UserError(f"{path}: the header of this safetensors file is damaged")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        place = entry.get("data_offsets")
        if not (isinstance(place, list) and len(place) == 2 and all(type(offset) is int for offset in place)):
            raise UserError(f"{path}: the header of this safetensors file is damaged at {name}")
        if not 0 <= place[0] <= place[1] <= size - 8 - length:
            raise UserError(f"{path}: is cut: {name} would lie beyond its end")
    return header


def tensors_of(folder: Path) -> dict[str, Any]:
    """The headers of all safetensors files that a folder's weights lie in; empty where they are in another format."""
    return {name: entry for path in _weight_files(folder) for name, entry in read_header(path).items()}


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    parts = read_object(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise UserError(f"{index}: weight_map must name a file for every weight")
    files = []
    for part in sorted(set(parts.values())):
        if Path(part).name != part:
            raise UserError(f"{index}: names {part!r}, which is not a file in this folder")
        if not (folder / part).is_file():
            raise UserError(f"{index}: names {part}, which is not there")
        files.append(folder / part)
    return files


def _check_kinds(headers: Mapping[str, Any], folder: Path) -> None:
    for name, entry in headers.items():
        kind = entry.get("dtype")
        if name.endswith(".weight") and kind not in _FLOATS:
            raise UserError(f"{folder}: {name} is stored as {kind}; weights must be {', '.join(sorted(_FLOATS))}")


@lru_cache(maxsize=8)
def _check_tokenizer(path: Path, _changed: int, _size: int) -> None:
    """Once for each state of the file, since it may be large."""
    content = read_object(path)
    model, added = content.get("model"), content.get("added_tokens", [])
    if not isinstance(model, dict):
        raise UserError(f"{path}: model is {model!r:.60}; a tokenizer.json describes its vocabulary there")
    if added is not None and not (isinstance(added, list) and all(isinstance(token, dict) for token in added)):
        raise UserError(f"{path}: added_tokens must be a list of objects")
    vocabulary = model.get("vocab")
    ids = vocabulary.values() if isinstance(vocabulary, dict) else ()
    for token_id in [*ids, *(token.get("id") for token in added or ())]:
        if type(token_id) is not int or not 0 <= token_id < 2**31:
            raise UserError(f"{path}: {token_id!r:.60} is no token's id")


# ---- GGUF ------------------------------------------------------------------------------------------------------------

# Bytes of the kinds of values in a GGUF header: struct's letter; strings (8) and arrays (9) say their own length.
_KINDS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _DEEPEST = 8, 9, 4


def check_gguf(path: Path) -> None:
    """Walk through the header of a GGUF file. Raises UserError where it says more than the file can hold."""
    try:
        with path.open("rb") as file:
            _walk(file, path.stat().st_size, path)
    except (struct.error, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{path}: the header of this GGUF file is damaged or cut") from error


def _walk(file: BinaryIO, size: int, path: Path) -> None:
    magic, version, tensors, values = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        raise UserError(f"{path}: is not a GGUF file of version 2 or 3")
    if tensors * 24 + values * 13 > size:
        raise UserError(f"{path}: says that it holds {tensors} tensors and {values} values, more than fit the file")
    meta: dict[str, Any] = {}
    for _ in range(values):
        name = _string(file, size)
        meta[name] = _value(file, size, *struct.unpack("<I", file.read(4)))
    architecture = meta.get("general.architecture")
    named = {
        "num_hidden_layers": meta.get(f"{architecture}.block_count"),
        "hidden_size": meta.get(f"{architecture}.embedding_length"),
        "intermediate_size": meta.get(f"{architecture}.feed_forward_length"),
        "num_attention_heads": meta.get(f"{architecture}.attention.head_count"),
        "num_key_value_heads": meta.get(f"{architecture}.attention.head_count_kv"),
        "max_position_embeddings": meta.get(f"{architecture}.context_length"),
        "vocab_size": meta.get(f"{architecture}.vocab_size"),
    }
    check_numbers(named, path, tensors=tensors)
    for _ in range(tensors):
        name = _string(file, size)
        (dimensions,) = struct.unpack("<I", file.read(4))
        if dimensions > 8:
            raise UserError(f"{path}: {name[:60]!r} has {dimensions} dimensions")
        *shape, _, offset = struct.unpack(f"<{dimensions}QIQ", file.read(8 * dimensions + 12))
        count = 1
        for width in shape:
            count *= width
        if offset > size or count > 64 * size:
            raise UserError(f"{path}: {name[:60]!r} does not fit the file: it is cut, or its header is damaged")


def _string(file: BinaryIO, size: int) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    return _take(file, length, size).decode()


def _value(file: BinaryIO, size: int, kind: int, depth: int = 0) -> Any:
    """A value of the header; of an array nothing is kept."""
    if kind == _STRING:
        return _string(file, size)
    if kind == _ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        if count > size or depth > _DEEPEST:
            raise EOFError
        if inner in _KINDS:
            _take(file, count * struct.calcsize(_KINDS[inner]), size)
        else:
            for _ in range(count):
                _value(file, size, inner, depth + 1)
        return None
    if kind not in _KINDS:
        raise EOFError
    letter = _KINDS[kind]
    return struct.unpack(f"<{letter}", file.read(struct.calcsize(letter)))[0]


def _take(file: BinaryIO, length: int, size: int) -> bytes:
    if length > size:
        raise EOFError
    found = file.read(length)
    if len(found) < length:
        raise EOFError
    return found
