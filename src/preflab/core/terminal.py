"""What a person may see: printed by the main process only, and never raw control characters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

CONSOLE = Console(stderr=True, emoji=False, force_jupyter=False)
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


@contextmanager
def status(doing: str) -> Iterator[None]:
    """Show on standard error what is being done, where there is no telling how long it takes."""
    with CONSOLE.status(f"{doing} …"):
        yield


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
    return Progress(*columns, console=CONSOLE, disable=disable)
