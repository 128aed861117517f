"""A scorer of one's own, for wherever a reward model can stand.

preflab score pairs.jsonl --reward-model examples/scorer.py:politeness
preflab compare base.jsonl dpo.jsonl --reward-model examples/scorer.py:politeness
preflab judge dpo.jsonl base.jsonl --judge reward:examples/scorer.py:politeness
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from preflab.core.records import Message

POLITE = re.compile(r"\b(please|thanks|thank you|sorry|glad|welcome)\b", re.IGNORECASE)


def politeness(_: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[int]:
    """How many polite words each response has; the prompts, which it gets first, are of no account here."""
    return [len(POLITE.findall(response)) for response in responses]
