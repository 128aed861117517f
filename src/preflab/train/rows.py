"""Tokenised comparisons as the training loop wants them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preflab.data.batches import Indices
from preflab.data.cache import TokenizedDataset
from preflab.model.prefix import PrefixBatch, separate_batch
from preflab.model.responses import Collate


class RankedRows:
    """Comparisons with all their responses; each weighs one. `reference` ([R]) is filled in once it is known."""

    def __init__(self, dataset: TokenizedDataset, collate: Collate) -> None:
        self.dataset = dataset
        self.collate = collate
        self.reference: NDArray[np.float64] | None = None

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return self.dataset.response_offsets

    @cached_property
    def lengths(self) -> Indices:
        """[n] tokens that each comparison takes in a batch: its prompt once, or with each response where `collate`
        computes them apart, padded to the longest.
        """
        responses, starts = self.dataset.response_lengths, self.offsets[:-1]
        if self.collate is separate_batch:
            longest = self.dataset.prompt_lengths + np.maximum.reduceat(responses, starts)
            return (np.diff(self.offsets) * longest).astype(np.int64)
        return (self.dataset.prompt_lengths + np.add.reduceat(responses, starts)).astype(np.int64)

    @cached_property
    def token_counts(self) -> Tensor:
        """[R] tokens of each response."""
        return torch.from_numpy(self.dataset.response_lengths.astype(np.int64))

    @cached_property
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

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return np.arange(len(self.dataset) + 1)

    @cached_property
    def lengths(self) -> Indices:
        return self.dataset.prompt_lengths + self._best_lengths

    @cached_property
    def token_counts(self) -> Tensor:
        return torch.from_numpy(self._best_lengths)

    @cached_property
    def _best_lengths(self) -> Indices:
        return self.dataset.response_lengths[self.dataset.response_offsets[:-1]].astype(np.int64)

    def batch(self, indices: Indices) -> tuple[PrefixBatch, Tensor | None]:
        rows = (self.dataset[i] for i in indices.tolist())
        return self.collate([replace(row, response_ids=row.response_ids[:1]) for row in rows]), None

    def weight(self, indices: Indices) -> float:
        return float(self._best_lengths[indices].sum())
