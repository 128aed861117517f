"""An experiment's file: its YAML, and what `key=value` changes of it, as one checked record."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from preflab.core.config import Settings, explain
from preflab.core.records import UserError
from preflab.core.yaml_files import parse_yaml, read_yaml

NAME = re.compile(r"[A-Za-z]\w*(?:-\w+)*")
"""Names of values and stages: a stage's is a folder's name and may stand in front of `=`; a point has a meaning."""


class ExperimentFile(Settings):
    """What may stand in an experiment's file."""

    title: str | None = Field(default=None, description="Heading of the report; by default the experiment's name.")
    description: str = Field(default="(none)", description="What the experiment follows, with its source.")
    output_dir: Path | None = Field(default=None, description="Folder of the experiment; by default runs/NAME.")
    values: dict[str, Any] = Field(
        default={}, description="What a user replaces: models, data, sizes. `${name}` stands for one."
    )
    settings: dict[str, Any] = Field(default={}, description="Settings for every stage that has such a one.")
    stages: dict[str, Any] = Field(description="name: {run: COMMAND, its settings, and what to sweep}.")


@dataclass(frozen=True)
class StageText:
    """A stage as the file has it: its command, its settings (`${…}` still in them), and what is swept."""

    run: str
    settings: Mapping[str, Any]
    sweep: Mapping[str, list[Any]]


@dataclass(frozen=True)
class Experiment:
    """An experiment's file with all that was overridden; `document` is what it then would say."""

    place: str
    title: str | None
    description: str
    output_dir: Path
    values: Mapping[str, Any]
    settings: Mapping[str, Any]
    stages: Mapping[str, StageText]
    document: Mapping[str, Any]


def read_experiment_file(path: Path, assignments: Sequence[str] = ()) -> Experiment:
    """The experiment of a file, with `key=value` put in its place.

    Raises UserError that lists everything that is wrong with its form; what stages and `${…}` say is looked at by
    `preflab.experiment.plan`.
    """
    document = _read(path)
    problems = [problem for text in assignments if (problem := _assign(document, text))]
    _refuse(problems)
    try:
        file = ExperimentFile.model_validate(document)
    except ValidationError as error:
        raise UserError("\n".join(explain(ExperimentFile, error, lambda name: f"{path}: {name}"))) from None
    stages = {name: _stage(name, body, problems) for name, body in file.stages.items()}
    problems.extend(_problems_of_names(file))
    _refuse(f"{path}: {problem}" for problem in problems)
    output_dir = file.output_dir or Path("runs") / path.stem
    return Experiment(
        place=str(path),
        title=file.title,
        description="" if "description" not in document else file.description,
        output_dir=output_dir,
        values=file.values,
        settings=file.settings,
        stages=stages,
        document={**document, "output_dir": str(output_dir)},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except UserError as error:
        if "YAML" in str(error) and "${" in path.read_text(encoding="utf-8"):
            hint = 'within [] or {}, what holds ${…} has to stand in quotes: [base="${model}"] is ["base=${model}"]'
            raise UserError(f"{error}\n{hint}") from error
        raise


def _refuse(problems: Iterable[str]) -> None:
    if listed := list(dict.fromkeys(problems)):
        raise UserError("\n".join(listed))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?", or else what there is, where that is not too much to be read."""
    names = list(known)
    if nearest := get_close_matches(name, names, n=1):
        return f"; did you mean {nearest[0]}?"
    return f"; there is {', '.join(names) or 'none at all'}" if len(names) <= 30 else ""


# ---- key=value -----------------------------------------------------------------------------------------------------


def _assign(document: dict[str, Any], assignment: str) -> str | None:
    """Put `key=value` in its place in the document; or what is wrong with it."""
    key, mark, text = assignment.partition("=")
    if not mark:
        return f"{assignment}: write key=value, such as model=./my-model or dpo.beta=0.2"
    value = parse_yaml(text, assignment)
    first, *rest = key.split(".")
    values, stages = _mapping(document, "values"), _mapping(document, "stages")
    if key in ("title", "description", "output_dir"):
        document[key] = value
    elif first == "settings" and len(rest) == 1:
        _mapping(document, "settings")[rest[0]] = value
    elif key in values:
        values[key] = value
    elif first in stages and len(rest) == 1:
        _mapping(stages, first)[rest[0]] = value
    elif first in stages and len(rest) == 2 and rest[0] == "sweep":
        _mapping(_mapping(stages, first), "sweep")[rest[1]] = value
    elif first in stages:
        return f"{assignment}: write {first}.SETTING=value or {first}.sweep.SETTING=[one, two]"
    else:
        known = [*values, *(f"{stage}.{'.'.join(rest)}" if rest else stage for stage in stages)]
        return f"{assignment}: there is no {key}" + did_you_mean(key, [*known, "output_dir", "title", "settings"])
    return None


def _mapping(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """The mapping of that name within another, made where there is none; anything else there is left for later."""
    found = parent.setdefault(name, {})
    return found if isinstance(found, dict) else {}


# ---- form ----------------------------------------------------------------------------------------------------------


def _stage(name: str, body: object, problems: list[str]) -> StageText:
    if not isinstance(body, dict) or not isinstance(body.get("run"), str):
        problems.append(f"{name}: a stage is written `run: COMMAND` and its settings below, such as run: train dpo")
        return StageText("", {}, {})
    settings: dict[str, Any] = copy.deepcopy(body)
    run, sweep = settings.pop("run"), settings.pop("sweep", None) or {}
    if not isinstance(sweep, dict) or not all(isinstance(values, (list, str)) and values for values in sweep.values()):
        problems.append(f"{name}.sweep: a list of values for each setting is needed, such as beta: [0.05, 0.1]")
        sweep = {}
    if twice := sorted(sweep.keys() & settings.keys()):
        problems.append(f"{name}: {', '.join(twice)} is set and swept; one of both is meant")
    return StageText(run, settings, sweep)


def _problems_of_names(file: ExperimentFile) -> Iterable[str]:
    for name in (*file.values, *file.stages):
        if not NAME.fullmatch(name):
            yield f"{name!r} cannot be a name here; it is letters, digits, _ and -, with a letter in front"
        elif name in ExperimentFile.model_fields:
            yield f"{name} has a meaning of its own and cannot name a value or a stage"
    for name in file.values.keys() & file.stages.keys():
        yield f"{name} names a value and a stage, so ${{{name}}} would be either"
    for name, value in file.values.items():
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value)
        ):
            yield f"values.{name}: a value is text, a number, true, false, null or a list of these"
