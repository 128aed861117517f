"""How fast this computer's device is: products of matrices, and bytes of memory, timed for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch

from preflab.model.precision import has_bf16, pick_dtype

GOES = 9
MOST_TOKENS = 2048  # in a product that is timed: more are no faster
MOST_OPERATIONS = {"cpu": 10**9, "other": 2 * 10**11}  # of one product, so that all goes take a moment
COPIED = 1 << 26  # bytes of the copy that is timed, more than caches hold


@dataclass(frozen=True)
class Machine:
    """A device, and the precision of its products ("bfloat16" or "float32")."""

    device: torch.device
    dtype: torch.dtype

    @property
    def number_bytes(self) -> int:
        return self.dtype.itemsize

    def flops(self, tokens: float, inputs: int, outputs: int) -> float:
        """Floating-point operations a second in a product [tokens, inputs] · [inputs, outputs]."""
        rows = 1 << max(0, min(int(tokens), MOST_TOKENS).bit_length() - 1)
        return _flops(self.device, self.dtype, rows, inputs, outputs)

    def bandwidth(self) -> float:
        """Bytes a second that are read, or written, in a copy from memory to memory."""
        return _bandwidth(self.device)


def training_machine(*, dtype: str, bf16: bool | None) -> Machine:
    """The device that trains, by the settings of those names: its arithmetic is bfloat16 where it is good at that."""
    device = _device()
    half = has_bf16(device) if bf16 is None else bf16
    return Machine(device, torch.bfloat16 if half or dtype == "bfloat16" else torch.float32)


def sampling_machine(dtype: str) -> Machine:
    """The device that generates and scores, with the precision that weights have there by the setting `dtype`."""
    device = _device()
    return Machine(device, pick_dtype(dtype, device, frozen=True))


def _device() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


@cache
def _flops(device: torch.device, dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> float:
    most = MOST_OPERATIONS["cpu" if device.type == "cpu" else "other"]
    rows = max(1, min(rows, most // (2 * inputs * outputs)))
    left = torch.ones(rows, inputs, device=device, dtype=dtype)
    right = torch.ones(inputs, outputs, device=device, dtype=dtype)
    return 2.0 * rows * inputs * outputs / _seconds(lambda: left @ right, device)


@cache
def _bandwidth(device: torch.device) -> float:
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2.0 * COPIED / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The median of several goes, after one to warm up: a moment in which others had the device does not count."""

    def go() -> float:
        started = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - started

    go()
    return median(go() for _ in range(GOES))
