"""The house keeps its plan: imports run one way between the rooms, and files and functions stay short."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import preflab

SOURCE = Path(preflab.__file__).parent

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# Every room (a module or package directly under preflab) with the rooms that it may import.
GROUND = {
    *("words", "records", "ties", "terminal", "redaction", "failures", "rundir", "yaml_files", "config"),
    *("own_function", "durable"),
}
ROOMS: Mapping[str, set[str]] = {
    "words": set(),
    "records": set(),
    "ties": set(),
    "terminal": set(),
    "redaction": set(),
    "failures": set(),
    "rundir": {"records", "terminal", "redaction"},
    "yaml_files": {"records", "rundir"},
    "config": {"records", "redaction", "yaml_files"},
    "own_function": {"records", "rundir"},
    "durable": {"records", "rundir", "terminal"},
    "objectives": {"records", "ties"},
    "analysis": GROUND,
    "model": GROUND,
    "sandbox": GROUND,
    "figures": GROUND | {"analysis"},
    "tables": GROUND | {"analysis"},
    "report": GROUND | {"analysis", "figures"},
    "data": GROUND | {"model", "sandbox"},
    "train": GROUND | {"objectives", "model", "data"},
    "generate": GROUND | {"model", "data"},
    "score": GROUND | {"model", "data"},
    "judge": GROUND | {"analysis", "model", "data", "generate"},
    "experiments": GROUND | {"objectives", "analysis", "model", "sandbox", "data"},
    "recipes": GROUND
    | {"objectives", "analysis", "figures", "tables", "report", "experiments"}
    | {"model", "sandbox", "data", "train", "generate", "score", "judge"},
    "options": GROUND,
    "cli": GROUND | {"options", "recipes", "preflab"},
    "preflab": {"records", "recipes"},  # the public names of __init__.py, imported when they are asked for
    "__main__": {"cli"},
}

# The one loop serves every objective: what it is to do is handed to it.
NEVER_IN_MODULE = {"preflab.train.loop": {"objectives"}}

# What may be imported from outside the house, where that is restricted.
STANDARD = set(sys.stdlib_module_names)
ONLY_FROM_OUTSIDE = {"objectives": {"torch", *STANDARD}, "records": STANDARD, "ties": STANDARD}
NEVER_FROM_OUTSIDE = {room: {"torch", "transformers"} for room in ("analysis", "figures", "tables", "report", "cli")}


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
        rooms = {here, *ROOMS.get(here, set())} - NEVER_IN_MODULE.get(module, set())
        not_allowed = {name for name in ours if room(name) not in rooms}
        not_allowed |= {outside[top] for top in set(outside) - ONLY_FROM_OUTSIDE.get(here, set(outside))}
        everything = (
            {name.split(".")[0] for name in reachable(module, imports)} if here in NEVER_FROM_OUTSIDE else set()
        )
        not_allowed |= everything & NEVER_FROM_OUTSIDE.get(here, set())
        if here not in ROOMS:
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


def test_the_plan_has_no_cycle() -> None:
    TopologicalSorter({name: allowed - {"preflab"} for name, allowed in ROOMS.items()}).prepare()


def test_imports_follow_the_plan() -> None:
    imports = imports_of(SOURCE)
    assert "preflab.core.records" in imports["preflab.core.rundir"]
    assert violations(imports) == []


def test_no_two_modules_import_each_other() -> None:
    imports = imports_of(SOURCE)
    imports["preflab"] = set()  # its imports are for type checkers, and lazy
    TopologicalSorter(imports).prepare()


def test_files_and_functions_are_short() -> None:
    assert too_long(SOURCE) == []


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
        if alias.asname
    }
    assert seen == preflab._EXPORTS
    assert all(preflab.__getattr__(name).__module__ == module for name, module in seen.items() if "settings" in module)
    modules = {room(module) for module in imports_of(SOURCE)}
    assert not modules & set(seen), "a module of the same name would take the name's place when it is imported"
    with pytest.raises(AttributeError, match="no attribute 'train_cat'"):
        _ = preflab.train_cat


# ---- the checks themselves catch what they are for ----


@pytest.mark.parametrize(
    ("file", "line", "violation"),
    [
        ("records.py", "from preflab.core.rundir import write_json", "preflab.core.records imports preflab.core.rundir"),
        ("records.py", "import pydantic", "preflab.core.records imports pydantic"),
        (
            "config.py",
            "from preflab.train.settings import SFTSettings",
            "preflab.core.config imports preflab.train.settings",
        ),
        (
            "objectives/pairs.py",
            "from preflab.core.config import Settings",
            "preflab.objectives.pairs imports preflab.core.config",
        ),
        ("objectives/pairs.py", "import numpy as np", "preflab.objectives.pairs imports numpy"),
        ("train/loop.py", "from preflab.objectives import dpo", "preflab.train.loop imports preflab.objectives"),
        ("train/loop.py", "from preflab import objectives", "preflab.train.loop imports preflab.objectives"),
        ("train/loop.py", "from ..objectives.pairs import dpo", "preflab.train.loop imports preflab.objectives.pairs"),
        ("train/loop.py", "def f():\n    import preflab.recipes", "preflab.train.loop imports preflab.recipes"),
        ("model/load.py", "from preflab.data.files import x", "preflab.model.load imports preflab.data.files"),
        ("analysis/curves.py", "import torch.nn", "preflab.analysis.curves imports torch"),
        ("analysis/curves.py", "from preflab import helper", "preflab.analysis.curves imports torch"),
        ("cli.py", "from preflab.train import loop", "preflab.cli imports preflab.train.loop"),
        ("utils.py", "", "preflab.utils imports though it is not in the plan"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, line: str, violation: str) -> None:
    plain = ("__init__", "records", "rundir", "config", "recipes/__init__", "recipes/settings", "objectives/__init__")
    for name in (*plain, "objectives/pairs", "train/loop", "data/files"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").touch()
    assert violations(imports_of(tmp_path)) == []
    (tmp_path / "helper.py").write_text("import torch")  # a detour
    (tmp_path / file).parent.mkdir(exist_ok=True)
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
