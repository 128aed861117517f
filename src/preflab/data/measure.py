"""Comparisons with their tokens, and how long they are before any limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from preflab.core.records import Comparison, RowError, TokenizedComparison
from preflab.data.overlap import LengthBias
from preflab.data.tokenize import ChatTemplate, Dropped


class Usable(NamedTuple):
    comparison: Comparison
    tokens: TokenizedComparison | None  # within the limits, as training sees them
    prompt_tokens: int  # before the limits


def measurable(
    items: Iterator[Comparison | Dropped],
    template: ChatTemplate | None,
    max_length: int | None,
    max_prompt_length: int | None,
    bias: tuple[LengthBias, LengthBias],
) -> Iterator[Usable | Dropped]:
    """Comparisons with their tokens, many rows at once through the tokenizer but never many in memory. `bias` is
    counted of all rows, and of those within the limits.
    """
    if template is None:
        for item in items:
            yield Usable(item, None, 0) if isinstance(item, Comparison) else item
        return
    passing: deque[Comparison | Dropped] = deque()

    def remembered() -> Iterator[Comparison | Dropped]:
        for item in items:
            passing.append(item)
            yield item

    for tokens in template.encode_many(remembered()):
        item = passing.popleft()
        if isinstance(tokens, Dropped):
            yield tokens
            continue
        assert isinstance(item, Comparison), "what was dropped before stays dropped"
        prompt_tokens = len(tokens.prompt_ids)
        longest = prompt_tokens + max(map(len, tokens.response_ids), default=0)
        ends = [len(ids) for ids in (tokens.response_ids[:1] + tokens.response_ids[-1:])]
        is_pair = len(tokens.response_ids) > 1
        if is_pair:
            bias[0].add(*ends)
        try:
            if (max_length or longest) < longest or (max_prompt_length or prompt_tokens) < prompt_tokens:
                # Only these few rows are tokenised again, so that the limits are applied by the rule of training.
                tokens = template.encode(item, max_length=max_length, max_prompt_length=max_prompt_length)
            if is_pair:
                bias[1].add(*ends)
            yield Usable(item, tokens, prompt_tokens)
        except RowError as error:
            yield Dropped(item.row, error.reason, error.detail)
