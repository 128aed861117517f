"""A format of the user's own: a function in a file of theirs, named `file.py:function`, or `file.py` if alone."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preflab.data.fields import Row, excerpt
from preflab.data.parsers import trl
from preflab.records import Comparison, RowError, UserError

_SPEC = re.compile(r"(?P<path>.+\.py)(?::(?P<function>\w*))?")


def is_own_format(name: str) -> bool:
    return _SPEC.fullmatch(name) is not None


def load_own_format(spec: str) -> tuple[Callable[[Row], Comparison], str]:
    """`file.py:function` -> the parser, and the hash of the file.

    The function takes a row (a dict) and returns a Comparison, or a dict with prompt, chosen and rejected, as text or
    chat messages. To leave a row out it raises RowError(reason). All else that it raises is passed on as UserError.
    """
    found = _SPEC.fullmatch(spec)
    assert found is not None, "asked by is_own_format"
    path, wanted = Path(found["path"]).expanduser(), found["function"]
    if not path.is_file():
        raise UserError(f"{path}: no such file (for the format {spec})")
    functions = _functions_of(path)
    names = ", ".join(functions) or "none"
    if wanted and wanted not in functions:
        raise UserError(f"{path}: there is no function {wanted!r} in it; its functions: {names}")
    if not wanted and len(functions) != 1:
        raise UserError(f"{path}: say which function with {path}:NAME; its functions: {names}")
    function = functions[wanted] if wanted else next(iter(functions.values()))
    return _parser(function, path), hashlib.sha256(path.read_bytes()).hexdigest()


def _functions_of(path: Path) -> dict[str, Callable[[Row], Any]]:
    """The public functions that are defined in the file itself."""
    module_spec = importlib.util.spec_from_file_location(f"preflab_own_format_{path.stem}", path)
    assert module_spec is not None, "a .py file has a loader"
    assert module_spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{_place(error, path)}: the file cannot be loaded: {type(error).__name__}: {error}") from error
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def _parser(function: Callable[[Row], Any], path: Path) -> Callable[[Row], Comparison]:
    def parse(row: Row) -> Comparison:
        try:
            made = function(dict(row))
        except RowError:
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise UserError(f"{_place(error, path)}: {problem}, on the row {excerpt(dict(row), 200)}") from error
        if isinstance(made, Comparison):
            return made
        if isinstance(made, dict):
            return trl(made)
        right = "a Comparison, or a dict with prompt, chosen and rejected"
        raise UserError(f"{path}: {function.__name__} returned {excerpt(made)}; it must return {right}")

    return parse


def _place(error: Exception, path: Path) -> str:
    """The user's file, and the line of it that failed."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    return f"{path} line {line}" if line else str(path)
