"""Folders that are moved: unfinished ones go on, finished ones are accepted, under their new name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_runs import cut_off, run, write_model

from preflab.core.records import UserError
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.grid.command import run_grid
from preflab.studies.grid.settings import GridSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_model(root / "tiny")
    write_model(root / "other", seed=1)
    run("reward", root / "tiny", root / "rm", max_steps=1)
    return root


def test_a_training_goes_on_elsewhere(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(monkeypatch, "dpo", models / "tiny", tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    result = run("dpo", models / "tiny", tmp_path / "there")
    whole = run("dpo", models / "tiny", tmp_path / "whole")
    assert (result.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    again = run("dpo", models / "tiny", tmp_path / "elsewhere")
    assert again.model == tmp_path / "elsewhere" / "model"
    assert again.metrics == result.metrics


def study(models: Path, out: Path, kind: str, rows: int = 3) -> None:
    judges = {"judge": ("gold", f"reward:{models / 'rm' / 'model'}"), "max_new_tokens": 4}
    prompts = (f"sandbox:preferences?rows={rows}",)
    tiny, other = f"a={models / 'tiny'}", f"b={models / 'other'}"
    if kind == "compare":
        compare_models(CompareSettings(models=(tiny, other), prompts=prompts, out=out, **judges))
    else:
        run_grid(
            GridSettings(models=(tiny,), opponent="chosen", prompts=prompts, temperatures=(0.0,), out=out, **judges)
        )


@pytest.mark.parametrize("kind", ["compare", "grid"])
def test_a_study_is_accepted_under_another_name(
    kind: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(models, tmp_path / "here", kind)
    rows = {path.name: path.read_bytes() for path in (tmp_path / "here").rglob("responses/*.jsonl")}
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setattr("preflab.sample.generate._generate_rows", lambda *_: pytest.fail("generated again"))
    study(models, tmp_path / "there", kind)
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").rglob("responses/*.jsonl")} == rows


def test_what_moved_and_changed_is_still_refused(models: Path, tmp_path: Path) -> None:
    study(models, tmp_path / "here", "compare")
    shutil.move(tmp_path / "here", tmp_path / "there")
    with pytest.raises(UserError, match="was made from other inputs"):
        study(models, tmp_path / "there", "compare", rows=4)
    assert json.loads((tmp_path / "there" / "study.json").read_text())["models"]
