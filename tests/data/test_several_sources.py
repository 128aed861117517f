"""Several sources in one command keep their names: in rows of scores, in summaries, as subsets of a study."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from preflab.experiment.inputs import KnownFiles, _digest
from preflab.rewards.rows import summarize
from preflab.sample.score import ScoreResult
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.files import study_prompts

Row = dict[str, Any]
PROMPT, OTHER = ([{"role": "user", "content": text}] for text in "pq")


def write(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_source_makes_a_subset_though_rows_have_a_category(tmp_path: Path) -> None:
    specs = tuple(
        write(tmp_path / f"{name}.jsonl", *({"prompt": f"{name} {n}", "category": f"c{n}"} for n in range(2)))
        for name in ("train", "test")
    )
    settings = CompareSettings(models=("a", "b"), prompts=specs)
    assert [row["subset"] for row in study_prompts(settings, {}, ())] == [specs[0]] * 2 + [specs[1]] * 2
    by_column = settings.model_copy(update={"subset_by": "category"})
    assert [row["subset"] for row in study_prompts(by_column, {}, ())] == ["c0", "c1", "c0", "c1"]
    one = settings.model_copy(update={"prompts": specs[:1]})
    assert [row["subset"] for row in study_prompts(one, {}, ())] == ["c0", "c1"]


def test_scores_of_several_sources_are_summed_up_apart(tmp_path: Path) -> None:
    rows = [
        {"row": 1, "prompt": PROMPT, "chosen": "a", "rejected": "b", "score_chosen": 2.0, "score_rejected": 1.0},
        {"row": 2, "prompt": OTHER, "chosen": "a", "rejected": "b", "score_chosen": 0.0, "score_rejected": 3.0},
    ]
    pooled = summarize(rows)
    assert "sources" not in pooled
    named = summarize([{**row, "source": source} for row, source in zip(rows, ("train", "test"), strict=True)])
    assert named == {**pooled, "sources": {"train": summarize(rows[:1]), "test": summarize(rows[1:])}}
    assert named["sources"]["train"]["accuracy"] == 1.0
    assert named["sources"]["test"]["reward_mean"] == 1.5
    shown = str(ScoreResult(tmp_path / "s.jsonl", {**named, "dropped": {}}))
    assert "  test: rows 1, prompts 1, accuracy 0, reward_mean 1.5, reward_std 1.5" in shown.splitlines()


def test_a_file_changed_within_its_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, {"prompt": "p"})
    known: KnownFiles = {}
    before, times = _digest(path, known), path.stat()
    write(path, {"prompt": "q"})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert path.stat().st_size == times.st_size
    assert _digest(path, known) != before
