"""A judge of one's own: the better response takes up more of what was asked.

preflab judge dpo.jsonl base.jsonl --judge examples/judge.py:on_topic
"""

from __future__ import annotations

from collections.abc import Sequence

from preflab.core.records import Message


def on_topic(prompt: Sequence[Message], first: str, second: str) -> str:
    """Which response has more words of the last message in it: A, the first one, B, or tie. A number from 0 to 1 would
    do as well: the probability that the first one is better.
    """
    asked = set(prompt[-1].content.lower().split())
    ours, theirs = (len(asked & set(text.lower().split())) for text in (first, second))
    return "tie" if ours == theirs else "A" if ours > theirs else "B"
