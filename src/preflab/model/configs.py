"""What the files of a model say of it, read before its weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from preflab.core.durable import read_object
from preflab.core.records import UserError
from preflab.model.adapters import TASK_TYPES, Task, adapter_base, adapter_config, base_revision
from preflab.model.damage import tensors_of
from preflab.model.files import find_file, gguf, loading, of_revision, where
from preflab.model.snapshots import final_model


def read_config(name: str, *, trust_remote_code: bool = False, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a model; of an adapter, that of its base model."""
    name = final_model(name) or name
    if base := adapter_base(name):
        return read_config(base, trust_remote_code=trust_remote_code, revision=base_revision(name))
    with loading(name, "configuration"):
        config = AutoConfig.from_pretrained(
            where(name), **gguf(name), trust_remote_code=trust_remote_code, **of_revision(name, revision)
        )
    assert isinstance(config, PreTrainedConfig)
    return config


def check_kind(name: str, task: Task, *, trust_remote_code: bool = False, revision: str | None = None) -> None:
    """Refuse, by the configuration alone, models that preflab does not read: encoders, encoder-decoders, models of
    images, reward models of several scores. A class that transformers does not know is left to loading.

    Raises:
        UserError: what the model is, and what would do.
    """
    name = final_model(name) or name
    if base := adapter_base(name):
        # What the adapter adapts is said where it is loaded; its base may be a language model under a reward head.
        revision = base_revision(name)
        config = _read_object(base, "config.json", revision)
        if "ForSequenceClassification" not in " ".join(_classes(config)):
            task = "policy"
        name = base
    config = _read_object(name, "config.json", revision)
    if config.get("auto_map") and trust_remote_code:
        _check_precision(config, name)
    else:
        check_kind_of(config, name, task)


def check_kind_of(config: Mapping[str, Any], name: str, task: Task) -> None:
    """The same of a model called `name`, whose configuration is known."""
    _check_precision(config, name)
    if config.get("is_encoder_decoder") is True:
        raise UserError(f"{name} is an encoder-decoder ({_named(config)}); preflab reads decoders")
    for found in _classes(config):
        kind = getattr(transformers, found, None)
        if kind is None or found.endswith("Model"):
            continue
        if found.endswith("ForSequenceClassification"):
            if task == "policy":
                raise UserError(f"{name} is a reward model, not a language model: give the policy to start from")
            if "self.score" not in inspect.getsource(kind) and not issubclass(kind, GenericForSequenceClassification):
                raise UserError(f"{name} is a {found}; preflab reads decoders with one score head")
            if (labels := _labels(config, name)) not in (1, None):
                raise UserError(f"{name} has {labels} labels; a reward model has one, the score")
        elif found not in _CAUSAL:
            raise UserError(f"{name} is a {found}; preflab reads decoders of text (…ForCausalLM)")


def _check_precision(config: Mapping[str, Any], name: str) -> None:
    """Refuse weights in a format of few bits, which cannot be trained and need kernels of their own to be read."""
    said = config.get("quantization_config")
    if not said:
        return
    method = said.get("quant_method") if isinstance(said, dict) else None
    if method not in _DEQUANTISED:
        raise UserError(
            f"{name} is quantised ({method or 'config.json has a quantization_config'}); preflab reads weights in "
            "float32, bfloat16 or float16, and .gguf files: give the model that it was made from"
        )


_DEQUANTISED = {"mxfp4"}
"""Formats that transformers turns into bfloat16 when it loads them."""

_CAUSAL = {
    found
    for kinds in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    for found in ([kinds] if isinstance(kinds, str) else kinds)
}


def _classes(config: Mapping[str, Any]) -> list[str]:
    found = config.get("architectures")
    return [str(kind) for kind in found] if isinstance(found, list) else []


def _named(config: Mapping[str, Any]) -> str:
    return next(iter(_classes(config)), str(config.get("model_type")))


def _labels(config: Mapping[str, Any], name: str) -> int | None:
    """How many scores a classifier gives, by its head or its configuration; None: neither says."""
    if Path(name).is_dir() and (shape := tensors_of(Path(name)).get("score.weight", {}).get("shape")):
        return int(shape[0])
    labels = config.get("id2label")
    count = config.get("num_labels", len(labels) if isinstance(labels, dict) else None)
    return count if type(count) is int else None


def is_reward_model(name: str, *, revision: str | None = None) -> bool:
    """Whether a model, or what an adapter makes of it, gives one score to a sequence."""
    name = final_model(name) or name
    if adapter_base(name):
        return bool(adapter_config(name).get("task_type") == TASK_TYPES["reward"].value)
    config = _read_object(name, "config.json", revision)
    return any("ForSequenceClassification" in kind for kind in _classes(config))


def own_stop_ids(name: str, *, revision: str | None = None) -> tuple[int, ...]:
    """The ids at which a model's files say that generation stops: `eos_token_id` of generation_config.json and of
    config.json. Raises UserError where that is no id.
    """
    name = final_model(name) or name
    if base := adapter_base(name):
        return own_stop_ids(base, revision=base_revision(name))
    files = ("generation_config.json", "config.json")
    return stop_ids_of({file: _read_object(name, file, revision) for file in files}, name)


def stop_ids_of(configs: Mapping[str, Mapping[str, Any]], name: str) -> tuple[int, ...]:
    """The ids of `eos_token_id` in a model's configurations, by their files' names."""
    found: dict[int, None] = {}
    for file, config in configs.items():
        text_config = config.get("text_config")
        inner = text_config if isinstance(text_config, dict) else {}
        for value in (config.get("eos_token_id"), inner.get("eos_token_id")):
            for token_id in value if isinstance(value, list) else [] if value is None else [value]:
                if type(token_id) is not int or token_id >= 2**31:
                    raise UserError(f"{name}/{file}: eos_token_id is {value!r:.60}; it must be a token's id or a list")
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
    return read_object(path)
