"""Objectives on pairs of responses, with a reference. Pure functions of sums over response tokens: no settings objects,
no files, no models.

Δ_w = log π(y_w | x) − log π_ref(y_w | x) and Δ_l are sums over tokens; whoever wants a mean divides by the counts. All
losses are [P], one per pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from preflab.core.ties import Precision, compare, points, rounding
from preflab.objectives.records import Bounds, ErrorRate, Loss, Named, NotNegative, PairLogps, Positive


def dpo(
    pairs: PairLogps,
    *,
    beta: Positive = 0.1,
    label_smoothing: ErrorRate = 0.0,
    sft_weight: NotNegative = 0.0,
) -> Loss:
    """Train a model towards what people preferred (direct preference optimisation).

    Rafailov et al., 2023, equation 7; sums, not means, over tokens. With implicit rewards r = β·Δ and margin m = r_w −
    r_l the loss is −log σ(m); exactly ln 2 where policy and reference agree. `label_smoothing` ε is conservative DPO
    (Mitchell, 2023): −(1 − ε)·log σ(m) − ε·log σ(−m). `sft_weight` α adds −α·log π(y_w)/|y_w| (iterative RPO; Pang et
    al., 2024), normalised by the length of the chosen response.

    Args:
        beta: Strength of the pull towards the reference (DPO paper: 0.1; published LoRA runs on HH: 0.2).
        label_smoothing: Probability that a label is wrong: conservative DPO (Mitchell, 2023).
        sft_weight: Weight of an SFT term on the chosen response, per token; keeps it from growing unlikely.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    loss = smoothed(chosen - rejected, label_smoothing)
    if sft_weight:
        loss = loss + sft_weight * sft(pairs).per_example
    return reported(pairs, loss, chosen, rejected, explained)


def robust_dpo(pairs: PairLogps, *, beta: Positive = 0.1, label_smoothing: ErrorRate = 0.1) -> Loss:
    """DPO that a share of flipped labels does not bias.

    Robust DPO (Chowdhury et al., 2024): (−(1 − ε)·log σ(m) + ε·log σ(−m)) / (1 − 2ε), with DPO's margin m; sums over
    tokens; ln 2 where policy and reference agree. Unlike conservative DPO's it has no lower bound, and its expectation
    when a share ε of labels is flipped is DPO's loss on clean ones.

    Args:
        beta: Strength of the pull towards the reference; values from 0.01 to 0.9 have been published.
        label_smoothing: Probability that a label is wrong.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    margin, epsilon = chosen - rejected, label_smoothing
    loss = (-(1 - epsilon) * logsigmoid(margin) + epsilon * logsigmoid(-margin)) / (1 - 2 * epsilon)
    return reported(pairs, loss, chosen, rejected, explained)


def ipo(pairs: PairLogps, *, beta: Positive = 0.1) -> Loss:
    """Identity preference optimisation: a squared loss towards a fixed margin.

    (Δ_w/|y_w| − Δ_l/|y_l| − 1/(2β))² (Azar et al., 2023, equation 17). β is the paper's τ. The paper writes sums; means
    over tokens are what its authors used, and what other implementations do. 1/(4β²) where policy and reference agree.
    Reported rewards are β·Δ/|y|.

    Args:
        beta: The paper's τ: the margin aimed at is 1/(2β) nats per token.
    """
    chosen, rejected, explained = rewards(pairs, beta, per_token=True)
    return reported(pairs, ((chosen - rejected) / beta - 1 / (2 * beta)).square(), chosen, rejected, explained)


def hinge(pairs: PairLogps, *, beta: Positive = 0.1) -> Loss:
    """SLiC: a hinge loss on DPO's margin.

    max(0, 1 − m): SLiC-HF (Zhao et al., 2023, section 2) with implicit rewards, as RSO has it (Liu et al., 2023:
    hinge-norm). Sums over tokens; 1 where policy and reference agree, 0 beyond margin 1.

    Args:
        beta: Margins beyond 1/β nats cost nothing.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    return reported(pairs, torch.relu(1 - (chosen - rejected)), chosen, rejected, explained)


def ln_dpo(pairs: PairLogps, *, beta: Positive = 5.0, label_smoothing: ErrorRate = 0.0) -> Loss:
    """Length-normalised DPO: means over tokens instead of sums.

    −log σ(β·(Δ_w/|y_w| − Δ_l/|y_l|)) (Lambert et al., 2024). β is larger than DPO's by about the number of tokens that
    it no longer multiplies with. ln 2 where policy and reference agree.

    Args:
        beta: Scale of the margin per token (Tülu 3: 5).
        label_smoothing: Probability that a label is wrong.
    """
    chosen, rejected, explained = rewards(pairs, beta, per_token=True)
    return reported(pairs, smoothed(chosen - rejected, label_smoothing), chosen, rejected, explained)


def r_dpo(pairs: PairLogps, *, beta: Positive = 0.1, alpha: NotNegative = 0.01) -> Loss:
    """Length-regularised DPO: what a label owes to length is not learnt.

    −log σ(m + α·(|y_w| − |y_l|)), with DPO's margin m in sums (Park et al., 2024). DPO's derivation, where labels
    follow a reward r and the policy is to maximise r − α·|y|: what α rewards per token explain of a label is not
    learnt, and a chosen response that is longer needs less of a margin. ln 2 where policy and reference agree and both
    responses are equally long. Reported rewards are those of DPO.

    Args:
        beta: Strength of the pull towards the reference; values from 0.01 to 0.9 have been published.
        alpha: What length explains of a label, in rewards per token.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    longer = alpha * (pairs.chosen_tokens - pairs.rejected_tokens)
    return reported(pairs, -logsigmoid(chosen - rejected + longer), chosen, rejected, explained)


def apo_zero(pairs: PairLogps, *, beta: Positive = 0.1) -> Loss:
    """Anchored preference optimisation: chosen up, rejected down.

    1 − σ(β·Δ_w) + σ(β·Δ_l) (D'Oosterlinck et al., 2024, equation 7). For chosen responses that are better than the
    model's own: pushes them up and the rejected down, each by itself. Sums over tokens; 1 where policy and reference
    agree.

    Args:
        beta: Strength of the pull towards the reference; values from 0.01 to 0.9 have been published.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    return reported(pairs, 1 - torch.sigmoid(chosen) + torch.sigmoid(rejected), chosen, rejected, explained)


def apo_down(pairs: PairLogps, *, beta: Positive = 0.1) -> Loss:
    """Anchored preference optimisation: both down, rejected further.

    σ(β·Δ_w) + 1 − σ(β·(Δ_w − Δ_l)) (D'Oosterlinck et al., 2024, equation 8). For chosen responses that are worse than
    the model's own. Sums over tokens; 1 where policy and reference agree.

    Args:
        beta: Strength of the pull towards the reference; values from 0.01 to 0.9 have been published.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    return reported(pairs, torch.sigmoid(chosen) + 1 - torch.sigmoid(chosen - rejected), chosen, rejected, explained)


def exo(
    pairs: PairLogps, *, beta: Positive = 0.1, label_smoothing: Annotated[float, Bounds(above=0, below=0.5)] = 1e-3
) -> Loss:
    """Efficient exact optimisation: a reverse KL between preferences.

    That of the policy's preference q from the label's p = (1 − ε, ε) (Ji et al., 2024, equation 16, on pairs): with
    DPO's margin m and q = (σ(m), σ(−m)) the loss is Σ q·(log q − log p). Sums over tokens. −½·ln(4·ε·(1 − ε)) where
    policy and reference agree.

    Args:
        beta: Strength of the pull towards the reference; values from 0.01 to 0.9 have been published.
        label_smoothing: Probability that a label is wrong; at 0 the loss would be infinite.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    margin = chosen - rejected
    log_p = torch.log(torch.tensor([1 - label_smoothing, label_smoothing], dtype=margin.dtype, device=margin.device))
    loss = torch.sigmoid(margin) * (logsigmoid(margin) - log_p[0])
    loss = loss + torch.sigmoid(-margin) * (logsigmoid(-margin) - log_p[1])
    return reported(pairs, loss, chosen, rejected, explained)


def nca(pairs: PairLogps, *, beta: Positive = 0.01) -> Loss:
    """Noise contrastive alignment: the chosen response bounded by itself.

    −log σ(r_w) − ½·log σ(−r_w) − ½·log σ(−r_l), r = β·Δ (Chen et al., 2024, on pairs). Bounds the likelihood of the
    chosen response by itself, not only against the rejected one. Sums over tokens; 2·ln 2 where policy and reference
    agree.

    Args:
        beta: Strength of the pull towards the reference (NCA paper: 0.01).
    """
    chosen, rejected, explained = rewards(pairs, beta)
    loss = -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)
    return reported(pairs, loss, chosen, rejected, explained)


def sppo(pairs: PairLogps, *, beta: Positive = 1e-3) -> Loss:
    """Self-play preference optimisation, one iteration with hard labels.

    (Δ_w − 1/(2β))² + (Δ_l + 1/(2β))² (Wu et al., 2024, equation 4.7, P = 1 and 0). 1/β is the paper's η. Sums over
    tokens; 1/(2β²) where policy and reference agree. The paper samples the pairs anew from each iteration's policy.

    Args:
        beta: 1/η of the paper (0.001): responses aim at ±1/(2β) nats from the reference.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    goal = 1 / (2 * beta)
    return reported(
        pairs, (chosen / beta - goal).square() + (rejected / beta + goal).square(), chosen, rejected, explained
    )


PSI: Mapping[str, Callable[[float], float]] = {
    "identity": lambda p: p,
    "log-odds": lambda p: math.log(p / (1 - p)),
}
"""The Ψ of ΨPO that are known by name: those of IPO and of DPO (Azar et al., 2023)."""


def psipo(
    pairs: PairLogps,
    *,
    psi: Annotated[Callable[[float], float], Named(PSI)] = PSI["identity"],
    beta: Positive = 0.1,
    label_smoothing: ErrorRate = 0.0,
) -> Loss:
    """ΨPO with a Ψ of your own.

    By regression, (Δ_w − Δ_l − t)² (Azar et al., 2023, equation 6). ΨPO's optimum has Δ(y) − Δ(y') = (g(y) − g(y'))/β
    with g(y) the mean of Ψ(p(y ≻ y'')) over responses y''. Of a pair whose chosen response is known to be preferred
    with probability p = 1 − ε, the difference of g is estimated by (Ψ(p) − Ψ(1 − p))/2, so t = (Ψ(1 − ε) − Ψ(ε))/(2β):
    with the identity and ε = 0 IPO's loss in sums; with the log-odds the optimum of conservative DPO, σ(β·(Δ_w − Δ_l))
    = 1 − ε (infinite, and refused, at ε = 0). The estimate is exact where Ψ(p) + Ψ(1 − p) is constant, as it is for
    these two, and an approximation otherwise. β is the paper's τ; sums over tokens; t² where policy and reference
    agree.

    `psi` maps a probability in [0, 1] to a number. Raises ValueError where it is not finite at 1 − ε or ε, or not
    greater at the first, so that rejected responses would be preferred.

    Args:
        psi: Ψ from a probability to a number: identity (IPO), log-odds (DPO), or your own file.py:function.
        beta: The paper's τ: the margin aimed at is (Ψ(1−ε) − Ψ(ε))/(2β) nats.
        label_smoothing: Probability that a label is wrong, ε: what Ψ is asked for is 1 − ε and ε.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    high, low = (_finite(psi, probability) for probability in (1 - label_smoothing, label_smoothing))
    if high <= low:
        raise ValueError(
            f"psi is {high:g} at the probability {1 - label_smoothing:g} and {low:g} at {label_smoothing:g}: it must "
            "rise, or training would go away from the chosen responses"
        )
    goal = (high - low) / (2 * beta)
    return reported(pairs, ((chosen - rejected) / beta - goal).square(), chosen, rejected, explained)


def _finite(psi: Callable[[float], float], probability: float) -> float:
    try:
        value = float(psi(probability))
    except (ZeroDivisionError, OverflowError):
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(
            f"psi is not finite at the probability {probability}; a label_smoothing above 0 keeps away from 0 and 1"
        )
    return value


def sft(pairs: PairLogps) -> Loss:
    """−log π(y_w)/|y_w|: the negative log-likelihood of the chosen response per token, as a term beside others."""
    return Loss(-pairs.chosen / pairs.chosen_tokens, {})


def bradley_terry(better: Tensor, worse: Tensor, *, precision: Precision = "float32") -> Loss:
    """−log σ(r_better − r_worse) for rewards [P] (Bradley and Terry, 1952; Ouyang et al., 2022, equation 1). A margin
    that the rounding of `precision`, in which they were computed, explains is a tie: half a success.
    """
    margin = better - worse
    won = compare(better, worse, precision).to(margin.dtype)
    return Loss(-logsigmoid(margin), {"accuracy": won, "margin": margin})


def weighted(terms: Mapping[str, tuple[float, Callable[[PairLogps], Loss]]]) -> Callable[[PairLogps], Loss]:
    """Σ weight·loss over terms by name (MPO; Wang et al., 2024, section 3.2). The reported values are the first term's,
    with each term's own loss, unweighted, as `loss/NAME`.
    """

    def objective(pairs: PairLogps) -> Loss:
        losses = {name: term(pairs) for name, (_, term) in terms.items()}
        total = torch.stack([terms[name][0] * loss.per_example for name, loss in losses.items()]).sum(dim=0)
        own = {f"loss/{name}": loss.per_example for name, loss in losses.items()}
        return Loss(total, next(iter(losses.values())).values | own)

    return objective


def rewards(
    pairs: PairLogps, beta: float, *, per_token: bool = False, reference: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """[P] implicit rewards β·Δ of chosen and rejected responses, and the margin between them that rounding explains.

    `per_token`: divided by their lengths. Without `reference`, β·log π. A margin is a difference of log-probabilities
    that can be a thousand times its size, and is as exact as they are.
    """
    chosen, rejected = pairs.chosen, pairs.rejected
    inexact = [
        rounding(own.detach(), pairs.precision, terms=tokens)
        for own, tokens in ((chosen, pairs.chosen_tokens), (rejected, pairs.rejected_tokens))
    ]
    if reference:
        chosen, rejected = chosen - pairs.reference_chosen, rejected - pairs.reference_rejected
    if per_token:
        chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
        inexact = [inexact[0] / pairs.chosen_tokens, inexact[1] / pairs.rejected_tokens]
    return beta * chosen, beta * rejected, beta * torch.hypot(*inexact)


def smoothed(margin: Tensor, epsilon: float) -> Tensor:
    """−(1 − ε)·log σ(m) − ε·log σ(−m)."""
    return -(1 - epsilon) * logsigmoid(margin) - epsilon * logsigmoid(-margin)


def reported(pairs: PairLogps, loss: Tensor, chosen_reward: Tensor, rejected_reward: Tensor, explained: Tensor) -> Loss:
    """A loss with the values that every objective on pairs reports. A margin within `explained`, the one that rounding
    explains, is a tie, and a tie is half a success.
    """
    margin = chosen_reward - rejected_reward
    return Loss(
        loss,
        {
            "rewards/chosen": chosen_reward,
            "rewards/rejected": rejected_reward,
            "rewards/accuracies": points(margin.detach(), explained).to(margin.dtype),
            "rewards/margins": margin,
            "logps/chosen": pairs.chosen,
            "logps/rejected": pairs.rejected,
        },
    )
