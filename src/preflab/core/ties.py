"""When two computed numbers are the same: the one rule by which scores and log-probabilities are compared.

The same text has not the same score in every batch, with every number of threads, on every processor: sums are taken
in another order. A difference that this can explain is a tie, and a tie is half a success. Everything here is plain
arithmetic, so it takes Python's floats, numpy's arrays and torch's tensors alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

Precision = Literal["float32", "bfloat16", "float16"]

ROUNDING: Mapping[Precision, float] = {"float32": 2.0**-18, "bfloat16": 2.0**-6, "float16": 2.0**-9}
"""How far apart, relative to its size, a model's two answers about the same text can lie when it computes in this
precision: 32 units in the last place of float32, whose errors add up over the layers (a model of 135M parameters in
batches of 1, 3 and 4 was at most 4 off), and two of the half precisions, which round between products only.
"""


LARGEST = 2.0**128
"""What is not below has no place among the numbers of float32 (and bfloat16), in which models compute."""


def rounding(size: Any, precision: Precision = "float32", *, terms: Any = 1.0) -> Any:
    """The difference that rounding explains between two answers of about this size, a number at least 0.

    `terms` says of how many numbers of that precision an answer is the sum, taken in float32: errors of terms cancel in
    part, so that of n tokens' log-probabilities is smaller by √n than that of a single number of the sum's size.
    """
    of_sum, of_terms = ROUNDING["float32"] * abs(size), ROUNDING[precision] * abs(size) / terms**0.5
    return _larger(of_sum, of_terms)


def points(margin: Any, explained: Any) -> Any:
    """1 where a margin is beyond what rounding explains, 0 where it is beyond that on the other side, else 1/2.

    What is not a finite number has no points: NaN.
    """
    return (1 + 1.0 * (margin > explained) - 1.0 * (margin < -explained)) / 2 + (margin - margin)


def compare(first: Any, second: Any, precision: Precision | None = "float32", *, size: Any = 0.0) -> Any:
    """The points of `first` against `second`, two scores that were computed in this precision (None: they are exact):
    1, 1/2 (a tie) or 0.

    `size` is that of the numbers which the scores are made of, where it is larger than theirs: a score near zero is as
    inexact as its neighbours, so of many scores their root mean square is a good one.
    """
    if precision is None:
        return points(first - second, 0.0)
    larger = _larger(_larger(abs(first), abs(second)), size)
    return points(first - second, rounding(larger, precision))


def root_mean_square(scores: Iterable[float]) -> float:
    """The size of a set of scores for `compare`; 0 of none."""
    squares = [score * score for score in scores]
    return math.sqrt(math.fsum(squares) / len(squares)) if squares else 0.0


def is_score(value: object) -> bool:
    """Whether this is a number to compare by: finite, and such as a model can give. Others are as good as none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _larger(one: Any, other: Any) -> Any:
    """Elementwise, in arithmetic that floats, arrays and tensors have."""
    return (one + other + abs(one - other)) / 2
