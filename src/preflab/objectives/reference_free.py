"""Objectives on pairs that need no reference. Pure functions of the policy's log-probabilities, [P] losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from preflab.objectives.pairs import reported, rewards, sft, smoothed
from preflab.objectives.records import ErrorRate, Loss, NotNegative, PairLogps, Positive


def simpo(pairs: PairLogps, *, beta: Positive = 2.0, gamma_beta_ratio: NotNegative = 0.5) -> Loss:
    """Simple preference optimisation: no reference, a margin per token.

    −log σ(β·(a_w − a_l) − γ) (Meng et al., 2024, equation 6). a = log π(y)/|y| is the mean log-probability per token,
    and γ = `gamma_beta_ratio`·β the margin that the chosen response should have, so the ratio is in nats per token.
    Reported rewards are β·a.

    Args:
        beta: Scale of the margin per token (SimPO's authors: 2 to 2.5).
        gamma_beta_ratio: Margin aimed at, in nats per token: γ/β (SimPO's authors: about 0.5).
    """
    chosen, rejected, explained = rewards(pairs, beta, per_token=True, reference=False)
    return reported(pairs, -logsigmoid(chosen - rejected - beta * gamma_beta_ratio), chosen, rejected, explained)


def cpo(
    pairs: PairLogps,
    *,
    beta: Positive = 0.1,
    label_smoothing: ErrorRate = 0.0,
    sft_weight: NotNegative = 1.0,
) -> Loss:
    """Contrastive preference optimisation: no reference, with an SFT term.

    −log σ(β·(log π(y_w) − log π(y_l))), sums over tokens, plus `sft_weight`·(−log π(y_w)/|y_w|) (Xu et al., 2024,
    equation 3). The second term is per token, as implementations have it, so that it does not grow with the length.
    Reported rewards are β·log π.

    Args:
        beta: Scale of the margin (CPO paper: 0.1).
        label_smoothing: Probability that a label is wrong.
        sft_weight: Weight of the SFT term on the chosen response, per token.
    """
    chosen, rejected, explained = rewards(pairs, beta, reference=False)
    loss = smoothed(chosen - rejected, label_smoothing) + sft_weight * sft(pairs).per_example
    return reported(pairs, loss, chosen, rejected, explained)


def orpo(pairs: PairLogps, *, beta: Positive = 0.1) -> Loss:
    """Odds ratio preference optimisation: SFT and preference in one, no reference.

    −a_w − β·log σ(log odds_w − log odds_l) (Hong et al., 2024, equation 6). a = log π(y)/|y|, and odds = e^a / (1 −
    e^a): means over tokens throughout. β is the paper's λ. Reported rewards are β·a.

    Args:
        beta: Weight of the odds-ratio term (λ of the ORPO paper: 0.1).
    """
    chosen, rejected = pairs.chosen / pairs.chosen_tokens, pairs.rejected / pairs.rejected_tokens
    loss = -chosen - beta * logsigmoid(_log_odds(chosen) - _log_odds(rejected))
    return reported(pairs, loss, *rewards(pairs, beta, per_token=True, reference=False))


def _log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 − p)) from log p. A probability that rounds to 1 has odds as large as the precision can tell."""
    below_one = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return below_one - torch.log(-torch.expm1(below_one))
