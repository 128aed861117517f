"""The whole chain on the embedded sandbox, where the truth is known: base, SFT, reward model, DPO, and the report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from preflab.core.durable import read_metrics
from preflab.core.rundir import read_json, write_json
from preflab.data.splits import load_template
from preflab.experiment.run import run_experiment
from preflab.experiment.settings import RunSettings
from preflab.model.load import load_model
from preflab.quickstart.settings import QuickstartSettings
from preflab.sample.generate import read_prompts
from preflab.sample.rollouts import divergences, sample_responses
from preflab.sample.settings import GenerateSettings
from preflab.stats.wording import exact_percent
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.rows import read_study

EXPERIMENT = Path(__file__).parent / "quickstart.yaml"
TOKEN_CAP, BATCH_SIZE = 48, 100  # of the comparison, for the responses that the KL is of


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
            "  compare/report.html               did it get better? The answer, and every case: open it in a browser",
            "  report.html                       the same in short, with the course of each training and the plan",
            "  summary.json                      these figures",
            "  sft/model reward/model dpo/model  the models, in Hugging Face's format",
            "  compare/                          what base, SFT and DPO answer to held-out prompts, and its figures",
        ]
        return "\n".join(lines)


def run_quickstart(settings: QuickstartSettings, *assignments: str) -> QuickstartResult:
    """Run `quickstart.yaml` beside this file, with `key=value` changes, or what is missing of it; then sum it up in
    `summary.json`.
    """
    started = time.monotonic()
    folder, seed = settings.output_dir, settings.seed
    # The title is as true of another seed, which else would take it away.
    given = (f"output_dir={json.dumps(str(folder))}", "title=Did it get better?", f"seed={seed}", *assignments)
    run_experiment(RunSettings(experiment=EXPERIMENT, assignments=given, overwrite=settings.overwrite))
    compared = analyse(read_study(folder / "compare"))
    summary = {
        "seed": seed,
        "reward_model": _reward_figures(folder),
        "gold_reward": {model.name: model.scores["gold"].mean for model in compared.models},
        "dpo": _dpo_figures(folder / "dpo") | _kl(folder, seed),
        "seconds": time.monotonic() - started,
    }
    write_json(folder / "summary.json", summary)
    return QuickstartResult(folder, read_json(folder / "summary.json"))


def _reward_figures(folder: Path) -> dict[str, Any]:
    """How many held-out labels the reward model meets, beside what the best possible scorer meets on average."""
    rows = [row["eval_accuracy"] for row in read_metrics(folder / "reward") if "eval_accuracy" in row]
    best = read_json(folder / "world" / "accuracies-test.json")
    return {
        "accuracy": rows[-1],
        "accuracy_before": rows[0],
        "bayes_accuracy": best["bayes"],
        "share_of_bayes": rows[-1] / best["bayes"],
        "longer_is_better_accuracy": best["longer"],
        "n": best["pairs"],
    }


def _dpo_figures(folder: Path) -> dict[str, float]:
    rows = read_metrics(folder)
    losses, evaluations = ([row for row in rows if name in row] for name in ("loss", "eval_loss"))
    return {
        "loss_first": losses[0]["loss"],
        "loss_last": losses[-1]["loss"],
        "reward_accuracy": evaluations[-1]["eval_rewards/accuracies"],
        "eval_loss": evaluations[-1]["eval_loss"],
    }


def _kl(folder: Path, seed: int) -> dict[str, float]:
    """KL(DPO ‖ SFT) per response in nats, over responses that DPO's model samples to the study's prompts."""
    policy, reference = (
        load_model(str(folder / name / "model"), "policy", dtype=torch.float32).eval() for name in ("dpo", "sft")
    )
    prompts = str(folder / "compare" / "prompts.jsonl")
    asked = GenerateSettings(model=str(folder / "sft" / "model"), prompts=(prompts,), format="prompts")
    template = load_template(asked)
    questions, _, _ = read_prompts(asked, template)
    sampled = sample_responses(policy, template, questions, samples=1, cap=TOKEN_CAP, seed=seed, batch_size=BATCH_SIZE)
    found = divergences(policy, reference, template, questions, sampled, batch_size=BATCH_SIZE)
    return {"kl": sum(found) / len(found), "kl_n": len(found)}
