"""Models from hub ids, folders, adapter folders and GGUF files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from preflab.core.durable import check_model
from preflab.core.records import UserError
from preflab.model.adapters import (
    TASK_TYPES,
    Task,
    adapter_base,
    adapter_config,
    base_revision,
    brings_head,
    load_adapter,
    trained_in_float32,
)
from preflab.model.damage import tensors_of
from preflab.model.files import gguf, loading, of_revision, where
from preflab.model.responses import Model
from preflab.model.snapshots import final_model, put_weights

CLASSES = {"policy": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}

MOST_TIMES = 4
"""Parameters for each number in a file: two where they are packed in four bits, and a reward head besides."""

_OF_A_LAYER = re.compile(r"\.(layers|h|blocks)\.\d+\.")


def load_model(
    name: str,
    task: Task,
    *,
    dtype: torch.dtype,
    fresh_head: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> Model:
    """A policy, or a reward model with one label.

    An adapter folder gives its base model with the adapter on top, trainable. `fresh_head` allows a reward head that is
    not in the files and makes one (the caller seeds torch); otherwise a model without a trained head is refused.
    A checkpoint's folder gives the run's model at that step. `revision` is a branch, tag or commit of a hub's id; of an
    adapter's base model, its configuration names it.
    """
    if final := final_model(name):
        return put_weights(load_model(final, task, dtype=dtype, trust_remote_code=trust_remote_code), name)
    check_model(Path(name))
    options: dict[str, Any]
    if base := adapter_base(name):
        _check_adapts(name, task, fresh_head=fresh_head)
        options = {"dtype": dtype, "trust_remote_code": trust_remote_code, "revision": base_revision(name)}
        # Its base model need not have a reward head where the adapter brings one.
        inner = load_model(base, task, fresh_head=task == "reward" and brings_head(name), **options)
        assert isinstance(inner, PreTrainedModel)
        adapted = load_adapter(inner, name)
        return trained_in_float32(adapted) if task == "reward" else adapted
    options = {"dtype": dtype, "trust_remote_code": trust_remote_code, "output_loading_info": True}
    options |= of_revision(name, revision)
    options |= gguf(name) | ({"num_labels": 1} if task == "reward" else {})
    with loading(name, "model"):
        _refuse_more_than_there_is(name, task, trust_remote_code=trust_remote_code)
        model, info = CLASSES[task].from_pretrained(where(name), **options)
    if task == "policy" and any("SequenceClassification" in name for name in model.config.architectures or ()):
        raise UserError(f"{name} is a reward model, not a language model: give the policy to start from")
    missing = set(info["missing_keys"])
    if task == "reward" and missing and not fresh_head:
        raise UserError(
            f"{name} has no trained reward head ({', '.join(sorted(missing))} is missing): its scores would be random"
        )
    if unexpected := missing - {"score.weight"}:
        raise UserError(f"{name} lacks weights of {type(model).__name__}: {', '.join(sorted(unexpected)[:5])}")
    if beyond := sorted(key for key in info["unexpected_keys"] if _OF_A_LAYER.search(key)):
        raise UserError(
            f"{name}: {len(beyond)} weights are of no layer that its configuration names, such as {beyond[0]}: "
            "config.json and weights are not of one model, or are damaged"
        )
    if name.endswith(".gguf"):
        # The weights are dequantised by now, but transformers still marks the model as quantised and would not save it.
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
        # Else an adapter would name the file's folder as its base model.
        model.name_or_path = name
    return without_dropout(model)


def _refuse_more_than_there_is(name: str, task: Task, *, trust_remote_code: bool) -> None:
    """Refuse a configuration that describes a far larger model than the weights beside it are: transformers would make
    up what is missing, for hours, until memory runs out. One that states no sizes describes its family's usual model.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    held = sum(math.prod(entry["shape"]) for entry in tensors_of(folder).values())
    held = held or sum(path.stat().st_size for path in folder.glob("*.bin"))  # of pickles, bytes are all that is known
    if not held:
        return
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        planned = CLASSES[task].from_config(  # type: ignore[no-untyped-call]
            config, trust_remote_code=trust_remote_code
        )
    described = sum(parameter.numel() for parameter in planned.parameters())
    if described > MOST_TIMES * held:
        raise UserError(
            f"{name}: config.json describes a model of {described:,} parameters ({type(planned).__name__}), and the "
            f"weights beside it are {held:,} numbers: they are not of one model, or sizes are missing in config.json"
        )


def _check_adapts(name: str, task: Task, *, fresh_head: bool) -> None:
    """Refuse an adapter that is for another task."""
    found = adapter_config(name).get("task_type")
    if found == TASK_TYPES[task].value:
        return
    if not fresh_head:
        raise UserError(f"{name} is an adapter for {found}, not a {task} model")
    raise UserError(
        f"{name} is an adapter for {found}; a reward model starts from whole weights: merge it first "
        f"(preflab merge {name} OUT) and start from OUT"
    )


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Switch the base model's dropout off: a preference loss compares two passes of the same weights. LoRA's own
    dropout stays.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model
