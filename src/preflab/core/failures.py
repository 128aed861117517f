"""What the system says when a file cannot be written or memory is short, in words that say what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

_LONGEST = 1000  # characters of a name that are shown
_PLACE = "choose a place that can be written"

# What a person can do about an error of the system.
_ADVICE: dict[int, str] = {
    errno.ENOSPC: "cannot be written, the disk seems full; free some space and run the same command again",
    errno.EDQUOT: "cannot be written, the disk seems full; free some space and run the same command again",
    errno.EFBIG: "cannot be written, no file may be as large here; raise the limit (ulimit -f) or choose another place",
    errno.EROFS: f"read-only file system; {_PLACE}",
    errno.EACCES: f"permission denied; {_PLACE}",
    errno.EPERM: f"operation not permitted; {_PLACE}",
    errno.ENOENT: f"no such file or directory; {_PLACE}",
    errno.ENOTDIR: f"not a directory; {_PLACE}",
    errno.EISDIR: f"is a directory; {_PLACE}",
    errno.EEXIST: f"file exists; {_PLACE}",
    errno.ENOTEMPTY: f"another process writes there too; {_PLACE}",
    errno.ELOOP: f"too many symbolic links; {_PLACE}",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
    errno.EIO: "the disk does not answer (input/output error); see to the disk, or choose another place",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n) and run the same command again",
}

# What libraries that write through other means than Python's files say of a full disk; the last is torch's.
_FULL = ("No space left on device", "Disk quota exceeded", "iostream error")
_CODE = re.compile(r"\(os error (\d+)\)")  # as libraries written in Rust end their messages

# Also raised by what is a defect of ours, so they count only as the error itself, with the name of a file.
_NEEDS_NAME = {errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM}


def explain_failure(error: BaseException, place: object) -> str | None:
    """What to tell a person of an error that the system caused, and not a defect; None for any other.

    `place` stands for the file where the error names none.
    """
    for link in _chain(error):
        if is_out_of_memory(link):
            return "out of memory; use a smaller batch, shorter rows, or a machine with more memory"
        code, name = _code(link), getattr(link, "filename", None)
        if code in _ADVICE and (code not in _NEEDS_NAME or (name and link is error)):
            shown = str(name or place)
            return f"{shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '…'}: {_ADVICE[code]}"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch raises an error of its own for a GPU, and for the CPU one that any fault has."""
    words = ("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory", "out of memory")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    if any(words in text for words in _FULL):
        return errno.ENOSPC
    if found := _CODE.search(text):
        return int(found[1])
    known = (errno.EFBIG, errno.EROFS, errno.ENAMETOOLONG)
    return next((code for code in known if os.strerror(code) in text), 0)
