"""The commands of README and docs are commands, and their Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tiny_runs import write_model

import preflab.cli
from preflab.core.config import Settings
from preflab.core.rundir import write_jsonl
from preflab.sandbox.world import World, preference_rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands(page: Path) -> list[str]:
    """Lines of the page's shell examples that call preflab, continued lines joined, comments left out."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.lstrip().startswith("preflab ")]


EXAMPLES = [(page.name, line) for page in PAGES for line in _commands(page)]


def test_the_readme_shows_the_commands() -> None:
    shown = {" ".join(shlex.split(line)[1:3]) for name, line in EXAMPLES if name == "README.md"}
    assert {"train sft", "train reward", "train dpo", "data inspect"} <= shown


@pytest.mark.parametrize(("page", "line"), EXAMPLES, ids=[f"{page}: {line[:60]}" for page, line in EXAMPLES])
def test_an_example_is_a_command(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []
    monkeypatch.setattr(preflab.cli, "_run", lambda _, settings: asked.append(settings))
    with pytest.raises(SystemExit) as end:
        preflab.cli.main(shlex.split(line)[1:])
    assert end.value.code in (0, None), f"{page}: {line}"
    assert len(asked) == 1


PYTHON = [
    (page.name, block)
    for page in PAGES
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    if "import preflab\n" in block
]


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[f"{page} {at}" for at, (page, _) in enumerate(PYTHON)])
def test_a_python_example_runs(page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "runs" / "sft" / "model")
    write_jsonl(tmp_path / "pairs.jsonl", list(preference_rows(World(), rows=60, split="train", style="TRL")))
    exec(compile(block, page, "exec"), {})


def test_pages_show_python() -> None:
    assert [page for page, _ in PYTHON] == ["README.md", "python.md", "python.md"]


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
