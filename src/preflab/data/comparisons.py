"""From a source to comparisons: rows that can be used, rows that cannot, and the side of a split they are on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal

import numpy as np

from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.column_use import ColumnTally
from preflab.data.detect import DETECTION_ROWS, choose_format
from preflab.data.layout import Format, in_the_datas_words
from preflab.data.remarks import with_margin
from preflab.data.rows import parse_row
from preflab.data.sources import Source
from preflab.data.tokenize import Dropped

NamedFormat = tuple[str, Format]
Need = Literal["demonstrations", "rankings", "labels"]
Side = Literal["training", "held-out"]


def choose_formats(source: Source, name: str | None = None) -> tuple[NamedFormat, ...]:
    """The format of each part of the source (of the one part, if it is no mixture): the named one, or what is detected.

    Raises UserError where a part has no format that is known, or several.
    """
    return tuple(_choose(part, name) for part in source.parts or (source,))


def _choose(part: Source, name: str | None) -> NamedFormat:
    rows = [row for _, row in islice(part, DETECTION_ROWS)]
    try:
        return choose_format(name, rows)
    except UserError as error:
        raise UserError(f"{part.name}: {error}") from error


def read_comparisons(
    source: Source, formats: Sequence[NamedFormat], columns: ColumnTally | None = None
) -> Iterator[Comparison | Dropped]:
    """Each row of the source as a comparison, or as Dropped with the reason; `formats` as from `choose_formats`.
    `columns` notes what becomes of the columns of the rows.

    Raises UserError where the source cannot be read, or where a user's own format function fails (naming the row).
    """
    for number, row in source:
        part = source.part_of(number)
        _, form = formats[part]
        if columns:
            columns.add(part, row)
        try:
            yield parse_row(form, row, number)
        except RowError as error:
            given = (source.parts or (source,))[part].renamed
            yield Dropped(number, error.reason, in_the_datas_words(error.detail, form, given))
        except UserError as error:
            raise UserError(f"{source.where(number)}: {error}") from error


def fitting(
    items: Iterable[Comparison | Dropped],
    need: Need,
    *,
    ratio: float | None,
    seed: int,
    side: Side | None,
    min_score_margin: float | None = None,
) -> Iterator[Comparison | Dropped]:
    """The rows that serve `need`, the others as Dropped; of a split that gives `ratio` to training, those of `side`.
    Of rankings with scores, what lies at least `min_score_margin` apart.

    A row that cannot be read has no prompt, and so no side: it is counted with training.
    """
    for item in items:
        if isinstance(item, Dropped):
            if side != "held-out":
                yield item
        elif side and ratio and on_training_side(item.prompt, ratio, seed) != (side == "training"):
            continue
        elif not item.responses:
            yield Dropped(item.row, "no response", "the row is a prompt alone")
        elif need == "rankings" and len(item.responses) < 2:
            yield Dropped(item.row, "no ranking", "the row has a single response, and a preference needs two")
        elif need == "demonstrations" and item.label is False:
            yield Dropped(item.row, "unwanted response", "its label is false")
        elif need == "labels" and len(item.responses) < 2 and item.label is None:
            yield Dropped(item.row, "no label", "the row has a single response and does not say whether it was wanted")
        else:
            yield item if min_score_margin is None else with_margin(item, min_score_margin)


def sample_comparisons(
    read: Callable[[], Iterator[Comparison | Dropped]], n: int, seed: int
) -> Iterator[Comparison | Dropped]:
    """A seeded sample of n rows of all that can be used (all, if there are no more), in their order; and what cannot.

    `read` is called twice. Memory: some 20 bytes a row.
    """
    numbers = np.asarray([item.row for item in read() if isinstance(item, Comparison)])
    if n < len(numbers):
        numbers = np.random.default_rng(seed).choice(numbers, n, replace=False)
    chosen = frozenset(numbers.tolist())
    for item in read():
        if isinstance(item, Dropped) or item.row in chosen:
            yield item


def on_training_side(prompt: Iterable[Message], ratio: float, seed: int) -> bool:
    """Whether a prompt belongs to the training side of a split that gives that side `ratio` of all prompts.

    A function of the prompt's text, ratio and seed alone: the same prompt is never on both sides, and it stays on its
    side when rows are added.
    """
    text = json.dumps([seed, *([message.role, message.content] for message in prompt)])
    point = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return point < ratio * 2**64
