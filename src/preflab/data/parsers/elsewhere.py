"""Preference data as other tools write it: OpenAI, ms-swift, RewardBench 2, and lists of candidates with ranks."""

from __future__ import annotations

from collections.abc import Sequence

from preflab.core.records import Comparison, Message, RowError
from preflab.data.fields import Row, as_text, excerpt, is_missing, number, present, records, text
from preflab.data.messages import conversation, is_nothing, messages, of_replies, refuse_unsupported
from preflab.data.parsers.alpaca import alpaca_prompt
from preflab.data.parsers.sides import reply
from preflab.data.parsers.transcripts import transcript_prompt
from preflab.data.parsers.trl import trl_implicit


def openai_preference(row: Row) -> Comparison:
    """OpenAI's preference fine-tuning: `input` with messages (and tools), a preferred answer and one that is not."""
    asked = present(row, "input")
    if not isinstance(asked, dict):
        raise RowError("wrong type", f"`input` is {excerpt(asked)}, not an object with messages")
    refuse_unsupported(asked)
    prompt = messages(asked, "messages")
    names = ("preferred_output", "non_preferred_output")
    return of_replies(prompt, [reply(row, name, prompt) for name in names])


def ms_swift(row: Row) -> Comparison:
    """ms-swift: `messages` end with the preferred answer; `rejected_response` takes the place of all that follows the
    user's last turn."""
    turns = messages(row, "messages")
    if not turns or turns[-1].role != "assistant":
        raise RowError("not one response", "`messages` must end with the assistant's turn")
    return of_replies(turns[:-1], (turns[-1], reply(row, "rejected_response", turns[:-1])))


def ms_swift_messages(row: Row) -> Comparison:
    """ms-swift: two whole conversations, `messages` the preferred one and `rejected_messages` the other."""
    return trl_implicit({"chosen": present(row, "messages"), "rejected": present(row, "rejected_messages")})


def ms_swift_query(row: Row) -> Comparison:
    """ms-swift: `query` (after `history`, a list of pairs), `response` and `rejected_response`."""
    prompt = alpaca_prompt({"instruction": present(row, "query"), "history": row.get("history")})
    return of_replies(prompt, [reply(row, name, prompt) for name in ("response", "rejected_response")])


def alpaca_rejected(row: Row) -> Comparison:
    """Alpaca's columns, `output` the preferred response, and `rejected_response`."""
    prompt = alpaca_prompt(row)
    return of_replies(prompt, [reply(row, name, prompt) for name in ("output", "rejected_response")])


# Lists ----------------------------------------------------------------------------------------------------------------


def are_lists_of_texts(row: Row) -> bool:
    """Whether chosen and rejected are lists of responses, at least one of them of several."""
    sides = [row["chosen"], row["rejected"]]
    return all(
        isinstance(side, list) and side and all(isinstance(item, str) for item in side) for side in sides
    ) and any(len(side) > 1 for side in sides)


def rewardbench_2(row: Row) -> Comparison:
    """RewardBench 2 and RM-Bench: lists of good and of bad responses. The first of each make the pair: nothing ranks
    the others of a list against it. How many are left out is kept as meta.
    """
    prompt = conversation(row, "prompt")
    sides = {name: _texts(row, name) for name in ("chosen", "rejected")}
    left = sum(map(len, sides.values())) - 2
    pair = tuple(side[0] for side in sides.values())
    return Comparison(prompt, pair, meta={"further_responses_left_out": left})


def _texts(row: Row, name: str) -> list[str]:
    value = present(row, name)
    if not isinstance(value, list) or not value:
        raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a list of responses")
    return [as_text(item, f"{name}[{index}]") for index, item in enumerate(value)]


_TEXT_KEYS = ("answer", "response", "text", "content", "output", "completion", "generation", "message")
_RANK_KEYS = ("rank", "ranking")
_SCORE_KEYS = ("score", "rating", "reward", "overall_score", "pm_score", "preference_score")


def are_candidates(row: Row) -> bool:
    """Whether candidates are objects with a text, and with a rank or one score."""
    items = row["candidates"]
    return (
        isinstance(items, list)
        and bool(items)
        and all(
            isinstance(item, dict) and _key(item, _TEXT_KEYS) and _key(item, (*_RANK_KEYS, *_SCORE_KEYS))
            for item in items
        )
    )


def candidates(row: Row) -> Comparison:
    """A prompt and several responses, each an object with its text and its rank (1 is best) or its score (more is
    better), as in Nectar. Of several with the same one the first is kept: there is no preference between them.
    """
    items = list(records(row, "candidates"))
    prompt = _prompt(row)
    if len(items) < 2:
        raise RowError("no preference", f"{len(items)} response; two are needed")
    text_key, order = _key(items[0], _TEXT_KEYS), _key(items[0], (*_RANK_KEYS, *_SCORE_KEYS))
    if not text_key or not order:
        raise RowError("wrong type", f"`candidates[0]` has no text and no rank: {excerpt(items[0])}")
    sign = 1 if order in _RANK_KEYS else -1
    best_first: dict[float, str] = {}
    for item in sorted(items, key=lambda item: sign * number(item, order)):
        best_first.setdefault(number(item, order), text(item, text_key))
    if len(best_first) < 2:
        raise RowError("no preference", f"{len(items)} responses, all of the same `{order}`")
    meta = {"tied_responses_left_out": len(items) - len(best_first)}
    return Comparison(prompt, tuple(best_first.values()), meta=meta)


def _prompt(row: Row) -> tuple[Message, ...]:
    """Nectar's prompts are transcripts that end where the assistant is to speak."""
    written = present(row, "prompt")
    return (isinstance(written, str) and transcript_prompt(written)) or conversation(row, "prompt")


def _key(item: Row, names: Sequence[str]) -> str:
    """The one of these fields that an object has; "" if it has none, or several, since it is not clear which counts."""
    found = [name for name in names if name in item and not is_missing(item[name]) and not is_nothing(item[name])]
    return found[0] if len(found) == 1 else ""
