"""A study from a user's file: as a command, as a stage, in an experiment's report, and reported on again."""

from __future__ import annotations

import ast
import csv
import re
import shutil
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import preflab
from preflab.cli import main
from preflab.core import plugins
from preflab.core.rundir import read_json, write_jsonl
from preflab.studies import STUDIES, study_in

EXAMPLE = Path(__file__).parents[2] / "examples" / "study.py"
DECLINES, HELPS = "I'm sorry, but I can't help with that.", "Red."

Call = Callable[..., tuple[object, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's folder: the study in it, and responses of two models to ten prompts, two samples each."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, "mine.py")
    for name, declined in {"base": 5, "dpo": 0}.items():
        rows = [
            {
                "row": row,
                "sample": sample,
                "prompt": [{"role": "user", "content": f"colour {row}?"}],
                "response": DECLINES if row < declined else HELPS,
                "tokens": 3,
                "finish": "eos",
            }
            for row in range(10)
            for sample in range(2)
        ]
        write_jsonl(Path(f"{name}.jsonl"), rows)


def test_it_is_a_command_and_is_reported_on_again(call: Call) -> None:
    code, out, err = call("mine.py:refusals", "base=base.jsonl", "dpo=dpo.jsonl", "--out", "study")
    assert (code, err) == (0, "")
    assert re.search(r"base refuses 50.% \(95.% interval \d+ to \d+.%, 10 prompts\)", out), "the prompt is the unit"
    assert "dpo refuses 0" in out
    table = list(csv.DictReader(Path("study/refusals.csv").read_text().splitlines()))
    assert [(line["model"], float(line["refuses"]), line["prompts"]) for line in table] == [
        ("base", 0.5, "10"),
        ("dpo", 0.0, "10"),
    ]
    Path("study/refusals.csv").unlink()
    assert call("report", "study")[:2] == (0, out)
    assert Path("study/refusals.csv").exists()


def test_its_settings_are_options_and_its_help_is_shown(call: Call) -> None:
    code, out, _ = call("mine.py:refusals", "--help")
    assert code == 0
    assert "Count how often models refuse." in out
    assert "NAME=FILE of responses, for each model." in out
    code, _, err = call("mine.py:refusal", "base=base.jsonl")
    assert code == 2
    assert "mine.py: there is no 'refusal' in it; it defines" in err
    code, _, err = call("mine.py:RefusalSettings")
    assert (code, "mine.py:RefusalSettings: is no preflab.studies.base.Study" in err) == (2, True)


def test_it_is_a_stage_and_stands_in_the_experiments_report(call: Call) -> None:
    Path("e.yaml").write_text(
        "output_dir: out\n"
        "stages: {refusals: {run: 'mine.py:refusals', responses: ['base=base.jsonl', 'dpo=dpo.jsonl']}}\n",
        encoding="utf-8",
    )
    assert call("run", "e.yaml")[0] == 0
    assert read_json(Path("out/experiment.json"))["stages"][0]["status"] == "done"
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert re.search(r"base refuses 50.%", page)
    assert "1 before" in call("run", "e.yaml")[1], "it is not done again"
    with Path("mine.py").open("a", encoding="utf-8") as file:
        file.write("\n# another version\n")
    code, _, err = call("run", "e.yaml")
    assert code == 2
    assert "files.mine.py" in err, "its file is one of the inputs"
    assert "did you mean refusals?" not in call("run", "e.yaml", "refusals.run=mine.py:refusal")[2]


def test_it_can_come_from_an_installed_package(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("refusals", "mine:refusals", "preflab.studies")
    monkeypatch.setattr(plugins, "installed", lambda kind: {"refusals": point} if kind == "studies" else {})
    assert call("refusals", "base=base.jsonl", "--out", "study")[0] == 0
    assert read_json(Path("study/manifest.json"))["command"] == "refusals"
    assert "base refuses 50" in call("report", "study")[1]


def test_a_folder_of_no_study_is_told_what_would_be_one(call: Call) -> None:
    Path("empty").mkdir()
    code, _, err = call("report", "empty")
    assert code == 2
    assert "empty: holds no study and no experiment (none of experiment.json, study.json, grid.json, frontier.j" in err
    assert study_in(Path("empty")) is None


def test_the_name_of_a_study_stands_in_its_folder_and_in_the_table() -> None:
    """Advice to a person ("run `preflab NAME` again") aside, the public names, the quickstart, which is an experiment,
    and the lines that a figure has, which are a grid in the words of its style sheet.
    """
    source = Path(preflab.__file__).parent
    found = []
    for path in source.rglob("*.py"):
        inside = path.relative_to(source).parts
        for name, study in STUDIES.items():
            if inside[:2] == ("studies", name) or inside[0] == "quickstart" or inside[-1] in ("__init__.py", "api.py"):
                continue
            said = [text for text in _said(path) if inside[0] != "page" or text != name]
            found += [f"{path}: {text}" for text in said if _is_about(text, name, study.head)]
    assert found == []


def _said(path: Path) -> list[str]:
    """Modules that are imported, and texts that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        *(node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)),
        *(
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        ),
    ]


def _is_about(text: str, name: str, head: str) -> bool:
    return text == name or f"studies.{name}" in text or head in text
