"""Whole training runs on the sandbox's model, made smaller still, in about a second each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from preflab.core.durable import read_metrics
from preflab.objectives import OBJECTIVES
from preflab.sandbox.tiny import build_tiny_model
from preflab.training import fit
from preflab.training.preference_settings import settings_of
from preflab.training.preferences import train_preferences
from preflab.training.reward import train_reward
from preflab.training.settings import RewardSettings, SFTSettings
from preflab.training.sft import train_sft
from preflab.training.stage import TrainResult

TRAIN = "sandbox:preferences?rows=20&seed=1"
HELD_OUT = "sandbox:preferences?rows=9&seed=1&split=test"
DEFAULTS: dict[str, Any] = {
    "train_data": (TRAIN,),
    "eval_data": (HELD_OUT,),
    "learning_rate": 1e-3,
    "max_length": 256,
    "max_prompt_length": 128,
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 5,
    "logging_steps": 1,
    "eval_steps": 3,
    "save_steps": 2,
    "report_to": ("none",),
    "bf16": False,  # by default it depends on the processor, and so would all figures
}
# Without dropout, by which a policy differs from itself.
LORA: dict[str, Any] = {"lora": True, "lora_r": 4, "lora_dropout": 0.0}


def _made(objective: str, **values: Any) -> Any:
    """Its settings, of the table as it is when they are made."""
    return settings_of(objective)(**values)


COMMANDS: dict[str, tuple[Any, Any]] = {
    "sft": (SFTSettings, train_sft),
    "reward": (RewardSettings, train_reward),
    **{name: (partial(_made, name), train_preferences) for name in OBJECTIVES},
}


def write_model(folder: Path, *, seed: int = 0) -> Path:
    return build_tiny_model(folder, seed=seed, hidden_size=32, layers=1)


def settings(kind: str, model: Path | str, output_dir: Path, **changes: Any) -> Any:
    return COMMANDS[kind][0](**{**DEFAULTS, "model": str(model), "output_dir": output_dir, **changes})


def run(kind: str, model: Path | str, output_dir: Path, *, draw: bool = False, **changes: Any) -> TrainResult:
    """A training run; without its figures, which take longer to draw than all the rest takes."""
    with pytest.MonkeyPatch.context() as patch:
        if not draw:
            patch.setattr("preflab.training.stage.draw_curves", lambda *_: None)
            patch.setattr("preflab.training.reward.draw_training_of_reward_model", lambda *_: None)
        result: TrainResult = COMMANDS[kind][1](settings(kind, model, output_dir, **changes))
    return result


def arguments(kind: str, model: Path | str, output_dir: Path, **changes: Any) -> list[str]:
    """The same run as a command line's words."""
    words = ["train", kind]
    for name, value in {**DEFAULTS, "model": model, "output_dir": output_dir, **changes}.items():
        words += [
            word for item in (value if isinstance(value, tuple) else (value,)) for word in (f"--{name}", str(item))
        ]
    return words


def steer(patch: pytest.MonkeyPatch, name: str, *values: float) -> None:
    """Let evaluation find these values of a metric: at step 0, at step 1, and so on."""
    original = fit._evaluator

    def steered(*given: Any) -> Any:
        evaluate = original(*given)
        return evaluate and (lambda step: {**evaluate(step), name: values[step]})

    patch.setattr(fit, "_evaluator", steered)


def history(folder: Path, name: str) -> list[float]:
    """The values of one metric, in order."""
    return [row[name] for row in read_metrics(folder) if name in row]


def weights(folder: Path) -> dict[str, Tensor]:
    """Of a saved model, or of an adapter."""
    return load_file(weights_file(folder))


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def zero_last_block(path: Path) -> None:
    """What a power cut leaves of a file whose end had not reached the disk."""
    content = path.read_bytes()
    keep = len(content) * 3 // 4
    path.write_bytes(content[:keep] + bytes(len(content) - keep))


def cut_off(monkeypatch: pytest.MonkeyPatch, kind: str, model: Path, folder: Path, **changes: Any) -> None:
    """A run that ends before its model is written."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        recipe = kind if kind in ("sft", "reward") else "preferences"
        patch.setattr(f"preflab.training.{recipe}.save_trained", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(kind, model, folder, **changes)
