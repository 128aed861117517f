"""Which files of a folder hold its rows, and to which splits they belong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from preflab.core.durable import read_object
from preflab.core.records import UserError
from preflab.data.files import READERS, ending_of

_ABOUT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}  # of `datasets`
_SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}


@dataclass(frozen=True)
class FolderFiles:
    """The files that hold a folder's rows, in the order of their names, and what is to be told of them."""

    paths: tuple[Path, ...]
    note: str = ""


def files_of(folder: Path, split: str | None = None) -> FolderFiles:
    """The files of rows in a folder: those of one split, or all. Of what `datasets` saved, those that it names.

    Raises UserError where there is none, where a file is not to be read, and where saved splits have to be told apart.
    """
    saved = _saved_splits(folder)
    if saved:
        wanted = split or (saved[0] if len(saved) == 1 else "")
        if wanted not in saved:
            problem = f"it holds no split {split!r}, but" if split else "it holds the splits"
            raise UserError(f"{folder}: {problem} {', '.join(saved)}; say which: {folder}:{saved[0]}")
        return files_of(folder / wanted)
    if (folder / "state.json").is_file() and not split:
        return FolderFiles(_saved_files(folder))
    if split and (folder / split).is_dir():
        return files_of(folder / split)
    return _plain_files(folder, split)


def _plain_files(folder: Path, split: str | None) -> FolderFiles:
    paths = [path for path in _entries(folder) if _may_hold_rows(path)]
    if broken := [path for path in paths if not path.exists()]:
        raise UserError(f"{broken[0]}: a link to a file that is not there; remove the link, or bring the file back")
    paths = [path for path in paths if path.is_file()]
    splits = splits_of(paths)
    if split:
        paths = splits.get(_SPLITS.get(split, split), [])
        if not paths:
            there = f"it has {', '.join(splits)}" if splits else "no file of it is named after a split"
            raise UserError(f"{folder}: there is no split {split!r} in this folder; {there}")
    if not paths:
        within = [f"{path}/" for path in _entries(folder) if path.is_dir() and _holds_rows(path)]
        hint = f"; there are such files in {', '.join(within)}" if within else ""
        raise UserError(f"{folder}: no file in this folder ends in one of {', '.join(READERS)}{hint}")
    if len(splits) < 2 or split:
        return FolderFiles(tuple(paths))
    named = ", ".join(f"{name} ({', '.join(path.name for path in of[:3])})" for name, of in splits.items())
    first = "train" if "train" in splits else next(iter(splits))
    return FolderFiles(
        tuple(paths), f"{folder} mixes the splits {named}; {folder}:{first} takes the rows of {first} alone"
    )


def splits_of(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Split -> the files that are named after it: `train.jsonl`, `test-00000-of-00001.parquet`, `pairs_dev.csv`."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        words = re.split(r"[^a-z]+", path.name.lower())
        if names := {_SPLITS[word] for word in words if word in _SPLITS}:
            found.setdefault(min(names), []).append(path)
    return found


def _may_hold_rows(path: Path) -> bool:
    return ending_of(path) in READERS and path.name not in _ABOUT_DATA and not path.name.startswith(".")


def _holds_rows(folder: Path) -> bool:
    return (folder / "state.json").is_file() or any(_may_hold_rows(path) for path in _entries(folder))


def _entries(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read: {error.strerror or error}") from error


# ---- paths that are not there --------------------------------------------------------------------------------------


def missing(path: Path) -> str:
    """That the path is not there, and which name comes nearest to it in the deepest folder that exists; or that what is
    there is no file.
    """
    if path.exists():
        return f"{path}: is no file, but a device or a pipe"
    place, missing = path.parent, path
    while not place.is_dir():
        place, missing = place.parent, place
    folder = f" (there is no folder {missing})" if missing != path else ""
    return f"{path}: no such file{folder}{nearest(missing)}"


def nearest(path: Path) -> str:
    """A name like this one in its folder, as a question to add to a message."""
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


# ---- what `datasets.save_to_disk` wrote ----------------------------------------------------------------------------


def _saved_splits(folder: Path) -> list[str]:
    about = folder / "dataset_dict.json"
    if not about.is_file():
        return []
    splits = read_object(about).get("splits")
    if not isinstance(splits, list) or not splits or not all(_is_name(name) for name in splits):
        raise UserError(f"{about}: it must name the splits of this folder, as `datasets` writes it")
    return splits


def _is_name(split: object) -> bool:
    """Whether this can be a folder's name in this folder, and leads to no other."""
    return isinstance(split, str) and split not in ("", ".", "..") and not set(split) & {"/", "\\", "\0"}


def _saved_files(folder: Path) -> tuple[Path, ...]:
    about = folder / "state.json"
    files = read_object(about).get("_data_files")
    entries = files if isinstance(files, list) else []
    names = [file.get("filename") if isinstance(file, dict) else None for file in entries]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{about}: it must name the data files of this folder, as `datasets` writes it")
    paths = tuple(folder / str(name) for name in names)
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such file, though {about.name} names it; save or copy the data set again")
    return paths
