"""What a stage is made from, so that it is done again when that changes, and only then."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from preflab.config import Settings, element_types, resolved
from preflab.experiments.plan import Plan, PlannedStage, StageKind
from preflab.rundir import differences, digest_file, fingerprint

State = Literal["new", "unfinished", "extended", "done", "changed"]
"""Where a stage stands: never begun; begun from these inputs; made from some of them, so that it can go on; finished;
made from others.
"""

Standing = tuple[State, list[str]]
"""Where a stage stands, and what has changed of its inputs."""

KnownFiles = dict[str, list[Any]]
"""Path -> [size, time of the last change in ns, SHA-256], of files that have been read before."""


def inputs_of(plan: Plan, kinds: Mapping[str, StageKind], known: KnownFiles) -> dict[str, dict[str, Any]]:
    """Stage -> its inputs: command, settings, fingerprints of the stages before it, digests of the local files and
    folders that its settings name. What is on a hub is known by its name alone. `known` spares reading files again,
    and is added to.
    """
    found: dict[str, dict[str, Any]] = {}
    for stage in plan.stages:
        kind = kinds[stage.command]
        settings = resolved(stage.settings)
        of_run = kind.harmless - {kind.place, "overwrite"}
        of_result = {name: value for name, value in settings.items() if name not in kind.harmless | {kind.place}}
        found[stage.name] = {
            "command": stage.command,
            "settings": of_result,
            "after": {name: fingerprint(_results_of(found[name])) for name in stage.after},
            "files": {str(path): _digest(path, known) for path in _local_paths(stage, plan.output_dir)},
            "harmless": {name: settings[name] for name in sorted(of_run & settings.keys())},
        }
    return found


def standing(
    stage: PlannedStage, kind: StageKind, inputs: Mapping[str, Any], record: Mapping[str, Any] | None
) -> Standing:
    """Where a stage stands by the record of its last run, {"inputs", "done"}; and what has changed since.

    Without its folder nothing is there to go on with, or to be lost, whatever was recorded.
    """
    if record is None or not stage.folder.exists():
        return "new", []
    before = record["inputs"]
    if found := differences(_results_of(before, kind.extends), _results_of(inputs, kind.extends)):
        return "changed", found
    if found := differences(_results_of(before), _results_of(inputs)):
        return "extended", found
    is_there = (stage.folder / kind.product(stage.settings)).exists()
    return ("done" if record["done"] and is_there and before == inputs else "unfinished"), []


def _results_of(inputs: Mapping[str, Any], aside: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The inputs that show in what a stage leaves, without the settings that are put aside."""
    settings = {name: value for name, value in inputs["settings"].items() if name not in aside}
    return {**inputs, "settings": settings, "harmless": {}}


# ---- local files ---------------------------------------------------------------------------------------------------


def _local_paths(stage: PlannedStage, output_dir: Path) -> list[Path]:
    """The files and folders outside the experiment's that the settings name, each once."""
    found = {path: None for text in _texts(stage.settings) if (path := _local_path(text))}
    home = output_dir.absolute()
    return [
        path for path in found if not path.absolute().is_relative_to(home) and not home.is_relative_to(path.absolute())
    ]


def _texts(settings: Settings) -> Iterator[str]:
    """The values that are text or paths, one by one."""
    for name, field in type(settings).model_fields.items():
        if {str, Path} & set(element_types(field)):
            value = getattr(settings, name)
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(item, (str, Path)):
                    yield str(item)


# `name=` and `reward:` in front; slices, or the function of a user's own format, behind.
_AROUND = re.compile(r"(?:[\w.-]+=)?(?:[a-z]+:)?(?P<path>.+?)(?:\[[^\[\]]*\])*(?::\w+)?", re.DOTALL)


def _local_path(text: str) -> Path | None:
    around = _AROUND.fullmatch(text)
    for candidate in (text, around["path"] if around else text):
        with suppress(OSError, ValueError, RuntimeError):  # what is no path at all: too long, or of nobody's home
            if Path(candidate).expanduser().exists():
                return Path(candidate).expanduser()
    return None


def _digest(path: Path, known: KnownFiles) -> str:
    """SHA-256 of a file's content, or of names and contents of all in a folder that is not hidden; 16 digits of it."""
    if path.is_dir():
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        return fingerprint([[entry.name, _digest(entry, known)] for entry in entries])
    place, stat = str(path.absolute()), path.stat()
    seen = known.get(place)
    if seen is None or seen[:2] != [stat.st_size, stat.st_mtime_ns]:
        seen = known[place] = [stat.st_size, stat.st_mtime_ns, digest_file(path)]
    return str(seen[2])[:16]
