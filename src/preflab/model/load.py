"""Models and tokenizers from hub ids, folders, adapter folders and GGUF files; and back to folders that other tools
load.
"""

from __future__ import annotations

import difflib
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, load_peft_weights
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from preflab.model.responses import Model, usual_attention
from preflab.model.snapshots import final_model, put_weights
from preflab.records import UserError

log = logging.getLogger(__name__)

Task = Literal["policy", "reward"]
CLASSES = {"policy": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}
TASK_TYPES: dict[Task, TaskType] = {"policy": TaskType.CAUSAL_LM, "reward": TaskType.SEQ_CLS}
ADAPTER_CONFIG = "adapter_config.json"


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; of an adapter folder without one, its base model's; of a checkpoint, its run's."""
    name = final_model(name) or name
    if (base := adapter_base(name)) and not (Path(name) / "tokenizer_config.json").exists():
        name = base
    with loading(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(_where(name), **_gguf(name), trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise UserError(f"{name} has only a slow tokenizer; preflab needs a fast one (tokenizer.json)")
    return tokenizer


def load_model(
    name: str, task: Task, *, dtype: torch.dtype, fresh_head: bool = False, trust_remote_code: bool = False
) -> Model:
    """A policy, or a reward model with one label.

    An adapter folder gives its base model with the adapter on top, trainable. `fresh_head` allows a reward head that is
    not in the files and makes one (the caller seeds torch); otherwise a model without a trained head is refused.
    A checkpoint's folder gives the run's model at that step.
    """
    if final := final_model(name):
        return put_weights(load_model(final, task, dtype=dtype, trust_remote_code=trust_remote_code), name)
    if base := adapter_base(name):
        adapted_task = _adapter_config(name).get("task_type")
        if adapted_task == TASK_TYPES[task].value:
            # Its base model need not have a reward head where the adapter brings one.
            own_head = task == "reward" and _brings_head(name)
            inner = load_model(base, task, dtype=dtype, fresh_head=own_head, trust_remote_code=trust_remote_code)
            with loading(name, "adapter"):
                adapted = PeftModel.from_pretrained(inner, name, is_trainable=True)
            return _trained_in_float32(adapted) if task == "reward" else adapted
        if not fresh_head:
            raise UserError(f"{name} is an adapter for {adapted_task}, not a {task} model")
        raise UserError(
            f"{name} is an adapter for {adapted_task}; a reward model starts from whole weights: merge it first "
            f"(preflab merge {name} OUT) and start from OUT"
        )
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code, "output_loading_info": True}
    options |= _gguf(name) | ({"num_labels": 1} if task == "reward" else {})
    with loading(name, "model"):
        model, info = CLASSES[task].from_pretrained(_where(name), **options)
    if task == "policy" and any("SequenceClassification" in name for name in model.config.architectures or ()):
        raise UserError(f"{name} is a reward model, not a language model: give the policy to start from")
    missing = set(info["missing_keys"])
    if task == "reward" and missing and not fresh_head:
        raise UserError(
            f"{name} has no trained reward head ({', '.join(sorted(missing))} is missing): its scores would be random"
        )
    if unexpected := missing - {"score.weight"}:
        raise UserError(f"{name} lacks weights of {type(model).__name__}: {', '.join(sorted(unexpected)[:5])}")
    if name.endswith(".gguf"):
        # The weights are dequantised by now, but transformers still marks the model as quantised and would not save it.
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
        # Else an adapter would name the file's folder as its base model.
        model.name_or_path = name
    return _without_dropout(model)


def pick_dtype(setting: str, device: torch.device, *, frozen: bool) -> torch.dtype:
    """The dtype of the weights. `frozen` weights (scoring, generation, LoRA's base) may be bfloat16 where the device is
    good at it; trained ones stay float32 under "auto", because a small learning rate vanishes in bfloat16's rounding.
    """
    if setting != "auto":
        return getattr(torch, setting)  # type: ignore[no-any-return]
    return torch.bfloat16 if frozen and has_bf16(device) else torch.float32


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is fast there. CPUs can do it, but most at a hundredth of their float32 speed."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


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
            return _trained_in_float32(get_peft_model(model, config))
    except ValueError as error:
        if not targets:
            raise
        raise UserError(f"lora_target_modules: {error} It has {', '.join(_linear_layers(model))}") from None


def _trained_in_float32(adapted: PeftModel) -> PeftModel:
    """PEFT makes an adapter's matrices float32, but leaves the reward head beside them in the base model's precision,
    where a small learning rate vanishes in rounding.
    """
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def save_model(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    stop_ids: Sequence[int] = (),
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a model (or its adapter) and its tokenizer in Hugging Face's format. The folder appears whole or not at
    all.

    `stop_ids` become what generation stops at; `weights` stand in for the model's own where those are sharded.
    """
    inner = usual_attention(model)
    if stop_ids and inner.can_generate():
        inner.generation_config.eos_token_id = list(stop_ids)
        inner.generation_config.pad_token_id = tokenizer.pad_token_id
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    with quiet():
        if isinstance(model, PeftModel):
            # A row that was added for the padding token is never read, and the base model does not have it.
            model.save_pretrained(str(unfinished), state_dict=weights, save_embedding_layers=False)
        else:
            inner.save_pretrained(str(unfinished), state_dict=weights)
    tokenizer.save_pretrained(unfinished)
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)
    return folder


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


def pad_apart_from(terminators: Sequence[int], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Give a reward model a pad token that does not end responses.

    transformers reads the score at the last token that is not the pad token: with pad = terminator it would pool one
    token early. Uses a token that is there for padding, else adds one.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in terminators:
        known = [
            token
            for token in ("<|padding|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]")
            if token in tokenizer.get_vocab()
        ]
        tokenizer.pad_token = known[0] if known else "<|pad|>"
        if not known:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    if tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id


def adapter_base(name: str) -> str | None:
    """The base model of an adapter folder, None for anything else."""
    if not (Path(name) / ADAPTER_CONFIG).is_file():
        return None
    base = _adapter_config(name).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{name}/{ADAPTER_CONFIG} does not name its base model (base_model_name_or_path)")
    return str(base)


def adapter_task(name: str) -> Task:
    """What an adapter folder adapts: a policy or a reward model."""
    found = _adapter_config(name).get("task_type")
    for task, task_type in TASK_TYPES.items():
        if found == task_type.value:
            return task
    known = " or ".join(task_type.value for task_type in TASK_TYPES.values())
    raise UserError(f"{name}/{ADAPTER_CONFIG}: the adapter is for {found}; it must be for {known} (task_type)")


def _adapter_config(name: str) -> dict[str, Any]:
    try:
        return dict(json.loads((Path(name) / ADAPTER_CONFIG).read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{name}/{ADAPTER_CONFIG} is not JSON: {error}") from None


def _brings_head(name: str) -> bool:
    with loading(name, "adapter"):
        return any(key.endswith("score.weight") for key in load_peft_weights(name, device="cpu"))


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the backbone's linear layers, as LoRA's targets: `q_proj`, `c_attn`, `query_key_value`…"""
    # GPT-2 keeps its linear layers in transformers' Conv1D.
    found = (path for path, module in model.base_model.named_modules() if type(module).__name__ in ("Linear", "Conv1D"))
    return sorted({path.rsplit(".", 1)[-1] for path in found})


def _without_dropout(model: PreTrainedModel) -> PreTrainedModel:
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


def _where(name: str) -> str:
    return str(Path(name).parent) if name.endswith(".gguf") else name


def _gguf(name: str) -> dict[str, Any]:
    return {"gguf_file": Path(name).name} if name.endswith(".gguf") else {}


@contextmanager
def loading(name: str, what: str) -> Iterator[None]:
    """Turn the many ways in which loading fails into one message."""
    path = Path(name)
    looks_local = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or name.endswith(".gguf")
    if not path.exists() and (looks_local or (path.parent != Path() and path.parent.is_dir())):
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        )
        raise UserError(f"no {what} at {name}" + (f"; did you mean {path.with_name(near[0])}?" if near else ""))
    try:
        # A download may take long, so it shows its progress.
        with quiet() if path.exists() else nullcontext():
            yield
    except ImportError as error:
        extra = " (pip install 'preflab[gguf]')" if name.endswith(".gguf") else ""
        raise UserError(f"the {what} {name} needs a package that is not installed{extra}: {error}") from error
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        # Weights that do not fit are named in the second line.
        found = " ".join(line.strip() for line in str(error).strip().splitlines()[:2]) or type(error).__name__
        hint = (
            ""
            if path.exists()
            else " (not a local folder; the model hub was asked for it. Is it reachable? A local path works too)"
        )
        raise UserError(f"could not load the {what} {name}{hint}: {found}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports (of a missing reward head, say): what matters is said by us.

    Nor with its word on a property that PEFT asks for by an old name, which no user can mend.
    """
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*is_gradient_checkpointing.* is deprecated", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
