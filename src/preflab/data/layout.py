"""A format: how rows of one layout become comparisons."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from preflab.core.records import Comparison
from preflab.data.fields import Row

Kind = Literal["ranking", "unpaired", "demonstration", "prompts"]


def _fits(row: Row) -> bool:  # noqa: ARG001 - the columns alone decide
    return True


@dataclass(frozen=True)
class Format:
    """How rows of one layout become comparisons.

    `parse` takes a row and raises RowError. `kind` says what comes out: two or more ranked responses, one with a label,
    one to imitate, or none. A row has this format if it has the `columns` and `matches` holds. `fingerprint` is the
    hash of a user's own file.

    What it reads, beside the `columns` that it needs (`preflab.data.column_use` lists it, and what is left over):

    Attributes:
        optional: columns that it reads where they are there. System columns are read in every format, by `parse_row`.
        roles: column -> what it is read as, where its name does not say so.
        prompt: the column with the prompt, if rows may have it under another name (`names.PROMPT`).
        response: the column with the one response, if rows may have it under another name (`names.RESPONSE`).
        responses: the columns with the responses of a pair, which rows may have under other names (`names.PAIRS`), and
            for which there may be columns with scores.
        choice: the column that says which of them is better, if rows may have it under another name (`names.CHOICE`).
        candidates: the column with a list of responses as objects, likewise (`names.CANDIDATES`).
        scored: the column with a list of responses as texts, likewise where a list of their scores stands beside it.
        conversation: the column with prompt and response as chat messages, likewise (`names.CONVERSATION`).
        guesses: whether its prompt is but a guess, which any column that could be the prompt forbids.
        own: whether it is a function of the user's, which does all itself.

    What `preflab.data.detect` found in the rows at hand:

    Attributes:
        spelling: column of the rows -> the same name as it is usually written (`User Prompt` -> `user_prompt`).
        renamed: column of the rows -> the column as which it is read.
        label: the column that says whether the one response was wanted.
        scores: the columns with a score for each of `responses`.
        ranks: whether these are ranks, of which 1 is the best.
        touched: the columns that the user's own function has read so far.
    """

    parse: Callable[[Row], Comparison]
    kind: Kind
    about: str
    columns: tuple[str, ...]
    matches: Callable[[Row], bool] = _fits
    fingerprint: str = ""
    optional: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    response: str = ""
    responses: tuple[str, ...] = ()
    choice: str = ""
    candidates: str = ""
    scored: str = ""
    conversation: str = ""
    guesses: bool = False
    own: bool = False
    spelling: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    scores: tuple[str, ...] = ()
    ranks: bool = False
    touched: set[str] = field(default_factory=set, compare=False)


def renamed_row(names: Mapping[str, str], row: Row) -> Row:
    """The row with some columns under other names (column -> its new name)."""
    if not names:
        return row
    others = {name: value for name, value in row.items() if name not in names}
    return {**others, **{target: row[name] for name, target in names.items() if name in row}}


def in_the_datas_words(detail: str, form: Format, given: Mapping[str, str]) -> str:
    """What is said of a row (``"`winner` is 'tie'"``), with each column called as the data calls it; `given` are names
    that columns were given -> the columns of the data.
    """
    usual, spelt = ({target: name for name, target in names.items()} for names in (form.renamed, form.spelling))

    def as_the_data_says(found: re.Match[str]) -> str:
        name = usual.get(found["name"], found["name"])
        name = spelt.get(name, name)
        return f"`{given.get(name, name)}{found['inside']}`"

    return detail if form.own else re.sub(r"`(?P<name>[^`.\[]+)(?P<inside>[^`]*)`", as_the_data_says, detail)


def texts(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], str) for name in names)


def lists(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], list) for name in names)


def texts_in_lists(*names: str) -> Callable[[Row], bool]:
    """Whether each of these columns holds a list, and none of the lists an object."""
    return lambda row: lists(*names)(row) and not any(isinstance(item, dict) for name in names for item in row[name])


def messages_of(*names: str) -> Callable[[Row], bool]:
    """Whether each of these columns holds one chat message."""
    return lambda row: all(isinstance(row[name], dict) for name in names)
