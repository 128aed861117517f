"""Tokenised comparisons in memory, in place of those on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from preflab.core.records import TokenizedComparison


class MemoryDataset:
    """What training reads of a TokenizedDataset."""

    def __init__(self, rows: Sequence[TokenizedComparison]) -> None:
        self._rows = list(rows)
        self.fingerprint = "memory"
        self.rows = np.array([row.row for row in rows], np.int32)
        self.prompt_lengths = np.array([len(row.prompt_ids) for row in rows], np.int32)
        self.response_lengths = np.array([len(ids) for row in rows for ids in row.response_ids], np.int32)
        self.response_offsets = np.cumsum([0, *(len(row.response_ids) for row in rows)])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TokenizedComparison:
        return self._rows[index]

    def __iter__(self) -> Iterator[TokenizedComparison]:
        return iter(self._rows)


def random_rows(count: int, *, widths: Sequence[int] = (2,), seed: int = 0, longest: int = 12) -> Any:
    """A dataset of `count` comparisons of random ids and odd lengths, whose numbers of responses go round `widths`."""
    random = torch.Generator().manual_seed(seed)

    def ids() -> tuple[int, ...]:
        length = int(torch.randint(1, longest, (1,), generator=random))
        return tuple(torch.randint(3, 128, (length,), generator=random).tolist())

    return MemoryDataset(
        [
            TokenizedComparison(ids(), tuple(ids() for _ in range(widths[number % len(widths)])), row=number + 1)
            for number in range(count)
        ]
    )
