"""Objectives on pairs of responses, with a reference. Pure functions of sums over response tokens: no settings objects,
no files, no models.

Δ_w = log π(y_w | x) − log π_ref(y_w | x) and Δ_l are sums over tokens; whoever wants a mean divides by the counts. All
losses are [P], one per pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from preflab.core.ties import Precision, compare, points, rounding
from preflab.objectives.records import Loss, PairLogps


def dpo(pairs: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0, sft_weight: float = 0.0) -> Loss:
    """Direct preference optimisation (Rafailov et al., 2023, equation 7). Sums, not means, over tokens.

    With implicit rewards r = β·Δ and margin m = r_w − r_l the loss is −log σ(m); exactly ln 2 where policy and
    reference agree. `label_smoothing` ε is conservative DPO (Mitchell, 2023): −(1 − ε)·log σ(m) − ε·log σ(−m).
    `sft_weight` α adds −α·log π(y_w)/|y_w| (iterative RPO; Pang et al., 2024), normalised by the length of the chosen
    response.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    loss = smoothed(chosen - rejected, label_smoothing)
    if sft_weight:
        loss = loss + sft_weight * sft(pairs).per_example
    return reported(pairs, loss, chosen, rejected, explained)


def robust_dpo(pairs: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Loss:
    """Robust DPO (Chowdhury et al., 2024): DPO's loss, unbiased although a share ε of labels is flipped.

    (−(1 − ε)·log σ(m) + ε·log σ(−m)) / (1 − 2ε), with DPO's margin m; sums over tokens; ln 2 where policy and reference
    agree. Unlike conservative DPO's it has no lower bound, and its expectation under flips is DPO's loss on clean
    labels.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    margin, epsilon = chosen - rejected, label_smoothing
    loss = (-(1 - epsilon) * logsigmoid(margin) + epsilon * logsigmoid(-margin)) / (1 - 2 * epsilon)
    return reported(pairs, loss, chosen, rejected, explained)


def ipo(pairs: PairLogps, *, beta: float = 0.1) -> Loss:
    """Identity preference optimisation (Azar et al., 2023, equation 17): (Δ_w/|y_w| − Δ_l/|y_l| − 1/(2β))².

    β is the paper's τ. The paper writes sums; means over tokens are what its authors used, and what other
    implementations do. 1/(4β²) where policy and reference agree. Reported rewards are β·Δ/|y|.
    """
    chosen, rejected, explained = rewards(pairs, beta, per_token=True)
    return reported(pairs, ((chosen - rejected) / beta - 1 / (2 * beta)).square(), chosen, rejected, explained)


def hinge(pairs: PairLogps, *, beta: float = 0.1) -> Loss:
    """Hinge loss max(0, 1 − m) on DPO's margin: SLiC-HF (Zhao et al., 2023, section 2) with implicit rewards, as RSO
    has it (Liu et al., 2023: hinge-norm). Sums over tokens; 1 where policy and reference agree, 0 beyond margin 1.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    return reported(pairs, torch.relu(1 - (chosen - rejected)), chosen, rejected, explained)


def ln_dpo(pairs: PairLogps, *, beta: float = 5.0, label_smoothing: float = 0.0) -> Loss:
    """Length-normalised DPO (Lambert et al., 2024): −log σ(β·(Δ_w/|y_w| − Δ_l/|y_l|)), means over tokens.

    β is larger than DPO's by about the number of tokens that it no longer multiplies with. ln 2 where policy and
    reference agree.
    """
    chosen, rejected, explained = rewards(pairs, beta, per_token=True)
    return reported(pairs, smoothed(chosen - rejected, label_smoothing), chosen, rejected, explained)


def r_dpo(pairs: PairLogps, *, beta: float = 0.1, alpha: float = 0.01) -> Loss:
    """Length-regularised DPO (Park et al., 2024): −log σ(m + α·(|y_w| − |y_l|)), with DPO's margin m in sums.

    DPO's derivation, where labels follow a reward r and the policy is to maximise r − α·|y|: what α rewards per token
    explain of a label is not learnt, and a chosen response that is longer needs less of a margin. ln 2 where policy and
    reference agree and both responses are equally long. Reported rewards are those of DPO.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    longer = alpha * (pairs.chosen_tokens - pairs.rejected_tokens)
    return reported(pairs, -logsigmoid(chosen - rejected + longer), chosen, rejected, explained)


def apo_zero(pairs: PairLogps, *, beta: float = 0.1) -> Loss:
    """Anchored preference optimisation, zero (D'Oosterlinck et al., 2024, equation 7): 1 − σ(β·Δ_w) + σ(β·Δ_l).

    For chosen responses that are better than the model's own: pushes them up and the rejected down, each by itself.
    Sums over tokens; 1 where policy and reference agree.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    return reported(pairs, 1 - torch.sigmoid(chosen) + torch.sigmoid(rejected), chosen, rejected, explained)


def apo_down(pairs: PairLogps, *, beta: float = 0.1) -> Loss:
    """Anchored preference optimisation, down (D'Oosterlinck et al., 2024, equation 8): σ(β·Δ_w) + 1 − σ(β·(Δ_w − Δ_l)).

    For chosen responses that are worse than the model's own: pushes both down, the rejected further. Sums over tokens;
    1 where policy and reference agree.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    return reported(pairs, torch.sigmoid(chosen) + 1 - torch.sigmoid(chosen - rejected), chosen, rejected, explained)


def exo(pairs: PairLogps, *, beta: float = 0.1, label_smoothing: float = 1e-3) -> Loss:
    """Efficient exact optimisation on pairs (Ji et al., 2024, equation 16): the reverse KL of the policy's preference q
    from the label's p = (1 − ε, ε).

    With DPO's margin m and q = (σ(m), σ(−m)): Σ q·(log q − log p). Sums over tokens. ε must not be 0, where the
    divergence is infinite; −½·ln(4·ε·(1 − ε)) where policy and reference agree.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    margin = chosen - rejected
    log_p = torch.log(torch.tensor([1 - label_smoothing, label_smoothing], dtype=margin.dtype, device=margin.device))
    loss = torch.sigmoid(margin) * (logsigmoid(margin) - log_p[0])
    loss = loss + torch.sigmoid(-margin) * (logsigmoid(-margin) - log_p[1])
    return reported(pairs, loss, chosen, rejected, explained)


def nca(pairs: PairLogps, *, beta: float = 0.01) -> Loss:
    """Noise contrastive alignment on pairs (Chen et al., 2024): −log σ(r_w) − ½·log σ(−r_w) − ½·log σ(−r_l), r = β·Δ.

    Bounds the likelihood of the chosen response by itself, not only against the rejected one. Sums over tokens;
    2·ln 2 where policy and reference agree.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    loss = -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)
    return reported(pairs, loss, chosen, rejected, explained)


def sppo(pairs: PairLogps, *, beta: float = 1e-3) -> Loss:
    """Self-play preference optimisation with hard labels (Wu et al., 2024, equation 4.7, P = 1 and 0):
    (Δ_w − 1/(2β))² + (Δ_l + 1/(2β))².

    1/β is the paper's η. Sums over tokens; 1/(2β²) where policy and reference agree. One iteration of it; the paper
    samples the pairs anew from each iteration's policy.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    goal = 1 / (2 * beta)
    return reported(
        pairs, (chosen / beta - goal).square() + (rejected / beta + goal).square(), chosen, rejected, explained
    )


def psipo(pairs: PairLogps, *, psi: Callable[[float], float], beta: float = 0.1, label_smoothing: float = 0.0) -> Loss:
    """ΨPO with a Ψ of one's own (Azar et al., 2023, equation 6), by regression: (Δ_w − Δ_l − t)².

    ΨPO's optimum has Δ(y) − Δ(y') = (g(y) − g(y'))/β with g(y) the mean of Ψ(p(y ≻ y'')) over responses y''. Of a pair
    whose chosen response is known to be preferred with probability p = 1 − ε, the difference of g is estimated by
    (Ψ(p) − Ψ(1 − p))/2, so t = (Ψ(1 − ε) − Ψ(ε))/(2β): with the identity and ε = 0 IPO's loss in sums; with the
    log-odds the optimum of conservative DPO, σ(β·(Δ_w − Δ_l)) = 1 − ε (infinite, and refused, at ε = 0). The estimate
    is exact where Ψ(p) + Ψ(1 − p) is constant, as it is for these two, and an approximation otherwise. β is the paper's
    τ; sums over tokens; t² where policy and reference agree.

    `psi` maps a probability in [0, 1] to a finite number.
    """
    chosen, rejected, explained = rewards(pairs, beta)
    goal = (psi(1 - label_smoothing) - psi(label_smoothing)) / (2 * beta)
    return reported(pairs, ((chosen - rejected) / beta - goal).square(), chosen, rejected, explained)


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
