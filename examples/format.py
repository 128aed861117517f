"""A format of one's own: two answers with votes, of which the one with more votes was preferred.

preflab data inspect votes.jsonl --format examples/format.py:votes
"""

from __future__ import annotations

from typing import Any

from preflab.core.records import RowError


def votes(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the file -> prompt, chosen and rejected. RowError leaves a row out, and is counted by its reason."""
    if row["votes_a"] == row["votes_b"]:
        raise RowError("as many votes for both")
    chosen, rejected = ("answer_a", "answer_b") if row["votes_a"] > row["votes_b"] else ("answer_b", "answer_a")
    return {"prompt": row["question"], "chosen": row[chosen], "rejected": row[rejected]}
