"""What this machine's processor can do, for tests that need it."""

from __future__ import annotations

import pytest

from preflab.model.precision import bf16_fault


def needs_bf16() -> None:
    """Skip the test where the kernels of bfloat16 raise when they are tried, and only there."""
    if fault := bf16_fault():
        pytest.skip(f"bfloat16 does not run on this CPU under these settings: {fault}")
