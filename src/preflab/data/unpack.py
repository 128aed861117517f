"""Chat messages that a file holds in another form: as the text of a list of messages, or column by column.

A table has no place for lists, so messages in a CSV file are text: JSON, what Python prints for a list of dicts, or
what numpy prints for an array of them. They are read as what they were. Nothing is evaluated: it must be literals.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from preflab.data.fields import Row, excerpt
from preflab.data.messages import is_message, rows_of_columns
from preflab.records import RowError

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
_ARRAY = re.compile(r"\s*array\((?P<inner>.*?),?\s*dtype=object\)\s*", re.DOTALL)


def unpack(row: Row) -> Row:
    """The row, with messages where it holds them as text or column by column; a text that is no such list stays.

    Raises RowError for a text that begins as a list of messages and breaks off.
    """
    unpacked = {name: value for name in row if (value := _unpacked(name, row[name])) is not row[name]}
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
