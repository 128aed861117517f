"""What a person may see: printed by the main process only, and never raw control characters."""

from __future__ import annotations

import os


def process_index() -> int:
    """This process's number among those that a launcher started (from its `RANK`), 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the one process that prints and that writes the run's own files."""
    return process_index() == 0


def printable(text: str) -> str:
    """`text` with every character that could move the cursor, hide or reorder what is shown written as an escape.

    Rows and model output are other people's text: printed raw, an escape sequence in them could rewrite the terminal.
    Line breaks and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
