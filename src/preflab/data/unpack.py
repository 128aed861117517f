"""Chat messages and lists that a file holds in another form: as the text of a list, or column by column.

A table has no place for lists, so messages in a CSV file are text: JSON, what Python prints for a list of dicts, or
what numpy prints for an array of them; so are several responses and their scores. They are read as what they were.
Nothing is evaluated: it must be literals.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from preflab.core.records import RowError
from preflab.data.fields import Row, excerpt
from preflab.data.messages import is_message, rows_of_columns
from preflab.data.names import CANDIDATES, LIST_RANKS, LIST_SCORES, is_number

_LONGEST = 1 << 24  # characters of a text that is read as Python's literals
_DEEPEST = 50  # brackets within brackets

# What a list of messages, or one message, begins with as text; the text of a response may begin so too.
_BEGINNING = re.compile(r"\s*(?P<list>(?:array\()?\[\s*)?\{\s*[\"'](?P<key>\w+)[\"']\s*:")
# The same with a role of a chat: what begins so and cannot be read is damaged, not a response.
_BEGINNING_OF_CHAT = re.compile(
    r"\s*(?:array\()?\[\s*\{\s*[\"'](?:role|from)[\"']\s*:\s*[\"'](?:user|human|system|assistant|gpt)[\"']\s*,"
)
_STRINGS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_BETWEEN_ROWS = re.compile(r"\}\s*\n\s*\{")  # numpy prints no commas; line breaks within strings are escaped
_NUMBERS = re.compile(r"[\d.eE+\-\s]+")  # as numpy prints them, without commas
_ARRAY = re.compile(r"\s*array\((?P<inner>.*?),?\s*dtype=object\)\s*", re.DOTALL)


def unpack(row: Row) -> Row:
    """The row, with messages where it holds them as text or column by column, and with lists in the columns that hold
    one item for each response; a text that is no such list stays.

    Raises RowError for a text that begins as a list of messages and breaks off.
    """
    unpacked = {name: value for name in row if (value := _unpacked(name, row[name])) is not row[name]}
    unpacked |= _lists(row, unpacked)
    return {**row, **unpacked} if unpacked else row


def _unpacked(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return rows_of_columns(value)
    if not isinstance(value, str) or not _BEGINNING.match(value):
        return value
    found = rows_of_columns(literal(value))
    if is_message(found) or (isinstance(found, list) and found and all(is_message(item) for item in found)):
        return found
    if found is None and _BEGINNING_OF_CHAT.match(value):
        shown = excerpt(value, 30)
        raise RowError(
            "broken messages", f"`{name}` is text that begins as a list of messages, {shown}, and cannot be read as one"
        )
    return value


def _lists(row: Row, unpacked: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns of a row with the text of a list that has one item for each response: responses in a column with such
    a name, their scores, and under any name the list that is as long as the scores.
    """
    texts = {name: value for name, value in row.items() if isinstance(value, str) and name not in unpacked}
    written = {name: items for name, value in texts.items() if (items := written_list(value))}
    numbers = {name: items for name, items in written.items() if all(map(is_number, items))}
    scores = {name: items for name, items in numbers.items() if name.lower() in _SCORES}
    lengths = {len(items) for items in scores.values()}
    responses = {
        name: items
        for name, items in written.items()
        if name not in numbers and (name.lower() in CANDIDATES or len(items) in lengths)
    }
    return {**scores, **responses}


_SCORES = frozenset((*LIST_SCORES, *LIST_RANKS))


def written_list(text: str) -> list[Any] | None:
    """The list of texts, of numbers or of objects that a text writes; None if it writes none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    inner = text[1:-1]
    strings = [match[0] for match in _STRINGS.finditer(inner)]
    if len(strings) > 1 and not _STRINGS.sub("", inner).strip():  # numpy's; Python would join what no comma parts
        found: Any = [literal(string) for string in strings]
    elif _NUMBERS.fullmatch(inner) and all(map(is_number, inner.split())):
        found = [float(number) for number in inner.split()]
    else:
        found = literal(text)
    if not isinstance(found, list) or not found:
        return None
    one_kind = any(all(isinstance(item, kind) for item in found) for kind in (str, int | float, dict))
    return found if one_kind else None


def literal(text: str) -> Any:
    """The value that a text writes in JSON or in Python's literals; None if it writes none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    bare = _STRINGS.sub("", text)
    if len(text) > _LONGEST or _depth(bare) > _DEEPEST:
        return None
    try:
        return ast.literal_eval(_as_list(text.strip()))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _as_list(text: str) -> str:
    """numpy's way to print an array of dicts -> Python's way to print a list of them."""
    if whole := _ARRAY.fullmatch(text):
        text = whole["inner"]
    return _BETWEEN_ROWS.sub("}, {", text)


def _depth(bare: str) -> int:
    depth = deepest = 0
    for character in bare:
        depth += (character in "[{(") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest
