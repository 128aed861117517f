"""Columns that are called as usual, but written otherwise: `Prompt`, `User Prompt`, `chosenResponse`."""

from __future__ import annotations

import re
from collections.abc import Collection

from preflab.data.formats import FORMATS
from preflab.data.messages import UNSUPPORTED_COLUMNS
from preflab.data.names import (
    CANDIDATES,
    CHOICE,
    CONVERSATION,
    EARLIER,
    LABEL,
    LIST_RANKS,
    LIST_SCORES,
    PROMPT,
    REASONING,
    RESPONSE,
    SYSTEM,
)

_OF_FORMATS = {column for form in FORMATS.values() for column in (*form.columns, *form.optional, *form.responses)}
_KNOWN = {
    *(*_OF_FORMATS, *SYSTEM, EARLIER, *CONVERSATION, *PROMPT, *RESPONSE, *CHOICE, *CANDIDATES, *REASONING, *LABEL),
    *(*LIST_SCORES, *LIST_RANKS, *UNSUPPORTED_COLUMNS),
}
_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")


def usual_spelling(names: Collection[str]) -> dict[str, str]:
    """Column -> its name as usually written, for those of `names` that are known by it but written otherwise; none
    where two columns have one name.
    """
    usual = {name: _BETWEEN_WORDS.sub("_", name.strip()).lower() for name in names}
    found = {name: usual[name] for name in names if name not in _KNOWN and usual[name] in _KNOWN}
    taken = [*(name for name in names if name not in found), *found.values()]
    return {name: target for name, target in found.items() if taken.count(target) == 1}
