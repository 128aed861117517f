"""Each format puts the better response first and keeps the whole prompt; unusable rows say why; all are recognised."""

from __future__ import annotations

import json

import pytest
from golden_formats import BETTER, GOLDEN, HOMEWORK, MESSAGES, ONE_TURN, TRANSCRIPT, WORSE, Q, Row, said

from preflab.core.records import RowError
from preflab.data.detect import detect_format
from preflab.data.formats import FORMATS
from preflab.data.layouts import LAYOUTS
from preflab.data.rows import parse_row


def name_of(case: str) -> str:
    return case.split(" (")[0]


@pytest.mark.parametrize("case", GOLDEN)
def test_rows_become_comparisons_best_first(case: str) -> None:
    row, prompt, responses = GOLDEN[case]
    made = parse_row(FORMATS[name_of(case)], row, 12)
    assert made.prompt == prompt
    assert made.responses == responses
    assert made.row == 12
    json.dumps(made.meta, allow_nan=False)


def test_every_format_of_the_table_has_a_golden_row() -> None:
    assert {name_of(case) for case in GOLDEN} == set(FORMATS) - set(LAYOUTS)


@pytest.mark.parametrize("case", GOLDEN)
def test_formats_are_recognised(case: str) -> None:
    assert detect_format([GOLDEN[case][0]] * 3) == name_of(case)


def test_the_safer_response_is_chosen_on_request() -> None:
    row, _, _ = GOLDEN["pku-better"]
    safer = parse_row(FORMATS["pku-safer"], row)
    assert safer.responses == (WORSE, BETTER)
    assert safer.meta["better_response"] == WORSE
    assert safer.meta["is_response_0_safe"] is True


@pytest.mark.parametrize("case", ["HOMEWORK", "pku-better"])
def test_meta_names_the_better_and_the_worse_response(case: str) -> None:
    row = {**GOLDEN[case][0], "category": "sky", "essay": "x" * 500, "tags": ["a"], "gold": 1.5}
    meta = parse_row(FORMATS[case], row).meta
    assert (meta["better_response"], meta["worse_response"]) == (BETTER, WORSE)
    assert (meta["category"], meta["gold"]) == ("sky", 1.5)
    assert not {"essay", "tags", "question", "prompt"} & set(meta)


def test_meta_holds_only_what_json_and_utf8_can_write() -> None:
    row = {"prompt": Q, "nan": float("nan"), "half": "\ud800", "id": 3}
    assert parse_row(FORMATS["prompts"], row).meta == {"id": 3}


def test_ties_leave_their_trace() -> None:
    meta = parse_row(FORMATS["stack-exchange"], GOLDEN["stack-exchange"][0]).meta
    assert meta == {"qid": 7, "scores": [9, 3, 0], "tied_responses_left_out": 1}


@pytest.mark.parametrize(
    ("label", "wanted"), [(True, True), (False, False), (1, True), ("False", False), ("true", True)]
)
def test_unpaired_labels(label: object, wanted: bool) -> None:
    made = parse_row(FORMATS["trl-unpaired"], {"prompt": Q, "completion": BETTER, "label": label})
    assert made.label is wanted


def test_hh_keeps_text_as_it_is_but_for_the_space_after_a_speaker() -> None:
    chosen, rejected = f"{TRANSCRIPT}  two spaces, and one at the end ", f"{TRANSCRIPT}\nnone"
    made = parse_row(FORMATS["hh"], {"chosen": chosen, "rejected": rejected})
    assert made.responses == (" two spaces, and one at the end ", "\nnone")


# Rows that cannot be used ---------------------------------------------------------------------------------------------

HUMAN = "\n\nHuman: Hi\n\nAssistant:"

BAD_ROWS: dict[str, tuple[str, Row, str, str]] = {
    "field gone": (
        "HOMEWORK",
        {"question": Q, "overall_response": 1},
        "missing field",
        "`response_1`; the row has quest",
    ),
    "null": ("HOMEWORK", {**HOMEWORK, "question": None}, "missing value", "`question` is null"),
    "NaN": ("HOMEWORK", {**HOMEWORK, "response_1": float("nan")}, "missing value", "`response_1` is NaN"),
    "number": ("HOMEWORK", {**HOMEWORK, "response_1": 3.5}, "wrong type", "`response_1` is 3.5, not text"),
    "no choice": ("HOMEWORK", {**HOMEWORK, "overall_response": None}, "no preference", "must be 1 or 2"),
    "empty cell": ("HOMEWORK", {**HOMEWORK, "overall_response": ""}, "no preference", "is empty; it must be 1 or 2"),
    "tie": ("HOMEWORK", {**HOMEWORK, "overall_response": 0}, "no preference", "is 0; it must be 1 or 2"),
    "out of range": ("pku-better", {**GOLDEN["pku-better"][0], "better_response_id": 2}, "no preference", "0 or 1"),
    "odd choice": ("HOMEWORK", {**HOMEWORK, "overall_response": "one"}, "wrong type", "'one', not a number"),
    "empty response": ("HOMEWORK", {**HOMEWORK, "response_1": " \n"}, "empty response", "needs some text"),
    "empty prompt": ("HOMEWORK", {**HOMEWORK, "question": ""}, "empty prompt", "nothing to respond to"),
    "same": ("HOMEWORK", {**HOMEWORK, "response_1": f"{BETTER} "}, "identical responses", "Rayleigh"),
    "half a character": ("HOMEWORK", {**HOMEWORK, "response_1": "\ud83d"}, "not valid Unicode", "character 0"),
    "prompts differ": (
        "hh",
        {"chosen": f"{HUMAN} a\n\nHuman: b\n\nAssistant: c", "rejected": f"{HUMAN} d"},
        "prompts differ",
        "part at character 24",
    ),
    "hh empty": ("hh", {"chosen": f"{HUMAN} ", "rejected": f"{HUMAN} d"}, "empty response", "needs some text"),
    "human last": (
        "hh",
        {"chosen": f"{HUMAN} a\n\nHuman: b", "rejected": f"{HUMAN} a\n\nHuman: c"},
        "not a transcript",
        "the last turn is not the assistant's",
    ),
    "no marks": ("hh", {"chosen": "a", "rejected": "b"}, "not a transcript", "Assistant:"),
    "two assistants": (
        "hh",
        {"chosen": f"{HUMAN} a\n\nAssistant: b", "rejected": f"{HUMAN} a\n\nAssistant: c"},
        "not the user's turn",
        "a message of the assistant",
    ),
    "all tied": (
        "stack-exchange",
        {"question": Q, "answers": [{"text": "a", "pm_score": 1}, {"text": "b", "pm_score": 1}]},
        "no preference",
        "2 responses, 1 different `pm_score`",
    ),
    "unknown role": (
        "trl",
        {"prompt": [{"role": "referee", "content": "x"}], "chosen": "a", "rejected": "b"},
        "unknown role",
        "referee",
    ),
    "two replies": (
        "trl",
        {"prompt": Q, "chosen": [said("a"), ONE_TURN, said("b")], "rejected": [said("c")]},
        "not one response",
        "it holds assistant, user, assistant",
    ),
    "same chat": (
        "trl-implicit",
        {"chosen": [ONE_TURN, said("a")], "rejected": [ONE_TURN, said("a")]},
        "identical responses",
        "nothing to prefer",
    ),
    "same text": ("trl-implicit", {"chosen": "a b", "rejected": "a b"}, "identical responses", "the same text"),
    "nothing shared": ("trl-implicit", {"chosen": "yes", "rejected": "no"}, "empty prompt", "there is no `prompt`"),
    "parts": (
        "trl",
        {"prompt": [{"role": "user", "content": [{"type": "text"}]}], "chosen": "a", "rejected": "b"},
        "wrong type",
        "not text",
    ),
    "one of one": ("ranked", {"prompt": Q, "responses": ["a"]}, "wrong type", "list of two or more responses"),
    "maybe": ("trl-unpaired", {"prompt": Q, "completion": "a", "label": "maybe"}, "no label", "true or false"),
    "tied verdict": (
        "verdicts",
        {"prompt": Q, "model_response": "a", "baseline_response": "b", "verdict": "tie"},
        "no preference",
        "must be model or baseline",
    ),
    "judgement that failed": (
        "verdicts-chosen",
        {"prompt": Q, "model_response": "a", "chosen_response": "b", "verdict": "error"},
        "no preference",
        "must be model or chosen",
    ),
    "user last": ("messages", {"messages": MESSAGES}, "not one response", "must end with the assistant's turn"),
    "control characters": ("trl", {"prompt": Q, "chosen": {"\x1b[2J": 1}, "rejected": "b"}, "wrong type", r"\\x1b\[2J"),
}


@pytest.mark.parametrize(("name", "row", "reason", "detail"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_an_unusable_row_says_why(name: str, row: Row, reason: str, detail: str) -> None:
    with pytest.raises(RowError, match=detail) as caught:
        parse_row(FORMATS[name], row)
    assert caught.value.reason == reason
    assert str(caught.value).isprintable()
