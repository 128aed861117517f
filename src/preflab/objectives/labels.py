"""Objectives on single responses of which is known whether they are wanted. Pure functions, [R] losses."""

from __future__ import annotations

import torch
from torch import Tensor

from preflab.core.ties import points, rounding
from preflab.objectives.records import LabelledLogps, Loss, Positive, StepValues


def kto(
    responses: LabelledLogps,
    *,
    beta: Positive = 0.1,
    desirable_weight: Positive = 1.0,
    undesirable_weight: Positive = 1.0,
) -> Loss:
    """Kahneman-Tversky optimisation, on single responses with labels, or on pairs.

    Of pairs and rankings the best response counts as wanted, the others as not. With implicit reward r = β·(log π − log
    π_ref), sums over tokens, and z = β·KL: λ_D·(1 − σ(r − z)) for a wanted response and λ_U·(1 − σ(z − r)) for an
    unwanted one; λ/2 where policy and reference agree (Ethayarajh et al., 2024, equation 7). The KL is estimated from
    mismatched prompts and responses, and no gradient flows through it. An accuracy of 1 is a reward on the right side
    of z, one of 1/2 a reward that differs from z by no more than rounding explains.

    Args:
        beta: Strength of the pull towards the reference (KTO's authors: 0.1).
        desirable_weight: Weight λ_D of wanted responses.
        undesirable_weight: Weight λ_U of unwanted responses.
    """
    reward = beta * (responses.policy - responses.reference)
    beyond = reward - beta * responses.statistics["kl"].detach()
    gain = torch.where(responses.wanted, beyond, -beyond)
    explained = beta * rounding(responses.policy.detach(), responses.precision, terms=responses.tokens)
    weight = torch.where(responses.wanted, desirable_weight, undesirable_weight).to(reward.dtype)
    return Loss(
        weight * (1 - torch.sigmoid(gain)),
        {"rewards": reward, "logps": responses.policy, "accuracies": points(gain.detach(), explained).to(gain.dtype)},
    )


def mean_log_ratio(mismatched: StepValues) -> Tensor:
    """[] KTO's estimate of KL(π ‖ π_ref) in nats, not below 0: the mean of log π − log π_ref over prompts with
    responses to other prompts.
    """
    return (mismatched.values - mismatched.reference).mean().clamp(min=0)
