"""JSON files beside what commands are given that hold something else than they should: one message, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from preflab.core.records import UserError
from preflab.judging.command import _keep_what_a_person_judged
from preflab.judging.verdicts import read_verdicts
from preflab.model.configs import own_stop_ids, read_config
from preflab.model.load import load_model
from preflab.sample.score import load_scores
from preflab.studies.compare.rows import read_study
from preflab.studies.grid.command import _steps
from preflab.training.as_run import model_of, overlap_of

MODELS = [{"name": "a", "source": "x"}, {"name": "b", "source": "x"}]
STUDY = {"title": "t", "models": MODELS, "judges": []}


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n")
    return path


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({**STUDY, "models": [{"name": ["a"], "source": "x"}, MODELS[1]]}, "plain names that differ"),
        ({**STUDY, "judges": [{"name": {}, "kind": "gold", "source": "gold"}]}, "plain names that differ"),
        ({**STUDY, "judges": [{"name": "g", "kind": [], "source": "gold"}]}, "judges of the kinds"),
        ({**STUDY, "models": 3}, "not a study that this version wrote"),
    ],
)
def test_a_study(head: object, message: str, tmp_path: Path) -> None:
    write(tmp_path / "study.json", head)
    with pytest.raises(UserError, match=rf"study\.json: .*{message}"):
        read_study(tmp_path)


@pytest.mark.parametrize("found", [[], {}, {"model": 3}, {"model": ["m"]}])
def test_the_result_of_a_run(found: object, tmp_path: Path) -> None:
    write(tmp_path / "result.json", found)
    with pytest.raises(UserError, match=r"result\.json: (does not say which `model`|an object)"):
        model_of(str(tmp_path))


@pytest.mark.parametrize("found", [[], {"step": "7"}, {}])
def test_the_result_of_a_run_beside_checkpoints(found: object, tmp_path: Path) -> None:
    write(tmp_path / "result.json", found)
    with pytest.raises(UserError, match=r"result\.json: (does not say which `step`|an object)"):
        _steps(tmp_path / "checkpoints")


@pytest.mark.parametrize("found", [[1], "x", None])
def test_an_overlap_that_is_none(found: object, tmp_path: Path) -> None:
    write(tmp_path / "result.json", {"model": "m", "overlap": found})
    assert overlap_of(tmp_path) == {}
    assert model_of(str(tmp_path)) == str(tmp_path / "m")


def test_the_manifest_of_an_unfinished_verdict_file(tmp_path: Path) -> None:
    path = write(tmp_path / "v.unfinished.jsonl", {"sample_id": "1/0", "verdict": "model"})
    for data in (3, [1], "x"):
        write(tmp_path / "v.manifest.json", {"data": data})
        assert read_verdicts(path).metadata == {}
    write(tmp_path / "v.manifest.json", [])
    with pytest.raises(UserError, match=r"v\.manifest\.json: an object with named fields is needed; found \[\]"):
        read_verdicts(path)


@pytest.mark.parametrize("manifest", [[], {}, {"data": []}, {"data": "x"}])
def test_verdicts_are_kept_where_the_manifest_does_not_tell_whether_a_person_judged(
    manifest: object, tmp_path: Path
) -> None:
    write(tmp_path / "v.manifest.json", manifest)
    output = write(tmp_path / "v.json", {"results": []})
    _keep_what_a_person_judged(output)
    assert not output.exists()
    assert len([path for path in tmp_path.glob("v.*.json") if json.loads(path.read_text()) == {"results": []}]) == 1


SCORED = {
    "row": 1,
    "sample": 0,
    "prompt": [{"role": "user", "content": "Hi"}],
    "response": "a",
    "score": 1.5,
    "meta": {},
}


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ([], "an object with named fields is needed"),
        ({"precision": [], "dropped": {}}, "`precision` is"),
        ({}, "`dropped` must say"),
        ({"dropped": []}, "`dropped` must say"),
        ({"dropped": {"too long": 3}}, "`dropped` must say"),
        ({"dropped": {}, "rows": "x"}, "rows does not follow"),
    ],
)
def test_the_summary_of_scores(summary: object, message: str, tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl", SCORED)
    write(tmp_path / "s.summary.json", summary)
    with pytest.raises(UserError, match=rf"s\.summary\.json: {message}"):
        load_scores(tmp_path / "s.jsonl")


def test_samples_of_scores_come_from_the_rows(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({**SCORED, "score": at}) + "\n" for at in (1.5, -2.0)))
    write(tmp_path / "s.summary.json", {"dropped": {}, "samples": {"highest": {}}, "sources": []})
    found = load_scores(tmp_path / "s.jsonl")
    assert found.summary["samples"]["highest"]["score"] == 1.5
    assert "lowest reward -2, row 1" in str(found)


@pytest.mark.parametrize(
    "read",
    [read_config, own_stop_ids, lambda name: load_model(name, "policy", dtype=torch.float32)],
    ids=["config", "stops", "load"],
)
@pytest.mark.parametrize("base", ["itself", "other"])
def test_an_adapter_on_an_adapter(read: Callable[[str], object], base: str, tmp_path: Path) -> None:
    about = {"peft_type": "LORA", "task_type": "CAUSAL_LM"}
    bases = {"itself": tmp_path / "itself", "other": tmp_path / "itself"}
    for name, place in bases.items():
        write(tmp_path / name / "adapter_config.json", {**about, "base_model_name_or_path": str(place)})
    with pytest.raises(UserError, match="is an adapter itself; merge that one first"):
        read(str(tmp_path / base))
