"""Conversations with one response, and prompts alone."""

from __future__ import annotations

from collections.abc import Callable

from preflab.core.records import Comparison, Message, RowError
from preflab.data.fields import Row, text
from preflab.data.messages import conversation, is_said_by_user, message, messages, of_replies
from preflab.data.parsers.sides import reply


def sharegpt_ranking(row: Row) -> Comparison:
    prompt = messages(row, "conversations")
    return of_replies(prompt, (message(row, "chosen"), message(row, "rejected")))


def prompt_response(row: Row) -> Comparison:
    """Files that `preflab generate` wrote keep the columns of the prompt's row in `meta`; the line's own come first."""
    meta = row.get("meta")
    kept = {name: value for name, value in meta.items() if name not in row} if isinstance(meta, dict) else {}
    return Comparison(conversation(row, "prompt"), (text(row, "response"),), meta=kept)


def prompt_completion(row: Row) -> Comparison:
    prompt = conversation(row, "prompt")
    return of_replies(prompt, (reply(row, "completion", prompt),))


def ends_with_answer(name: str) -> Callable[[Row], bool]:
    """Whether a column holds messages of which the last one is not the user's: else they are a prompt."""
    return lambda row: isinstance(row[name], list) and not (row[name] and is_said_by_user(row[name][-1]))


def chat(row: Row) -> Comparison:
    return _demonstration(messages(row, "messages"), "messages")


def sharegpt(row: Row) -> Comparison:
    return _demonstration(messages(row, "conversations"), "conversations")


def _demonstration(turns: tuple[Message, ...], name: str) -> Comparison:
    if not turns or turns[-1].role != "assistant":
        raise RowError("not one response", f"`{name}` must end with the assistant's turn")
    return of_replies(turns[:-1], turns[-1:])


def prompts(row: Row) -> Comparison:
    return Comparison(conversation(row, "prompt"), ())
