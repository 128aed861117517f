"""Inputs broken at random, reproducibly: by bytes, as a bad disk or a cut transfer does it, and by values, as other
people's tools do.

`broken(content, random)` damages bytes anyhow; `changed(value, random)` puts one odd value somewhere into a JSON value.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import random
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from preflab import cli

SECONDS = 60
"""What no input may take longer than; most take a hundredth. Generous, as machines differ."""

MOST_MEMORY = 1 << 31
"""Bytes that no input may need beyond what all before it needed; most need a hundredth."""

_PIECES = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b"\\ud800"),
    *(b"NaN", b"Infinity", b"1e400", b"-", b"9" * 400, b"[" * 3000, b'{"a":' * 3000, b"null", b"true", b"''", b"\t"),
    *("é".encode("latin-1"), "語".encode(), b"!!int x", b"&a [*a]", b"${x}", b"%s", b"../", b"\x1b[2J"),
)

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**18, 2**64, 10**400, float("nan"), float("inf"), 1e300),
    *("", " ", "x", "NaN", "\ud800", "\x1b[2J", "../../x", "9" * 500, "[" * 50, "語" * 50),
    *([], {}, [[]], [None], [{}], {"a": 1}, ["x", "y"], [{"role": "user"}], {"role": "assistant", "content": 5}),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class TooLongError(BaseException):
    """A command went on for more than SECONDS. No Exception, which those who load models take for a damaged file."""


class TooMuchMemoryError(Exception):
    """A command took more than MOST_MEMORY more than all before it."""


@contextmanager
def bounded(seconds: int = SECONDS) -> Iterator[None]:
    """Neither a hang nor memory without bound."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooLongError

    before, peak = signal.signal(signal.SIGALRM, stop), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(seconds)
    # What hangs outside of Python hears no signal: then the process ends, and says where.
    faulthandler.dump_traceback_later(3 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    unit = 1 if sys.platform == "darwin" else 1024
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * unit
    if more > MOST_MEMORY:
        raise TooMuchMemoryError(f"{more >> 20} MiB")


def call(capsys: pytest.CaptureFixture[str], *words: str) -> Ended:
    """Run the command line in this process, within its time."""
    with bounded(), pytest.raises(SystemExit) as caught:
        cli.main(words)
    out, err = capsys.readouterr()
    return Ended(int(caught.value.code or 0), out, err)


def complaint(ended: Ended) -> str | None:
    """What is wrong with how a command ended, if anything: a traceback, a code that nobody knows, words too many,
    characters that a terminal would obey.
    """
    if ended.code not in (0, 2, 3) or "Traceback" in ended.err or "defect of preflab" in ended.err:
        return f"exit code {ended.code}: {ended.err[-1500:]}"
    if ended.code and not ended.err.strip():
        return f"exit code {ended.code} without a word"
    if len(ended.err) > 20_000:
        return f"{len(ended.err)} characters of errors: {ended.err[:300]!r}"
    if any(not (c.isprintable() or c in "\n\t\xa0") for c in (ended.err if ended.code else "")):
        return f"control characters on the terminal: {ended.err[:300]!r}"
    return None


def broken(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three places damaged."""
    for _ in range(chance.randint(1, 3)):
        content = _damaged(content, chance)
    return content


def _damaged(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    length = chance.choice((1, 1, 2, 8, 64, 512))
    way = chance.randrange(6)
    if way == 0:
        return content[:at]
    if way == 1:
        return content[:at] + content[at + length :]
    if way == 2:
        return content[:at] + chance.choice(_PIECES) + content[at:]
    if way == 3:
        return content[:at] + bytes(chance.randrange(256) for _ in range(length)) + content[at + length :]
    if way == 4:
        return content[:at] + b"\x00" * length + content[at + length :]
    return content[:at] + content[at : at + length] * 2 + content[at + length :]


def changed(value: Any, chance: random.Random) -> Any:
    """A copy of a JSON value with one thing in it replaced, left out, renamed or repeated."""
    value = copy.deepcopy(value)
    places = [place for place in _places(value) if place]
    if not places:
        return chance.choice(ODD)
    *path, last = chance.choice(places)
    parent = value
    for part in path:
        parent = parent[part]
    way = chance.randrange(5)
    if way == 0 and isinstance(parent, dict):
        del parent[last]
    elif way == 1 and isinstance(parent, dict):
        parent[chance.choice(("", "x", f"{last} ", str(last).upper()))] = parent.pop(last)
    elif way == 2 and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    else:
        parent[last] = copy.deepcopy(chance.choice(ODD))
    return value


def spoiled(path: Path, chance: random.Random) -> bytes:
    """What a file would hold after damage: by value, where it is JSON and chance will have it so, else by bytes."""
    content = path.read_bytes()
    with suppress(ValueError):
        if path.suffix == ".json" and chance.random() < 0.5:
            return as_json(changed(json.loads(content), chance))
        if path.suffix == ".jsonl" and chance.random() < 0.5:
            return as_lines(changed([json.loads(line) for line in content.splitlines()], chance) or [{}])
    if path.suffix not in _TEXT and chance.random() < 0.5:
        return _overwritten(content, chance)
    return broken(content, chance)


_TEXT = (".json", ".jsonl", ".csv", ".yaml", ".txt", ".jinja")


def _overwritten(content: bytes, chance: random.Random) -> bytes:
    """As long as it was, with zeros, ones (numbers that are NaN) or other bytes behind its head: what only a checksum
    notices.
    """
    at, length = chance.randrange(len(content) // 4, len(content)), chance.choice((1, 64, 512, 1 << 14))
    block = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    return content[:at] + block[: len(content) - at] + content[at + length :]


def damage(path: Path, chance: random.Random) -> None:
    """Spoil a file where it stands; or, one time of eight, remove it."""
    if chance.random() < 1 / 8:
        path.unlink()
    else:
        path.write_bytes(spoiled(path, chance))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _places(item, (*path, name))


def as_json(value: Any) -> bytes:
    """JSON text, halves of characters and numbers of any length included."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(limit)


def as_lines(rows: Sequence[Any]) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in rows)
