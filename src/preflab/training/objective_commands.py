"""Training by an objective as a command: of each of the table, of a user's own, and of an installed package's."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from pathlib import Path

import preflab
from preflab.core.command import StageCommand, locate
from preflab.core.config import Settings
from preflab.core.plugins import names_plugin


@dataclass(frozen=True)
class ObjectiveCommand(StageCommand):
    """`preflab train OBJECTIVE`; its settings are read off the objective when it is used."""

    objective: str = ""

    def settings_class(self) -> type[Settings]:
        kind: type[Settings] = locate(self.settings)(self.objective)
        return kind


def objective_commands() -> dict[str, ObjectiveCommand]:
    """`train NAME` for each objective of the table."""
    return {f"train {name}": _train_by(name, summary) for name, summary in objective_summaries().items()}


def other_objective(words: str) -> ObjectiveCommand | None:
    """`train file.py:function`, or `train NAME` of an installed package's objective.

    Raises UserError where the file, or what is named in it, is no objective.
    """
    group, _, name = words.partition(" ")
    if group != "train" or not names_plugin(name, "objectives"):
        return None
    command = _train_by(name, "")
    return replace(command, help=command.settings_class().__doc__ or "")


def _train_by(objective: str, summary: str) -> ObjectiveCommand:
    return ObjectiveCommand(
        settings="preflab.training.preference_settings:settings_of",
        run="preflab.training.preferences:train_preferences",
        help=summary,
        config=True,
        product="preflab.training.settings:product_of",
        harmless="preflab.training.settings:NOT_IN_RESULT",
        amount="preflab.training.amount:training_amount",
        objective=objective,
    )


def objective_summaries() -> dict[str, str]:
    """Name of each -> first line of its function's docstring.

    They are read from the source: to import it would import torch, for seconds, where somebody asked for help only.
    """
    paths = (Path(preflab.__file__).parent / "objectives").glob("*.py")
    found = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    texts = {node.name: ast.get_docstring(node) or "" for node in found if isinstance(node, ast.FunctionDef)}
    tables = {ast.unparse(node.target): node.value for node in found if isinstance(node, ast.AnnAssign)}
    table = tables["OBJECTIVES"]
    assert isinstance(table, ast.Dict), "a table is a dict literal"
    names = [ast.literal_eval(key) for key in table.keys if key]
    functions = [ast.unparse(line.args[0]) for line in table.values if isinstance(line, ast.Call)]
    return {name: texts[function].split("\n")[0] for name, function in zip(names, functions, strict=True)}
