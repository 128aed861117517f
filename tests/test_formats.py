"""Each format puts the better response first and keeps the whole prompt; unusable rows say why; all are recognised."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from preflab.data.comparisons import (
    choose_formats,
    on_training_side,
    read_comparisons,
)
from preflab.data.detect import choose_format, detect_format
from preflab.data.formats import FORMATS
from preflab.data.layouts import LAYOUTS
from preflab.data.rows import parse_row
from preflab.data.sources import open_source, open_sources
from preflab.data.tokenize import Dropped
from preflab.records import Comparison, Message, RowError, UserError

Row = dict[str, Any]
REAL_PAIRS = Path(__file__).parents[1].parent / "shared" / "data" / "hh-harmless-2000.jsonl.gz"

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


# Detection and choice -------------------------------------------------------------------------------------------------


def test_detection_survives_some_odd_rows() -> None:
    rows = [{**HOMEWORK, "overall_response": None}, {"comment": "x"}, *[HOMEWORK] * 3]
    assert detect_format(rows) == "HOMEWORK"


def test_columns_that_fit_several_formats_are_an_error_that_lists_them() -> None:
    both = {**HOMEWORK, "history": Q, "human_ref_A": "a", "human_ref_B": "b", "labels": 1}
    with pytest.raises(UserError, match=r"fit several formats: HOMEWORK, shp\. Choose one with --format"):
        detect_format([both])


def test_columns_that_fit_no_format_bring_the_nearest_ones() -> None:
    with pytest.raises(UserError) as caught:
        detect_format([{"question": Q, "response_1": "a", "response_2": "b", "outcome": 1}])
    message = str(caught.value)
    assert "question, response_1, response_2, outcome" in message
    assert "HOMEWORK: needs question, response_1, response_2, overall_response" in message
    assert "trl:" not in message


def test_a_misspelt_format_brings_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"No format is called 'homwork'; did you mean HOMEWORK\. Known are"):
        choose_format("homwork", [])


def write_own(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.py").write_text(text)
    return str(tmp_path / "mine.py")


OWN = """
from preflab.records import Comparison, Message, RowError
import json

def pairs(row):
    if row["verdict"] == "tie":
        raise RowError("no preference", "a tie")
    return {"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]}
"""
OWN_TWO = (
    OWN
    + """
def lists(row):
    return Comparison((Message("user", row["q"]),), tuple(row["all"]))

def _hidden(row): ...
"""
)
OWN_ROW = {"q": Q, "good": BETTER, "bad": WORSE, "verdict": "good", "id": 4}


def test_a_format_of_ones_own_from_a_file(tmp_path: Path) -> None:
    path = write_own(tmp_path, OWN)
    name, form = choose_format(path, [])
    made = parse_row(form, OWN_ROW, 5)
    assert (made.prompt, made.responses, made.row, made.meta["id"]) == (ASKED, (BETTER, WORSE), 5, 4)
    assert name == path
    with pytest.raises(RowError, match="no preference"):
        parse_row(form, {**OWN_ROW, "verdict": "tie"})
    with pytest.raises(RowError, match="empty response"):
        parse_row(form, {**OWN_ROW, "good": ""})


def test_the_function_of_ones_own_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = write_own(tmp_path, OWN_TWO)
    _, form = choose_format(f"{path}:lists", [])
    assert parse_row(form, {"q": Q, "all": ["a", "b", "c"]}).responses == ("a", "b", "c")
    with pytest.raises(UserError, match=r"say which function with .*mine\.py:NAME; its functions: pairs, lists"):
        choose_format(path, [])
    with pytest.raises(UserError, match=r"no function 'pair' in it; its functions: pairs, lists"):
        choose_format(f"{path}:pair", [])


def test_the_fingerprint_of_ones_own_format_follows_its_text(tmp_path: Path) -> None:
    before = choose_format(write_own(tmp_path, OWN), [])[1].fingerprint
    assert choose_format(write_own(tmp_path, OWN), [])[1].fingerprint == before
    assert choose_format(write_own(tmp_path, OWN + "# changed\n"), [])[1].fingerprint != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def f(row):\n    return row['nope']\n",
            r"pairs\.jsonl row 1: .*mine\.py line 2: KeyError: 'nope', on the row",
        ),
        ("def f(row):\n    return 3\n", r"pairs\.jsonl row 1: .*mine\.py: f returned 3; it must return a Comparison"),
        ("def f(row)\n    return 3\n", r"mine\.py line 1: the file cannot be loaded: SyntaxError"),
        ("import nothing_of_that_name\n", r"mine\.py line 1: the file cannot be loaded: ModuleNotFoundError"),
        ("", r"say which function .*; its functions: none"),
        ("import sys\nsys.exit(0)\n", r"mine\.py line 2: the file cannot be loaded: SystemExit: 0"),
        ("import sys\ndef f(row):\n    sys.exit(0)\n", r"pairs\.jsonl row 1: .*mine\.py line 3: SystemExit: 0"),
    ],
)
def test_errors_in_ones_own_format_name_row_and_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(OWN_ROW) + "\n")
    source = open_source(str(tmp_path / "pairs.jsonl"))
    path = write_own(tmp_path, text)
    with pytest.raises(UserError, match=message):
        list(read_comparisons(source, choose_formats(source, path)))


def test_a_format_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.py: no such file"):
        choose_format(f"{tmp_path}/gone.py:f", [])


# From sources to comparisons ------------------------------------------------------------------------------------------


def write_lines(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_mixture_reads_each_part_in_its_own_format(tmp_path: Path) -> None:
    a = write_lines(tmp_path / "a.jsonl", HOMEWORK, {**HOMEWORK, "overall_response": 0})
    b = write_lines(tmp_path / "b.jsonl", GOLDEN["hh"][0])
    source = open_sources([a, b])
    formats = choose_formats(source)
    assert [name for name, _ in formats] == ["HOMEWORK", "hh"]
    first, tie, second = read_comparisons(source, formats)
    assert isinstance(first, Comparison)
    assert isinstance(second, Comparison)
    assert (first.row, second.row, second.prompt) == (1, 3, DIALOGUE)
    assert isinstance(tie, Dropped)
    assert (tie.row, tie.reason) == (2, "no preference")


def test_a_part_of_unknown_format_is_named(tmp_path: Path) -> None:
    a = write_lines(tmp_path / "a.jsonl", HOMEWORK)
    b = write_lines(tmp_path / "b.jsonl", {"x": 1})
    with pytest.raises(UserError, match=r"b\.jsonl: The rows have the columns x, which fit no known format"):
        choose_formats(open_sources([a, b]))


def test_a_prompt_is_on_one_side_of_a_split_whatever_its_responses() -> None:
    prompts = [(Message("user", f"Question {i}"),) for i in range(4000)]
    sides = [on_training_side(prompt, 0.9, seed=1) for prompt in prompts]
    assert sides == [on_training_side(prompt, 0.9, seed=1) for prompt in prompts]
    assert sides != [on_training_side(prompt, 0.9, seed=2) for prompt in prompts]
    # A standard deviation is 19 prompts.
    assert 3600 - 100 < sum(sides) < 3600 + 100
    # Roles and the bounds between messages count.
    texts = [(Message("user", "a"), Message("user", "b")), (Message("user", "ab"),), (Message("system", "ab"),)]
    patterns = Counter(tuple(on_training_side(text, 0.5, seed) for text in texts) for seed in range(64))
    assert len(patterns) == 8


@pytest.mark.skipif(not REAL_PAIRS.exists(), reason=f"the real HH pairs are not at {REAL_PAIRS}")
def test_real_hh_rows() -> None:
    source = open_source(str(REAL_PAIRS))
    formats = choose_formats(source)
    assert [name for name, _ in formats] == ["hh"]
    raw = dict(source)
    dropped: dict[str, list[int]] = {}
    for item in read_comparisons(source, formats):
        if isinstance(item, Dropped):
            dropped.setdefault(item.reason, []).append(item.row)
            continue
        assert item.prompt[0].role == item.prompt[-1].role == "user"
        # Nothing is lost: the transcript can be put together again.
        speakers = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
        turns = [*item.prompt, Message("assistant", item.responses[0])]
        assert "".join(f"{speakers[turn.role]} {turn.content}" for turn in turns).replace(": ", ":") == raw[item.row][
            "chosen"
        ].replace(": ", ":")
    assert dropped == {"empty response": [87, 517, 926, 1104], "prompts differ": [1255, 1689, 1951, 1953]}
