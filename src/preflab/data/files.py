"""Local files -> rows, a few at a time, so that memory stays flat however long the file is."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from preflab.core.records import UserError
from preflab.data.json_rows import json_file, json_lines
from preflab.data.reading import BinaryFile, FileError, kind_of, open_binary
from preflab.data.tables import arrow_rows, csv_rows, parquet_rows

READERS: dict[str, Callable[[BinaryFile], Iterator[Any]]] = {
    ".json": json_file,
    ".jsonl": json_lines,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
    ".json.gz": json_file,
    ".jsonl.gz": json_lines,
    ".csv.gz": csv_rows,
}


def ending_of(path: Path) -> str:
    """`a/b.jsonl.gz` -> `.jsonl.gz`, in lower case."""
    name = path.name.lower()
    return "".join(Path(name).suffixes[-2:]) if name.endswith(".gz") else Path(name).suffix


def read_file(path: Path, part: str | None = None) -> Iterator[dict[str, Any]]:
    """Path -> the rows of the file; of a JSON object that holds several arrays of rows, those of the one called `part`.

    Raises UserError with file and line where the file is not what its ending says.
    """
    ending = ending_of(path)
    last = 0
    try:
        with open_binary(path) as file:
            rows = json_file(file, part) if part else READERS[ending](file)
            for last, row in enumerate(rows, 1):
                if not isinstance(row, dict):
                    raise FileError(f"row {last} is {kind_of(row)}; each row must be an object with named fields")
                yield row
    except FileError as problem:
        raise UserError(f"{path}, {problem}" if str(problem).startswith("line ") else f"{path}: {problem}") from None
    except gzip.BadGzipFile:
        raise UserError(f"{path}: not a gzip file, though its name ends in .gz") from None
    except (EOFError, zlib.error):
        raise UserError(
            f"{path}: the gzip file is truncated or damaged after row {last}; copy or download it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
