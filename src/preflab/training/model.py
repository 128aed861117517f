"""From a recipe's settings to a model that is ready to train, and back to the folders that a run leaves."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import parse_flag_from_env
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from preflab.core.records import UserError
from preflab.data.tokenize import ChatTemplate
from preflab.model.adapters import Task, adapter_base, add_lora, merge_adapter
from preflab.model.files import of_revision
from preflab.model.in_memory import InMemory, whole_in_float32
from preflab.model.load import load_model, without_dropout
from preflab.model.precision import pick_dtype
from preflab.model.responses import PROBE, Model, transformers_model
from preflab.model.save import save_model
from preflab.model.tokenizers import pad_apart_from, pad_with
from preflab.training.preference_settings import PreferenceSettings
from preflab.training.settings import RewardSettings, SFTSettings

TrainingSettings = SFTSettings | RewardSettings | PreferenceSettings


def load_trainable(
    settings: TrainingSettings, task: Task, template: ChatTemplate, device: torch.device, held: InMemory | None = None
) -> Model:
    """The model with what is to be trained of it: all weights, a fresh adapter, or the adapter that it came with. One
    that is `held` in memory is trained itself.

    It comes on `device`, so that what is tried out of it is what runs; one that FSDP or DeepSpeed will shard stays on
    the CPU, because a device need not have room for all of it.
    """
    if settings.dtype == "float16" or (held and held.dtype == torch.float16):
        raise UserError("dtype float16 overflows in training (rewards become NaN): choose bfloat16 or float32")
    model = without_dropout(held.model) if held else _load(settings, task, device)
    if isinstance(model, PeftModel):
        _refuse_another_shape(settings)
    inner = transformers_model(model)
    if task == "reward":
        # What other tools need to pool the token that is trained here.
        if template.unread_id is None:
            pad_apart_from(template.stop_ids, template.tokenizer, inner, grow=not settings.lora)
        else:
            pad_with(template.unread_id, template.tokenizer, inner)
        template.tokenizer.chat_template = template.ending_at_terminator
    if settings.lora and isinstance(model, PreTrainedModel):
        model = add_lora(
            model,
            task,
            r=settings.lora_r,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            targets=settings.lora_target_modules,
        )
        named = of_revision(settings.model, settings.revision)  # of the base model, for who loads it
        model.peft_config[model.active_adapter].revision = named.get("revision")
    if settings.gradient_checkpointing:
        newer = getattr(inner, "activation_checkpointing_enable", None)  # as newer versions call it
        (newer or inner.gradient_checkpointing_enable)({"use_reentrant": False})
    sharded = parse_flag_from_env("ACCELERATE_USE_FSDP") or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")
    if not sharded:
        nn.Module.to(model, device)
    return model


def _load(settings: TrainingSettings, task: Task, device: torch.device) -> Model:
    """The model that the settings name, whole, or with the adapter that is to be trained on."""
    dtype = pick_dtype(settings.dtype, device, frozen=settings.lora)
    merging = adapter_base(settings.model) is not None and not settings.lora
    model = load_model(
        settings.model,
        task,
        dtype=torch.float32 if merging else dtype,
        fresh_head=task == "reward",
        trust_remote_code=settings.trust_remote_code,
        revision=settings.revision,
    )
    if isinstance(model, PeftModel) and merging:
        # Training all weights starts from what base and adapter are together.
        model = merge_adapter(model, example_ids())[0]
        nn.Module.to(model, dtype).requires_grad_(True)
    return model


def _refuse_another_shape(settings: TrainingSettings) -> None:
    """An adapter that is trained on keeps its shape; what was asked for explicitly is not ignored."""
    shape = {"lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"}
    if asked := sorted(shape & settings.model_fields_set):
        raise UserError(
            f"{', '.join(asked)}: {settings.model} is an adapter, which is trained on with the shape that it has. "
            "Leave these settings out, or merge it first (preflab merge) to put a new adapter on top"
        )


def save_trained(
    accelerator: Accelerator,
    prepared: nn.Module,
    template: ChatTemplate,
    folder: Path,
    held: InMemory | None = None,
) -> Path:
    """Write `model/`; or, of an adapter, `adapter/` and the whole model with it merged in, `merged_model/`.

    Merging is done in float32, on the adapter as it was saved: a base model in bfloat16 would round the adapter's small
    changes away, and a sharded one cannot be merged. `held` is the model that was trained, where it came from memory.
    `prepared` is a ResponseLogps or ResponseRewards as Accelerate
    wrapped it.
    """
    accelerator.wait_for_everyone()
    model = accelerator.unwrap_model(prepared).model
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    # Sharded weights are gathered by all processes together; the others lie whole in every process.
    weights = _without_prefix(accelerator.get_state_dict(prepared), "model.") if sharded else None
    adapted = isinstance(model, PeftModel)
    final = folder / ("merged_model" if adapted else "model")
    if accelerator.is_main_process:
        own = folder / "adapter" if adapted else final
        save_model(model, template.tokenizer, own, stop_ids=template.stop_ids, weights=weights)
        if isinstance(model, PeftModel):
            task = _task(model)
            if held:  # no file need have its base model
                saved: Model = whole_in_float32(model)
            else:
                saved = load_model(str(own), task, dtype=torch.float32, trust_remote_code=_of_remote_code(model))
            assert isinstance(saved, PeftModel)
            merged, _ = merge_adapter(saved, example_ids())
            if task == "reward":
                pad_with(template.tokenizer.pad_token_id, template.tokenizer, merged)
            save_model(merged, template.tokenizer, final, stop_ids=template.stop_ids)
    accelerator.wait_for_everyone()
    return final


def put_trained(model: Model, folder: Path, task: Task) -> None:
    """Give a model in memory, or its adapter, the weights that the finished run of a folder has left."""
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_peft_weights(str(folder / "adapter"), device="cpu"))
    else:
        dtype = next(model.parameters()).dtype
        model.load_state_dict(load_model(str(folder / "model"), task, dtype=dtype).state_dict())


def example_ids() -> torch.Tensor:
    """[1, T] ids to compare a merged model's outputs on; small ones, which every vocabulary has."""
    return torch.tensor([PROBE.prompt_ids + PROBE.response_ids[2]])


def _without_prefix(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _of_remote_code(model: PeftModel) -> bool:
    """Whether the model's class came with its files, which the user allowed when it was loaded."""
    return type(transformers_model(model)).__module__.startswith("transformers_modules.")


def _task(model: PeftModel) -> Task:
    return "reward" if hasattr(model.get_base_model(), "score") else "policy"
