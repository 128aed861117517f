"""What plugs in (a format, an objective, a scorer, a judge, a study): ours by name, a user's own by `file.py:name`, and
that of an installed package by the name of its entry point in the group `preflab.KIND`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from preflab.core.records import UserError

FAILURES = (Exception, SystemExit)
"""What can come out of a user's own function: to exit would end preflab as if all were well."""

_SPEC = re.compile(r"(?P<path>.+\.py)(?::(?P<name>\w*))?")


@dataclass(frozen=True)
class Plugin:
    """Something that plugs in.

    Attributes:
        value: the function, class or record.
        where: whose it is, for messages: "preflab", a file, or a package with its version.
        fingerprint: a hash of the file (of an installed package's, with its version) that it is defined in; empty of
            what is ours.
        path: that file; None of what is ours, or of a module without source.
        name: what to call it: its name in the table, in its file, or as an entry point.
    """

    value: Any
    where: str
    fingerprint: str = ""
    path: Path | None = None
    name: str = ""

    def place(self, error: BaseException) -> str:
        """Where in it an error was raised: the file and the line that failed."""
        if self.path is None:
            return self.where
        file, frames = self.path.absolute(), traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == file]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        return f"{self.path} line {line}" if line else str(self.path)


def load(spec: str, kind: str, ours: Mapping[str, object]) -> Plugin:
    """What `spec` names: a key of `ours`, `file.py:name` (or `file.py`, where one thing is defined in the file), or the
    name of an entry point in the group `preflab.KIND`, in this order. `kind` is a plural ("objectives").

    Raises UserError where there is no such thing, with the nearest name, and where its file cannot be run.
    """
    if spec in ours:
        return Plugin(ours[spec], "preflab", name=spec)
    if names_file(spec):
        return load_file(spec, kind)
    if spec in (found := installed(kind)):
        return _load_entry_point(found[spec])
    known = [*ours, *found]
    by_lower = {name.lower(): name for name in reversed(known)}
    near = get_close_matches(spec.lower(), by_lower, n=1)
    hint = f"; did you mean {by_lower[near[0]]}?" if near else "."
    raise UserError(
        f"no {_singular(kind)} is called {spec!r}{hint} Known are {', '.join(known)}, or your own file.py:function"
    )


def names_file(text: str) -> bool:
    """Whether the text has the form `file.py:name` or `file.py`."""
    return _SPEC.fullmatch(text) is not None


def names_plugin(text: str, kind: str) -> bool:
    """Whether the text has that form, or is the name of an installed package's entry point."""
    return names_file(text) or text in installed(kind)


def load_file(spec: str, kind: str) -> Plugin:
    """`file.py:name`, a public name of the file; or `file.py`, where one function or class is defined in it."""
    found = _SPEC.fullmatch(spec)
    assert found is not None, "asked by names_file"
    path, wanted = home_path(found["path"]), found["name"]
    if not path.is_file():
        raise UserError(f"{path}: no such file (for the {_singular(kind)} {spec})")
    text = path.read_bytes()
    values = _public(_run_file(path, path.absolute(), text))
    defined = [name for name, value in values.items() if inspect.isroutine(value) or inspect.isclass(value)]
    names = ", ".join(defined) or "nothing"
    if wanted and wanted not in values:
        raise UserError(f"{path}: there is no {wanted!r} in it; it defines {names}")
    if not wanted and len(defined) != 1:
        raise UserError(f"{path}: say which with {path}:NAME; it defines {names}")
    name = wanted or defined[0]
    return Plugin(values[name], str(path), hashlib.sha256(text).hexdigest(), path, name)


def installed(kind: str) -> dict[str, EntryPoint]:
    """The entry points of installed packages in the group `preflab.KIND`, by name."""
    return {point.name: point for point in entry_points(group=f"preflab.{kind}")}


def home_path(text: str) -> Path:
    """A path as it was typed, with the folder of a user in place of `~`.

    Raises UserError where there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.split("/")[0]
        raise UserError(f"{text}: there is no user {user[1:]!r} here, whose folder {user} could be") from None


def _singular(kind: str) -> str:
    return "study" if kind == "studies" else kind.removesuffix("s")


@lru_cache(maxsize=64)
def _run_file(path: Path, absolute: Path, text: bytes) -> ModuleType:
    """The file as a module of a name of its own; a file of the same text is run once."""
    name = f"preflab_own_{path.stem}_{hashlib.sha256(bytes(absolute) + text).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, absolute)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickles look their own module up
    try:
        spec.loader.exec_module(module)
    except FAILURES as error:
        del sys.modules[name]
        place = Plugin(None, str(path), path=path).place(error)
        raise UserError(f"{place}: the file cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _public(module: ModuleType) -> dict[str, Any]:
    """What a module defines itself under a public name: no modules, and no functions or classes of other modules."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and (not (inspect.isroutine(value) or inspect.isclass(value)) or value.__module__ == module.__name__)
    }


def _load_entry_point(point: EntryPoint) -> Plugin:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
    try:
        value = point.load()
    except FAILURES as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{package}: its entry point {point.name} = {point.value} cannot be loaded: {problem}"
        ) from error
    file = getattr(sys.modules[point.module], "__file__", None)
    path = Path(file) if file else None
    text = path.read_bytes() if path and path.suffix == ".py" else b""
    return Plugin(value, package, hashlib.sha256(f"{package}\n".encode() + text).hexdigest(), path, point.name)
