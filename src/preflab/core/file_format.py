"""The format number in the JSON files that users keep (stages, studies, experiments, verdicts, summaries).

It changes when an older preflab would misread a file. Older files are read, also those without a number, which are of
the first format; a newer one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preflab.core.records import UserError

FORMAT = 1
"""What this version writes."""


def with_format(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document to write, its format's number first."""
    return {"format": FORMAT, **document}


def without_format(path: Path, document: Any) -> Any:
    """What was read from `path`, without its format's number. Whatever is no object, or has another kind of `format`,
    is of other origin and given back as it is.

    Raises UserError where the number is newer than this version's.
    """
    number = document.get("format") if isinstance(document, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        return document
    if number > FORMAT:
        raise UserError(
            f"{path}: has format {number}, and this version of preflab reads formats up to {FORMAT}: it was written "
            "by a newer one, so update preflab (pip install --upgrade preflab) or use the version that wrote it"
        )
    return {name: value for name, value in document.items() if name != "format"}
