"""A format of the user's own: a function in a file of theirs, named `file.py:function`, or `file.py` if alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preflab.data.fields import Row, excerpt
from preflab.data.parsers.trl import trl
from preflab.own_function import FAILURES, load_function, place_of
from preflab.records import Comparison, RowError, UserError


def load_own_format(spec: str) -> tuple[Callable[[Row], Comparison], str]:
    """`file.py:function` -> the parser, and the hash of the file.

    The function takes a row (a dict) and returns a Comparison, or a dict with prompt, chosen and rejected, as text or
    chat messages. To leave a row out it raises RowError(reason). All else that it raises is passed on as UserError.
    """
    function, path = load_function(spec, "for the format")
    return _parser(function, path), hashlib.sha256(path.read_bytes()).hexdigest()


def _parser(function: Callable[[Row], Any], path: Path) -> Callable[[Row], Comparison]:
    def parse(row: Row) -> Comparison:
        try:
            made = function(dict(row))
        except RowError:
            raise
        except FAILURES as error:
            problem = f"{type(error).__name__}: {error}"
            raise UserError(f"{place_of(error, path)}: {problem}, on the row {excerpt(dict(row), 200)}") from error
        if isinstance(made, Comparison):
            return made
        if isinstance(made, dict):
            return trl(made)
        right = "a Comparison, or a dict with prompt, chosen and rejected"
        raise UserError(f"{path}: {function.__name__} returned {excerpt(made)}; it must return {right}")

    return parse
