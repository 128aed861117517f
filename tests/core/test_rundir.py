"""A run's files: whole or not at all, readable after a kill, and refused to another run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest

from preflab.core import rundir
from preflab.core.records import UserError


@dataclass(frozen=True)
class Record:
    name: str
    folder: Path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# ---- files ----


@pytest.mark.parametrize("write", [rundir.write_json, lambda path, value: rundir.write_jsonl(path, [value, value])])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, write: object) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        write(path, {"a": {1, 2}})  # type: ignore[operator]
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.json"]


def test_a_reader_of_the_old_file_can_finish_and_the_new_one_is_on_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    on_disk: list[str] = []
    monkeypatch.setattr(rundir.os, "fsync", lambda _: on_disk.append(path.read_text()))
    with path.open() as reader:
        rundir.write_json(path, 1)
        assert reader.read() == "old"
    assert on_disk == ["old", "1\n"], "the file before it takes its place, the folder after"
    assert path.read_text() == "1\n"


def test_rows_that_fail_half_way_leave_the_old_file(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    rundir.write_jsonl(tmp_path / "rows.jsonl", [{"a": 0}])
    with pytest.raises(KeyboardInterrupt):
        rundir.write_jsonl(tmp_path / "rows.jsonl", rows())
    assert list(rundir.read_jsonl(tmp_path / "rows.jsonl")) == [{"a": 0}]
    assert names(tmp_path) == ["rows.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        rundir.append_jsonl(Path("/dev/full"), [{"a": 1}])
    assert caught.value.filename == "/dev/full"


def test_json_of_paths_records_arrays_and_numbers_that_json_lacks(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    value = {
        "record": Record("é", Path("a/b")),
        "mean": np.float32(0.5),
        "rows": np.arange(2),
        "nan": [float("nan"), 1],
    }
    rundir.write_json(tmp_path / "x.json", value)
    read = rundir.read_json(tmp_path / "x.json")
    assert read == {"record": {"name": "é", "folder": "a/b"}, "mean": 0.5, "rows": [0, 1], "nan": [None, 1]}


def test_reading_json_that_is_missing_or_broken_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.json: cannot be read: no such file"):
        rundir.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json: not valid JSON"):
        rundir.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_line_cut_short_is_left_out_and_the_next_rows_follow_whole_ones(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    rundir.append_jsonl(path, [{"step": 1}, {"step": 2}])
    path.write_bytes(path.read_bytes()[:-cut])
    kept = [{"step": 1}, {"step": 2}] if cut == 1 else [{"step": 1}]  # only the line break is gone: the row is whole
    assert list(rundir.read_jsonl(path)) == kept
    rundir.append_jsonl(path, [{"step": 3}])
    assert list(rundir.read_jsonl(path)) == [*kept, {"step": 3}]


def test_a_long_line_cut_short_is_removed_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rundir.append_jsonl(path, [{"text": "a" * 200_000}, {"text": "b" * 200_000}])
    path.write_bytes(path.read_bytes()[:-10])
    rundir.append_jsonl(path, [{"text": "c"}])
    assert [row["text"][0] for row in rundir.read_jsonl(path)] == ["a", "c"]


def test_a_broken_line_before_the_last_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n{"a": 2}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 3: not a JSON object: '\{\"a\":'"):
        list(rundir.read_jsonl(path))
    path.write_text("[1]\n")
    with pytest.raises(UserError, match="line 1: not a JSON object"):
        list(rundir.read_jsonl(path))


def test_rows_appended_before_a_kill_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    program = f"""
import itertools
from pathlib import Path
from preflab.core.rundir import append_jsonl
for step in itertools.count():
    append_jsonl(Path({str(path)!r}), [{{"step": step, "text": "x" * 5000}}])
    print(step, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split()]
    process.wait()
    steps = [row["step"] for row in rundir.read_jsonl(path)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= len(said)


# ---- the manifest ----


def manifest(folder: Path) -> dict[str, object]:
    rundir.write_manifest(
        folder,
        command="train dpo",
        settings={"beta": 0.1, "hub_token": "abc"},
        seed=3,
        data={"a.jsonl": "12ab"},
        rows=7,
    )
    read: dict[str, object] = rundir.read_json(folder / "manifest.json")
    return read


def test_the_manifest_says_how_to_make_the_run_again_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "from-the-environment")
    read = manifest(tmp_path)
    assert read["settings"] == {"beta": 0.1, "hub_token": "[redacted]"}
    assert (read["command"], read["seed"], read["data"], read["rows"]) == ("train dpo", 3, {"a.jsonl": "12ab"}, 7)
    versions = read["versions"]
    assert isinstance(versions, dict)
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "accelerate", "peft"} <= set(versions)
    assert "from-the-environment" not in json.dumps(read)


def test_a_resumed_run_keeps_its_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "utc_now", iter(["first", "second"]).__next__)
    manifest(tmp_path)
    assert manifest(tmp_path)["started"] == ["first", "second"]


def test_the_manifest_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert manifest(tmp_path / "runs")["git"] is None
    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-m", "x")
    assert manifest(tmp_path / "runs")["git"] == {"commit": git("rev-parse", "HEAD").strip(), "modified": False}
    (tmp_path / "code.py").write_text("2")
    assert manifest(tmp_path / "runs")["git"] == {"commit": git("rev-parse", "HEAD").strip(), "modified": True}


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    rundir.write_manifest(tmp_path, command="x", settings={}, seed=0, data={})
    assert rundir.open_stage(tmp_path, {"a": 1}, overwrite=False) == "new"
    assert names(tmp_path) == []


# ---- stages ----

INPUTS = {"settings": {"beta": 0.1, "model": Path("m"), "api_key": "k1"}, "data": ["ab", "cd"]}


def test_a_stage_is_new_then_resumed_then_done(tmp_path: Path) -> None:
    folder = tmp_path / "dpo"
    assert rundir.stage_state(folder) is None
    assert rundir.open_stage(folder, INPUTS, overwrite=False) == "new"
    assert rundir.open_stage(folder, INPUTS, overwrite=False) == "resume"
    rundir.finish_stage(folder)
    assert rundir.open_stage(folder, INPUTS, overwrite=False) == "done"
    stage = rundir.stage_state(folder)
    assert stage is not None
    assert (stage.status, stage.fingerprint) == ("done", rundir.fingerprint(stage.inputs))
    assert stage.finished is not None
    assert "k1" not in (folder / "stage.json").read_text()


def test_the_order_of_inputs_does_not_matter_and_nothing_else_is_overlooked() -> None:
    assert rundir.fingerprint({"a": 1, "b": [2]}) == rundir.fingerprint({"b": [2], "a": 1})
    distinct = [{"a": 1}, {"a": "1"}, {"a": True}, {"a": [1]}, {"a": None}, {}, {"b": 1}]
    assert len({rundir.fingerprint(value) for value in distinct}) == len(distinct)


@pytest.mark.parametrize("finished", [False, True])
def test_the_folder_of_another_run_is_refused_with_what_differs(tmp_path: Path, finished: bool) -> None:
    rundir.open_stage(tmp_path, INPUTS, overwrite=False)
    if finished:
        rundir.finish_stage(tmp_path)
    other = {"settings": {"beta": 0.2, "model": "m", "api_key": "k2"}, "data": ["ab"], "rows": 3}
    with pytest.raises(UserError) as caught:
        rundir.open_stage(tmp_path, other, overwrite=False)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: holds a run made from other inputs:",
        "  settings.beta: 0.1 there, 0.2 now",
        "  data: ['ab', 'cd'] there, ['ab'] now",
        "  rows: nothing there, 3 now",
        "choose another folder, restore these inputs, or overwrite that run",
    ]


def test_overwriting_removes_the_whole_earlier_run(tmp_path: Path) -> None:
    rundir.open_stage(tmp_path, INPUTS, overwrite=False)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_text("old")
    (tmp_path / "metrics.jsonl").write_text("old")
    rundir.finish_stage(tmp_path)
    assert rundir.open_stage(tmp_path, {"a": 1}, overwrite=True) == "new"
    assert names(tmp_path) == ["stage.json"]
    assert rundir.open_stage(tmp_path, {"a": 1}, overwrite=False) == "resume"


def test_overwriting_does_not_follow_links_out_of_the_folder(tmp_path: Path) -> None:
    kept = tmp_path / "data"
    kept.mkdir()
    (kept / "rows.jsonl").write_text("precious")
    rundir.open_stage(tmp_path / "run", INPUTS, overwrite=False)
    (tmp_path / "run" / "link").symlink_to(kept)
    rundir.open_stage(tmp_path / "run", INPUTS, overwrite=True)
    assert (kept / "rows.jsonl").read_text() == "precious"


def test_a_kill_while_overwriting_never_leaves_remains_that_pass_for_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rundir.open_stage(tmp_path, INPUTS, overwrite=False)
    (tmp_path / "checkpoint").mkdir()
    rundir.finish_stage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(rundir.shutil, "rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rundir.open_stage(tmp_path, {"a": 1}, overwrite=True)
    assert (tmp_path / "checkpoint").exists()
    assert rundir.open_stage(tmp_path, {"a": 1}, overwrite=False) == "new"
    assert names(tmp_path) == ["stage.json"]


def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds files but no run of preflab .* choose another folder"):
            rundir.open_stage(tmp_path, INPUTS, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_remains_of_a_kill_before_the_first_write_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".stage.json.123.tmp").write_text("{")
    assert rundir.open_stage(tmp_path, INPUTS, overwrite=False) == "new"


def test_a_stage_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text('{"acts": 3}')
    with pytest.raises(UserError, match=r"stage\.json: not a stage file"):
        rundir.open_stage(tmp_path, INPUTS, overwrite=False)


def test_json_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "LONGEST_JSON", 9)
    (tmp_path / "x.json").write_text('{"a": 12}')
    assert rundir.read_json(tmp_path / "x.json") == {"a": 12}
    (tmp_path / "x.json").write_text('{"a": 123}')
    with pytest.raises(UserError, match=r"x\.json: 10 bytes are more than any such file has"):
        rundir.read_json(tmp_path / "x.json")
