"""A format: how rows of one layout become comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from preflab.data.fields import Row
from preflab.records import Comparison

Kind = Literal["ranking", "unpaired", "demonstration", "prompts"]


def _fits(row: Row) -> bool:  # noqa: ARG001 - the columns alone decide
    return True


@dataclass(frozen=True)
class Format:
    """How rows of one layout become comparisons.

    `parse` takes a row and raises RowError. `kind` says what comes out: two or more ranked responses, one with a label,
    one to imitate, or none. A row has this format if it has the `columns` and `matches` holds. `fingerprint` is the
    hash of a user's own file.
    """

    parse: Callable[[Row], Comparison]
    kind: Kind
    about: str
    columns: tuple[str, ...]
    matches: Callable[[Row], bool] = _fits
    fingerprint: str = ""


def texts(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], str) for name in names)


def lists(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], list) for name in names)
