"""One row of a verdict file <-> a judgement: our own layout, what similar tools write, and AlpacaEval's annotations.

Nothing is guessed: a row that says something else than the tables below raises UserError with what it says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from preflab.core.records import (
    Judgement,
    Message,
    Order,
    Outcome,
    Pair,
    Role,
    UserError,
    Winner,
    messages_from_json,
    messages_to_json,
    outcome_of,
)
from preflab.stats.judgements import leaning

Row = Mapping[str, Any]

OpponentWord = Literal["chosen", "baseline"]
"""What a file calls the opponent: the preferred response of preference data, or another model's response."""

OPPONENT_WORDS: tuple[OpponentWord, ...] = ("chosen", "baseline")

_OUTCOMES: Mapping[str, Outcome] = {
    "model": "win",
    "win": "win",
    "chosen": "loss",
    "baseline": "loss",
    "opponent": "loss",
    "loss": "loss",
    "tie": "tie",
    "error": "error",
}
_ORDERS: Mapping[str, Order] = {
    "model_first": "model_first",
    "chosen_first": "opponent_first",
    "baseline_first": "opponent_first",
    "opponent_first": "opponent_first",
}
# By place, where the judge's letter was not translated.
_PLACES: Mapping[str, Winner] = {"a": "first", "b": "second"}

_MOST_DIGITS = 100  # of a sample's number; a longer one is damage

_RAW = ("raw", "raw_judgement", "raw_response", "raw_gpt4_response")
_PROMPT = ("prompt", "instruction")
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")


def verdict_row(judgement: Judgement, pair: Pair | None, opponent_word: OpponentWord) -> dict[str, Any]:
    """A judgement as a row of `results`, and as a line of the journal while judging goes on."""
    words: Mapping[Outcome, str] = {"win": "model", "tie": "tie", "loss": opponent_word, "error": "error"}
    orders: Mapping[Order | None, str | None] = {
        "model_first": "model_first",
        "opponent_first": f"{opponent_word}_first",
        None: None,
    }
    shown = (
        {
            "prompt": messages_to_json(pair.prompt),
            "model_response": pair.response,
            f"{opponent_word}_response": pair.opponent,
        }
        if pair
        else {}
    )
    return {
        "sample_id": judgement.sample_id,
        **shown,
        "presentation_order": orders[judgement.order],
        "verdict": words[judgement.outcome],
        "preference": judgement.preference,
        "raw": judgement.text,
        "error": judgement.reason or None,
    }


def judgement_of(row: Row, number: int) -> Judgement:
    """The judgement that a row of results holds; `number` counts from 1 and stands in where a row has no `sample_id`.

    Raises UserError that says what was found and what would be right.
    """
    order = _order(row)
    outcome, reason = _outcome(row, order)
    preference = _preference(row)
    if preference is not None and outcome != "error" and outcome != leaning(preference):
        raise UserError(
            f"`verdict` says {outcome} for the model but `preference`, its probability to be better, is {preference:g}"
        )
    text = next((row[name] for name in _RAW if isinstance(row.get(name), str)), "")
    return Judgement(
        sample_id=_sample_id(row, number),
        outcome=outcome,
        order=order,
        preference=None if outcome == "error" else preference,
        text=text,
        reason=reason,
    )


def prompt_of(row: Row) -> tuple[Message, ...]:
    """The row's prompt, empty where it has none."""
    return next((found for name in _PROMPT if (found := _messages(row.get(name)))), ())


def pair_of(row: Row, sample_id: str) -> Pair | None:
    """Prompt and responses, where the row has all three."""
    response = row.get("model_response")
    opponent = next((row[name] for word in OPPONENT_WORDS if (name := f"{word}_response") in row), None)
    prompt = prompt_of(row)
    if prompt and isinstance(response, str) and isinstance(opponent, str):
        return Pair(sample_id, prompt, response, opponent)
    return None


def opponent_words_of(row: Row) -> set[OpponentWord]:
    """What the row calls the opponent: in the names of its fields, in its verdict, in the order of presentation."""
    said = {str(row.get("verdict")).lower(), str(row.get("presentation_order")).lower().removesuffix("_first")}
    return {word for word in OPPONENT_WORDS if f"{word}_response" in row or word in said}


def _sample_id(row: Row, number: int) -> str:
    value = row.get("sample_id")
    if value is None:
        return str(number)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UserError(f"`sample_id` is {_found(value)}; text or a whole number is needed")
    digits = len(place) if isinstance(value, str) and (place := value.rpartition("/")[2]).isdecimal() else 0
    if digits > _MOST_DIGITS:
        raise UserError(
            f"`sample_id` ends in a number of {digits:,} digits; a row and a sample, such as 12/0, is needed"
        )
    return str(value)


def _order(row: Row) -> Order | None:
    value = row.get("presentation_order")
    if value is None:
        return None
    if not isinstance(value, str) or value.lower() not in _ORDERS:
        raise UserError(f"`presentation_order` is {_found(value)}; known are {', '.join(_ORDERS)} and null")
    return _ORDERS[value.lower()]


def _outcome(row: Row, order: Order | None) -> tuple[Outcome, str]:
    """The outcome, and for an error its reason."""
    if "verdict" not in row and {"response", "output"} & row.keys():
        raise UserError("this is a response, not a verdict; let a judge compare it first (`preflab judge`)")
    if "verdict" not in row:
        raise UserError(f"there is no `verdict`; the row has {', '.join(map(str, row)) or 'no fields'}")
    value, reason = row["verdict"], row.get("error")
    reason = reason if isinstance(reason, str) else ""
    if value is None:
        return "error", reason or "there is no verdict"
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _PLACES:
        if order is None:
            raise UserError(f"`verdict` is {value!r}, which says nothing without `presentation_order`")
        return outcome_of(_PLACES[word], order), ""
    if word not in _OUTCOMES:
        known = ", ".join((*_OUTCOMES, "A", "B"))
        raise UserError(f"`verdict` is {_found(value)}; known are {known}, and null where there is none")
    outcome = _OUTCOMES[word]
    return outcome, (reason or "not said") if outcome == "error" else ""


def _preference(row: Row) -> float | None:
    value = row.get("preference")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f"`preference` is {_found(value)}; a probability between 0 and 1, or null, is needed")
    return float(value)


def _messages(value: object) -> tuple[Message, ...]:
    """A prompt as text or as chat messages; nothing where it is neither."""
    if isinstance(value, str):
        return (Message("user", value),)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return ()
    fields = [(item.get("role"), item.get("content")) for item in value]
    if not all(role in _ROLES and isinstance(content, str) for role, content in fields):
        return ()
    return messages_from_json(value)


def _found(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# ---- AlpacaEval ----------------------------------------------------------------------------------------------------


def is_alpaca_eval(row: Row) -> bool:
    """Whether a row is an annotation of AlpacaEval, whose names for the two responses nobody else uses."""
    return "output_1" in row and "output_2" in row and "verdict" not in row


def alpaca_eval_row(row: Row) -> Row:
    """An annotation of AlpacaEval as a row of ours: `output_1` is the reference's and `output_2` the model's response.

    `preference` is 1 + P(output_2 is better); 1.5, and 0 in older files, is a draw (`alpaca_eval.metrics.winrate`).
    Empty or NaN, it says that the annotator failed.
    """
    value, raw = row.get("preference"), row.get("raw_completion")
    known = {
        "prompt": row.get("instruction"),
        "model_response": row["output_2"],
        "baseline_response": row["output_1"],
        "raw": raw.get("text") if isinstance(raw, dict) else raw,
    }
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return {**known, "verdict": "error", "error": "the annotator gave no preference"}
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value == 0 or 1 <= value <= 2):
        raise UserError(
            f"`preference` is {_found(value)}; AlpacaEval writes 1 (output_1 is better) to 2 (output_2 is better), 0 "
            "or 1.5 for a draw, null for a failure"
        )
    preference = 0.5 if value == 0 else value - 1
    words: Mapping[Outcome, str] = {"win": "model", "tie": "tie", "loss": "baseline"}
    return {**known, "verdict": words[leaning(preference)], "preference": preference}
