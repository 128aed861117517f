"""JSON -> rows, one at a time: one decoder for lines, arrays and whole files, so that a row means the same in each.

NaN, which pandas writes for an empty cell, is a value that is missing, as null is. Whole numbers keep all their digits.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from preflab.data.fields import excerpt
from preflab.data.reading import (
    LONGEST_ROW,
    NOT_UTF8,
    TOO_LONG,
    BinaryFile,
    FileError,
    given_twice,
    kind_of,
    lines_of,
)

_DEEPEST = 200  # brackets within brackets: several times what any row needs, and no trouble for what follows
_MOST_DIGITS = 1000
_BLOCK = 1 << 16


class _ValueRefusedError(ValueError):
    """JSON that is well formed, and yet not to be read."""


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _ValueRefusedError(f"a whole number of {len(digits):,} digits; at most {_MOST_DIGITS:,} are read")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = given_twice(name for name, _ in pairs)
        raise _ValueRefusedError(
            f"the field {excerpt(twice)} stands twice in one object, and only one of them can be meant"
        )
    return made


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_whole_number,
    parse_constant={"NaN": None, "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__,
)


def _decode(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, and where it ends. Raises JSONDecodeError, or _ValueRefusedError."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise _ValueRefusedError(f"nested more than {_DEEPEST} deep") from None
    if text.count("[", start, end) + text.count("{", start, end) > _DEEPEST and _depth(value) > _DEEPEST:
        raise _ValueRefusedError(f"nested more than {_DEEPEST} deep")
    return value, end


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


# ---- JSON lines ----------------------------------------------------------------------------------------------------


def json_lines(file: BinaryFile) -> Iterator[Any]:
    """The object on each line; blank lines are passed over."""
    for number, line in enumerate(lines_of(file), 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        row = _one_line(line, number)
        if not isinstance(row, dict):
            hint = "; a JSON array belongs in a file that ends in .json" if isinstance(row, list) else ""
            raise FileError(f"{kind_of(row)}; each line must be an object with named fields{hint}", number)
        yield row


def _one_line(line: bytes, number: int) -> Any:
    try:
        text = line.decode().strip()
        row, end = _decode(text, 0)
        if end < len(text):
            raise json.JSONDecodeError("more after the end of the object", text, end)
        return row
    except UnicodeDecodeError:
        utf16 = line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise FileError(f"{'this is UTF-16, ' if utf16 else ''}{NOT_UTF8}", number) from None
    except json.JSONDecodeError as error:
        hint = "; a file of JSON that is not one object per line must end in .json" if number == 1 else ""
        raise FileError(f"broken JSON at column {error.colno}: {error.msg}{hint}", number) from None
    except _ValueRefusedError as error:
        raise FileError(f"JSON that cannot be read: {error}", number) from None


# ---- JSON files ----------------------------------------------------------------------------------------------------

# What an object is called by that holds rows; and what fields a row has itself, beside a list of objects.
_HOLDERS = {"data", "rows", "results", "examples", "instances", "records", "items", "samples", "train", "test"}
_OF_ROWS = {
    *("prompt", "question", "instruction", "input", "query", "context", "history", "post", "text"),
    *("chosen", "rejected", "messages", "conversation", "conversations", "response", "output", "completion"),
}


def json_file(file: BinaryFile, name: str | None = None) -> Iterator[Any]:
    """An array of objects; an object that holds such an array (`name` says which), or is itself a row; or objects one
    after the other, as in JSON lines: the opening decides.
    """
    opening = _Text(file).following()
    if opening == "[" and not name:
        yield from _array(_Text(file), ends=True)
    elif opening == "{":
        yield from _object_or_objects(file, name)
    elif opening == "[":
        raise FileError(f"it holds one array of rows, and none that is called {excerpt(name)}")
    elif opening:
        raise FileError("not JSON rows; an array of objects, or one object per line, is expected", 1)


def _object_or_objects(file: BinaryFile, name: str | None) -> Iterator[Any]:
    text = _Text(file)
    held = _outline(text)
    if text.following() and not name:
        yield from _one_after_the_other(_Text(file))
        return
    wanted = name or _holder(held)
    if wanted is None:
        yield _Text(file).value()
        return
    rows = [key for key, value in held.items() if isinstance(value, _Rows)]
    if wanted not in rows:
        raise FileError(f"it holds no array of rows called {excerpt(wanted)}; it has {', '.join(rows) or 'none'}")
    text = _Text(file)
    for key in _fields(text):
        if key == wanted:
            yield from _array(text)
            return
        text.value_or_rows()


def _one_after_the_other(text: _Text) -> Iterator[Any]:
    while text.following():
        yield text.value()


def _array(text: _Text, *, ends: bool = False) -> Iterator[Any]:
    """The items of an array; with `ends`, nothing may follow it."""
    for number, _ in enumerate(_items(text, "[", "]"), 1):
        yield text.value(f" in row {number}")
    if ends and text.following():
        raise FileError("broken JSON: more after the end of the array", text.line)


@dataclass(frozen=True, slots=True)
class _Rows:
    """An array that begins with an object, by that object."""

    first: dict[str, Any]


def _outline(text: _Text) -> dict[str, Any]:
    """The fields of an object, with arrays of objects not held in memory."""
    held: dict[str, Any] = {}
    for key in _fields(text):
        if key in held:
            raise FileError(f"the field {excerpt(key)} stands twice in one object", text.line)
        held[key] = text.value_or_rows()
    return held


def _holder(held: dict[str, Any]) -> str | None:
    """The one field that holds the rows; None where the object is a row itself."""
    arrays = [key for key, value in held.items() if isinstance(value, _Rows) and not value.first.keys() & _MESSAGE]
    if not arrays or (held.keys() & _OF_ROWS and not (len(arrays) == 1 and arrays[0] in _HOLDERS)):
        _refuse_columns(held)
        return None
    if len(arrays) > 1:
        likely = next((name for name in arrays if name in _HOLDERS), arrays[0])
        raise FileError(
            f"a JSON object must hold exactly one array of rows; it holds {len(arrays)}: {', '.join(arrays)}. Say "
            f"which: add :{likely} to the file's name"
        )
    return arrays[0]


_MESSAGE = {"role", "from"}


def _refuse_columns(held: dict[str, Any]) -> None:
    """A table written column by column, as pandas does, is no row."""
    by_index = all(isinstance(value, dict) and "0" in value for value in held.values())
    if held and (by_index or all(_is_column(value) for value in held.values())):
        raise FileError(
            f"a table written column by column ({', '.join(held)}); rows are needed, in pandas by "
            "to_json(…, orient='records')"
        )
    if not any(isinstance(value, (str, list, _Rows)) for value in held.values()):
        raise FileError(
            "a JSON object must hold exactly one array of rows, or be a row itself; it holds none, and its fields are "
            f"{', '.join(held) or 'none'}"
        )


def _is_column(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(item, (str, int, float)) for item in value)


# ---- text, as far as it is needed ----------------------------------------------------------------------------------

_NOT_SPACE = re.compile(r"[^ \t\n\r]")
_ROWS = re.compile(r"\[[ \t\n\r]*\{")
_UNDECIDED = re.compile(r"\[[ \t\n\r]*\Z")


def _items(text: _Text, opening: str, closing: str) -> Iterator[None]:
    """Yields before each item of an array or object, which the caller is to read."""
    text.take(opening)
    if text.following() != closing:
        yield
        while text.following() == ",":
            text.take(",")
            yield
    text.take(closing)


def _fields(text: _Text) -> Iterator[str]:
    """Yields the name of each field of an object, before its value, which the caller is to read."""
    for _ in _items(text, "{", "}"):
        key = text.value()
        if not isinstance(key, str):
            raise FileError(f"broken JSON: {excerpt(key)} where the name of a field is expected", text.line)
        text.take(":")
        yield key


class _Text:
    """The text of a JSON file from its beginning, held as far as it is not read, and read value by value."""

    def __init__(self, file: BinaryFile) -> None:
        file.seek(0)
        self.line = 1
        """Where the next value begins."""
        self._file = file
        self._text, self._at = "", 0
        self._undecoded = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
        self._ended = self._bad = False

    def following(self) -> str:
        """The next character that is no space; nothing at the end."""
        while not (found := _NOT_SPACE.search(self._text, self._at)):
            self._pass_to(len(self._text))
            if not self._more():
                return ""
        self._pass_to(found.start())
        return found[0]

    def take(self, character: str) -> None:
        if (found := self.following()) != character:
            what = f"{found!r} where {character!r} is expected" if found else "it ends too early"
            raise FileError(f"broken JSON: {what}", self.line)
        self._pass_to(self._at + 1)

    def value(self, of: str = "") -> Any:
        """The next value; `of` says in a message what it belongs to."""
        self.following()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Cut off where the text that is held ends, or where a string began that does not end in it.
                cut = error.pos > len(self._text) - 16 or error.msg.startswith("Unterminated string")
                line = self.line + self._text.count("\n", self._at, error.pos)
                if cut and self._more():
                    continue
                raise FileError(f"broken JSON{of}: {error.msg if self._text else 'it ends too early'}", line) from None
            except _ValueRefusedError as error:
                raise FileError(f"JSON that cannot be read{of}: {error}", self.line) from None
            if isinstance(value, (int, float)) and end > len(self._text) - len("e+1"):
                start = self._at
                if self._more():
                    continue  # the number may go on: of `1.5e+3`, what is held may end after `1.5e+`
                end += self._at - start
            self._pass_to(end)
            return value

    def value_or_rows(self) -> Any:
        """The next value; of an array of objects no more than its first is held."""
        self.following()
        while _UNDECIDED.match(self._text, self._at) and self._more():
            pass
        if not _ROWS.match(self._text, self._at):
            return self.value()
        items = _array(self)
        first = next(items)
        for _ in items:
            pass
        return _Rows(first)

    def _pass_to(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _more(self) -> bool:
        """Read on, as much again as is held; false at the end of the file."""
        if self._bad:
            raise FileError(NOT_UTF8, self.line + self._text.count("\n", self._at))
        if self._ended:
            return False
        held = self._text[self._at :]
        if len(held) > LONGEST_ROW:
            raise FileError(TOO_LONG, self.line)
        data = self._file.read(max(_BLOCK, len(held)))
        self._ended = not data
        data = self._undecoded + data
        try:
            more, self._undecoded = data.decode(), b""
        except UnicodeDecodeError as error:
            more, self._undecoded = data[: error.start].decode(), data[error.start :]
            self._bad = self._ended or len(self._undecoded) > 3
        self._text, self._at = held + more, 0
        return bool(more) or self._more()
