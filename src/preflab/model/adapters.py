"""Adapters: made, found in folders, and merged into their base models."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    LoraConfig,
    PeftModel,
    PromptLearningConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
)
from torch import nn
from transformers import PreTrainedModel

from preflab.core.durable import read_object
from preflab.core.records import UserError
from preflab.model.damage import read_header
from preflab.model.files import loading, quiet
from preflab.model.responses import transformers_model, usual_attention

_OF_TOKENS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "lm_head.weight", "embed_out.weight")
# Of embeddings that grew, PEFT writes what is trained once more, and what it replaces.
_SAVED_TWICE = re.compile(r"\.(?:modules_to_save|original_module)(?=\.)")
_HEADS = re.compile(r"\b(lm_head|embed_out|embed_tokens|embed_in|wte)\b")

Task = Literal["policy", "reward"]
TASK_TYPES: dict[Task, TaskType] = {"policy": TaskType.CAUSAL_LM, "reward": TaskType.SEQ_CLS}
ADAPTER_CONFIG = "adapter_config.json"
BASE_PLACE = "base_model.json"


def add_lora(
    model: PreTrainedModel, task: Task, *, r: int, alpha: int, dropout: float, targets: Sequence[str]
) -> PeftModel:
    """A fresh adapter on all linear layers of the backbone (or those named), the reward head trained beside it."""
    config = LoraConfig(
        task_type=TASK_TYPES[task],
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=sorted(targets) if targets else _linear_layers(model),
        modules_to_save=["score"] if task == "reward" else None,
    )
    try:
        with quiet():
            return trained_in_float32(get_peft_model(model, config))
    except ValueError as error:
        if not targets:
            raise
        raise UserError(f"lora_target_modules: {error} It has {', '.join(_linear_layers(model))}") from None


def trained_in_float32(adapted: PeftModel) -> PeftModel:
    """PEFT makes an adapter's matrices float32, but leaves the reward head beside them in the base model's precision,
    where a small learning rate vanishes in rounding.
    """
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def merge_adapter(
    adapted: PeftModel, example_ids: torch.Tensor, *, tolerance: float = 1e-3
) -> tuple[PreTrainedModel, float]:
    """The base model with the adapter in its weights, and the largest difference of outputs relative to the largest
    output.

    example_ids: [1, T]. The model is merged in place; it should be float32, because half precision would round the
    adapter's small changes away. A difference above `tolerance` is a UserError: the merged model is another one.
    """
    usual_attention(adapted)
    adapted.eval()
    example_ids = example_ids.to(next(adapted.parameters()).device)
    with torch.no_grad():
        before = adapted(input_ids=example_ids).logits.float()
        _untie_if_one_is_adapted(adapted)
        merged = adapted.merge_and_unload(safe_merge=True)
        after = merged(input_ids=example_ids).logits.float()
    difference = float((after - before).abs().max() / before.abs().max())
    if not difference <= tolerance:
        raise UserError(
            f"merging changed the outputs by {difference:.2g} of the largest one, more than the tolerance {tolerance:g}"
        )
    return merged, difference


def _untie_if_one_is_adapted(adapted: PeftModel) -> None:
    """Give head and embeddings weights of their own where they share them and the adapter changes only one."""
    inner = transformers_model(adapted)
    parts: list[Any] = [inner.get_output_embeddings(), inner.get_input_embeddings()]  # type: ignore[no-untyped-call]
    wrapped = [hasattr(part, "get_base_layer") for part in parts]
    head, embeddings = (part.get_base_layer() if hasattr(part, "get_base_layer") else part for part in parts)
    if sum(wrapped) == 1 and head is not None and head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        inner.config.tie_word_embeddings = inner.config.get_text_config().tie_word_embeddings = False


def adapter_base(name: str) -> str | None:
    """The base model of an adapter folder, None for anything else."""
    if not (Path(name) / ADAPTER_CONFIG).is_file():
        return None
    config = adapter_config(name)
    _check_on_weights(config, name)
    base = config.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise UserError(f"{name}/{ADAPTER_CONFIG} does not name its base model (base_model_name_or_path)")
    base = _found_base(base, Path(name).resolve())
    if (Path(base) / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{name}/{ADAPTER_CONFIG}: its base model {base} is an adapter itself; merge that one first "
            f"(preflab merge {base} OUT), and name OUT as the base model"
        )
    return base


def _found_base(base: str, folder: Path) -> str:
    """Where the base model lies that an adapter's folder names, if it does; else the name as it stands."""
    if Path(base).exists():
        return base
    moved = folder / BASE_PLACE
    if moved.is_file() and isinstance(relative := read_object(moved).get("base_model"), str):
        found = (folder / relative).resolve()
        if found.exists():
            return str(found)
    if not Path(base).is_absolute():  # written from a folder above, as older versions and other tools do
        for above in folder.parents:
            if (above / base / "config.json").is_file() or (base.endswith(".gguf") and (above / base).is_file()):
                return str(above / base)
    return base


def _check_on_weights(config: Mapping[str, Any], name: str) -> None:
    """Refuse an adapter that puts learnt tokens before the prompt, or into attention, instead of changing weights."""
    kind = config.get("peft_type")
    known = next((config for other, config in PEFT_TYPE_TO_CONFIG_MAPPING.items() if other.value == kind), None)
    if kind == "ADAPTION_PROMPT" or (known is not None and issubclass(known, PromptLearningConfig)):
        raise UserError(
            f"{name}/{ADAPTER_CONFIG}: the adapter is of kind {kind}, learnt tokens beside the prompt's own; preflab "
            "reads adapters on weights, such as LoRA (peft_type)"
        )


def base_revision(name: str) -> str | None:
    """Which revision of the hub's base model an adapter is for; None for a local one, and for the newest."""
    base, found = adapter_base(name), adapter_config(name).get("revision")
    return found if isinstance(found, str) and base is not None and not Path(base).exists() else None


def write_config(model: PeftModel, folder: Path) -> None:
    """Write an adapter's configuration anew: in one order, and its base model by a path that holds from everywhere.

    Other tools read an absolute path, and ids of the hub as they are. What leads there from the adapter's folder is
    written beside it, for folders that are moved together.
    """
    path = folder / ADAPTER_CONFIG
    config, base = read_object(path), str(transformers_model(model).name_or_path)
    for name, value in model.peft_config[model.active_adapter].to_dict().items():
        if isinstance(value, (set, frozenset)):
            config[name] = sorted(value)
    if base and Path(base).exists():
        place = Path(base).resolve()
        config["base_model_name_or_path"] = str(place)
        relative = os.path.relpath(place, folder.resolve())
        (folder / BASE_PLACE).write_text(json.dumps({"base_model": relative}) + "\n", encoding="utf-8")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def adapter_task(name: str) -> Task:
    """What an adapter folder adapts: a policy or a reward model."""
    found = adapter_config(name).get("task_type")
    for task, task_type in TASK_TYPES.items():
        if found == task_type.value:
            return task
    known = " or ".join(task_type.value for task_type in TASK_TYPES.values())
    raise UserError(f"{name}/{ADAPTER_CONFIG}: the adapter is for {found}; it must be for {known} (task_type)")


def adapter_config(name: str) -> dict[str, Any]:
    return read_object(Path(name) / ADAPTER_CONFIG)


def load_adapter(inner: PreTrainedModel, name: str) -> PeftModel:
    """The adapter of a folder on top of its base model, trainable; with embeddings of as many tokens as it brings.

    Raises:
        UserError: its file lacks a tensor that its configuration asks for, or has one that does not; PEFT would fill
            the one with random numbers and pass over the other.
    """
    rows = {shape[0] for key, shape in shapes_of(name).items() if key.endswith(_OF_TOKENS)}
    with loading(name, "adapter"):
        if len(rows) == 1 and (count := rows.pop()) != inner.config.get_text_config().vocab_size:
            inner.resize_token_embeddings(count, mean_resizing=False)
        adapted = PeftModel.from_pretrained(inner, name, is_trainable=True)
        wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        given = load_peft_weights(name, device="cpu")
    missing, strange = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    strange = [key for key in strange if key not in adapted.state_dict() and _SAVED_TWICE.sub("", key) not in wanted]
    if missing or strange:
        found = f"lacks {missing[0]}" if missing else f"has {strange[0]}, which its configuration does not ask for"
        raise UserError(
            f"{name}: the file of weights {found} ({len(missing)} missing, {len(strange)} unexpected): "
            f"{ADAPTER_CONFIG} and weights are not of one adapter, or are damaged"
        )
    return adapted


def brings_head(name: str) -> bool:
    """Whether an adapter's weights have a reward head among them."""
    return any(key.endswith("score.weight") for key in shapes_of(name))


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in an adapter's file."""
    path = Path(name) / "adapter_model.safetensors"
    if path.is_file():
        return {key: tuple(entry.get("shape", ())) for key, entry in read_header(path).items()}
    with loading(name, "adapter"):
        return {key: tuple(tensor.shape) for key, tensor in load_peft_weights(name, device="cpu").items()}


def refuse_head_of_its_own(name: str) -> None:
    """Refuse to train an adapter on that changes the output head or the embeddings: log-probabilities are of a plain
    linear head, and what is trained of embeddings would not be saved.
    """
    changed = [key for key in shapes_of(name) if _HEADS.search(key)]
    if changed:
        part = "output head" if re.search(r"lm_head|embed_out", changed[0]) else "embeddings"
        raise UserError(
            f"{name}: the adapter changes the {part} ({changed[0]}); merge it first (preflab merge {name} OUT) and go "
            "on from OUT"
        )


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the backbone's linear layers, as LoRA's targets: `q_proj`, `c_attn`, `query_key_value`…"""
    # GPT-2 keeps its linear layers in transformers' Conv1D.
    found = (path for path, module in model.base_model.named_modules() if type(module).__name__ in ("Linear", "Conv1D"))
    return sorted({path.rsplit(".", 1)[-1] for path in found})
