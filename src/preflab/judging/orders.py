"""In which order, or orders, two responses are shown to a judge, and what its verdict is read from."""

from __future__ import annotations

import random
from typing import Literal

from preflab.core.records import Order

Orders = Literal["both", "random"]
"""Whether a pair is judged twice, either response first, or once, in an order that is drawn for it."""

VerdictFrom = Literal["text", "first_token"]
"""Whether a verdict is read from what the judge writes, or from the probabilities of its first token."""

IDENTICAL = "(not asked: the two responses are the same)"
"""What stands for the words of a judge that was not asked."""

BOTH: tuple[Order, Order] = ("model_first", "opponent_first")


def draw_order(seed: int, sample_id: str) -> Order:
    """Drawn for each sample by itself, so that it does not depend on what else is judged, or on when."""
    return random.Random(f"{seed} {sample_id}").choice(BOTH)
