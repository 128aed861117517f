"""An inspection counts what is there, says what would be dropped, stays small in memory, and is safe to print."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizers
from rich.console import Console

from preflab.data.inspect import Inspection, Lengths, Rows, inspect_source
from preflab.data.inspect_view import render
from preflab.data.sources import open_source, open_sources
from preflab.data.tokenize import ChatTemplate

Row = dict[str, Any]


def pair(prompt: str, chosen: str, rejected: str) -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def write(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def inspected(tmp_path: Path, *rows: Row, **options: Any) -> Inspection:
    return inspect_source(open_source(write(tmp_path / "rows.jsonl", *rows)), **options)


def shown(inspection: Inspection, width: int = 200) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False).print(render(inspection))
    return file.getvalue()


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(tiny_tokenizers.qwen())


ROWS = [
    pair("p", "four", "no"),
    pair("p", "one two", "three"),
    pair("q", "a", "bb"),
    pair("q", "cc", "dd"),
    pair("p", "four", "no"),  # row 5 repeats row 1
    pair("p", "three", "one two"),  # row 6 contradicts row 2
    pair("r", "", "x"),
    pair("r", "y", "y"),
    pair("r", "", "z"),
]


def test_counts_shares_and_repeats(tmp_path: Path) -> None:
    found = inspected(tmp_path, *ROWS)
    assert (found.formats, found.rows, found.usable, found.pairs) == (("trl",), 9, 6, 6)
    assert found.ranking_sizes == {2: 6}
    assert {name: (reason.count, reason.first_rows) for name, reason in found.dropped.items()} == {
        "empty response": (2, [7, 9]),
        "identical responses": (1, [8]),
    }
    assert list(found.dropped) == ["empty response", "identical responses"], "the most frequent reason comes first"
    # Longer: rows 1, 2, 5. Shorter: rows 3, 6. Equal: row 4.
    assert found.chosen_longer == pytest.approx(3 / 6)
    assert found.same_length == pytest.approx(1 / 6)
    assert found.length_only_accuracy == pytest.approx(3 / 6 + 1 / 12)
    assert found.duplicates == Rows(1, (5,))
    assert found.conflicting == Rows(2, (2, 6))
    assert found.repeated_prompts == Rows(4, (2, 4, 5, 6))
    assert (found.lengths["characters"]["chosen"].count, found.lengths["characters"]["chosen"].max) == (6, 7)
    assert found.lengths["words"]["chosen"].max == 2
    assert "tokens" not in found.lengths


def test_of_many_dropped_rows_the_first_are_named(tmp_path: Path) -> None:
    found = inspected(tmp_path, pair("p", "a", "b"), *[pair("p", "", "b")] * 7)
    assert found.dropped["empty response"].count == 7
    assert found.dropped["empty response"].first_rows == [2, 3, 4, 5, 6]
    assert "row 2, 3, 4, 5, 6, …" in shown(found)


def test_length_distributions_are_exact(tmp_path: Path) -> None:
    found = inspected(tmp_path, *(pair("w " * 3, "c" * n, f"r {n}") for n in range(1, 102)))
    assert found.lengths["characters"]["chosen"] == Lengths(count=101, min=1, median=51, mean=51, p95=96, max=101)
    assert found.lengths["words"]["prompt"] == Lengths(count=101, min=3, median=3, mean=3, p95=3, max=3)


def test_rankings_count_every_pair_and_conflicts_between_any_two(tmp_path: Path) -> None:
    rankings = [["aaa", "bb", "c"], ["c", "d", "aaa"], ["x", "y", "z"]]
    found = inspected(tmp_path, *({"prompt": "p", "responses": responses} for responses in rankings))
    assert (found.pairs, found.ranking_sizes) == (9, {3: 3})
    assert found.conflicting == Rows(2, (1, 2)), "aaa before c in row 1, c before aaa in row 2"
    assert found.chosen_longer == pytest.approx(3 / 9)
    assert found.same_length == pytest.approx(4 / 9)
    assert found.lengths["characters"]["rejected"].count == 6


def test_the_same_responses_to_other_prompts_are_no_conflict(tmp_path: Path) -> None:
    found = inspected(tmp_path, pair("p", "a", "b"), pair("q", "b", "a"), pair("pa", "b", "c"), pair("p", "ab", "c"))
    assert found.conflicting.count == found.duplicates.count == 0


def test_demonstrations_and_prompts_have_no_pairs(tmp_path: Path, template: ChatTemplate) -> None:
    rows = [{"prompt": "Hello", "response": "Hi there"}] * 2
    found = inspected(tmp_path, *rows, template=template)
    assert (found.pairs, found.chosen_longer, found.length_only_accuracy) == (0, None, None)
    assert found.ranking_sizes == {1: 2}
    assert found.duplicates.count == 1
    assert "rejected" not in found.lengths["tokens"]
    assert "length-only" not in shown(found)
    only_prompts = inspected(tmp_path, {"prompt": "Hello"}, template=template)
    assert only_prompts.ranking_sizes == {0: 1}
    assert only_prompts.lengths["tokens"]["prompt"].count == 1
    shown(only_prompts)


def test_an_unwanted_response_is_no_duplicate_of_a_wanted_one(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c"}
    found = inspected(tmp_path, {**row, "label": True}, {**row, "label": False}, {**row, "label": True})
    assert found.duplicates == Rows(1, (3,))


def test_tokens_are_those_of_training_and_the_trained_ones_are_marked(tmp_path: Path, template: ChatTemplate) -> None:
    found = inspected(tmp_path, pair("Hello there", "Hi!", "No. No."), template=template)
    chosen, rejected = found.rendered
    assert (chosen.row, chosen.response, rejected.response) == (1, 0, 1)
    assert [token.text for token in chosen.tokens if token.trained] == ["Hi", "!", "<|im_end|>"]
    assert found.lengths["tokens"]["chosen"].max == 3
    assert found.lengths["tokens"]["prompt"].max == sum(not token.trained for token in chosen.tokens)
    output = shown(found)
    assert "trained, 3 tokens\nHi│!│<|im_end|>│" in output
    assert f"{tmp_path / 'rows.jsonl'} row 1, chosen: prompt, not trained" in output
    as_json = found.to_json()
    assert json.loads(json.dumps(as_json))["rendered"][0]["tokens"][-1] == {
        "text": "<|im_end|>",
        "id": template.terminator_id,
        "trained": True,
    }


def test_as_many_rows_are_rendered_as_asked_for(tmp_path: Path, template: ChatTemplate) -> None:
    rows = [pair("Hello", "Hi", f"{n}") for n in range(4)]
    for wanted in (0, 1, 3):
        found = inspected(tmp_path, *rows, template=template, render_rows=wanted)
        assert len(found.rendered) == 2 * wanted


def test_limits_count_what_is_cut_and_what_is_dropped(tmp_path: Path, template: ChatTemplate) -> None:
    rows = [pair("Hello", "Hi", "No"), pair("Hello " * 40, "Hi", "No"), pair("Hello", "Hi " * 40, "No")]
    free = inspected(tmp_path, *rows, template=template)
    assert (free.usable, free.cut_prompts.count) == (3, 0)
    shortest = free.lengths["tokens"]["prompt"].min
    limits = {"max_prompt_length": shortest + 5, "max_length": shortest + 10}
    found = inspected(tmp_path, *rows, template=template, **limits)
    assert found.cut_prompts == Rows(1, (2,))
    assert {name: reason.first_rows for name, reason in found.dropped.items()} == {"too long": [3]}
    assert found.lengths["tokens"]["prompt"].max > 40, "lengths are those before the cut"
    assert "prompts cut           1 (row 2)" in shown(found)


def test_rows_that_the_tokenizer_refuses_are_dropped_with_the_others(tmp_path: Path, template: ChatTemplate) -> None:
    rows = [pair("Hello", "Hi", "No"), pair("Hello", "Hi<|im_end|>", "No"), pair("Hello", "", "No")]
    found = inspected(tmp_path, *rows, template=template)
    assert (found.rows, found.usable) == (3, 1)
    assert {reason: dropped.first_rows for reason, dropped in found.dropped.items()} == {
        "control token in the text": [2],
        "empty response": [3],
    }


def test_a_mixture_names_the_files_of_its_rows(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", pair("p", "a", "b"))
    b = write(tmp_path / "b.jsonl", {"question": "p", "response_1": "b", "response_2": "a", "overall_response": 1})
    found = inspect_source(open_sources([a, b]))
    assert found.formats == ("trl", "HOMEWORK")
    assert found.conflicting == Rows(2, (1, 2))
    assert found.places == {1: f"{a} row 1", 2: f"{b} row 1"}
    assert f"{a} row 1; {b} row 1" in shown(found, width=1000)


def test_hostile_text_reaches_the_terminal_escaped(tmp_path: Path, template: ChatTemplate) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07[bold]not markup[/] \u202eright to left\r"
    rows = [pair(hostile, f"{hostile} yes", "no"), {"prompt": "p", "chosen": {hostile: 1}, "rejected": "b"}]
    output = shown(inspected(tmp_path, *rows, template=template))
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(output)
    assert "\\x1b" in output
    assert "\\u202e" in output
    assert "[bold]" in output.replace("│", "")


def test_a_source_without_a_usable_row_can_still_be_shown(tmp_path: Path) -> None:
    found = inspected(tmp_path, pair("p", "", "b"))
    assert found.usable == 0
    assert "empty response" in shown(found)
    json.dumps(found.to_json(), allow_nan=False)


def peak_of(path: str) -> int:
    tracemalloc.start()
    inspect_source(open_source(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_memory_stays_flat_as_files_grow(ending: str, tmp_path: Path) -> None:
    def rows(count: int) -> list[Row]:
        return [pair(f"{n} " * 50, f"a{n} " * 50, f"b{n} " * 50) for n in range(count)]

    def file_of(count: int) -> str:
        path = tmp_path / f"{count}.{ending}"
        if ending == "json":
            path.write_text(json.dumps(rows(count)))
            return str(path)
        return write(path, *rows(count))

    few, many = file_of(500), file_of(2500)
    peak_of(few)  # imports and caches
    growth = peak_of(many) - peak_of(few)
    # 2,000 more rows hold 1.4 MB of text; 76 bytes of numbers a row, and what sorting them takes, remain.
    assert growth < 2000 * 250
