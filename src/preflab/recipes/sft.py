"""Supervised fine-tuning: the model learns to write the best response of each row."""

from __future__ import annotations

from preflab.model.responses import ResponseLogps, collator
from preflab.recipes.data import load_splits, load_template
from preflab.recipes.fit import fit
from preflab.recipes.model import load_trainable, save_trained
from preflab.recipes.settings import SFTSettings
from preflab.recipes.stage import (
    TrainResult,
    announce,
    fingerprint_weights,
    finish_training,
    finished_result,
    start_accelerator,
    start_stage,
)
from preflab.train.rows import BestRows
from preflab.train.steps import sft_step


def train_sft(settings: SFTSettings) -> TrainResult:
    """Train on the best response of each row; the loss is the mean over response tokens, rows packed without cross-
    talk.
    """
    accelerator = start_accelerator(settings)
    template = load_template(settings)
    splits = load_splits(settings, template, need="demonstrations", seed=settings.seed)
    model = load_trainable(settings, "policy", template, accelerator.device)
    inputs = {"model": fingerprint_weights(model), **splits.fingerprints}
    if not start_stage(accelerator, settings, "train sft", inputs):
        return finished_result(accelerator, settings)
    announce(accelerator, splits.report())
    module = ResponseLogps(model)
    collate = collator(module.share_prefix)
    training = BestRows(splits.training, collate)
    held_out = BestRows(splits.held_out, collate) if splits.held_out else None
    trained = fit(accelerator, module, training, held_out, sft_step, settings, name="SFT")
    final = save_trained(accelerator, trained.module, template, settings.output_dir)
    return finish_training(accelerator, settings, final, step=trained.step)
