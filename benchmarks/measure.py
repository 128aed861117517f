"""What both sides of the benchmark measure alike."""

from __future__ import annotations

import resource
import sys
import time

import torch


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_gb() -> float:
    """The most memory that this process had so far: of the GPU where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def matmul_peak() -> float:
    """Floating-point operations per second of a large matrix product: the best of some, in the dtype that is trained
    in.
    """
    gpu = torch.cuda.is_available()
    size = 8192 if gpu else 2048
    dtype, device = (torch.bfloat16, "cuda") if gpu else (torch.float32, "cpu")
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        synchronize()
        started = time.perf_counter()
        left @ right
        synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
