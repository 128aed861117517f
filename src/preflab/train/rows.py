"""Tokenised comparisons as the training loop wants them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preflab.data.batches import Indices
from preflab.data.cache import TokenizedDataset
from preflab.model.prefix import PrefixBatch
from preflab.model.responses import Collate


class RankedRows:
    """Comparisons with all their responses; each weighs one. `reference` ([R]) is filled in once it is known."""

    def __init__(self, dataset: TokenizedDataset, collate: Collate) -> None:
        self.dataset = dataset
        self.collate = collate
        self.reference: NDArray[np.float64] | None = None

    @property
    def offsets(self) -> NDArray[np.int64]:
        return self.dataset.response_offsets

    @property
    def lengths(self) -> Indices:
        """[n] tokens of each comparison in prefix layout."""
        responses = np.add.reduceat(self.dataset.response_lengths, self.offsets[:-1])
        return (self.dataset.prompt_lengths + responses).astype(np.int64)

    @property
    def token_counts(self) -> Tensor:
        """[R] tokens of each response."""
        return torch.from_numpy(self.dataset.response_lengths.astype(np.int64))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(np.diff(self.offsets).tolist())

    def batch(self, indices: Indices) -> tuple[PrefixBatch, Tensor | None]:
        batch = self.collate([self.dataset[i] for i in indices.tolist()])
        if self.reference is None:
            return batch, None
        known = np.concatenate([self.reference[self.offsets[i] : self.offsets[i + 1]] for i in indices])
        return batch, torch.from_numpy(known).float()

    def weight(self, indices: Indices) -> float:
        return float(len(indices))


class BestRows(RankedRows):
    """The best response of each comparison alone, for supervised fine-tuning; a row weighs its response tokens."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        return np.arange(len(self.dataset) + 1)

    @property
    def lengths(self) -> Indices:
        return self.dataset.prompt_lengths + self._best_lengths

    @property
    def token_counts(self) -> Tensor:
        return torch.from_numpy(self._best_lengths)

    @property
    def _best_lengths(self) -> Indices:
        return self.dataset.response_lengths[self.dataset.response_offsets[:-1]].astype(np.int64)

    def batch(self, indices: Indices) -> tuple[PrefixBatch, Tensor | None]:
        rows = (self.dataset[i] for i in indices.tolist())
        return self.collate([replace(row, response_ids=row.response_ids[:1]) for row in rows]), None

    def weight(self, indices: Indices) -> float:
        return float(self._best_lengths[indices].sum())
