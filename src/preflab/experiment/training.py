"""What a training needs: its passes over training rows, held-out rows and the reference.

Rows are chosen, and put into steps, by the functions that training itself uses; where there are more rows than a sample
holds, they are taken to repeat it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from preflab.data.batches import plan_training, tenth
from preflab.data.comparisons import Need as RowsNeed
from preflab.data.comparisons import Side
from preflab.experiment.amounts import SAMPLE, Amount, Wanted
from preflab.experiment.lookup import Lookup, Notes
from preflab.experiment.plan import PlannedStage
from preflab.experiment.speed import training_machine
from preflab.experiment.work import (
    STAGE_SECONDS,
    Need,
    Tokens,
    forward_seconds,
    loading_seconds,
    training_bytes,
    training_seconds,
)
from preflab.model.files import at_revision
from preflab.objectives import OBJECTIVES

TIMES_LOADED = 3  # weights are read, hashed, and written


@dataclass(frozen=True)
class Kind:
    """How a command's rows become tokens.

    Attributes:
        need: the rows that serve it.
        head: tokens of responses meet the output head.
        reference: the reference reads all rows before the first step.
        mismatched: with every row that is read, its prompt is read with a response to another prompt, without
            gradients: of that KTO's KL is estimated.
    """

    need: RowsNeed = "rankings"
    head: bool = True
    reference: bool = False
    mismatched: bool = False


def kind_of(stage: PlannedStage) -> Kind:
    """Of "train sft", "train dpo"…"""
    name = stage.command.removeprefix("train ")
    if name == "sft":
        return Kind(need="demonstrations")
    if name == "reward":
        return Kind(head=False)
    settings: Any = stage.settings
    terms = [term.objective for term in settings.terms]
    reference = any(OBJECTIVES[term].reference for term in (name, *terms) if term in OBJECTIVES)
    labels = OBJECTIVES[name].data == "labels"
    return Kind("labels" if labels else "rankings", reference=reference, mismatched=labels)


@dataclass(frozen=True)
class Rows:
    """Rows that are read, with the mean tokens of one: all, and those that meet the head."""

    count: int
    total: float
    scored: float

    def tokens(self, rows: float, batch: float) -> Tokens:
        return Tokens(self.total * rows, self.scored * rows, math.ceil(rows / batch))


@dataclass(frozen=True)
class Course:
    """What training does: tokens in prefix layout, rows and forward passes over all its steps, and the steps of an
    epoch; `longest` is the longest row.
    """

    tokens: int
    rows: int
    passes: int
    steps: int
    epoch: int
    longest: int


def course_of(stage: PlannedStage, lookup: Lookup, notes: Notes) -> Course:
    """Raises UnknownError where the training data cannot be counted."""
    settings: Any = stage.settings
    kind = kind_of(stage)
    amount = _training_amount(settings, kind, lookup)
    notes.add(amount.counted)
    return _course(
        amount,
        kind.need,
        epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        batch_size=settings.per_device_train_batch_size,
        max_tokens=settings.max_tokens_per_batch,
        passes=settings.gradient_accumulation_steps,
        # Of repeated rows it does not matter which come first: one plan for all seeds.
        seed=settings.seed if amount.rows <= SAMPLE else 0,
    )


@lru_cache(maxsize=256)  # runs of a sweep differ in what is no matter of rows
def _course(amount: Amount, need: RowsNeed, **plan: Any) -> Course:
    sample = [prompt + (own[0] if need == "demonstrations" else sum(own)) for prompt, own in amount.sample]
    lengths = np.resize(np.array(sample, np.int64), amount.rows)
    found = plan_training(lengths, **plan)
    rows = np.concatenate([step.rows for step in found.steps])
    passes = sum(len(step.micro_batches) for step in found.steps)
    return Course(
        int(lengths[rows].sum()), len(rows), passes, len(found.steps), found.epoch_ends[0], int(lengths.max())
    )


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
    size = notes.unless_unknown(lambda: lookup.size(at_revision(settings.model, settings.revision)))
    course = notes.unless_unknown(lambda: course_of(stage, lookup, notes))
    if course is None:
        return Need(None, None, None, notes=notes.texts)
    if size is None:
        return Need(course.tokens, None, None, notes=notes.texts)
    kind = kind_of(stage)
    training = _rows(_training_amount(settings, kind, lookup), kind)
    held_out = notes.unless_unknown(lambda: _held_out_rows(settings, kind, lookup))
    machine = training_machine(dtype=settings.dtype, bf16=settings.bf16)
    shape = {
        "trained": size.linear_width * settings.lora_r if settings.lora else size.total,
        "checkpointing": settings.gradient_checkpointing,
    }
    trained = Tokens(course.tokens, training[0].scored * course.rows, course.passes)
    seconds = (
        STAGE_SECONDS
        + loading_seconds(size, times=TIMES_LOADED)
        + forward_seconds(size, _forward(kind, settings, course, training, held_out), machine)
        + training_seconds(size, trained, course.steps, machine, **shape)
    )
    frozen_bytes = machine.number_bytes if settings.dtype == "auto" else 4
    memory = training_bytes(size, tokens=_largest(course, training[0], settings), frozen_bytes=frozen_bytes, **shape)
    return Need(course.tokens, seconds, memory, notes=notes.texts)


def _forward(
    kind: Kind, settings: Any, course: Course, training: tuple[Rows, ...], held_out: tuple[Rows, ...] | None
) -> Tokens:
    """Passes without gradients: the reference over all rows, and once more over its first batch and its last, in which
    it is compared with the policy; mismatched rows; evaluations.
    """
    found = Tokens(0, 0, 0)
    if kind.reference:
        for rows in (*training, *(held_out or ())):
            size = _read_at_once(rows, settings)
            last = rows.count - size * (math.ceil(rows.count / size) - 1)
            found += rows.tokens(rows.count, size) + rows.tokens(min(size, rows.count) + last, size)
    for mismatched in training[1:]:
        found += mismatched.tokens(course.rows, min(_read_at_once(mismatched, settings), course.rows / course.steps))
    if held_out and settings.eval_strategy != "no":
        steps = settings.eval_steps or tenth(int(course.steps))
        every = steps if settings.eval_strategy == "steps" else course.epoch
        evaluations = 1 + math.ceil(course.steps / every)
        for rows in held_out:
            found += rows.tokens(evaluations * rows.count, _read_at_once(rows, settings))
    return found


def _read_at_once(rows: Rows, settings: Any) -> float:
    """Rows of a pass without gradients."""
    budget: int | None = settings.max_tokens_per_batch
    return max(1.0, budget / rows.total) if budget else float(settings.per_device_eval_batch_size)


def _largest(course: Course, rows: Rows, settings: Any) -> int:
    """Tokens of a forward pass, at most."""
    budget: int | None = settings.max_tokens_per_batch
    size: int = settings.per_device_train_batch_size
    return max(course.longest, budget) if budget else course.longest * min(size, rows.count)


# ---- rows ----------------------------------------------------------------------------------------------------------


def _training_amount(settings: Any, kind: Kind, lookup: Lookup) -> Amount:
    side: Side | None = "training" if settings.train_split_ratio else None
    return _amount(settings.train_data, settings, kind, lookup, settings.max_train_samples, side)


def _held_out_rows(settings: Any, kind: Kind, lookup: Lookup) -> tuple[Rows, ...] | None:
    if settings.eval_data:
        return _rows(_amount(settings.eval_data, settings, kind, lookup, settings.max_eval_samples, None), kind)
    if settings.train_split_ratio:
        most = settings.max_eval_samples
        return _rows(_amount(settings.train_data, settings, kind, lookup, most, "held-out"), kind)
    return None


def _amount(
    specs: tuple[str, ...],
    settings: Any,
    kind: Kind,
    lookup: Lookup,
    most: int | None,
    side: Side | None,
) -> Amount:
    model = at_revision(settings.model, settings.revision)
    template = lookup.template(model, settings.chat_template, settings.chat_template_kwargs)
    ratio = settings.train_split_ratio if side else None
    # Where nothing is drawn, the rows of all seeds are the same, and are counted once.
    seed, margin = settings.seed if most or side else 0, settings.min_score_margin
    wanted = Wanted(kind.need, most, ratio, side, seed, settings.columns, margin)
    limits = {"max_length": settings.max_length, "max_prompt_length": settings.max_prompt_length}
    return lookup.amount(specs, settings.format, template, wanted=wanted, **limits)


def _rows(amount: Amount, kind: Kind) -> tuple[Rows, ...]:
    """Rows of a source as a command reads them; behind them mismatched ones, as many, where it reads those too."""
    learnt = amount.best if kind.need == "demonstrations" else amount.responses
    own = Rows(amount.rows, amount.prompt + learnt, learnt if kind.head else 0.0)
    if not kind.mismatched:
        return (own,)
    return own, Rows(amount.rows, amount.prompt + amount.response, amount.response)
