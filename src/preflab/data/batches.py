"""Which comparisons go into which forward pass: a plan that depends on lengths and a seed, and on nothing else.

A plan is made for all processes at once and split afterwards, so that the rows of an optimizer step do not depend on
how many processes share it, nor on how it is cut into forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

BUCKET = 64
"""Under a token budget, this many batches' worth of comparisons are sorted by length together: little waste, still
random.
"""


@dataclass(frozen=True)
class Step:
    """One optimizer step: the comparisons of each of its forward passes."""

    micro_batches: tuple[Indices, ...]

    def of_process(self, index: int, processes: int) -> list[Indices]:
        """The forward passes of one process: as many as any other's, so that none waits; some may be empty."""
        mine = list(self.micro_batches[index::processes])
        missing = -(-len(self.micro_batches) // processes) - len(mine)
        return mine + [np.empty(0, np.int64)] * missing

    @property
    def rows(self) -> Indices:
        return np.concatenate(self.micro_batches)


@dataclass(frozen=True)
class Plan:
    """All optimizer steps of a run, and how many of them make an epoch."""

    steps: tuple[Step, ...]
    epoch_steps: int


def plan_training(
    lengths: Indices, *, epochs: float, max_steps: int, batch_size: int, max_tokens: int | None, passes: int, seed: int
) -> Plan:
    """Plan a run over comparisons of these lengths (tokens in prefix layout).

    `passes` are the forward passes of a step, over all processes. A positive `max_steps` overrides `epochs`. The
    longest batches of the first epoch come first, so that memory runs out at once or never.
    """
    steps: list[Step] = []
    epoch = epoch_steps = 0
    while len(steps) < max_steps if max_steps > 0 else epoch < epochs:
        rng = np.random.default_rng((seed, epoch))
        batches = _buckets(lengths, max_tokens, rng) if max_tokens else _fixed(len(lengths), batch_size, rng)
        if epoch == 0:
            batches = _longest_first(batches, lengths, passes)
        epoch_steps = -(-len(batches) // passes)
        if max_steps <= 0 and epochs - epoch < 1:
            batches = batches[: max(1, round(len(batches) * (epochs - epoch)))]
        steps.extend(Step(tuple(batches[i : i + passes])) for i in range(0, len(batches), passes))
        epoch += 1
    return Plan(tuple(steps[:max_steps] if max_steps > 0 else steps), epoch_steps)


def plan_evaluation(lengths: Indices, *, batch_size: int, max_tokens: int | None) -> list[Indices]:
    """Every comparison once, longest first."""
    order = np.argsort(-lengths, kind="stable")
    return _fill(order, lengths, max_tokens) if max_tokens else _cut(order, batch_size)


def _fixed(count: int, size: int, rng: np.random.Generator) -> list[Indices]:
    return _cut(rng.permutation(count), size)


def _cut(order: Indices, size: int) -> list[Indices]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _buckets(lengths: Indices, max_tokens: int, rng: np.random.Generator) -> list[Indices]:
    order = rng.permutation(len(lengths))
    size = max(1, BUCKET * max_tokens // max(1, int(lengths.mean())))
    batches = [
        batch
        for bucket in _cut(order, size)
        for batch in _fill(bucket[np.argsort(-lengths[bucket], kind="stable")], lengths, max_tokens)
    ]
    return [batches[i] for i in rng.permutation(len(batches))]


def _fill(order: Indices, lengths: Indices, max_tokens: int) -> list[Indices]:
    """Cut an order into batches of at most `max_tokens`; a comparison longer than that stands alone."""
    batches: list[list[int]] = []
    room = 0
    for index in order.tolist():
        if lengths[index] > room or not batches:
            batches.append([])
            room = max_tokens
        batches[-1].append(index)
        room -= int(lengths[index])
    return [np.array(batch, np.int64) for batch in batches]


def _longest_first(batches: Sequence[Indices], lengths: Indices, passes: int) -> list[Indices]:
    """Move the longest batch into the first step and the second longest into the next one, in which the optimizer's own
    memory is there.
    """
    ordered = list(batches)
    for target in (0, passes):
        if target < len(ordered):
            longest = max(range(target, len(ordered)), key=lambda i: int(lengths[ordered[i]].sum()))
            ordered[target], ordered[longest] = ordered[longest], ordered[target]
    return ordered
