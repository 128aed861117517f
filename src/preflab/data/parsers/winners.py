"""Two responses, or two conversations, and a column that says which is better: arenas, annotators, HelpSteer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from preflab.core.records import Comparison, Message, RowError
from preflab.data.fields import Row, as_text, excerpt, is_missing, number, present, text
from preflab.data.messages import conversation, is_nothing, messages, of_replies, user
from preflab.data.parsers.sides import reply, shared

_TIES = {
    *("tie", "tie (bothbad)", "tie (both bad)", "both_bad", "bothbad", "both bad", "both_good", "both good"),
    *("both", "equal", "equally good", "draw", "same", "neither", "none", "no preference", "unsure"),
}


def winner(first: str, second: str) -> Callable[[Row], Comparison]:
    """The parser of rows with `prompt`, the responses in two columns, and `winner`, which names one of them."""

    def parse(row: Row) -> Comparison:
        prompt = conversation(row, "prompt")
        sides = tuple(reply(row, name, prompt) for name in (first, second))
        return of_replies(prompt, _best_first(sides, first_wins(row, "winner", first, second)))

    return parse


def first_wins(row: Row, name: str, first: str, second: str) -> bool:
    """Whether a column names the first of two: by its column, its letter or number, or the name of its model.

    Raises RowError for a tie (and nothing), and where it is not clear what is meant.
    """
    value = present(row, name) if not is_nothing(row.get(name)) else None
    said = " ".join(str(value).lower().split()) if isinstance(value, str | int | float) else ""
    said = said.removesuffix(".0")
    if value is None or said in _TIES:
        raise RowError("no preference", f"`{name}` is {excerpt(value)}")
    marks = [column.lower().rpartition("_")[2] for column in (first, second)]
    for column, mark, wins in ((first, marks[0], True), (second, marks[1], False)):
        model = row.get(f"model_{mark}")
        names = {column.lower(), mark, *(f"{what}_{mark}" for what in _WHAT), *(f"{what} {mark}" for what in _WHAT)}
        if said in names or (isinstance(model, str) and value == model and model != row.get(f"model_{marks[wins]}")):
            return wins
    if marks == ["1", "2"]:
        return _first_of_one_and_two(row, name)
    raise RowError(
        "unclear preference", f"`{name}` is {excerpt(value)}; it must name `{first}` or `{second}`, or be a tie"
    )


_WHAT = ("model", "response", "answer", "output", "completion", "assistant", "conversation", "summary", "option")


def _first_of_one_and_two(row: Row, name: str) -> bool:
    """AlpacaEval's preferences: 1 for the first, 2 for the second, a probability between them, 0 or 1.5 for a tie."""
    value = number(row, name)
    if isinstance(row[name], bool):
        raise RowError("unclear preference", f"`{name}` is {row[name]}; it must say which response is the better one")
    if value in (0, 1.5):
        raise RowError("no preference", f"`{name}` is {value:g}")
    if not 1 <= value <= 2:
        raise RowError("unclear preference", f"`{name}` is {value:g}; it must lie between 1 and 2, or be 0 for a tie")
    return value < 1.5


def _best_first(sides: Sequence[Message], first: bool) -> tuple[Message, ...]:
    return tuple(sides) if first else tuple(reversed(sides))


# HelpSteer ------------------------------------------------------------------------------------------------------------


def helpsteer2_preference(row: Row) -> Comparison:
    """NVIDIA's HelpSteer2: `preference_strength` from -3 (response_1 is much better) to 3 (response_2 is)."""
    return _signed(row, helpsteer_prompt(text(row, "prompt")), ("response_1", "response_2"), "preference_strength")


def helpsteer3(row: Row) -> Comparison:
    """NVIDIA's HelpSteer3: `overall_preference` from -3 (response1 is much better) to 3 (response2 is)."""
    return _signed(row, conversation(row, "context"), ("response1", "response2"), "overall_preference")


def _signed(row: Row, prompt: tuple[Message, ...], names: tuple[str, str], strength: str) -> Comparison:
    value = number(row, strength) if not is_nothing(row.get(strength)) else 0.0
    if value == 0:
        raise RowError("no preference", f"`{strength}` is {excerpt(row.get(strength))}")
    sides = tuple(reply(row, name, prompt) for name in names)
    return of_replies(prompt, _best_first(sides, value < 0), meta={"preference_strength": abs(value)})


_TURN_MARK = "<extra_id_1>"


def helpsteer_prompt(written: str) -> tuple[Message, ...]:
    """Earlier turns stand in the text of the prompt: `…\\n<extra_id_1>Assistant\\n…\\n<extra_id_1>User\\n…`."""
    first, *later = written.split(f"\n{_TURN_MARK}")
    turns = [Message("user", first)]
    for turn in later:
        speaker, _, said = turn.partition("\n")
        if speaker not in ("User", "Assistant"):
            raise RowError("unknown role", f"`prompt` has a turn by {excerpt(speaker)}; known are User and Assistant")
        turns.append(Message("user" if speaker == "User" else "assistant", said))
    return tuple(turns)


# Arenas ---------------------------------------------------------------------------------------------------------------


def arena(row: Row) -> Comparison:
    """Chatbot Arena and MT-bench's judgements: two conversations and a `winner`, after so many `turn`s as it counts."""
    sides = [messages(row, name) for name in ("conversation_a", "conversation_b")]
    turn = row.get("turn")
    if isinstance(turn, int) and turn > 0:
        sides = [_first_turns(side, turn) for side in sides]
    return _of_conversations(sides, first_wins(row, "winner", "conversation_a", "conversation_b"))


def _first_turns(turns: tuple[Message, ...], n: int) -> tuple[Message, ...]:
    """The first n answers of a conversation, with what is before them."""
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    return turns[: answers[n - 1] + 1] if n <= len(answers) else turns


def lmsys_kaggle(row: Row) -> Comparison:
    """Kaggle's LMSYS competition: prompts and answers as lists of texts (as JSON), who won in three columns."""
    prompts = _list_of_texts(row, "prompt")
    sides = []
    for name in ("response_a", "response_b"):
        answers = _list_of_texts(row, name)
        if len(answers) != len(prompts):
            raise RowError("wrong type", f"`prompt` has {len(prompts)} turns, `{name}` {len(answers)}")
        spoken = [
            user(asked)[0] if not at else Message("assistant", said)
            for asked, said in zip(prompts, answers, strict=True)
            for at in (0, 1)
        ]
        sides.append(tuple(spoken))
    wins = [number(row, name) for name in ("winner_model_a", "winner_model_b")]
    if wins[0] == wins[1]:
        raise RowError("no preference", f"`winner_model_a` and `winner_model_b` are both {wins[0]:g}")
    return _of_conversations(sides, wins[0] > wins[1])


def _list_of_texts(row: Row, name: str) -> list[str]:
    value: Any = present(row, name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a list of texts in JSON") from None
    if not isinstance(value, list):
        raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a list of texts")
    if any(map(is_missing, value)):
        raise RowError("missing value", f"`{name}` has a turn that is null")
    return [as_text(item, f"{name}[{index}]") for index, item in enumerate(value)]


def _of_conversations(sides: Sequence[tuple[Message, ...]], first: bool) -> Comparison:
    """Two whole conversations -> their last answers, if all that is before them is the same."""
    if not all(side and side[-1].role == "assistant" for side in sides):
        raise RowError("not one response", "both conversations must end with the assistant's turn")
    if sides[0][:-1] != sides[1][:-1]:
        parted = shared(*sides)
        raise RowError("prompts differ", f"the conversations part at turn {parted + 1}, before their last answer")
    return of_replies(sides[0][:-1], _best_first([side[-1] for side in sides], first))
