"""What the parsers of two-sided rows share."""

from __future__ import annotations

from collections.abc import Sequence

from preflab.data.fields import Row, as_text, present
from preflab.data.messages import messages
from preflab.records import Message, RowError


def shared(a: Sequence[object], b: Sequence[object]) -> int:
    """How many leading items (characters, messages) two sequences have in common."""
    return next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def reply(row: Row, name: str, prompt: tuple[Message, ...]) -> Message:
    """A response given as text, or as one assistant message, with or without the prompt's messages before it."""
    value = present(row, name)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if not isinstance(value, list):
        return Message("assistant", as_text(value, name))
    turns = messages({name: value}, name)
    if prompt and turns[: len(prompt)] == prompt:
        turns = turns[len(prompt) :]
    if [turn.role for turn in turns] != ["assistant"]:
        found = ", ".join(turn.role for turn in turns) or "nothing"
        raise RowError(
            "not one response", f"after the prompt, `{name}` must hold one assistant message; it holds {found}"
        )
    return turns[0]
