"""From what a model says of responses to a loss and metrics: one function per kind of batch.

A loss is a sum here, and a metric three sums (values, squares, count). Means are taken once, over all processes and
forward passes of a step or of an evaluation, so nothing depends on how a batch was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from preflab.core.ties import Precision
from preflab.objectives import LabelledLogps, Loss, PairLogps, bradley_terry


@dataclass(frozen=True)
class Known:
    """What is known of R responses besides their ids, where the objective needs it.

    reference: [R] the reference's log-probabilities
    wanted:    [R] bool, whether a response is a good one
    """

    reference: Tensor | None = None
    wanted: Tensor | None = None

    def to(self, device: torch.device) -> Known:
        """The same on another device."""
        return Known(*(None if value is None else value.to(device) for value in (self.reference, self.wanted)))


@dataclass(frozen=True)
class Responses:
    """R responses to comparisons of the given widths (which add up to R), best first within each.

    values:       [R] log-probabilities of a policy, or rewards
    token_counts: [R]
    precision:    in which the model computed them
    statistics:   [] each, by name: what is known of all responses of the step, these and others
    """

    values: Tensor
    token_counts: Tensor
    widths: tuple[int, ...]
    known: Known = Known()
    precision: Precision = "float32"
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """All C(K, 2) pairs of each comparison: places of the better and of the worse response, and weights that add up
        to one per comparison, so that a ranking of many responses counts as much as a pair.
        """
        better: list[int] = []
        worse: list[int] = []
        weights: list[float] = []
        first = 0
        for width in self.widths:
            count = width * (width - 1) // 2
            for i in range(first, first + width):
                better += [i] * (first + width - 1 - i)
                worse += range(i + 1, first + width)
            weights += [1 / count] * count
            first += width
        device = self.values.device
        return (
            torch.tensor(better, dtype=torch.long, device=device),
            torch.tensor(worse, dtype=torch.long, device=device),
            torch.tensor(weights, dtype=self.values.dtype, device=device),
        )


Totals = dict[str, Tensor]
"""Metric name -> [3] float64 on the CPU: sum of values, sum of squares, count."""


@dataclass(frozen=True)
class StepOutput:
    """loss_sum: to be divided by the weight of the whole step; totals: the metrics, `loss` among them."""

    loss_sum: Tensor
    totals: Totals


StepFn = Callable[[Responses], StepOutput]
PairObjective = Callable[[PairLogps], Loss]
LabelObjective = Callable[[LabelledLogps], Loss]


def sft_step(responses: Responses) -> StepOutput:
    """−log π of the responses, summed; the step's weight is its number of response tokens."""
    loss, tokens = -responses.values.sum(), responses.token_counts.sum()
    return StepOutput(loss, {"loss": _moments(loss.detach()[None], count=tokens)})


def reward_step(responses: Responses, *, center: float = 0.0) -> StepOutput:
    """Bradley-Terry over all pairs of each comparison, plus `center`·mean(r²) of its responses; the weight is one per
    comparison.
    """
    rewards = responses.values
    better, worse, weights = responses.pairs
    loss, values = bradley_terry(rewards[better], rewards[worse], precision=responses.precision)
    loss_sum = (weights * loss).sum()
    if center:
        widths = torch.tensor(responses.widths, device=rewards.device)
        loss_sum = loss_sum + center * (rewards.square() / widths.repeat_interleave(widths)).sum()
    totals = _pair_totals(loss_sum, values, weights, len(responses.widths))
    pooled = _moments(rewards.detach())
    return StepOutput(loss_sum, {**totals, "reward_mean": pooled, "reward_std": pooled})


def pair_step(responses: Responses, *, objective: PairObjective) -> StepOutput:
    """A DPO-type objective over all pairs of each comparison; the weight is one per comparison.

    Besides what the objective reports, `logps/chosen_change` is log π − log π_ref of the chosen responses, where there
    is a reference: below zero, they have become less likely than before training.
    """
    better, worse, weights = responses.pairs
    policy, counts, known = responses.values, responses.token_counts, responses.known.reference
    reference = torch.full_like(policy, float("nan")) if known is None else known
    pairs = PairLogps(
        *(policy[better], policy[worse], reference[better], reference[worse], counts[better], counts[worse]),
        precision=responses.precision,
        statistics=_as(policy, responses.statistics),
    )
    loss, values = objective(pairs)
    if known is not None:
        values = {**values, "logps/chosen_change": pairs.chosen - pairs.reference_chosen}
    values = {**values, **{name: value.expand(len(loss)) for name, value in pairs.statistics.items()}}
    loss_sum = (weights * loss).sum()
    return StepOutput(loss_sum, _pair_totals(loss_sum, values, weights, len(responses.widths)))


def label_step(responses: Responses, *, objective: LabelObjective) -> StepOutput:
    """An objective on single responses, each wanted or not; the weight is one per response.

    `rewards` and `logps` are reported of wanted (`chosen`) and unwanted (`rejected`) responses apart, each with its own
    count, and `accuracies` as `rewards/accuracies`.
    """
    policy, known, wanted = responses.values, responses.known.reference, responses.known.wanted
    assert wanted is not None, "rows for an objective on labels have labels"
    reference = torch.full_like(policy, float("nan")) if known is None else known
    statistics = _as(policy, responses.statistics)
    counts, precision = responses.token_counts, responses.precision
    loss, values = objective(LabelledLogps(policy, reference, wanted, counts, precision, statistics))
    values = {"rewards/accuracies" if name == "accuracies" else name: value for name, value in values.items()}
    apart = [name for name in ("rewards", "logps") if name in values]
    sides = {"chosen": wanted, "rejected": ~wanted}
    shown = {f"{name}/{side}": values[name][these] for name in apart for side, these in sides.items()}
    shown |= {name: value for name, value in values.items() if name not in apart}
    if known is not None:
        shown["logps/chosen_change"] = (policy - known)[wanted]
    shown |= {name: value.expand(len(loss)) for name, value in statistics.items()}
    return StepOutput(loss.sum(), {name: _moments(value.detach()) for name, value in {"loss": loss, **shown}.items()})


def _as(values: Tensor, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In the precision of the values and on their device: an evaluation's are on the CPU."""
    return {name: value.to(values) for name, value in statistics.items()}


def means(totals: Totals) -> dict[str, float]:
    """Take the means, once; a name that ends in `_std` is the standard deviation (of the whole population) instead."""
    result = {}
    for name, (total, squares, count) in ((name, sums.tolist()) for name, sums in totals.items()):
        mean = total / count if count else float("nan")
        result[name] = max(0.0, squares / count - mean**2) ** 0.5 if name.endswith("_std") and count else mean
    return result


def add_totals(parts: list[Totals]) -> Totals:
    return {name: torch.stack([part[name] for part in parts]).sum(dim=0) for name in parts[0]} if parts else {}


def _pair_totals(loss_sum: Tensor, values: Mapping[str, Tensor], weights: Tensor, comparisons: int) -> Totals:
    count = torch.tensor(comparisons)
    totals = {"loss": _moments(loss_sum.detach()[None], count=count)}
    return totals | {name: _moments(value.detach(), weights, count) for name, value in values.items()}


def _moments(values: Tensor, weights: Tensor | None = None, count: Tensor | None = None) -> Tensor:
    exact = values.cpu().double()  # not every accelerator has float64
    weighted = exact if weights is None else exact * weights.cpu()
    number = torch.tensor(len(values)) if count is None else count
    return torch.stack([weighted.sum(), (weighted * exact).sum(), number.to(exact)])
