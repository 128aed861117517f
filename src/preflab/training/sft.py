"""Supervised fine-tuning: the model learns to write the best response of each row."""

from __future__ import annotations

from preflab.core.output import alone
from preflab.model.in_memory import InMemory
from preflab.model.responses import ResponseLogps, collator
from preflab.training.fit import Fit, fit
from preflab.training.model import save_trained
from preflab.training.prepare import prepare
from preflab.training.push import push_at_evaluations
from preflab.training.rows import BestRows
from preflab.training.settings import SFTSettings
from preflab.training.stage import TrainResult, finish_training
from preflab.training.steps import sft_step


@alone("output_dir", "stage.json")
def train_sft(settings: SFTSettings, fit: Fit = fit, held: InMemory | None = None) -> TrainResult:
    """Train on the best response of each row; the loss is the mean over response tokens, rows packed without cross-
    talk.
    """
    start = prepare(settings, "train sft", task="policy", need="demonstrations", held=held)
    if isinstance(start, TrainResult):
        return start
    accelerator, splits = start.accelerator, start.splits
    module = ResponseLogps(start.model)
    collate = collator(module.share_prefix)
    training = BestRows(splits.training, collate)
    held_out = BestRows(splits.held_out, collate) if splits.held_out else None
    publish = push_at_evaluations(accelerator, start.template, settings)
    trained = fit(accelerator, module, training, held_out, sft_step, settings, name="SFT", publish=publish)
    final = save_trained(accelerator, trained.module, start.template, settings.output_dir, held)
    return finish_training(accelerator, settings, start, final, step=trained.step)
