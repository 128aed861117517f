"""Tables -> rows: CSV, whatever separates its cells, and the files of parquet and Arrow."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from preflab.data.fields import excerpt
from preflab.data.reading import LONGEST_ROW, NOT_UTF8, BinaryFile, FileError, given_twice, lines_of

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SNIFFED = 1 << 16  # bytes from which the delimiter is told
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # without it, rows can be missing with nobody missing them
_BATCH = 256  # rows of a columnar file that are held at once


def csv_rows(file: BinaryFile) -> Iterator[Any]:
    """Rows by the names in the header. Cells are parted by whichever of commas, semicolons, tabs and bars parts the
    header and the first rows evenly.
    """
    delimiter = _delimiter(file.read(_SNIFFED).decode("utf-8-sig", errors="replace"))
    file.seek(0)
    lines = _decoded(file)
    csv.field_size_limit(LONGEST_ROW)  # the default, 128 KiB, is less than a long conversation
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    try:
        header = next(reader, None)
        if header is None:
            return
        if (twice := given_twice(header)) is not None:
            raise FileError(f"column {excerpt(twice)} appears more than once in the header", 1)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise FileError(f"{len(cells)} cells where the header has {len(header)}", reader.line_num)
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise FileError(f"broken CSV: {error}", reader.line_num) from None


def _decoded(file: BinaryFile) -> Iterator[str]:
    """The lines as text, also where they end in a carriage return, without a first one that tells the delimiter."""
    for number, line in enumerate(lines_of(file), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise FileError(NOT_UTF8, number) from None
        if number == 1 and _SEP.fullmatch(text):
            continue
        yield from io.StringIO(text, newline="")


_SEP = re.compile(r"sep=(.)\r?\n?")  # Excel's


def _delimiter(start: str) -> str:
    said = _SEP.match(start)
    if said and said.end() < len(start):
        return said[1]
    found = {delimiter: rows for delimiter in _DELIMITERS if (rows := _parted(start, delimiter))}
    even = [delimiter for delimiter, rows in found.items() if len({len(row) for row in rows}) == 1]
    # A name with another delimiter in it is more likely two names.
    clean = [delimiter for delimiter in even if not any(set(name) & _DELIMITERS.keys() for name in found[delimiter][0])]
    if len(clean) == 1 or len(even) == 1:
        return (clean if len(clean) == 1 else even)[0]
    if even:
        ways = "; or ".join(f"by {_DELIMITERS[one]}: {excerpt(', '.join(found[one][0]))}" for one in even)
        raise FileError(
            f"its cells can be parted in several ways, {ways}. Put names and cells into quotes, or use one", 1
        )
    # Nothing fits all rows: the reader will say in which line, by the delimiter that most of the header speaks for.
    return max(found, key=lambda delimiter: (len(found[delimiter][0]), delimiter == ","), default=",")


def _parted(start: str, delimiter: str) -> list[list[str]]:
    """The first rows, if this delimiter parts the header; the last, which may be cut, left out."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(row for row in csv.reader(io.StringIO(start, newline=""), strict=True, delimiter=delimiter) if row)
    if len(start) >= _SNIFFED // 4 and len(rows) > 1:
        rows.pop()
    return rows if rows and len(rows[0]) > 1 else []


def parquet_rows(file: BinaryFile) -> Iterator[Any]:
    """The rows of a parquet file."""
    import pyarrow.parquet

    with _readable("parquet"):
        # By default whole groups of rows are read ahead, and a file may well be one group.
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        yield from _rows(table.schema_arrow, table.iter_batches(batch_size=_BATCH, use_threads=False))


def arrow_rows(file: BinaryFile) -> Iterator[Any]:
    """The rows of an Arrow file, as `datasets` saves them."""
    import pyarrow

    with _readable("Arrow"):
        is_file = file.read(6) == b"ARROW1"
        file.seek(-min(8, file.seek(0, 2)), 2)
        if not is_file and file.read(8) != _END_OF_STREAM:
            raise FileError("not a readable Arrow file, or cut off: it has no end; save or copy it again")
        file.seek(0)
        if is_file:
            table = pyarrow.ipc.open_file(file)
            yield from _rows(table.schema, (table.get_batch(index) for index in range(table.num_record_batches)))
        else:
            yield from _rows((stream := pyarrow.ipc.open_stream(file)).schema, stream)


def _rows(schema: Any, batches: Iterable[Any]) -> Iterator[Any]:
    if (twice := given_twice(schema.names)) is not None:
        raise FileError(f"column {excerpt(twice)} appears more than once")
    for batch in batches:
        batch.validate(full=True)  # a damaged one can point outside itself, and would end the process
        for start in range(0, batch.num_rows, _BATCH):
            for row in batch.slice(start, _BATCH).to_pylist():
                # NaN is what pandas writes where a cell is empty.
                yield {name: None if value != value else value for name, value in row.items()}


@contextmanager
def _readable(kind: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except UnicodeDecodeError:
        raise FileError("text in it is not valid UTF-8; write the file again with text in UTF-8") from None
    except (pyarrow.ArrowException, MemoryError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk, not of what the file holds
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError(f"not a readable {kind} file, or damaged: {said[:200]}") from None
