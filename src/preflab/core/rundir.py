"""A run's files: written whole or not at all, readable after any kill, and saying what they were made from."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TextIO

from preflab.core.file_format import with_format, without_format
from preflab.core.records import UserError, refuse_device
from preflab.core.redaction import redact
from preflab.core.terminal import is_main_process

LONGEST_JSON = 1 << 30  # bytes, read at once; the largest tokenizer.json there is has a thirtieth of them

# ---- files ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[TextIO]:
    """A text file to write to: at every moment the old one or the whole new one is there, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is reported without the file's name
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the list of what a folder holds, has reached the disk."""
    if path.is_dir() and (os.name == "nt" or not os.access(path, os.R_OK)):
        return  # Windows keeps its folders by itself; a folder that cannot be listed cannot be asked to
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems know no such thing for folders
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file; atomic, as `atomic_file` is."""
    with atomic_file(path) as file:
        file.write(text)


def default_cache_dir() -> Path:
    """`$PREFLAB_CACHE`, or `preflab` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("PREFLAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "preflab"


def write_json(path: Path, value: object) -> None:
    """Write one JSON value, indented for people; atomic, with the conversions of `to_json`."""
    write_text(path, to_json(value, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write rows as JSON lines, one at a time, all or none of them; atomic, with the conversions of `to_json`."""
    with atomic_file(path) as file:
        file.writelines(to_json(row) + "\n" for row in rows)


def append_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Add rows to a JSON-lines file in one write, after removing a last line that a kill cut short.

    Rows are safe from the death of the process once this returns. (From a power cut they may not be, but the file stays
    readable up to the last row that reached the disk: waiting for the disk after every step would cost too much.)
    """
    text = "".join(to_json(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("a+b") as file:
            tail = _unfinished_line(path)
            if tail and _parse_object(tail) is not None:
                text = b"\n" + text  # whole, but for its line break: an editor left it so
            elif tail:
                file.truncate(file.seek(0, os.SEEK_END) - len(tail))
            file.write(text)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def read_jsonl(path: Path, *, whole: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file, one at a time; a last line that a kill cut short is left out, unless the file is
    said to be `whole`.

    Raises `UserError` with the line's number for any other line that is not a JSON object.
    """
    refuse_device(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = _parse_object(line)
            if row is None and not line.endswith(b"\n") and not whole:
                return
            if row is None:
                shown = line[:60].decode(errors="replace").strip()
                raise UserError(f"{path}, line {number}: not a JSON object: {shown!r}")
            yield row


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises `UserError` when it is missing, not JSON, or larger than `LONGEST_JSON`."""
    refuse_device(path)
    if path.is_file() and (size := path.stat().st_size) > LONGEST_JSON:
        raise UserError(f"{path}: {size:,} bytes are more than any such file has")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error


def digest_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def to_json(value: object, *, indent: int | None = None) -> str:
    """JSON text. Paths become text, records and mappings objects, numbers of array libraries plain numbers.

    A number that JSON has no word for (NaN, infinity) becomes null, never a zero.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=_plain)
    except ValueError:
        return json.dumps(_null_for_nan(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _plain(value: object) -> object:
    """What stands in JSON for an object that it does not know."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # an array or a tensor, or one number of theirs
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _null_for_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_for_nan(item) for item in value]
    return value if value is None or isinstance(value, (str, int)) else _null_for_nan(_plain(value))


def _unfinished_line(path: Path) -> bytes:
    """What follows the file's last line break."""
    with path.open("rb") as file:
        position, tail = file.seek(0, os.SEEK_END), b""
        while position and b"\n" not in tail:
            step = min(position, 65536)
            position = file.seek(position - step)
            tail = file.read(step) + tail
    return tail.rpartition(b"\n")[2]


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


# ---- the manifest --------------------------------------------------------------------------------------------------

_PACKAGES = (
    *("preflab", "torch", "transformers", "tokenizers", "accelerate"),
    *("peft", "datasets", "pyarrow", "numpy", "safetensors"),
)


def write_manifest(
    directory: Path,
    *,
    command: str,
    settings: Mapping[str, object],
    seed: int,
    data: Mapping[str, object],
    name: str = "manifest.json",
    **facts: object,
) -> None:
    """Write `manifest.json` (or what else `name` says): how the run was made, in enough detail to make it again.

    `data` names what was read with its fingerprint; `facts` are further entries. A resumed run adds its time to
    `started`. Secrets are blacked out and the environment is not recorded. Only the main process writes.
    """
    if not is_main_process():
        return
    path = directory / name
    earlier = _started(path) if path.exists() else []
    entries = {
        "command": command,
        "started": [*earlier, utc_now()],
        "seed": seed,
        "settings": settings,
        "data": data,
        **facts,
        "versions": versions(),
        "platform": {"system": platform.platform(), "machine": platform.machine(), "cores": os.cpu_count()},
        "git": _git_state(),
    }
    write_json(path, redact(json.loads(to_json(entries))))


def _started(manifest: Path) -> list[object]:
    """When the run was started before, by its manifest."""
    found = read_json(manifest)
    if not isinstance(found, dict) or not isinstance(started := found.get("started"), list):
        raise UserError(
            f"{manifest}: not a manifest of preflab's (`started` is missing); remove it, or overwrite the run"
        )
    return started


def utc_now() -> str:
    """The time in UTC, to the second: "2025-01-31T12:00:00Z"."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def versions() -> Mapping[str, str]:
    """The versions of Python and of the packages that shape a result (from their metadata: none is imported)."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _git_state() -> dict[str, object] | None:
    """The commit checked out in the working folder, and whether files differ from it; None outside a repository."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
        return run.stdout.strip()

    try:
        modified = git("status", "--porcelain", "--untracked-files=no") != ""
        return {"commit": git("rev-parse", "HEAD"), "modified": modified}
    except (OSError, subprocess.SubprocessError):
        return None


# ---- stages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """What `stage.json` says of a stage's folder. `clearing` means that a discarded run is still being removed;
    `files` are the SHA-256 of what a finished one has left.
    """

    status: Literal["clearing", "running", "done"]
    inputs: Mapping[str, Any]
    fingerprint: str
    started: str
    finished: str | None = None
    files: Mapping[str, str] | None = None


LOCK = "stage.lock"
"""The file by which a process keeps a stage to itself; it says nothing of what the folder holds."""


def fingerprint(value: object) -> str:
    """A short hash of a value by its JSON text: the same for equal values, whatever the order of their keys."""
    text = json.dumps(json.loads(to_json(value)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]  # damaged files hold halves of letters


def stage_state(directory: Path) -> Stage | None:
    """The stage that a folder holds, None if it holds none yet. Raises `UserError` for a broken `stage.json`."""
    path = directory / "stage.json"
    if not path.exists():
        return None
    with contextlib.suppress(TypeError):  # other keys, or none
        stage = Stage(**without_format(path, read_json(path)))
        if _is_stage(stage):
            return stage
    raise UserError(f"{path}: not a stage file that this version wrote; remove the folder to start again")


def _is_stage(stage: Stage) -> bool:
    texts = all(isinstance(value, str) for value in (stage.fingerprint, stage.started, stage.finished or ""))
    maps = isinstance(stage.inputs, dict) and isinstance(stage.files or {}, dict)
    return stage.status in ("clearing", "running", "done") and texts and maps


def open_stage(directory: Path, inputs: Mapping[str, object], *, overwrite: bool) -> Literal["new", "resume", "done"]:
    """Claim a stage's folder for the run that `inputs` describe, and say where it stands.

    `inputs` are what the result depends on: settings, fingerprints of data and models. "new": nothing is there yet;
    "resume": the same run was started; "done": it was finished. `overwrite` discards whatever run is there, and only
    that: a folder with files but no `stage.json` is never touched. Only the main process writes, so where there are
    several, call it there first and tell the others the answer.

    Raises `UserError` that names the inputs that differ when the folder holds another run.
    """
    now: dict[str, Any] = redact(json.loads(to_json(inputs)))
    stage = stage_state(directory)
    if stage is None:
        if directory.exists() and any(
            not entry.name.startswith(".") and entry.name != LOCK for entry in directory.iterdir()
        ):
            raise UserError(f"{directory}: holds files but no run of preflab (no stage.json); choose another folder")
    elif stage.status != "clearing" and not overwrite:
        if stage.fingerprint != fingerprint(now) and (found := differences(stage.inputs, now)):
            listed = "\n".join(f"  {line}" for line in found)
            advice = "choose another folder, restore these inputs, or overwrite that run"
            raise UserError(f"{directory}: holds a run made from other inputs:\n{listed}\n{advice}")
        return "done" if stage.status == "done" else "resume"
    elif is_main_process():
        refuse_link(directory)
        # Whoever is killed while clearing leaves a folder that says so, never one that passes for a run.
        _write_stage(directory, Stage("clearing", now, fingerprint(now), utc_now()))
        for entry in directory.iterdir():
            if entry.name not in ("stage.json", LOCK):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    _write_stage(directory, Stage("running", now, fingerprint(now), utc_now()))
    return "new"


def refuse_link(directory: Path) -> None:
    """Raise UserError where what is to be discarded lies elsewhere, and the folder is a link to it."""
    if directory.is_symlink():
        raise UserError(
            f"{directory}: is a link to {directory.resolve()}, and what lies there is not discarded through a link; "
            "name that folder itself, or remove the link"
        )


def finish_stage(directory: Path, files: Mapping[str, str] | None = None) -> None:
    """Mark the stage as done: from now on the same command has nothing to do. Only the main process writes.

    `files` are those by which damage is noticed later, with their SHA-256.
    """
    stage = stage_state(directory)
    assert stage is not None, f"{directory} was not opened with open_stage"
    _write_stage(directory, dataclasses.replace(stage, status="done", finished=utc_now(), files=files))


def _write_stage(directory: Path, stage: Stage) -> None:
    if is_main_process():
        write_json(directory / "stage.json", with_format(dataclasses.asdict(stage)))


def differences(before: object, now: object, name: str = "") -> list[str]:
    """One line for each leaf in which two nested mappings differ: "settings.beta: 0.1 there, 0.2 now".

    What is null is the same as what is not there: a setting that is not made use of, or that there was not yet.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [name for name in {**before, **now} if not before.get(name) is now.get(name) is None]
        pairs = {name: (before.get(name, "nothing"), now.get(name, "nothing")) for name in names}
        prefix = f"{name}." if name else ""
        return [line for key, pair in pairs.items() for line in differences(*pair, f"{prefix}{key}")]
    return [] if before == now else [f"{name}: {before} there, {now} now"]
