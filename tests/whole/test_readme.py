"""The README's commands are commands, and its Python runs against the settings that there are."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import preflab
import preflab.cli
from preflab.core.config import Settings

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


def test_the_python_example_names_what_there_is() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    (settings,) = (call for call in calls if ast.unparse(call.func).endswith("Settings"))
    made = preflab.DPOSettings(**{str(item.arg): ast.literal_eval(item.value) for item in settings.keywords})
    assert made.beta == 0.1
    assert {ast.unparse(call.func) for call in calls} >= {"preflab.train_preferences", "preflab.DPOSettings"}
    assert callable(preflab.train_preferences)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
