"""Blocks of broken inputs by their seeds, and an independent reading of what they hold."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

BLOCK = 25
"""Inputs of one test."""

Capture = pytest.CaptureFixture[str]


def blocks(count: int) -> Callable[[Any], Any]:
    """So many inputs of a kind, by their seeds, a block a test."""
    return pytest.mark.parametrize("first", range(0, count, BLOCK))


def seeds(first: int, kind: str) -> Iterator[tuple[int, random.Random]]:
    for seed in range(first, first + BLOCK):
        yield seed, random.Random(f"{kind} {seed}")


ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "How do I boil an egg?", "chosen": "For eight minutes.", "rejected": "No idea.", "id": 7},
    {
        "prompt": [{"role": "user", "content": "Who are you?"}],
        "chosen": [{"role": "assistant", "content": "A model."}],
        "rejected": [{"role": "assistant", "content": "Nobody."}],
        "score_chosen": 0.5,
        "score_rejected": 0.1,
    },
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "label": True},
    {"instruction": "Say it", "input": "", "output": ["One", "Two", "Three"], "scores": [1, 3, 2]},
    {"prompt": "Is it safe?", "response_0": "Yes.", "response_1": "No.", "better_response_id": 1},
    {"conversations": [{"from": "human", "value": "Hm?"}], "chosen": {"from": "gpt", "value": "Yes"},
     "rejected": {"from": "gpt", "value": "No"}},
)  # fmt: skip


def independent(content: bytes, suffix: str) -> list[Any] | None:
    """The rows by Python's own reading; None where it cannot read the file."""
    try:
        text = content.decode("utf-8-sig")
        if suffix == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            rows = json.loads(text)
            rows = [rows] if isinstance(rows, dict) else rows
    except (ValueError, RecursionError):
        return None
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None
