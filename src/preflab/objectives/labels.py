"""Objectives on single responses of which is known whether they are wanted. Pure functions, [R] losses."""

from __future__ import annotations

import torch

from preflab.core.ties import points, rounding
from preflab.objectives.records import LabelledLogps, Loss


def kto(
    responses: LabelledLogps, *, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Loss:
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024, equation 7).

    With implicit reward r = β·(log π − log π_ref), sums over tokens, and z = β·KL: λ_D·(1 − σ(r − z)) for a wanted
    response and λ_U·(1 − σ(z − r)) for an unwanted one; λ/2 where policy and reference agree. The KL is estimated from
    mismatched prompts and responses, and no gradient flows through it. An accuracy of 1 is a reward on the right side
    of z, one of 1/2 a reward that differs from z by no more than rounding explains.
    """
    reward = beta * (responses.policy - responses.reference)
    beyond = reward - beta * responses.kl.detach()
    gain = torch.where(responses.wanted, beyond, -beyond)
    explained = beta * rounding(responses.policy.detach(), responses.precision, terms=responses.tokens)
    weight = torch.where(responses.wanted, desirable_weight, undesirable_weight).to(reward.dtype)
    return Loss(
        weight * (1 - torch.sigmoid(gain)),
        {"rewards": reward, "logps": responses.policy, "accuracies": points(gain.detach(), explained).to(gain.dtype)},
    )
