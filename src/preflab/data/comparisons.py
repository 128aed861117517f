"""From a source to comparisons: rows that can be used, rows that cannot, and the side of a split they are on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from preflab.data.formats import Format, choose_format, parse_row
from preflab.data.sources import Source
from preflab.data.tokenize import Dropped
from preflab.records import Comparison, Message, RowError, UserError

_FIRST_ROWS = 5


NamedFormat = tuple[str, Format]


def choose_formats(source: Source, name: str | None = None) -> tuple[NamedFormat, ...]:
    """The format of each part of the source (of the one part, if it is no mixture): the named one, or what is detected.

    Raises UserError where a part has no format that is known, or several.
    """
    return tuple(_choose(part, name) for part in source.parts or (source,))


def _choose(part: Source, name: str | None) -> NamedFormat:
    try:
        return choose_format(name, (row for _, row in part))
    except UserError as error:
        raise UserError(f"{part.name}: {error}") from error


def read_comparisons(source: Source, formats: Sequence[NamedFormat]) -> Iterator[Comparison | Dropped]:
    """Each row of the source as a comparison, or as Dropped with the reason; `formats` as from `choose_formats`.

    Raises UserError where the source cannot be read, or where a user's own format function fails (naming the row).
    """
    for number, row in source:
        _, form = formats[source.part_of(number)]
        try:
            yield parse_row(form, row, number)
        except RowError as error:
            yield Dropped(number, error.reason, error.detail)
        except UserError as error:
            raise UserError(f"{source.where(number)}: {error}") from error


def on_training_side(prompt: Iterable[Message], ratio: float, seed: int) -> bool:
    """Whether a prompt belongs to the training side of a split that gives that side `ratio` of all prompts.

    A function of the prompt's text, ratio and seed alone: the same prompt is never on both sides, and it stays on its
    side when rows are added.
    """
    text = json.dumps([seed, *([message.role, message.content] for message in prompt)])
    point = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return point < ratio * 2**64


@dataclass
class Reason:
    """How many rows were dropped for one reason: the first of them, and what was found in the very first."""

    count: int = 0
    first_rows: list[int] = field(default_factory=list)
    example: str = ""


class DroppedRows(dict[str, Reason]):
    """Dropped rows counted by reason, in memory that does not grow with their number."""

    def add(self, dropped: Dropped) -> None:
        reason = self.setdefault(dropped.reason, Reason(example=dropped.detail))
        reason.count += 1
        if len(reason.first_rows) < _FIRST_ROWS:
            reason.first_rows.append(dropped.row)

    @property
    def count(self) -> int:
        return sum(reason.count for reason in self.values())

    def nothing_left(self, source: Source) -> UserError:
        """The error for a source whose every row was dropped."""
        reasons = [
            f"\n  {name}, {reason.count} rows, such as {source.where(reason.first_rows[0])}: {reason.example}"
            for name, reason in self.items()
        ]
        return UserError(f"{source.name}: none of its {self.count} rows can be used{''.join(reasons)}")
