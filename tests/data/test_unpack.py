"""Lists that a table holds as text: several responses and their scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from preflab.data.detect import choose_format
from preflab.data.unpack import unpack

BETTER = 'Put it in water, it\'s "done" after 8 minutes.'
WORSE = "Put it in the oven, [1, 2]."

WRITTEN: dict[str, Callable[[Any], str]] = {
    "JSON": json.dumps,
    "repr": repr,
    "numpy": lambda items: str(np.array(items)),
    "numpy objects": lambda items: str(np.array(items, dtype=object)),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("name", ["responses", "output", "texts"])
def test_responses_and_scores_are_lists_again(name: str, write: Callable[[Any], str]) -> None:
    found = unpack({"instruction": "Eggs?", name: write([WORSE, BETTER]), "scores": write([1, 5]), "id": "[7]"})
    assert found == {"instruction": "Eggs?", name: [WORSE, BETTER], "scores": [1, 5], "id": "[7]"}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_they_are_ranked_by_their_scores(write: Callable[[Any], str]) -> None:
    row = {"prompt": "Eggs?", "responses": write([WORSE, BETTER]), "scores": write([1, 5])}
    _, form = choose_format(None, [row])
    assert form.parse(unpack(row)).responses == (BETTER, WORSE)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Write a list", "response": '["a", "b"]'},  # no scores, and no name of a list
        {"prompt": "Write a list", "outputs": "[1, 2]"},
        {"prompt": "Write a list", "responses": "[a, b]"},
        {"prompt": "Write a list", "responses": "[]"},
        {"prompt": "Write a list", "answer": '["a", "b", "c"]', "scores": "[1, 2]"},
        {"prompt": "Write a list", "response": '["a", "b"]', "score": "5"},
    ],
)
def test_what_a_response_says_stays_text(row: dict[str, str]) -> None:
    assert {name: value for name, value in unpack(row).items() if name != "scores"} == {
        name: value for name, value in row.items() if name != "scores"
    }
