"""Columns that are called as usual, but written otherwise."""

from __future__ import annotations

import pytest

from preflab.core.records import Comparison, RowError
from preflab.data.detect import choose_format
from preflab.data.fields import Row
from preflab.data.rows import read_row
from preflab.data.spelling import usual_spelling

PAIR = {"prompt": "Eggs?", "chosen": "In water.", "rejected": "In an oven."}


def read(row: Row) -> Comparison:
    _, form = choose_format(None, [row])
    return read_row(form, row)


@pytest.mark.parametrize(
    "row",
    [
        {"Prompt": "Eggs?", "Chosen": "In water.", "Rejected": "In an oven."},
        {"User Prompt": "Eggs?", "Chosen Response": "In water.", "Rejected Response": "In an oven."},
        {"userPrompt": "Eggs?", "chosenResponse": "In water.", "rejectedResponse": "In an oven."},
        {"QUESTION": "Eggs?", "CHOSEN": "In water.", "REJECTED": "In an oven."},
        {"Instruction ": "Eggs?", "chosen": "In water.", "rejected": "In an oven."},
    ],
)
def test_a_pair_is_read_however_its_columns_are_written(row: Row) -> None:
    found = read(row)
    assert [message.content for message in found.prompt] == ["Eggs?"]
    assert found.responses == ("In water.", "In an oven.")


def test_what_holds_in_all_formats_is_read_too() -> None:
    assert read({**PAIR, "System": "Rhyme."}).prompt[0].role == "system"
    labelled = {"Prompt": "Eggs?", "Completion": "In an oven.", "Label": False}
    assert read(labelled).label is False
    scored = {"Prompt": "Eggs?", "Responses": ["In an oven.", "In water."], "Scores": [1, 2]}
    assert read(scored).responses == ("In water.", "In an oven.")
    with pytest.raises(RowError, match="images are not supported"):
        read({**PAIR, "Images": ["egg.png"]})


def test_two_columns_of_one_name_stay_two() -> None:
    assert usual_spelling({"Prompt", "prompt"}) == {}
    assert usual_spelling({"Prompt", "PROMPT"}) == {}
    assert read({**PAIR, "Prompt": "Other?"}).prompt[0].content == "Eggs?"


def test_names_that_formats_write_so_stay() -> None:
    assert usual_spelling({"human_ref_A", "Complex_CoT", "My Column"}) == {}
