"""A function of the user's own, named `file.py:function`, or `file.py` where it is the only one in the file."""

from __future__ import annotations

import importlib.util
import inspect
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preflab.core.records import UserError

FAILURES = (Exception, SystemExit)
"""What can come out of a user's own function: to exit would end preflab as if all were well."""

_SPEC = re.compile(r"(?P<path>.+\.py)(?::(?P<function>\w*))?")


def home_path(text: str) -> Path:
    """A path as it was typed, with the folder of a user in place of `~`.

    Raises UserError where there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.split("/")[0]
        raise UserError(f"{text}: there is no user {user[1:]!r} here, whose folder {user} could be") from None


def names_function(text: str) -> bool:
    """Whether the text has the form `file.py:function` or `file.py`."""
    return _SPEC.fullmatch(text) is not None


def load_function(spec: str, purpose: str) -> tuple[Callable[..., Any], Path]:
    """The function that `spec` names, and its file. `purpose` ("for the format") stands in the error messages.

    Raises UserError where the file is not there, cannot be run, or has no such function.
    """
    found = _SPEC.fullmatch(spec)
    assert found is not None, "asked by names_function"
    path, wanted = home_path(found["path"]), found["function"]
    if not path.is_file():
        raise UserError(f"{path}: no such file ({purpose} {spec})")
    functions = _functions_of(path)
    names = ", ".join(functions) or "none"
    if wanted and wanted not in functions:
        raise UserError(f"{path}: there is no function {wanted!r} in it; its functions: {names}")
    if not wanted and len(functions) != 1:
        raise UserError(f"{path}: say which function with {path}:NAME; its functions: {names}")
    return functions[wanted] if wanted else next(iter(functions.values())), path


def place_of(error: BaseException, path: Path) -> str:
    """The user's file, and the line of it that failed."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    return f"{path} line {line}" if line else str(path)


def _functions_of(path: Path) -> dict[str, Callable[..., Any]]:
    """The public functions that are defined in the file itself."""
    module_spec = importlib.util.spec_from_file_location(f"preflab_own_{path.stem}", path)
    assert module_spec is not None, "a .py file has a loader"
    assert module_spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except FAILURES as error:
        raise UserError(
            f"{place_of(error, path)}: the file cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
