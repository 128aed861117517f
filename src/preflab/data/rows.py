"""One row -> its comparison, checked: what holds for every format."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from preflab.core.records import Comparison, Message, RowError
from preflab.data.fields import Row, as_text, excerpt, number, truth
from preflab.data.layout import Format, renamed_row
from preflab.data.messages import is_nothing, refuse_unsupported
from preflab.data.names import EARLIER, PROMPT, REASONING, SIDES_REASONING, SYSTEM, could_be_a_prompt, is_number, said
from preflab.data.parsers.alpaca import earlier_turns
from preflab.data.unpack import unpack

_LONGEST_META = 200


def parse_row(form: Format, row: Row, row_number: int = 0) -> Comparison:
    """One row -> its comparison, checked: the one way from rows to comparisons.

    Raises RowError where the row cannot be used, UserError where a user's own format function fails.
    """
    found = read_row(form, row)
    if not found.prompt or not found.prompt[-1].content.strip():
        raise RowError("empty prompt", "there is nothing to respond to")
    if found.prompt[-1].role != "user":
        raise RowError("not the user's turn", f"the prompt ends with a message of the {found.prompt[-1].role}")
    if not all(response.strip() for response in found.responses):
        raise RowError("empty response", "each response needs some text")
    thought = found.reasoning or ("",) * len(found.responses)
    if len(set(zip(map(str.strip, found.responses), map(str.strip, thought), strict=True))) < len(found.responses):
        raise RowError("identical responses", f"there is nothing to prefer in {excerpt(found.responses[0])}")
    return replace(found, row=row_number)


def read_row(form: Format, row: Row) -> Comparison:
    """What a row says, an empty response included: what its format reads, and what holds in all formats (the system
    message, whether the one response was wanted, the scores of a pair, the short columns that are left, as meta).

    Raises RowError, and UserError where a user's own format function fails.
    """
    if form.own:
        found = form.parse(row)
    else:
        row = unpack(renamed_row(form.spelling, row))
        refuse_unsupported(row)
        renamed = renamed_row(form.renamed, row)
        if form.guesses:
            _refuse_a_guess(renamed)
        found = form.parse(renamed)
        found = _with_reasoning(form, row, found)
        found = replace(found, prompt=_with_system(row, _with_earlier_turns(form, row, found.prompt)))
        if form.label and said(row, form.label) is not None:
            found = replace(found, label=truth(row, form.label))
        if form.scores:
            found = replace(found, scores=_scores(form, renamed, found))
    refuse_half_characters(found)
    return replace(found, meta={**short_scalars(row, no_meta(form)), **found.meta})


def _refuse_a_guess(row: Row) -> None:
    """The first rows had no column that could be the prompt; a later one may have."""
    if isinstance(row.get("chosen"), str):
        for name in PROMPT:
            if (value := said(row, name)) is not None and could_be_a_prompt(value):
                raise RowError("prompt not clear", f"`{name}` could be the prompt: {excerpt(value)}")


def _with_earlier_turns(form: Format, row: Row, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt after the turns that a column `history` has, as lists; a text of that name is another thing."""
    value = said(row, EARLIER)
    reads_it = EARLIER in (*form.columns, *form.optional, *form.renamed)
    if reads_it or is_nothing(value) or not (isinstance(value, list) or str(value).lstrip().startswith("[[")):
        return prompt
    if any(message.role == "assistant" for message in prompt):
        raise RowError("earlier turns twice", f"`{EARLIER}` has some, and so has the prompt")
    system = tuple(message for message in prompt if message.role == "system")
    return (*system, *earlier_turns(row, EARLIER), *prompt[len(system) :])


def _with_system(row: Row, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt after the row's system message, which may stand in the conversation too, but not say another thing."""
    systems = {name: value for name in SYSTEM if (value := said(row, name)) is not None}
    for name, value in systems.items():
        content = as_text(value, name)
        if not content.strip():
            continue
        if not prompt or prompt[0].role != "system":
            prompt = (Message("system", content), *prompt)
        elif prompt[0].content.strip() != content.strip():
            detail = f"`{name}` is {excerpt(content)}, and the conversation begins with {excerpt(prompt[0].content)}"
            raise RowError("two system messages", detail)
    return prompt


def _with_reasoning(form: Format, row: Row, found: Comparison) -> Comparison:
    """The comparison with what columns of their own say was thought before the response, or before each of two."""
    columns = _reasoning_columns(form)
    if found.reasoning or len(columns) != len(found.responses):
        return found
    before = tuple(
        next((thought for name in names if isinstance(thought := row.get(name), str) and thought.strip()), "")
        for names in columns
    )
    return replace(found, reasoning=before) if any(before) else found


def _reasoning_columns(form: Format) -> tuple[tuple[str, ...], ...]:
    """For each response, the columns that may say what was thought before it."""
    if form.kind in ("demonstration", "unpaired"):
        return (REASONING,)
    return SIDES_REASONING if form.responses == ("chosen", "rejected") else ()


def _scores(form: Format, row: Row, found: Comparison) -> tuple[float, ...]:
    """What the row says of each response in the order of the responses, more being better; () where it does not."""
    if not all(is_number(row.get(name)) for name in form.scores):
        return ()
    scores = [-number(row, name) if form.ranks else number(row, name) for name in form.scores]
    if form.responses[0] != "chosen":
        first = row.get(form.responses[0])
        if not isinstance(first, str):  # messages, whose place among the responses is not known any more
            return ()
        if first != found.responses[0]:
            scores.reverse()
    return tuple(scores)


def refuse_half_characters(comparison: Comparison) -> None:
    """Raises RowError for text with halves of characters, which JSON can hold, but neither tokenizers nor files."""
    said = (text for message in comparison.prompt for text in (message.content, message.reasoning))
    for content in (*said, *comparison.responses, *comparison.reasoning):
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise RowError("not valid Unicode", f"half a surrogate pair at character {error.start}") from None


def no_meta(form: Format) -> set[str]:
    """The columns that have done their work, and are not kept beside the comparison as well.

    An answer that is read under another name stays there if it is short: it may be the solution to check others by.
    """
    read = {*form.columns, *form.optional, *SYSTEM, EARLIER, *filter(None, [form.label])}
    read |= {name for names in _reasoning_columns(form) for name in names}
    return (read | set(form.renamed)) - {name for name, target in form.renamed.items() if target == form.response}


def short_scalars(row: Row, used: Iterable[str]) -> dict[str, Any]:
    """What else the row says in single short values: categories, ids, gold scores."""
    others = {name: value for name, value in row.items() if name not in used}
    return {name: value for name, value in others.items() if is_short_scalar(value)}


def is_short_scalar(value: object) -> bool:
    """Numbers that JSON can write, and short text that UTF-8 can."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_META and not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
