"""Training on preferences by any objective of the table, from any policy; where the objective has a reference, it is
that policy as it was at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from preflab.core.durable import read_metrics
from preflab.core.output import alone
from preflab.core.records import UserError
from preflab.data.batches import Indices, plan_evaluation
from preflab.data.cache import TokenizedDataset
from preflab.data.comparisons import Need
from preflab.model.in_memory import InMemory
from preflab.model.responses import ResponseLogps, collator
from preflab.objectives import OBJECTIVES, sft, weighted
from preflab.training.fit import Fit, StepFns, always, evaluation_plan, first_epoch, fit
from preflab.training.loop import response_values
from preflab.training.model import save_trained
from preflab.training.preference_settings import PreferenceSettings
from preflab.training.prepare import prepare
from preflab.training.psi import psi_fingerprint, read_psi
from preflab.training.push import push_at_evaluations
from preflab.training.reference import check_reference, reference_logps
from preflab.training.rows import LabelledRows, RankedRows
from preflab.training.stage import Prepared, TrainResult, announce, finish_training, join_processes
from preflab.training.steps import PairObjective, StepFn, label_step, pair_step


@alone("output_dir", "stage.json")
def train_preferences(settings: PreferenceSettings, fit: Fit = fit, held: InMemory | None = None) -> TrainResult:
    """Train by the objective that the settings are of (`DPOSettings`, `KTOSettings`, …).

    The reference's log-probabilities are computed once, before the first step, and cached; where no term of the
    objective reads them, none are computed.
    """
    name = settings.objective
    on_labels = OBJECTIVES[name].data == "labels"
    need: Need = "labels" if on_labels else "rankings"
    # Before the folder is claimed, which else would be another run's once a mistake in the settings is mended.
    pair_steps = None if on_labels else always(_pair_step(settings))
    if on_labels:
        _need_other_rows(settings)
    psi = {f"psi {spec}": psi_fingerprint(spec) for spec in _psi_of(settings)}
    start = prepare(settings, f"train {name}", task="policy", need=need, inputs=psi, held=held)
    if isinstance(start, TrainResult):
        return start
    accelerator, module = start.accelerator, ResponseLogps(start.model)
    training, held_out = _rows(start, settings, module.share_prefix, on_labels=on_labels)

    def on_start(prepared: nn.Module) -> None:
        for rows, batches in _first_batches(accelerator, training, held_out, settings):
            rows.reference = reference_logps(accelerator, prepared, rows, batches, start.fingerprint)
            check_reference(accelerator, prepared, rows, batches)

    trained = fit(
        accelerator,
        module,
        training,
        held_out,
        pair_steps or _label_steps(accelerator, settings),
        settings,
        name=name,
        on_start=on_start if needs_reference(settings) else None,
        publish=push_at_evaluations(accelerator, start.template, settings),
    )
    if warning := falling_chosen(read_metrics(settings.output_dir)) if name != "apo_down" else None:  # which means to
        announce(accelerator, f"{warning} {_against_falling(settings)}")
    final = save_trained(accelerator, trained.module, start.template, settings.output_dir, held)
    return finish_training(accelerator, settings, start, final, step=trained.step)


def needs_reference(settings: PreferenceSettings) -> bool:
    """Whether any term of the objective reads the reference's log-probabilities."""
    names = [settings.objective, *(term.objective for term in settings.terms)]
    return any(OBJECTIVES[name].reference for name in names if name in OBJECTIVES)


def _rows(
    start: Prepared, settings: PreferenceSettings, share_prefix: bool, *, on_labels: bool
) -> tuple[RankedRows, RankedRows | None]:
    """Rows to train on, and held-out ones."""
    collate = collator(share_prefix)
    make: Callable[[TokenizedDataset], RankedRows] = partial(RankedRows, collate=collate)
    if on_labels:
        make = partial(LabelledRows, collate=collate, max_length=settings.max_length, seed=settings.seed)
    training, held_out = make(start.splits.training), start.splits.held_out
    if isinstance(training, LabelledRows) and len(kinds := set(training.wanted.tolist())) < 2:
        kind = "wanted" if True in kinds else "unwanted"
        announce(start.accelerator, f"warning: all {len(training.wanted):,} responses to train on are {kind}")
    return training, make(held_out) if held_out else None


def _first_batches(
    accelerator: Accelerator, training: RankedRows, held_out: RankedRows | None, settings: PreferenceSettings
) -> Iterator[tuple[RankedRows, list[Indices]]]:
    """All rows of which a reference is needed, with the batches in which the policy meets each of them first."""
    steps = first_epoch(accelerator, training, settings)
    yield training, [batch for step in steps for batch in step.micro_batches]
    if isinstance(training, LabelledRows):
        others = training.mismatched
        yield others, [batch for step in steps for batch in _kl_batches(others, step.rows, settings)]
    if held_out:
        yield held_out, evaluation_plan(held_out, settings)
    if isinstance(held_out, LabelledRows):
        others = held_out.mismatched
        yield others, _kl_batches(others, np.arange(len(others.dataset)), settings)


def _kl_batches(others: RankedRows, indices: Indices, settings: PreferenceSettings) -> list[Indices]:
    """The batches of the mismatched rows that a step's KL is of."""
    size, tokens = settings.per_device_eval_batch_size, settings.max_tokens_per_batch
    return [indices[part] for part in plan_evaluation(others.lengths[indices], batch_size=size, max_tokens=tokens)]


def _need_other_rows(settings: PreferenceSettings) -> None:
    passes = settings.gradient_accumulation_steps * int(join_processes().num_processes)
    if settings.per_device_train_batch_size * passes < 2 and settings.max_tokens_per_batch is None:
        raise UserError(
            f"{settings.objective} estimates a KL from all rows of an optimizer step, and with "
            "per_device_train_batch_size 1 and gradient_accumulation_steps 1 there is one: an estimate of nothing but "
            "noise. Give at least 2 rows per step (TRL advises 16 to 128)"
        )


def _pair_step(settings: PreferenceSettings) -> StepFn:
    """The step function of an objective on pairs, with its further terms where there are any."""
    own = _objective(settings.objective, settings.hyperparameters)
    if not settings.terms:
        return partial(pair_step, objective=own)
    others = {
        term.objective: (term.weight, _objective(term.objective, term.hyperparameters)) for term in settings.terms
    }
    return partial(pair_step, objective=weighted({settings.objective: (1.0, own), **others}))


def _objective(name: str, hyperparameters: Mapping[str, Any]) -> PairObjective:
    if name == "sft":
        return sft
    given = dict(hyperparameters)
    if "psi" in given:
        given["psi"] = read_psi(given["psi"], label_smoothing=given["label_smoothing"])
    return partial(OBJECTIVES[name].loss, **given)


def _psi_of(settings: PreferenceSettings) -> list[str]:
    """The Ψ of the objective and of its further terms, where they have one."""
    parts = [settings.hyperparameters, *(term.hyperparameters for term in settings.terms)]
    return [part["psi"] for part in parts if "psi" in part]


def _label_steps(accelerator: Accelerator, settings: PreferenceSettings) -> StepFns:
    """The step functions of an objective on labels: each with the KL of its rows, all of them together.

    The last step of an epoch can be left with one row, whose KL is then a poor estimate.
    """
    objective = partial(OBJECTIVES[settings.objective].loss, **settings.hyperparameters)

    def step_fn(module: nn.Module, rows: RankedRows, indices: Indices) -> StepFn:
        assert isinstance(rows, LabelledRows)
        others = rows.mismatched
        assert others.reference is not None
        policy = response_values(accelerator, module, others, _kl_batches(others, indices, settings))[indices]
        kl = max(0.0, float(np.mean(policy - others.reference[indices])))
        return partial(label_step, objective=objective, kl=torch.tensor(kl, device=accelerator.device))

    return step_fn


def falling_chosen(rows: list[dict[str, float]]) -> str | None:
    """A warning where the log-probability of chosen responses fell while the loss looked good (Pal et al., 2024).

    On the held-out responses, where there are any; else against the reference on the same responses, because each
    step's line is about other rows. A fall of less than 1 nat and 2 % goes without one.
    """
    held_out = [row["eval_logps/chosen"] for row in rows if row.get("eval_logps/chosen") is not None]
    known = [row for row in rows if row.get("logps/chosen_change") is not None]
    if len(held_out) > 1:
        side, before, now = "eval_", held_out[0], held_out[-1]
    elif known:
        side, now = "", known[-1]["logps/chosen"]
        before = now - known[-1]["logps/chosen_change"]
    else:
        return None
    if before - now <= max(1.0, 0.02 * abs(before)):
        return None
    return (
        f"warning: {side}logps/chosen fell from {before:.1f} to {now:.1f}. The model now finds the preferred responses "
        "less likely than before training; the loss still falls when the rejected ones fall faster, and probability "
        "moves to responses that nobody rated."
    )


def _against_falling(settings: PreferenceSettings) -> str:
    """What the user of this objective can do about it."""
    fields = type(settings).model_fields
    terms = {"sft_weight": "an SFT term (sft_weight 1)", "mix": "an SFT term (mix sft?weight=1)"}
    term = [text for name, text in terms.items() if name in fields][:1]
    return f"What holds against it: {', '.join([*term, 'a larger beta', 'a lower learning_rate'])}"
