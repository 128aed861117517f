"""Rows with a list of responses, ranked by their scores, or else by their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from preflab.core.records import Comparison, Message, RowError
from preflab.data.fields import Row, as_text, excerpt, number, present, records, text
from preflab.data.messages import conversation, user
from preflab.data.names import LIST_RANKS, LIST_SCORES, is_judged, is_number, said
from preflab.data.parsers.alpaca import alpaca_prompt


def stack_exchange(row: Row) -> Comparison:
    answers = records(row, "answers")
    texts = [text(answer, "text") for answer in answers]
    return _by_score(user(text(row, "question")), texts, [number(answer, "pm_score") for answer in answers], "pm_score")


def ultrafeedback_raw(row: Row) -> Comparison:
    """By overall_score; a fine-grained_score that ranks two responses the other way round is noted."""
    answers = records(row, "completions")
    texts, overall = [], []
    for answer in answers:
        texts.append(text(answer, "response"))
        overall.append(number(answer, "overall_score"))
    found = _by_score(user(text(row, "instruction")), texts, overall, "overall_score")
    fine = [number(answer, _FINE) if is_number(answer.get(_FINE)) else None for answer in answers]
    both = [(one, other) for one, other in zip(overall, fine, strict=True) if other is not None]
    if any((a - b) * (c - d) < 0 for (a, c), (b, d) in combinations(both, 2)):
        return _noting(found, scores_disagree=f"overall_score and {_FINE}")
    return found


_FINE = "fine-grained_score"


def alpaca_ranking_list(row: Row) -> Comparison:
    return _ranked(row, alpaca_prompt(row), "output")


def ranked(row: Row) -> Comparison:
    return _ranked(row, conversation(row, "prompt"), "responses")


def _ranked(row: Row, prompt: tuple[Message, ...], name: str) -> Comparison:
    """By the numbers in a list of scores or ranks as long as that of the responses; without one, best first."""
    values = present(row, name)
    if not isinstance(values, list) or len(values) < 2:
        raise RowError("wrong type", f"`{name}` is {excerpt(values)}, not a list of two or more responses, best first")
    texts = [as_text(value, f"{name}[{index}]") for index, value in enumerate(values)]
    stated = {column: _numbers(row, column, len(texts)) for column in (*LIST_SCORES, *LIST_RANKS) if said(row, column)}
    scores = {column: numbers for column, numbers in stated.items() if numbers}
    if not scores:
        return Comparison(prompt, tuple(texts))
    first, *others = scores
    for other in others:
        _refuse_contradiction(first, scores[first], other, scores[other])
    return _by_score(prompt, texts, scores[first], first)


def _numbers(row: Row, name: str, count: int) -> list[float]:
    """A number for each response, more being better; none where the column is something else than a list of numbers."""
    values = row[name]
    if not isinstance(values, list) or not any(map(is_judged, values)):
        return []
    if len(values) != count or not all(map(is_judged, values)):
        raise RowError("scores do not fit", f"`{name}` is {excerpt(values)}, and there are {count} responses")
    sign = -1 if name in LIST_RANKS else 1
    return [sign * float(value) for value in values]


def _refuse_contradiction(name: str, scores: Sequence[float], other: str, others: Sequence[float]) -> None:
    both = combinations(zip(scores, others, strict=True), 2)
    if any((a - b) * (c - d) < 0 for (a, c), (b, d) in both):
        raise RowError("scores disagree", f"`{name}` and `{other}` rank the responses differently")


def _by_score(prompt: tuple[Message, ...], responses: Sequence[str], scores: Sequence[float], name: str) -> Comparison:
    """Responses by falling score. Of several with one score the first is kept: there is no preference between them."""
    best_first: dict[float, str] = {}
    for score, response in sorted(zip(scores, responses, strict=True), key=lambda pair: -pair[0]):
        best_first.setdefault(score, response)
    if len(best_first) < 2:
        raise RowError(
            "no preference", f"{len(responses)} responses, {len(best_first)} different `{name}`; two are needed"
        )
    kept = tuple(best_first)
    meta = {"scores": list(kept), "tied_responses_left_out": len(responses) - len(kept)}
    return Comparison(prompt, tuple(best_first.values()), meta=meta, scores=kept)


def _noting(found: Comparison, **notes: Any) -> Comparison:
    return replace(found, meta={**found.meta, **notes})
