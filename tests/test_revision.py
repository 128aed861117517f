"""A revision of a hub's model: its tokenizer, configuration and weights, all of that revision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch

from preflab.model.load import load_model
from preflab.recipes.data import load_template
from preflab.recipes.model import load_trainable
from preflab.records import UserError

NAME = "someone/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two revisions of a model, as a download leaves them; `old` stops at id 7 besides."""
    repo = tmp_path / "hub" / "models--someone--tiny"
    for seed, (name, commit) in enumerate({"main": "a" * 40, "old": "b" * 40}.items()):
        tiny_runs.write_model(repo / "snapshots" / commit, seed=seed)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / name).write_text(commit)
    (repo / "snapshots" / ("b" * 40) / "generation_config.json").write_text(json.dumps({"eos_token_id": [7]}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repo


def embeddings(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.get_input_embeddings().weight
    return weight


def test_all_of_a_model_is_of_the_revision(hub: Path, tmp_path: Path) -> None:
    found = {}
    for revision, commit in ((None, "a"), ("old", "b"), ("b" * 40, "b")):
        settings = tiny_runs.settings("sft", NAME, tmp_path / "run", revision=revision)
        template = load_template(settings)
        model = load_trainable(settings, "policy", template, torch.device("cpu"))
        own = load_model(str(hub / "snapshots" / (commit * 40)), "policy", dtype=torch.float32)
        assert torch.equal(embeddings(model), embeddings(own))
        assert (7 in template.stop_ids) == (commit == "b")
        found[revision] = embeddings(model)
    assert not torch.equal(found[None], found["old"])


def test_an_adapter_keeps_the_revision_of_its_base(hub: Path, tmp_path: Path) -> None:
    changes = {**tiny_runs.LORA, "max_steps": 1, "eval_data": (), "learning_rate": 1e-9, "revision": "old"}
    tiny_runs.run("sft", NAME, tmp_path / "run", **changes)
    adapter = tmp_path / "run" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["revision"] == "old"
    own = load_model(str(hub / "snapshots" / ("b" * 40)), "policy", dtype=torch.float32)
    assert torch.equal(embeddings(load_model(str(adapter), "policy", dtype=torch.float32)), embeddings(own))


def test_a_local_path_has_no_revision_and_an_unknown_one_is_named(hub: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(hub / "snapshots" / ("a" * 40), tmp_path / "local")
    with pytest.raises(UserError, match=r"revision old: .*local is a local path"):
        load_template(tiny_runs.settings("sft", folder, tmp_path / "run", revision="old"))
    with pytest.raises(UserError, match="someone/tiny"):
        load_template(tiny_runs.settings("sft", NAME, tmp_path / "run", revision="nowhere"))
