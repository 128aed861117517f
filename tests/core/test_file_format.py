"""Files that users keep bear the number of their format: older ones are read, newer ones refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hand_experiments import write_experiment, write_grid, write_study
from hand_frontiers import write_frontier
from hand_verdicts import write as write_verdicts

from preflab.core.file_format import FORMAT, with_format, without_format
from preflab.core.records import UserError
from preflab.core.rundir import finish_stage, open_stage, read_json, stage_state, write_json
from preflab.experiment.rows import read_experiment
from preflab.judging.verdicts import read_verdicts
from preflab.studies.compare.rows import read_study
from preflab.studies.frontier.rows import read_frontier
from preflab.studies.grid.rows import read_grid


def stage(folder: Path) -> None:
    open_stage(folder, {"seed": 1}, overwrite=False)
    finish_stage(folder, {"model.safetensors": "0f"})


KEPT: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], Any]]] = {
    "stage": ("stage.json", stage, stage_state),
    "study": ("study.json", lambda folder: write_study(folder, "wtl"), read_study),
    "grid": ("grid.json", lambda folder: write_grid(folder, {("dpo", None, 0.7): "wtl"}), read_grid),
    "frontier": ("frontier.json", write_frontier, read_frontier),
    "experiment": ("experiment.json", lambda folder: write_experiment(folder, []), read_experiment),
    "verdicts": (
        "v.json",
        lambda folder: write_verdicts(folder / "v.json", "wtl"),
        lambda f: read_verdicts(f / "v.json"),
    ),
}
"""Kind -> its file, what writes it into a folder, and what reads it there."""


@pytest.mark.parametrize("kind", KEPT)
def test_older_files_are_read_and_newer_ones_refused(kind: str, tmp_path: Path) -> None:
    name, write, read = KEPT[kind]
    write(tmp_path)
    path = tmp_path / name
    document = {key: value for key, value in read_json(path).items() if key != "format"}
    found = []
    for head in ({}, {"format": 1}, {"format": FORMAT}):
        write_json(path, head | document)
        found.append(repr(read(tmp_path)))
    assert len(set(found)) == 1
    write_json(path, document | {"format": FORMAT + 1})
    with pytest.raises(UserError, match=rf"{name}: has format {FORMAT + 1}, .* up to {FORMAT}: .* update preflab"):
        read(tmp_path)


def test_what_is_written_bears_the_number(tmp_path: Path) -> None:
    stage(tmp_path)
    write_verdicts(tmp_path / "v.json", "wtl")
    for name in ("stage.json", "v.json"):
        assert next(iter(read_json(tmp_path / name).items())) == ("format", FORMAT)


@pytest.mark.parametrize("document", [{"format": "alpaca", "rows": []}, {"format": True}, [1], {"rows": []}])
def test_what_is_of_other_origin_is_left_as_it_is(document: object) -> None:
    assert without_format(Path("x.json"), document) == document


def test_a_number_is_taken_off_again() -> None:
    assert without_format(Path("x.json"), with_format({"a": 1})) == {"a": 1}
