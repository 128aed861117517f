"""What a stage is made from, so that it is done again when that changes, and only then."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from preflab.core.config import Settings, element_types, resolved
from preflab.core.plugins import names_file
from preflab.core.rundir import differences, digest_file, fingerprint
from preflab.experiment.plan import Plan, PlannedStage

State = Literal["new", "unfinished", "extended", "done", "gone", "changed"]
"""Never begun; begun from these inputs; made from some of them, so that it can go on; finished; finished, but what it
made is not there; made from others.
"""


@dataclass(frozen=True)
class Standing:
    """Where a stage stands.

    Attributes:
        own: what has changed of its settings and files, a line each.
        followed: the stages before it that were made from other inputs, or made anew, since it was made.
    """

    state: State
    own: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """All that has changed."""
        return [*self.own, *([f"follows {several(self.followed)}, changed since"] if self.followed else [])]


KnownFiles = dict[str, list[Any]]
"""Path -> [size, time of the last change in ns, SHA-256], of files that have been read before."""


def inputs_of(plan: Plan, known: KnownFiles) -> dict[str, dict[str, Any]]:
    """Stage -> its inputs: command, settings, fingerprints of the stages before it, digests of the local files and
    folders that its settings name. What is on a hub is known by its name alone. `known` spares reading files again,
    and is added to.
    """
    found: dict[str, dict[str, Any]] = {}
    for stage in plan.stages:
        harmless, place = stage.kind.harmless_settings(), stage.kind.place
        settings = _wherever_it_lies(resolved(stage.settings), stage, plan.output_dir)
        of_run = harmless - {place, "overwrite"}
        of_result = {name: value for name, value in settings.items() if name not in harmless | {place}}
        found[stage.name] = {
            "command": stage.command,
            "settings": of_result,
            "after": {name: fingerprint({**found[name], "harmless": {}}) for name in stage.after},
            "files": {str(path): _digest(path, known) for path in _local_paths(stage, plan.output_dir)},
            "harmless": {name: settings[name] for name in sorted(of_run & settings.keys())},
        }
    return found


def made_by(stage: PlannedStage, known: KnownFiles) -> str | None:
    """The digest of what a stage has made, None where it is not there: two that were made alike have the same."""
    path = stage.folder / (stage.kind.head or stage.kind.product_of(stage.settings))
    return _digest(path, known) if path.exists() else None


def standing(
    stage: PlannedStage,
    inputs: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    made: Mapping[str, str | None],
) -> Standing:
    """Where a stage stands by the record of its last run: {"inputs", "done", and digests: "made" by it, and "from" what
    the stages before it had made}. `made` is what there now is, by stage.

    Without its folder nothing is there to go on with, or to be lost, whatever was recorded.
    """
    if record is None or not stage.folder.exists():
        return Standing("new")
    before, extends = record["inputs"], stage.kind.extends
    there, now = _short_of_common(before, inputs)
    added = tuple(differences(_of_settings(there, extends), _of_settings(now, extends)))
    # Stages and files that are not named any more, or were not yet, are what extends a study: the settings say whether
    # that may be.
    both = [name for name in stage.after if name in before["after"]]
    followed = tuple(name for name in both if _is_other(name, before, inputs, record.get("from", {}), made))
    files = before["files"].keys() | inputs["files"].keys()
    if added:
        files = before["files"].keys() & inputs["files"].keys()
    own = tuple(differences(_own(there, extends, files), _own(now, extends, files)))
    if own or followed:
        return Standing("changed", own, followed)
    if added:
        return Standing("extended", added)
    product = made.get(stage.name)
    if record["done"] and product is None:
        return Standing("gone")
    is_as_left = record.get("made") in (None, product)
    return Standing("done" if record["done"] and is_as_left and before == inputs else "unfinished")


def several(names: Sequence[str]) -> str:
    """ "a, b, c", or "a and 191 others" where they are too many to be read."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"


def _is_other(
    name: str,
    before: Mapping[str, Any],
    inputs: Mapping[str, Any],
    origins: Mapping[str, str | None],
    made: Mapping[str, str | None],
) -> bool:
    """Whether a stage before is not the one that was used: to be made from other inputs, or made anew."""
    there, now = origins.get(name), made.get(name)
    return before["after"][name] != inputs["after"][name] or (None not in (there, now) and there != now)


def _own(inputs: Mapping[str, Any], aside: Collection[str], files: Collection[str]) -> dict[str, Any]:
    """Command, these files, and settings without those that are put aside."""
    return {
        "command": inputs["command"],
        "settings": {name: value for name, value in inputs["settings"].items() if name not in aside},
        "files": {name: digest for name, digest in inputs["files"].items() if name in files},
    }


def _of_settings(inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {"settings": {name: value for name, value in inputs["settings"].items() if name in names}}


def _short_of_common(before: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both with what their long lists have in common left out, so that a difference can be read."""
    there, now = dict(before["settings"]), dict(inputs["settings"])
    for name in there.keys() & now.keys():
        if all(isinstance(values[name], list) and len(values[name]) > 3 for values in (there, now)):
            ones, others = there[name], now[name]
            fewer = [item for item in ones if item not in others], [item for item in others if item not in ones]
            if any(fewer):
                there[name], now[name] = fewer
    return {**before, "settings": there}, {**inputs, "settings": now}


def _wherever_it_lies(settings: dict[str, Any], stage: PlannedStage, home: Path) -> dict[str, Any]:
    """The settings with `${name}` for the folders of the stages that they name: an experiment can be moved."""
    folder = re.compile(rf"(?<![\w./\\-]){re.escape(str(home / '_')[:-1])}([\w.-]+)")

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(item) for item in value]
        if not isinstance(value, str):
            return value
        return folder.sub(lambda match: f"${{{match[1]}}}" if match[1] in stage.after else match[0], value)

    return {name: named(value) for name, value in settings.items()}


# ---- local files ---------------------------------------------------------------------------------------------------


def _local_paths(stage: PlannedStage, output_dir: Path) -> list[Path]:
    """The files and folders outside the experiment's that the settings name, each once."""
    found = {
        path.expanduser(): None for text in (*_own_code(stage), *_texts(stage.settings)) for path in _paths_in(text)
    }
    home = output_dir.absolute()
    return [
        path for path in found if not path.absolute().is_relative_to(home) and not home.is_relative_to(path.absolute())
    ]


def _own_code(stage: PlannedStage) -> Iterator[str]:
    """Of a command that is a user's own, its file."""
    yield from filter(names_file, stage.command.split())


def _texts(settings: Settings) -> Iterator[str]:
    """The values that are text or paths, one by one."""
    for name, field in type(settings).model_fields.items():
        if {str, Path} & set(element_types(field)):
            value = getattr(settings, name)
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(item, (str, Path)):
                    yield str(item)


# A path begins where a text does, behind the `=` of `name=` or `psi=`, or behind a word and a colon (`KIND:`); slices,
# the function in a user's own file, or a further parameter may follow it.
_BEGIN = re.compile(r"=|(?<![^=])\w+:")
_END = re.compile(r"[\[:&]")


def _paths_in(text: str) -> Iterator[Path]:
    """The files and folders that are there, of all that a text could mean; the longest from each place."""
    begins = [0, *(match.end() for match in _BEGIN.finditer(text))]
    ends = [len(text), *(match.start() for match in reversed(list(_END.finditer(text))))]
    for begin in begins:
        yield from islice(filter(_exists, (Path(text[begin:end]) for end in ends if end > begin)), 1)


def _exists(path: Path) -> bool:
    with suppress(OSError, ValueError, RuntimeError):  # what is no path at all: too long, or of nobody's home
        return path.expanduser().exists()
    return False


def _digest(path: Path, known: KnownFiles) -> str:
    """SHA-256 of a file's content, or of names and contents of all in a folder that is not hidden; 16 digits of it."""
    if path.is_dir():
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        return fingerprint([[entry.name, _digest(entry, known)] for entry in entries])
    place, stat = str(path.absolute()), path.stat()
    if stat.st_size <= _READ_ANEW:
        return digest_file(path)[:16]
    seen, now = known.get(place), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    if seen is None or seen[:-1] != now:
        seen = known[place] = [*now, digest_file(path)]
    return str(seen[-1])[:16]


# Bytes of a file that is read each time (0.1 s): size and time of modification can be those of other content. Of larger
# ones the time of the last change counts too, which nobody can set, and which moves with each write.
_READ_ANEW = 64 << 20
