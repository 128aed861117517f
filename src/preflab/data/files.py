"""Local files -> rows, a few at a time, so that memory stays flat however long the file is."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from preflab.records import UserError

BinaryFile = gzip.GzipFile | io.BufferedReader

# A first line longer than this is taken for a whole file on one line, not for a row of JSON lines.
_LONGEST_FIRST_LINE = 1 << 22
_BOM = b"\xef\xbb\xbf"
_NOT_UTF8 = "not valid UTF-8; save the file as UTF-8"


class _FileError(Exception):
    """Raised by readers: what is wrong, and in which line. `read_file` adds the file's name."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)


def ending_of(path: Path) -> str:
    """`a/b.jsonl.gz` -> `.jsonl.gz`, in lower case."""
    name = path.name.lower()
    return "".join(Path(name).suffixes[-2:]) if name.endswith(".gz") else Path(name).suffix


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """Path -> the rows of the file. Raises UserError with file and line where the file is not what its ending says."""
    ending = ending_of(path)
    last = 0
    try:
        with gzip.open(path) if ending.endswith(".gz") else path.open("rb") as file:
            for last, row in enumerate(READERS[ending](file), 1):
                if not isinstance(row, dict):
                    raise _FileError(f"row {last} is {_kind(row)}; each row must be an object with named fields")
                yield row
    except _FileError as problem:
        raise UserError(f"{path}, {problem}" if str(problem).startswith("line ") else f"{path}: {problem}") from None
    except gzip.BadGzipFile:
        raise UserError(f"{path}: not a gzip file, though its name ends in .gz") from None
    except (EOFError, zlib.error):
        raise UserError(
            f"{path}: the gzip file is truncated or damaged after row {last}; copy or download it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _json_lines(file: BinaryFile) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(_BOM)
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError:
            raise _FileError(_NOT_UTF8, number) from None
        except json.JSONDecodeError as error:
            hint = "; a file of JSON that is not one object per line must end in .json" if number == 1 else ""
            raise _FileError(f"broken JSON at column {error.colno}: {error.msg}{hint}", number) from None
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, a thousand brackets
            raise _FileError(f"JSON that cannot be read: {error}", number) from None
        if not isinstance(row, dict):
            hint = "; a JSON array belongs in a file that ends in .json" if isinstance(row, list) else ""
            raise _FileError(f"{_kind(row)}; each line must be an object with named fields{hint}", number)
        yield row


def _json(file: BinaryFile) -> Iterator[Any]:
    """A JSON array of objects, one object that holds one such array, or JSON lines: the opening decides."""
    import ijson

    start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(start)
    opening = _opening(file)
    file.seek(start)
    if opening == "lines":
        yield from _json_lines(file)
    if opening in ("lines", "nothing"):
        return
    lines = _LineByLine(file)
    try:
        prefix = "item"
        if opening == "object":
            prefix = f"{_only_array(ijson.parse(lines))}.item"
            file.seek(start)
            lines = _LineByLine(file)
        yield from ijson.items(lines, prefix, use_float=True)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split()) or "cut off"
        not_utf8 = isinstance(error, UnicodeDecodeError) or "utf8" in problem.lower()
        raise _FileError(_NOT_UTF8 if not_utf8 else f"broken JSON: {problem[:100]}", lines.line) from None


def _opening(file: BinaryFile) -> Literal["nothing", "array", "object", "lines"]:
    """What a JSON file begins with; of an array, which may be one long line, no more is read than that."""
    start = file.tell()
    while (first := file.read(1)).isspace():
        pass
    if first == b"{":
        file.seek(start)
        line = _next_line(file)
        return "lines" if _next_line(file) and _is_whole_object(line) else "object"
    if first not in (b"[", b""):
        raise _FileError("not JSON rows; an array of objects, or one object per line, is expected", 1)
    return "array" if first else "nothing"


def _next_line(file: BinaryFile) -> bytes:
    """The next line that is not blank, or its first part if it is very long; empty at the end of the file."""
    while (line := file.readline(_LONGEST_FIRST_LINE)) and not line.strip():
        pass
    return line


class _LineByLine:
    """Feeds a parser at most one line at a time, so that the line of an error is known."""

    def __init__(self, file: BinaryFile) -> None:
        self.line = 0
        self._file = file
        self._ended = True

    def read(self, size: int) -> bytes:
        if size == 0:
            return b""
        text = self._file.readline(size)
        self.line += self._ended and bool(text)
        self._ended = text.endswith(b"\n")
        return text


def _is_whole_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _only_array(events: Iterator[tuple[str, str, Any]]) -> str:
    """The name of the one field of the outermost object that holds an array of objects."""
    arrays: list[str] = []
    opened: str | None = None
    for prefix, event, _ in events:
        if event == "start_map" and opened is not None and prefix == f"{opened}.item":
            arrays.append(opened)
        opened = prefix if event == "start_array" and prefix else None
    arrays = [name for name in arrays if "." not in name]
    if len(arrays) != 1:
        found = f"it holds {len(arrays)}: {', '.join(arrays)}" if arrays else "it holds none"
        raise _FileError(f"a JSON object must hold exactly one array of rows; {found}")
    return arrays[0]


def _csv(file: BinaryFile) -> Iterator[Any]:
    csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is less than a long conversation
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise _FileError(f"column {twice[0]!r} appears more than once in the header", 1)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise _FileError(f"{len(cells)} cells where the header has {len(header)}", reader.line_num)
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise _FileError(f"broken CSV: {error}", reader.line_num) from None
    except UnicodeDecodeError:
        raise _FileError(f"at or shortly after line {reader.line_num + 1}, {_NOT_UTF8}") from None


def _parquet(file: BinaryFile) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        # By default whole groups of rows are read ahead, and a file may well be one group.
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        for batch in table.iter_batches(batch_size=1024, use_threads=False):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise _FileError(f"not a readable parquet file: {str(error).splitlines()[0]}") from None


def _kind(value: Any) -> str:
    names = {
        list: "an array",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


READERS: dict[str, Callable[[BinaryFile], Iterator[Any]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".json.gz": _json,
    ".jsonl.gz": _json_lines,
    ".csv.gz": _csv,
}
