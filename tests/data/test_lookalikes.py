"""Files of preferences whose columns have names that nobody foresaw: read where only one thing can be meant, else never
taken for prompts or demonstrations.
"""

from __future__ import annotations

import pytest

from preflab.core.records import RowError, UserError
from preflab.data.detect import choose_format
from preflab.data.fields import Row
from preflab.data.rows import read_row


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


LISTS: Row = {"prompt": "Eggs?", "completions": ["In an oven.", "In water."]}


@pytest.mark.parametrize("name", ["scores", "rewards", "ratings"])
@pytest.mark.parametrize("texts", ["completions", "outputs", "answers", "candidates", "generations"])
def test_a_list_beside_its_scores_is_ranked_by_them(texts: str, name: str) -> None:
    row: Row = {"prompt": "Eggs?", texts: LISTS["completions"], name: [1, 5]}
    _, form = choose_format(None, [row])
    assert read_row(form, row).responses == ("In water.", "In an oven.")


@pytest.mark.parametrize("texts", ["completions", "paragraphs"])
def test_steps_and_their_labels_are_no_prompts(texts: str) -> None:
    """As process supervision has them: a label for each step of one answer."""
    row: Row = {"prompt": "Eggs?", texts: LISTS["completions"], "labels": [True, False]}
    with pytest.raises(UserError, match=rf"layout that is not known \(see {texts}, labels\)"):
        choose_format(None, [row])


@pytest.mark.parametrize("numbers", [[False, True], [0, 1], ["0.5", "2"]])
def test_numbers_of_unknown_meaning_forbid_to_take_the_first_for_the_best(numbers: list[object]) -> None:
    row: Row = {"prompt": "Eggs?", "responses": LISTS["completions"], "is_correct": numbers, "tokens": [3, 2]}
    with pytest.raises(UserError, match=r"does is_correct say how good .* --columns scores=is_correct"):
        choose_format(None, [row])
    _, form = choose_format("ranked", [row])
    assert read_row(form, row).responses == ("In an oven.", "In water."), "as the message says: best first"
    scored = {"prompt": "Eggs?", "responses": LISTS["completions"], "scores": numbers}
    _, form = choose_format(None, [scored])
    assert read_row(form, scored).responses == ("In water.", "In an oven."), "as the message says: by them"


@pytest.mark.parametrize("key", ["content", "reasoning_content"])
def test_a_part_that_is_not_to_be_trained_is_not(key: str) -> None:
    part: dict[str, object] = {"type": "text", "text": "Hm.", "train": False}
    answer = {"role": "assistant", "content": "In water.", key: [part]}
    row: Row = {"messages": [{"role": "user", "content": "Eggs?"}, answer]}
    _, form = choose_format(None, [row])
    with pytest.raises(RowError, match=rf"messages\[1\].{key}\[0\].train. is false"):
        read_row(form, row)
    del part["train"]
    read = read_row(form, row)
    assert read.reasoning == (("Hm.",) if key == "reasoning_content" else ())


@pytest.mark.parametrize(("wanted", "unwanted"), [(True, False), (1, -1), (1, 0), ("true", "false")])
@pytest.mark.parametrize("name", ["score", "is_correct"])
def test_a_score_that_is_a_truth_value_is_a_label(name: str, wanted: object, unwanted: object) -> None:
    found: list[Row] = [
        {"instruction": "Eggs?", "response": "In water.", name: wanted},
        {"instruction": "Eggs?", "response": "In an oven.", name: unwanted},
    ]
    _, form = choose_format(None, found)
    assert [read_row(form, row).label for row in found] == [True, False]
    graded: list[Row] = [{**row, name: grade} for row, grade in zip(found, (0.9, 0.2), strict=True)]
    _, form = choose_format(None, graded)
    assert [read_row(form, row).label for row in graded] == [None, None], "a number is no label"


@pytest.mark.parametrize(
    ("column", "better"), [("output", "corrected"), ("response", "revised_response"), ("completion", "revision")]
)
def test_an_answer_beside_its_correction_is_asked_about(column: str, better: str) -> None:
    row: Row = {"instruction": "How are eggs boiled?", column: "In an oven, I think.", better: "In boiling water."}
    with pytest.raises(UserError, match=rf"which is the response, {better} or {column}\? .* {column}={better}"):
        choose_format(None, [row])
    corrected: Row = {"instruction": row["instruction"], column: row[better]}
    _, form = choose_format(None, [corrected])
    assert read_row(form, corrected).responses == ("In boiling water.",)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Eggs?", "output": "In water.", "thinking": "Hm."},
        {"prompt": "Eggs?", "completion": "In water.", "reasoning_content": "Hm."},
        {"question": "Eggs?", "answer": "In water.", "reasoning": "Hm."},
        {"prompt": "Eggs?", "completion": "In water.", "label": True, "thinking": "Hm."},
    ],
)
def test_what_was_thought_is_read_in_every_layout(row: Row) -> None:
    _, form = choose_format(None, [row])
    assert read_row(form, row).reasoning == ("Hm.",)


@pytest.mark.parametrize("name", ["{side}_reasoning", "{side}_thinking", "reasoning_{side}"])
def test_what_was_thought_before_each_of_a_pair_is_read(name: str) -> None:
    thoughts = {name.format(side="chosen"): "Hm.", name.format(side="rejected"): "Well."}
    row: Row = {"prompt": "Eggs?", "chosen": "In water.", "rejected": "In an oven.", **thoughts}
    _, form = choose_format(None, [row])
    found = read_row(form, row)
    assert found.reasoning == ("Hm.", "Well.")
    assert not found.meta


def test_lists_that_chosen_and_rejected_write_as_text_are_asked_about() -> None:
    row: Row = {"prompt": "Eggs?", "chosen": '["In water."]', "rejected": "['In an oven.', 'Raw.']"}
    with pytest.raises(UserError, match="are the lists that chosen and rejected write as text lists of responses"):
        choose_format(None, [row])
    _, form = choose_format("trl", [row])
    assert read_row(form, row).responses == (row["chosen"], row["rejected"])
