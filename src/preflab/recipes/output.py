"""A file of rows that a command makes: what it was made from, whether it is finished, and its summary beside it.

Rows are gathered in `NAME.unfinished.jsonl`; a file under its own name (.jsonl, or .json where the rows stand in one
document) is whole. `NAME.manifest.json` says what both belong to.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from preflab.config import Settings, resolved
from preflab.durable import check_rows, sealed_rows
from preflab.failures import is_out_of_memory
from preflab.records import UserError
from preflab.redaction import redact
from preflab.rundir import differences, read_json, write_jsonl, write_manifest
from preflab.terminal import is_main_process

S = TypeVar("S")
R = TypeVar("R")
P = ParamSpec("P")

NOT_IN_RESULT = {
    *("output", "overwrite", "batch_size"),
    *("concurrency", "requests_per_minute", "timeout", "retries"),
}
"""Settings that change nothing of the rows (but rounding), so a file may be gone on with under other ones."""


def beside(output: Path, ending: str) -> Path:
    """`runs/scores.jsonl`, "summary.json" -> `runs/scores.summary.json`"""
    return output.with_name(f"{output.name.removesuffix('.jsonl').removesuffix('.json')}.{ending}")


def unfinished(output: Path) -> Path:
    return beside(output, "unfinished.jsonl")


def open_output(
    output: Path,
    command: str,
    settings: Settings,
    fingerprints: Mapping[str, object],
    *,
    seed: int,
    overwrite: bool,
    ending: Literal[".jsonl", ".json"] = ".jsonl",
) -> Literal["new", "resume", "done"]:
    """Claim a file for what settings and fingerprints describe, and say where it stands.

    Raises UserError where there is a file that was made from something else, or by someone else; `overwrite` discards
    the former, never the latter.
    """
    manifest = beside(output, "manifest.json")
    if output.suffix != ending:
        written = "as JSON lines" if ending == ".jsonl" else "in one JSON document"
        raise UserError(f"{output}: rows are written {written}, so the file's name must end in {ending}")
    if not manifest.exists() and (output.exists() or unfinished(output).exists()):
        raise UserError(f"{output}: there is a file already that `{command}` did not make; choose another one")
    state: Literal["new", "resume", "done"] = "new"
    if manifest.exists() and not overwrite and (output.exists() or unfinished(output).exists()):
        earlier = _read_manifest(manifest)
        data = redact(dict(fingerprints))
        # Where something lies does not matter, as long as it is the same: a study's folder may be moved.
        same = {name for name, value in data.items() if earlier["data"].get(name) == value}
        there = {"settings": _relevant(earlier["settings"], but=same), "data": earlier["data"]}
        now = {"settings": _relevant(resolved(settings), but=same), "data": data}
        if found := differences(there, now):
            listed = "\n".join(f"  {line}" for line in found)
            raise UserError(
                f"{output}: was made from other inputs:\n{listed}\nchoose another file, restore these inputs, or "
                "overwrite it"
            )
        state = "done" if output.exists() else "resume"
    if state == "done":
        check_rows(output, manifest)
        if ending == ".jsonl":  # beside finished verdicts it can hold new ones
            with suppress(OSError):  # left by a kill at the very end; a folder that can only be read stays as it is
                unfinished(output).unlink(missing_ok=True)
    if state == "new":
        for path in (output, unfinished(output), beside(output, "summary.json"), manifest):
            path.unlink(missing_ok=True)
    if state != "done":
        values = settings.model_dump(mode="json")
        write_manifest(
            output.parent, command=command, settings=values, seed=seed, data=fingerprints, name=manifest.name
        )
    return state


@contextmanager
def alone_with(output: Path) -> Iterator[None]:
    """Keep a second process from making the same file, or what else a folder holds beside it (`study.json`,
    `stage.json`), meanwhile. Raises UserError where one is at it already.

    The system lets go of the lock when the process ends, however it ends. Only the main process locks. In a folder that
    can only be read nothing is made, so nothing is locked; what is finished there can still be looked at.
    """
    lock = FileLock(beside(output, "lock"))
    if not is_main_process():
        yield
        return
    made = [folder for folder in (output.parent, *output.parent.parents) if not folder.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{output}: another process is at work on this file; wait until it is done, or choose another file"
        ) from None
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
    try:
        yield
    finally:
        lock.release()
        _remove_unused(Path(lock.lock_file), output, made)


def alone(setting: str, head: str = "") -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """A recipe that keeps other processes from its output, as `alone_with` does.

    setting: names the output, a file; or a folder, of which `head` is the file that stands for all in it.
    """

    def wrap(recipe: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(recipe)
        def locked(settings: S, /, *args: P.args, **options: P.kwargs) -> R:
            with alone_with(getattr(settings, setting) / head):
                return recipe(settings, *args, **options)

        return locked

    return wrap


def _remove_unused(lock: Path, output: Path, folders: Sequence[Path]) -> None:
    """Remove the lock of an output that was not begun, and the folders that were made for it, if they are empty."""
    if any(path.exists() for path in (output, unfinished(output), beside(output, "manifest.json"))):
        return
    with suppress(OSError):
        lock.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def finish_output(output: Path, rows: Iterable[object]) -> None:
    """Write the file under its own name, whole, and remove the unfinished one."""
    with sealed(output):
        write_jsonl(output, rows)
    unfinished(output).unlink(missing_ok=True)


def sealed(output: Path) -> AbstractContextManager[None]:
    """While the file is written: its manifest gets the SHA-256 by which damage to it is noticed."""
    return sealed_rows(output, beside(output, "manifest.json"))


@contextmanager
def explaining_memory(batch_size: int, setting: str = "batch_size") -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory; run the same command with a {setting} below {batch_size}. What is finished is kept"
        ) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    parts = [manifest.get(name) for name in ("settings", "data")] if isinstance(manifest, dict) else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{path}: not a manifest of preflab's (`settings` and `data` are missing); overwrite that file")
    found: dict[str, Any] = manifest
    return found


def _relevant(settings: Mapping[str, Any], *, but: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in NOT_IN_RESULT and name not in but}
