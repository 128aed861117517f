"""Rows with a list of responses, ranked by their scores or by their order."""

from __future__ import annotations

from collections.abc import Sequence

from preflab.data.fields import Row, as_text, excerpt, number, present, records, text
from preflab.data.messages import conversation, user
from preflab.data.parsers.alpaca import alpaca_prompt
from preflab.records import Comparison, Message, RowError


def stack_exchange(row: Row) -> Comparison:
    return _by_score(user(text(row, "question")), records(row, "answers"), "text", "pm_score")


def ultrafeedback_raw(row: Row) -> Comparison:
    return _by_score(user(text(row, "instruction")), records(row, "completions"), "response", "overall_score")


def _by_score(prompt: tuple[Message, ...], answers: Sequence[Row], response: str, score: str) -> Comparison:
    """Responses by falling score. Of several with one score the first is kept: there is no preference between them."""
    best_first: dict[float, str] = {}
    for answer in sorted(answers, key=lambda answer: -number(answer, score)):
        best_first.setdefault(number(answer, score), text(answer, response))
    if len(best_first) < 2:
        raise RowError(
            "no preference", f"{len(answers)} responses, {len(best_first)} different `{score}`; two are needed"
        )
    meta = {"scores": list(best_first), "tied_responses_left_out": len(answers) - len(best_first)}
    return Comparison(prompt, tuple(best_first.values()), meta=meta)


def alpaca_ranking_list(row: Row) -> Comparison:
    return Comparison(alpaca_prompt(row), _ranked(row, "output"))


def ranked(row: Row) -> Comparison:
    return Comparison(conversation(row, "prompt"), _ranked(row, "responses"))


def _ranked(row: Row, name: str) -> tuple[str, ...]:
    values = present(row, name)
    if not isinstance(values, list) or len(values) < 2:
        raise RowError("wrong type", f"`{name}` is {excerpt(values)}, not a list of two or more responses, best first")
    return tuple(as_text(value, f"{name}[{index}]") for index, value in enumerate(values))
