"""Every setting of every command, with its default and where the default comes from.

Names follow `transformers.TrainingArguments` and TRL where they have one.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from preflab.stats.definitions import ACCURACY, MEAN_PREFERENCE, STD, TIES_HALF
from preflab.core.config import Positional, Settings, Values
from preflab.data.columns import COLUMNS_HELP, ColumnNames
from preflab.core.records import UserError
from preflab.sandbox.world import MOST_ROWS

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Interval = Literal["no", "steps", "epoch"]
MOST_STEPS = 1_000_000
"""Optimizer steps of a run. Its plan is made first and held in memory, some hundred bytes a step."""
MOST_SEED = 2**32 - 1
"""What NumPy's generators take."""


class ModelSettings(Settings):
    model: str = Field(description="Hub id, folder, adapter folder or .gguf file of the model to start from.")
    dtype: Dtype = Field(
        default="auto",
        description="Precision of the weights. auto: float32, with bfloat16 arithmetic where the device is faster in "
        "it; LoRA's frozen weights are then bfloat16 themselves.",
    )
    chat_template: str | None = Field(
        default=None,
        description="Chat template for a model that has none: chatml or human-assistant; or the name of one of several "
        "that its tokenizer brings. Saved with the tokenizer.",
    )
    chat_template_kwargs: Values = Field(
        default={},
        description="Values for the chat template's own switches, such as enable_thinking=false. Saved with the "
        "tokenizer, so that all that follows asks the model in the same way.",
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub's model; by default its main branch."
    )
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")


class LoraSettings(Settings):
    lora: bool = Field(default=False, description="Train a low-rank adapter instead of all weights.")
    lora_r: int = Field(
        default=16, ge=1, description="Rank of the adapter (as published replications of DPO on HH use)."
    )
    lora_alpha: int = Field(
        default=32,
        ge=1,
        description="The adapter's output is scaled by lora_alpha / lora_r (as published DPO runs on HH use).",
    )
    lora_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Dropout in front of the adapter (as published replications of DPO on HH use).",
    )
    lora_target_modules: tuple[str, ...] = Field(
        default=(), description="Names of the linear layers to adapt; by default all of the backbone."
    )


class DataSettings(Settings):
    train_data: tuple[str, ...] = Field(
        description="Sources to train on: files, hub ids or sandbox:…, each with an optional slice: data.jsonl[:-300]."
    )
    eval_data: tuple[str, ...] = Field(default=(), description="Held-out sources.")
    format: str | None = Field(
        default=None,
        description="Format of the rows: a name (see `preflab data formats`) or file.py:function; else detected.",
    )
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    train_split_ratio: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Without eval_data: the share of prompts to train on; the rest is held out.",
    )
    max_train_samples: int | None = Field(default=None, ge=1, description="Train on a seeded sample of this many rows.")
    max_eval_samples: int | None = Field(
        default=None, ge=1, description="Evaluate on a seeded sample of this many rows."
    )
    max_length: int = Field(
        default=512,
        ge=2,
        description="Longest prompt and response together, in tokens (as published DPO runs on HH use).",
    )
    max_prompt_length: int = Field(
        default=358,
        ge=1,
        description="Longest prompt in tokens; its oldest tokens go first (as published DPO runs on HH use).",
    )
    min_score_margin: float | None = Field(
        default=None,
        ge=0,
        description="Drop pairs whose own scores differ by less than this (0: pairs that their scores contradict).",
    )
    on_too_long: Literal["drop", "raise"] = Field(
        default="drop", description="What to do with a response that does not fit."
    )


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


class DecodingSettings(Settings):
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Sample from the likeliest tokens that hold this share of the probability."
    )
    top_k: int = Field(default=0, ge=0, description="Sample from this many likeliest tokens; 0: from all.")
    repetition_penalty: float = Field(
        default=1.0, gt=0, description="Above 1 makes tokens that were used before less likely."
    )
    num_return_sequences: int = Field(default=1, ge=1, description="Responses per prompt.")
    max_new_tokens: int = Field(default=512, ge=1, description="Token cap of a response.")
    seed: int = Field(default=42, ge=0, le=MOST_SEED, description="Seed of sampling, and of the choice of prompts.")


class SamplingSettings(DecodingSettings):
    temperature: float = Field(default=1.0, ge=0, description="Sampling temperature; 0 takes the likeliest token.")


class GenerateSettings(ModelSettings, SamplingSettings):
    """Responses of a model to prompts, one line each."""

    prompts: tuple[str, ...] = Field(
        description="Sources of prompts: files, hub ids or sandbox:…, also preference data."
    )
    format: str | None = Field(default=None, description=DataSettings.model_fields["format"].description)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    max_samples: int | None = Field(default=None, ge=1, description="Answer a seeded sample of this many prompts.")
    max_prompt_length: int = Field(
        default=1024, ge=1, description="Longest prompt in tokens; its oldest tokens go first."
    )
    batch_size: int = Field(default=16, ge=1, description="Responses generated at once.")
    output: Path = Field(
        default=Path("runs/responses.jsonl"), description="File of responses; an unfinished one is gone on with."
    )
    overwrite: bool = Field(default=False, description="Discard what was made before and start anew.")


class ScoreSettings(Settings):
    """Rewards of responses, or of the ranked responses of preference data."""

    data: Annotated[tuple[str, ...], Positional()] = Field(
        description="Sources to score: preference data, or files of responses such as `preflab generate` writes. Their "
        f"accuracy is the {ACCURACY}; reward_std is the {STD} over all responses."
    )
    reward_model: str = Field(description="Hub id, folder or adapter folder of a reward model with one label.")
    chat_template: str | None = Field(
        default=None, description="Named chat template for a reward model that comes without one."
    )
    chat_template_kwargs: Values = Field(
        default={}, description="Values for the switches of the reward model's chat template."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub's reward model.")
    format: str | None = Field(default=None, description=DataSettings.model_fields["format"].description)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    max_samples: int | None = Field(default=None, ge=1, description="Score a seeded sample of this many rows.")
    max_length: int = Field(default=1024, ge=2, description="Longest prompt and response together, in tokens.")
    max_prompt_length: int = Field(
        default=1024, ge=1, description="Longest prompt in tokens; its oldest tokens go first."
    )
    dtype: Dtype = Field(
        default="auto",
        description="Precision of the weights; auto: bfloat16 where the device is faster in it, else float32.",
    )
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")
    batch_size: int = Field(default=16, ge=1, description="Comparisons per forward pass.")
    seed: int = Field(default=42, ge=0, le=MOST_SEED, description="Seed of the sample.")
    output: Path = Field(
        default=Path("runs/scores.jsonl"), description="File of scores, one line per row; a summary lies beside it."
    )
    overwrite: bool = Field(default=False, description="Discard what was made before and start anew.")


class WinrateSettings(Settings):
    """Win rates with intervals, computed again from the rows of verdict files."""

    files: Annotated[tuple[Path, ...], Positional()] = Field(
        description="Verdict files: ours, finished or not, of the same layout, or AlpacaEval's annotations.json. The "
        f"win rate of one is the {TIES_HALF}; of verdicts that are probabilities, the {MEAN_PREFERENCE}."
    )
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the bootstrap.")
    json_output: bool = Field(default=False, alias="json", description="Print JSON instead of tables.")


class MergeSettings(Settings):
    """Merge an adapter into its base model, and compare the logits of both before anything is kept."""

    adapter: Annotated[Path, Positional()] = Field(description="Folder of a PEFT adapter.")
    output_dir: Annotated[Path, Positional()] = Field(description="Folder for the merged model.")
    tolerance: float = Field(
        default=1e-3, gt=0, description="Largest accepted difference of logits, relative to the largest logit."
    )
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")


class InspectSettings(Settings):
    """What is in a data source: format, counts, what would be dropped and why, lengths, duplicates, rendered rows."""

    source: Annotated[tuple[str, ...], Positional()] = Field(description="Sources: files, hub ids or sandbox:….")
    format: str | None = Field(default=None, description=DataSettings.model_fields["format"].description)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    model: str | None = Field(
        default=None, description="Model whose tokenizer and template count tokens and render rows."
    )
    chat_template: str | None = Field(default=None, description=ModelSettings.model_fields["chat_template"].description)
    chat_template_kwargs: Values = Field(
        default={}, description="Values for the chat template's own switches, such as enable_thinking=false."
    )
    max_length: int = Field(default=512, ge=2, description=DataSettings.model_fields["max_length"].description)
    max_prompt_length: int = Field(
        default=358, ge=1, description=DataSettings.model_fields["max_prompt_length"].description
    )
    rows: int = Field(default=1, ge=0, description="How many rows to print token by token.")
    json_output: bool = Field(default=False, alias="json", description="Print JSON instead of tables.")


class FormatsSettings(Settings):
    """The formats of preference data that are known by name."""


class ObjectivesSettings(Settings):
    """The objectives of `preflab train NAME`: formula, what each needs, defaults, and where they come from."""


class SandboxSettings(Settings):
    """Write the embedded sandbox to a folder: preference files in several formats, and its untrained tiny model."""

    output_dir: Annotated[Path, Positional()] = Field(description="Folder to write to.")
    rows: int = Field(default=2000, ge=1, le=MOST_ROWS, description="Training comparisons.")
    eval_rows: int = Field(default=500, ge=1, le=MOST_ROWS, description="Held-out comparisons.")
    noise: float = Field(
        default=0.5, ge=0, description="Temperature of the annotators' Bradley-Terry choices; 0: no noise."
    )
    length_bias: float = Field(default=0.0, description="How much annotators like length for its own sake.")
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the world.")


class RunSettings(Settings):
    """Run an experiment: its stages in their order, each as far as it is not done, and one report at the end."""

    experiment: Annotated[Path, Positional()] = Field(
        description="The experiment's file, as docs/experiments.md has it."
    )
    assignments: Annotated[tuple[str, ...], Positional()] = Field(
        default=(),
        description="key=value: a value (model=./my-model), a stage's setting (dpo.beta=0.2), what it sweeps "
        "(dpo.sweep.beta=[0.1,0.2]), a setting for all (settings.seed=1), or output_dir.",
    )
    overwrite: bool = Field(
        default=False, description="Discard, and make anew, stages made from other inputs, and all that follows them."
    )
    dry_run: bool = Field(default=False, description="Run nothing: show the stages, and what they will take.")


class QuickstartSettings(Settings):
    """The whole chain on the embedded sandbox: data, base model, SFT, reward model, DPO, responses, gold rewards."""

    output_dir: Path = Field(
        default=Path("runs/quickstart"), description="Folder of the run; an unfinished one is gone on with."
    )
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the world and of all training.")
    overwrite: bool = Field(default=False, description="Discard what the folder holds and start anew.")
