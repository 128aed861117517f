"""Tree attention: responses that share a prompt, computed in one pass.

A comparison with prompt P and responses R1…Rk is laid out as `P R1 … Rk`. Each response's positions go on from the end
of the prompt and its tokens attend to the prompt and to themselves only, so the hidden states are those of k separate
sequences `P Rj`, while the prompt is computed once. A batch is the concatenation of its comparisons, without any
padding: every layer but attention is indifferent to where one sequence ends, and attention gets the layout below.

The layout reaches the attention layers as the keyword `tree` of the model's forward. Any architecture of transformers
that hands its keywords on to the attention interface works (`responses.shares_prefix` tries a model out); the others
use `separate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from preflab.core.records import TokenizedComparison

ATTENTION = "preflab_tree"
UNSUPPORTED = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True)
class Tree:
    """Which token may attend to which. T tokens in B comparisons, the longest of L tokens.

    slots:     [T]     where each token lies in the padded grid of B x L
    positions: [B, L]  position of the token in its own sequence `P Rj`
    segments:  [B, L]  0 for the prompt, j for the j-th response, -1 where the grid is empty
    """

    slots: Tensor
    positions: Tensor
    segments: Tensor
    _masks: dict[int | None, Tensor] = field(default_factory=dict, repr=False)

    def mask(self, window: int | None) -> Tensor:
        """[B, 1, L, L], true where the query (row) sees the key (column). `window` counts positions, as sliding-window
        layers do.
        """
        if window not in self._masks:
            query, key = self.segments[:, :, None], self.segments[:, None, :]
            place = torch.arange(self.segments.shape[1], device=self.segments.device)
            seen = (place[:, None] >= place[None, :]) & ((key == 0) | (key == query))
            if window is not None:
                seen &= self.positions[:, :, None] - self.positions[:, None, :] < window
            # Empty places of the grid see themselves: a row without any key would make the softmax NaN, and NaN
            # gradients spread.
            seen |= place[:, None] == place[None, :]
            self._masks[window] = seen[:, None]
        return self._masks[window]

    @property
    def windows(self) -> set[int | None]:
        """The windows that attention layers have asked for; None stands for the whole sequence."""
        return set(self._masks)

    def to(self, device: torch.device | str) -> Tree:
        return Tree(self.slots.to(device), self.positions.to(device), self.segments.to(device))


@dataclass(frozen=True)
class PrefixBatch:
    """Comparisons as one sequence of T tokens without padding, with R responses of N tokens together.

    input_ids, position_ids: [T]
    tree:       who attends to whom
    predictors: [N]  place in the sequence whose hidden state predicts the n-th response token
    targets:    [N]  id of the n-th response token
    owners:     [N]  which response (0…R-1) the n-th response token belongs to
    ends:       [R]  place of the last token of each response, where a reward model reads its score
    widths:     responses of each comparison, in order; R is their sum
    rows:       the comparisons' row numbers in the source
    """

    input_ids: Tensor
    position_ids: Tensor
    tree: Tree
    predictors: Tensor
    targets: Tensor
    owners: Tensor
    ends: Tensor
    widths: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def token_counts(self) -> Tensor:
        """[R] tokens of each response."""
        return torch.bincount(self.owners, minlength=sum(self.widths))

    def to(self, device: torch.device | str) -> PrefixBatch:
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            tree=self.tree.to(device),
            predictors=self.predictors.to(device),
            targets=self.targets.to(device),
            owners=self.owners.to(device),
            ends=self.ends.to(device),
        )


def prefix_batch(comparisons: Sequence[TokenizedComparison]) -> PrefixBatch:
    """Lay comparisons out as one sequence, each prompt once."""
    ids: list[int] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    predictors: list[int] = []
    owners: list[int] = []
    ends: list[int] = []
    for comparison in comparisons:
        start, length = len(ids), len(comparison.prompt_ids)
        assert length > 0, "the first response token needs a prompt token that predicts it"
        ids.extend(comparison.prompt_ids)
        position, segment = list(range(length)), [0] * length
        for number, response in enumerate(comparison.response_ids, start=1):
            assert response, "a response has at least its terminator"
            first = len(ids)
            predictors.append(start + length - 1)
            predictors.extend(range(first, first + len(response) - 1))
            owners.extend([len(ends)] * len(response))
            ids.extend(response)
            ends.append(len(ids) - 1)
            position.extend(range(length, length + len(response)))
            segment.extend([number] * len(response))
        positions.append(position)
        segments.append(segment)
    longest = max(map(len, positions))
    slots = [torch.arange(len(position)) + row * longest for row, position in enumerate(positions)]
    grid = Tree(
        slots=torch.cat(slots),
        positions=torch.stack([pad(torch.tensor(p), (0, longest - len(p))) for p in positions]),
        segments=torch.stack([pad(torch.tensor(s), (0, longest - len(s)), value=-1) for s in segments]),
    )
    tokens = torch.tensor(ids)
    targets = [token for comparison in comparisons for response in comparison.response_ids for token in response]
    return PrefixBatch(
        input_ids=tokens,
        position_ids=torch.tensor([p for position in positions for p in position]),
        tree=grid,
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        owners=torch.tensor(owners),
        ends=torch.tensor(ends),
        widths=tuple(len(c.response_ids) for c in comparisons),
        rows=tuple(c.row for c in comparisons),
    )


def separate_batch(comparisons: Sequence[TokenizedComparison]) -> PrefixBatch:
    """The same batch with a prompt for each response, in the same order: for models where a prompt cannot be shared."""
    alone = [TokenizedComparison(c.prompt_ids, (response,), c.row) for c in comparisons for response in c.response_ids]
    return replace(
        prefix_batch(alone),
        widths=tuple(len(c.response_ids) for c in comparisons),
        rows=tuple(c.row for c in comparisons),
    )


def tree_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    tree: Tree | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention interface of transformers over a batch in prefix layout: query [1, H, T, D], key, value [1, Hkv, T, D]
    -> [1, T, H, D].

    Raises NotImplementedError for what some architectures add to attention and `scaled_dot_product_attention` cannot
    do.
    """
    if unknown := [name for name in UNSUPPORTED if others.get(name) is not None]:
        raise NotImplementedError(f"tree attention does not know {unknown}")
    assert tree is not None, "tree attention needs a PrefixBatch"
    assert attention_mask is None, "a PrefixBatch brings its own mask"
    rows, longest = tree.segments.shape

    def grid(packed: Tensor) -> Tensor:
        heads, width = packed.shape[1], packed.shape[3]
        empty = packed.new_zeros(rows * longest, heads, width)
        return (
            empty.index_copy(0, tree.slots, packed[0].transpose(0, 1)).view(rows, longest, heads, width).transpose(1, 2)
        )

    shared_heads = query.shape[1] // key.shape[1]
    if shared_heads > 1 and query.is_cuda:
        # With a mask, CUDA's fast kernels do not share key and value heads; the one that does keeps the whole matrix.
        key, value = (packed.repeat_interleave(shared_heads, dim=1) for packed in (key, value))
    out = scaled_dot_product_attention(
        grid(query),
        grid(key),
        grid(value),
        attn_mask=tree.mask(sliding_window),
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).reshape(rows * longest, *out.shape[1::2])[tree.slots][None], None


AttentionInterface.register(ATTENTION, tree_attention)
