"""Progress in a notebook, whose output knows carriage returns but no cursor: one line, written over."""

from __future__ import annotations

import io
import re
import sys

import pytest

from preflab.core.terminal import progress_bar, say, status


class _KernelsStream(io.StringIO):
    def isatty(self) -> bool:
        return True  # as ipykernel's says of itself


_KernelsStream.__module__ = "ipykernel.iostream"


def notebook(monkeypatch: pytest.MonkeyPatch, *, every: float = 0.0) -> io.StringIO:
    """What is written to standard error from here on (not a fixture: pytest takes it back after each)."""
    stream = _KernelsStream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("preflab.core.terminal._OneLine._EVERY", every)
    return stream


def seen(stream: io.StringIO) -> list[str]:
    """The lines that a notebook shows: a carriage return goes back, and what comes after it overwrites."""
    assert "\x1b" not in stream.getvalue()
    lines = []
    for line in stream.getvalue().split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(re.sub(r"[━╸╺ ]+", " ", shown).strip())
    return lines


def test_it_is_one_line_and_what_is_said_stands_above(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = notebook(monkeypatch)
    with progress_bar() as bar:
        steps = bar.add_task("dpo", total=40, shown="a long note that goes away")
        for step in range(40):
            bar.update(steps, completed=step + 1, shown="loss 0.5")
            if step == 20:
                say("hello")
                rows = bar.add_task("evaluation", total=5, shown="")
                bar.advance(rows, 5)
                bar.remove_task(rows)
    said, last, after = seen(stream)
    assert said == "hello"
    assert re.fullmatch(r"dpo 40/40 \d:\d\d:\d\d left 0:00:00 loss 0\.5", last)
    assert after == ""


def test_a_bar_within_a_bar_leaves_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = notebook(monkeypatch)
    with progress_bar() as outer:
        cells = outer.add_task("cells", total=3, shown="")
        for _ in range(3):
            with progress_bar() as inner:
                inner.advance(inner.add_task("responses", total=1, shown=""))
            with status("reading"):
                outer.advance(cells)
    first, after = seen(stream)
    assert first.startswith("cells 3/3")
    assert after == ""


def test_it_writes_some_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = notebook(monkeypatch, every=60.0)
    with progress_bar() as bar:
        task = bar.add_task("rows", total=1000, shown="")
        for _ in range(1000):
            bar.advance(task)
    assert stream.getvalue().count("\r") == 2  # at the start, and at the end
