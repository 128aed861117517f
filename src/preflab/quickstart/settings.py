"""Settings of the quickstart."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from preflab.core.config import MOST_SEED, Settings


class QuickstartSettings(Settings):
    """The whole chain on the embedded sandbox: data, base model, SFT, reward model, DPO, responses, gold rewards."""

    output_dir: Path = Field(
        default=Path("runs/quickstart"), description="Folder of the run; an unfinished one is gone on with."
    )
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the world and of all training.")
    overwrite: bool = Field(default=False, description="Discard what the folder holds and start anew.")
