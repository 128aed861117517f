"""Pushing to the hub: the token from the environment alone, and a run that is finished stays finished."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_runs

from preflab.core.records import UserError
from preflab.core.rundir import read_json
from preflab.training import push as push_module
from preflab.training.push import commit_message, push

pytestmark = pytest.mark.slow

REPOSITORY = "someone/aligned"
SECRET = "hf_" + "a" * 30


class FakeHub:
    """Stands in for HfApi and remembers what it was told."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.uploads: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.failures: list[Exception] = []  # of the first pushes

    def __call__(self, *, token: str) -> FakeHub:
        self.tokens.append(token)
        return self

    def create_repo(self, repository: str, **options: Any) -> None:
        self.made.append((repository, options))

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        if self.failure:
            raise self.failure
        if self.failures:
            raise self.failures.pop(0)
        folder = Path(options["folder_path"])
        files = sorted(path.name for path in folder.iterdir())
        digest = hashlib.sha256(read_bytes(folder)).hexdigest() if "model.safetensors" in files else ""
        self.uploads.append({**options, "files": files, "digest": digest})
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


@pytest.mark.parametrize("changes", [{}, {"lora": True, "lora_dropout": 0.5}])
def test_every_evaluation_is_pushed_and_changes_nothing(
    changes: dict[str, Any], hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    given = {"max_steps": 4, "eval_steps": 1, "save_strategy": "no", **changes}
    alone = tiny_runs.run("sft", model, tmp_path / "alone", **given)
    given |= {"push_to_hub": REPOSITORY, "hub_strategy": "every_evaluation"}
    pushed = tiny_runs.run("sft", model, tmp_path / "pushed", **given)
    assert [upload["commit_message"].split(":")[0] for upload in hub.uploads] == [
        *(f"preflab, step {step}" for step in (1, 2, 3, 4))
    ]
    assert len({upload["digest"] for upload in hub.uploads}) == 4, "each is the model of its step"
    assert all("eval_loss" in upload["commit_message"] for upload in hub.uploads)
    assert all({"config.json", "tokenizer.json"} <= set(upload["files"]) for upload in hub.uploads)
    assert read_bytes(pushed.model) == read_bytes(alone.model)
    assert not (tmp_path / "pushed" / "pushing").exists()


def test_a_push_that_fails_at_an_evaluation_ends_nothing(
    hub: FakeHub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failures = [ConnectionError("the hub is away")]
    result = run(model, tmp_path / "run", eval_steps=1, hub_strategy="every_evaluation")
    assert "warning: step 1: it could not be pushed to someone/aligned: the hub is away" in capsys.readouterr().err
    assert [upload["folder_path"] for upload in hub.uploads] == [result.model]


def test_pushing_at_evaluations_needs_a_repository_and_evaluations(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hub_strategy every_evaluation needs push_to_hub"):
        tiny_runs.run("sft", model, tmp_path / "run", hub_strategy="every_evaluation")
    with pytest.raises(ValueError, match="an eval_strategy other than no"):
        run(model, tmp_path / "run", hub_strategy="every_evaluation", eval_strategy="no")


def read_bytes(model: Path) -> bytes:
    return (model / "model.safetensors").read_bytes()
