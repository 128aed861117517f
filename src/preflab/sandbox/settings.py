"""Settings of the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from preflab.core.config import MOST_SEED, Positional, Settings
from preflab.sandbox.world import MOST_ROWS


class SandboxSettings(Settings):
    """Write the embedded sandbox to a folder: preference files in several formats, and its untrained tiny model."""

    output_dir: Annotated[Path, Positional()] = Field(description="Folder to write to.")
    rows: int = Field(default=2000, ge=1, le=MOST_ROWS, description="Training comparisons.")
    eval_rows: int = Field(default=500, ge=1, le=MOST_ROWS, description="Held-out comparisons.")
    noise: float = Field(
        default=0.5, ge=0, description="Temperature of the annotators' Bradley-Terry choices; 0: no noise."
    )
    length_bias: float = Field(default=0.0, description="How much annotators like length for its own sake.")
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the world.")
