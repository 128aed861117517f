"""Rewards as rows that can be read, and the figures that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from preflab.core.records import Comparison, RowError, UserError, messages_from_json, messages_to_json, unit_of
from preflab.core.rundir import to_json
from preflab.core.ties import Precision, compare, is_score, root_mean_square
from preflab.data.cache import TokenizedDataset
from preflab.data.fields import excerpt
from preflab.data.tokenize import ChatTemplate, Dropped

Row = dict[str, Any]


class Scored(Protocol):
    """The comparisons of a source that were scored: their `rows` [N], and where the responses of each begin among all
    of them (`response_offsets` [N + 1]).
    """

    @property
    def rows(self) -> NDArray[Any]: ...
    @property
    def response_offsets(self) -> NDArray[Any]: ...


def score_rows(
    items: Iterable[Comparison | Dropped],
    dataset: Scored,
    scores: NDArray[np.float64],
    source_of: Callable[[int], str] | None = None,
) -> Iterator[Row]:
    """One row for each comparison that was scored, in the order of the source.

    Args:
        items: the source again, from which the text comes.
        dataset: the same comparisons, but for those that were not scored.
        scores: [R] the rewards of all responses, as `dataset.response_offsets` has them.
        source_of: of several sources, row number -> name of the row's own.

    A pair gives `chosen`, `rejected`, `score_chosen` and `score_rejected`; more responses give `responses` and
    `scores`, best first; a single one `response` and `score`, with the `row` and `sample` that generation gave it. Of
    several sources, each row has its own as `source`.
    """
    index = 0
    for item in items:
        if isinstance(item, Dropped) or index == len(dataset.rows) or item.row != dataset.rows[index]:
            continue
        own = scores[dataset.response_offsets[index] : dataset.response_offsets[index + 1]]
        index += 1
        row = _row(item, [float(score) for score in own])
        yield row | ({"source": source_of(item.row)} if source_of else {})
    assert index == len(dataset.rows), "the source has the rows that were scored, in the same order"


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
    """The rewards in a row of scores, best-ranked response first. Raises UserError where one of them is no number."""
    if "scores" in row:
        scores = tuple(row["scores"])
    else:
        scores = (row["score"],) if "score" in row else (row["score_chosen"], row["score_rejected"])
    if not all(map(is_score, scores)):
        found = to_json(list(scores))[:80]
        raise UserError(f"row {row.get('row', '?')}: found the scores {found}; finite numbers are needed")
    return scores


def summarize(rows: Iterable[Row], precision: Precision | None = "float32") -> dict[str, Any]:
    """Figures over rows of scores, by the rules of training and evaluation.

    `reward_mean` and `reward_std` (of the population: divided by n) pool all responses. `accuracy` is the share of
    pairs whose better response has the higher reward; a comparison of more than two responses weighs as much as a pair.
    Rewards that differ by no more than rounding in this precision (None: they are exact) are a tie, which is half a
    success. `prompts` counts
    the prompts that differ: rows of the same prompt are samples of it. Where rows name several sources, `sources` has
    the same figures of each.

    Raises UserError for a reward that is no finite number.
    """
    by_source: dict[str, list[RowScores]] = {}
    for row in rows:
        by_source.setdefault(str(row.get("source", "")), []).append((scores_of(row), _unit(row)))
    figures: dict[str, Any] = dict(_figures([one for of in by_source.values() for one in of], precision))
    if len(by_source) > 1:
        figures["sources"] = {name: _figures(of, precision) for name, of in by_source.items()}
    return figures


def _figures(found: Sequence[RowScores], precision: Precision | None) -> dict[str, float | int]:
    rewards = [score for scores, _ in found for score in scores]
    figures: dict[str, float | int] = {
        "rows": len(found),
        "prompts": len({unit for _, unit in found}),
        "responses": len(rewards),
    }
    if accuracies := [right for right, _ in accuracies_of(found, precision)]:
        figures |= {
            "pairs": sum(math.comb(len(scores), 2) for scores, _ in found),
            "accuracy": math.fsum(accuracies) / len(accuracies),
        }
    if rewards:
        figures |= {"reward_mean": float(np.mean(rewards)), "reward_std": float(np.std(rewards))}
    return figures


RowScores = tuple[tuple[float, ...], Hashable]
"""The rewards of a row, and the unit (its prompt) that it counts by."""


def accuracies_of(found: Sequence[RowScores], precision: Precision | None) -> Iterator[tuple[float, Hashable]]:
    """Of each comparison, the share of its pairs that are ranked rightly, and its unit."""
    size = root_mean_square(score for scores, _ in found for score in scores)
    for scores, unit in found:
        if len(scores) > 1:
            right = [float(compare(better, worse, precision, size=size)) for better, worse in combinations(scores, 2)]
            yield math.fsum(right) / len(right), unit


def scored(rows: Iterable[Row]) -> list[RowScores]:
    """The rewards of rows by unit. Raises UserError as `scores_of` does."""
    return [(scores_of(row), _unit(row)) for row in rows]


def _unit(row: Row) -> Hashable:
    return unit_of(messages_from_json(row["prompt"])) if "prompt" in row else row.get("row")


def extremes(rows: Iterable[Row]) -> dict[str, Row]:
    """ "highest" and "lowest": the response with the highest reward and that with the lowest, to be read: {row, prompt,
    response, score}. Empty where there are no two rewards.
    """
    found = [(score, place, row) for row in rows for place, score in enumerate(scores_of(row))]
    if len(found) < 2:
        return {}
    ends = {"highest": max(found, key=lambda item: item[0]), "lowest": min(found, key=lambda item: item[0])}
    return {name: _sample(row, place, score) for name, (score, place, row) in ends.items()}


def _sample(row: Row, place: int, score: float) -> Row:
    responses = row.get("responses") or [row[name] for name in ("response", "chosen", "rejected") if name in row]
    return {"row": row["row"], "prompt": row["prompt"], "response": responses[place], "score": score}


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


def sample_lines(samples: Mapping[str, Row]) -> list[str]:
    """The response with the highest and that with the lowest reward, as lines to read."""
    return [
        f"  {name} reward {row['score']:.4g}, row {row['row']}: {excerpt(prompt_words(row['prompt']))} -> "
        f"{excerpt(row['response'])}"
        for name, row in samples.items()
    ]


def prompt_words(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """What was asked, of a prompt as text or as messages."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
