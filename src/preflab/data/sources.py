"""Where rows come from: a *source spec* is one string naming a file, a folder, the sandbox, or a data set on the hub.

    pairs.jsonl.gz                 a local .json, .jsonl, .csv (each also .gz), .parquet or .arrow file
    pairs.json:test                one of several arrays of rows in a .json file
    data/pairs/                    a folder of such files, in the order of their names, or what `datasets` saved
    data/pairs:train               of a folder, the files of one split
    sandbox:preferences?rows=2000  rows of the embedded sandbox
    in-memory:20-rows-….jsonl      rows that a Python session handed over, kept in the cache
    owner/name@config:split        a data set on the Hugging Face hub; `@config` may be left out, `:split` is train

Each may end in a slice of its rows, written as in Hugging Face splits: `[:-300]`, `[-300:]`, `[:80%]`, `[100:200]`; and
that in a slice of the slice.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from preflab.core.durable import check_rows
from preflab.core.plugins import home_path
from preflab.core.records import UserError
from preflab.core.rundir import digest_file
from preflab.data.columns import check_columns, columns_by_name, columns_of, renamed
from preflab.data.fields import excerpt
from preflab.data.files import READERS, ending_of, read_file
from preflab.data.folders import files_of, missing
from preflab.data.hub import load_from_hub
from preflab.data.in_memory import SCHEME, file_of

Row = dict[str, Any]
NumberedRow = tuple[int, Row]


@dataclass(frozen=True)
class Source:
    """Rows that can be read any number of times, lazily, as `(number, row)`.

    `number` counts from 1 in the file (or data set) itself, whatever slice or sample is taken of it; in a mixture the
    numbers of a later part go on where the earlier part ended. Raises UserError where the rows cannot be read.
    """

    name: str
    numbered: Callable[[], Iterator[NumberedRow]] = field(repr=False)
    fingerprint: Callable[[], str] = field(repr=False)
    """Changes whenever the rows may have: SHA-256 of a file, the fingerprint of a hub data set, the sandbox's query."""
    where: Callable[[int], str] = field(repr=False)
    """Row number -> the place to name in a message, e.g. `pairs.jsonl row 12`."""
    parts: tuple[Source, ...] = field(default=(), repr=False)
    """The sources of a mixture, which may differ in format; empty where there is but one."""
    part_of: Callable[[int], int] = field(default=lambda _: 0, repr=False)
    """Row number -> index of its part."""
    notes: tuple[str, ...] = ()
    """What the user should be told of the source: that it mixes splits, say."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Name that a column was given (`--columns`) -> the column of the data."""
    replaced: tuple[str, ...] = ()
    """Columns that gave way to one that was given their name."""

    def __iter__(self) -> Iterator[NumberedRow]:
        return self.numbered()


def open_source(spec: str) -> Source:
    """Source spec -> its rows. A missing file is an error at once; all else is looked at when the rows are read."""
    try:
        return _open(spec.strip())
    except UserError:
        raise
    except (OSError, ValueError) as error:  # a path that is too long, or holds a null character
        raise UserError(f"{excerpt(spec)}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _open(spec: str) -> Source:
    base, span = _split_slice(spec)
    if span:
        return _sliced(_open(base), spec, span)
    if not base:
        raise UserError(
            "Empty source: give a file, a folder, a hub id such as owner/name:train, or sandbox:preferences?rows=2000"
        )
    if base.startswith("sandbox:"):
        return _sandbox_source(base)
    if base.startswith(SCHEME):
        path = file_of(base)
        return _plain(base, lambda: read_file(path), lambda: _digest(path))
    if is_on_hub(base):
        return _hub_source(base)
    place, part = _split_part(base)
    path = home_path(place)
    return _folder_source(path, part) if path.is_dir() else _file_source(path, part)


def is_file_of_rows(spec: str) -> bool:
    """Whether a spec names, by its ending, a file (or a slice or part of one), and not a folder."""
    base = re.sub(r"(\[[^\[\]]*:[^\[\]]*\])+$", "", spec.strip())
    path = home_path(_split_part(base)[0])
    return ending_of(path) in READERS and not path.is_dir()


def is_on_hub(spec: str) -> bool:
    """Whether a spec names a data set of the Hugging Face hub, and neither the sandbox nor a file or folder."""
    base, span = _split_slice(spec.strip())
    if span:
        return is_on_hub(base)
    return bool(base) and not base.startswith("sandbox:") and not _looks_like_a_file(base)


def open_sources(specs: Sequence[str], columns: Sequence[str] = (), *, beside: Sequence[str] = ()) -> Source:
    """Several specs -> one source that reads them one after the other; `where` still names each row's own file.

    `columns` are pairs `name=column` (see `ColumnNames`): rows have their columns under these names, and a column that
    had such a name before gives way. Raises UserError for a column that neither these sources have nor those `beside`
    them, which are read with the same pairs.
    """
    if not specs:
        raise UserError("No source given")
    twice = sorted({spec for spec in specs if list(specs).count(spec) > 1})
    if twice:
        raise UserError(f"Source given more than once: {', '.join(twice)}")
    parts = tuple(open_source(spec) for spec in specs)
    if columns:
        names = columns_by_name(columns)
        given = (*parts, *map(open_source, beside))
        check_columns(names, {part.name: (row for _, row in part) for part in given})
        parts = tuple(_renamed(part, names) for part in parts)
    return join_sources(parts)


def _renamed(source: Source, names: Mapping[str, str]) -> Source:
    kind = f"columns {json.dumps(names, sort_keys=True)}"
    present = columns_of(row for _, row in source).keys()
    replaced = tuple(
        name for name, column in names.items() if column in present and name in present - {*names.values()}
    )
    return replace(
        source,
        renamed={name: column for name, column in names.items() if column in present},
        replaced=replaced,
        numbered=lambda: ((number, renamed(row, names, replaced)) for number, row in source),
        fingerprint=lambda: f"{source.fingerprint()} {kind}",
    )


def join_sources(parts: tuple[Source, ...]) -> Source:
    """Sources, one after the other, as the parts of one."""
    joined, part_of = _joined(" + ".join(part.name for part in parts), parts)
    return replace(joined, parts=parts, part_of=part_of) if len(parts) > 1 else parts[0]


def sample_rows(source: Source, n: int, seed: int, *, by: str | None = None) -> Source:
    """A seeded sample of n rows in their own order (all rows, if there are no more), never merely the first n.

    With `by`, the name of a column, every value of that column keeps its share of the rows, to one row. Memory: some
    20 bytes a row.
    """
    if n < 1:
        raise UserError(f"A sample needs at least 1 row, not {n}")

    @cache
    def chosen() -> list[int]:
        return _choose_rows(source, n, seed, by)

    def numbered() -> Iterator[NumberedRow]:
        wanted = iter(chosen())
        following = next(wanted, None)
        for number, row in source:
            if number == following:
                yield number, row
                following = next(wanted, None)
                if following is None:
                    return

    kind = f"sample of {n}, seed {seed}" + (f", by {by}" if by else "")
    return replace(
        source,
        name=f"{source.name} ({kind})",
        numbered=numbered,
        fingerprint=lambda: f"{source.fingerprint()} {kind}",
    )


def _choose_rows(source: Source, n: int, seed: int, by: str | None) -> list[int]:
    """The sorted numbers of the rows in the sample. Strata get their shares by largest remainder."""
    strata: dict[str, int] = {}
    numbers, codes = array("q"), array("i")
    for number, row in source:
        if by is not None and by not in row:
            raise UserError(
                f"{source.where(number)}: no column `{by}` to stratify by; it has {', '.join(map(str, row))}"
            )
        numbers.append(number)
        codes.append(strata.setdefault(str(row[by]) if by else "", len(strata)))
    all_numbers, all_codes = np.asarray(numbers), np.asarray(codes)
    if n >= len(all_numbers):
        return [int(number) for number in all_numbers]
    exact = np.bincount(all_codes) * n / len(all_codes)
    share = exact.astype(int)
    share[np.argsort(share - exact, kind="stable")[: n - share.sum()]] += 1
    draw = np.random.default_rng(seed)
    chosen = [draw.choice(all_numbers[all_codes == code], size, replace=False) for code, size in enumerate(share)]
    return [int(number) for number in np.sort(np.concatenate(chosen))]


# Slices -------------------------------------------------------------------------------------------------------------

_END = r"-?\d{1,18}%?"
_SLICE = re.compile(rf"\[({_END})?:({_END})?\]")


def _split_slice(spec: str) -> tuple[str, tuple[str, str] | None]:
    """`x.csv[:80%]` -> `x.csv`, ("", "80%"). Another thing in brackets is an error, unless a file has that name."""
    if not spec.endswith("]") or Path(spec).exists():
        return spec, None
    base, bracket, _ = spec.rpartition("[")
    found = _SLICE.fullmatch(spec[len(base) :]) if bracket else None
    if found is None:
        what = f"the slice at the end is not understood, {excerpt(spec[len(base) :], 40)}"
        raise UserError(f"{excerpt(base, 200)[1:-1]}: {what}; write [:-300], [-300:], [100:200] or [:80%]")
    span = (found[1] or "", found[2] or "")
    if any(end.endswith("%") and abs(int(end[:-1])) > 100 for end in span):
        raise UserError(f"{spec}: a percentage in a slice lies between -100% and 100%")
    return base, span


def _sliced(source: Source, spec: str, span: tuple[str, str]) -> Source:
    @cache
    def bounds() -> tuple[int, int | None]:
        # Ends that count from the back, or in percent, need all rows counted; others only as many as they name.
        relative = any(end.startswith("-") or end.endswith("%") for end in span)
        furthest = None if relative else max(int(end or 0) for end in span) + 1
        total = sum(1 for _ in islice(iter(source), furthest))
        start, stop = _position(span[0] or "0", total), _position(span[1], total) if span[1] else None
        if not (0 <= start <= total and 0 <= (stop or 0) <= total):
            raise UserError(f"{spec}: the slice reaches beyond the {total} rows of {source.name}")
        if start >= (total if stop is None else stop):
            raise UserError(
                f"{spec}: the slice holds no row (it goes from {start} to {total if stop is None else stop})"
            )
        return start, stop

    return replace(
        source,
        name=spec,
        numbered=lambda: islice(iter(source), *bounds()),
        fingerprint=lambda: f"{source.fingerprint()}[{span[0]}:{span[1]}]",
    )


def _position(end: str, total: int) -> int:
    """One end of a slice -> the number of rows before it. Percentages round to the nearest row, as `datasets` does."""
    value = round(int(end[:-1]) * total / 100) if end.endswith("%") else int(end)
    return value + total if end.startswith("-") else value


# Kinds of source ----------------------------------------------------------------------------------------------------


def _plain(name: str, rows: Callable[[], Iterable[Row]], fingerprint: Callable[[], str]) -> Source:
    return Source(
        name, lambda: _not_empty(name, enumerate(rows(), 1)), fingerprint, lambda number: f"{name} row {number}"
    )


def _not_empty(name: str, rows: Iterator[NumberedRow]) -> Iterator[NumberedRow]:
    first = next(rows, None)
    if first is None:
        raise UserError(f"{name}: no rows in it")
    yield first
    yield from rows


def _joined(name: str, parts: Sequence[Source]) -> tuple[Source, Callable[[int], int]]:
    """The rows of one part after the other, and the function that says of which part a row number is."""
    before: list[int] = []  # the number before the first one of each part, as far as has been read
    reached = 0

    def numbered() -> Iterator[NumberedRow]:
        nonlocal reached
        last = 0
        for index, part in enumerate(parts):
            offset = last
            if index == len(before):
                before.append(offset)
            for number, row in part:
                last = offset + number
                reached = max(reached, last)
                yield last, row

    def part_of(number: int) -> int:
        if number > reached:  # known from an earlier run, not read in this one
            next((last for last, _ in numbered() if last >= number), None)
        return bisect_left(before, number) - 1

    def where(number: int) -> str:
        index = part_of(number)
        return parts[index].where(number - before[index])

    def fingerprint() -> str:
        return hashlib.sha256("\n".join(part.fingerprint() for part in parts).encode()).hexdigest()

    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Source(name, numbered, fingerprint, where, notes=notes), part_of


def _split_part(base: str) -> tuple[str, str | None]:
    """`pairs.json:test`, `data/pairs:train` -> what is before the colon, where it is a file or a folder, and after."""
    before, colon, part = base.rpartition(":")
    if not colon or not re.fullmatch(r"[\w.+-]+", part) or Path(base).exists():
        return base, None
    path = home_path(before)
    return (before, part) if path.is_dir() or ending_of(path) in READERS else (base, None)


def _file_source(path: Path, part: str | None = None) -> Source:
    if not path.is_file():
        raise UserError(missing(path))
    # What preflab itself has written and finished, responses or scores, is used as it was written.
    check_rows(path, path.with_name(f"{path.name.removesuffix('.jsonl').removesuffix('.json')}.manifest.json"))
    ending = ending_of(path)
    if ending not in READERS:
        raise UserError(f"{path}: files of this kind are not read; it must end in one of {', '.join(READERS)}")
    if not part:
        return _plain(str(path), lambda: read_file(path), lambda: _digest(path))
    if ending not in (".json", ".json.gz"):
        raise UserError(f"{path}:{part}: only a .json file has parts with names; leave :{part} out")
    return _plain(f"{path}:{part}", lambda: read_file(path, part), lambda: f"{_digest(path)}:{part}")


def _digest(path: Path) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _folder_source(folder: Path, split: str | None) -> Source:
    found = files_of(folder, split)
    name = f"{folder}:{split}" if split else str(folder)
    joined = _joined(name, [_file_source(path) for path in found.paths])[0]
    return replace(joined, notes=(found.note,) if found.note else ())


def _looks_like_a_file(base: str) -> bool:
    path = home_path(base)
    if _split_part(base)[1]:
        return True
    absolute_or_dotted = path.is_absolute() or base.startswith((".", "~")) or "\\" in base
    return path.exists() or absolute_or_dotted or ending_of(path) in READERS or not _HUB_ID.fullmatch(base)


def _sandbox_source(query: str) -> Source:
    from preflab.sandbox.source import sandbox_source

    def fingerprint() -> str:
        # The grammar may change from one version to the next, so its first sentences are part of the fingerprint.
        start = json.dumps(list(islice(sandbox_source(query), 16)), sort_keys=True)
        return f"{query} {hashlib.sha256(start.encode()).hexdigest()}"

    return _plain(query, lambda: sandbox_source(query), fingerprint)


_HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(?P<config>[\w.-]+))?(?::(?P<split>[\w.+-]+))?")


def _hub_source(base: str) -> Source:
    found = _HUB_ID.fullmatch(base)
    assert found is not None, "only what reads as a hub id comes here"
    split = found["split"] or "train"
    loaded: list[Any] = []  # the data set, once asked for

    def dataset() -> Any:
        if not loaded:
            loaded.append(load_from_hub(base, found["id"], found["config"], split))
        return loaded[0]

    return _plain(base, lambda: dataset(), lambda: f"{found['id']}@{found['config']}:{split} {dataset()._fingerprint}")
