"""Checkpoints: no code of theirs is run, damage is noticed and passed over, and what was read is what was written."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import cut_off, run, write_model, zero_last_block

from preflab.core.records import UserError
from preflab.core.rundir import fingerprint
from preflab.training import checkpoint as checkpoint_module
from preflab.training import fit
from preflab.training import state as state_module

pytestmark = pytest.mark.slow


class Malicious:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a run that ended before its model was written, and one that was never stopped."""
    root = tmp_path_factory.mktemp("checkpoints")
    tiny = write_model(root / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        cut_off(patch, "dpo", tiny, root / "run")
    run("dpo", tiny, root / "whole")
    return root


@pytest.fixture
def unfinished(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped / "run", tmp_path / "run")
    return tmp_path / "run"


def go_on(stopped: Path, folder: Path) -> bytes:
    return (run("dpo", stopped / "tiny", folder).model / "model.safetensors").read_bytes()


def whole(stopped: Path) -> bytes:
    return (stopped / "whole" / "model" / "model.safetensors").read_bytes()


def steps(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))


def edit(checkpoint: Path, **changes: Any) -> None:
    """Change what `state.json` says, as somebody would who also knows how to make its digest."""
    path = checkpoint / "state.json"
    state = json.loads(path.read_text())
    for place, value in changes.items():
        part, _, name = place.partition("__")
        if name:
            state[part][name] = value
        else:
            state[part] = value
    state.pop("digest")
    path.write_text(json.dumps({**state, "digest": fingerprint(state)}))


FILES = ("model.safetensors", "optimizer.safetensors", "schedule.json", "random_states_0.json", "state.json")


def test_a_checkpoint_is_made_of_files_that_hold_numbers_only(stopped: Path) -> None:
    for checkpoint in steps(stopped / "run"):
        assert {path.name for path in checkpoint.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", [*FILES, "custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl"])
def test_no_file_of_a_checkpoint_runs_code(name: str, stopped: Path, unfinished: Path, tmp_path: Path) -> None:
    trap = pickle.dumps(Malicious(tmp_path / "ran"))
    for checkpoint in steps(unfinished):
        (checkpoint / name).write_bytes(trap)
        if name not in ("state.json", "custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl"):
            edit(checkpoint, files={**json.loads((checkpoint / "state.json").read_text())["files"], name: sha(trap)})
    if name in FILES:
        with pytest.raises(UserError, match=name.replace(".", r"\.") + r"|cannot be read"):
            go_on(stopped, unfinished)
    else:
        assert go_on(stopped, unfinished) == whole(stopped), "what nobody wrote is not looked at"
    assert not (tmp_path / "ran").exists()


def sha(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("how", ["zeroed", "gone", "cut"])
@pytest.mark.parametrize("name", FILES[:-1])
def test_a_damaged_checkpoint_is_passed_over(
    name: str, how: str, stopped: Path, unfinished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    newest = steps(unfinished)[-1]
    path = newest / name
    if how == "zeroed":
        zero_last_block(path)
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    assert go_on(stopped, unfinished) == whole(stopped)
    said = " ".join(capfd.readouterr().err.split())
    assert f"{newest.name}/{name}: is" in said.replace("/ ", "/")
    assert "goes on from the checkpoint before it, step-00000002" in said


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"progress__step": 2}, "does not describe"),
        ({"progress__step": "4"}, "does not describe"),
        ({"progress__tokens": -1}, "does not describe"),
        ({"progress__best_value": [1]}, "does not describe"),
        ({"progress__mood": 1}, "does not describe"),
        ({"progress": None}, "does not describe"),
        ({"plan": 3}, "does not describe"),
        ({"files": None}, "does not describe"),
        ({"format": 3}, "has format 3"),
    ],
)
def test_a_state_of_the_wrong_kind_is_passed_over(
    changes: dict[str, Any], what: str, stopped: Path, unfinished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(steps(unfinished)[-1], **changes)
    assert go_on(stopped, unfinished) == whole(stopped)
    assert what in " ".join(capfd.readouterr().err.split())


def test_a_hand_in_the_state_without_its_digest_is_noticed(
    stopped: Path, unfinished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = steps(unfinished)[-1] / "state.json"
    path.write_text(path.read_text().replace('"tokens": ', '"tokens": 1'))
    assert go_on(stopped, unfinished) == whole(stopped)
    assert "its digest is another one" in " ".join(capfd.readouterr().err.split())


def test_where_no_checkpoint_is_left_nothing_is_guessed(stopped: Path, unfinished: Path) -> None:
    for checkpoint in steps(unfinished):
        zero_last_block(checkpoint / "model.safetensors")
    with pytest.raises(UserError, match=r"step-00000004/model.safetensors: is not as it was.*remove .*checkpoints to"):
        go_on(stopped, unfinished)


def test_an_older_preflabs_checkpoint_says_what_to_do(stopped: Path, unfinished: Path) -> None:
    for checkpoint in steps(unfinished):
        state = json.loads((checkpoint / "state.json").read_text())
        (checkpoint / "state.json").write_text(json.dumps({name: state[name] for name in ("progress", "plan")}))
    with pytest.raises(UserError, match=r"was written by preflab 0\.1, whose checkpoints hold pickles"):
        go_on(stopped, unfinished)


def test_weights_of_another_shape_are_refused(stopped: Path, unfinished: Path) -> None:
    from safetensors.torch import load_file, save_file

    for checkpoint in steps(unfinished):
        path = checkpoint / "model.safetensors"
        tensors = load_file(path)
        name = max(tensors)
        save_file({**tensors, name: tensors[name][:1].clone()}, path)
        edit(
            checkpoint,
            files={**json.loads((checkpoint / "state.json").read_text())["files"], path.name: sha(path.read_bytes())},
        )
    with pytest.raises(UserError, match=r"cannot be read: .*model\.safetensors: .*in the model"):
        go_on(stopped, unfinished)


@pytest.mark.parametrize("what", ["threads", "kernels", "torch"])
def test_another_machine_is_told(what: str, stopped: Path, unfinished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for checkpoint in steps(unfinished):
        edit(checkpoint, **{f"machine__{what}": "other"})
    assert go_on(stopped, unfinished) == whole(stopped)
    said = " ".join(capfd.readouterr().err.split())
    assert f"{what}: other there" in said
    assert "can differ in their last digits" in said


def test_random_states_are_put_back_as_they_were() -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    np.random.standard_normal()
    random.gauss(0, 1)
    kept = json.loads(json.dumps(state_module._random_states(torch.device("cpu"))))
    expected = [random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.random(), torch.rand(3)]
    torch.rand(7), np.random.random(7), random.random()
    state_module._set_random_states(state_module._parsed_states(kept), torch.device("cpu"))
    found = [random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.random(), torch.rand(3)]
    assert found[:4] == expected[:4]
    assert torch.equal(found[4], expected[4])  # type: ignore[arg-type]


def test_a_signature_is_of_this_users_key_and_of_what_is_said(own_cache: Path) -> None:
    said = {"files": {"a": "1"}, "format": 2}
    first = checkpoint_module._signature(said)
    assert checkpoint_module._signature(dict(reversed(said.items()))) == first
    assert checkpoint_module._signature({**said, "files": {"a": "2"}}) != first
    assert (own_cache / "checkpoints.key").stat().st_mode & 0o077 == 0
    (own_cache / "checkpoints.key").unlink()
    assert checkpoint_module._signature(said) != first


def test_the_best_checkpoint_is_kept_only_where_it_is_as_it_was_written(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = fit._Course.end

    def after_damage(course: Any) -> None:
        zero_last_block(course.checkpoints.of_step(course.progress.best_step) / "model.safetensors")
        end(course)

    monkeypatch.setattr(fit._Course, "end", after_damage)
    with pytest.raises(UserError, match=r"model\.safetensors: is not as it was written"):
        run("dpo", stopped / "tiny", tmp_path / "run", load_best_model_at_end=True)
