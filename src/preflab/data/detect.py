"""Choosing the format of rows: by name, a function of the user's own, or from their columns."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from preflab.data.fields import Row
from preflab.data.formats import FORMATS
from preflab.data.layout import Format, Kind
from preflab.data.own_format import load_own_format
from preflab.data.unpack import unpack
from preflab.own_function import names_function
from preflab.records import RowError, UserError

# Where the columns fit several kinds, the one that makes more of them is meant.
_PRECEDENCE: tuple[Kind, ...] = ("ranking", "unpaired", "demonstration", "prompts")

_DETECTION_ROWS = 100


def choose_format(name: str | None, rows: Iterable[Row]) -> tuple[str, Format]:
    """A name of the table, `file.py:function`, or None for detection from the first rows -> name and format."""
    if name is None:
        name = detect_format(rows)
    if names_function(name):
        parse, fingerprint = load_own_format(name)
        return name, Format(parse, "ranking", f"your own, {name}", (), fingerprint=fingerprint)
    if name not in FORMATS:
        near = get_close_matches(name.lower(), [known.lower() for known in FORMATS], n=1)
        hint = next((f"; did you mean {known}" for known in FORMATS if near and known.lower() == near[0]), "")
        raise UserError(f"No format is called {name!r}{hint}. Known are {', '.join(FORMATS)}, or file.py:function")
    return name, FORMATS[name]


def detect_format(rows: Iterable[Row]) -> str:
    """The name of the one format that most of the first rows have. Raises UserError if there is none, or several."""
    sample = [_unpacked(row) for row in islice(rows, _DETECTION_ROWS)]
    fitting = [
        name for name, form in FORMATS.items() if 2 * sum(_has_format(row, form) for row in sample) > len(sample)
    ]
    best = min((_PRECEDENCE.index(FORMATS[name].kind) for name in fitting), default=0)
    fitting = [name for name in fitting if FORMATS[name].kind == _PRECEDENCE[best]]
    # A format that needs more columns than another says more about the rows.
    fitting = [name for name in fitting if not any(_columns(name) < _columns(other) for other in fitting)]
    if len(fitting) == 1:
        return fitting[0]
    columns = list(dict.fromkeys(str(name) for row in sample for name in row))
    found = f"The rows have the columns {', '.join(columns) or '(none)'}"
    if fitting:
        raise UserError(f"{found}, which fit several formats: {', '.join(fitting)}. Choose one with --format")
    shared = {name: len(_columns(name) & set(columns)) / len(_columns(name)) for name in FORMATS}
    near = sorted((name for name in FORMATS if shared[name] > 0), key=lambda name: -shared[name])[:3]
    nearest = "".join(f"\n  {name}: needs {', '.join(FORMATS[name].columns)} ({FORMATS[name].about})" for name in near)
    advice = f" The nearest are:{nearest}" if near else ""
    raise UserError(
        f"{found}, which fit no known format; rename them, or give a function of your own with "
        f"--format file.py:function.{advice}"
    )


def _unpacked(row: Row) -> Row:
    try:
        return unpack(row)
    except RowError:  # said of that row when it is read
        return row


def _columns(name: str) -> set[str]:
    return set(FORMATS[name].columns)


def _has_format(row: Row, form: Format) -> bool:
    return all(row.get(column) is not None for column in form.columns) and form.matches(row)
