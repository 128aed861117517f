"""What the parsers of two-sided rows share."""

from __future__ import annotations

from collections.abc import Sequence

from preflab.core.records import Message, RowError
from preflab.data.fields import Row, as_text, excerpt, present
from preflab.data.messages import messages


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
        if len(turns) > 1 and turns[0].role != "assistant" and turns[-1].role == "assistant":
            raise RowError("prompts differ", f"`{name}` begins with {excerpt(turns[0].content)}, not with the prompt")
        raise RowError(
            "not one response", f"after the prompt, `{name}` must hold one assistant message; it holds {found}"
        )
    return turns[0]


def refuse_other_prompt(row: Row, prompt: tuple[Message, ...]) -> None:
    """Raises RowError where a column `prompt` says something else than the conversations that have it already.

    It may be any of the user's turns, begin one (that a template ends), or hold them all, rendered.
    """
    column = row.get("prompt")
    turns = [_words(message.content) for message in prompt if message.role == "user"]
    if not isinstance(column, str) or not column.strip() or not turns:
        return
    said = _words(column)
    if not any(turn.startswith(said) or turn.endswith(said) for turn in turns) and not all(
        turn in said for turn in turns
    ):
        detail = f"`prompt` is {excerpt(column)}, and the conversation asks {excerpt(prompt[-1].content)}"
        raise RowError("prompts differ", detail)


def _words(content: str) -> str:
    return " ".join(content.split())
