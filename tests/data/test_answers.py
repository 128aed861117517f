"""Files of responses that several tools wrote are read alike, and matched prompt by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preflab.core.records import Message, UserError
from preflab.data.answers import AnswerRow, is_answer_file, match_answers, read_answers, read_side
from preflab.data.sources import open_source


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_our_own_file_keeps_rows_samples_and_how_it_ended(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "Hi"}]
    own = {"prompt": prompt, "tokens": 3, "finish": "length", "meta": {"category": "fact"}}
    rows = [{"row": 7, "sample": sample, "response": f"r{sample}", **own} for sample in (0, 1)]
    first, second = read_answers(write(tmp_path / "a.jsonl", rows))
    assert first == AnswerRow(7, 0, user("Hi"), "r0", 3, "length", {"category": "fact"})
    assert (second.row, second.sample) == (7, 1)


def test_alpaca_evals_outputs_are_read(tmp_path: Path) -> None:
    rows = [{"instruction": "Name a bird.", "output": "A wren.", "generator": "wrenny", "dataset": "koala"}]
    (found,) = read_answers(write(tmp_path / "outputs.json", rows))
    assert (found.prompt, found.response, found.row, found.tokens) == (user("Name a bird."), "A wren.", 1, None)
    assert found.meta == {"generator": "wrenny", "dataset": "koala"}


def test_an_empty_response_is_an_answer(tmp_path: Path) -> None:
    (found,) = read_answers(write(tmp_path / "a.jsonl", [{"prompt": "Hi", "response": ""}]))
    assert found.response == ""


def test_rows_that_number_nothing_are_numbered_by_their_lines(tmp_path: Path) -> None:
    found = read_answers(write(tmp_path / "a.jsonl", [{"prompt": p, "response": "r", "row": 4} for p in "ab"]))
    assert [(row.row, row.sample) for row in found] == [(1, 0), (2, 0)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "Hi", "echo": "Ho"}, "fit no known format"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, "write `chosen` and name the data"),
        ({"prompt": "Hi"}, "let a model respond"),
        ({"prompt": "Hi", "response": "half \ud83d"}, "half a surrogate"),
    ],
)
def test_what_is_no_file_of_responses_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_answers(write(tmp_path / "a.jsonl", [row]))


def test_a_row_that_cannot_be_read_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a", "response": "r"}, {"prompt": "b", "response": 3}]
    with pytest.raises(UserError, match=r"row 2.*not text"):
        read_answers(write(tmp_path / "a.jsonl", rows))


def test_sides_of_preference_data() -> None:
    source = open_source("sandbox:preferences?rows=5&seed=1")
    chosen, rejected = read_side(source, "chosen"), read_side(source, "rejected")
    assert [row.prompt for row in chosen] == [row.prompt for row in rejected]
    assert all(good.response != bad.response for good, bad in zip(chosen, rejected, strict=True))
    with pytest.raises(UserError, match="no row here ranks two"):
        read_side(open_source("sandbox:prompts?rows=3"), "chosen")


def test_a_word_is_a_file_by_its_ending(tmp_path: Path) -> None:
    assert is_answer_file("outputs.json")
    assert is_answer_file("a/b.jsonl.gz")
    assert is_answer_file("a/b.jsonl[:40]")
    assert not is_answer_file("Qwen/Qwen2.5-0.5B-Instruct")
    (tmp_path / "model.json").mkdir()
    assert not is_answer_file(str(tmp_path / "model.json"))


def rows(*answers: tuple[str, str]) -> list[AnswerRow]:
    return [AnswerRow(number, 0, user(prompt), response) for number, (prompt, response) in enumerate(answers, 1)]


def test_answers_are_matched_by_prompt_and_by_turn() -> None:
    ours = rows(("a", "a1"), ("b", "b1"), ("a", "a2"))
    theirs = rows(("b", "B1"), ("a", "A1"), ("a", "A2"))
    matched = match_answers({"ours": ours, "theirs": theirs})
    assert [(o.response, t.response) for o, t in matched] == [("a1", "A1"), ("b1", "B1"), ("a2", "A2")]
    assert [(o.row, t.row) for o, t in matched] == [(1, 1), (2, 2), (3, 3)]


def test_unmatched_prompts_are_an_error_that_shows_them_on_both_sides() -> None:
    with pytest.raises(UserError) as error:
        match_answers({"ours": rows(("a", "1"), ("only ours", "2")), "theirs": rows(("a", "1"), ("a", "2"))})
    assert "1 in ours have no partner in theirs: 'only ours'" in str(error.value)
    assert "1 in theirs have no partner in ours: 'a'" in str(error.value)
