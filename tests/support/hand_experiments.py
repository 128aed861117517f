"""An experiment's folder written by hand: trainings, a comparison, a grid, whatever stages a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preflab.core.records import Judgement, Message, Outcome, Pair
from preflab.core.rundir import write_json, write_jsonl
from preflab.judging.verdicts import write_verdicts

LETTERS: Mapping[str, Outcome] = {"w": "win", "t": "tie", "l": "loss", "e": "error"}


def stage(name: str, command: str, **changes: Any) -> dict[str, Any]:
    """An entry of experiment.json."""
    entry = {"name": name, "group": name, "command": command, "folder": name, "variant": {}, "after": []}
    return {**entry, "status": "done", "seconds": 12.0, "reason": None, **changes}


def write_experiment(folder: Path, stages: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    head = {"name": "trial", "title": "Does it help?", "description": "As in a paper.", "stages": list(stages)}
    write_json(folder / "experiment.json", {**head, **changes})
    return folder


def write_training(folder: Path, *, loss: float = 0.5, accuracy: float = 0.7, chosen: float = -2.0) -> None:
    """Metrics of a preference objective: log-probabilities of chosen responses go from -10 to -10 + `chosen`."""
    rows: list[dict[str, float]] = [{"step": 0, "eval_loss": 0.693, "eval_logps/chosen": -10.0}]
    for step in (10, 20, 30):
        rows.append({"step": step, "loss": loss + 1 / step, "rewards/accuracies": accuracy, "rewards/margins": 0.4})
    rows.append({"step": 30, "eval_loss": loss, "eval_rewards/accuracies": accuracy, "eval_logps/chosen": -10 + chosen})
    write_jsonl(folder / "metrics.jsonl", rows)


def write_study(folder: Path, outcomes: str, *, title: str = "Did it get better?") -> None:
    """base and dpo on one prompt for each letter of w(in), t(ie), l(oss), as the gold reward has it."""
    players = [{"name": name, "source": f"runs/{name}"} for name in ("base", "dpo")]
    judge = {"name": "gold", "kind": "gold", "source": "the sandbox's gold reward"}
    write_json(folder / "study.json", {"title": title, "models": players, "judges": [judge]})
    prompts = [{"row": row, "prompt": _asked(row), "subset": None} for row, _ in enumerate(outcomes, 1)]
    write_jsonl(folder / "prompts.jsonl", prompts)
    for name in ("base", "dpo"):
        rows = [
            {**prompt, "sample": 0, "response": f"{name} says so", "tokens": 3, "finish": "eos"} for prompt in prompts
        ]
        write_jsonl(folder / "responses" / f"{name}.jsonl", rows)
        gains = [{"w": 1.0, "t": 0.0, "l": -1.0}[letter] if name == "dpo" else 0.0 for letter in outcomes]
        scored = [{**row, "score": gain} for row, gain in zip(rows, gains, strict=True)]
        write_jsonl(folder / "scores" / "gold" / f"{name}.jsonl", scored)


Cells = Mapping[tuple[str, int | None, float], str]
"""(model, step, temperature) -> outcomes of its prompts, one letter each."""


def write_grid(folder: Path, cells: Cells, *, judge: str = "gpt-4o") -> None:
    entries = [
        {"name": f"{model}-{step}-{temperature}", "model": model, "step": step, "temperature": temperature}
        for model, step, temperature in cells
    ]
    write_json(folder / "grid.json", {"opponent": "chosen", "judges": {judge: f"openai:{judge}"}, "cells": entries})
    count = max(map(len, cells.values()))
    write_jsonl(folder / "prompts.jsonl", [{"row": row, "prompt": _asked(row)} for row in range(1, count + 1)])
    for entry, outcomes in zip(entries, cells.values(), strict=True):
        write_verdicts(
            folder / "cells" / entry["name"] / f"{judge}.json",
            [Judgement(f"{row}/0", LETTERS[letter], reason="-") for row, letter in enumerate(outcomes, 1)],
            metadata={"judge": f"openai:{judge}", "model": entry["name"], "opponent": "chosen"},
            opponent_word="chosen",
            pairs={
                f"{row}/0": Pair(f"{row}/0", (Message("user", f"question {row}"),), "ours", "theirs")
                for row in range(1, len(outcomes) + 1)
            },
        )


def _asked(row: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {row}"}]
