"""Small inputs with the right value of each in its README, which are kept beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import SHARED

CASES = SHARED / "cases"


def case(name: str) -> Path:
    """A file or folder of the cases; skips the test where they are missing."""
    path = CASES / name
    if not path.exists():
        pytest.skip(f"the case {name} is not at {CASES}")
    return path
