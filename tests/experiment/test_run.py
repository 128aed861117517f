"""`preflab run`: every stage once, again when what it is made from changes, and nothing lost on the way."""

from __future__ import annotations

import os
from pathlib import Path

import fake_stages
import pytest
from fake_stages import CALLS, CHAIN, FAILING, refused, start, statuses, write

from preflab.cli import main
from preflab.core.rundir import read_json
from preflab.experiment.outlook import Outlook

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_stages.install(monkeypatch, tmp_path)
    write()


ALL = ["first", "second", "gather", "apart", "report"]


# ---- once ----------------------------------------------------------------------------------------------------------


def test_every_stage_runs_once_and_is_told_of() -> None:
    result = start()
    assert CALLS == ALL
    assert str(result) == "4 stages: 4 done now, 0 before\nreport: out/report.html"
    told = read_json(Path("out/experiment.json"))
    assert (told["name"], told["title"], told["description"]) == ("out", "A chain", "")
    first, second = told["stages"][:2]
    assert second["seconds"] >= 0
    assert {**first, "seconds": 0} == {
        "name": "first",
        "group": "first",
        "command": "make",
        "folder": "first",
        "variant": {},
        "after": [],
        "status": "done",
        "seconds": 0,
        "reason": None,
    }
    assert read_json(Path("out/second/model"))["source"] == "out/first/model"
    manifest = read_json(Path("out/manifest.json"))
    assert (manifest["command"], manifest["seed"]) == ("run", 3)


def test_a_finished_experiment_does_nothing() -> None:
    start()
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.suffix != ".lock"}
    assert str(start()).startswith("4 stages: 0 done now, 4 before")
    assert CALLS == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_report_that_was_not_written_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    with monkeypatch.context() as patch:
        patch.setattr("preflab.experiment.report.report_experiment", lambda _: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            start("second.batch_size=2")
    start("second.batch_size=2")
    assert CALLS == ["report"]
    start("second.batch_size=2", "title=Another")
    assert CALLS == ["report"]
    assert read_json(Path("out/report.html"))["title"] == "Another"


def test_a_new_stage_runs_alone() -> None:
    start()
    write(CHAIN + "  more: {run: make, source: x}\n")
    start()
    assert CALLS == ["more", "report"]
    assert statuses() == {**dict.fromkeys(ALL[:4], "skipped"), "more": "done"}


def test_what_was_run_can_be_run_again_from_what_is_kept() -> None:
    start("second.beta=0.7", "output_dir=there")
    Path("there/experiment.yaml").rename("experiment.yaml")
    start()
    assert CALLS == []


def test_a_product_that_is_gone_is_made_again() -> None:
    start()
    Path("out/first/model").unlink()
    start()
    assert CALLS == ["first", "report"]


# ---- changed -------------------------------------------------------------------------------------------------------


def test_what_has_changed_is_named_before_anything_runs() -> None:
    start()
    message = refused("second.beta=0.5", "apart.source=there")
    assert CALLS == []
    assert "out: 3 stages were made from other inputs" in message
    assert "  second: settings.beta: 0.2 there, 0.5 now" in message
    assert "  apart: settings.source: elsewhere there, there now" in message
    assert "\n  and gather, which follows\nnothing was run." in message
    assert "--overwrite" in message
    assert read_json(Path("out/second/model"))["beta"] == 0.2


def test_overwriting_discards_what_has_changed_and_what_follows_it_and_nothing_else() -> None:
    start()
    Path("out/second/left").touch()
    Path("out/first/left").touch()
    start("second.beta=0.5", overwrite=True)
    assert CALLS == ["second", "gather", "report"]
    assert not Path("out/second/left").exists()
    assert Path("out/first/left").exists()
    assert read_json(Path("out/second/model"))["beta"] == 0.5
    assert [path.name for path in Path("out").iterdir() if path.name.startswith(".")] == []
    start("second.beta=0.5")
    assert CALLS == []


def test_settings_that_change_nothing_do_not_discard() -> None:
    start()
    start("second.batch_size=2")
    assert CALLS == ["second", "report"]  # it finds its work done, and what follows it stays
    start("second.batch_size=2")
    assert CALLS == []


def test_settings_that_add_to_a_stage_let_it_go_on() -> None:
    start()
    Path("out/gather/left").touch()
    start("gather.title=Another")
    assert CALLS == ["gather", "report"]
    assert Path("out/gather/left").exists()
    assert "gather: settings.judge: None there, me now" in refused("gather.judge=me")
    start("gather.title=A third", "apart.beta=0.3", overwrite=True)
    assert CALLS == ["gather", "apart", "report"]
    assert Path("out/gather/left").exists()


@pytest.mark.parametrize(
    "written",
    [
        *(
            "{}",
            "name={}",
            "hf:{}",
            "name=reward:{}",
            "{}[:-3]",
            "{}[:-3][:1]",
            "{}:function",
            "reward:{}:function",
            "'{}:'",
        ),
        *("psipo?psi={}:f&weight=0.2", "psipo?weight=0.2&psi={}", "name=psipo?psi={}"),
    ],
)
def test_a_local_file_is_known_by_its_content(written: str) -> None:
    Path("in.txt").write_text("one")
    name = "apart.source=" + written.format("in.txt")
    start(name)
    os.utime("in.txt", ns=(1, 1))
    start(name)
    assert CALLS == []
    Path("in.txt").write_text("two")
    assert "apart: files.in.txt: " in refused(name)


def test_a_local_folder_is_known_by_what_lies_in_it() -> None:
    Path("model/deep").mkdir(parents=True)
    Path("model/deep/weights").write_text("one")
    start("start=model")
    Path("model/.hidden").touch()
    start("start=model")
    assert CALLS == []
    Path("model/deep/weights").write_text("two")
    assert "first: files.model: " in refused("start=model")


def test_a_large_file_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflab.experiment.inputs._READ_ANEW", 2)
    Path("in.txt").write_text("one")
    start("apart.source=in.txt", "start=in.txt")
    monkeypatch.setattr("preflab.experiment.inputs.digest_file", lambda path: pytest.fail(f"{path} is read again"))
    start("apart.source=in.txt", "start=in.txt")


def test_what_a_person_has_judged_outlives_overwriting() -> None:
    start()
    Path("out/gather/deep").mkdir()
    Path("out/gather/deep/human.manifest.json").write_text('{"data": {"judge": "human"}}')
    start("gather.judge=me", overwrite=True)
    (kept,) = Path("out").glob("gather.*")
    assert (kept / "deep" / "human.manifest.json").exists()


# ---- stopped, failed -----------------------------------------------------------------------------------------------


def test_what_was_stopped_goes_on_where_it_was() -> None:
    FAILING["second"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        start()
    assert CALLS == ["first", "second"]
    assert statuses()["second"] == "running"
    Path("out/second/checkpoint").touch()
    FAILING.clear()
    start()
    assert CALLS == ["second", "gather", "apart", "report"]
    assert Path("out/second/checkpoint").exists()


def test_what_was_stopped_is_not_gone_on_with_from_other_inputs() -> None:
    FAILING["second"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        start()
    FAILING.clear()
    assert "second: settings.beta: 0.2 there, 0.5 now" in refused("second.beta=0.5")


def test_a_kill_while_overwriting_discards_nothing_twice() -> None:
    start()
    FAILING["second"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        start("second.beta=0.5", overwrite=True)
    Path("out/second/checkpoint").touch()
    FAILING.clear()
    start("second.beta=0.5", overwrite=True)
    assert CALLS == ["second", "gather", "report"]
    assert Path("out/second/checkpoint").exists()


def test_a_failure_stops_what_follows_it_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    FAILING["second"] = fake_stages.UserError("the disk is\nwet")
    message = refused()
    assert CALLS == ["first", "second", "apart", "report"]
    assert "1 of 4 stages failed, and 1 wait for them:\n  second: the disk is\n    wet\n" in message
    assert "report of the others: out/report.html" in message
    assert "Traceback" not in capsys.readouterr().err
    assert statuses() == {"first": "done", "second": "failed", "gather": "waiting", "apart": "done"}
    told = {entry["name"]: entry["reason"] for entry in read_json(Path("out/experiment.json"))["stages"]}
    assert told["second"] == "the disk is\nwet"
    assert told["gather"] == "needs second, which is not done"
    FAILING.clear()
    start()
    assert CALLS == ["second", "gather", "report"]
    assert statuses() == {"first": "skipped", "second": "done", "gather": "done", "apart": "skipped"}


def test_a_defect_shows_where_it_is_and_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    FAILING["first"] = RuntimeError("of ours")
    assert "1 of 4 stages failed, and 2 wait for them:\n  first: RuntimeError: of ours" in refused()
    assert CALLS == ["first", "apart", "report"]
    assert "raise error\nRuntimeError: of ours" in capsys.readouterr().err.replace("    ", "")


def test_the_command_line_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    FAILING["second"] = fake_stages.UserError("no")
    with pytest.raises(SystemExit) as end:
        main(["run", "experiment.yaml", "apart.beta=0.5"])
    assert end.value.code == 2
    assert "second: no" in capsys.readouterr().err
    assert read_json(Path("out/apart/model"))["beta"] == 0.5


def test_two_runs_of_one_experiment_keep_apart() -> None:
    from filelock import FileLock

    with FileLock("out/experiment.lock"):
        assert "another process is at work" in refused()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "an experiment is run by one process" in refused()
    assert CALLS == []


# ---- the plan ------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_and_does_nothing() -> None:
    outlook = start(dry_run=True)
    assert isinstance(outlook, Outlook)
    assert CALLS == []
    assert not Path("out").exists()
    start()
    shown = str(start("second.beta=0.5", "gather.title=x", dry_run=True))
    assert CALLS == []
    assert shown.startswith("out: "), "the file's title may say what is not done with other settings"
    assert str(start(dry_run=True)).startswith("A chain: ")
    assert str(start("second.beta=0.5", "title=Mine", dry_run=True)).startswith("Mine: ")
    assert "first: make: done" in shown
    assert "second: make, after first: made from other inputs; needs --overwrite" in shown
    assert "settings.beta: 0.2 there, 0.5 now" in shown


def told(outlook: object, stage: str) -> list[str]:
    """The lines of an outlook below a stage's own."""
    lines = str(outlook).splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith(f"{stage}: ")) + 1
    own = [line.strip() for line in lines[begin:]]
    return own[: next((place for place, line in enumerate(lines[begin:]) if not line.startswith("    ")), len(own))]


def test_a_dry_run_counts_what_trainings_take_whose_input_is_made() -> None:
    outlook = start(dry_run=True)
    assert told(outlook, "first") == ["1 step, 3,400 tokens"]
    assert told(outlook, "second") == ["steps and tokens are counted once its input is made, by first"]
    assert told(outlook, "gather") == []
    assert told(start("first.seed=-1", dry_run=True), "first") == ["cannot be counted: no row can be used"]
    start()
    assert told(start(dry_run=True), "first") == []
    assert told(start("second.source=other", "second.beta=0.5", dry_run=True), "second")[-1] == "1 step, 3,400 tokens"


def test_a_dry_run_measures_when_it_is_asked_to() -> None:
    assert told(start(dry_run=True, measure=True), "first") == [
        "1,200 steps, 3,400 tokens; the first step, with the longest rows, took 2.5 s; 1.5 GB in use at the peak"
    ]
    assert CALLS == []
    assert not Path("out").exists()
    with pytest.raises(ValueError, match="measure is a kind of dry run"):
        start(measure=True)


def test_nothing_is_written_of_a_secret() -> None:
    token = "hf_" + "a" * 30
    start(f"start=https://me:{token}@hub/model")
    assert not any(
        token in path.read_text() for path in Path("out").rglob("*") if path.is_file() and path.parent.name == "out"
    )
