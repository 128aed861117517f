"""TRL's side of the benchmark: its own trainer, with its defaults, on the same pairs. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import torch
from datasets import Dataset
from measure import peak_memory_gb, synchronize
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from preflab.core.records import Comparison
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.sources import open_source


class StepClock(TrainerCallback):
    """Seconds of each optimizer step, as the trainer itself marks them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        synchronize()
        self.started = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        synchronize()
        self.seconds.append(time.perf_counter() - self.started)


def main() -> None:
    cli = argparse.ArgumentParser()
    cli.add_argument("kind", choices=["dpo", "reward"])
    cli.add_argument("model")
    cli.add_argument("pairs")
    cli.add_argument("--batch", type=int, required=True)
    cli.add_argument("--steps", type=int, required=True)
    cli.add_argument("--max-length", type=int, required=True)
    args = cli.parse_args()

    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    settings = {
        "output_dir": tempfile.mkdtemp(prefix="trl-"),
        "per_device_train_batch_size": args.batch,
        "max_steps": args.steps,
        "max_length": args.max_length,
        "learning_rate": 1e-6,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "use_cpu": not gpu,
        "bf16": gpu,
    }
    if args.kind == "dpo":
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
        trainer_class, config = DPOTrainer, DPOConfig(**settings)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=dtype, num_labels=1)
        trainer_class, config = RewardTrainer, RewardConfig(**settings)
    clock = StepClock()
    trainer = trainer_class(
        model=model,
        args=config,
        train_dataset=_pairs(args.pairs, args.batch * args.steps),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    result = {
        "kind": args.kind,
        "pairs": args.batch * len(clock.seconds),
        "seconds": sum(clock.seconds),
        "step_seconds": clock.seconds,
        "peak_memory_gb": peak_memory_gb(),
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
    }
    print(json.dumps(result))


def _pairs(path: str, count: int) -> Dataset:
    """The pairs as this project reads them, written out as the transcripts that they are in the file."""
    source = open_source(f"{path}[:{count}]")
    rows = [row for row in read_comparisons(source, choose_formats(source)) if isinstance(row, Comparison)]
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    return Dataset.from_list(
        [
            {
                "prompt": "".join(f"\n\n{names[m.role]}: {m.content}" for m in row.prompt) + "\n\nAssistant:",
                "chosen": " " + row.responses[0],
                "rejected": " " + row.responses[-1],
            }
            for row in rows
        ]
    )


if __name__ == "__main__":
    main()
