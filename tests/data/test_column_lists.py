"""Each column is listed as what it is read as; scores that tie or contradict the order are counted, or drop rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preflab.core.records import UserError
from preflab.data.column_use import columns_from_json, columns_to_json
from preflab.data.command import InspectResult
from preflab.data.comparisons import fitting
from preflab.data.detect import choose_format
from preflab.data.inspect import Inspection, Rows, inspect_source
from preflab.data.remarks import INVERTED, TIED
from preflab.data.rows import parse_row
from preflab.data.sources import open_source
from preflab.data.tokenize import Dropped

Row = dict[str, Any]

Q, BETTER, WORSE = "How do I boil an egg?", "Put it in boiling water.", "Put it in the microwave."
SIDES = {"chosen": BETTER, "rejected": WORSE}


def said(content: str) -> Row:
    return {"role": "assistant", "content": content}


def asked(content: str = Q) -> Row:
    return {"role": "user", "content": content}


WHOLE = {"chosen": [asked(), said(BETTER)], "rejected": [asked(), said(WORSE)]}


# What becomes of the columns ----------------------------------------------------------------------------------------


def inspected(tmp_path: Path, *rows: Row, name: str | None = None) -> Inspection:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return inspect_source(open_source(str(path)), format_name=name)


LISTS: dict[str, tuple[Row, str]] = {
    "renamed": (
        {"id": 3, "system": "Rhyme.", "question": Q, **SIDES, "notes": "x" * 300, "tags": ["a"]},
        "system, question -> prompt, chosen, rejected; kept as meta: id; not used: notes, tags",
    ),
    "UltraFeedback": (
        {"prompt": Q, "prompt_id": "f0", **WHOLE, "messages": WHOLE["chosen"], "score_chosen": 8.5},
        "prompt, chosen, rejected; kept as meta: prompt_id, score_chosen; not used: messages",
    ),
    "scores of a pair": (
        {"prompt": Q, **SIDES, "score_chosen": 8, "score_rejected": 3},
        "prompt, chosen, rejected, score_chosen -> score, score_rejected -> score",
    ),
    "KTO with alpaca": (
        {"instruction": Q, "input": "", "output": BETTER, "kto_tag": True, "source": "a book"},
        "instruction -> prompt, input -> prompt, output -> response, kto_tag -> label; kept as meta: source",
    ),
    "a category": (
        {"messages": [asked(), {**said(BETTER), "id": 4}], "label": "math"},
        "messages -> prompt and response; kept as meta: label; not used: messages.id",
    ),
    "a list with scores": (
        {"prompt": Q, "responses": [BETTER, WORSE], "scores": [2, 1], "explanations": ["x", "y"]},
        "prompt, responses, scores; not used: explanations",
    ),
    "an empty column": ({"prompt": Q, **SIDES, "comment": None}, "prompt, chosen, rejected; not used: comment"),
    "hostile": ({"prompt": Q, **SIDES, "a\x1b[2J\nb": [1]}, "prompt, chosen, rejected; not used: a\\x1b[2J⏎b"),
}


@pytest.mark.parametrize(("row", "line"), LISTS.values(), ids=LISTS)
def test_every_column_is_listed_as_what_it_is(row: Row, line: str, tmp_path: Path) -> None:
    found = inspected(tmp_path, row, row)
    (columns,) = found.columns
    assert str(columns) == line
    assert set(row) <= {*columns.read, *columns.meta, *columns.unused}
    as_json = json.loads(json.dumps(columns_to_json([columns])))
    assert json.loads(json.dumps(found.to_json()))["columns"] == as_json
    assert columns_from_json(as_json) == (columns,)
    shown = " ".join(str(InspectResult(found)).split())
    assert "columns" in shown
    assert "\x1b" not in shown


def test_what_is_too_long_in_one_row_is_named(tmp_path: Path) -> None:
    row = {"prompt": Q, **SIDES}
    (columns,) = inspected(tmp_path, {**row, "why": "short"}, {**row, "why": "long " * 99}).columns
    assert columns.unused == ("why",)


def test_a_function_of_ones_own_is_watched(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "def pairs(row):\n    return {'prompt': row['q'], 'chosen': row.get('good'), 'rejected': row['bad']}\n"
    )
    row = {"q": Q, "good": BETTER, "bad": WORSE, "why": "x" * 300, "id": 1}
    (columns,) = inspected(tmp_path, row, name=str(own)).columns
    assert str(columns) == (
        "q -> your function, good -> your function, bad -> your function; kept as meta: id; not used: why"
    )
    own.write_text("def all_of_it(row):\n    row = dict(row)\n    return {'prompt': row['q'], **row['sides']}\n")
    (columns,) = inspected(tmp_path, {"q": Q, "sides": SIDES, "x": "y"}, name=str(own)).columns
    assert set(columns.read) == {"q", "sides", "x"}


def test_what_a_function_of_ones_own_says_of_a_row_is_escaped(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from preflab.core.records import RowError\n\n\ndef pairs(row):\n    raise RowError(row['q'], row['q'])\n",
    )
    found = inspected(tmp_path, {"q": "\x1b[2Jgone\r\n[bold]"}, name=str(own))
    assert list(found.dropped) == [r"\x1b[2Jgone\r\n[bold]"]
    assert not {"\x1b", "\r"} & set(str(InspectResult(found)))


@pytest.mark.parametrize("wrong", ["Comparison('text', ('a',))", "Comparison((), (1,))", "Comparison((), 'ab')", "[]"])
def test_a_function_that_returns_something_else_is_told(wrong: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(f"from preflab.core.records import Comparison\n\n\ndef pairs(row):\n    return {wrong}\n")
    with pytest.raises(UserError, match="it must return a Comparison of Message and text, or a dict"):
        inspected(tmp_path, {"q": Q}, name=str(own))


# Scores that tie or contradict the order ------------------------------------------------------------------------------

SCORED = [
    {"prompt": f"{n}?", **SIDES, "score_chosen": a, "score_rejected": b}
    for n, (a, b) in enumerate([(8, 4), (6, 6), (3, 7), (5, 5), (5, 4.5)])
]


def test_ties_and_contradictions_are_counted_with_their_rows(tmp_path: Path) -> None:
    found = inspected(tmp_path, *SCORED)
    assert found.usable == 5
    assert found.remarks == {TIED: Rows(2, (2, 4)), INVERTED: Rows(1, (3,))}
    shown = " ".join(str(InspectResult(found)).split())
    assert "tied scores 2 (row 2, 4): chosen and rejected have the same score" in shown
    assert "inverted scores 1 (row 3)" in shown


def margins(rows: list[Row], margin: float | None) -> list[str | tuple[str, ...]]:
    made = [parse_row(choose_format(None, rows)[1], row) for row in rows]
    found = fitting(made, "rankings", ratio=None, seed=0, side=None, min_score_margin=margin)
    return [item.reason if isinstance(item, Dropped) else item.responses for item in found]


@pytest.mark.parametrize(
    ("margin", "used"), [(None, [1, 1, 1, 1, 1]), (0, [1, 1, 0, 1, 1]), (0.5, [1, 0, 0, 0, 1]), (1, [1, 0, 0, 0, 0])]
)
def test_a_margin_drops_pairs_whose_scores_differ_by_less(margin: float | None, used: list[int]) -> None:
    pair = (BETTER, WORSE)
    assert margins(SCORED, margin) == [pair if is_used else "score margin" for is_used in used]


def test_a_margin_thins_a_list_and_leaves_rows_without_scores() -> None:
    scored: Row = {"prompt": Q, "responses": ["a", "b", "c", "d"], "scores": [5, 4.9, 4.5, 1]}
    assert margins([scored, {"prompt": Q, "responses": ["x", "y"]}], 0.5) == [("a", "c", "d"), ("x", "y")]
    assert margins([scored], 9) == ["score margin"]


def test_a_single_response_has_labels_counted_and_is_not_called_chosen(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "response": "a", "label": label} for n, label in enumerate([True, False, True, None])]
    found = inspected(tmp_path, *rows)
    assert found.labels == {"wanted": 2, "unwanted": 1, "without": 1}
    shown = str(InspectResult(found))
    assert "2 wanted, 1 unwanted, 1 without" in shown
    assert "chosen" not in shown


def test_the_column_without_a_name_that_pandas_writes_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f",prompt,chosen,rejected\n0,{Q},{BETTER},{WORSE}\n1,{Q},{BETTER},{WORSE}\n")
    (columns,) = inspect_source(open_source(str(path))).columns
    assert dict(columns.read) == {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    assert columns.meta == ("",)
