"""One row -> its comparison, checked: what holds for every format."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from preflab.data.fields import Row, excerpt
from preflab.data.layout import Format
from preflab.data.messages import refuse_unsupported
from preflab.data.unpack import unpack
from preflab.records import Comparison, RowError

_LONGEST_META = 200


def parse_row(form: Format, row: Row, number: int = 0) -> Comparison:
    """One row -> its comparison, checked: the one way from rows to comparisons.

    Raises RowError where the row cannot be used, UserError where a user's own format function fails.
    """
    found = parse(form, row)
    if not found.prompt or not found.prompt[-1].content.strip():
        raise RowError("empty prompt", "there is nothing to respond to")
    if found.prompt[-1].role != "user":
        raise RowError("not the user's turn", f"the prompt ends with a message of the {found.prompt[-1].role}")
    if not all(response.strip() for response in found.responses):
        raise RowError("empty response", "each response needs some text")
    thought = found.reasoning or ("",) * len(found.responses)
    if len(set(zip(map(str.strip, found.responses), map(str.strip, thought), strict=True))) < len(found.responses):
        raise RowError("identical responses", f"there is nothing to prefer in {excerpt(found.responses[0])}")
    refuse_half_characters(found)
    return replace(found, row=number, meta={**short_scalars(row, form.columns), **found.meta})


def parse(form: Format, row: Row) -> Comparison:
    """One row -> its comparison, as the format reads it: messages unpacked first, unless the format is a user's own."""
    if form.fingerprint:
        return form.parse(row)
    unpacked = unpack(row)
    refuse_unsupported(unpacked)
    return form.parse(unpacked)


def refuse_half_characters(comparison: Comparison) -> None:
    """Raises RowError for text with halves of characters, which JSON can hold, but neither tokenizers nor files."""
    said = (text for message in comparison.prompt for text in (message.content, message.reasoning))
    for content in (*said, *comparison.responses, *comparison.reasoning):
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise RowError("not valid Unicode", f"half a surrogate pair at character {error.start}") from None


def short_scalars(row: Row, used: Iterable[str]) -> dict[str, Any]:
    """What else the row says in single short values: categories, ids, gold scores."""
    others = {name: value for name, value in row.items() if name not in used}
    return {name: value for name, value in others.items() if _is_short_scalar(value)}


def _is_short_scalar(value: object) -> bool:
    """Numbers that JSON can write, and short text that UTF-8 can."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_META and not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
