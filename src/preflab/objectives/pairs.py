"""Objectives on pairs of responses. Pure functions of sums over response tokens: no settings objects, no files, no
models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class PairLogps:
    """P pairs of responses to one prompt each. All tensors are [P]; log-probabilities are sums over the response's
    tokens.

    chosen, rejected:                 log π(y_w | x), log π(y_l | x) under the policy
    reference_chosen, …_rejected:     the same under the reference
    chosen_tokens, rejected_tokens:   lengths |y_w|, |y_l| in tokens, terminator included
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor


class Loss(NamedTuple):
    """A loss per example, and named values per example to report."""

    per_example: Tensor
    values: dict[str, Tensor]


def dpo(pairs: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0, sft_weight: float = 0.0) -> Loss:
    """Direct preference optimisation (Rafailov et al., 2023, equation 7). Sums, not means, over tokens.

    With implicit rewards r = β·(log π − log π_ref) and margin m = r_w − r_l the loss is −log σ(m); exactly ln 2 where
    policy and reference agree. `label_smoothing` ε is conservative DPO (Mitchell, 2023): −(1 − ε)·log σ(m) − ε·log
    σ(−m). `sft_weight` α adds −α·log π(y_w)/|y_w| (RPO; Pang et al., 2024, equation 1), normalised by the length of the
    chosen response.
    """
    chosen_reward = beta * (pairs.chosen - pairs.reference_chosen)
    rejected_reward = beta * (pairs.rejected - pairs.reference_rejected)
    margin = chosen_reward - rejected_reward
    loss = -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    if sft_weight:
        loss = loss - sft_weight * pairs.chosen / pairs.chosen_tokens
    return Loss(
        loss,
        {
            "rewards/chosen": chosen_reward,
            "rewards/rejected": rejected_reward,
            "rewards/accuracies": (margin > 0).to(margin.dtype),
            "rewards/margins": margin,
            "logps/chosen": pairs.chosen,
            "logps/rejected": pairs.rejected,
        },
    )


def bradley_terry(better: Tensor, worse: Tensor) -> Loss:
    """−log σ(r_better − r_worse) for rewards [P] (Bradley and Terry, 1952; Ouyang et al., 2022, equation 1). A tie is
    no success.
    """
    margin = better - worse
    return Loss(-logsigmoid(margin), {"accuracy": (margin > 0).to(margin.dtype), "margin": margin})
