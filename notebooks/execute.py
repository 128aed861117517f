"""Run the notebooks beside this file from top to bottom, and store them with what they showed (`make notebooks`).

Each runs in a folder of its own that is gone afterwards, offline and with empty caches. What is stored is no machine's
own: progress and other standard error, times and addresses in memory are left out, and a place of this machine in an
output is an error.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
LONGEST_CELL = 600
"""Seconds."""


def main() -> None:
    """Run and store all of them, or those that are named."""
    for path in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
        with TemporaryDirectory() as folder:
            notebook = run(nbformat.read(path, as_version=4), Path(folder))
            store(notebook, path, places=(folder, str(Path.home()), str(FOLDER.resolve().parent), sys.prefix))
        print(f"{path.name}: {path.stat().st_size // 1024} KB")


def run(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run the notebook in `folder`, in place. Raises nbclient's CellExecutionError where a cell fails."""
    own = {"HF_HUB_OFFLINE": "1", "PREFLAB_CACHE": str(folder / ".cache"), "IPYTHONDIR": str(folder / ".ipython")}
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=LONGEST_CELL, record_timing=False, resources=resources)
    client.execute(env={**os.environ, **own})
    return notebook


def store(notebook: NotebookNode, path: Path, *, places: Sequence[str] = ()) -> None:
    """Write an executed notebook without what is this machine's. Raises ValueError where it names one of `places`."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = shown(cell.outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "preflab": {"sources": fingerprint(notebook)},
    }
    nbformat.validate(notebook)
    text = nbformat.writes(notebook)
    if found := [place for place in places if place in text]:
        raise ValueError(f"{path}: names a place of this machine: {', '.join(found)}")
    path.write_text(f"{text}\n", encoding="utf-8")


def shown(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """What is kept of a cell's outputs: none of standard error, and what was printed in a row in one piece."""
    kept: list[NotebookNode] = []
    visible = (output for output in outputs if output.get("name") != "stderr")
    for printed, group in groupby(visible, lambda output: output.output_type == "stream"):
        if printed:
            text = "".join(output.text for output in group)
            kept.append(nbformat.v4.new_output("stream", name="stdout", text=text))
        else:
            kept += map(_without_addresses, group)
    return kept


def fingerprint(notebook: NotebookNode) -> str:
    """A hash of the code. Stored when it ran, it tells whether the outputs are still those of the code beside them."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def _without_addresses(output: NotebookNode) -> NotebookNode:
    if "text/plain" in output.get("data", {}):
        output.data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", output.data["text/plain"])
    return output


if __name__ == "__main__":
    main()
