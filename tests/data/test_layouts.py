"""Preference data in the layouts that other tools and data sets have: read best first, or refused as preferences."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shared_cases import case

from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.columns import renamed
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.detect import choose_format
from preflab.data.layouts import LAYOUTS
from preflab.data.rows import parse_row
from preflab.data.sources import open_source

Row = dict[str, Any]
Q, BETTER, WORSE = "Why is the sky blue?", "Rayleigh scattering.", "No idea, sorry."
ASKED = (Message("user", Q),)
DIALOGUE = (Message("user", "Hello"), Message("assistant", "Hi!"), *ASKED)
USER = {"role": "user", "content": Q}
TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}, USER]


def said(content: str) -> Row:
    return {"role": "assistant", "content": content}


def pair(better: str, worse: str, **more: Any) -> Row:
    return {better: BETTER, worse: WORSE, **more}


def two(first: str, second: str, **more: Any) -> Row:
    """The better response in the second column."""
    return {first: WORSE, second: BETTER, **more}


# Row, format, prompt (a question alone where not given).
READ: dict[str, tuple[Row, str] | tuple[Row, str, tuple[Message, ...]]] = {
    # chosen and rejected under other names
    "better, worse": (pair("better", "worse", prompt=Q), "trl"),
    "argilla": (pair("chosen_response", "rejected_response", instruction=Q, input=""), "alpaca-ranking"),
    "response_j, response_k": (pair("response_j", "response_k", question=Q, qid=3), "trl"),
    "preferred, dispreferred": (pair("preferred", "dispreferred", query=Q), "trl"),
    "LLaMA-Factory v1": (
        {"chosen_messages": [*TURNS, said(BETTER)], "rejected_messages": [*TURNS, said(WORSE)]},
        "trl-implicit",
        DIALOGUE,
    ),
    "torchtune": (
        {"chosen_conversations": [USER, said(BETTER)], "rejected_conversations": [USER, said(WORSE)]},
        "trl-implicit",
    ),
    # messages for the prompt, a message or a list for each side
    "axolotl": ({"messages": TURNS, "chosen": said(BETTER), "rejected": said(WORSE)}, "trl", DIALOGUE),
    "axolotl, lists": ({"messages": TURNS, "chosen": [said(BETTER)], "rejected": [said(WORSE)]}, "trl", DIALOGUE),
    "prompt as messages": ({"prompt": TURNS, "chosen": said(BETTER), "rejected": said(WORSE)}, "trl", DIALOGUE),
    "lists of one text": ({"prompt": Q, "chosen": [BETTER], "rejected": [WORSE]}, "trl"),
    # other tools
    "OpenAI": (
        {
            "input": {"messages": TURNS, "tools": [], "parallel_tool_calls": True},
            "preferred_output": [said(BETTER)],
            "non_preferred_output": [said(WORSE)],
        },
        "openai-preference",
        DIALOGUE,
    ),
    "ms-swift": ({"messages": [*TURNS, said(BETTER)], "rejected_response": WORSE}, "ms-swift", DIALOGUE),
    "ms-swift, message": ({"messages": [USER, said(BETTER)], "rejected_response": [said(WORSE)]}, "ms-swift"),
    "ms-swift, messages": (
        {"messages": [*TURNS, said(BETTER)], "rejected_messages": [*TURNS, said(WORSE)]},
        "ms-swift-messages",
        DIALOGUE,
    ),
    "ms-swift, query": (
        pair("response", "rejected_response", query=Q, history=[["Hello", "Hi!"]]),
        "ms-swift-query",
        DIALOGUE,
    ),
    "ms-swift, prompt": (pair("response", "rejected_response", prompt=Q), "ms-swift-query"),
    "ms-swift, alpaca": (pair("output", "rejected_response", instruction=Q, input=""), "ms-swift-alpaca"),
    # two responses and a winner
    "winner": (two("response_a", "response_b", prompt=Q, winner="model_b"), "winner-ab"),
    "winner by letter": (two("answer_a", "answer_b", question=Q, winner="B"), "winner-ab"),
    "winner by column": (two("response_a", "response_b", prompt=Q, preferred="response_b"), "winner-ab"),
    "winner by model": (
        two("response_a", "response_b", prompt=Q, model_a="gpt", model_b="llama", winner="llama"),
        "winner-ab",
    ),
    "AlpacaEval": (two("output_1", "output_2", instruction=Q, preference=2), "winner-12"),
    "AlpacaEval, probable": (two("output_1", "output_2", instruction=Q, preference=1.83), "winner-12"),
    "numbers from 0": (two("response_0", "response_1", prompt=Q, choice="1"), "winner-01"),
    "HelpSteer2": (two("response_1", "response_2", prompt=Q, preference_strength=2), "helpsteer2-preference"),
    "HelpSteer2, turns": (
        two(
            "response_1",
            "response_2",
            prompt=f"Hello\n<extra_id_1>Assistant\nHi!\n<extra_id_1>User\n{Q}",
            preference_strength="1",
        ),
        "helpsteer2-preference",
        DIALOGUE,
    ),
    "HelpSteer3": (two("response1", "response2", context=TURNS, overall_preference=3), "helpsteer3", DIALOGUE),
    "Chatbot Arena": (
        {
            "model_a": "x",
            "model_b": "y",
            "winner": "model_b",
            "conversation_a": [*TURNS, said(WORSE)],
            "conversation_b": [*TURNS, said(BETTER)],
            "turn": 2,
        },
        "arena",
        DIALOGUE,
    ),
    "MT-bench, first turn": (
        {
            "winner": "model_a",
            "conversation_a": [USER, said(BETTER), USER, said("a")],
            "conversation_b": [USER, said(WORSE), USER, said("b")],
            "turn": 1,
        },
        "arena",
    ),
    "Kaggle's LMSYS": (
        {
            "prompt": json.dumps([Q]),
            "response_a": json.dumps([WORSE]),
            "response_b": json.dumps([BETTER]),
            "winner_model_a": "0",
            "winner_model_b": "1",
            "winner_tie": "0",
        },
        "lmsys-kaggle",
    ),
    # lists
    "Nectar": (
        {
            "prompt": f"\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: {Q}\n\nAssistant: ",
            "answers": [{"answer": WORSE, "rank": 2.0, "model": "x"}, {"answer": BETTER, "rank": 1.0, "model": "y"}],
        },
        "candidates",
        DIALOGUE,
    ),
    "candidates": (
        {"instruction": Q, "candidates": [{"text": WORSE, "score": 0.1}, {"text": BETTER, "score": 0.7}]},
        "candidates",
    ),
    "responses as objects": (
        {"prompt": Q, "responses": [{"response": WORSE, "rating": "3"}, {"response": BETTER, "rating": "4"}]},
        "candidates",
    ),
    "RewardBench 2": ({"prompt": Q, "chosen": [BETTER], "rejected": [WORSE, "x", "y"], "id": 4}, "rewardbench-2"),
    "RM-Bench": ({"prompt": Q, "chosen": [BETTER, "b", "c"], "rejected": [WORSE, "x", "y"]}, "rewardbench-2"),
    "RewardBench": (
        pair("chosen", "rejected", prompt=Q, chosen_model="gpt", rejected_model="llama", subset="easy", id=1),
        "trl",
    ),
}


def read(row: Row) -> tuple[str, Comparison]:
    name, form = choose_format(None, [row])
    return name, parse_row(form, row, 1)


@pytest.mark.parametrize("name", READ)
def test_layouts_are_recognised_and_read_best_first(name: str) -> None:
    row, expected, *prompt = READ[name]
    form, found = read(row)
    assert form == expected
    assert found.prompt == (prompt[0] if prompt else ASKED)
    assert found.responses == (BETTER, WORSE)


def test_every_layout_of_the_table_has_a_row() -> None:
    assert set(LAYOUTS) <= {expected for _, expected, *_ in READ.values()}


def test_what_is_left_out_of_lists_is_counted() -> None:
    assert read(READ["RewardBench 2"][0])[1].meta["further_responses_left_out"] == 2
    assert read(READ["RM-Bench"][0])[1].meta["further_responses_left_out"] == 4


TIES: dict[str, Row] = {
    "word": two("response_a", "response_b", prompt=Q, winner="tie"),
    "both bad": two("response_a", "response_b", prompt=Q, winner="Tie (bothbad)"),
    "null": two("response_a", "response_b", prompt=Q, winner=None),
    "strength": two("response_1", "response_2", prompt=Q, preference_strength=0),
    "between": two("output_1", "output_2", prompt=Q, preference=1.5),
    "kaggle": {**READ["Kaggle's LMSYS"][0], "winner_model_b": "0", "winner_tie": "1"},
    "arena": {**READ["Chatbot Arena"][0], "winner": "tie"},
    "ranks": {"prompt": Q, "answers": [{"answer": WORSE, "rank": 1}, {"answer": BETTER, "rank": 1}]},
}


@pytest.mark.parametrize("name", TIES)
def test_ties_are_dropped_as_no_preference(name: str) -> None:
    row = TIES[name]
    clear = {**row, "winner": "model_a"} if "winner" in row else row
    form = choose_format(None, [row, clear, clear])[1]
    with pytest.raises(RowError) as caught:
        parse_row(form, row)
    assert caught.value.reason == "no preference"


def test_a_choice_of_0_and_1_between_responses_1_and_2_is_not_guessed() -> None:
    rows = [two("response_1", "response_2", prompt=Q, label=label) for label in (0, 1, 1)]
    with pytest.raises(UserError, match=r"does label count from 0.*response_0=response_1,response_1=response_2"):
        choose_format(None, rows)
    counted = [renamed(row, {"response_0": "response_1", "response_1": "response_2"}) for row in rows]
    form = choose_format(None, counted)[1]
    assert [parse_row(form, row).responses[0] for row in counted] == [WORSE, BETTER, BETTER]
    form = choose_format("winner-12", rows)[1]
    assert parse_row(form, rows[1]).responses[0] == WORSE
    assert choose_format(None, [*rows, {**rows[0], "label": 2}])[0] == "winner-12"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (two("response_a", "response_b", prompt=Q, winner=1), "unclear preference"),
        (two("response_1", "response_2", prompt=Q, winner=True), "unclear preference"),
        (two("response_1", "response_2", prompt=Q, winner=False), "unclear preference"),
        (two("response_1", "response_2", question=Q, overall_response=True), "no preference"),
        (two("response_a", "response_b", prompt=Q, winner="the nicer one"), "unclear preference"),
        (two("response_0", "response_1", prompt=Q, choice=2), "unclear preference"),
        (two("response_a", "response_b", prompt=Q, winner="x", model_a="x", model_b="x"), "unclear preference"),
        ({**READ["Chatbot Arena"][0], "conversation_a": [USER, said(WORSE)]}, "prompts differ"),
        ({**READ["Kaggle's LMSYS"][0], "response_a": json.dumps([None])}, "missing value"),
        ({**READ["OpenAI"][0], "input": {"messages": TURNS, "tools": [{"x": 1}]}}, "tool calls are not supported"),
        ({"messages": TURNS, "rejected_response": WORSE}, "not one response"),
        ({**READ["ms-swift"][0], "rejected_response": BETTER}, "identical responses"),
    ],
)
def test_what_is_not_clear_is_not_guessed(row: Row, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        read(row)
    assert caught.value.reason == reason


UNKNOWN: dict[str, tuple[Row, list[str]]] = {
    "three answers": (
        {"prompt": Q, "response_1": "a", "response_2": "b", "response_3": "c", "ranking": "2>1>3"},
        ["response_1", "response_2", "ranking"],
    ),
    "no winner": (two("response_a", "response_b", prompt=Q), ["response_a", "response_b"]),
    "two judges": (
        two("response_a", "response_b", prompt=Q, winner_gpt="a", winner_human="b"),
        ["response_a", "response_b", "winner_gpt", "winner_human"],
    ),
    "several scores": (
        {"prompt": Q, "candidates": [{"text": "a", "scores": {"x": 1}}, {"text": "b", "scores": {"x": 2}}]},
        ["candidates"],
    ),
    "ratings of one": ({"prompt": Q, "response": "a", "helpfulness": 3, "correctness": 1}, ["helpfulness"]),
    "ranked rows": ({"prompt": Q, "response": "a", "rank": 3}, ["rank"]),
    "camel case": ({"prompt": Q, "answerA": "a", "answerB": "b", "betterAnswer": "A"}, ["answerA", "betterAnswer"]),
    "no prompt": ({"uid": 3, "preferredAnswer": "a", "otherAnswer": "b"}, ["preferredAnswer"]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_preferences_in_an_unknown_layout_are_no_prompts_and_no_demonstrations(name: str) -> None:
    row, columns = UNKNOWN[name]
    with pytest.raises(UserError, match="look like preferences in a layout that is not known") as caught:
        choose_format(None, [row])
    assert all(column in str(caught.value) for column in columns)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": Q, "response": "a", "score": 3, "model": "x"}, "prompt-response"),
        ({"prompt": Q, "category": "ranking"}, "prompts"),
        ({"prompt": Q, "response": "a", "winner": None}, "prompt-response"),
        ({"messages": TURNS}, "prompts"),
        ({"messages": TURNS, "env_config": {"seed": 0}}, "prompts"),
        ({"messages": [USER, said(BETTER)]}, "messages"),
    ],
)
def test_what_says_nothing_of_a_preference_is_no_obstacle(row: Row, expected: str) -> None:
    assert choose_format(None, [row])[0] == expected


def test_a_format_that_is_named_is_taken() -> None:
    row = UNKNOWN["ratings of one"][0]
    assert parse_row(choose_format("prompt-response", [row])[1], row).responses == ("a",)


CASES = {
    "07f-csv-lmsys-kaggle.csv": "lmsys-kaggle",
    "10-messages-chosen-rejected.jsonl": "trl",
    "10d-prompt-msgs-chosen-dict.jsonl": "trl",
    "11-content-parts.jsonl": "trl",
    "11b-lf-v1.jsonl": "trl-implicit",
    "12-list-of-strings.jsonl": "rewardbench-2",
    "15-openai-preference.jsonl": "openai-preference",
    "21-helpsteer.jsonl": "helpsteer2-preference",
    "21b-nectar.jsonl": "candidates",
    "21c-pairrm.jsonl": "winner-ab",
    "21d-argilla.jsonl": "alpaca-ranking",
    "21f-preference-better-worse.jsonl": "trl",
    "27b-sequence-struct-of-lists.parquet": "trl-implicit",
}


@pytest.mark.parametrize("name", CASES)
def test_case_18_preferences_are_preferences(name: str) -> None:
    source = open_source(str(case(f"18-preference-files-taken-for-prompts-or-demonstrations/{name}")))
    formats = choose_formats(source)
    found = list(read_comparisons(source, formats))
    assert [form for form, _ in formats] == [CASES[name]]
    assert [type(item) for item in found] == [Comparison] * 4
    system = (Message("system", "Answer in rhyme only."),) if name.startswith("10-") else ()
    assert found[0].prompt == (*system, Message("user", "How do I boil an egg?"))
    assert found[0].responses == ("Put it in boiling water for eight minutes.", "Put it in the microwave.")
