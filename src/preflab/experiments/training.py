"""What a training needs: its passes over training rows, held-out rows and the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from preflab.experiments.amounts import Amount
from preflab.experiments.lookup import Lookup, Notes
from preflab.experiments.plan import PlannedStage
from preflab.experiments.speed import training_machine
from preflab.experiments.work import (
    STAGE_SECONDS,
    Need,
    Tokens,
    forward_seconds,
    loading_seconds,
    training_bytes,
    training_seconds,
)
from preflab.objectives import OBJECTIVES

CHECKED = 2  # batches in which the reference is compared with the policy before the first step
TIMES_LOADED = 3  # weights are read, hashed, and written


@dataclass(frozen=True)
class Kind:
    """How a command's rows become tokens.

    Attributes:
        one: only the best response of a row is trained on.
        apart: each response is a row of its own, with the prompt before it.
        head: tokens of responses meet the output head.
        reference: passes of the reference over all rows; `others`: passes over other rows in each step.
    """

    one: bool = False
    apart: bool = False
    head: bool = True
    reference: int = 0
    others: int = 0


def kind_of(command: str) -> Kind:
    """Of "train sft", "train dpo"…"""
    name = command.removeprefix("train ")
    if name in ("sft", "reward"):
        return Kind(one=name == "sft", head=name == "sft")
    objective = OBJECTIVES[name]
    if objective.data == "labels":  # and mismatched rows besides, for the estimate of the KL
        return Kind(apart=True, reference=2, others=1)
    return Kind(reference=int(objective.reference))


@dataclass(frozen=True)
class Rows:
    """Rows that are trained on, or evaluated, with the mean tokens of one: all, and those that meet the head."""

    count: float
    total: float
    scored: float
    longest: int

    def tokens(self, rows: float, batch: float) -> Tokens:
        return Tokens(self.total * rows, self.scored * rows, math.ceil(rows / batch))


@dataclass(frozen=True)
class Course:
    """Rows of the training data, how many of them go through the model in a pass and altogether, and steps."""

    training: Rows
    batch: float
    rows: float
    steps: int

    @property
    def epoch(self) -> float:
        """Steps of an epoch."""
        return self.steps * self.training.count / self.rows


def course_of(stage: PlannedStage, lookup: Lookup, notes: Notes) -> Course:
    """Raises UnknownError where the training data cannot be counted."""
    settings: Any = stage.settings
    training = _training_rows(settings, kind_of(stage.command), lookup, notes)
    batch = _batch(training, settings)
    at_once = batch * settings.gradient_accumulation_steps
    rows = training.count * settings.num_train_epochs if settings.max_steps < 1 else settings.max_steps * at_once
    return Course(training, batch, rows, math.ceil(rows / at_once))


def checkpoints_of(stage: PlannedStage, lookup: Lookup) -> int:
    """How many checkpoints a training keeps, its last model among them."""
    settings: Any = stage.settings
    if settings.save_strategy == "no":
        return 1
    course = course_of(stage, lookup, Notes())
    every: float = settings.save_steps if settings.save_strategy == "steps" else course.epoch
    most: int = settings.save_total_limit
    return 1 + min(math.ceil(course.steps / every) - 1, most)


def training_need(stage: PlannedStage, lookup: Lookup) -> Need:
    """Tokens are those that are trained on, as `num_tokens` in the metrics counts them; time is that of all passes."""
    settings: Any = stage.settings
    notes = Notes()
    size = notes.unless_unknown(lambda: lookup.size(settings.model, trust=settings.trust_remote_code))
    course = notes.unless_unknown(lambda: course_of(stage, lookup, notes))
    if course is None:
        return Need(None, None, None, notes=notes.texts)
    trained = course.training.tokens(course.rows, course.batch)
    if size is None:
        return Need(trained.total, None, None, notes=notes.texts)
    kind = kind_of(stage.command)
    held_out = notes.unless_unknown(lambda: _held_out_rows(settings, kind, lookup, course.training))
    machine = training_machine(dtype=settings.dtype, bf16=settings.bf16)
    shape = {
        "trained": size.linear_width * settings.lora_r if settings.lora else size.total,
        "checkpointing": settings.gradient_checkpointing,
    }
    seconds = (
        STAGE_SECONDS
        + loading_seconds(size, times=TIMES_LOADED)
        + forward_seconds(size, _forward(kind, settings, course, trained, held_out), machine)
        + training_seconds(size, trained, course.steps, machine, **shape)
    )
    frozen_bytes = machine.number_bytes if settings.dtype == "auto" else 4
    longest = course.training.longest * course.batch
    memory = training_bytes(size, tokens=longest, frozen_bytes=frozen_bytes, **shape)
    return Need(trained.total, seconds, memory, notes=notes.texts)


def _forward(kind: Kind, settings: Any, course: Course, trained: Tokens, held_out: Rows | None) -> Tokens:
    """Passes without gradients: the reference over all rows and once more over a few, other rows, evaluations."""
    size = settings.per_device_eval_batch_size
    found = Tokens(*(kind.others * value for value in (trained.total, trained.scored, trained.passes)))
    for rows in filter(None, (course.training, held_out)):
        checked = CHECKED * min(size, rows.count) if kind.reference else 0
        found += rows.tokens(kind.reference * rows.count + checked, size)
    if held_out and settings.eval_strategy != "no":
        every = settings.eval_steps if settings.eval_strategy == "steps" else course.epoch
        evaluations = 1 + math.ceil(course.steps / every)
        found += held_out.tokens(evaluations * held_out.count, size)
    return found


# ---- rows ----------------------------------------------------------------------------------------------------------


def _training_rows(settings: Any, kind: Kind, lookup: Lookup, notes: Notes) -> Rows:
    amount = _amount(settings.train_data, settings, lookup)
    notes.add(amount.counted)
    rows = min(amount.rows, settings.max_train_samples or amount.rows)
    return _rows(amount, rows * (settings.train_split_ratio or 1), kind)


def _held_out_rows(settings: Any, kind: Kind, lookup: Lookup, training: Rows) -> Rows | None:
    most = settings.max_eval_samples or math.inf
    if settings.eval_data:
        amount = _amount(settings.eval_data, settings, lookup)
        return _rows(amount, min(amount.rows, most), kind)
    if settings.train_split_ratio:
        return replace(training, count=min(training.count * (1 / settings.train_split_ratio - 1), most))
    return None


def _amount(specs: Sequence[str], settings: Any, lookup: Lookup) -> Amount:
    template = lookup.template(settings.model, settings.chat_template, trust=settings.trust_remote_code)
    limits = {"max_length": settings.max_length, "max_prompt_length": settings.max_prompt_length}
    return lookup.amount(specs, settings.format, template, **limits)


def _rows(amount: Amount, count: float, kind: Kind) -> Rows:
    """Rows of a source as a command trains on them."""
    if kind.one:
        return Rows(count, amount.prompt + amount.best, amount.best, amount.longest)
    scored = amount.responses if kind.head else 0.0
    if kind.apart:
        each = max(1.0, amount.per_row)
        total = amount.prompt + amount.responses / each
        return Rows(count * each, total, scored / each, amount.longest)
    return Rows(count, amount.prompt + amount.responses, scored, amount.longest)


def _batch(rows: Rows, settings: Any) -> float:
    """Rows of a forward pass."""
    if settings.max_tokens_per_batch:
        return max(1.0, float(settings.max_tokens_per_batch / rows.total))
    return min(float(settings.per_device_train_batch_size), rows.count)
