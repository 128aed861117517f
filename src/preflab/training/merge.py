"""An adapter merged into its base model, kept only where both answer alike."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from preflab.core.output import alone_with
from preflab.core.records import UserError
from preflab.core.rundir import LOCK
from preflab.data.tokenize import ChatTemplate
from preflab.model import adapters
from preflab.model.configs import check_kind, own_stop_ids
from preflab.model.load import load_model
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer, pad_apart_from, pad_with, same_splits
from preflab.training.model import example_ids
from preflab.training.settings import MergeSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergeResult:
    """A merged model, and by how much its logits differ from the adapter's, relative to the largest one."""

    model: Path
    difference: float

    def __str__(self) -> str:
        return f"model: {self.model} (its logits differ from the adapter's by {self.difference:.1e} of the largest one)"


def merge_adapter(settings: MergeSettings) -> MergeResult:
    """Merge an adapter of a policy or of a reward model, in float32, and write the whole model with its tokenizer.

    Raises UserError where the outputs of both differ by more than the tolerance, or the folder is in use.
    """
    adapter, folder = str(settings.adapter), settings.output_dir
    if not adapters.adapter_base(adapter):
        raise UserError(f"{adapter}: there is no adapter_config.json in it, so this is not the folder of an adapter")
    _refuse_taken(folder)
    with alone_with(folder / "stage.json"):
        _refuse_taken(folder)
        return _merge(adapter, folder, settings)


def _refuse_taken(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir())):
        raise UserError(f"{folder}: there is something already; choose a new folder for the merged model")


def _merge(adapter: str, folder: Path, settings: MergeSettings) -> MergeResult:
    task = adapters.adapter_task(adapter)
    check_kind(adapter, task, trust_remote_code=settings.trust_remote_code)
    tokenizer = load_tokenizer(adapter, trust_remote_code=settings.trust_remote_code)
    # Half precision would round the sum of both away: the merged model would be another one.
    adapted = load_model(adapter, task, dtype=torch.float32, trust_remote_code=settings.trust_remote_code)
    assert isinstance(adapted, PeftModel)
    merged, difference = adapters.merge_adapter(adapted, example_ids(), tolerance=settings.tolerance)
    stop_ids = own_stop_ids(adapter)
    if tokenizer.chat_template:
        stop_ids = ChatTemplate(tokenizer, own_stop_ids=stop_ids).stop_ids
    _tell_other_splits(adapter, tokenizer, settings)
    if task == "reward":
        if tokenizer.pad_token_id is None:
            pad_apart_from(stop_ids, tokenizer, merged)
        else:  # the adapter was trained with it
            pad_with(tokenizer.pad_token_id, tokenizer, merged)
    save_model(merged, tokenizer, folder, stop_ids=stop_ids)
    return MergeResult(folder, difference)


def _tell_other_splits(adapter: str, tokenizer: PreTrainedTokenizerBase, settings: MergeSettings) -> None:
    """Warn where an adapter's tokenizer splits text otherwise than its base model's, if that has one."""
    with suppress(UserError):
        base = load_tokenizer(
            str(adapters.adapter_base(adapter)),
            trust_remote_code=settings.trust_remote_code,
            revision=adapters.base_revision(adapter),
        )
        if not same_splits(tokenizer, base):
            log.warning("%s splits text in another way than its base model's tokenizer; its own is kept", adapter)
