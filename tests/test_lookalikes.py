"""Files of preferences whose columns have names that nobody foresaw: read where only one thing can be meant, else never
taken for prompts or demonstrations.
"""

from __future__ import annotations

import pytest

from preflab.data.detect import choose_format
from preflab.data.fields import Row
from preflab.records import UserError


def rows(one: str, other: str) -> list[Row]:
    return [
        {
            "prompt": f"How do I boil egg {index}?",
            one: f"Put egg {index} in water.",
            other: f"Put egg {index} in the oven.",
        }
        for index in range(4)
    ]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        *(("y_w", "y_l"), ("win", "lose"), ("good_answer", "bad_answer"), ("answer_best", "answer_worst")),
        *(("winner_response", "loser_response"), ("favored", "unfavored")),
    ],
)
def test_opposites_are_chosen_and_rejected(better: str, worse: str) -> None:
    name, form = choose_format(None, rows(worse, better))
    assert name == "trl"
    assert dict(form.renamed) == {better: "chosen", worse: "rejected"}


@pytest.mark.parametrize(
    ("one", "other", "seen"),
    [
        ("gpt4", "llama", "gpt4, llama"),
        ("initial_response", "revised_response", "initial_response, revised_response"),
        ("positive", "negative", "negative"),  # also what files for retrieval have
        ("output", "negative_output", "negative_output"),
        ("safe_response", "unsafe_response", "unsafe_response"),
    ],
)
def test_texts_of_unknown_meaning_are_not_taken_for_prompts(one: str, other: str, seen: str) -> None:
    with pytest.raises(UserError, match=rf"look like preferences in a layout that is not known \(see {seen}\)"):
        choose_format(None, rows(one, other))
    assert choose_format("prompts", rows(one, other))[0] == "prompts", "as the message says"


@pytest.mark.parametrize(
    "about", [("reference", "rubric"), ("reference_answer", "description"), ("source", "explanation")]
)
def test_what_is_said_about_prompts_leaves_them_prompts(about: tuple[str, str]) -> None:
    assert choose_format(None, rows(*about))[0] == "prompts"


def test_a_truth_value_called_negative_says_nothing_of_responses() -> None:
    found = [{**row, "negative": bool(index % 2)} for index, row in enumerate(rows("response", "explanation"))]
    assert choose_format(None, found)[0] == "prompt-response"
