"""Every setting of every command, with its default and where the default comes from.

Names follow `transformers.TrainingArguments` and TRL where they have one.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from preflab.core.config import MOST_SEED, Positional, Settings
from preflab.core.records import UserError
from preflab.data.settings import DataSettings
from preflab.model.settings import LoraSettings, ModelSettings

Interval = Literal["no", "steps", "epoch"]
MOST_STEPS = 1_000_000
"""Optimizer steps of a run. Its plan is made first and held in memory, some hundred bytes a step."""


class TrainSettings(Settings):
    output_dir: Path = Field(description="Folder of the run. The same command on the same folder resumes or skips it.")
    overwrite: bool = Field(default=False, description="Discard what the folder holds and start anew.")
    learning_rate: float = Field(gt=0, description="Peak learning rate of AdamW.")
    num_train_epochs: float = Field(default=1.0, gt=0, description="Passes over the training data.")
    max_steps: int = Field(
        default=-1, ge=-1, description="Stop after this many optimizer steps; -1: after num_train_epochs."
    )
    per_device_train_batch_size: int = Field(default=8, ge=1, description="Comparisons per device and forward pass.")
    per_device_eval_batch_size: int = Field(default=16, ge=1, description="The same for evaluations.")
    max_tokens_per_batch: int | None = Field(
        default=None,
        ge=1,
        description="Fill batches with comparisons of similar length up to this many tokens instead of a fixed number.",
    )
    gradient_accumulation_steps: int = Field(default=1, ge=1, description="Forward passes per optimizer step.")
    gradient_checkpointing: bool = Field(default=False, description="Save memory by computing activations twice.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        default="cosine", description="Course of the learning rate, warm-up aside."
    )
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    warmup_steps: int | None = Field(
        default=None, ge=0, description="The same as a number of steps; instead of warmup_ratio."
    )
    bf16: bool | None = Field(
        default=None,
        description="bfloat16 arithmetic (mixed precision); by default on GPUs that have it, and on CPUs where a "
        "product of matrices in it, timed once, is at least 1.5 times as fast as in float32.",
    )
    seed: int = Field(default=42, ge=0, le=MOST_SEED, description="Seed of data order, sampling and initialisation.")
    logging_steps: int = Field(default=10, ge=1, description="Steps between two lines of metrics.jsonl.")
    eval_strategy: Interval = Field(default="steps", description="When to evaluate, where there is held-out data.")
    eval_steps: int | None = Field(
        default=None, ge=1, description="Steps between two evaluations; by default a tenth of the run."
    )
    save_strategy: Interval = Field(default="steps", description="When to write a checkpoint.")
    save_steps: int = Field(default=100, ge=1, description="Steps between two checkpoints.")
    save_total_limit: int = Field(
        default=2, ge=1, description="Checkpoints kept: the newest ones, and the best besides."
    )
    load_best_model_at_end: bool = Field(
        default=False, description="Keep the best evaluated checkpoint as the final model, not the last."
    )
    metric_for_best_model: str = Field(
        default="eval_loss", description="Evaluation metric that tells the best checkpoint."
    )
    greater_is_better: bool | None = Field(
        default=None, description="Direction of that metric; by default known for every metric but your own."
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Stop when this many evaluations in a row have not been better than the best."
    )
    report_to: tuple[Literal["tensorboard", "wandb", "trackio", "none"], ...] = Field(
        default=("tensorboard",), description="Trackers, or none. metrics.jsonl and the curves are always written."
    )
    push_to_hub: str | None = Field(
        default=None, description="Hub repository to push the final model to (needs HF_TOKEN in the environment)."
    )
    hub_strategy: Literal["end", "every_evaluation"] = Field(
        default="end", description="When to push: the final model only, or also the model of every evaluation."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> TrainSettings:
        if self.max_steps == 0 or self.max_steps > MOST_STEPS:
            raise UserError(
                f"max_steps: found {self.max_steps}; give 1 to {MOST_STEPS:,} optimizer steps, or -1 to train for "
                "num_train_epochs"
            )
        if self.warmup_steps is not None and "warmup_ratio" in self.model_fields_set:
            raise UserError("warmup_steps and warmup_ratio are two ways to say one thing: give one of them")
        for name in self.report_to:
            if name != "none" and importlib.util.find_spec(name) is None:
                raise UserError(f"report_to: {name} is not installed; pip install {name}, or choose another tracker")
        if self.load_best_model_at_end and "no" in (self.save_strategy, self.eval_strategy):
            raise UserError("load_best_model_at_end needs eval_strategy and save_strategy, and one of them is no")
        if self.hub_strategy == "every_evaluation" and (self.push_to_hub is None or self.eval_strategy == "no"):
            raise UserError("hub_strategy every_evaluation needs push_to_hub, and an eval_strategy other than no")
        if self.early_stopping_patience and self.eval_strategy == "no":
            raise UserError("early_stopping_patience needs evaluations, and eval_strategy is no")
        return self


NOT_IN_RESULT = {
    *("output_dir", "overwrite", "report_to", "push_to_hub", "hub_strategy", "logging_steps"),
    "per_device_eval_batch_size",
    *("save_strategy", "save_steps", "save_total_limit"),  # the best checkpoint is kept whatever these say
}
"""Settings that change nothing of the trained weights, so a run may go on with other ones."""


def product_of(settings: LoraSettings) -> str:
    """The model to go on with, in a training's folder."""
    return "merged_model" if settings.lora else "model"


class SFTSettings(ModelSettings, LoraSettings, DataSettings, TrainSettings):
    """Supervised fine-tuning on the best response of each row; the loss is on the response only."""

    output_dir: Path = Field(default=Path("runs/sft"), description=TrainSettings.model_fields["output_dir"].description)
    learning_rate: float = Field(
        default=2e-5, gt=0, description="Peak learning rate of AdamW (TRL's SFT default: 2e-5)."
    )


class RewardSettings(ModelSettings, LoraSettings, DataSettings, TrainSettings):
    """A Bradley-Terry reward model: a linear head on the last token, -log sigmoid(r_better - r_worse) over all pairs of
    a row.
    """

    output_dir: Path = Field(
        default=Path("runs/reward"), description=TrainSettings.model_fields["output_dir"].description
    )
    learning_rate: float = Field(default=2e-5, gt=0, description="Peak learning rate of AdamW.")
    center_rewards_coefficient: float = Field(
        default=0.0,
        ge=0,
        description="Adds c·mean(r²), which keeps rewards around zero (Eisenstein et al., 2023, of r_w + r_l: 0.01).",
    )


class MergeSettings(Settings):
    """Merge an adapter into its base model, and compare the logits of both before anything is kept."""

    adapter: Annotated[Path, Positional()] = Field(description="Folder of a PEFT adapter.")
    output_dir: Annotated[Path, Positional()] = Field(description="Folder for the merged model.")
    tolerance: float = Field(
        default=1e-3, gt=0, description="Largest accepted difference of logits, relative to the largest logit."
    )
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")


class ObjectivesSettings(Settings):
    """The objectives of `preflab train NAME`: formula, what each needs, defaults, and where they come from."""
