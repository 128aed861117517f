"""Models that a caller holds in memory, with their tokenizers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from preflab.core.records import UserError
from preflab.model.adapters import Task
from preflab.model.configs import check_kind_of, stop_ids_of
from preflab.model.responses import transformers_model, usual_attention
from preflab.model.tokenizers import check_tokenizer


@dataclass(frozen=True, eq=False)
class InMemory:
    """A model of transformers and its tokenizer. In settings, files and messages its text stands for it; which weights
    it has is told by their hash.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __str__(self) -> str:
        return f"in memory: {type(self.model).__name__}"

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def check(self, task: Task) -> None:
        """Raise UserError where this is no model for the task, as for a model that is loaded."""
        config = {**self.model.config.to_dict(), "architectures": [type(self.model).__name__]}
        check_kind_of({**config, "num_labels": self.model.config.num_labels}, str(self), task)
        if task == "reward" and not hasattr(self.model, "score"):
            raise UserError(
                f"{self} has no reward head; load it with AutoModelForSequenceClassification.from_pretrained(…, "
                "num_labels=1), or give its path"
            )

    def copy_of_tokenizer(self) -> PreTrainedTokenizerBase:
        """A copy, which may be given another chat template or pad token."""
        return copy.deepcopy(self.tokenizer)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids at which the model says that generation stops."""
        generation = getattr(self.model, "generation_config", None)  # a reward model has none
        configs = {"generation_config": generation.to_dict() if generation else {}}
        return stop_ids_of({**configs, "config": self.model.config.to_dict()}, str(self))

    @property
    def unread_id(self) -> int | None:
        """The id that transformers passes over at the end of a sequence that a reward model scores; None: no id."""
        found = self.model.config.get_text_config().pad_token_id
        return found if type(found) is int else None


def in_memory(model: object, tokenizer: object, setting: str) -> InMemory:
    """What a caller gave for a model, checked. Raises UserError that names the setting."""
    if isinstance(model, PeftModel):
        raise UserError(
            f"{setting}: found a PeftModel; merge its adapter in first (model.merge_and_unload()), or give the "
            "adapter's folder"
        )
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            f"{setting}: found {type(model).__name__}; a path, a hub id or a model of transformers is needed"
        )
    if tokenizer is None:
        raise UserError(f"tokenizer: missing; {type(model).__name__} is given in memory, and its tokenizer is needed")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(f"tokenizer: found {type(tokenizer).__name__}; a tokenizer of transformers is needed")
    held = InMemory(model, tokenizer)
    check_tokenizer(tokenizer, str(held))
    return held


@contextmanager
def as_it_was(held: InMemory | None) -> Iterator[None]:
    """Leave a model in the mode (training or evaluation) and with the attention that it came with."""
    if held is None:
        yield
        return
    model = held.model
    training, attention = model.training, model.config._attn_implementation
    try:
        yield
    finally:
        model.train(training)
        if usual_attention(model).config._attn_implementation != attention:
            model.set_attn_implementation(attention)


def whole_in_float32(model: PeftModel) -> PeftModel:
    """A copy in float32, to merge an adapter in whose base model lies in no file."""
    copied = copy.deepcopy(model).float()
    assert isinstance(copied, PeftModel)
    transformers_model(copied)
    return copied
