"""What a folder held before never passes for what it holds now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from no_pictures import PAGE, draw_nothing

from preflab.core.records import Judgement, Message, Pair, UserError
from preflab.core.rundir import write_json, write_jsonl
from preflab.judging.verdicts import write_verdicts
from preflab.studies.compare import command as compare
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.rows import read_study
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.grid.rows import read_grid


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch, PAGE)


def responses(path: Path, word: str, prompts: int = 4) -> str:
    path.write_text("".join(json.dumps({"prompt": f"p{n}", "response": f"{word} {n}"}) + "\n" for n in range(prompts)))
    return str(path)


def pairs(path: Path) -> str:
    path.write_text(json.dumps([{"prompt": f"p{n}", "chosen": f"a {n}", "rejected": f"b {n}"} for n in range(4)]))
    return str(path)


def settings(tmp_path: Path, **changes: Any) -> CompareSettings:
    files = (responses(tmp_path / "a.jsonl", "a"), responses(tmp_path / "b.jsonl", "b"))
    return CompareSettings(**{"models": files, "judge": ("gold",), "out": tmp_path / "out"} | changes)


def test_scores_of_preference_data_go_with_the_prompts_that_they_are_of(tmp_path: Path) -> None:
    compare_models(settings(tmp_path, prompts=(pairs(tmp_path / "pairs.json"),)))
    assert read_study(tmp_path / "out").preference_data.keys() == {"gold"}
    compare_models(settings(tmp_path, overwrite=True))
    assert not read_study(tmp_path / "out").preference_data


def test_a_study_that_is_being_made_anew_is_none_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_models(settings(tmp_path))
    monkeypatch.setattr(compare, "_score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        compare_models(settings(tmp_path, overwrite=True))
    with pytest.raises(UserError, match=r"no study\.json"):
        read_study(tmp_path / "out")


def test_curves_of_a_model_that_has_left_are_gone(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "out" / "training" / "b.jsonl", [{"step": 1, "loss": 2.0}])
    compare_models(settings(tmp_path))
    assert not read_study(tmp_path / "out").training["b"]


@pytest.mark.parametrize("name", ["..", "a/b", "a.manifest", "a.jsonl", "x" * 101, "preference_data"])
def test_names_that_are_files_of_ours_are_refused(tmp_path: Path, name: str) -> None:
    a, b = settings(tmp_path).models
    with pytest.raises(UserError):
        compare_models(settings(tmp_path, models=(a, f"{name}={b}")))
    with pytest.raises(UserError):
        compare_models(settings(tmp_path, judge=("score=gold",)))


def test_a_cut_file_of_scores_is_no_shorter_study(tmp_path: Path) -> None:
    compare_models(settings(tmp_path))
    scores = tmp_path / "out" / "scores" / "gold" / "b.jsonl"
    scores.write_bytes(scores.read_bytes()[:-30])
    with pytest.raises(UserError, match="line 4"):
        read_study(tmp_path / "out")
    scores.unlink()
    with pytest.raises(UserError, match="is missing"):
        read_study(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({}, 1),
        ({"opponent": "rejected"}, 0),
        ({"judges": {"gold": "reward:rm"}}, 0),
        ({"prompt": "another"}, 0),
    ],
)
def test_verdicts_of_another_grid_are_left_out(tmp_path: Path, changes: dict[str, Any], cells: int) -> None:
    head = {"opponent": "chosen", "judges": {"gold": "gold"}}
    cell = {"name": "m-t1", "model": "m", "step": None, "temperature": 1.0}
    write_json(tmp_path / "grid.json", {**head, **changes, "cells": [cell]})
    prompt = [{"role": "user", "content": changes.get("prompt", "asked")}]
    write_jsonl(tmp_path / "prompts.jsonl", [{"row": 1, "prompt": prompt}])
    write_verdicts(
        tmp_path / "cells" / "m-t1" / "gold.json",
        [Judgement("1/0", "win")],
        metadata={"judge": "gold", "model": "m-t1", "opponent": "chosen"},
        opponent_word="chosen",
        pairs={"1/0": Pair("1/0", (Message("user", "asked"),), "ours", "theirs")},
    )
    assert len(read_grid(tmp_path)) == cells


@pytest.mark.parametrize(
    "head", [[], {"opponent": "chosen"}, {"opponent": "c", "judges": {"g": "gold"}, "cells": [{}]}]
)
def test_an_edited_grid_is_named(tmp_path: Path, head: Any) -> None:
    write_json(tmp_path / "grid.json", head)
    write_jsonl(tmp_path / "prompts.jsonl", [])
    with pytest.raises(UserError, match="not a grid that this version wrote"):
        read_grid(tmp_path)
