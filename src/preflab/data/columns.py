"""Columns by other names: what the user calls `user_query` is read as the `prompt` that formats know."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Annotated, Any

from pydantic import BeforeValidator

from preflab.core.records import UserError
from preflab.data.fields import excerpt

Row = dict[str, Any]
_LOOKED_AT = 100  # rows in which a column must be seen


def _split(value: object) -> object:
    """`a=b,c=d`, a list of such, or a mapping -> a list with one pair each."""
    if isinstance(value, Mapping):
        value = [f"{name}={column}" for name, column in value.items()]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        return value
    pairs = [pair.strip() for item in value for pair in re.split(r",(?=\s*[\w.-]+=)", item)]
    for pair in pairs:
        name, mark, column = pair.partition("=")
        if not (mark and name.strip() and column.strip()):
            raise ValueError("NAME=COLUMN is needed, as in prompt=user_query,response=gen_text")
    names = [pair.partition("=")[0].strip() for pair in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"a name can stand for one column, and {twice[0]} is given two")
    return pairs


ColumnNames = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A setting: pairs `name=column`; `name` is what formats know, `column` what the data calls it."""

COLUMNS_HELP = (
    "Columns by the names that formats know: prompt=user_query,response=gen_text. In a file that lacks such a column "
    "nothing is renamed; one of the files must have it."
)


def columns_by_name(pairs: Sequence[str]) -> dict[str, str]:
    """The pairs of a `ColumnNames` setting: name -> column of the data."""
    split = (pair.partition("=") for pair in pairs)
    return {name.strip(): column.strip() for name, _, column in split}


def renamed(row: Row, names: Mapping[str, str], replaced: Collection[str] = ()) -> Row:
    """The row with its columns under the names that they are given, as far as it has them; without those that are
    `replaced` in the other rows, which mean another thing in a row that lacks the new one too.
    """
    found = {name: row[column] for name, column in names.items() if column in row}
    gone = {*(names[name] for name in found), *found, *replaced}
    return {column: value for column, value in row.items() if column not in gone} | found if gone else row


def columns_of(rows: Iterable[Row]) -> dict[str, None]:
    """The columns that the first rows have, in order."""
    return {str(name): None for row in islice(rows, _LOOKED_AT) for name in row}


def check_columns(names: Mapping[str, str], sources: Mapping[str, Iterable[Row]]) -> None:
    """Raises UserError for a column that none of the sources has: what they have, and which comes nearest."""
    seen = dict.fromkeys(column for rows in sources.values() for column in columns_of(rows))
    for name, column in names.items():
        if column not in seen:
            near = get_close_matches(column, seen, n=1)
            hint = f"; did you mean {name}={near[0]}?" if near else ""
            has = ", ".join(seen) or "none"
            raise UserError(
                f"columns: there is no column {excerpt(column)} in {' + '.join(sources)}; it has {has}{hint}"
            )
