"""Reward modelling: a score for a response to a prompt, higher for the one that people preferred."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from preflab.core.output import alone
from preflab.core.rundir import read_json, write_json
from preflab.core.ties import is_score
from preflab.data.tokenize import ChatTemplate
from preflab.model.in_memory import InMemory
from preflab.model.responses import ResponseRewards, collator
from preflab.rewards.figures import draw_training_of_reward_model
from preflab.rewards.rows import extremes, sample_lines
from preflab.training.fit import Fit, fit
from preflab.training.model import save_trained
from preflab.training.prepare import prepare
from preflab.training.push import push_at_evaluations
from preflab.training.rows import RankedRows
from preflab.training.settings import RewardSettings
from preflab.training.stage import TrainResult, announce, finish_training
from preflab.training.steps import reward_step

RESULTS = "reward_model_eval_results.json"
RESULTS_BEFORE = "reward_model_eval_results-beforetrain.json"


@alone("output_dir", "stage.json")
def train_reward(settings: RewardSettings, fit: Fit = fit, held: InMemory | None = None) -> TrainResult:
    """Train a reward model and write the scores of the held-out rows, before training and after."""
    start = prepare(settings, "train reward", task="reward", need="rankings", held=held)
    if isinstance(start, TrainResult):
        return start
    accelerator, splits, template = start.accelerator, start.splits, start.template
    module = ResponseRewards(start.model)
    collate = collator(module.share_prefix)
    training = RankedRows(splits.training, collate)
    held_out = RankedRows(splits.held_out, collate) if splits.held_out else None

    def on_evaluation(step: int, scores: NDArray[np.float64]) -> None:
        assert held_out is not None
        path = settings.output_dir / (RESULTS if step else RESULTS_BEFORE)
        _write_results(accelerator, held_out, scores, template, path)

    step_fn = partial(reward_step, center=settings.center_rewards_coefficient)
    trained = fit(
        accelerator,
        module,
        training,
        held_out,
        step_fn,
        settings,
        name="reward model",
        on_evaluation=on_evaluation,
        publish=push_at_evaluations(accelerator, template, settings),
    )
    if accelerator.is_main_process:
        _draw_histograms(settings.output_dir)
        _show_samples(accelerator, settings.output_dir)
    final = save_trained(accelerator, trained.module, template, settings.output_dir, held)
    return finish_training(accelerator, settings, start, final, step=trained.step)


def _draw_histograms(folder: Path) -> None:
    """Histograms of the scores of held-out rows, where the run has evaluated them before training and after."""
    if (folder / RESULTS).exists() and (folder / RESULTS_BEFORE).exists():
        draw_training_of_reward_model(read_json(folder / RESULTS_BEFORE), read_json(folder / RESULTS), folder)


def _show_samples(accelerator: Accelerator, folder: Path) -> None:
    """The held-out responses with the highest and the lowest reward, to be read beside the figures."""
    if (folder / RESULTS).exists():
        known = [
            row
            for row in read_json(folder / RESULTS)
            if is_score(row["score_chosen"]) and is_score(row["score_rejected"])
        ]
        if lines := sample_lines(extremes(known)):
            announce(accelerator, "\n".join(["held-out responses:", *lines]))


def _write_results(
    accelerator: Accelerator, rows: RankedRows, scores: NDArray[np.float64], template: ChatTemplate, path: Path
) -> None:
    """One object per pair of responses, best and worst of each comparison, with text and scores."""
    if not accelerator.is_main_process:
        return
    results = []
    for index, row in enumerate(rows.dataset):
        own = scores[rows.offsets[index] : rows.offsets[index + 1]]
        results.append(
            {
                "row": row.row,
                "prompt": template.tokenizer.decode(list(row.prompt_ids), clean_up_tokenization_spaces=False),
                "chosen": template.decode(row.response_ids[0]),
                "rejected": template.decode(row.response_ids[-1]),
                "score_chosen": float(own[0]),
                "score_rejected": float(own[-1]),
            }
        )
    write_json(path, results)
