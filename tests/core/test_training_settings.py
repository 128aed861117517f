"""Settings of training that would be misread, or take for ever, are refused before anything starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import history, run, settings, write_model

from preflab.core.durable import read_metrics
from preflab.core.failures import explain_failure, is_out_of_memory
from preflab.core.output import explaining_memory
from preflab.core.records import UserError
from preflab.core.rundir import differences
from preflab.data.batches import plan_training, tenth
from preflab.training import fit


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("settings") / "tiny")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"max_steps": 0}, r"max_steps: found 0; give 1 to 1,000,000"),
        ({"max_steps": 10**12}, r"max_steps: found 1000000000000; give 1 to 1,000,000"),
        ({"max_steps": -2}, "max_steps"),
        ({"seed": 2**32}, r"(?s)seed.*4294967295"),
        ({"seed": -1}, "seed"),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "warmup_steps and warmup_ratio are two ways"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"num_train_epochs": float("nan")}, "num_train_epochs"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], what: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=what):
        settings("dpo", tiny, tmp_path / "run", **changes)


@pytest.mark.parametrize("epochs", [1e9, 1e300, float("inf")])
def test_epochs_without_end_are_not_planned(epochs: float) -> None:
    plan = {"max_steps": -1, "batch_size": 2, "max_tokens": None, "passes": 1, "seed": 0}
    with pytest.raises(UserError, match=r"num_train_epochs: found .*at most 1,000,000 are planned"):
        plan_training(np.full(20, 9), epochs=epochs, **plan)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["per_device_train_batch_size", "gradient_accumulation_steps", "max_tokens_per_batch"])
def test_batches_larger_than_the_data_are_the_data(name: str, tiny: Path, tmp_path: Path) -> None:
    run("sft", tiny, tmp_path / "run", max_steps=-1, eval_data=(), **{name: 10**12})
    assert len(history(tmp_path / "run", "loss")) == 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_21_a_tracker_that_is_not_installed_ends_it_before_it_starts(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda word, *more: None if word == name else original(word, *more))
    with pytest.raises(ValueError, match=rf"report_to: {name} is not installed; pip install {name}"):
        settings("dpo", tiny, tmp_path / "run", report_to=(name,))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("variable", "project"), [("our-project", "our-project"), ("", "preflab"), (None, "preflab")])
def test_the_trackers_own_variable_names_the_project(
    variable: str | None, project: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: object())
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_PROJECT", variable)
    given: list[Any] = []
    accelerator: Any = SimpleNamespace(
        init_trackers=lambda name, **options: given.append((name, options["init_kwargs"]))
    )
    fit._start_trackers(accelerator, settings("dpo", tiny, tmp_path / "my-run", report_to=("wandb",)))
    assert given == [(project, {"wandb": {"name": "my-run"}})]


def test_a_tracker_that_does_not_start_is_one_message(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: object())

    def failing(*_: object, **__: object) -> None:
        raise ConnectionError("no API key is configured\nand more")

    accelerator: Any = SimpleNamespace(init_trackers=failing)
    with pytest.raises(UserError, match=r"report_to: wandb could not be started: no API key is configured; mend"):
        fit._start_trackers(accelerator, settings("dpo", tiny, tmp_path / "run", report_to=("wandb",)))


@pytest.mark.slow
def test_a_tracker_that_fails_later_is_told_of_and_the_training_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from accelerate.tracking import TensorBoardTracker

    calls = []

    def failing(_self: object, _values: object, step: int | None = None, **_: object) -> None:
        calls.append(step)
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(TensorBoardTracker, "log", failing)
    run("sft", tiny, tmp_path / "run", max_steps=3, report_to=("tensorboard",))
    assert len(calls) == 1
    assert "tensorboard failed at step 0 (the network is gone)" in " ".join(capfd.readouterr().err.split())
    assert len(history(tmp_path / "run", "loss")) == 3


@pytest.mark.slow
def test_warm_up_by_steps(tiny: Path, tmp_path: Path) -> None:
    run("sft", tiny, tmp_path / "run", warmup_steps=4, lr_scheduler_type="constant_with_warmup", eval_data=())
    assert history(tmp_path / "run", "learning_rate") == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (9, 1), (10, 1), (25, 2), (100, 10), (12345, 1234)])
def test_ten_evaluations_whatever_the_length(steps: int, every: int) -> None:
    assert tenth(steps) == every


@pytest.mark.slow
def test_evaluations_by_default(tiny: Path, tmp_path: Path) -> None:
    run("sft", tiny, tmp_path / "run", max_steps=20, eval_steps=None)
    evaluated = [row["step"] for row in read_metrics(tmp_path / "run") if "eval_loss" in row]
    assert evaluated == list(range(0, 21, 2))


ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize(
    "error", [RuntimeError(ALLOCATOR), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_memory_that_ran_out_is_known_as_that(
    error: Exception, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    assert is_out_of_memory(error)
    assert str(explain_failure(error, "run")).startswith("out of memory")
    with (
        pytest.raises(UserError, match="out of memory; run the same command with a batch_size below 3"),
        explaining_memory(3),
    ):
        full()
    monkeypatch.setattr("preflab.model.responses.ResponseLogps.forward", full)
    with pytest.raises(UserError, match=r"out of memory .*per_device_train_batch_size \(now 4\)"):
        run("sft", tiny, tmp_path / "run")


def test_another_fault_is_not_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"), explaining_memory(3):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_setting_that_there_was_not_yet_and_is_not_used_is_no_difference() -> None:
    assert differences({"settings": {"beta": 1}}, {"settings": {"beta": 1, "warmup_steps": None}}) == []
    assert differences({"settings": {"beta": None}}, {"settings": {}}) == []
    assert differences({"settings": {}}, {"settings": {"warmup_steps": 3}}) == [
        "settings.warmup_steps: nothing there, 3 now"
    ]
