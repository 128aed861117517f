"""Held-out rows: as many as were asked for, dropped ones told once, and what is trained on as well is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizers
from shared_cases import case
from tiny_runs import run, write_model

from preflab.core.records import Comparison, Message
from preflab.data.inspect import PartOverlap, inspect_source
from preflab.data.overlap import LengthBias, Overlap, prompt_hash, row_hash, what_drops_did
from preflab.data.sources import open_source, open_sources
from preflab.data.splits import Splits, load_splits
from preflab.data.tokenize import ChatTemplate
from preflab.training.settings import SFTSettings

Row = dict[str, Any]


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(tiny_tokenizers.qwen())


def pair(prompt: str, chosen: str = "yes", rejected: str = "no") -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def write(path: Path, *rows: Row) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def splits(template: ChatTemplate, *train: str, **changes: Any) -> Splits:
    settings = SFTSettings(**{"model": "none", "train_data": train, **changes})
    return load_splits(settings, template, need="rankings", seed=settings.seed)


# What is the same ---------------------------------------------------------------------------------------------------


def comparison(prompt: str, *responses: str) -> Comparison:
    return Comparison((Message("user", prompt),), responses)


def test_rows_are_told_by_their_words() -> None:
    row = comparison("How  do I\nboil an egg? ", "So.", "Not so.")
    assert prompt_hash(row.prompt) == prompt_hash((Message("user", "How do I boil an egg?"),))
    assert prompt_hash(row.prompt) != prompt_hash((Message("user", "how do I boil an egg?"),))
    assert prompt_hash(row.prompt) != prompt_hash((Message("assistant", "How do I boil an egg?"),))
    assert row_hash(row) == row_hash(comparison("How do I boil an egg?", "Not so.", "So.")), "whichever was preferred"
    assert row_hash(row) != row_hash(comparison("How do I boil an egg?", "So."))


# What is held out and trained on --------------------------------------------------------------------------------------


def test_shared_rows_and_prompts_are_counted(template: ChatTemplate, tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", *(pair(f"question {n}") for n in range(6)), pair("question 0", "a", "b"))
    held_out = write(
        tmp_path / "b.jsonl",
        pair(" question  0"),
        pair("question 1", "no", "yes"),
        pair("question 1", "other", "answers"),
        pair("new"),
    )
    found = splits(template, train, eval_data=(held_out,))
    assert found.overlap == Overlap(rows=2, prompts=2, held_out_rows=4, held_out_prompts=3)
    assert "warning: 2 of 3 held-out prompts, and 2 of 4 held-out rows, are also trained on" in found.report()
    again = splits(template, train, eval_data=(held_out,))
    assert again.overlap == found.overlap, "also of rows that were tokenised before"
    apart = splits(template, train, eval_data=(write(tmp_path / "c.jsonl", pair("new")),))
    assert apart.overlap == Overlap(0, 0, 1, 1)
    assert "also trained on" not in apart.report()
    assert splits(template, train).overlap is None


def test_a_slice_shares_prompts_and_a_ratio_does_not(template: ChatTemplate, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(pair(f"question {n % 20}", f"a{n}", f"b{n}") for n in range(60)))
    by_slice = splits(template, f"{path}[:-20]", eval_data=(f"{path}[-20:]",)).overlap
    assert by_slice == Overlap(rows=0, prompts=20, held_out_rows=20, held_out_prompts=20)
    by_prompt = splits(template, path, train_split_ratio=0.7).overlap
    assert by_prompt is not None
    assert (by_prompt.rows, by_prompt.prompts) == (0, 0)


def test_the_folder_of_case_17_shares_its_test_rows(template: ChatTemplate) -> None:
    folder = case("17-held-out-rows-in-training/14b-hh")
    found = splits(template, str(folder), eval_data=(str(folder / "test.jsonl.gz"),))
    assert found.overlap == Overlap(rows=1, prompts=1, held_out_rows=1, held_out_prompts=1)
    report = found.report()
    assert "1 of 1 held-out prompts" in report
    assert "mixes the splits test (test.jsonl.gz), train (train.jsonl.gz)" in report
    plain = str(case("17-held-out-rows-in-training/00-plain.jsonl"))
    same = splits(template, plain, eval_data=(plain,)).overlap
    assert same is not None
    assert same.rows == same.held_out_rows == 4


@pytest.mark.slow
def test_a_training_leaves_the_counts_in_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model")
    source = "sandbox:preferences?rows=20&seed=1"
    run("sft", model, tmp_path / "run", train_data=(source,), eval_data=(f"{source}[:5]",), max_steps=1)
    found = json.loads((tmp_path / "run" / "result.json").read_text())["overlap"]
    assert found["rows"] == found["held_out_rows"] == 5
    assert found["prompts"] == found["held_out_prompts"] > 0
    assert "and 5 of 5 held-out rows, are also trained on" in " ".join(capsys.readouterr().err.split())
    run("sft", model, tmp_path / "alone", train_data=(source,), eval_data=(), max_steps=1)
    assert json.loads((tmp_path / "alone" / "result.json").read_text())["overlap"] is None


def test_inspect_holds_several_sources_against_each_other(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", pair("p"), pair("q"), pair("r"))
    b = write(tmp_path / "b.jsonl", pair("p"), pair("p", "x", "y"), pair("s"))
    found = inspect_source(open_sources([a, b, f"{a}[:1]"]))
    assert found.overlaps == (
        PartOverlap(b, a, rows=1, prompts=1, of_rows=3, of_prompts=2),
        PartOverlap(f"{a}[:1]", a, rows=1, prompts=1, of_rows=1, of_prompts=1),
        PartOverlap(f"{a}[:1]", b, rows=1, prompts=1, of_rows=1, of_prompts=1),
    )
    assert not inspect_source(open_source(a)).overlaps
    write(tmp_path / "data" / "train.jsonl", pair("p"))
    write(tmp_path / "data" / "test.jsonl", pair("q"))
    (warning,) = inspect_source(open_source(str(tmp_path / "data"))).warnings
    assert "mixes the splits test (test.jsonl), train (train.jsonl)" in warning


# As many as were asked for --------------------------------------------------------------------------------------------


def many(tmp_path: Path) -> str:
    rows = [pair(f"question {n}") for n in range(300)]
    rows[7::50] = [pair("", "x", "y")] * len(rows[7::50])
    return write(tmp_path / "many.jsonl", *rows)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 10, 1000])
def test_samples_are_drawn_after_the_split(most: int, template: ChatTemplate, tmp_path: Path) -> None:
    path = many(tmp_path)
    whole = splits(template, path, train_split_ratio=0.8)
    assert whole.held_out is not None
    assert len(whole.training) + len(whole.held_out) == 294
    drawn = splits(template, path, train_split_ratio=0.8, max_eval_samples=most, max_train_samples=most)
    assert drawn.held_out is not None
    assert len(drawn.held_out) == min(most, len(whole.held_out))
    assert len(drawn.training) == min(most, len(whole.training))
    assert set(drawn.held_out.rows) <= set(whole.held_out.rows), "the sides stay as they were"
    assert set(drawn.training.rows) <= set(whole.training.rows)
    if most == 10:
        other = splits(template, path, train_split_ratio=0.8, max_train_samples=10, seed=7)
        assert set(other.training.rows) != set(drawn.training.rows)


@pytest.mark.parametrize("changes", [{}, {"max_eval_samples": 5}, {"max_train_samples": 5}])
def test_rows_that_cannot_be_read_are_told_once(changes: Row, template: ChatTemplate, tmp_path: Path) -> None:
    found = splits(template, many(tmp_path), train_split_ratio=0.8, **changes)
    assert found.held_out is not None
    assert found.training.dropped["empty prompt"]["count"] == 6
    assert not found.held_out.dropped


# What drops do --------------------------------------------------------------------------------------------------------


def test_what_leaving_out_long_rows_does_is_said(template: ChatTemplate, tmp_path: Path) -> None:
    short, long = "no " * 5, "yes " * 300
    rows = [pair(f"p{n}", long, short) if n < 6 else pair(f"p{n}", "yes", short) for n in range(10)]
    path = write(tmp_path / "a.jsonl", *rows)
    report = splits(template, path, max_length=100, max_prompt_length=50).report()
    told = (
        "6 of 10 rows (60%) are left out because they are too long; the preferred response is the longer one (in "
        "characters) in 60% of pairs before, and in 0% of those that are left"
    )
    assert f"warning: {told}" in report
    found = inspect_source(open_source(path), template=template, max_length=100, max_prompt_length=50)
    assert found.warnings == (told.replace("characters", "tokens"),)
    assert not inspect_source(open_source(path), template=template).warnings
    assert "warning" not in splits(template, path, max_length=2000).report()


@pytest.mark.parametrize(
    ("dropped", "after", "said"), [(0, 50, False), (1, 50, False), (5, 50, True), (1, 60, True), (1, 40, True)]
)
def test_little_is_said_of_little(dropped: int, after: int, said: bool) -> None:
    assert bool(what_drops_did(dropped, 100, LengthBias(100, 50), LengthBias(100, after), "tokens")) == said
