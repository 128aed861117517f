"""Two processes at one folder or file: the second is refused before it does anything, a killed one blocks nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_runs import COMMANDS, settings

from preflab.core.output import alone_with
from preflab.core.records import UserError
from preflab.core.rundir import open_stage
from preflab.sample.generate import generate_responses
from preflab.sample.score import score_responses
from preflab.sample.settings import GenerateSettings, ScoreSettings
from preflab.sandbox.command import write_sandbox
from preflab.sandbox.settings import SandboxSettings
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.grid.command import run_grid
from preflab.studies.grid.settings import GridSettings
from preflab.training.merge import merge_adapter
from preflab.training.settings import MergeSettings


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that is at work on this path."""
    lines = "import sys; from pathlib import Path; from preflab.core.output import alone_with\n"
    lines += f"with alone_with(Path({str(path)!r})): print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield other
        other.kill()


def commands(folder: Path) -> dict[str, tuple[Path, object, object]]:
    """Command -> the file that stands for its place, its recipe, and settings with which there would be an error."""
    nothing = str(folder / "nothing.jsonl")
    training = {
        f"train {kind}": (folder / "run" / "stage.json", COMMANDS[kind][1], settings(kind, "nobody", folder / "run"))
        for kind in ("sft", "reward", "dpo", "kto")
    }
    generate = GenerateSettings(model="nobody", prompts=(nothing,), output=folder / "r.jsonl")
    score = ScoreSettings(reward_model="nobody", data=(nothing,), output=folder / "s.jsonl")
    compare = CompareSettings(models=("a=nobody", "b=nobody"), out=folder / "study")
    grid = GridSettings(models=("a=nobody",), judge=("gold",), out=folder / "grid")
    merge = MergeSettings(adapter=folder / "adapter", output_dir=folder / "merged")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody"}')
    sandbox = SandboxSettings(output_dir=folder / "sandbox")
    return training | {
        "merge": (folder / "merged" / "stage.json", merge_adapter, merge),
        "sandbox": (folder / "sandbox" / "stage.json", write_sandbox, sandbox),
        "generate": (folder / "r.jsonl", generate_responses, generate),
        "score": (folder / "s.jsonl", score_responses, score),
        "compare": (folder / "study" / "study.json", compare_models, compare),
        "grid": (folder / "grid" / "grid.json", run_grid, grid),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train sft", "train reward", "train dpo", "train kto", "generate", "score", "compare", "merge", "sandbox"]
)
def test_the_second_of_two_is_refused(name: str, tmp_path: Path) -> None:
    place, recipe, given = commands(tmp_path)[name]
    with held(place), pytest.raises(UserError, match="another process is at work on this file"):
        recipe(given)  # type: ignore[operator]


@pytest.mark.slow
def test_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    with held(tmp_path / "x.jsonl") as other:
        other.kill()
        other.wait()
        with alone_with(tmp_path / "x.jsonl"):
            pass


def test_what_fails_before_it_writes_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError), alone_with(tmp_path / "a" / "b" / "stage.json"):
        raise UserError("a wrong setting")
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_the_lock_itself_is_no_foreign_file(tmp_path: Path) -> None:
    with alone_with(tmp_path / "run" / "stage.json"):
        assert open_stage(tmp_path / "run", {"a": 1}, overwrite=False) == "new"
        assert open_stage(tmp_path / "run", {"a": 2}, overwrite=True) == "new"
        with held(tmp_path / "other.json"), pytest.raises(UserError), alone_with(tmp_path / "other.json"):
            pass
    assert (tmp_path / "run" / "stage.lock").exists(), "which must not be removed while somebody may wait for it"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_in_a_folder_that_can_only_be_read_nothing_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    with alone_with(tmp_path / "x.jsonl"):
        assert not (tmp_path / "x.lock").exists()


def test_nothing_is_discarded_through_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    open_stage(real, {"a": 1}, overwrite=False)
    (real / "model").mkdir()
    (tmp_path / "link").symlink_to(real, target_is_directory=True)
    with pytest.raises(UserError, match=r"link: is a link to .*real, and what lies there is not discarded"):
        open_stage(tmp_path / "link", {"a": 2}, overwrite=True)
    assert (real / "model").is_dir()
    assert open_stage(tmp_path / "link", {"a": 1}, overwrite=False) == "resume", "it can be gone on with"
