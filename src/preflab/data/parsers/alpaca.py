"""Alpaca's layout: instruction, input, history, system."""

from __future__ import annotations

from preflab.data.fields import Row, as_text, excerpt, text
from preflab.records import Comparison, Message, RowError


def alpaca_ranking(row: Row) -> Comparison:
    return Comparison(alpaca_prompt(row), (text(row, "chosen"), text(row, "rejected")))


def alpaca(row: Row) -> Comparison:
    return Comparison(alpaca_prompt(row), (text(row, "output"),))


def alpaca_prompt(row: Row) -> tuple[Message, ...]:
    """Earlier turns in `history` ([[question, answer], …]), then `instruction` and, below it, any `input`."""
    turns: list[Message] = []
    for index, pair in enumerate(row.get("history") or ()):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("wrong type", f"`history[{index}]` is {excerpt(pair)}, not a question and an answer")
        question, answer = (as_text(part, f"history[{index}]") for part in pair)
        turns += [Message("user", question), Message("assistant", answer)]
    instruction, more = text(row, "instruction"), row.get("input") or ""
    turns.append(Message("user", f"{instruction}\n{as_text(more, 'input')}" if more else instruction))
    return with_system(row, tuple(turns))


def with_system(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    system = row.get("system") or ""
    return (Message("system", as_text(system, "system")), *turns) if system else turns
