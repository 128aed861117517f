"""What all readers of files share: how large a row may be, lines within that, and how a bad file is told."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

BinaryFile = gzip.GzipFile | io.BufferedReader

LONGEST_ROW = 64 << 20
"""Bytes of one row; what is longer is no row of text, and would be held in memory several times over."""
NOT_UTF8 = "not valid UTF-8; save the file as UTF-8"
TOO_LONG = f"a row of more than {LONGEST_ROW >> 20} MiB; a file has one row for each prompt, not one for all of them"

# Text shrinks to a tenth, and rarely below a fiftieth; gzip's utmost, of one byte repeated, is a thousandth.
_CHECKED_FROM = 256 << 20
_UTMOST_RATIO = 300
_MOST_BLANK = 1_000_000


class FileError(Exception):
    """Raised by readers: what is wrong, and in which line. `read_file` adds the file's name."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)


class _BoundedGzip(gzip.GzipFile):
    """A gzip file that is given up where it grows as no text does: a bomb, made to fill memory or to take for ever."""

    def read(self, size: int | None = -1) -> bytes:
        return self._checked(super().read(size))

    def readline(self, size: int | None = -1) -> bytes:
        return self._checked(super().readline(size))

    def _checked(self, data: bytes) -> bytes:
        made = self.tell()
        if made > _CHECKED_FROM and made > _UTMOST_RATIO * cast(BinaryIO, self.fileobj).tell():
            raise FileError(
                f"its first {made >> 20} MiB are more than {_UTMOST_RATIO} times as large as what they are packed in, "
                "which text is not; unpack the file if it is meant"
            )
        return data


def open_binary(path: Path) -> BinaryFile:
    """The bytes of a file, unpacked where its name ends in .gz."""
    return _BoundedGzip(path) if path.name.lower().endswith(".gz") else path.open("rb")


def lines_of(file: BinaryFile) -> Iterator[bytes]:
    """The lines of a file, none longer than `LONGEST_ROW`, and not blank for ever."""
    number = blank = 0
    while line := file.readline(LONGEST_ROW + 1):
        number += 1
        blank = blank + 1 if line.isspace() else 0
        if blank > _MOST_BLANK:
            raise FileError(
                f"more than {_MOST_BLANK:,} blank lines one after the other; no rows are to be expected", number
            )
        if len(line) > LONGEST_ROW:
            raise FileError(TOO_LONG, number)
        yield line


def given_twice(names: Iterable[str]) -> str | None:
    """The first name that came before, None where all differ; there may be a million of them."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    names = {
        list: "an array",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
