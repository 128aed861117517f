"""Folders that are on disk whole or not at all, and noticed when they are not as they were written."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from preflab.core.records import UserError
from preflab.core.rundir import digest_file, read_json, read_jsonl, stage_state, sync, to_json, write_json
from preflab.core.terminal import say

CHECKSUMS = "checksums.json"
"""Of each file of a folder its SHA-256; it lies in the folder, so that it goes where the folder goes."""


class DamagedError(UserError):
    """A file that is not as it was written."""


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into. Once all of it is on disk, with checksums, it takes the place of `folder`."""
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    write_json(unfinished / CHECKSUMS, digests(unfinished))
    put_in_place(unfinished, folder)


def put_in_place(unfinished: Path, folder: Path) -> None:
    """Give a folder its name, after all of it has reached the disk; what bore that name is removed."""
    for path in [*unfinished.rglob("*"), unfinished]:
        sync(path)
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    sync(folder.parent)


def digests(folder: Path, only: Iterable[Path] | None = None) -> dict[str, str]:
    """File -> SHA-256, of these files, or of all in a folder and its folders; several are read at once."""
    files = sorted(only or (path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS))
    with ThreadPoolExecutor(4) as readers:
        found = list(readers.map(digest_file, files))
    return {path.relative_to(folder).as_posix(): digest for path, digest in zip(files, found, strict=True)}


def check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Raise DamagedError for the first file that is missing, or has another SHA-256 than expected."""
    paths = [folder / name for name in expected]
    if missing := [path for path in paths if not path.is_file()]:
        raise DamagedError(f"{missing[0]}: is missing")
    with ThreadPoolExecutor(4) as readers:
        found = list(readers.map(_digest_once, paths))
    for path, digest, wanted in zip(paths, found, expected.values(), strict=True):
        if digest != wanted:
            raise DamagedError(f"{path}: is not as it was written (its SHA-256 is another one), so it is damaged")


def check_model(folder: Path) -> None:
    """Refuse a folder that preflab wrote and whose weights are not as they were; one without checksums is somebody
    else's. Smaller files may be changed by hand, which is said, but never hold zeroed blocks.

    Each file is read once in a process, as long as neither its size nor its time changes.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        return
    advice = f"make the model again; or, if it was changed on purpose, remove {path}"
    expected = read_json(path)
    if not isinstance(expected, dict) or not all(isinstance(value, str) for value in expected.values()):
        raise DamagedError(f"{path}: not a table of files and their SHA-256; remove it, or make the model again")
    heavy = {name: digest for name, digest in expected.items() if _is_heavy(name)}
    try:
        check_files(folder, heavy)
        for name, digest in expected.items():
            if name not in heavy:
                _check_small(folder / name, digest)
    except DamagedError as error:
        raise DamagedError(f"{error}; {advice}") from None


@contextlib.contextmanager
def sealed_rows(path: Path, manifest: Path) -> Iterator[None]:
    """Keep the SHA-256 of the file of rows that is written meanwhile in the manifest beside it.

    Whoever is killed in between leaves a manifest that says nothing of the file, never one that contradicts it.
    """
    head = {name: value for name, value in read_object(manifest).items() if name != "sha256"}
    write_json(manifest, head)
    yield
    write_json(manifest, {**head, "sha256": digest_file(path)})


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises `UserError` as `read_json` does, and for any other value."""
    if isinstance(found := read_json(path), dict):
        return found
    raise UserError(f"{path}: an object with named fields is needed; found {to_json(found)[:60]}")


def check_rows(path: Path, manifest: Path) -> None:
    """Refuse a finished file of rows that is not as its manifest has it; one without a manifest is somebody else's."""
    found = read_json(manifest) if manifest.is_file() else {}
    expected = found.get("sha256") if isinstance(found, dict) else None
    if expected is not None and digest_file(path) != expected:
        raise DamagedError(
            f"{path}: is not as it was written (its SHA-256 is another one than in {manifest.name}), so it is damaged "
            f"or was changed by hand; make it again with --overwrite or, if it was changed on purpose, remove "
            f"{manifest.name}"
        )


def check_stage(folder: Path) -> None:
    """Raise DamagedError where what a finished stage has left, models and rows, is not as it was written."""
    stage = stage_state(folder)
    if stage and stage.status == "done" and stage.files:
        check_files(folder, stage.files)
    for checksums in sorted(folder.glob(f"*/{CHECKSUMS}")):
        check_model(checksums.parent)


def _is_heavy(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".model"))


def _check_small(path: Path, expected: str) -> None:
    if not path.is_file():
        say(f"{path}: is missing, though preflab wrote it")
    elif _digest_once(path) != expected:
        if b"\0" in path.read_bytes():
            raise DamagedError(f"{path}: holds zeroed bytes, so it is damaged")
        say(f"{path}: was changed since preflab wrote it; it is used as it now is")


_KNOWN: dict[tuple[str, int, int, int, int], str] = {}


def _digest_once(path: Path) -> str:
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    if key not in _KNOWN:
        _KNOWN[key] = digest_file(path)
    return _KNOWN[key]


METRICS, RESULT, CURVES = "metrics.jsonl", "result.json", "training_curves.png"
"""Files in a training's folder."""


def read_metrics(folder: Path, name: str = METRICS) -> list[dict[str, float]]:
    """The lines of a training's metrics, in order; each has its `step`, and numbers (or null) beside it.

    Raises UserError with the line's number for any other.
    """
    path = folder / name
    rows = list(read_jsonl(path)) if path.exists() else []
    for number, row in enumerate(rows, start=1):
        strange = [key for key, value in row.items() if value is not None and type(value) not in (int, float)]
        if type(row.get("step")) is not int or not 0 <= row["step"] < 2**63:
            strange = ["step"]
        if strange:
            raise UserError(
                f"{path}, line {number}: `{strange[0]}` is missing or no number; remove the file, or overwrite the run"
            )
    return rows
