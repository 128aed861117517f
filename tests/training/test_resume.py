"""Runs that are killed (by SIGKILL, at chosen moments) and started again, against runs that were never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from tiny_runs import cut_off, history, run, steer, write_model

from preflab.core.durable import read_metrics
from preflab.core.records import UserError
from preflab.model.adapters import add_lora
from preflab.model.load import load_model
from preflab.training import checkpoint as checkpoint_module
from preflab.training import journal as journal_module
from preflab.training import model as model_recipe
from preflab.training.checkpoint import Checkpoints
from preflab.training.journal import Journal
from preflab.training.stage import fingerprint_weights

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

LORA = {"lora": True, "lora_r": 4, "lora_dropout": 0.3}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    # Lines of metrics are means over three steps, so that what a killed run had gathered must not be lost.
    "sft": ("sft", {"logging_steps": 3, "max_steps": 9}),
    "dpo with LoRA": ("dpo", {**LORA, "logging_steps": 3, "max_steps": 9}),
    # Checkpoints at evaluations, between the lines of metrics; the best one is kept as the model.
    "best": ("reward", {"load_best_model_at_end": True, "save_steps": 50, "eval_steps": 2, "logging_steps": 4}),
}


def killed_at(call: int, owner: Any, name: str, *, after: bool = False) -> Callable[[], None]:
    """Make the `call`-th call of a function end this process: before it does anything, or when it is done."""

    def arm() -> None:
        original = getattr(owner, name)
        calls = []

        def deadly(*args: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == call and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **options)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, deadly)

    return arm


def half_a_line() -> None:
    """Make the fifth line of metrics end in the middle, and this process with it."""
    original, calls = journal_module.append_jsonl, []

    def deadly(path: Path, rows: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            with path.open("ab") as file:
                file.write(b'{"step": 4, "lo')
            os.kill(os.getpid(), signal.SIGKILL)
        original(path, rows)

    journal_module.append_jsonl = deadly


MOMENTS: dict[str, Callable[[], None]] = {
    "before the first checkpoint": killed_at(2, Journal, "advance"),
    "half a line of metrics written": half_a_line,
    "a checkpoint half written": killed_at(2, checkpoint_module, "write_state", after=True),
    "a checkpoint written, an old one not removed": killed_at(3, Checkpoints, "_remove_old"),
    "between checkpoints": killed_at(1, Journal, "advance"),
    "the model half written": killed_at(1, model_recipe, "save_model"),
    "all written but the end": killed_at(1, model_recipe, "save_model", after=True),
}
# (which run, the moments at which it is killed one after another)
CASES: list[tuple[str, tuple[str, ...]]] = [
    ("sft", ("before the first checkpoint",)),
    ("sft", ("a checkpoint half written",)),
    ("sft", ("the model half written",)),
    ("dpo with LoRA", ("half a line of metrics written",)),
    ("dpo with LoRA", ("a checkpoint written, an old one not removed", "between checkpoints")),
    ("dpo with LoRA", ("a checkpoint half written", "all written but the end")),
    ("best", ("a checkpoint half written",)),
    ("best", ("the model half written",)),
]
IDS = [f"{name}: {', then '.join(moments)}" for name, moments in CASES]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything ran: one process imports preflab once, and each run is a fork of it."""
    folder = tmp_path_factory.mktemp("resume")
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PREFLAB_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def files(folder: Path) -> dict[str, bytes]:
    names = ("metrics.jsonl", "reward_model_eval_results.json")
    paths = [*folder.glob("*/*.safetensors"), *(folder / name for name in names if (folder / name).exists())]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_a_killed_run_ends_as_one_that_was_never_stopped(case: int, root: Path) -> None:
    name, moments = CASES[case]
    report = json.loads((root / f"case-{case}.json").read_text())
    assert report == [-signal.SIGKILL] * len(moments) + [0], "each moment was reached, and the last start finished"
    expected, found = files(root / name), files(root / f"case-{case}")
    assert any(file.endswith("model.safetensors") for file in expected)
    assert found.keys() == expected.keys()
    for file, content in expected.items():
        assert found[file] == content, f"{file} differs"


def test_the_runs_that_are_compared_learn_something(root: Path) -> None:
    for name in RUNS:
        loss = history(root / name, "loss")
        assert len(set(loss)) > len(loss) / 2 > 1
    kept = sorted(path.name for path in (root / "best" / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004"], "the best one is not the last"


def test_a_finished_stage_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = write_model(tmp_path / "tiny")
    first = run("dpo", tiny, tmp_path / "run", max_steps=2)
    before = times(tmp_path / "run")
    monkeypatch.setattr("preflab.training.fit.train", lambda *_, **__: pytest.fail("trained again"))
    assert run("dpo", tiny, tmp_path / "run", max_steps=2) == first
    assert times(tmp_path / "run") == before


def times(folder: Path) -> dict[Path, int]:
    """When each file was changed last; the lock is opened anew each time."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}


def test_another_setting_is_another_run(tmp_path: Path) -> None:
    tiny = write_model(tmp_path / "tiny")
    run("dpo", tiny, tmp_path / "run", max_steps=2)
    with pytest.raises(UserError, match=r"settings\.beta: 0\.1 there, 0\.2 now"):
        run("dpo", tiny, tmp_path / "run", max_steps=2, beta=0.2)
    run("dpo", tiny, tmp_path / "run", max_steps=2, beta=0.2, overwrite=True)
    assert len(history(tmp_path / "run", "loss")) == 2


def test_another_model_in_the_same_folder_is_another_run(tmp_path: Path) -> None:
    """A fingerprint of the weights tells, not the name."""
    tiny = write_model(tmp_path / "tiny", seed=0)
    run("sft", tiny, tmp_path / "run", max_steps=1)
    write_model(tmp_path / "tiny", seed=1)
    with pytest.raises(UserError, match=r"model: \w+ there, \w+ now"):
        run("sft", tiny, tmp_path / "run", max_steps=1)


@pytest.mark.parametrize(
    "change",
    [
        {"report_to": ("tensorboard",)},
        {"logging_steps": 7, "per_device_eval_batch_size": 3},
        {"save_steps": 1, "save_strategy": "epoch", "save_total_limit": 5},
    ],
)
@pytest.mark.parametrize("best", [False, True], ids=["last", "best"])
def test_what_changes_no_weights_may_change(
    best: bool, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = write_model(tmp_path / "tiny")
    changes = {"load_best_model_at_end": best, "eval_steps": 1, "max_steps": 4}
    steer(monkeypatch, "eval_loss", 9, 5, 8, 7, 6)
    cut_off(monkeypatch, "dpo", tiny, tmp_path / "run", **changes)
    run("dpo", tiny, tmp_path / "run", **{**changes, **change})
    run("dpo", tiny, tmp_path / "whole", **changes)
    (one, other) = (folder / "model" / "model.safetensors" for folder in (tmp_path / "run", tmp_path / "whole"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("there", "now", "what"),
    [
        ({"passes_of": 2}, {"passes_of": 1}, r"gradient_accumulation_steps times processes: 2 there, 1 now"),
        ({"has_bf16": False}, {"has_bf16": True}, r"mixed_precision: no there, bf16 now"),
        ({"passes_of": 2}, {"passes_of": 2}, None),
    ],
    ids=["processes", "precision", "same"],
)
def test_a_run_does_not_go_on_under_another_plan(
    there: dict[str, Any], now: dict[str, Any], what: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would on another number of processes, or on a device that chooses another precision."""
    tiny = write_model(tmp_path / "tiny")

    def on(machine: dict[str, Any]) -> None:
        for name, value in machine.items():
            module = "stage" if name == "has_bf16" else "fit"
            monkeypatch.setattr(f"preflab.training.{module}.{name}", lambda *_, value=value: value)

    on(there)
    cut_off(monkeypatch, "sft", tiny, tmp_path / "run", bf16=None)
    on(now)
    if what:
        with pytest.raises(UserError, match=rf"step-00000004: was made under another plan.*{what}"):
            run("sft", tiny, tmp_path / "run", bf16=None)
    else:
        run("sft", tiny, tmp_path / "run", bf16=None)


@pytest.mark.parametrize(
    "change", [{"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}, {"sliding_window": 8}]
)
def test_what_the_weights_mean_is_in_their_fingerprint(change: dict[str, Any]) -> None:
    plain, other = tiny_model("mistral"), tiny_model("mistral", **change)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in plain.state_dict().items())
    assert fingerprint_weights(plain) == fingerprint_weights(tiny_model("mistral"))
    assert fingerprint_weights(plain) != fingerprint_weights(other)


def test_the_scale_of_an_adapter_is_in_its_fingerprint() -> None:
    def adapted(alpha: int) -> str:
        torch.manual_seed(0)
        model = tiny_model("qwen2")
        return fingerprint_weights(add_lora(model, "policy", r=4, alpha=alpha, dropout=0.0, targets=()))

    assert adapted(8) == adapted(8) != adapted(16)


def test_where_a_model_lies_is_not_in_its_fingerprint(tmp_path: Path) -> None:
    for name in ("here", "there"):
        tiny_model("qwen2").save_pretrained(tmp_path / name)
    here, there = (load_model(str(tmp_path / name), "policy", dtype=torch.float32) for name in ("here", "there"))
    assert fingerprint_weights(here) == fingerprint_weights(there)


def test_early_stopping_holds_for_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped right after the checkpoint at which patience ran out, a run must not take another step."""
    tiny = write_model(tmp_path / "tiny")
    steer(monkeypatch, "eval_loss", 9, 5, 3, 4, 2, 1)
    changes = {"early_stopping_patience": 1, "eval_steps": 1, "save_steps": 1, "max_steps": 5}
    run("reward", tiny, tmp_path / "whole", **changes)
    assert len(history(tmp_path / "whole", "loss")) == 3

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("preflab.training.reward.save_trained", no_room)
        with pytest.raises(OSError, match="No space left"):
            run("reward", tiny, tmp_path / "cut", **changes)
    run("reward", tiny, tmp_path / "cut", **changes)
    assert read_metrics(tmp_path / "cut") == read_metrics(tmp_path / "whole")


def _in_a_fork(action: Callable[[], object]) -> int:
    """Exit status of `action` in a process of its own; minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run_all(root: Path) -> None:
    """Every run uninterrupted, then every case. Nothing but forks computes, so that no thread is there to be forked."""
    assert _in_a_fork(lambda: write_model(root / "tiny")) == 0
    steer(pytest.MonkeyPatch(), "eval_loss", *(9, 5, 4, 7, 3, 8, 6, 7, 8, 9))  # the best but not the last at step 4
    for name, (kind, changes) in RUNS.items():
        status = _in_a_fork(lambda: run(kind, root / "tiny", root / name, **changes))  # noqa: B023 (called at once)
        assert status == 0, name
    for case, (name, moments) in enumerate(CASES):
        kind, changes = RUNS[name]

        def again(*arm: Callable[[], None]) -> None:
            for prepare in arm:
                prepare()
            run(kind, root / "tiny", root / f"case-{case}", **changes)  # noqa: B023 (called at once)

        starts = [_in_a_fork(lambda: again(MOMENTS[moment])) for moment in moments]  # noqa: B023 (called at once)
        (root / f"case-{case}.json").write_text(json.dumps([*starts, _in_a_fork(again)]))


if __name__ == "__main__":
    _run_all(Path(sys.argv[1]))
