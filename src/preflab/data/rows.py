"""One row -> its comparison, checked: what holds for every format."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from preflab.data.fields import Row, excerpt
from preflab.data.layout import Format
from preflab.records import Comparison, RowError

_LONGEST_META = 200


def parse_row(form: Format, row: Row, number: int = 0) -> Comparison:
    """One row -> its comparison, checked: the one way from rows to comparisons.

    Raises RowError where the row cannot be used, UserError where a user's own format function fails.
    """
    found = form.parse(row)
    if not found.prompt or not found.prompt[-1].content.strip():
        raise RowError("empty prompt", "there is nothing to respond to")
    if found.prompt[-1].role != "user":
        raise RowError("not the user's turn", f"the prompt ends with a message of the {found.prompt[-1].role}")
    if not all(response.strip() for response in found.responses):
        raise RowError("empty response", "each response needs some text")
    if len({response.strip() for response in found.responses}) < len(found.responses):
        raise RowError("identical responses", f"there is nothing to prefer in {excerpt(found.responses[0])}")
    refuse_half_characters(found)
    return replace(found, row=number, meta={**short_scalars(row, form.columns), **found.meta})


def refuse_half_characters(comparison: Comparison) -> None:
    """Raises RowError for text with halves of characters, which JSON can hold, but neither tokenizers nor files."""
    for content in (*(message.content for message in comparison.prompt), *comparison.responses):
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
