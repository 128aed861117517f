"""What objectives take and give (log-probabilities of responses, and a loss per example), and a line of their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

from torch import Tensor

from preflab.core.ties import Precision


@dataclass(frozen=True)
class PairLogps:
    """P pairs of responses to one prompt each. All tensors are [P]; log-probabilities are sums over the response's
    tokens.

    chosen, rejected:                 log π(y_w | x), log π(y_l | x) under the policy
    reference_chosen, …_rejected:     the same under the reference; NaN where the run has none, so that an objective
                                      that reads them although its line in the table says otherwise cannot go unnoticed
    chosen_tokens, rejected_tokens:   lengths |y_w|, |y_l| in tokens, terminator included
    precision:                        in which the tokens' log-probabilities were computed; their sums are float32
    statistics:                       [] each, by name: what the objective's `statistics` found of the whole step
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    precision: Precision = "float32"
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelledLogps:
    """R responses, each wanted or not, to any prompts. Tensors are [R]; log-probabilities are sums over tokens.

    policy, reference: log π(y | x), log π_ref(y | x)
    wanted:            bool
    tokens:            lengths |y| in tokens
    precision:         in which the tokens' log-probabilities were computed; their sums are float32
    statistics:        [] each, by name: what the objective's `statistics` found of the whole step
    """

    policy: Tensor
    reference: Tensor
    wanted: Tensor
    tokens: Tensor
    precision: Precision = "float32"
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class StepValues:
    """All R responses of an optimizer step, or of an evaluation, over all its forward passes and processes. Tensors are
    [R], float64.

    values:    log-probabilities of the policy, or rewards; no gradient flows through them
    reference: the reference's log-probabilities; NaN where the run has none
    tokens:    lengths in tokens
    """

    values: Tensor
    reference: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Statistic:
    """A number that an objective needs of all rows of a step together, whatever forward passes and processes they are
    cut into. It costs a pass over them without gradients, and is reported under its name.

    of:         StepValues -> []
    mismatched: of the prompts with a response to another prompt each, instead of the rows themselves
    """

    of: Callable[[StepValues], Tensor]
    mismatched: bool = False


class Loss(NamedTuple):
    """A loss per example, and named values per example to report."""

    per_example: Tensor
    values: dict[str, Tensor]


@dataclass(frozen=True)
class Bounds:
    """Marks a hyper-parameter with the numbers that it may be: `beta: Annotated[float, Bounds(above=0)] = 0.1`."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Named:
    """Marks a hyper-parameter that is a function. Settings give the name of one of these, or `file.py:function`."""

    known: Mapping[str, Callable[..., Any]]


Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(at_least=0)]
ErrorRate = Annotated[float, Bounds(at_least=0, below=0.5)]


@dataclass(frozen=True)
class Objective:
    """A line of the table: what does not stand at the function itself.

    Attributes:
        loss: the pure function of PairLogps or LabelledLogps, its first argument; its keyword-only arguments are the
            objective's hyper-parameters, with their defaults, and with what its docstring says of them under `Args:`.
            The first line of the docstring is the help of the command.
        formula: the loss in one line; Δ stands for log π − log π_ref of a response, summed over its tokens.
        source: where it was published.
        learning_rate: the default of AdamW's peak learning rate.
        rate_source: where that default comes from.
        recipe: what has been used with it, and by whom.
        reference: whether it reads the reference's log-probabilities; where not, none are computed.
        lowers_chosen: whether it means to make chosen responses less likely; otherwise that is worth a warning.
        statistics: what it needs to know of all rows of a step at once, by name.
    """

    loss: Callable[..., Loss]
    formula: str = ""
    source: str = ""
    learning_rate: float = 1e-6
    rate_source: str = "as DPO's"
    recipe: str = ""
    reference: bool = True
    lowers_chosen: bool = False
    statistics: Mapping[str, Statistic] = field(default_factory=dict, hash=False)

    @cached_property
    def data(self) -> Literal["pairs", "labels"]:
        """ "pairs" of a better and a worse response (of rankings, all pairs), or responses with "labels"."""
        first = next(iter(signature(self.loss).parameters.values()), None)
        found = get_type_hints(self.loss).get(first.name) if first else None
        if found not in _DATA:
            raise TypeError(f"its first argument must be annotated with PairLogps or LabelledLogps, not {found}")
        return _DATA[found]


_DATA: Mapping[object, Literal["pairs", "labels"]] = {PairLogps: "pairs", LabelledLogps: "labels"}
