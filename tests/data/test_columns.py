"""Columns by other names, and files of responses through a format that was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preflab.core.config import load_settings
from preflab.core.records import Comparison, UserError
from preflab.data.answers import read_answers
from preflab.data.command import inspect_data
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.settings import InspectSettings
from preflab.data.sources import open_source, open_sources
from preflab.data.tokenize import Dropped
from preflab.judging.command import judge_responses
from preflab.judging.estimate import Cost
from preflab.judging.settings import JudgeSettings
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.files import read_files, study_prompts

Row = dict[str, Any]
ROW = {"ask": "q", "good": "c", "bad": "d"}


def write(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(*specs: str, columns: tuple[str, ...]) -> list[Row]:
    return [row for _, row in open_sources(specs, columns)]


def test_columns_are_read_by_the_names_that_they_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"ask": "p", "good": "a", "bad": "b", "prompt": 7}, {"other": 1}, ROW)
    columns = ("prompt=ask", "chosen=good", "rejected=bad")
    first, second, _ = rows_of(path, columns=columns)
    assert first == {"prompt": "p", "chosen": "a", "rejected": "b"}, "a column of that name gives way"
    assert second == {"other": 1}, "a row without the column stays as it is"
    source = open_sources((path,), columns)
    ((name, _),) = formats = choose_formats(source)
    assert name == "trl"
    found = next(iter(read_comparisons(source, formats)))
    assert isinstance(found, Comparison)
    assert found.responses == ("a", "b")
    assert source.fingerprint() != open_source(path).fingerprint()


def test_two_columns_can_change_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "worse", "rejected": "better"})
    (row,) = rows_of(path, columns=("chosen=rejected", "rejected=chosen"))
    assert row == {"prompt": "p", "chosen": "better", "rejected": "worse"}


def test_a_column_may_be_in_one_of_several_sources(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.jsonl", {"ask": "p"}), write(tmp_path / "b.jsonl", {"prompt": "q"})
    assert rows_of(one, other, columns=("prompt=ask",)) == [{"prompt": "p"}, {"prompt": "q"}]
    assert [row for _, row in open_sources((other,), ("prompt=ask",), beside=(one,))] == [{"prompt": "q"}]
    with pytest.raises(UserError, match=r"no column 'aks' in .*b\.jsonl; it has prompt$"):
        rows_of(other, columns=("prompt=aks",))
    with pytest.raises(UserError, match=r"no column 'aks' in .*; it has ask, prompt; did you mean prompt=ask\?"):
        rows_of(one, other, columns=("prompt=aks",))


@pytest.mark.parametrize(
    "given",
    [
        ["prompt=ask,response=a=b"],
        ["prompt=ask", "response=a=b"],
        "prompt=ask, response=a=b",
        {"prompt": "ask", "response": "a=b"},
    ],
)
def test_columns_are_given_in_one_word_in_several_or_as_a_mapping(given: object) -> None:
    found = load_settings(InspectSettings, None, {"source": ["x.jsonl"], "columns": given})
    assert found.columns == ("prompt=ask", "response=a=b")


@pytest.mark.parametrize(
    ("given", "message"),
    [("prompt", "NAME=COLUMN is needed"), ("=x", "NAME=COLUMN is needed"), ("a=b,a=c", "a is given two"), (3, "text")],
)
def test_columns_that_say_nothing_are_refused(given: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_settings(InspectSettings, None, {"source": ["x.jsonl"], "columns": given})


def test_inspect_reads_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"ask": "p", "win": "a", "lose": "b"})
    settings = InspectSettings(source=(path,), columns=("prompt=ask", "chosen=win", "rejected=lose"))
    assert inspect_data(settings).inspection.usable == 1


def test_columns_are_listed_as_the_data_calls_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"ask": "p", "good": "a", "bad": "b", "prompt": "of old"})
    settings = InspectSettings(source=(path,), columns=("prompt=ask", "chosen=good", "rejected=bad"))
    (found,) = inspect_data(settings).inspection.columns
    assert dict(found.read) == {"ask": "prompt", "good": "chosen", "bad": "rejected"}
    assert found.unused == ("prompt",), "it gave way"


SIDES = {"response_a": "a", "response_b": "b"}


@pytest.mark.parametrize(
    ("row", "columns", "said"),
    [
        ({"prompt": "p", **SIDES, "preference": "tie"}, (), "`preference` is 'tie'"),
        ({"prompt": "p", **SIDES, "Preference": "tie"}, (), "`Preference` is 'tie'"),
        ({"prompt": "p", **SIDES, "liked": "tie"}, ("winner=liked",), "`liked` is 'tie'"),
        (
            {"prompt": "p", "answer_a": "a", "answer_b": "b", "preference": "red"},
            (),
            "`preference` is 'red'; it must name `answer_a` or `answer_b`, or be a tie",
        ),
        ({"prompt": "p", "good": None, "bad": "b"}, ("chosen=good", "rejected=bad"), "`good` is null"),
        ({"prompt": "p", "Chosen": None, "rejected": "b"}, (), "`Chosen` is null"),
    ],
)
def test_what_is_said_of_a_row_calls_columns_as_the_data_does(
    row: Row, columns: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    good = {name: value or "x" for name, value in row.items()}
    path = write(tmp_path / "a.jsonl", *[{**good, **dict.fromkeys(good.keys() & CHOICES, "A")}] * 3, row)
    settings = InspectSettings(source=(path,), columns=columns)
    (dropped,) = inspect_data(settings).inspection.dropped.values()
    assert dropped.example == said


CHOICES = {"preference", "Preference", "liked"}

# Files of responses ---------------------------------------------------------------------------------------------------

OURS = {"row": 1, "sample": 0, "prompt": [{"role": "user", "content": "p"}], "response": "r"}
OURS |= {"tokens": 1, "finish": "eos", "meta": {}}


@pytest.mark.parametrize(
    "spelling", ["generated_text", "output", "answer", "completion", "model_response", "generation", "model_output"]
)
def test_common_spellings_of_a_response_are_read(spelling: str, tmp_path: Path) -> None:
    (found,) = read_answers(write(tmp_path / "a.jsonl", {"prompt": "p", spelling: "r", "seconds": 0.5}))
    assert (found.prompt[-1].content, found.response) == ("p", "r")


def test_the_replications_inference_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results = [{"prompt": f"p{n}", "generated_text": f"r{n}", "tokens_generated": 3} for n in range(2)]
    path.write_text(json.dumps({"metadata": {"model": "m", "temperature": 0.7}, "results": results}, indent=2))
    assert [(row.prompt[-1].content, row.response) for row in read_answers(str(path))] == [("p0", "r0"), ("p1", "r1")]


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "p", "answer_a": "long text of one", "draft": "long text of two"})
    with pytest.raises(UserError, match=r"--columns|--format"):
        read_answers(path)
    assert read_answers(path, columns=("response=draft",))[0].response == "long text of two"


def test_a_function_reads_files_of_responses_but_not_our_own(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(
        "def f(row):\n    return {'prompt': row['in']['text'], 'response': row['out'][0]}\n"
        "def two(row):\n    return {'prompt': 'p', 'chosen': 'a', 'rejected': 'b'}\n"
    )
    path = write(tmp_path / "a.jsonl", {"in": {"text": "p"}, "out": ["r", "s"]})
    (found,) = read_answers(path, f"{tmp_path / 'f.py'}:f")
    assert (found.prompt[-1].content, found.response) == ("p", "r")
    assert read_answers(write(tmp_path / "ours.jsonl", OURS), f"{tmp_path / 'f.py'}:f")[0].response == "r"
    with pytest.raises(UserError, match=r"row 1: 2 responses; .* must return a dict with prompt and response"):
        read_answers(path, f"{tmp_path / 'f.py'}:two")


def test_judge_reads_both_files_by_columns_and_format(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.jsonl", OURS)
    theirs = write(tmp_path / "theirs.jsonl", {"query": "p", "gen_text": "s"})
    given = {"responses": ours, "opponent": theirs, "judge": "human", "dry_run": True}
    cost = judge_responses(JudgeSettings(**given, columns=("prompt=query", "response=gen_text")))
    assert isinstance(cost, Cost)
    with pytest.raises(UserError, match=r"no column 'gentext' in .*did you mean response=gen_text"):
        judge_responses(JudgeSettings(**given, columns=("response=gentext",)))
    pairs = write(tmp_path / "pairs.jsonl", {"query": "p", "chosen": "a", "rejected": "b"})
    given |= {"opponent": "chosen", "prompts": (pairs,)}
    assert isinstance(judge_responses(JudgeSettings(**given, columns=("prompt=query",))), Cost)
    assert isinstance(judge_responses(JudgeSettings(**given, format="prompt-response")), Cost)


def test_files_of_others_say_what_their_columns_are_read_as(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = write(tmp_path / "ours.jsonl", OURS)
    theirs = write(tmp_path / "theirs.jsonl", {"query": "p", "gen_text": "s", "tokens": 3, "by": "me", "more": []})
    given = {"responses": ours, "opponent": theirs, "judge": "human", "dry_run": True}
    judge_responses(JudgeSettings(**given, columns=("response=gen_text",)))
    said = "columns: query -> prompt, gen_text -> response, tokens; kept as meta: by; not used: more"
    assert capsys.readouterr().err.splitlines() == [said], "of our own file there is nothing to tell"


def test_a_study_says_what_the_columns_of_prompts_and_files_are_read_as(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "p", "answer": "a"}, {"prompt": "p", "answer": "b"})
    pairs = write(tmp_path / "pairs.jsonl", {"query": "p", "chosen": "a", "rejected": "b", "id": 1})
    settings = CompareSettings(models=(file, "chosen"), prompts=(pairs,))
    given = read_files(settings, {"a": file})
    study_prompts(settings, given, (file,))
    study_prompts(CompareSettings(models=(file, file)), given, (file,))  # two samples, which are not told as asked once
    assert capsys.readouterr().err.splitlines() == [
        "columns: prompt, answer -> response",
        "columns: query -> prompt, chosen, rejected; kept as meta: id",
    ]


def test_compare_reads_files_and_prompts_by_the_same_columns(tmp_path: Path) -> None:
    files = {name: write(tmp_path / f"{name}.jsonl", {"query": "p", "text_out": name}) for name in ("a", "b")}
    pairs = write(tmp_path / "pairs.jsonl", {"query": "p", "chosen": "a", "rejected": "b"})
    columns = ("prompt=query", "response=text_out")
    settings = CompareSettings(models=tuple(files.values()), prompts=(pairs,), columns=columns)
    given = read_files(settings, files)
    assert [rows[0].response for rows in given.values()] == ["a", "b"]
    (prompt,) = study_prompts(settings, given, tuple(files.values()))
    assert prompt["prompt"] == [{"role": "user", "content": "p"}]
    assert prompt["chosen"] == "a"


def test_a_row_without_the_column_that_is_the_prompt_has_no_prompt(tmp_path: Path) -> None:
    """What is called `prompt` in this file is another thing, also in a row that leaves the right column out."""
    ours = {"prompt": "template 7", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "a.jsonl", {**ours, "ask": "Which?"}, ours, {**ours, "ask": "Why?"})
    source = open_sources((path,), ("prompt=ask",))
    found = list(read_comparisons(source, choose_formats(source)))
    assert [item.prompt[0].content for item in found if isinstance(item, Comparison)] == ["Which?", "Why?"]
    assert [item.reason for item in found if isinstance(item, Dropped)] == ["missing field"]
