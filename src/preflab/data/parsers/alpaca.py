"""Alpaca's layout: instruction, input, history."""

from __future__ import annotations

from preflab.core.records import Comparison, Message, RowError
from preflab.data.fields import Row, as_text, excerpt, text
from preflab.data.messages import is_message, messages
from preflab.data.names import said
from preflab.data.unpack import literal


def alpaca_ranking(row: Row) -> Comparison:
    return Comparison(alpaca_prompt(row), (text(row, "chosen"), text(row, "rejected")))


def alpaca(row: Row) -> Comparison:
    return Comparison(alpaca_prompt(row), (text(row, "output"),))


def earlier_turns(row: Row, name: str) -> tuple[Message, ...]:
    """What was said before the prompt: pairs of a question and an answer, or chat messages."""
    value = row[name]
    if isinstance(value, str):
        value = literal(value) if value.lstrip().startswith("[") else value
    if not isinstance(value, list):
        raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a list of earlier turns")
    if value and all(map(is_message, value)):
        return messages({name: value}, name)
    turns: list[Message] = []
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("wrong type", f"`{name}[{index}]` is {excerpt(pair)}, not a question and an answer")
        question, answer = (as_text(part, f"{name}[{index}]") for part in pair)
        turns += [Message("user", question), Message("assistant", answer)]
    return tuple(turns)


def alpaca_prompt(row: Row) -> tuple[Message, ...]:
    """Earlier turns in `history` ([[question, answer], …]), then `instruction` and, below it, any `input`.

    Databricks' Dolly calls the input `context`. Where the instruction is empty, the input is all there is to say.
    """
    turns = earlier_turns(row, "history") if said(row, "history") is not None else ()
    more = [as_text(row[name], name) for name in ("input", "context") if said(row, name) is not None]
    if len(more) > 1:
        raise RowError("two inputs", f"`input` is {excerpt(more[0])}, and `context` {excerpt(more[1])}")
    instruction = text(row, "instruction") if said(row, "instruction") is not None or not more else ""
    if instruction.strip() and more and more[0].strip():
        return (*turns, Message("user", f"{instruction}\n{more[0]}"))
    return (*turns, Message("user", instruction if instruction.strip() or not more else more[0].strip()))
