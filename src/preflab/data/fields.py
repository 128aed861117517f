"""Fields of a row -> checked values: what every format is made of.

All raise RowError with the name of the field, what it holds, and what would be right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from preflab.core.records import RowError

Row = Mapping[str, Any]


def excerpt(value: Any, length: int = 60) -> str:
    """A value as it may stand in a message: on one line, control characters escaped, cut to `length` characters."""
    # Text is cut before it is quoted: a row may hold megabytes.
    try:
        shown = repr(value[: length + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, thousands of brackets
        return f"{type(value).__name__} too long to show"
    return shown if len(shown) <= length + 2 else f"{shown[:length]}…"


def is_missing(value: object) -> bool:
    """Null or NaN, which is how tables write that there is nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def present(row: Row, name: str) -> Any:
    """The value of a field, which must be there and be neither null nor NaN."""
    if name not in row:
        raise RowError("missing field", f"`{name}`; the row has {', '.join(map(str, row)) or 'no fields'}")
    value = row[name]
    if is_missing(value):
        raise RowError("missing value", f"`{name}` is {'null' if value is None else 'NaN'}")
    return value


def text(row: Row, name: str) -> str:
    return as_text(present(row, name), name)


def as_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not text")
    return value


def records(row: Row, name: str) -> Sequence[Row]:
    """A field that holds a list of objects."""
    value = present(row, name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a list of objects")
    return value


def number(row: Row, name: str) -> float:
    """A number, which in a CSV file is text."""
    value = present(row, name)
    try:
        if isinstance(value, int | float | str) and math.isfinite(found := float(value)):
            return found
    except (ValueError, OverflowError):
        pass
    raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a number")


def choice(row: Row, name: str, allowed: Sequence[int]) -> int:
    """The preferred one of some numbered responses. An empty field says that the row has no preference."""
    if row.get(name, 0) in (None, "") or row.get(name) != row.get(name):
        raise RowError("no preference", f"`{name}` is empty; it must be {' or '.join(map(str, allowed))}")
    value = number(row, name)
    if isinstance(row[name], bool) and 0 not in allowed:  # true is not the number of a response
        raise RowError("no preference", f"`{name}` is {row[name]}; it must be {' or '.join(map(str, allowed))}")
    if value not in allowed:
        raise RowError("no preference", f"`{name}` is {value:g}; it must be {' or '.join(map(str, allowed))}")
    return int(value)


# How people say of a response that it was wanted, or not.
_TRUTHS: dict[object, bool] = {
    **{1: True, 0: False, -1: False},
    **dict.fromkeys(("true", "1", "1.0", "yes", "good", "desirable", "wanted", "accepted", "up", "thumbs_up"), True),
    **dict.fromkeys(("like", "liked", "upvote", "preferred", "chosen", "👍"), True),
    **dict.fromkeys(("false", "0", "0.0", "-1", "-1.0", "no", "bad", "undesirable", "unwanted", "rejected"), False),
    **dict.fromkeys(("down", "thumbs_down", "dislike", "disliked", "downvote", "dispreferred", "👎"), False),
}


def truth(row: Row, name: str) -> bool:
    value = present(row, name)
    found = _truth(value)
    if found is None:
        raise RowError("no label", f"`{name}` is {excerpt(value)}; it must be true or false, or 1 or 0")
    return found


def is_truth(value: object) -> bool:
    """Whether a value says yes or no, in any of the usual words."""
    return _truth(value) is not None


def _truth(value: object) -> bool | None:
    if isinstance(value, str):
        return _TRUTHS.get(value[:20].strip().lower())
    return _TRUTHS.get(value) if isinstance(value, bool | int | float) else None
