"""Verdict files by hand: one letter is one sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preflab.core.records import Judgement, Message, Pair
from preflab.judging.verdicts import write_verdicts

NAMES: dict[str, Any] = {"w": "win", "t": "tie", "l": "loss", "e": "error"}


def write(path: Path, outcomes: str, *, texts: bool = True, **metadata: str) -> Path:
    """A verdict file with one sample a letter; the model's response is longer exactly where the row's number is odd."""
    judgements = [Judgement(f"{row}/0", NAMES[letter]) for row, letter in enumerate(outcomes, 1)]
    shown = {
        judgement.sample_id: Pair(
            judgement.sample_id, (Message("user", f"Question {row}"),), "word " * (6 + 4 * (row % 2)), "word " * 8
        )
        for row, judgement in enumerate(judgements, 1)
    }
    about = {"judge": "openai:gpt-4o", "model": "dpo", "opponent": "base", **metadata}
    write_verdicts(path, judgements, metadata=about, opponent_word="baseline", pairs=shown if texts else {})
    return path
