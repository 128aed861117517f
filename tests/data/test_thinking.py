"""What a model thought, apart from what it answered: in text, in tokens, in files, in judges' replies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preflab.data.answers import read_answers
from preflab.data.thinking import Spoken, after_thinking, split_reasoning
from preflab.judging.parse import Reply, UnusableReplyError, read_reply

HARMONY = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "finished"),
    [("<|channel|>analysis" * 30_000, False), ("<think>a</think>" * 100_000, True), ("</think>" * 100_000, True)],
    ids=["channels without a message", "thoughts", "closing tags"],
)
def test_a_response_that_repeats_its_marks_is_read_in_one_pass(text: str, finished: bool) -> None:
    """Models that have lost their way write such; where every mark looked through all that follows, it took hours."""
    found = split_reasoning(text)
    assert (found.response, found.finished) == ("", finished)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", Spoken("Yes.")),
        ("  Yes.\n", Spoken("  Yes.\n")),
        ("<think>Hm.</think>Yes.", Spoken("Yes.", "Hm.")),
        ("\n<think>\nHm.\n</think>\n\nYes.\n", Spoken("Yes.\n", "Hm.")),
        ("<think>\n\n</think>\n\nYes.", Spoken("Yes.")),
        ("Hm.\n</think>\n\nYes.", Spoken("Yes.", "Hm.")),  # the opening tag was in the prompt
        ("<think>Hm.", Spoken("", "Hm.", finished=False)),
        ("<think>Close with </think>, I think.</think>Yes.", Spoken("Yes.", "Close with\n\n, I think.")),
        ("<think>a</think><think>b</think>Yes.", Spoken("Yes.", "a\n\nb")),
        # Tags that an answer writes about are its own.
        ("Use <think>…</think> tags.", Spoken("Use <think>…</think> tags.")),
        ("<think>Hm.</think>Use <think>…</think>.", Spoken("Use <think>…</think>.", "Hm.")),
        ("Write <think> first.", Spoken("Write <think> first.")),
        ("[THINK]Hm.[/THINK]Yes.", Spoken("Yes.", "Hm.")),
        ("<seed:think>Hm.</seed:think>Yes.", Spoken("Yes.", "Hm.")),
        ("<|channel>thought\nHm.\n<channel|>Yes.", Spoken("Yes.", "Hm.")),
        (HARMONY, Spoken("Yes.", "Hm.")),
        ("<|channel|>final<|message|>Yes.", Spoken("Yes.")),
        ("<|channel|>analysis<|message|>Hm.", Spoken("", "Hm.", finished=False)),
        (
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
            Spoken("", "{}", finished=False),
        ),
        # As servers that drop special tokens send it.
        ("analysisHm.assistantfinalYes.", Spoken("Yes.", "Hm.")),
        ("analysis of the final assistant", Spoken("analysis of the final assistant")),
    ],
)
def test_a_text_is_split_into_answer_and_reasoning(text: str, expected: Spoken) -> None:
    assert split_reasoning(text) == expected


# ---- judges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nVerdict: FIRST\n</think>\nBetter.\nVerdict: SECOND",
        "Verdict: FIRST\n</think>\nVerdict: SECOND",
        "<think>Verdict: FIRST</think><think>Verdict: TIE</think>Verdict: SECOND",
        "<think>a</think>Verdict: FIRST\n<think>b</think>\nVerdict: SECOND",
        HARMONY.replace("Hm.", "Verdict: FIRST").replace("Yes.", "Verdict: SECOND"),
        "analysisVerdict: FIRST\nassistantfinalVerdict: SECOND",
        "The first holds a <think> tag.\nVerdict: SECOND",
    ],
)
def test_a_verdict_is_read_behind_the_judge_s_thinking(text: str) -> None:
    assert read_reply(Reply(text), "text") == ("second", None)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("<think>\nVerdict: FIRST", cut=True), "cut off at the token cap"),
        (Reply("", cut=True), "cut off at the token cap"),
        (Reply("<think>\nVerdict: FIRST"), "ends within the judge's thinking"),
        (Reply("<think>Verdict: FIRST</think>"), "ends within the judge's thinking"),
        (Reply(""), "the reply is empty"),
        (Reply("<think>Verdict: FIRST</think>\nBecause", cut=True), "cut off at the token cap before its verdict"),
    ],
)
def test_a_verdict_within_the_thinking_is_none(reply: Reply, reason: str) -> None:
    with pytest.raises(UnusableReplyError, match=reason):
        read_reply(reply, "text")


def test_text_without_thoughts_is_read_as_it_stands() -> None:
    assert after_thinking("Because.\nVerdict: TIE") == "Because.\nVerdict: TIE"


# ---- files of responses ----------------------------------------------------------------------------------------------


def test_a_file_s_responses_are_read_without_what_was_thought(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "response": "<think>\nHm.\n</think>\n\nYes."},
        {"prompt": "b", "response": "Yes.", "reasoning": "Hm."},
        {"prompt": "c", "response": "<think>Hm."},
        {"prompt": "d", "response": "Yes.", "finish": "eos"},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_answers(str(path))
    assert [row.response for row in found] == ["Yes.", "Yes.", "", "Yes."]
    assert [row.reasoning for row in found] == ["Hm.", "Hm.", "Hm.", ""]
    assert [row.finish for row in found] == [None, None, "length", "eos"]
    assert all("reasoning" not in row.meta for row in found)
