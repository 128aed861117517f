"""Which comparisons go into which forward pass: a plan that depends on lengths and a seed, and on nothing else.

A plan is made for all processes at once and split afterwards, so that the rows of an optimizer step do not depend on
how many processes share it, nor on how it is cut into forward passes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflab.core.records import UserError

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
    """All optimizer steps of a run.

    epoch_ends: after how many steps each epoch ends, whole ones though the run may end within the last. Under a token
        budget epochs differ in length.
    """

    steps: tuple[Step, ...]
    epoch_ends: tuple[int, ...]

    def epoch(self, step: int) -> float:
        """How many epochs are over after so many steps."""
        over = bisect_right(self.epoch_ends, step)
        if over == len(self.epoch_ends):
            return float(over)
        start = self.epoch_ends[over - 1] if over else 0
        return over + (step - start) / (self.epoch_ends[over] - start)


def plan_training(
    lengths: Indices,
    *,
    epochs: float,
    max_steps: int,
    batch_size: int,
    max_tokens: int | None,
    passes: int,
    seed: int,
    most: int = 1_000_000,
) -> Plan:
    """Plan a run over comparisons of these lengths (tokens that each takes in a batch).

    `passes` are the forward passes of a step, over all processes. A positive `max_steps` overrides `epochs`. The
    longest steps of the first epoch come first: what they survive, later steps very likely do too. Raises UserError
    where several epochs would take more than `most` steps, before they are planned.
    """
    steps: list[Step] = []
    ends: list[int] = []
    epoch = 0
    while len(steps) < max_steps if max_steps > 0 else epoch < epochs:
        rng = np.random.default_rng((seed, epoch))
        own = _budgeted(lengths, max_tokens, passes, rng) if max_tokens else _fixed(lengths, batch_size, passes, rng)
        if epoch == 0:
            if max_steps <= 0 and epochs > 1 and len(own) * epochs > most:
                raise UserError(
                    f"num_train_epochs: found {epochs:g}, which is {len(own) * epochs:,.0f} optimizer steps of these "
                    f"rows; at most {most:,} are planned"
                )
            own = _longest_first(own, lengths)
        ends.append(len(steps) + len(own))
        if max_steps <= 0 and epochs - epoch < 1:
            own = own[: max(1, round(len(own) * (epochs - epoch)))]
        steps += own
        epoch += 1
    return Plan(tuple(steps[:max_steps] if max_steps > 0 else steps), tuple(ends))


def tenth(steps: int) -> int:
    """Steps between two evaluations, so that there are ten of them whatever a run's length (and at most one more)."""
    return max(1, steps // 10)


def plan_evaluation(lengths: Indices, *, batch_size: int, max_tokens: int | None) -> list[Indices]:
    """Every comparison once, longest first."""
    order = np.argsort(-lengths, kind="stable")
    return _fill(order, lengths, max_tokens) if max_tokens else _cut(order, batch_size)


def _fixed(lengths: Indices, size: int, passes: int, rng: np.random.Generator) -> list[Step]:
    """Steps of `size * passes` comparisons, the same ones however they are cut into forward passes."""
    return [
        Step(tuple(_cut(rows[np.argsort(-lengths[rows], kind="stable")], size)))
        for rows in _cut(rng.permutation(len(lengths)), size * passes)
    ]


def _cut(order: Indices, size: int) -> list[Indices]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _budgeted(lengths: Indices, max_tokens: int, passes: int, rng: np.random.Generator) -> list[Step]:
    order = rng.permutation(len(lengths))
    size = max(1, BUCKET * max_tokens // max(1, int(lengths.mean())))
    batches = [
        batch
        for bucket in _cut(order, size)
        for batch in _fill(bucket[np.argsort(-lengths[bucket], kind="stable")], lengths, max_tokens)
    ]
    shuffled = [batches[i] for i in rng.permutation(len(batches))]
    return [Step(tuple(shuffled[i : i + passes])) for i in range(0, len(shuffled), passes)]


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


def _longest_first(steps: Sequence[Step], lengths: Indices) -> list[Step]:
    """Move the step with the most tokens to the front and, of the others, the one with the longest comparison behind
    it, where the optimizer's own memory is there. By what steps hold, not by their forward passes, on which the order
    must not depend."""
    most = max(steps, key=lambda step: int(lengths[step.rows].sum()))
    others = [step for step in steps if step is not most]
    longest = max(others, key=lambda step: int(lengths[step.rows].max()), default=most)
    return sorted(steps, key=lambda step: (step is not most, step is not longest))
