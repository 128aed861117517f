"""Two processes against one, with the same comparisons in each step: the same metrics and the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import arguments, history, run, weights, write_model

from preflab.cli import main
from preflab.core.durable import read_metrics
from preflab.training import reward, stage

pytestmark = pytest.mark.slow

# Nine rows to evaluate on by fives, and 20 to train on by threes: each process has passes without rows, and a step may
# have an odd number of batches.
CUT: dict[str, Any] = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3, "max_steps": 5}
ALONE: dict[str, Any] = {**CUT, "gradient_accumulation_steps": 4}
# What is trained, and by which settings of its own; KTO's KL is that of both processes' rows.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "reward": ("reward", {}),
    "dpo": ("dpo", {}),
    "kto": ("kto", {"learning_rate": 1e-2}),
    "mixture": ("simpo", {"mix": ("ipo?weight=0.5", "sft?weight=0.1")}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """For each kind of training, the folder of one process's run and of two processes'."""
    root = tmp_path_factory.mktemp("processes")
    model = write_model(root / "tiny")
    commands = [arguments(kind, model, root / f"two-{name}", **CUT, **own) for name, (kind, own) in KINDS.items()]
    # `accelerate launch --cpu` starts a single process, whatever number it is told, unless there is MPI.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run(
        [*launch, json.dumps(commands)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PREFLAB_CACHE": str(root / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (kind, own) in KINDS.items():
        run(kind, model, root / f"one-{name}", **ALONE, **own)
    return {name: (root / f"one-{name}", root / f"two-{name}") for name in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_the_same(kind: str, folders: dict[str, tuple[Path, Path]]) -> None:
    one, two = (read_metrics(folder) for folder in folders[kind])
    assert len(one) == len(two) == 5 + 3  # a line for each step, evaluations at steps 0, 3 and 5
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    losses = [row["loss"] for row in one if "loss" in row]
    # The first step is taken at learning rate 0 (warm-up): what the second says of other rows can be the same, ln 2.
    assert len(losses) == 5
    assert len(set(losses[1:])) == 4, "something was learned"


def test_the_kl_is_that_of_both_processes_rows(folders: dict[str, tuple[Path, Path]]) -> None:
    """Else each process would subtract its own from the rewards."""
    one, two = (history(folder, "kl") for folder in folders["kto"])
    assert one == pytest.approx(two, rel=1e-5, abs=1e-6)
    assert max(one) > 0.1
    assert len(set(one)) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_same(kind: str, folders: dict[str, tuple[Path, Path]]) -> None:
    one, two = (weights(folder / "model") for folder in folders[kind])
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


def test_only_one_process_writes(folders: dict[str, tuple[Path, Path]]) -> None:
    for one, two in folders.values():
        assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
        assert {path.name for path in one.rglob("*.safetensors")} == {"model.safetensors", "optimizer.safetensors"}
    one, two = (json.loads((folder / "reward_model_eval_results.json").read_text()) for folder in folders["reward"])
    assert len(one) == len(two) == 9
    for ours, theirs in zip(two, one, strict=True):
        assert ours["chosen"] == theirs["chosen"]
        assert ours["score_chosen"] == pytest.approx(theirs["score_chosen"], rel=1e-4, abs=1e-5)


def _as_one_of_several() -> None:
    stage.draw_curves = lambda *_: None
    reward.draw_training_of_reward_model = lambda *_: None
    for words in json.loads(sys.argv[1]):
        try:
            main(words)
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    _as_one_of_several()
