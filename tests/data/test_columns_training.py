"""Training says what it reads of the columns, uses labels, and warns of scores that contradict the order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import run, write_model

from preflab.core.records import UserError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def write(path: Path, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return (str(path),)


PAIR = {"chosen": "Yes, of course.", "rejected": "No, never.", "id": 7, "notes": ["x"]}
PAIRS = [
    {"question": f"Is it {n}?", **PAIR, "chosen_rating": a, "rejected_rating": b}
    for n, (a, b) in enumerate([(5, 1), (3, 3), (2, 4)])
]
LINE = (
    "columns: question -> prompt, chosen, rejected, chosen_rating -> score, rejected_rating -> score; "
    "kept as meta: id; not used: notes"
)


@pytest.mark.slow
def test_training_lists_the_columns_and_warns_of_the_scores(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "pairs.jsonl", PAIRS)
    for folder in ("first", "again"):  # the second time from the cache
        run("dpo", tiny, tmp_path / folder, train_data=data, max_steps=1, eval_data=())
        told = capsys.readouterr().err
        assert LINE in told
        assert "training rows: 3 used, 0 dropped" in told
        assert "warning: tied scores: 1 (row 2), chosen and rejected have the same score" in told
        assert "warning: inverted scores: 1 (row 3), rejected has a higher score than chosen" in told
    run("dpo", tiny, tmp_path / "margin", train_data=data, max_steps=1, eval_data=(), min_score_margin=1)
    told = capsys.readouterr().err
    assert "training rows: 1 used, 2 dropped\n  score margin: 2 (row 2, 3)" in told
    assert "warning: tied" not in told


def test_a_margin_without_scores_is_an_error(tiny: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [{"prompt": "Hm?", **PAIR}])
    with pytest.raises(UserError, match=r"min_score_margin: no row of .*pairs\.jsonl states the scores"):
        run("dpo", tiny, tmp_path / "run", train_data=data, max_steps=1, eval_data=(), min_score_margin=1)


def test_sft_takes_what_a_label_of_any_layout_calls_wanted(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"instruction": f"Count to {n}.", "input": "", "output": "1, 2", "kto_tag": n % 2 == 0} for n in range(4)]
    run("sft", tiny, tmp_path / "sft", train_data=write(tmp_path / "kto.jsonl", rows), max_steps=1, eval_data=())
    told = capsys.readouterr().err
    assert "columns: instruction -> prompt, input -> prompt, output -> response, kto_tag -> label" in told
    assert "training rows: 2 used, 2 dropped\n  unwanted response: 2 (row 2, 4)" in told
    run("kto", tiny, tmp_path / "kto", train_data=write(tmp_path / "kto.jsonl", rows), max_steps=1, eval_data=())
    assert "training rows: 4 used, 0 dropped" in capsys.readouterr().err


def test_what_a_function_of_ones_own_says_is_escaped(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from preflab.core.records import RowError\n\n\ndef pairs(row):\n"
        "    if row['chosen_rating'] == 3:\n        raise RowError(row['bad'], row['bad'])\n"
        "    return {'prompt': row['question'], 'chosen': row['chosen'], 'rejected': row['rejected']}\n"
    )
    data = write(tmp_path / "pairs.jsonl", [{**row, "bad": "\x1b[2Jgone\r\n\u202e"} for row in PAIRS])
    run("dpo", tiny, tmp_path / "run", train_data=data, max_steps=1, eval_data=(), format=str(own))
    told = capsys.readouterr().err
    assert not {"\x1b", "\r", "\u202e"} & set(told)
    assert r"  \x1b[2Jgone\r\n\u202e: 1 (row 2)" in told
