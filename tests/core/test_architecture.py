"""The house keeps its plan: imports run one way between the rooms, and files and functions stay short."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import preflab

SOURCE = Path(preflab.__file__).parent

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# The rooms (modules or packages directly under preflab) from the ground up: a room may import those of the lines above.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("objectives", "stats", "model", "sandbox"),
    ("data", "page"),
    ("rewards",),
    ("training",),
    ("sample",),
    ("judging",),
    ("studies",),
    ("commands",),
    ("experiment",),
    ("quickstart",),
    ("cli", "api"),
    ("__main__",),
)
BELOW: Mapping[str, set[str]] = {
    room: {below for lower in FLOORS[:floor] for below in lower} for floor, rooms in enumerate(FLOORS) for room in rooms
} | {"preflab": {room for rooms in FLOORS for room in rooms}}  # the public names, imported when they are asked for

# The one loop serves every objective: what it is to do is handed to it. What draws and words figures loads no models.
NEVER_IN_MODULE = {"preflab.training.loop": {"objectives"}}

# What may be imported from outside the house, where that is restricted.
STANDARD = set(sys.stdlib_module_names)
ONLY_FROM_OUTSIDE = {"objectives": {"torch", *STANDARD}, "core.records": STANDARD, "core.ties": STANDARD}
WITHOUT_MODELS = re.compile(r"preflab\.(core|stats|page|commands|cli)\b|preflab\.studies\.\w+\.(?!command|policies)")
HEAVY = {"torch", "transformers"}


def imports_of(root: Path) -> dict[str, set[str]]:
    """Every module under `root` (the package's folder) with all that it imports, wherever in it the import stands."""
    paths = {".".join(("preflab", *path.relative_to(root).with_suffix("").parts)): path for path in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {name: set(_imported(name, path, modules)) - {name} for name, path in modules.items()}


def _imported(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:  # `from preflab.model import load` imports a module, `from … import Name` does not
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in modules else module


def room(module: str) -> str:
    """preflab.data.files -> data; preflab itself -> preflab."""
    return module.split(".")[1] if "." in module else module


def reachable(start: str, imports: Mapping[str, set[str]]) -> set[str]:
    """All modules, ours and others', that importing `start` can bring in (`preflab` itself imports lazily)."""
    seen, waiting = {start, "preflab"}, [start]
    while waiting:
        new = imports.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def violations(imports: Mapping[str, set[str]]) -> list[str]:
    """Each import that the plan does not allow, as "module imports module"."""
    found = []
    for module, imported in imports.items():
        here = room(module)
        ours = {name for name in imported if name.split(".")[0] == "preflab"}
        outside = {name.split(".")[0]: name for name in imported - ours}
        allowed = {here, *BELOW.get(here, set())} - NEVER_IN_MODULE.get(module, set())
        not_allowed = {name for name in ours - {"preflab"} if room(name) not in allowed}
        for place, packages in ONLY_FROM_OUTSIDE.items():
            if f"{module}.".startswith(f"preflab.{place}."):
                not_allowed |= {outside[top] for top in set(outside) - packages}
        if WITHOUT_MODELS.match(module):
            not_allowed |= {name.split(".")[0] for name in reachable(module, imports)} & HEAVY
        if here not in BELOW:
            not_allowed.add("though it is not in the plan")
        found += [f"{module} imports {name}" for name in sorted(not_allowed)]
    return found


def too_long(root: Path) -> list[str]:
    """Each file and function that is longer than the house allows."""
    found = []
    for path in sorted(root.rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root)
        if (lines := len(text.splitlines())) > LONGEST_FILE:
            found.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    found.append(f"{name}: {node.name} has {lines} lines")
    return found


def test_imports_follow_the_plan() -> None:
    imports = imports_of(SOURCE)
    assert "preflab.core.records" in imports["preflab.core.config"]
    assert violations(imports) == []


def test_no_two_modules_import_each_other() -> None:
    imports = imports_of(SOURCE)
    imports["preflab"] = set()  # its imports are for type checkers, and lazy
    TopologicalSorter(imports).prepare()


def test_files_and_functions_are_short() -> None:
    assert too_long(SOURCE) == []


def test_no_public_name_is_a_modules() -> None:
    modules = {room(module) for module in imports_of(SOURCE)} - {"preflab"}
    public = {name for name, value in vars(preflab).items() if getattr(value, "__module__", None) == "preflab.api"}
    assert {"train", "generate", "score", "judge", "compare", "inspect"} <= public
    assert not modules & public, "a module of the same name would take the name's place when it is imported"


# ---- the checks themselves catch what they are for ----


@pytest.mark.parametrize(
    ("file", "line", "violation"),
    [
        ("core/records.py", "import pydantic", "preflab.core.records imports pydantic"),
        (
            "core/config.py",
            "from preflab.training import settings",
            "preflab.core.config imports preflab.training.settings",
        ),
        ("objectives/pairs.py", "import numpy as np", "preflab.objectives.pairs imports numpy"),
        ("training/loop.py", "from preflab.objectives import dpo", "preflab.training.loop imports preflab.objectives"),
        ("training/loop.py", "from preflab import objectives", "preflab.training.loop imports preflab.objectives"),
        (
            "training/loop.py",
            "from ..objectives.pairs import dpo",
            "preflab.training.loop imports preflab.objectives.pairs",
        ),
        ("training/loop.py", "def f():\n    import preflab.studies", "preflab.training.loop imports preflab.studies"),
        ("model/load.py", "from preflab.data.files import x", "preflab.model.load imports preflab.data.files"),
        ("stats/curves.py", "import torch.nn", "preflab.stats.curves imports torch"),
        ("page/curves.py", "from preflab.core import helper", "preflab.page.curves imports torch"),
        ("studies/compare/figures.py", "import torch", "preflab.studies.compare.figures imports torch"),
        ("utils.py", "", "preflab.utils imports though it is not in the plan"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, line: str, violation: str) -> None:
    plain = ("__init__", "core/records", "core/config", "training/settings", "objectives/__init__", "objectives/pairs")
    for name in (*plain, "training/loop", "data/files", "studies/__init__"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / f"{name}.py").touch()
    assert violations(imports_of(tmp_path)) == []
    (tmp_path / "core/helper.py").write_text("import torch")  # a detour
    (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / file).write_text(f"{line}\n")
    assert violation in violations(imports_of(tmp_path))


def test_planted_length_is_found(tmp_path: Path) -> None:
    body = "    pass\n" * (LONGEST_FUNCTION - 1)
    (tmp_path / "a.py").write_text(f"def short():\n{body}")
    (tmp_path / "b.py").write_text("x = 1\n" * LONGEST_FILE)
    assert too_long(tmp_path) == []
    (tmp_path / "a.py").write_text(f"class A:\n  async def long():\n{body}    pass\n")
    (tmp_path / "b.py").write_text("x = 1\n" * (LONGEST_FILE + 1))
    assert too_long(tmp_path) == ["a.py: long has 61 lines", "b.py: 401 lines"]
