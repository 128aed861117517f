"""What a person may see: printed by the main process only, and never raw control characters."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class _Console(Console):
    """A console that knows how many bars a notebook shows, and how long the line of the last one is."""

    bars = 0
    unended = 0

    def print(self, *objects: Any, **options: Any) -> None:
        self.put_line("")
        super().print(*objects, **options)

    def put_line(self, text: str) -> None:
        """Write a notebook's line anew, over all of the one before."""
        if text or self.unended:
            self.file.write(f"\r{text.ljust(self.unended)}" if text else f"\r{' ' * self.unended}\r")
            self.file.flush()
        self.unended = len(text)


CONSOLE = _Console(stderr=True, emoji=False, force_jupyter=False)
"""The one console for everything that is shown while work goes on, so that bars within bars keep out of their way.

In a notebook it writes to standard error as it does everywhere: rich's own way there needs widgets, and warns at every
bar where there are none.
"""


def process_index() -> int:
    """This process's number among those that a launcher started (from its `RANK`), 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the one process that prints and that writes the run's own files."""
    return process_index() == 0


_KEPT = "\n\t\u00a0"


def printable(text: str) -> str:
    """`text` with every character that could move the cursor, hide or reorder what is shown written as an escape.

    Rows and model output are other people's text: printed raw, an escape sequence in them could rewrite the terminal.
    Line breaks, tabs and spaces that do not break stay.
    """
    return "".join(c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """`printable` on one line: line breaks and tabs shown as signs."""
    return printable(text).replace("\n", "⏎").replace("\t", "⇥")


def say(text: str) -> None:
    """Tell the person at the terminal, once."""
    if is_main_process():
        CONSOLE.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def in_notebook() -> bool:
    """Whether what is shown goes to a notebook, which says that it is a terminal but has no cursor to move."""
    return type(sys.stderr).__module__.startswith("ipykernel.")


@contextmanager
def status(doing: str) -> Iterator[None]:
    """Show on standard error what is being done, where there is no telling how long it takes."""
    if in_notebook():
        yield
        return
    with CONSOLE.status(f"{doing} …"):
        yield


class _OneLine(Progress):
    """A bar for notebooks: one line, written over at most some times a second. Of several tasks, and of bars within
    bars, the newest is shown.
    """

    _EVERY = 0.3  # seconds
    _last = 0.0

    def start(self) -> None:
        CONSOLE.bars += 1

    def stop(self) -> None:
        CONSOLE.bars -= 1
        if self.tasks and not CONSOLE.bars:  # a bar within another leaves no line behind
            CONSOLE.put_line(self._text())
            CONSOLE.file.write("\n")
        CONSOLE.unended = CONSOLE.unended if CONSOLE.bars else 0

    def refresh(self) -> None:
        now = time.monotonic()
        if self.tasks and not self.disable and now - self._last >= self._EVERY:
            self._last = now
            CONSOLE.put_line(self._text())

    def update(self, *given: Any, **changed: Any) -> None:
        super().update(*given, **changed)
        self.refresh()

    def advance(self, *given: Any, **changed: Any) -> None:
        super().advance(*given, **changed)
        self.refresh()

    def _text(self) -> str:
        console = Console(file=io.StringIO(), width=160, color_system=None, force_jupyter=False)
        console.print(self.make_tasks_table(self.tasks[-1:]))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().rstrip()


def progress_bar(*, disable: bool = False) -> Progress:
    """A bar with counts, time gone and time left, on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    kind = _OneLine if in_notebook() else Progress
    return kind(*columns, console=CONSOLE, disable=disable)
