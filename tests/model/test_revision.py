"""A revision of a hub's model: its tokenizer, configuration and weights, all of that revision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from no_pictures import draw_nothing

from preflab.core.records import UserError
from preflab.core.rundir import read_json, read_jsonl
from preflab.data.splits import load_template
from preflab.model.configs import own_stop_ids, read_config
from preflab.model.files import at_revision, commit_of, split_revision
from preflab.model.load import load_model
from preflab.sample.generate import generate_responses
from preflab.sample.settings import GenerateSettings
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.frontier.command import measure_frontier
from preflab.studies.frontier.settings import FrontierSettings
from preflab.training.model import load_trainable

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


@pytest.mark.slow
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


# ---- commands that name several models: ID@REVISION ------------------------------------------------------------------


def test_a_revision_may_be_part_of_the_name(hub: Path, tmp_path: Path) -> None:
    old = f"{NAME}@old"
    assert split_revision(old) == (NAME, "old")
    assert split_revision("gpt2@refs/pr/3") == ("gpt2", "refs/pr/3")
    (tmp_path / "a@b").mkdir()
    assert split_revision(str(tmp_path / "a@b")) == (str(tmp_path / "a@b"), None)
    assert at_revision(NAME, "old") == old
    assert at_revision(str(tmp_path), "old") == str(tmp_path)
    own = load_model(str(hub / "snapshots" / ("b" * 40)), "policy", dtype=torch.float32)
    assert torch.equal(embeddings(load_model(old, "policy", dtype=torch.float32)), embeddings(own))
    assert 7 in own_stop_ids(old)
    assert 7 not in own_stop_ids(NAME)
    assert read_config(old).model_type == read_config(NAME).model_type
    assert (commit_of(old), commit_of(NAME)) == ("b" * 40, "a" * 40)
    assert commit_of(NAME, "nowhere") is None
    with pytest.raises(UserError, match=r"revision main: the model is named as someone/tiny@old"):
        load_model(old, "policy", dtype=torch.float32, revision="main")
    with pytest.raises(UserError, match="someone/tiny@nowhere"):
        load_model(f"{NAME}@nowhere", "policy", dtype=torch.float32)


def responses(path: Path) -> list[str]:
    return [row["response"] for row in read_jsonl(path)]


@pytest.mark.slow
@pytest.mark.usefixtures("hub")
def test_compare_and_frontier_hold_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = "sandbox:preferences?rows=4&split=test&seed=3"
    common: dict[str, Any] = {"prompts": (prompts,), "max_new_tokens": 5, "dtype": "float32"}
    generate_responses(GenerateSettings(model=NAME, revision="old", output=tmp_path / "old.jsonl", seed=42, **common))
    draw_nothing(monkeypatch)
    compare_models(CompareSettings(models=(NAME, f"{NAME}@old"), judge=("gold",), out=tmp_path / "c", **common))
    there = tmp_path / "c" / "responses"
    assert responses(there / "tiny-old.jsonl") == responses(tmp_path / "old.jsonl") != responses(there / "tiny.jsonl")
    runs = {name: origin["runs"] for name, origin in read_json(tmp_path / "c" / "as_run.json")["models"].items()}
    assert runs["tiny-old"][0]["told"]["model"]["commit"] == "b" * 40
    tiny_runs.run("reward", NAME, tmp_path / "rm", revision="old", max_steps=1)
    told = read_json(tmp_path / "rm" / "result.json")["as_run"]["model"]
    assert (told["from"], told["revision"], told["commit"]) == (NAME, "old", "b" * 40)
    settings: dict[str, Any] = {"models": (f"old={NAME}@old",), "reward_model": str(tmp_path / "rm"), "best_of_n": (2,)}
    kl = {}
    for reference in (NAME, f"{NAME}@old"):
        out = tmp_path / f"frontier-{len(kl)}"
        measure_frontier(FrontierSettings(**settings, reference=reference, out=out, **common))
        kl[reference] = max(abs(row["kl"]) for row in read_jsonl(out / "responses" / "old.jsonl"))
    assert kl[f"{NAME}@old"] < 1e-6 < kl[NAME], "of itself it has no KL"
