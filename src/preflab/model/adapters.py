"""Adapters: made, found in folders, and merged into their base models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, load_peft_weights
from transformers import PreTrainedModel

from preflab.model.files import loading, quiet
from preflab.model.responses import usual_attention
from preflab.records import UserError

Task = Literal["policy", "reward"]
TASK_TYPES: dict[Task, TaskType] = {"policy": TaskType.CAUSAL_LM, "reward": TaskType.SEQ_CLS}
ADAPTER_CONFIG = "adapter_config.json"


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
        merged = adapted.merge_and_unload(safe_merge=True)
        after = merged(input_ids=example_ids).logits.float()
    difference = float((after - before).abs().max() / before.abs().max())
    if not difference <= tolerance:
        raise UserError(
            f"merging changed the outputs by {difference:.2g} of the largest one, more than the tolerance {tolerance:g}"
        )
    return merged, difference


def adapter_base(name: str) -> str | None:
    """The base model of an adapter folder, None for anything else."""
    if not (Path(name) / ADAPTER_CONFIG).is_file():
        return None
    base = adapter_config(name).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{name}/{ADAPTER_CONFIG} does not name its base model (base_model_name_or_path)")
    return str(base)


def adapter_task(name: str) -> Task:
    """What an adapter folder adapts: a policy or a reward model."""
    found = adapter_config(name).get("task_type")
    for task, task_type in TASK_TYPES.items():
        if found == task_type.value:
            return task
    known = " or ".join(task_type.value for task_type in TASK_TYPES.values())
    raise UserError(f"{name}/{ADAPTER_CONFIG}: the adapter is for {found}; it must be for {known} (task_type)")


def adapter_config(name: str) -> dict[str, Any]:
    try:
        return dict(json.loads((Path(name) / ADAPTER_CONFIG).read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{name}/{ADAPTER_CONFIG} is not JSON: {error}") from None


def brings_head(name: str) -> bool:
    with loading(name, "adapter"):
        return any(key.endswith("score.weight") for key in load_peft_weights(name, device="cpu"))


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the backbone's linear layers, as LoRA's targets: `q_proj`, `c_attn`, `query_key_value`…"""
    # GPT-2 keeps its linear layers in transformers' Conv1D.
    found = (path for path, module in model.base_model.named_modules() if type(module).__name__ in ("Linear", "Conv1D"))
    return sorted({path.rsplit(".", 1)[-1] for path in found})
