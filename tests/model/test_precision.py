"""Which precision a device is fast in: tried out once, kept, and never dearer than a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock, Timeout

from preflab.core import rundir
from preflab.core.records import UserError
from preflab.model import precision
from preflab.model.precision import bf16_fault, check_bf16, has_bf16, kernels, pick_dtype

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_known(own_cache: Path) -> None:
    (own_cache / "bfloat16.json").unlink()
    precision._fast_on_this_cpu.cache_clear()


def timed(monkeypatch: pytest.MonkeyPatch, single: list[float], half: list[float]) -> list[str]:
    """Let products take these seconds, in turn; what was timed is put down."""
    asked: list[str] = []
    left = {"float32": iter(single * 99), "bfloat16": iter(half * 99)}

    def product(dtype: torch.dtype) -> Any:
        return str(dtype).removeprefix("torch.")

    def seconds(name: str) -> float:
        asked.append(name)
        return next(left[name])

    monkeypatch.setattr(precision, "_product", product)
    monkeypatch.setattr(precision, "_seconds", seconds)
    monkeypatch.setattr(precision, "bf16_fault", lambda: None)
    return asked


@pytest.mark.parametrize(
    ("single", "half", "fast"),
    [
        ([10.0], [1.0], True),
        ([10.0], [6.0], True),
        ([10.0], [7.0], False),
        ([10.0], [10.0], False),
        ([1.0], [10.0], False),
        ([10.0, 10.0, 80.0], [1.0, 50.0, 1.0], True),
        ([10.0, 90.0, 90.0], [9.0], False),
        ([10.0], [9.0, 9.0, 9.0, 2.0], False),
    ],
    ids=["ten times", "1.7 times", "1.4 times", "equal", "a tenth", "noise", "others had it meanwhile", "one lucky go"],
)
def test_a_clear_factor_decides(
    single: list[float], half: list[float], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, single, half)
    assert has_bf16(CPU) is fast
    assert pick_dtype("auto", CPU, frozen=True) == (torch.bfloat16 if fast else torch.float32)
    assert pick_dtype("auto", CPU, frozen=False) == torch.float32


def test_it_is_measured_once_for_this_processor_and_these_kernels(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = timed(monkeypatch, [10.0], [1.0])
    assert has_bf16(CPU)
    count = len(asked)
    precision._fast_on_this_cpu.cache_clear()  # as a new process
    assert has_bf16(CPU)
    assert len(asked) == count, "kept in the cache's folder"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert has_bf16(CPU)
    assert len(asked) == 2 * count, "other kernels"
    assert json.loads((own_cache / "bfloat16.json").read_text()).keys() >= {kernels(CPU)}


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": "b"}', "\x00"])
def test_a_damaged_measurement_is_made_again(text: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, [10.0], [1.0])
    (own_cache / "bfloat16.json").write_text(text)
    assert has_bf16(CPU)


def test_a_cache_that_cannot_be_written_means_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process would measure by itself, and two of one run could find two answers."""
    timed(monkeypatch, [10.0], [1.0])
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFLAB_CACHE", str(tmp_path / "file"))
    assert not has_bf16(CPU)


def test_a_kernel_that_raises_counts_as_no_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, [10.0], [1.0])
    monkeypatch.setattr(precision, "bf16_fault", lambda: "pack_vnni2 is only supported when avx512 is supported")
    assert not has_bf16(CPU)
    for choose in (lambda: check_bf16(CPU), lambda: pick_dtype("bfloat16", CPU, frozen=False)):
        with pytest.raises(UserError, match=r"bfloat16: this CPU's kernels do not run \(pack_vnni2 .*Choose float32"):
            choose()


def test_a_kernel_that_ends_the_process_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> None:
        raise KeyboardInterrupt  # as good as a signal: nothing after it runs

    timed(monkeypatch, [10.0], [1.0])
    monkeypatch.setattr(precision, "bf16_fault", ended)
    with pytest.raises(KeyboardInterrupt):
        has_bf16(CPU)
    assert not has_bf16(CPU)


def test_the_fault_is_what_the_kernels_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("pack_vnni2 is only supported when avx512 is supported\nand a stack")

    bf16_fault.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(precision, "scaled_dot_product_attention", broken)
        assert bf16_fault() == "pack_vnni2 is only supported when avx512 is supported"
    bf16_fault.cache_clear()


def test_the_measurement_itself_runs() -> None:
    assert precision._measure() in (True, False)


def test_tests_have_one_default_on_every_processor(monkeypatch: pytest.MonkeyPatch, slow_in_bfloat16: str) -> None:
    timed(monkeypatch, [10.0], [1.0])
    (rundir.default_cache_dir() / "bfloat16.json").write_text(slow_in_bfloat16)
    assert not has_bf16(CPU)


def test_who_comes_while_it_is_measured_waits_for_the_answer(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the file meanwhile is for the case that a kernel ends the process."""
    timed(monkeypatch, [10.0], [1.0])
    found = []

    def measure() -> bool:
        with pytest.raises(Timeout):
            FileLock(own_cache / "bfloat16.lock").acquire(timeout=0)
        found.append(json.loads((own_cache / "bfloat16.json").read_text())[kernels(CPU)])
        return True

    monkeypatch.setattr(precision, "_measure", measure)
    assert has_bf16(CPU)
    assert found == [False]
