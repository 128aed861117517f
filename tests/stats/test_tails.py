"""Responses that go on into another task, and those that only look so."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from preflab.stats.tails import other_task

SHARED = Path(__file__).parents[3] / "shared" / "data" / "hh-harmless-2000.jsonl.gz"


@pytest.mark.parametrize(
    ("answer", "tail"),
    [
        ("Paris is the capital. ", "Premise: A man eats. Hypothesis: He is hungry. Pick your answer from yes or no."),
        ("It is large.\n", "Premise: x\nHypothesis: y\nPick your answer from: yes; no"),
        ("The answer is 4.\n\n", "Q: What is 5+5?\nA: 10"),
        ("Sure, it is.\n\n", "Instruction: Write a poem about cats.\nOutput: Cats are"),
        ("I like tea.\n", "Sentence 1: A dog runs.\nSentence 2: A cat."),
        ("It is blue.\n\n", "Friend: Hi there\nMe: hello"),
        ("The capital of France is Paris.\n\n", "Question 2: What is the capital of Spain?"),
    ],
)
def test_another_task_is_found_where_it_begins(answer: str, tail: str) -> None:
    place = other_task(answer + tail)
    assert place is not None
    assert abs(place - len(answer)) <= 1
    assert other_task(answer) is None


@pytest.mark.parametrize(
    "text",
    [
        "Here are some questions:\nQ: How old are you?\nQ: Where do you live?",
        "Q: What is it?\nA: A cat.",
        "You asked a good question: why is the sky blue? Because of scattering.",
        "Pick your answer with care, and take your time.\nThen go on.",
        "Note: the task is done.\nWarning: it is hot.",
        "",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert other_task(text) is None


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs real dialogues, which are not here")
def test_real_answers_are_left_alone() -> None:
    with gzip.open(SHARED, "rt", encoding="utf-8") as file:
        transcripts = [json.loads(line)["chosen"] for line in file]
    answers = {
        answer.strip()
        for transcript in transcripts
        for turn in re.split(r"\n\nHuman:", transcript)
        for answer in turn.split("\n\nAssistant:")[1:]
    }
    assert len(answers) > 3000
    assert [answer for answer in answers if other_task(answer) is not None] == []


@pytest.mark.slow
@pytest.mark.parametrize("text", ["A: x\n", "passage: x\n", "x?\nA) b\n", "x. Premise: y ", "x. Q: y\n", "word "])
def test_long_text_is_looked_through_in_one_pass(text: str) -> None:
    other_task(text * 20_000)  # minutes, if every beginning looked for its end by itself
