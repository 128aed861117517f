"""Responses are laid side by side prompt by prompt, and what cannot be is said, not guessed."""

from __future__ import annotations

import pytest

from preflab.core.records import UserError
from preflab.stats.alignment import Row, align


def rows(*samples: int) -> list[Row]:
    """So many responses to prompt 1, 2, …"""
    return [
        {"row": prompt, "sample": sample, "response": f"{prompt}.{sample}"}
        for prompt, number in enumerate(samples, 1)
        for sample in range(number)
    ]


def test_the_same_samples_stand_side_by_side() -> None:
    found = align({"a": rows(2, 1), "b": list(reversed(rows(2, 1)))})
    assert {key: [row["response"] for row in both.values()] for key, both in found.rows.items()} == {
        (1, 0): ["1.0", "1.0"], (1, 1): ["1.1", "1.1"], (2, 0): ["2.0", "2.0"]
    }  # fmt: skip
    assert not found.left_out


def test_one_response_stands_beside_each_of_several() -> None:
    found = align({"a": rows(3), "b": rows(1)})
    assert [(both["a"]["sample"], both["b"]["sample"]) for both in found.rows.values()] == [(0, 0), (1, 0), (2, 0)]


def test_a_prompt_that_one_has_not_answered_is_left_out_for_all() -> None:
    found = align({"a": rows(1, 1, 1), "b": rows(1, 0, 1), "c": rows(1, 1, 0)})
    assert list(found.rows) == [(1, 0)]
    assert found.left_out == {2: ("b",), 3: ("c",)}


def test_unequal_numbers_of_samples_are_an_error() -> None:
    with pytest.raises(UserError, match="prompt 1: b has 4 responses and a 2"):
        align({"a": rows(2), "b": rows(4)})
