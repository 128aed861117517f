"""Pairs of which it is known who wins, and a judge behind an endpoint that is asked about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from preflab.judging.command import JudgeResult, judge_responses
from preflab.judging.settings import JudgeSettings

PAIRS = 40


def responses(folder: Path, pairs: int = PAIRS) -> tuple[str, str]:
    """Two files: of each three pairs the model wins one, loses one, and ties one."""
    words = {"model": ("good", "bad", "fine"), "base": ("bad", "good", "nice")}
    paths = []
    for name, kinds in words.items():
        rows = [{"prompt": f"question {n}", "response": f"a {kinds[n % 3]} answer {n}"} for n in range(pairs)]
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(paths[0]), str(paths[1])


def settings(folder: Path, pairs: int = PAIRS, **changes: Any) -> JudgeSettings:
    model, base = responses(folder, pairs)
    given: dict[str, Any] = {"judge": "openai:fake", "output": folder / "verdicts.json", "timeout": 0.3, **changes}
    return JudgeSettings(responses=model, opponent=base, **given)


def judged(given: JudgeSettings) -> JudgeResult:
    result = judge_responses(given)
    assert isinstance(result, JudgeResult)
    return result


def right(sample_id: str) -> str:
    """The outcome of a sample; ids count rows from 1."""
    return ("win", "loss", "tie")[(int(sample_id.split("/")[0]) - 1) % 3]
