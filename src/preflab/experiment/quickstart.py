"""The whole chain on the embedded sandbox, where the truth is known: base, SFT, reward model, DPO, and the report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from preflab.core.durable import read_metrics
from preflab.core.rundir import read_json, write_json
from preflab.data.splits import load_template
from preflab.experiment.settings import QuickstartSettings
from preflab.model.load import load_model
from preflab.sample.generate import read_prompts
from preflab.sample.rollouts import divergences, sample_responses
from preflab.sample.settings import GenerateSettings
from preflab.sandbox.tiny import build_tiny_model
from preflab.sandbox.world import World, label_accuracies
from preflab.stats.wording import exact_percent
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.settings import CompareSettings
from preflab.training.preference_settings import DPOSettings
from preflab.training.preferences import train_preferences
from preflab.training.reward import train_reward
from preflab.training.settings import RewardSettings, SFTSettings
from preflab.training.sft import train_sft
from preflab.training.stage import TrainResult

DEMONSTRATIONS = 10_000
PREFERENCES = 4000
"""Rows that the base model learns its language from, and rows of preferences for each of the other three."""
EVAL_ROWS = 2000
PROMPTS = 400
"""Held-out comparisons that measure the reward model, and held-out prompts that measure the policies."""
TOKEN_CAP, BATCH_SIZE = 48, 100


@dataclass(frozen=True)
class QuickstartResult:
    """Where everything lies, and the figures of `summary.json`."""

    output_dir: Path
    summary: Mapping[str, Any]

    def __str__(self) -> str:
        reward, gold, dpo = self.summary["reward_model"], self.summary["gold_reward"], self.summary["dpo"]
        met, best, before = (exact_percent(reward[name]) for name in ("accuracy", "bayes_accuracy", "accuracy_before"))
        lines = [
            f"reward model: {met} of {reward['n']} held-out labels met; nobody can expect more than {best}, and before "
            f"training it was {before}",
            *(
                f"gold reward of {name:4} {value['value']:+.2f}  (95 % interval {value['low']:+.2f} to "
                f"{value['high']:+.2f}, {value['n']} prompts)"
                for name, value in gold.items()
            ),
            f"DPO: loss {dpo['loss_first']:.3f} to {dpo['loss_last']:.3f}, reward accuracy "
            f"{exact_percent(dpo['reward_accuracy'])}, KL from SFT {dpo['kl']:.1f} nats a response",
            f"{self.summary['seconds']:.0f} seconds; all of it lies in {self.output_dir}/:",
            "  report.html                       did it get better? The answer, and every case: open it in a browser",
            "  summary.json                      these figures",
            "  sft/model reward/model dpo/model  the models, in Hugging Face's format",
            "  responses/ scores/ analysis/      what base, SFT and DPO answer to held-out prompts, and its figures",
            "  */training_curves.png             the course of each training",
        ]
        return "\n".join(lines)


def run_quickstart(settings: QuickstartSettings) -> QuickstartResult:
    """Run the chain, or what is missing of it, and write `report.html` and `summary.json`."""
    started = time.monotonic()
    folder, seed = settings.output_dir, settings.seed
    trained = _train(folder, seed, overwrite=settings.overwrite)
    models = {"base": trained["base"].model, "sft": trained["sft"].model, "dpo": trained["dpo"].model}
    compared = compare_models(_comparison(folder, models, trained["reward"].model, seed, overwrite=settings.overwrite))
    summary = {
        "seed": seed,
        "reward_model": _reward_figures(trained["reward"], World(seed=seed)),
        "gold_reward": {model.name: model.scores["gold"].mean for model in compared.analysis.models},
        "dpo": _dpo_figures(trained["dpo"]) | _kl(folder / "prompts.jsonl", models, seed),
        "seconds": time.monotonic() - started,
    }
    write_json(folder / "summary.json", summary)
    return QuickstartResult(folder, read_json(folder / "summary.json"))


def _train(folder: Path, seed: int, *, overwrite: bool) -> dict[str, TrainResult]:
    """The four models. Each stage is skipped where it is finished, and gone on with where it is not."""
    untrained = _untrained(folder / f"untrained-{seed}", seed)
    common: dict[str, Any] = {
        "seed": seed,
        "overwrite": overwrite,
        "eval_data": (f"sandbox:preferences?rows={EVAL_ROWS}&split=test&seed={seed}",),
        "logging_steps": 20,
        "eval_steps": 100_000,
        "save_strategy": "no",
        "report_to": ("none",),
        "dtype": "float32",
        "bf16": False,  # the same figures on every processor
    }
    preferences = f"sandbox:preferences?rows={PREFERENCES}&seed={seed}"
    base = train_sft(
        SFTSettings(
            model=str(untrained),
            output_dir=folder / "base",
            train_data=(f"sandbox:demonstrations?rows={DEMONSTRATIONS}&seed={seed}",),
            learning_rate=3e-3,
            per_device_train_batch_size=8,
            **common | {"eval_data": (), "eval_strategy": "no"},
        )
    )
    sft = train_sft(
        SFTSettings(
            model=str(base.model),
            output_dir=folder / "sft",
            train_data=(preferences,),
            learning_rate=1e-3,
            per_device_train_batch_size=8,
            **common,
        )
    )
    reward = train_reward(
        RewardSettings(
            model=str(sft.model),
            output_dir=folder / "reward",
            train_data=(f"{preferences}&style=RANKED&responses=4",),
            learning_rate=1.5e-3,
            per_device_train_batch_size=16,
            **common,
        )
    )
    dpo = train_preferences(
        DPOSettings(
            model=str(sft.model),
            output_dir=folder / "dpo",
            train_data=(preferences,),
            learning_rate=1e-4,
            per_device_train_batch_size=32,
            **common,
        )
    )
    return {"base": base, "sft": sft, "reward": reward, "dpo": dpo}


def _untrained(folder: Path, seed: int) -> Path:
    """The tiny model before any training; it appears whole or not at all."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        build_tiny_model(unfinished, seed=seed)
        unfinished.rename(folder)
    return folder


def _comparison(
    folder: Path, models: Mapping[str, Path], reward: Path, seed: int, *, overwrite: bool
) -> CompareSettings:
    """Base, SFT and DPO on held-out prompts, judged by the reward model and by gold."""
    return CompareSettings(
        models=tuple(f"{name}={model}" for name, model in models.items()),
        reward_model=(f"reward={reward}",),
        judge=("gold",),
        prompts=(f"sandbox:preferences?rows={PROMPTS}&split=test&seed={seed}",),
        max_new_tokens=TOKEN_CAP,
        batch_size=BATCH_SIZE,
        seed=seed,
        dtype="float32",
        out=folder,
        overwrite=overwrite,
    )


def _reward_figures(trained: TrainResult, world: World) -> dict[str, Any]:
    rows = [row["eval_accuracy"] for row in read_metrics(trained.output_dir) if "eval_accuracy" in row]
    best = label_accuracies(world, rows=EVAL_ROWS, split="test")
    return {
        "accuracy": rows[-1],
        "accuracy_before": rows[0],
        "bayes_accuracy": best.bayes,
        "share_of_bayes": rows[-1] / best.bayes,
        "longer_is_better_accuracy": best.longer,
        "n": best.pairs,
    }


def _dpo_figures(trained: TrainResult) -> dict[str, float]:
    losses = [row["loss"] for row in read_metrics(trained.output_dir) if "loss" in row]
    return {
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "reward_accuracy": trained.metrics["eval_rewards/accuracies"],
        "eval_loss": trained.metrics["eval_loss"],
    }


def _kl(prompts: Path, models: Mapping[str, Path], seed: int) -> dict[str, float]:
    """KL(DPO ‖ SFT) per response in nats, over responses that DPO's model samples to the study's prompts."""
    asked = GenerateSettings(model=str(models["sft"]), prompts=(str(prompts),), format="prompts")
    template = load_template(asked)
    questions, _, _ = read_prompts(asked, template)
    policy, reference = (load_model(str(models[name]), "policy", dtype=torch.float32).eval() for name in ("dpo", "sft"))
    sampled = sample_responses(policy, template, questions, samples=1, cap=TOKEN_CAP, seed=seed, batch_size=BATCH_SIZE)
    found = divergences(policy, reference, template, questions, sampled, batch_size=BATCH_SIZE)
    return {"kl": sum(found) / len(found), "kl_n": len(found)}
