"""One rule for "these two computed numbers are the same"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from memory_rows import random_rows
from tiny_models import tiny_model

from preflab.core.ties import ROUNDING, Precision, compare, points, rounding
from preflab.model.prefix import prefix_batch
from preflab.model.responses import ResponseLogps, ResponseRewards

KINDS: dict[str, Callable[[list[float]], Any]] = {
    "numpy": lambda values: np.array(values),
    "torch": lambda values: torch.tensor(values, dtype=torch.float64),
    "torch float32": torch.tensor,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_difference_within_rounding_is_half_a_success(kind: str) -> None:
    make = KINDS[kind]
    first, second = make([1.0, 2.0, 2.0000002, -3.0, 0.0]), make([2.0, 1.0, 2.0, -3.0000002, 0.0])
    assert compare(first, second).tolist() == [0, 1, 0.5, 0.5, 0.5]
    assert compare(second, first).tolist() == [1, 0, 0.5, 0.5, 0.5]


def test_single_numbers() -> None:
    found = [compare(first, 2.0) for first in (1.0, 2.0000002, 3.0)]
    assert found == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("precision", "near", "beyond"), [("float32", 3e-7, 3e-5), ("bfloat16", 0.016, 0.2), ("float16", 0.002, 0.02)]
)
def test_each_precision_has_its_own_rounding(precision: Precision, near: float, beyond: float) -> None:
    assert compare(3.0 + near, 3.0, precision) == compare(3.0, 3.0 + near, precision) == 0.5
    assert compare(3.0 + beyond, 3.0, precision) == 1
    assert compare(3.0, 3.0 + beyond, precision) == 0
    assert ROUNDING[precision] == pytest.approx(rounding(-1.0, precision))


def test_rounding_grows_with_the_numbers_that_are_subtracted() -> None:
    assert compare(1000.001, 1000.0) == 0.5
    assert compare(1.001, 1.0) == 1
    assert compare(0.001, 0.0, size=1000.0) == 0.5
    assert compare(0.1, 0.0, size=1000.0) == 1


def test_errors_of_many_terms_cancel_in_part() -> None:
    assert rounding(100.0, "bfloat16", terms=25.0) == pytest.approx(rounding(100.0, "bfloat16") / 5)
    assert rounding(100.0, terms=25.0) == rounding(100.0), "of a float32 sum the sum itself is rounded"
    assert rounding(100.0, "bfloat16", terms=1e12) == rounding(100.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_no_tie(value: float) -> None:
    assert math.isnan(points(value, 1.0))
    with np.errstate(invalid="ignore"):
        assert np.isnan(compare(np.array([value]), np.array([0.0]))[0])


@pytest.mark.parametrize("kind", [ResponseLogps, ResponseRewards])
def test_what_batch_company_does_is_a_tie(kind: Any) -> None:
    """Each response alone, and all together, by a model whose weights are large."""
    module = kind(tiny_model("qwen2", task="reward" if kind is ResponseRewards else "policy")).eval()
    rows = list(random_rows(30))
    with torch.no_grad():
        alone = torch.cat([module(prefix_batch([row])) for row in rows])
        together = module(prefix_batch(rows))
    assert compare(alone, together, size=alone.square().mean().sqrt()).tolist() == [0.5] * len(alone)
    assert float(compare(alone, together.flip(0)).sub(0.5).abs().mean()) > 0.4, "other texts are not the same"
