"""What the files of a model say of it, read before its weights."""

from __future__ import annotations

import json
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from preflab.model.adapters import TASK_TYPES, adapter_base, adapter_config
from preflab.model.files import find_file, gguf, loading, where
from preflab.model.snapshots import final_model
from preflab.records import UserError


def read_config(name: str, *, trust_remote_code: bool = False, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a model; of an adapter, that of its base model."""
    name = final_model(name) or name
    if base := adapter_base(name):
        return read_config(base, trust_remote_code=trust_remote_code)
    with loading(name, "configuration"):
        config = AutoConfig.from_pretrained(
            where(name), **gguf(name), trust_remote_code=trust_remote_code, revision=revision or "main"
        )
    assert isinstance(config, PreTrainedConfig)
    return config


def is_reward_model(name: str, *, revision: str | None = None) -> bool:
    """Whether a model, or what an adapter makes of it, gives one score to a sequence."""
    name = final_model(name) or name
    if adapter_base(name):
        return bool(adapter_config(name).get("task_type") == TASK_TYPES["reward"].value)
    config = _read_object(name, "config.json", revision)
    found = config.get("architectures") or ()
    return isinstance(found, list) and any("ForSequenceClassification" in str(kind) for kind in found)


def own_stop_ids(name: str, *, revision: str | None = None) -> tuple[int, ...]:
    """The ids at which a model's files say that generation stops: `eos_token_id` of generation_config.json and of
    config.json. Raises UserError where that is no id.
    """
    name = final_model(name) or name
    if base := adapter_base(name):
        return own_stop_ids(base)
    found: dict[int, None] = {}
    for file in ("generation_config.json", "config.json"):
        config = _read_object(name, file, revision)
        text_config = config.get("text_config")
        inner = text_config if isinstance(text_config, dict) else {}
        for value in (config.get("eos_token_id"), inner.get("eos_token_id")):
            for token_id in value if isinstance(value, list) else [] if value is None else [value]:
                if type(token_id) is not int or token_id >= 2**31:
                    raise UserError(f"{name}/{file}: eos_token_id is {value!r}; it must be a token's id or a list")
                if token_id >= 0:
                    found[token_id] = None
    return tuple(found)


def unread_id(name: str, pad_token_id: int | None, *, trust_remote_code: bool, revision: str | None) -> int | None:
    """The id that transformers passes over at the end of a sequence that a reward model scores; None: no id.

    It is the configuration's pad token; an adapter's folder has no such configuration, so that it is the pad token of
    the tokenizer that was saved with it, `pad_token_id`.
    """
    if adapter_base(final_model(name) or name):
        return pad_token_id
    config = read_config(name, trust_remote_code=trust_remote_code, revision=revision).get_text_config()
    found = config.pad_token_id
    return found if type(found) is int else None


def _read_object(name: str, file: str, revision: str | None) -> dict[str, Any]:
    """A JSON file of a model's folder; empty where there is none."""
    with loading(name, "model"):
        path = find_file(name, file, revision)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: a JSON object was expected, not {type(found).__name__}")
    return found
