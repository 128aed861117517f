"""Tokenised comparisons as the training loop wants them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preflab.core.records import TokenizedComparison, UserError
from preflab.data.batches import Indices
from preflab.data.cache import TokenizedDataset
from preflab.model.prefix import PrefixBatch, separate_batch
from preflab.model.responses import Collate
from preflab.training.steps import Known


class RankedRows:
    """Comparisons with all their responses; each weighs one. `reference` ([R]) is filled in once it is known.

    `mismatched` are the same prompts with responses to others, where a statistic of them is needed.
    """

    def __init__(self, dataset: TokenizedDataset, collate: Collate, mismatched: RankedRows | None = None) -> None:
        self.dataset = dataset
        self.collate = collate
        self.mismatched = mismatched
        self.reference: NDArray[np.float64] | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with the ids of any response that a model is asked about."""
        return self.dataset.fingerprint

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

    @property
    def known(self) -> Known:
        """What is known of all responses, in the order of `offsets`."""
        return Known(None if self.reference is None else torch.from_numpy(self.reference))

    def batch(self, indices: Indices) -> tuple[PrefixBatch, Known]:
        known, places = self.known, torch.from_numpy(self.places(indices))
        of_these = Known(
            None if known.reference is None else known.reference[places].float(),
            None if known.wanted is None else known.wanted[places],
        )
        return self.collate([self.row(index) for index in indices.tolist()]), of_these

    def row(self, index: int) -> TokenizedComparison:
        """What a model is asked about for this comparison."""
        return self.dataset[index]

    def places(self, indices: Indices) -> NDArray[np.int64]:
        """Where the responses of these comparisons stand among all, in order."""
        return np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices])

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

    def row(self, index: int) -> TokenizedComparison:
        whole = self.dataset[index]
        return replace(whole, response_ids=whole.response_ids[:1])

    def weight(self, indices: Indices) -> float:
        return float(self._best_lengths[indices].sum())


class LabelledRows(RankedRows):
    """Responses of which is known whether they are wanted: by the label of a single one; of a ranking the best is, and
    the others are not. A row weighs its responses.
    """

    @cached_property
    def wanted(self) -> Tensor:
        """[R] bool"""
        best = torch.zeros(int(self.offsets[-1]), dtype=torch.bool)
        best[torch.from_numpy(self.offsets[:-1])] = torch.tensor(
            [self.dataset.label(index) is not False for index in range(len(self.dataset))]
        )
        return best

    @property
    def known(self) -> Known:
        return Known(super().known.reference, self.wanted)

    def weight(self, indices: Indices) -> float:
        return float(len(self.places(indices)))


class MismatchedRows(RankedRows):
    """Each prompt with a response to another prompt, the same one throughout a run; as long as `max_length` allows, the
    prompt without its oldest tokens.

    Raises UserError where all rows have the same prompt.
    """

    def __init__(self, dataset: TokenizedDataset, collate: Collate, *, max_length: int, seed: int) -> None:
        super().__init__(dataset, collate)
        self.max_length, self.seed = max_length, seed
        rng = np.random.default_rng(seed)
        partners = _partners([hash(row.prompt_ids) for row in dataset], rng)
        counts = np.diff(dataset.response_offsets)[partners]
        self._partners, self._responses = partners, rng.integers(counts)

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint} mismatched {self.seed} {self.max_length}"

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return np.arange(len(self.dataset) + 1)

    @cached_property
    def lengths(self) -> Indices:
        whole: Indices = np.minimum(self.dataset.prompt_lengths + self._response_lengths, self.max_length)
        return whole

    @cached_property
    def token_counts(self) -> Tensor:
        return torch.from_numpy(self._response_lengths)

    @cached_property
    def _response_lengths(self) -> Indices:
        places = self.dataset.response_offsets[self._partners] + self._responses
        lengths: Indices = self.dataset.response_lengths[places].astype(np.int64)
        return lengths

    def row(self, index: int) -> TokenizedComparison:
        own, partner = self.dataset[index], self.dataset[int(self._partners[index])]
        response = partner.response_ids[int(self._responses[index])]
        room = max(1, self.max_length - len(response))
        return TokenizedComparison(own.prompt_ids[-room:], (response,), own.row)


def _partners(prompts: list[int], rng: np.random.Generator) -> Indices:
    """[n] for each row another one with another prompt: the next such row in a random order."""
    order = rng.permutation(len(prompts))
    partners = np.empty(len(prompts), np.int64)
    following = None
    # Backwards, twice round: the nearest row behind whose prompt differs is the next one's, or the next one's own.
    for place in [*range(len(order))[::-1], *range(len(order))[::-1]]:
        row, after = order[place], order[(place + 1) % len(order)]
        if prompts[row] != prompts[after]:
            following = after
        elif following is None:
            continue
        partners[row] = following
    if following is None:
        raise UserError("all rows have the same prompt, and a step's KL is estimated from responses to other prompts")
    return partners
