"""What `preflab run --overwrite` takes away: runs made from other inputs, and what is not as it was written."""

from __future__ import annotations

import shutil
from pathlib import Path

from preflab.core.durable import check_rows, check_stage
from preflab.core.output import beside
from preflab.core.records import UserError
from preflab.core.rundir import read_json, refuse_link, utc_now
from preflab.core.terminal import say

_MANIFEST = ".manifest.json"


def discard(folder: Path) -> None:
    """Remove a stage's folder; what a person has judged, which nobody can make again, is kept under another name."""
    if any(map(may_be_a_persons, folder.rglob(f"*{_MANIFEST}"))):
        kept = _other_name(folder)
        folder.rename(kept)
        say(f"{folder}: a person has judged in it; kept as {kept}")
        return
    refuse_link(folder)
    gone = folder.with_name(f".discarded-{folder.name}")  # whole or not at all: a kill leaves no half of a run
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


def is_damaged(folder: Path, product: Path) -> bool:
    """Whether what a finished stage has left is not as it was written."""
    try:
        check_stage(folder)
        if product.is_file():
            check_rows(product, beside(product, "manifest.json"))
    except UserError:
        return True
    return False


def discard_damaged(folder: Path) -> bool:
    """Remove the files of rows of a study that are not as they were written, and say whether there were any: the study
    makes these anew, and keeps all others. Those of a person are kept under another name.
    """
    found = False
    for manifest in sorted(folder.rglob(f"*{_MANIFEST}")):
        for ending in (".jsonl", ".json"):
            rows = manifest.with_name(manifest.name.removesuffix(_MANIFEST) + ending)
            try:
                if rows.is_file():
                    check_rows(rows, manifest)
            except UserError as error:
                found = True
                if may_be_a_persons(manifest):
                    rows.rename(kept := _other_name(rows))
                    say(f"{error}; kept as {kept}")
                else:
                    rows.unlink()
                    say(f"{error}; it is made anew")
                manifest.unlink()
    return found


def may_be_a_persons(manifest: Path) -> bool:
    """Whether a manifest says that a person has judged; a damaged one may have said so."""
    try:
        found = read_json(manifest)
    except UserError:
        return True
    data = found.get("data") if isinstance(found, dict) else None
    return not isinstance(data, dict) or data.get("judge") == "human"


def _other_name(path: Path) -> Path:
    """For what is kept: its name, and the time."""
    return path.with_name(f"{path.name}.{utc_now().replace(':', '').replace('-', '')}")
