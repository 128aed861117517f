"""Pushing to the hub: the token from the environment alone, and a run that is finished stays finished."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_runs

from preflab.recipes import push as push_module
from preflab.recipes.push import commit_message, push
from preflab.records import UserError
from preflab.rundir import read_json

REPOSITORY = "someone/aligned"
SECRET = "hf_" + "a" * 30


class FakeHub:
    """Stands in for HfApi and remembers what it was told."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.uploads: list[dict[str, Any]] = []
        self.failure: Exception | None = None

    def __call__(self, *, token: str) -> FakeHub:
        self.tokens.append(token)
        return self

    def create_repo(self, repository: str, **options: Any) -> None:
        self.made.append((repository, options))

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        if self.failure:
            raise self.failure
        files = sorted(path.name for path in Path(options["folder_path"]).iterdir())
        self.uploads.append({**options, "files": files})
        return SimpleNamespace(oid="abc123")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(push_module, "HfApi", fake)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return fake


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.write_model(tmp_path_factory.mktemp("model"))


def run(model: Path, folder: Path, **changes: Any) -> Any:
    return tiny_runs.run("sft", model, folder, max_steps=2, save_strategy="no", push_to_hub=REPOSITORY, **changes)


def test_a_finished_model_is_pushed_with_its_metrics_once(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    result = run(model, tmp_path / "run")
    (upload,) = hub.uploads
    assert (upload["repo_id"], upload["folder_path"]) == (REPOSITORY, result.model)
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= set(upload["files"])
    assert upload["commit_message"] == f"preflab, step 2: eval_loss {result.metrics['eval_loss']:.4g}"
    assert hub.made == [(REPOSITORY, {"private": True, "exist_ok": True})]
    assert hub.tokens == [SECRET]
    assert read_json(tmp_path / "run" / "pushed.json")["commit"] == "abc123"
    run(model, tmp_path / "run")
    assert len(hub.uploads) == 1


def test_a_failed_push_loses_nothing_and_is_tried_again(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    hub.failure = ConnectionError("the hub is away")
    with pytest.raises(
        UserError, match=r"the run is finished .*could not be pushed to someone/aligned: the hub is away"
    ):
        run(model, tmp_path / "run")
    assert read_json(tmp_path / "run" / "stage.json")["status"] == "done"
    weights = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    hub.failure = None
    run(model, tmp_path / "run")
    assert len(hub.uploads) == 1
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == weights


def test_without_a_token_nothing_is_begun(
    hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        run(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert hub.tokens == []


def test_a_wrong_repository_name_is_found_before_training(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="named owner/name"):
        tiny_runs.run("sft", model, tmp_path / "run", push_to_hub="https://hub/x/y")
    assert not (tmp_path / "run").exists()
    assert hub.made == []


def test_the_token_is_in_no_file(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "run")
    assert hub.uploads
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_another_repository_is_another_push(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for repository in ("a/b", "a/b", "a/c"):
        push(tmp_path, tmp_path / "model", {"step": 3, "loss": 0.5}, repository)
    assert [upload["repo_id"] for upload in hub.uploads] == ["a/b", "a/c"]


def test_the_commit_message_shows_held_out_figures_where_there_are_any() -> None:
    metrics = {"step": 120, "epoch": 1.0, "loss": 0.51234, "eval_loss": 0.6, "eval_rewards/accuracies": 0.71239}
    assert commit_message(metrics) == "preflab, step 120: eval_loss 0.6, eval_rewards/accuracies 0.7124"
    assert commit_message({"step": 5, "epoch": 1.0, "loss": 0.25}) == "preflab, step 5: loss 0.25"
