"""Direct preference optimisation, from any policy, with that policy as it was at the start as the reference."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from preflab.data.cache import default_cache_dir
from preflab.model.responses import ResponseLogps, collator
from preflab.objectives import dpo
from preflab.recipes.data import load_splits, load_template
from preflab.recipes.fit import evaluation_plan, fit
from preflab.recipes.model import load_trainable, save_trained
from preflab.recipes.settings import DPOSettings
from preflab.recipes.stage import (
    TrainResult,
    announce,
    fingerprint_weights,
    finish_training,
    finished_result,
    start_accelerator,
    start_stage,
)
from preflab.records import UserError
from preflab.train.journal import progress_bar, read_metrics
from preflab.train.loop import response_values
from preflab.train.rows import RankedRows
from preflab.train.steps import pair_step


def train_dpo(settings: DPOSettings) -> TrainResult:
    """Train by DPO. The reference's log-probabilities are computed once, before the first step, and cached."""
    accelerator = start_accelerator(settings)
    template = load_template(settings)
    splits = load_splits(settings, template, need="rankings", seed=settings.seed)
    model = load_trainable(settings, "policy", template, accelerator.device)
    weights = fingerprint_weights(model)
    if not start_stage(accelerator, settings, "train dpo", {"model": weights, **splits.fingerprints}):
        return finished_result(accelerator, settings)
    announce(accelerator, splits.report())
    module = ResponseLogps(model)
    collate = collator(module.share_prefix)
    training = RankedRows(splits.training, collate)
    held_out = RankedRows(splits.held_out, collate) if splits.held_out else None

    def on_start(prepared: nn.Module) -> None:
        for rows in filter(None, (training, held_out)):
            rows.reference = reference_logps(accelerator, prepared, rows, settings, weights)
            check_reference(accelerator, prepared, rows, settings)

    objective = partial(
        dpo, beta=settings.beta, label_smoothing=settings.label_smoothing, sft_weight=settings.sft_weight
    )
    step_fn = partial(pair_step, objective=objective)
    trained = fit(accelerator, module, training, held_out, step_fn, settings, name="DPO", on_start=on_start)
    if warning := falling_chosen(read_metrics(settings.output_dir), settings.beta):
        announce(accelerator, warning)
    final = save_trained(accelerator, trained.module, template, settings.output_dir)
    return finish_training(accelerator, settings, final, step=trained.step)


def reference_logps(
    accelerator: Accelerator, policy: nn.Module, rows: RankedRows, settings: DPOSettings, weights: str
) -> NDArray[np.float64]:
    """[R] log-probabilities under the policy as it starts; from the cache where the same weights met the same rows
    before.
    """
    identity = f"{weights} {rows.dataset.fingerprint} {accelerator.mixed_precision} {accelerator.device.type}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    path = default_cache_dir() / "reference" / f"{key}.npy"
    cached = _read_cache(path, int(rows.offsets[-1]))
    if cached is not None:
        return cached
    with progress_bar(disable=not accelerator.is_main_process) as bar:
        task = bar.add_task("reference", total=len(rows.dataset), shown="")
        plan = evaluation_plan(rows, settings)
        values = response_values(accelerator, policy, rows, plan, advance=lambda count: bar.advance(task, count))
    if accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp.npy")
        np.save(unfinished, values)
        unfinished.replace(path)
    accelerator.wait_for_everyone()
    return values


def check_reference(accelerator: Accelerator, policy: nn.Module, rows: RankedRows, settings: DPOSettings) -> None:
    """Refuse to train where policy and reference differ before the first step: the loss would not start at ln 2.

    A wrong cache, or weights that are not those the reference was computed with, are silent otherwise.
    """
    assert rows.reference is not None
    batch, reference = rows.batch(evaluation_plan(rows, settings)[0])
    assert reference is not None
    training = policy.training
    policy.eval()
    with torch.no_grad(), accelerator.autocast():
        found = policy(batch.to(accelerator.device)).float().cpu()
    policy.train(training)
    difference = float((found - reference).abs().max())
    half = accelerator.mixed_precision != "no" or next(policy.parameters()).dtype != torch.float32
    allowed = (2e-2 if half else 1e-4) * (1 + float(reference.abs().max()))
    if not difference <= allowed:
        raise UserError(
            f"before the first step the policy's log-probabilities differ from the reference's by {difference:.3g} "
            f"(rounding explains {allowed:.3g}), so the DPO loss would not start at ln 2. The reference is not the "
            f"model that training starts from; if the cache is damaged, remove {default_cache_dir() / 'reference'}"
        )


def falling_chosen(rows: list[dict[str, float]], beta: float) -> str | None:
    """A warning where the log-probability of chosen responses fell while the loss looked good (Pal et al., 2024).

    Measured against the reference on the same responses, r / β, because each step's line is about other rows.
    """
    for side in ("eval_", ""):
        known = [row for row in rows if row.get(f"{side}rewards/chosen") is not None]
        if known:
            change, now = known[-1][f"{side}rewards/chosen"] / beta, known[-1][f"{side}logps/chosen"]
            if -change <= max(1.0, 0.02 * abs(now - change)):
                return None
            return (
                f"warning: {side}logps/chosen fell from {now - change:.1f} to {now:.1f}. The model now finds the "
                "preferred responses less likely than before training; the loss still falls when the rejected ones "
                "fall faster, and probability moves to responses that nobody rated. sft_weight (such as 1), a larger "
                "beta or a lower learning_rate hold against it"
            )
    return None


def _read_cache(path: Path, count: int) -> NDArray[np.float64] | None:
    try:
        values = np.load(path)
    except (OSError, ValueError, EOFError):
        return None  # not there, or damaged: it is computed again
    return values if values.shape == (count,) and np.isfinite(values).all() else None
