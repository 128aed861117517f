"""An experiment that is run again: what was added, made anew, moved, contradicted, or is too much to be listed."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import fake_stages
import pytest
from fake_stages import CALLS, FAILING, LEARNED, refused, start, statuses, write

from preflab.cli import main
from preflab.commands import COMMANDS
from preflab.core.output import beside
from preflab.core.records import DisagreementError
from preflab.core.rundir import digest_file, read_json, write_json, write_jsonl
from preflab.experiment.inputs import inputs_of
from preflab.experiment.plan import read_plan

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_stages.install(monkeypatch, tmp_path)
    write()


SWEPT = """
output_dir: out
stages:
  sft: {run: make, source: x}
  dpo: {run: make, source: "${sft}", sweep: {beta: [0.1, 0.2]}}
  all: {run: gather, things: ["dpo=${dpo}"]}
"""


# ---- added ---------------------------------------------------------------------------------------------------------


def test_what_is_swept_besides_adds_to_a_study() -> None:
    write(SWEPT)
    start()
    Path("out/all/left").touch()
    start("dpo.sweep.beta=[0.1, 0.2, 0.3]")
    assert CALLS == ["dpo-beta-0.3", "all", "report"]
    assert Path("out/all/left").exists()
    start("dpo.sweep.beta=[0.1]")
    assert CALLS == ["all", "report"]
    assert Path("out/all/left").exists()


def test_a_file_that_is_added_to_a_study_does_not_discard_it() -> None:
    Path("mine").write_text("one")
    start()
    added = "gather.things=['first=${first}', mine=mine]"
    start(added)
    assert CALLS == ["gather", "report"]
    Path("mine").write_text("two")
    assert "gather: files.mine: " in refused(added)
    assert "gather: files.mine: " in refused("gather.things=[mine=mine]")


def test_what_is_added_does_not_hide_that_something_else_has_changed() -> None:
    start()
    message = refused("gather.things=['second=${second}', 'apart=${apart}']", "second.beta=0.3")
    assert "  second: settings.beta: 0.2 there, 0.3 now\n  and gather, which follows" in message


def test_an_addition_that_was_stopped_is_not_done_when_it_is_taken_back() -> None:
    start()
    FAILING["gather"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        start("gather.title=Another")
    FAILING.clear()
    start()
    assert CALLS == ["gather", "report"]
    start()
    assert CALLS == []


def test_a_function_of_the_users_own_is_an_input_wherever_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflab.commands.COMMANDS", COMMANDS)
    for name in ("one.py", "two.py", "my=way.py"):
        Path(name).touch()
    Path("sft").mkdir()  # a folder that is called as a term of the loss is
    settings = "model: m, train_data: owner/rows:train, format: 'my=way.py:f'"
    mix = "mix: ['psipo?psi=one.py&weight=0.2', 'sft?weight=1']"
    write(f"stages: {{a: {{run: train dpo, {settings}, {mix}}}, b: {{run: train psipo, {settings}, psi: two.py}}}}")
    inputs = inputs_of(read_plan(Path("experiment.yaml"), ()), {})
    assert set(inputs["a"]["files"]) == {"my=way.py", "one.py"}
    assert set(inputs["b"]["files"]) == {"my=way.py", "two.py"}


# ---- made anew, gone -----------------------------------------------------------------------------------------------


def test_what_follows_something_that_became_another_is_not_done() -> None:
    start()
    Path("out/first/model").unlink()
    LEARNED["first"] = 1
    message = refused()
    assert CALLS == ["first", "report"]
    assert "  second: follows first, changed since; --overwrite makes it anew" in message
    assert statuses() == {"first": "done", "second": "failed", "gather": "waiting", "apart": "skipped"}
    assert "  second, gather: follows first, changed since\n" in refused()
    assert CALLS == []
    Path("out/first/left").touch()
    start(overwrite=True)
    assert CALLS == ["second", "gather", "report"]
    assert Path("out/first/left").exists()
    start()
    assert CALLS == []


def test_what_is_made_anew_within_an_overwriting_run_is_followed() -> None:
    start()
    Path("out/first/model").unlink()
    Path("out/first/left").touch()
    LEARNED["first"] = 1
    start(overwrite=True)
    assert CALLS == ["first", "second", "gather", "report"]
    assert not Path("out/first/left").exists()  # a training without its model would call itself finished


def test_a_product_that_was_trained_by_hand_counts_and_is_not_discarded() -> None:
    start()
    Path("out/first/model").write_text("another")
    assert "  second, gather: follows first, changed since\n" in refused()
    Path("out/first/left").touch()
    start(overwrite=True)
    assert CALLS == ["first", "second", "gather", "report"]
    assert Path("out/first/left").exists()


def test_a_study_whose_file_is_gone_is_gathered_again_and_kept() -> None:
    start()
    Path("out/gather/things.json").unlink()
    Path("out/gather/left").touch()
    assert "gather: gather, after first, second: to make again: what it made is gone" in str(start(dry_run=True))
    start(overwrite=True)
    assert CALLS == ["gather", "report"]
    assert Path("out/gather/left").exists()


def rows_of_a_study(folder: Path, **data: str) -> Path:
    """A finished file of rows, as commands leave it."""
    rows = folder / "verdicts" / "x.jsonl"
    write_jsonl(rows, [{"row": 1}])
    write_json(beside(rows, "manifest.json"), {"settings": {}, "data": data, "sha256": digest_file(rows)})
    return rows


@pytest.mark.parametrize("how", [b"", b'{"row": 2}\n', b"\0" * 11])
def test_damaged_rows_of_a_study_are_made_anew_where_that_is_wanted(how: bytes) -> None:
    write()
    start()
    rows, whole = rows_of_a_study(Path("out/gather")), rows_of_a_study(Path("out/gather/other"))
    start(overwrite=True)
    assert CALLS == []
    rows.write_bytes(how)
    start(overwrite=True)
    assert CALLS == ["gather", "report"]
    assert not rows.exists()
    assert whole.exists()


@pytest.mark.parametrize("manifest", [None, "{"])
def test_damaged_verdicts_of_a_person_are_kept(manifest: str | None) -> None:
    write()
    start()
    rows = rows_of_a_study(Path("out/gather"), judge="human")
    if manifest is not None:
        beside(rows, "manifest.json").write_text(manifest)
    rows.write_bytes(b"damaged")
    start(overwrite=True)
    assert [path.read_bytes() for path in rows.parent.iterdir()] == [b"damaged"]
    assert not rows.exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"stages": {"first": 3}, "files": {}}', '{"stages": {}}'])
def test_a_damaged_record_of_inputs_is_one_message_that_says_what_to_do(text: str) -> None:
    write()
    start()
    Path("out/inputs.json").write_text(text)
    assert re.search(r"inputs\.json: (not valid JSON|is not as it was written)", refused(overwrite=True))
    Path("out/inputs.json").unlink()
    start()
    assert statuses().keys() == {"gather", "first", "second", "apart"}


@pytest.mark.parametrize("text", ["{", "[]", '{"stages": 3}', '{"stages": [{"name": "first"}]}'])
def test_a_damaged_list_of_stages_is_written_anew(text: str) -> None:
    write()
    start()
    whole = {name for name, status in statuses().items() if status == "done"}
    Path("out/experiment.json").write_text(text)
    start()
    assert CALLS == ["report"]
    assert statuses().keys() == whole


# ---- moved ---------------------------------------------------------------------------------------------------------


def test_an_experiment_can_be_named_otherwise_and_moved() -> None:
    start()
    start(f"output_dir={Path('out').absolute()}")
    assert CALLS == []
    shutil.copytree("out", "there/deep")
    assert str(start("output_dir=there/deep")).startswith("4 stages: 0 done now, 4 before")
    start("output_dir=there/deep", "apart.beta=0.3", overwrite=True)
    assert CALLS == ["apart", "report"]


# ---- contradicted --------------------------------------------------------------------------------------------------


def contradicting(_: Path) -> Path:
    CALLS.append("report")
    raise DisagreementError("rows say otherwise", shown="written to out/report.html")


def test_a_contradiction_is_said_until_it_is_mended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("preflab.experiment.report.report_experiment", contradicting)
        for _ in range(2):
            with pytest.raises(SystemExit) as end:
                main(["run", "experiment.yaml"])
            Path("out/report.html").touch()
            assert end.value.code == 3
            assert "rows say otherwise" in capsys.readouterr().err
    start()
    assert CALLS == ["report"]
    start()
    assert CALLS == []


def test_what_failed_is_said_beside_a_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflab.experiment.report.report_experiment", contradicting)
    FAILING["apart"] = fake_stages.UserError("no disk")
    message = refused()
    assert "rows say otherwise\n1 of 4 stages failed" in message
    assert "  apart: no disk\n" in message


# ---- many ----------------------------------------------------------------------------------------------------------

MANY = """
output_dir: out
stages:
  sft: {run: make, source: x}
  dpo: {run: make, source: "${sft}", sweep: {seed: [0, 1, 2, 3, 4, 5]}}
  all: {run: gather, things: ["dpo=${dpo}"]}
"""


def test_many_are_told_in_few_words() -> None:
    write(MANY)
    start()
    message = refused("sft.beta=0.5")
    assert "out: 8 stages" in message
    assert "\n  sft: settings.beta: 0.1 there, 0.5 now\n  and dpo-seed-0 and 6 others, which follow\n" in message
    assert "  dpo-seed-0 and 5 others: settings.beta: 0.1 there, 0.5 now\n  and all, which" in refused("dpo.beta=0.5")
    shown = str(start("dpo.beta=0.5", dry_run=True))
    assert "\nall: gather, after dpo-seed-0 and 5 others: made from other inputs; needs --overwrite\n" in shown
    assert "    follows dpo-seed-0 and 5 others, changed since" in shown
    shown = str(start("dpo.sweep.seed=[0, 1, 2, 3, 4, 5, 6]", dry_run=True))
    assert shown.endswith("\n    settings.things: [] there, ['dpo-seed-6=${dpo-seed-6}/model'] now")


def test_many_that_fail_for_one_reason_are_told_once() -> None:
    write(MANY)
    FAILING.update({f"dpo-seed-{seed}": fake_stages.UserError("no disk") for seed in range(6)})
    message = refused()
    assert "6 of 8 stages failed, and 1 wait for them:\n  dpo-seed-0 and 5 others: no disk\nwhat is done" in message
    (told,) = [e["reason"] for e in read_json(Path("out/experiment.json"))["stages"] if e["name"] == "all"]
    assert told == "needs dpo-seed-0 and 5 others, which is not done"


# ---- quickly -------------------------------------------------------------------------------------------------------


def test_what_has_nothing_to_do_loads_no_models_library() -> None:
    start()
    Path("again.py").write_text(
        "import sys, fake_stages\n"
        "from preflab import commands\n"
        "commands.COMMANDS = fake_stages.KINDS\n"
        "assert fake_stages.start().ran == ()\n"
        "assert not {'torch', 'transformers', 'numpy', 'matplotlib'} & sys.modules.keys(), sorted(sys.modules)\n"
    )
    tests = Path(fake_stages.__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tests)!r}); exec(open('again.py').read())"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr


def test_what_a_stage_leaves_in_circles_is_let_go_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def __init__(self) -> None:
            self.itself = self

    made: list[weakref.ref[Model]] = []
    held: list[Model] = []
    alive: list[int] = []

    def make(_: fake_stages.MakeSettings) -> str:
        alive.append(sum(model() is not None for model in made))
        held[:] = [Model()]  # the one before is now nobody's
        made.append(weakref.ref(held[0]))
        return "made"

    monkeypatch.setattr(fake_stages, "make", make)
    gc.disable()
    try:
        start()
    finally:
        gc.enable()
    assert alive == [0, 1, 1]
