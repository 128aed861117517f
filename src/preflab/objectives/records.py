"""What objectives take and give: log-probabilities of responses, and a loss per example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    precision: Precision = "float32"


@dataclass(frozen=True)
class LabelledLogps:
    """R responses, each wanted or not, to any prompts. Tensors are [R]; log-probabilities are sums over tokens.

    policy, reference: log π(y | x), log π_ref(y | x)
    wanted:            bool
    kl:                [] estimate of KL(π ‖ π_ref) in nats, at least 0, through which no gradient flows: the mean of
                       log π − log π_ref over mismatched prompts and responses
    tokens:            lengths |y| in tokens
    precision:         in which the tokens' log-probabilities were computed; their sums are float32
    """

    policy: Tensor
    reference: Tensor
    wanted: Tensor
    kl: Tensor
    tokens: Tensor
    precision: Precision = "float32"


class Loss(NamedTuple):
    """A loss per example, and named values per example to report."""

    per_example: Tensor
    values: dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """A line of the table.

    Attributes:
        loss: the pure function; its keyword-only arguments are the objective's hyper-parameters.
        formula: the loss in one line; Δ stands for log π − log π_ref of a response, summed over its tokens.
        source: where it was published.
        reference: whether it reads the reference's log-probabilities; where not, none are computed.
        data: "pairs" of a better and a worse response (of rankings, all pairs), or responses with "labels".
    """

    loss: Callable[..., Loss]
    formula: str
    source: str
    reference: bool = True
    data: Literal["pairs", "labels"] = "pairs"
