"""Rows that a caller has in memory, as a source that every command reads: `in-memory:20-rows-c635b0923966d47a.jsonl`.

They lie in a file of the cache that is named by a hash of what is in it. So the same rows are the same source, whatever
object held them and wherever the cache is; a run says what it was made from, and the command line can make it again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from preflab.core.records import UserError
from preflab.core.rundir import default_cache_dir, to_json, write_text

SCHEME = "in-memory:"

_ROWS = '[{"prompt": "…", "chosen": "…", "rejected": "…"}, …]'


def sources_of(given: object, setting: str) -> tuple[str, ...]:
    """What a caller gives for a setting of data -> source specs (see `preflab.data.sources`).

    Args:
        given: a spec or a path; rows (a list of dicts, a pandas DataFrame, a `datasets.Dataset`); or a list of these,
            which are read one after the other.
        setting: its name, for messages.

    Raises UserError for anything else, and for a row that is no dict or cannot be written as JSON.
    """
    if isinstance(given, (list, tuple)) and given and not isinstance(given[0], Mapping):
        return tuple(_source(item, setting) for item in given)
    return (_source(given, setting),)


def _source(given: object, setting: str) -> str:
    if isinstance(given, (str, Path)):
        return _named(str(given), setting)
    return source_of_rows(given, setting)


def _named(spec: str, setting: str) -> str:
    """A spec as it is; a sentence is none, and is most likely meant as a prompt."""
    if len(spec.split()) > 2 and not Path(spec).exists():
        raise UserError(
            f"{setting}: found the text {spec[:60]!r}; a text names a file, a hub id or sandbox:…. Prompts "
            'themselves are given as rows: [{"prompt": "…"}, …]'
        )
    return spec


def source_of_rows(given: object, setting: str) -> str:
    """The source spec of these rows, whose file in the cache is written if it is not there. The same rows give the same
    spec, whether they come from a list, a DataFrame or a Dataset.
    """
    lines = [_line(row, number, setting) for number, row in enumerate(_rows(given, setting), 1)]
    if not lines:
        raise UserError(f"{setting}: no rows in it")
    text = "\n".join(lines) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    spec = f"{SCHEME}{len(lines)}-rows-{digest}.jsonl"
    if not _place(spec).exists():
        write_text(_place(spec), text)
    return spec


def file_of(spec: str) -> Path:
    """The file of a source that `source_of_rows` has named. Raises UserError where the cache does not have it."""
    if not _place(spec).is_file():
        raise UserError(
            f"{spec}: rows that a Python session had in memory; the cache does not have them ({_place(spec)})"
        )
    return _place(spec)


def _place(spec: str) -> Path:
    return default_cache_dir() / "rows" / spec.removeprefix(SCHEME)


def _rows(given: object, setting: str) -> Iterator[object]:
    if isinstance(given, Mapping):
        names = ", ".join(map(str, given))
        if all(hasattr(part, "column_names") for part in given.values()):  # a DatasetDict
            raise UserError(f"{setting}: found a {type(given).__name__} of {names}; give one of its splits")
        raise UserError(f"{setting}: found a dict with {names}; rows are a list of dicts: {_ROWS}")
    pandas = sys.modules.get("pandas")  # where it is not imported, nothing is a DataFrame
    if pandas and isinstance(given, pandas.DataFrame):
        # An empty cell is NaN, NaT or NA, by the type of its column.
        given = given.astype(object).where(given.notna(), None).to_dict("records")
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise UserError(
            f"{setting}: found {type(given).__name__}; a path, a hub id, a list of rows, a DataFrame or a Dataset is "
            "needed"
        )
    yield from given


def _line(row: object, number: int, setting: str) -> str:
    if not isinstance(row, Mapping):
        raise UserError(f"{setting}: row {number} is {type(row).__name__}; rows are dicts: {_ROWS}")
    try:
        line = to_json({str(name): _plain(value) for name, value in row.items()})
    except TypeError:
        strange = next(name for name, value in row.items() if not _is_json(value))
        kind = type(row[strange]).__name__
        raise UserError(
            f"{setting}: row {number}: `{strange}` holds {kind}, which is neither text, number, list nor dict"
        ) from None
    return line.encode(errors="backslashreplace").decode()  # half a character, as JSON escapes it


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _is_json(value: object) -> bool:
    try:
        to_json(_plain(value))
    except TypeError:
        return False
    return True
