"""Each format puts the better response first and keeps the whole prompt; unusable rows say why; all are recognised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preflab.core.records import Message, RowError
from preflab.data.detect import detect_format
from preflab.data.formats import FORMATS
from preflab.data.layouts import LAYOUTS
from preflab.data.rows import parse_row

Row = dict[str, Any]
REAL_PAIRS = Path(__file__).parents[3] / "shared" / "data" / "hh-harmless-2000.jsonl.gz"

Q, BETTER, WORSE = "Why is the sky blue?", "Rayleigh scattering.", "No idea, sorry."
ASKED = (Message("user", Q),)
DIALOGUE = (Message("user", "Hello"), Message("assistant", "Hi!"), Message("user", Q))
SYSTEM = Message("system", "Be brief.")
ONE_TURN = {"role": "user", "content": Q}
MESSAGES = [{"role": message.role, "content": message.content} for message in DIALOGUE]
SHAREGPT = [
    {"from": "human", "value": "Hello"},
    {"from": "gpt", "value": "Hi!"},
    {"from": "human", "value": Q},
]
TRANSCRIPT = f"\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: {Q}\n\nAssistant:"


def said(content: str) -> Row:
    return {"role": "assistant", "content": content}


# Format, row, prompt, responses. The name is also the one that must be detected, unless it ends in a remark.
GOLDEN: dict[str, tuple[Row, tuple[Message, ...], tuple[str, ...]]] = {
    "HOMEWORK": (
        {"question": Q, "response_1": WORSE, "response_2": BETTER, "overall_response": 2},
        ASKED,
        (BETTER, WORSE),
    ),
    "HOMEWORK (first, from CSV)": (
        {"question": Q, "response_1": BETTER, "response_2": WORSE, "overall_response": "1"},
        ASKED,
        (BETTER, WORSE),
    ),
    "pku-better": (
        {
            "prompt": Q,
            "response_0": WORSE,
            "response_1": BETTER,
            "better_response_id": 1,
            "safer_response_id": 0,
            "is_response_0_safe": True,
            "is_response_1_safe": False,
        },
        ASKED,
        (BETTER, WORSE),
    ),
    "pku-better (first)": (
        {"prompt": Q, "response_0": BETTER, "response_1": WORSE, "better_response_id": 0},
        ASKED,
        (BETTER, WORSE),
    ),
    "pku-safer": (
        {"prompt": Q, "response_0": BETTER, "response_1": WORSE, "safer_response_id": 0},
        ASKED,
        (BETTER, WORSE),
    ),
    "hh": ({"chosen": f"{TRANSCRIPT} {BETTER}", "rejected": f"{TRANSCRIPT} {WORSE}"}, DIALOGUE, (BETTER, WORSE)),
    "hh (blank lines stripped)": (
        {"chosen": f"{TRANSCRIPT} {BETTER}".strip(), "rejected": f"{TRANSCRIPT} {WORSE}".strip()},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "hh (prompt apart)": (
        {"prompt": TRANSCRIPT, "response": f" {BETTER}", "chosen": f" {BETTER}", "rejected": f" {WORSE}"},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "hh (question repeated)": (
        {"prompt": Q, "chosen": f"{TRANSCRIPT} {BETTER}", "rejected": f"{TRANSCRIPT} {WORSE}"},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "shp": ({"history": Q, "human_ref_A": BETTER, "human_ref_B": WORSE, "labels": 1}, ASKED, (BETTER, WORSE)),
    "shp (second)": ({"history": Q, "human_ref_A": WORSE, "human_ref_B": BETTER, "labels": 0}, ASKED, (BETTER, WORSE)),
    "stack-exchange": (
        {
            "qid": 7,
            "question": Q,
            "answers": [
                {"text": "third", "pm_score": 0, "answer_id": 1},
                {"text": "first", "pm_score": 9, "answer_id": 2},
                {"text": "second", "pm_score": 3, "answer_id": 3},
                {"text": "as good as the second", "pm_score": 3, "answer_id": 4},
            ],
        },
        ASKED,
        ("first", "second", "third"),
    ),
    "summarize-from-feedback": (
        {
            "info": {"id": "t3", "post": "My sky is blue.", "title": "Help", "subreddit": "sky", "article": None},
            "summaries": [{"text": f" {WORSE}", "policy": "sup"}, {"text": f" {BETTER}", "policy": "ref"}],
            "choice": 1,
            "worker": "w1",
        },
        (Message("user", "SUBREDDIT: r/sky\n\nTITLE: Help\n\nPOST: My sky is blue.\n\nTL;DR:"),),
        (BETTER, WORSE),
    ),
    "summarize-from-feedback (news)": (
        {
            "info": {"id": "c", "post": None, "title": "Sky", "article": "It is blue."},
            "summaries": [{"text": BETTER}, {"text": WORSE}],
            "choice": 0,
        },
        (Message("user", "TITLE: Sky\n\nARTICLE: It is blue.\n\nTL;DR:"),),
        (BETTER, WORSE),
    ),
    "trl": ({"prompt": Q, "chosen": BETTER, "rejected": WORSE}, ASKED, (BETTER, WORSE)),
    "trl (chat)": (
        {"prompt": MESSAGES, "chosen": [said(BETTER)], "rejected": [said(WORSE)]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "trl (chat, prompt repeated)": (
        {"prompt": MESSAGES, "chosen": [*MESSAGES, said(BETTER)], "rejected": [*MESSAGES, said(WORSE)]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "trl-implicit": (
        {"chosen": "The sky is blue today.", "rejected": "The sky is black today."},
        (Message("user", "The sky is"),),
        ("blue today.", "black today."),
    ),
    "rewardbench": (
        {
            "text_chosen": f"User: {Q}\n\n{BETTER}",
            "text_rejected": f"User: {Q}\n\n{WORSE}",
            "scores_chosen": 1.5,
            "scores_rejected": -2,
        },
        (Message("user", f"User: {Q}"),),
        (BETTER, WORSE),
    ),
    "trl-implicit (chat)": (
        {"chosen": [*MESSAGES, said(BETTER)], "rejected": [*MESSAGES, said(WORSE)]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "trl-unpaired": ({"prompt": Q, "completion": BETTER, "label": True}, ASKED, (BETTER,)),
    "trl-unpaired (chat)": ({"prompt": MESSAGES, "completion": [said(BETTER)], "label": True}, DIALOGUE, (BETTER,)),
    "ultrafeedback": (
        {
            "prompt": Q,
            "prompt_id": "f00",
            "chosen": [ONE_TURN, said(BETTER)],
            "rejected": [ONE_TURN, said(WORSE)],
            "messages": [ONE_TURN, said(BETTER)],
            "score_chosen": 8.5,
        },
        ASKED,
        (BETTER, WORSE),
    ),
    "ultrafeedback-raw": (
        {
            "instruction": Q,
            "source": "flan",
            "completions": [
                {"response": WORSE, "overall_score": 4.0, "model": "a"},
                {"response": BETTER, "overall_score": 8.5, "model": "b"},
            ],
        },
        ASKED,
        (BETTER, WORSE),
    ),
    "sharegpt-ranking": (
        {
            "conversations": SHAREGPT,
            "chosen": {"from": "gpt", "value": BETTER},
            "rejected": {"from": "gpt", "value": WORSE},
        },
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "alpaca-ranking": (
        {"instruction": "Explain:", "input": Q, "chosen": BETTER, "rejected": WORSE, "system": "Be brief."},
        (SYSTEM, Message("user", f"Explain:\n{Q}")),
        (BETTER, WORSE),
    ),
    "alpaca-ranking-list": (
        {"instruction": Q, "input": "", "output": [BETTER, WORSE], "history": [["Hello", "Hi!"]]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "ranked": ({"prompt": Q, "responses": [BETTER, WORSE, "Go away."]}, ASKED, (BETTER, WORSE, "Go away.")),
    "verdicts": (
        {
            "prompt": MESSAGES,
            "model_response": WORSE,
            "baseline_response": BETTER,
            "verdict": "baseline",
            "error": None,
        },
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "verdicts (won)": (
        {"prompt": Q, "model_response": BETTER, "baseline_response": WORSE, "verdict": "model"},
        ASKED,
        (BETTER, WORSE),
    ),
    "verdicts-chosen": (
        {"prompt": Q, "model_response": WORSE, "chosen_response": BETTER, "verdict": "Chosen"},
        ASKED,
        (BETTER, WORSE),
    ),
    "messages": ({"messages": [*MESSAGES, said(BETTER)]}, DIALOGUE, (BETTER,)),
    "sharegpt": ({"conversations": [*SHAREGPT, {"from": "gpt", "value": BETTER}]}, DIALOGUE, (BETTER,)),
    "prompt-response": ({"prompt": Q, "response": BETTER}, ASKED, (BETTER,)),
    "prompt-response (generated)": (
        {"prompt": MESSAGES, "response": BETTER, "sample": 0, "finish": "eos"},
        DIALOGUE,
        (BETTER,),
    ),
    "prompt-completion": ({"prompt": Q, "completion": BETTER}, ASKED, (BETTER,)),
    "alpaca": ({"instruction": Q, "input": "", "output": BETTER}, ASKED, (BETTER,)),
    "prompts": ({"prompt": Q, "category": "sky"}, ASKED, ()),
    "prompts (chat)": ({"prompt": MESSAGES}, DIALOGUE, ()),
}


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

HOMEWORK = GOLDEN["HOMEWORK"][0]
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
