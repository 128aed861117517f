"""Rewards as rows that can be read, and the figures that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preflab.data.cache import TokenizedDataset
from preflab.data.tokenize import ChatTemplate, Dropped
from preflab.records import Comparison, RowError, messages_to_json

Row = dict[str, Any]


def score_rows(
    items: Iterable[Comparison | Dropped], dataset: TokenizedDataset, scores: NDArray[np.float64]
) -> Iterator[Row]:
    """One row for each comparison that was scored, in the order of the source.

    Args:
        items: the source again, from which the text comes.
        dataset: the same comparisons as they were scored.
        scores: [R] the rewards of all responses, as `dataset.response_offsets` has them.

    A pair gives `chosen`, `rejected`, `score_chosen` and `score_rejected`; more responses give `responses` and
    `scores`, best first; a single one `response` and `score`, with the `row` and `sample` that generation gave it.
    """
    index = 0
    for item in items:
        if isinstance(item, Dropped) or index == len(dataset) or item.row != dataset.rows[index]:
            continue
        own = scores[dataset.response_offsets[index] : dataset.response_offsets[index + 1]]
        index += 1
        yield _row(item, [float(score) for score in own])
    assert index == len(dataset), "the source has the rows that were tokenised, in the same order"


def _row(comparison: Comparison, scores: list[float]) -> Row:
    meta = dict(comparison.meta)
    prompt = messages_to_json(comparison.prompt)
    if len(scores) == 1:
        place = {"row": meta.pop("row", comparison.row), "sample": meta.pop("sample", 0)}
        label = {} if comparison.label is None else {"label": comparison.label}
        return {
            **place,
            "prompt": prompt,
            "response": comparison.responses[0],
            "score": scores[0],
            **label,
            "meta": meta,
        }
    if len(scores) == 2:
        names = ("chosen", "rejected", "score_chosen", "score_rejected")
        values = dict(zip(names, (*comparison.responses, *scores), strict=True))
        return {"row": comparison.row, "prompt": prompt, **values, "meta": meta}
    return {
        "row": comparison.row,
        "prompt": prompt,
        "responses": list(comparison.responses),
        "scores": scores,
        "meta": meta,
    }


def scores_of(row: Row) -> tuple[float, ...]:
    """The rewards in a row of scores, best-ranked response first."""
    if "scores" in row:
        return tuple(row["scores"])
    return (row["score"],) if "score" in row else (row["score_chosen"], row["score_rejected"])


def summarize(rows: Iterable[Row]) -> dict[str, float | int]:
    """Figures over rows of scores, by the rules of training and evaluation.

    `reward_mean` and `reward_std` (of the whole population) pool all responses. `accuracy` is the share of pairs whose
    better response has the higher reward; a comparison of more than two responses weighs as much as a pair, and a tie
    is no success.
    """
    accuracies: list[float] = []
    rewards: list[float] = []
    count = pairs = 0
    for row in rows:
        scores = scores_of(row)
        count += 1
        rewards.extend(scores)
        if len(scores) > 1:
            right = [better > worse for better, worse in combinations(scores, 2)]
            pairs += len(right)
            accuracies.append(sum(right) / len(right))
    figures: dict[str, float | int] = {"rows": count, "responses": len(rewards)}
    if accuracies:
        figures |= {"pairs": pairs, "accuracy": math.fsum(accuracies) / len(accuracies)}
    if rewards:
        figures |= {"reward_mean": float(np.mean(rewards)), "reward_std": float(np.std(rewards))}
    return figures


def not_scored(
    items: Iterable[Comparison | Dropped],
    dataset: TokenizedDataset,
    template: ChatTemplate,
    *,
    max_length: int,
    max_prompt_length: int,
) -> list[Dropped]:
    """Every row of the source that is not in `dataset`, with the reason."""
    scored = set(dataset.rows.tolist())
    missing: list[Dropped] = []
    for item in items:
        if isinstance(item, Dropped):
            missing.append(item)
        elif item.row not in scored:
            try:
                template.encode(item, max_length=max_length, max_prompt_length=max_prompt_length)
            except RowError as error:
                missing.append(Dropped(item.row, error.reason, error.detail))
    return missing
