"""A checkpoint's folder can be used wherever a model can."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from safetensors.torch import load_file, save_file

from preflab.core.records import UserError
from preflab.model.load import load_model
from preflab.model.snapshots import final_model, put_weights, snapshots_of, step_of
from preflab.model.tokenizers import load_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["full", "lora"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny_runs.write_model(folder / "base")
    changes: dict[str, Any] = {"lora": True, "lora_dropout": 0.0} if request.param == "lora" else {}
    tiny_runs.run("dpo", model, folder / "dpo", max_steps=4, save_steps=2, **changes)
    return folder / "dpo"


def weights(name: str | Path) -> dict[str, torch.Tensor]:
    return load_model(str(name), "policy", dtype=torch.float32).state_dict()


def test_a_checkpoint_gives_the_weights_of_its_step(run: Path) -> None:
    (checkpoint,) = snapshots_of(run / "checkpoints")  # of the last step, the run has the model itself
    assert step_of(str(checkpoint)) == 2
    final = weights(final_model(str(checkpoint)) or "")
    trained = load_file(checkpoint / "model.safetensors")
    loaded = weights(checkpoint)
    assert trained
    assert all(torch.equal(loaded[name.removeprefix("model.")], tensor) for name, tensor in trained.items())
    assert any(not torch.equal(tensor, final[name]) for name, tensor in loaded.items())
    assert load_tokenizer(str(checkpoint)).get_vocab() == load_tokenizer(final_model(str(checkpoint)) or "").get_vocab()


def test_other_names_are_left_alone(tmp_path: Path) -> None:
    assert final_model("gpt2") is None
    assert final_model(str(tmp_path)) is None
    assert step_of("runs/dpo/model") is None


def test_a_run_that_has_not_ended_is_named(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match="has not ended"):
        load_tokenizer(str(tmp_path / "checkpoints" / "step-00000002"))


def test_weights_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "step-00000002").mkdir()
    stored = load_file(snapshots_of(run / "checkpoints")[0] / "model.safetensors")
    strange = {f"{name}.strange": tensor.clone() for name, tensor in stored.items()}
    save_file(strange, tmp_path / "step-00000002" / "model.safetensors")
    model = load_model(str(run / ("adapter" if (run / "adapter").exists() else "model")), "policy", dtype=torch.float32)
    with pytest.raises(UserError, match="is not of this model"):
        put_weights(model, str(tmp_path / "step-00000002"))
    some = dict(list(stored.items())[:-1])
    save_file(some, tmp_path / "step-00000002" / "model.safetensors")
    with pytest.raises(UserError, match="is not of this model; it lacks"):
        put_weights(model, str(tmp_path / "step-00000002"))
    (tmp_path / "step-00000002" / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(UserError, match="cannot be read"):
        put_weights(model, str(tmp_path / "step-00000002"))
