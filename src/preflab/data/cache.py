"""Tokenised rows on disk, memory-mapped: made once, then shared by every run that would make the same."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from preflab.core.records import Comparison, TokenizedComparison, UserError
from preflab.core.rundir import default_cache_dir
from preflab.data.overlap import Hashes, LengthBias, json_counts, prompt_hash, row_hash
from preflab.data.tokenize import ChatTemplate, Dropped, OnTooLong

# Each part is one file of int32: all ids, row after row, prompt first; then, to find them, a length or number per row
# (`response_lengths`: per response). `labels` are places in _LABELS. Hashes of a row's text are int64.
_PARTS = {
    **dict.fromkeys(("tokens", "prompt_lengths", "response_counts", "response_lengths", "rows", "labels"), "i"),
    **dict.fromkeys(("prompt_hashes", "row_hashes"), "q"),
}
_LABELS = (False, True, None)
_FIRST_ROWS = 10  # how many row numbers a message about dropped rows can show
_FLUSH_AT = 1 << 20  # ids held before they are written

IntArray = NDArray[np.int32]


class DropCount(TypedDict):
    """How many rows were dropped for one reason, the numbers of the first, and what was found in the very first."""

    count: int
    first_rows: list[int]
    example: str


class TokenizedDataset:
    """Tokenised comparisons, read from disk as they are asked for. Made by `tokenized`.

    Attributes:
        fingerprint: a hash of all that decides the content.
        dropped: reason -> how many rows were dropped for it, and which.
        notes: what else was found of the rows when they were read, as `tokenized` was given it.
        rows: [n] number of each comparison in its source.
        prompt_lengths: [n] in tokens.
        response_lengths: [sum of responses] in tokens, terminator included, row after row.
        response_offsets: [n + 1]; those of row i are `response_lengths[response_offsets[i]:response_offsets[i + 1]]`.
        text_hashes: [n] of each row's prompt, and [n] of the row (see `preflab.data.overlap`).
        bias: how often the best response of a row is longer than the worst, of all rows and of those that are kept.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        parts = {name: _map(folder / f"{name}.bin", meta["checksums"][name], code) for name, code in _PARTS.items()}
        self.fingerprint: str = meta["fingerprint"]
        self.dropped: dict[str, DropCount] = meta["dropped"]
        self.notes: dict[str, Any] = meta["notes"]
        self.rows: IntArray = parts["rows"]
        self.prompt_lengths: IntArray = parts["prompt_lengths"]
        self.response_lengths: IntArray = parts["response_lengths"]
        self.response_offsets = _offsets(parts["response_counts"])
        self.text_hashes: tuple[Hashes, Hashes] = (parts["prompt_hashes"], parts["row_hashes"])
        self.bias = (LengthBias(**meta["bias"]["all"]), LengthBias(**meta["bias"]["kept"]))
        self._tokens: IntArray = parts["tokens"]
        self._labels: IntArray = parts["labels"]
        self._response_starts = _offsets(self.response_lengths)
        # The ids of row i follow those of the rows before it: their prompts, and their responses.
        self._starts = _offsets(self.prompt_lengths) + self._response_starts[self.response_offsets]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and response together."""
        responses = np.maximum.reduceat(self.response_lengths, self.response_offsets[:-1]) if len(self) else 0
        return int(np.max(self.prompt_lengths + responses, initial=0))

    def beyond(self, ids: int) -> tuple[int, int] | None:
        """The number of the first row with an id of `ids` or more, and that id; None where all are below."""
        for start in range(0, len(self._tokens), _FLUSH_AT):
            places = np.flatnonzero(self._tokens[start : start + _FLUSH_AT] >= ids)
            if len(places):
                place = start + int(places[0])
                return int(self.rows[np.searchsorted(self._starts, place, side="right") - 1]), int(self._tokens[place])
        return None

    def __getitem__(self, index: int) -> TokenizedComparison:
        if not 0 <= index < len(self):
            raise IndexError(f"row index {index} outside 0 to {len(self) - 1}")
        lengths = self.response_lengths[self.response_offsets[index] : self.response_offsets[index + 1]]
        ids = self._tokens[self._starts[index] : self._starts[index + 1]].tolist()
        ends = np.cumsum([self.prompt_lengths[index], *lengths]).tolist()
        responses = tuple(tuple(ids[start:end]) for start, end in pairwise(ends))
        return TokenizedComparison(tuple(ids[: ends[0]]), responses, int(self.rows[index]), self.label(index))

    def label(self, index: int) -> bool | None:
        """Whether the response of row `index` was wanted, where the data says it of single responses."""
        return _LABELS[self._labels[index]]

    def __iter__(self) -> Iterator[TokenizedComparison]:
        return (self[index] for index in range(len(self)))


def tokenized(
    comparisons: Iterable[Comparison | Dropped],
    template: ChatTemplate,
    *,
    data_fingerprint: str,
    max_length: int | None,
    max_prompt_length: int | None,
    on_too_long: OnTooLong = "drop",
    notes: Callable[[], Mapping[str, Any]] = dict,
    cache_dir: Path | None = None,
) -> TokenizedDataset:
    """The rows as token ids: from the cache if they were tokenised before, else tokenised now and kept.

    Args:
        comparisons: the rows, in order; a lazy iterator is not touched where the cache has them. Rows that were
            dropped on the way here, as Dropped, are counted with those dropped now.
        template: gives the ids.
        data_fingerprint: a hash that changes whenever `comparisons` would (source, format, sampling).
        max_length: see `ChatTemplate.encode`.
        max_prompt_length: see `ChatTemplate.encode`.
        on_too_long: see `ChatTemplate.encode_many`.
        notes: asked, once the rows have been read, for what is to be kept beside them, as JSON has it.
        cache_dir: the cache's folder; None for `default_cache_dir()`.

    Raises:
        UserError: the cache cannot be written (disk full, no permission), or a row is too long and that is to raise.
    """
    limits = {"max_length": max_length, "max_prompt_length": max_prompt_length, "on_too_long": on_too_long}
    identity = {
        "code": hash_of_sources(Path(__file__).parent),
        "data": data_fingerprint,
        "template": template.fingerprint,
        **limits,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    folder = (cache_dir or default_cache_dir()) / "tokens" / key
    if (dataset := _open(folder)) is not None:
        return dataset
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        lock.acquire()
    try:
        # Another process may have made it while this one waited.
        if (dataset := _open(folder)) is None:
            passing: deque[Comparison | Dropped] = deque()
            results = template.encode_many(
                _remembered(comparisons, passing),
                max_length=max_length,
                max_prompt_length=max_prompt_length,
                on_too_long=on_too_long,
            )
            _build(folder, ((passing.popleft(), result) for result in results), key, notes)
            dataset = TokenizedDataset(folder)
        return dataset
    finally:
        lock.release()


@cache
def hash_of_sources(folder: Path) -> str:
    """A hash of the Python files in a folder: what a parser or the rule of tokenisation made before it was corrected
    must not be served again.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_Encoded = Iterable[tuple[Comparison | Dropped, TokenizedComparison | Dropped]]
"""Rows before and after they were tokenised."""


def _remembered(
    items: Iterable[Comparison | Dropped], passing: deque[Comparison | Dropped]
) -> Iterator[Comparison | Dropped]:
    for item in items:
        passing.append(item)
        yield item


def _open(folder: Path) -> TokenizedDataset | None:
    """What `folder` holds, or None if it is not there or not as it was written."""
    try:
        return TokenizedDataset(folder)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _build(folder: Path, results: _Encoded, key: str, notes: Callable[[], Mapping[str, Any]]) -> None:
    """Write all parts beside `folder`, then put them in its place in one step, so that a kill leaves nothing half."""
    unfinished = folder.with_suffix(".unfinished")
    with _disk_errors(folder):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        unfinished.mkdir()
    try:
        meta = {"fingerprint": key, **_write_parts(unfinished, results), "notes": dict(notes())}
        with _disk_errors(folder):
            (unfinished / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            if folder.exists():  # damaged
                shutil.rmtree(folder)
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_parts(folder: Path, results: _Encoded) -> dict[str, Any]:
    held: dict[str, array[int]] = {name: array(code) for name, code in _PARTS.items()}
    bias = {"all": LengthBias(), "kept": LengthBias()}
    checksums = dict.fromkeys(_PARTS, 0)
    dropped: dict[str, DropCount] = {}

    def flush() -> None:
        for name, numbers in held.items():
            data = numbers.tobytes()
            checksums[name] = zlib.crc32(data, checksums[name])
            with _disk_errors(folder), (folder / f"{name}.bin").open("ab") as file:
                file.write(data)
            del numbers[:]

    for row, result in results:
        if isinstance(row, Comparison):
            bias["all"].add_row(row)
        if isinstance(result, Dropped):
            counted = dropped.setdefault(result.reason, {"count": 0, "first_rows": [], "example": result.detail})
            counted["count"] += 1
            counted["first_rows"] += [result.row] if counted["count"] <= _FIRST_ROWS else []
            continue
        for ids in (result.prompt_ids, *result.response_ids):
            held["tokens"].extend(ids)
        held["prompt_lengths"].append(len(result.prompt_ids))
        held["response_counts"].append(len(result.response_ids))
        held["response_lengths"].extend(map(len, result.response_ids))
        held["rows"].append(result.row)
        held["labels"].append(_LABELS.index(result.label))
        assert isinstance(row, Comparison), "what was dropped before stays dropped"
        bias["kept"].add_row(row)
        held["prompt_hashes"].append(prompt_hash(row.prompt))
        held["row_hashes"].append(row_hash(row))
        if len(held["tokens"]) >= _FLUSH_AT:
            flush()
    flush()
    counts = {name: json_counts(found) for name, found in bias.items()}
    return {"checksums": checksums, "dropped": dropped, "bias": counts}


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot keep tokenised rows in {folder.parent}: {error.strerror or error}; free some space there, or set"
            " PREFLAB_CACHE to a folder that can be written"
        ) from error


def _map(path: Path, checksum: int, code: str) -> NDArray[Any]:
    found = 0
    # Read, not taken from the map, whose pages would all count as this process's memory.
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            found = zlib.crc32(data, found)
    if found != checksum:
        raise ValueError(f"{path} has changed since it was written")
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.zeros(0, code)
    return np.memmap(path, code, mode="r")


def _offsets(lengths: IntArray) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
