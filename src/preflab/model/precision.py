"""Which precision a device is fast in, found out by trying; and by which kernels it computes."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from preflab.core.records import UserError
from preflab.core.rundir import default_cache_dir, write_json

FASTER = 1.5
"""bfloat16 is the default where a product in it takes less than 1/1.5 of float32's time. The CPUs that have no
instructions for it need about ten times as much, those that have them a third to a tenth: noise does not decide.
"""
GOES = 9
SHAPE = (256, 512, 512)  # of the product that is timed: a few milliseconds where it is slow


def pick_dtype(setting: str, device: torch.device, *, frozen: bool) -> torch.dtype:
    """The dtype of the weights. `frozen` weights (scoring, generation, LoRA's base) may be bfloat16 where the device is
    good at it; trained ones stay float32 under "auto", because a small learning rate vanishes in bfloat16's rounding.
    Raises UserError where the device cannot compute in bfloat16.
    """
    if setting == "bfloat16":
        check_bf16(device)
    if setting != "auto":
        return getattr(torch, setting)  # type: ignore[no-any-return]
    return torch.bfloat16 if frozen and has_bf16(device) else torch.float32


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is fast there: of a GPU its driver knows it, of a CPU a product of matrices tells.

    The measurement is kept in the cache's folder, so that all processes and a resumed run have one answer.
    """
    if device.type == "cpu":
        return _fast_on_this_cpu(default_cache_dir(), kernels(device))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def check_bf16(device: torch.device) -> None:
    """Refuse bfloat16 where its kernels do not run. Raises UserError with what they say."""
    if device.type == "cpu" and (fault := bf16_fault()):
        raise UserError(
            f"bfloat16: this CPU's kernels do not run ({fault}). Choose float32 (--dtype float32 --no-bf16)"
        )


@cache
def bf16_fault() -> str | None:
    """What the CPU's bfloat16 kernels say when they do not run: torch lacks some of them under some settings of
    ATEN_CPU_CAPABILITY.
    """
    states = torch.ones(1, 2, 512, 32, dtype=torch.bfloat16, requires_grad=True)
    try:
        scaled_dot_product_attention(states, states, states).sum().backward()  # type: ignore[no-untyped-call]
        _product(torch.bfloat16)()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def kernels(device: torch.device) -> str:
    """What decides by which kernels torch computes there, and so how its results are rounded; threads apart."""
    if device.type == "cuda":
        return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}"
    chosen = [f"{name}={os.environ[name]}" for name in _CHOOSING if name in os.environ]
    capability = torch.backends.cpu.get_cpu_capability()
    return ", ".join([f"torch {torch.__version__}", device.type, _cpu_name(), capability, *chosen])


_CHOOSING = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


@cache
def _fast_on_this_cpu(folder: Path, here: str) -> bool:
    path = folder / "bfloat16.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # who comes meanwhile waits, and does not read the first answer below
            known = _read(path)
            if here not in known:
                write_json(path, known | {here: False})  # a kernel that ends the process will not be asked again
                known = known | {here: bf16_fault() is None and _measure()}
                write_json(path, known)
            return known[here]
    except OSError:  # a folder that can only be read: without an answer there, other processes could find another one
        return _read(path).get(here, False)


def _read(path: Path) -> dict[str, bool]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: fast for name, fast in known.items() if fast in (True, False)} if isinstance(known, dict) else {}


def _measure() -> bool:
    """Several goes in turn, after one to warm up. Faster is what is so at its best and most of the time: others may
    have the processor for some of it.
    """
    single, half = _product(torch.float32), _product(torch.bfloat16)
    times = [(_seconds(single), _seconds(half)) for _ in range(GOES + 1)][1:]
    at_best = min(single for single, _ in times) / min(half for _, half in times)
    return min(at_best, median(single / half for single, half in times)) >= FASTER


def _product(dtype: torch.dtype) -> Callable[[], Tensor]:
    rows, inputs, outputs = SHAPE
    left, right = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
    return lambda: linear(left, right)


def _seconds(work: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags", "Features"))]
    return " ".join(sorted(set(named))) or platform.machine()
