"""What a message says is read, or stops the row by name: reasoning, parts, tools, media, weights; also kept as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shared_cases import case

from preflab.core.records import Comparison, Message, RowError
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.detect import choose_format
from preflab.data.messages import unread_fields
from preflab.data.rows import parse_row
from preflab.data.sources import open_source
from preflab.data.unpack import unpack

Row = dict[str, Any]
Q, A, WORSE = "Why is the sky blue?", "Rayleigh scattering.", "No idea."
ASKED = {"role": "user", "content": Q}
ANSWER = {"role": "assistant", "content": A}
FLAT = {"role": "assistant", "content": WORSE}


def read(row: Row) -> Comparison:
    return parse_row(choose_format(None, [row])[1], row)


def reason(row: Row) -> str:
    with pytest.raises(RowError) as caught:
        read(row)
    assert str(caught.value).isprintable()
    return caught.value.reason


def chat(answer: Row, *before: Row) -> Row:
    return {"messages": [*(before or (ASKED,)), answer]}


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_of_a_turn_is_kept_apart_from_its_text(field: str) -> None:
    found = read(chat({**ANSWER, field: "Light scatters."}))
    assert (found.responses, found.reasoning) == ((A,), ("Light scatters.",))


def test_reasoning_of_one_side_only_is_parallel_to_the_responses() -> None:
    found = read({"prompt": [ASKED], "chosen": [{**ANSWER, "thinking": "Hm."}], "rejected": [FLAT]})
    assert (found.responses, found.reasoning) == ((A, WORSE), ("Hm.", ""))


def test_reasoning_of_earlier_turns_stays_with_them() -> None:
    earlier = {"role": "assistant", "content": "Hi!", "reasoning_content": "Greet."}
    found = read(chat(ANSWER, {"role": "user", "content": "Hello"}, earlier, ASKED))
    assert found.prompt[1] == Message("assistant", "Hi!", "Greet.")
    assert found.reasoning == ()


def test_responses_that_differ_in_their_reasoning_alone_are_two() -> None:
    sides = {"chosen": [{**ANSWER, "thinking": "Scattering."}], "rejected": [{**ANSWER, "thinking": "A mirror?"}]}
    assert read({"prompt": Q, **sides}).reasoning == ("Scattering.", "A mirror?")
    assert reason({"prompt": Q, "chosen": [ANSWER], "rejected": [ANSWER]}) == "identical responses"


def test_two_names_for_the_same_reasoning_are_one_and_two_reasonings_are_refused() -> None:
    assert read(chat({**ANSWER, "reasoning": "Hm.", "reasoning_content": "Hm."})).reasoning == ("Hm.",)
    assert reason(chat({**ANSWER, "reasoning": "Hm.", "thinking": "Oh."})) == "two reasonings"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": A}],
        [{"type": "text", "value": A}],
        [{"type": "output_text", "text": A}],
        [{"type": "text", "text": A[:9]}, {"type": "text", "text": A[9:]}],
        [{"index": None, "type": "text", "text": A, "image_url": None}],
        {"type": "text", "text": A},
        {"type": ["text"], "text": [A]},
        [A],
    ],
)
def test_parts_of_text_are_one_text(content: Any) -> None:
    assert read(chat({"role": "assistant", "content": content})).responses == (A,)


def test_a_part_that_is_reasoning_is_reasoning() -> None:
    parts = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": A}]
    found = read(chat({"role": "assistant", "content": parts}))
    assert (found.responses, found.reasoning) == ((A,), ("Hm.",))


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"role": "Human", "content": Q}, {"role": "Assistant", "content": A}),
        ({"role": "user", "content": Q}, {"role": "model", "content": A}),
        ({"from": "human", "value": Q}, {"from": "gpt", "value": A}),
        ({"from": "user", "content": Q}, {"from": "chatgpt", "text": A}),
        ({"speaker": "human", "text": Q}, {"speaker": "bot", "text": A}),
    ],
)
def test_roles_and_texts_under_other_names(asked: Row, answer: Row) -> None:
    found = read({"messages": [asked, answer]})
    assert (found.prompt, found.responses) == ((Message("user", Q),), (A,))


def test_a_developer_speaks_as_the_system() -> None:
    assert read(chat(ANSWER, {"role": "developer", "content": "Be brief."}, ASKED)).prompt[0].role == "system"


def test_pairs_of_turns() -> None:
    found = read({"conversations": [{"human": "Hello", "assistant": "Hi!"}, {"assistant": A, "human": Q}]})
    assert [turn.role for turn in found.prompt] == ["user", "assistant", "user"]
    assert (found.prompt[-1].content, found.responses) == (Q, (A,))


@pytest.mark.parametrize("name", ["conversation", "dialogue", "conversations"])
def test_a_conversation_under_another_name(name: str) -> None:
    for turns in ([ASKED, ANSWER], [{"input": Q, "output": A}], [{"human": Q, "assistant": A}]):
        found = read({name: turns, "system": "Be brief."})
        assert (found.prompt, found.responses) == ((Message("system", "Be brief."), Message("user", Q)), (A,))


EARLIER = (Message("user", "Hello"), Message("assistant", "Hi!"))


@pytest.mark.parametrize(
    "history",
    [
        [["Hello", "Hi!"]],
        '[["Hello", "Hi!"]]',
        "[['Hello', 'Hi!']]",
        [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}],
    ],
)
@pytest.mark.parametrize(
    "row",
    [
        {"query": Q, "response": A},
        {"prompt": Q, "chosen": A, "rejected": WORSE},
        {"instruction": Q, "output": A},
        {"instruction": Q, "output": A, "rejected_response": WORSE},
        {"prompt": [ASKED], "completion": [ANSWER]},
    ],
)
def test_earlier_turns_are_part_of_the_prompt_in_every_format(row: Row, history: Any) -> None:
    assert read({**row, "history": history}).prompt == (*EARLIER, Message("user", Q))
    assert read({**row, "history": history, "system": "Be brief."}).prompt[:2] == (
        Message("system", "Be brief."),
        EARLIER[0],
    )
    assert read({**row, "history": []}).prompt == read({**row, "history": None}).prompt == (Message("user", Q),)


def test_earlier_turns_that_are_not_clear_stop_a_row() -> None:
    assert reason({"prompt": Q, "response": A, "history": ["Hello", "Hi!"]}) == "wrong type"
    twice = {**chat(ANSWER, *TURNS, ASKED), "history": [["Hello", "Hi!"]]}
    assert reason(twice) == "earlier turns twice"
    deep = {**chat(ANSWER), "meta": json.loads("[" * 900 + "]" * 900)}
    assert read(deep).responses == (A,)


def test_fields_that_say_nothing_are_no_obstacle() -> None:
    empty = {"tool_calls": None, "weight": None, "reasoning_content": "", "images": [], "function_call": float("nan")}
    assert read({**chat({**ANSWER, **empty}), "tools": "[]", "images": None, "functions": []}).responses == (A,)


def test_fields_that_are_not_read_are_named() -> None:
    assert unread_fields([{**ASKED, "id": 3, "name": None}, {**ANSWER, "weight": 1, "toxic": False}]) == {"id", "toxic"}
    assert unread_fields("text") == unread_fields([1, {"a": 2}]) == set()


# What stops a row -----------------------------------------------------------------------------------------------------

CALL = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
TOOLS, IMAGES = "tool calls are not supported", "images are not supported"


@pytest.mark.parametrize(
    "row",
    [
        chat({**ANSWER, "tool_calls": CALL}),
        chat({"role": "assistant", "content": None, "tool_calls": CALL}),
        chat({"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}}),
        chat(ANSWER, ASKED, {"role": "tool", "content": "22 degrees", "tool_call_id": "c1"}),
        {"conversations": [{"from": "human", "value": Q}, {"from": "function_call", "value": "{}"}]},
        {"conversations": [{"from": "human", "value": Q}, {"from": "observation", "value": "1"}, ANSWER]},
        chat(ANSWER, ASKED, {"role": "ipython", "content": "1"}),
        {**chat(ANSWER), "tools": [{"type": "function", "function": {"name": "weather"}}]},
        {**chat(ANSWER), "tools": '[{"name": "weather"}]'},
        {"prompt": Q, "response": A, "functions": [{"name": "weather"}]},
        {"prompt": Q, "chosen": [{**ANSWER, "tool_calls": CALL}], "rejected": [ANSWER]},
        chat({"role": "assistant", "content": [{"type": "tool_use", "name": "weather", "input": {}}]}),
    ],
)
def test_tools_are_refused_by_name(row: Row) -> None:
    assert reason(row) == TOOLS


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**chat(ANSWER), "images": ["cat.jpg"]}, IMAGES),
        ({"prompt": Q, "response": A, "image": {"bytes": b"x", "path": None}}, IMAGES),
        ({"prompt": f"<image>{Q}", "response": A, "images": []}, IMAGES),
        ({"prompt": Q, "response": A, "image_path": "cat.jpg"}, IMAGES),
        ({**chat(ANSWER), "videos": ["cat.mp4"]}, "videos are not supported"),
        ({**chat(ANSWER), "audios": ["cat.wav"]}, "audio is not supported"),
        (chat(ANSWER, {**ASKED, "images": ["cat.jpg"]}), IMAGES),
        ({"query": "<img>https://x.org/cat.jpg</img>What is it?", "response": A}, IMAGES),
        (chat(ANSWER, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}), IMAGES),
        (chat(ANSWER, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": Q}]}), IMAGES),
        (chat(ANSWER, {"role": "user", "content": [{"type": "video", "video": "x"}]}), "videos are not supported"),
        (chat(ANSWER, {"role": "user", "content": [{"type": "input_audio", "x": 1}]}), "audio is not supported"),
        (chat(ANSWER, {"role": "user", "content": [{"type": "file", "x": 1}]}), "unknown kind of content"),
    ],
)
def test_what_is_not_text_is_refused_by_name(row: Row, expected: str) -> None:
    assert reason(row) == expected


def test_a_place_for_an_image_is_text_where_no_column_says_otherwise() -> None:
    assert read({"prompt": "What does <image> mean in HTML?", "response": A}).prompt[0].content.startswith("What")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"weight": 0}, "untrained turn"),
        ({"weight": 0.0}, "untrained turn"),
        ({"train": False}, "untrained turn"),
        ({"training": "false"}, "untrained turn"),
        ({"loss": False}, "untrained turn"),
        ({"loss_weight": 0}, "untrained turn"),
        ({"loss_scale": 0}, "untrained turn"),
        ({"weight": 0.3}, "weighted turn"),
        ({"loss_scale": 2}, "weighted turn"),
        ({"weight": "much"}, "wrong type"),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]}, "partly trained turn"),
        ({"channel": "analysis"}, "channels are not supported"),
        ({"refusal": "I will not."}, "refusals are not read"),
    ],
)
def test_a_last_turn_that_is_not_to_be_trained_as_it_stands_is_refused(said: Row, expected: str) -> None:
    assert reason(chat({**ANSWER, **said})) == expected
    if expected != "wrong type":
        assert reason({"prompt": Q, "chosen": {**ANSWER, **said}, "rejected": FLAT}) == expected


def test_weights_that_change_nothing_are_no_obstacle() -> None:
    earlier = {"role": "assistant", "content": "Hi!", "weight": 0}
    hello = {"role": "user", "content": "Hello", "train": False}
    assert read(chat({**ANSWER, "weight": 1, "train": True}, hello, earlier, ASKED)).responses == (A,)


def test_whose_words_a_list_of_texts_holds_is_not_guessed() -> None:
    assert read({"prompt": [Q], "chosen": [A], "rejected": [WORSE]}).responses == (A, WORSE)
    assert reason({"prompt": ["Hello", "Hi!", Q], "chosen": A, "rejected": WORSE}) == "whose turns"
    assert reason({"prompt": Q, "messages": 3, "chosen": A, "rejected": [A, WORSE]}) == "wrong type"


def test_content_that_is_null_is_said_to_be() -> None:
    assert reason(chat({"role": "assistant", "content": None})) == "missing value"
    assert reason(chat({"role": "referee", "content": A})) == "unknown role"
    assert reason(chat(ANSWER, {**ASKED, "thinking": "Hm."})) == "misplaced reasoning"


# Messages as text -----------------------------------------------------------------------------------------------------

NASTY = 'It\'s "blue",\n{"a": [1]}\\ — 天'
TURNS = [{"role": "user", "content": Q}, {"role": "assistant", "content": NASTY}]


def numpy_print(turns: list[Row]) -> str:
    return "[" + "\n ".join(map(repr, turns)) + "]"


def numpy_repr(turns: list[Row]) -> str:
    return f"array([{numpy_print(turns)[1:-1]}],\n      dtype=object)"


@pytest.mark.parametrize(
    "write",
    [json.dumps, lambda turns: json.dumps(turns, indent=1), repr, lambda turns: f" \n{turns}", numpy_print, numpy_repr],
)
def test_messages_kept_as_text_are_messages(write: Any) -> None:
    found = read({"messages": write(TURNS)})
    assert (found.prompt, found.responses) == ((Message("user", Q),), (NASTY,))
    sides = {"chosen": write(TURNS), "rejected": write([TURNS[0], FLAT])}
    for row in (sides, {"prompt": Q, **sides}):
        assert read(row).responses == (NASTY, WORSE)
        assert read(row).prompt == (Message("user", Q),)


def test_one_message_kept_as_text_is_a_message() -> None:
    assert read({"prompt": Q, "chosen": json.dumps(ANSWER), "rejected": repr(FLAT)}).responses == (A, WORSE)


@pytest.mark.parametrize(
    "text",
    [
        "[1] See the paper.",
        "[{'a': 1}]",
        '[{"from": "Berlin", "value": 3}]',
        '{"role": "hero", "content": "x"}',
        "[{'role': 'user'}]",
        '{"text": "x"}',
        "[" * 9,
        "[{'role': os.system('true'), 'content': 'x'}]",
    ],
)
def test_text_that_merely_looks_like_a_list_stays_text(text: str) -> None:
    assert read({"prompt": Q, "response": text}).responses == (text,)


@pytest.mark.parametrize(
    "text",
    [
        '[{"role": "user", "content": "Why is the sk',
        "[{'role': 'user', 'content': __import__('os')}]",
        "[{'role': 'user', 'content': " + "[" * 5000 + "]" * 5000 + "}]",
        '[{"role": "user", "content": ' + "[" * 100_000 + "]" * 100_000 + "}]",
    ],
)
def test_a_list_of_messages_that_breaks_off_is_not_trained_as_text(text: str) -> None:
    assert reason({"prompt": Q, "response": text}) == "broken messages"


def test_messages_kept_column_by_column() -> None:
    by_column = {"role": ["user", "assistant"], "content": [Q, A]}
    assert read({"messages": by_column}).responses == (A,)
    assert unpack({"x": {"role": ["user"], "content": []}, "y": {}}) == {
        "x": {"role": ["user"], "content": []},
        "y": {},
    }


# The shared cases -----------------------------------------------------------------------------------------------------


def items(name: str) -> list[Any]:
    source = open_source(str(case(name)))
    return list(read_comparisons(source, choose_formats(source)))


@pytest.mark.parametrize("name", ["05-reasoning_content", "05b-dpo-reasoning_content", "05c-thinking"])
def test_case_03_reasoning_fields(name: str) -> None:
    first = items(f"03-reasoning-fields-dropped/{name}.jsonl")[0]
    assert first.responses[0] == "Put it in boiling water for eight minutes."
    assert first.reasoning == ("Eggs need about eight minutes.", "Hm.")[: len(first.responses)]


@pytest.mark.parametrize("name", ["04-tool-calls", "04b-tool-calls-only-differ", "04c-tools-column-only"])
def test_case_04_tools(name: str) -> None:
    assert {item.reason for item in items(f"04-tool-calls-and-tools-dropped/{name}.jsonl")} == {TOOLS}


@pytest.mark.parametrize(
    "name",
    [
        "07-csv-json-messages.csv",
        "07b-csv-repr-messages.csv",
        "07c-csv-json-implicit.csv",
        "07d-csv-repr-messages-sft.csv",
        "07e-jsonl-json-prompt.jsonl",
    ],
)
def test_case_07_messages_as_text(name: str) -> None:
    found = items(f"07-stringified-messages/{name}")
    assert len(found) == 4
    assert found[0].prompt == (Message("user", "How do I boil an egg?"),)
    both = ("Put it in boiling water for eight minutes.", "Put it in the microwave.")
    assert found[0].responses == both[: 1 if "sft" in name else 2]


@pytest.mark.parametrize("name", ["06-images-column", "06b-images-conversations"])
def test_case_13_images(name: str) -> None:
    assert {item.reason for item in items(f"13-images-column-ignored/{name}.jsonl")} == {IMAGES}


def test_case_23_weights() -> None:
    first, second = items("23-message-weight-ignored/26-weight-mask.jsonl")
    assert first.responses == ("Put it in boiling water for eight minutes.",)
    assert (second.row, second.reason) == (2, "untrained turn")
