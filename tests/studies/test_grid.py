"""`preflab grid`: cells of models, checkpoints and temperatures, gone on with one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs

from preflab.core.records import UserError
from preflab.core.rundir import read_jsonl, write_jsonl
from preflab.judging.verdicts import read_verdicts
from preflab.studies.grid import command as grid
from preflab.studies.grid.command import run_grid
from preflab.studies.grid.rows import read_grid
from preflab.studies.grid.settings import GridSettings

pytestmark = pytest.mark.slow

PROMPTS = "sandbox:preferences?rows=8&split=test&seed=3"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    base = tiny_runs.write_model(folder / "base")
    tiny_runs.run("dpo", base, folder / "dpo", max_steps=4, save_steps=2)
    return folder / "dpo"


def settings(run: Path, out: Path, **changes: Any) -> GridSettings:
    values: dict[str, Any] = {
        "models": (str(run / "checkpoints"),),
        "temperatures": (0.7, 1.0),
        "prompts": (PROMPTS,),
        "judge": ("gold",),
        "max_new_tokens": 8,
        "dtype": "float32",
        "out": out,
    }
    return GridSettings(**values | changes)


def test_a_grid_that_was_renamed_is_finished_all_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_grid(settings(run, tmp_path / "grid", temperatures=(1.0,)))
    (tmp_path / "grid").rename(tmp_path / "renamed")
    monkeypatch.setattr("preflab.sample.generate.generate", None)
    assert run_grid(settings(run, tmp_path / "renamed", temperatures=(1.0,))).cells == first.cells


@pytest.mark.parametrize("name", ["opponent.jsonl", "cells/dpo-step-2-t1/responses.jsonl"])
def test_verdicts_on_other_responses_than_the_grid_has_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "grid"
    run_grid(settings(run, folder, temperatures=(1.0,)))
    rows = list(read_jsonl(folder / name))
    write_jsonl(folder / name, [{**row, "response": f"Not {row['response']}"} for row in rows])
    with pytest.raises(UserError, match=r"dpo-step-\d-t1/gold\.json: sample \d+/0 is a verdict on other texts"):
        read_grid(folder)


def test_a_grid_has_a_cell_for_each_checkpoint_and_temperature(run: Path, tmp_path: Path) -> None:
    result = run_grid(settings(run, tmp_path / "grid", num_return_sequences=2))
    assert [(cell.model, cell.step, cell.temperature) for cell in result.cells] == [
        ("dpo", 2, 0.7), ("dpo", 2, 1.0), ("dpo", 4, 0.7), ("dpo", 4, 1.0)
    ]  # fmt: skip
    for cell, name in zip(result.cells, ("dpo-step-2-t0.7", "dpo-step-2-t1"), strict=False):
        file = read_verdicts(tmp_path / "grid" / "cells" / name / "gold.json")
        assert file.opponent_word == "chosen"
        assert file.metadata["temperature"] == cell.temperature
        assert file.metadata["step"] == 2
        points = [{"win": 1.0, "tie": 0.5, "loss": 0.0}.get(j.outcome, np.nan) for j in file.judgements]
        assert len(points) == 2 * len({j.sample_id.split("/")[0] for j in file.judgements})
        assert cell.win_rate is not None
        assert cell.win_rate.value == pytest.approx(np.nanmean(points))
        assert cell.win_rate.n == len(points) // 2, "samples of one prompt are not counted as prompts"
    written = {path.name for path in (tmp_path / "grid" / "analysis").iterdir()}
    assert written == {
        *("winrates.md", "winrates.csv", "winrates.tex", "winrate_vs_temperature.png", "winrate_vs_step.png")
    }


def test_the_checkpoints_differ_and_the_last_is_the_final_model(run: Path, tmp_path: Path) -> None:
    run_grid(settings(run, tmp_path / "grid", temperatures=(1.0,)))
    run_grid(settings(run, tmp_path / "final", models=(f"final={run}",), temperatures=(1.0,)))

    def responses(folder: str, cell: str) -> list[str]:
        return [row["response"] for row in read_jsonl(tmp_path / folder / "cells" / cell / "responses.jsonl")]

    assert responses("grid", "dpo-step-4-t1") == responses("final", "final-t1")
    assert responses("grid", "dpo-step-2-t1") != responses("grid", "dpo-step-4-t1")


def test_a_failed_cell_stops_no_other_and_is_tried_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, asked = grid.generate_for_study, []

    def faulty(*args: Any, **changed: Any) -> None:
        asked.append(changed["temperature"])
        if changed["temperature"] == 0.7 and len(asked) < 3:
            raise UserError("the model fell over\nin many lines")
        generate(*args, **changed)

    monkeypatch.setattr(grid, "generate_for_study", faulty)
    wanted = settings(run, tmp_path / "grid", models=(str(run),))
    with pytest.raises(UserError, match=r"1 of 2 cells failed(.|\n)*dpo-t0.7: the model fell over\n    in many lines$"):
        run_grid(wanted)
    assert [cell.temperature for cell in read_grid(tmp_path / "grid")] == [1.0]
    done = tmp_path / "grid" / "cells" / "dpo-t1" / "gold.json"
    before = done.stat().st_mtime_ns
    assert [cell.temperature for cell in run_grid(wanted).cells] == [0.7, 1.0]
    assert done.stat().st_mtime_ns == before


def test_bad_input_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def complaint(**changes: Any) -> str:
        with pytest.raises(UserError) as error:
            run_grid(settings(run, tmp_path / "grid", **changes))
        return str(error.value)

    assert "`preflab compare`" in complaint(models=("outputs.json",))
    assert "no checkpoint in it" in complaint(models=(str(tmp_path / "checkpoints"),))
    assert "found 'base'" in complaint(opponent="base")
    assert "two judges are called gold" in complaint(judge=("gold", "gold"))
    assert "OPENAI_API_KEY" in complaint(judge=("openai:gpt-4o",))
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        settings(run, tmp_path, temperatures=(-1,))
    assert not list(tmp_path.glob("grid/cells/*")), "no cell is made before judges and models are known to be there"
    assert "come without preferences" in complaint(prompts=("sandbox:prompts?rows=3",))
    with pytest.raises(UserError, match=r"no grid\.json"):
        read_grid(tmp_path)
