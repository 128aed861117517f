"""A row for each objective of the table, and one more for each of its options: what the property tests know of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from preflab.objectives import OBJECTIVES, PSI, LabelledLogps, Loss, PairLogps

LN_2 = math.log(2)
KL = 2.0
FIELDS = ("chosen", "rejected", "reference_chosen", "reference_rejected", "chosen_tokens", "rejected_tokens")


@dataclass(frozen=True)
class Row:
    """What is known of an objective with these hyper-parameters.

    golden: its losses of the first two pairs of SOME (KTO: of the two responses of the first); the arithmetic stands
        beside it. Of these, log-ratios Δ are 1 and −1, then −1 and 2; log π is −10 and −12, then −30 and −20; lengths
        are 5 and 6, then 9 and 4.
    lengths: "sum": the numbers of tokens do not matter; "mean": only log-probabilities per token do; "both": the one
        term is a sum, the other a mean, or lengths enter by themselves.
    at_reference: its loss where policy and reference agree and both responses are equally long.
    far: its loss where the chosen response has become certain and the rejected one impossible; an infinite one grows
        with the margin.
    """

    loss: Callable[[PairLogps], Loss]
    golden: tuple[float, float]
    lengths: Literal["sum", "mean", "both"]
    at_reference: float | None
    far: float


def pairs(*rows: tuple[float, float, float, float, int, int], dtype: torch.dtype = torch.float64) -> PairLogps:
    columns = [torch.tensor(column, dtype=dtype) for column in zip(*rows, strict=True)]
    return PairLogps(**dict(zip(FIELDS, columns, strict=True)))


def responses_of(given: PairLogps, kl: float = KL) -> LabelledLogps:
    """Chosen responses as wanted ones and rejected responses as unwanted ones, in turn."""
    policy = torch.stack([given.chosen, given.rejected], dim=1).flatten()
    reference = torch.stack([given.reference_chosen, given.reference_rejected], dim=1).flatten()
    tokens = torch.stack([given.chosen_tokens, given.rejected_tokens], dim=1).flatten()
    wanted = torch.tensor([True, False]).repeat(len(given.chosen))
    return LabelledLogps(policy, reference, wanted, tokens, given.precision, {"kl": policy.new_tensor(kl)})


def objective(name: str, **options: object) -> Callable[[PairLogps], Loss]:
    """An objective of the table on pairs, whatever it is on."""
    line = OBJECTIVES[name]
    bound = partial(line.loss, **options)
    return bound if line.data == "pairs" else lambda given: bound(responses_of(given))


def at_the_reference(given: PairLogps) -> PairLogps:
    """The same pairs before training, with responses of equal length."""
    return replace(
        given,
        reference_chosen=given.chosen,
        reference_rejected=given.rejected,
        rejected_tokens=given.chosen_tokens,
    )


SOME = pairs((-10, -12, -11, -11, 5, 6), (-30, -20, -29, -22, 9, 4), (-3, -90, -4, -70, 1, 40))
FAR = pairs((0, -2e4, -1e4, -1e4, 5, 5))

# m = 0.1·(1 + 1) = 0.2 and 0.1·(−1 − 2) = −0.3; ln(1 + e^−0.2) = 0.598138869 and ln(1 + e^0.3) = 0.854355244, which
# with −m in place of m are m more: 0.798138869 and 0.554355244. σ(0.1) = 0.524979187, σ(0.2) = 0.549833997, σ(0.3) =
# 0.574442517. Per token, Δ_w/|y_w| − Δ_l/|y_l| is 1/5 + 1/6 = 11/30 and −1/9 − 2/4 = −11/18.
ROWS: Mapping[str, Row] = {
    "dpo": Row(objective("dpo", beta=0.1), (0.598138869, 0.854355244), "sum", LN_2, 0),
    # 0.75·0.598138869 + 0.25·0.798138869; 0.75·0.854355244 + 0.25·0.554355244
    "dpo, smoothed": Row(
        objective("dpo", beta=0.1, label_smoothing=0.25), (0.648138869, 0.779355244), "sum", LN_2, math.inf
    ),
    # 2·10/5 = 4 more, and 2·30/9 more
    "dpo with SFT": Row(objective("dpo", beta=0.1, sft_weight=2.0), (4.598138869, 7.521021911), "both", None, 0),
    # (0.9·0.598138869 − 0.1·0.798138869)/0.8; (0.9·0.854355244 − 0.1·0.554355244)/0.8
    "robust_dpo": Row(
        objective("robust_dpo", beta=0.1, label_smoothing=0.1), (0.573138869, 0.891855244), "sum", LN_2, -math.inf
    ),
    # (11/30 − 1/0.2)² = (139/30)²; (−11/18 − 5)² = (101/18)²
    "ipo": Row(objective("ipo", beta=0.1), (21.467777778, 31.484567901), "mean", 25, math.inf),
    # 1 − 0.2; 1 + 0.3
    "hinge": Row(objective("hinge", beta=0.1), (0.8, 1.3), "sum", 1, 0),
    # ln(1 + e^(−5·11/30)); ln(1 + e^(5·11/18))
    "ln_dpo": Row(objective("ln_dpo", beta=5.0), (0.148316333, 3.101576698), "mean", LN_2, 0),
    # 0.148316333 + 0.1·5·11/30; 3.101576698 − 0.1·5·11/18
    "ln_dpo, smoothed": Row(
        objective("ln_dpo", beta=5.0, label_smoothing=0.1), (0.331649666, 2.796021142), "mean", LN_2, math.inf
    ),
    # 0.2 + 0.05·(5 − 6) = 0.15: ln(1 + e^−0.15); −0.3 + 0.05·(9 − 4) = −0.05: ln(1 + e^0.05)
    "r_dpo": Row(objective("r_dpo", beta=0.1, alpha=0.05), (0.620957048, 0.718459648), "both", LN_2, 0),
    # 1 − σ(0.1) + σ(−0.1); 1 − σ(−0.1) + σ(0.2)
    "apo_zero": Row(objective("apo_zero", beta=0.1), (0.950041625, 1.074813185), "sum", 1, 0),
    # σ(0.1) + 1 − σ(0.2); σ(−0.1) + 1 − σ(−0.3)
    "apo_down": Row(objective("apo_down", beta=0.1), (0.975145190, 1.049463329), "sum", 1, 1),
    # σ(0.2)·(−0.598138869 − ln 0.9) + σ(−0.2)·(−0.798138869 − ln 0.1);
    # σ(−0.3)·(−0.854355244 − ln 0.9) + σ(0.3)·(−0.554355244 − ln 0.1). −½·ln(4·0.1·0.9) at the reference
    "exo": Row(
        objective("exo", beta=0.1, label_smoothing=0.1), (0.406304251, 0.685517242), "sum", 0.510825624, -math.log(0.9)
    ),
    # −log σ(0.1) − ½·log σ(−0.1) − ½·log σ(0.1) = 0.644396660 + 0.372198330 + 0.322198330;
    # −log σ(−0.1) − ½·log σ(0.1) − ½·log σ(−0.2) = 0.744396660 + 0.322198330 + 0.399069435
    "nca": Row(objective("nca", beta=0.1), (1.338793320, 1.465664425), "sum", 2 * LN_2, math.inf),
    # (1 − 5)² + (−1 + 5)²; (−1 − 5)² + (2 + 5)²
    "sppo": Row(objective("sppo", beta=0.1), (32, 85), "sum", 50, math.inf),
    # (2 − t)² and (−3 − t)², with t = (0.9 − 0.1)/0.2 = 4, and t = ln(0.75/0.25)/0.1 = 10.986122887
    "psipo": Row(objective("psipo", psi=PSI["identity"], beta=0.1, label_smoothing=0.1), (4, 49), "sum", 16, math.inf),
    "psipo, log-odds": Row(
        objective("psipo", psi=PSI["log-odds"], beta=0.1, label_smoothing=0.25),
        (80.750404535, 195.611633401),
        "sum",
        120.694896081,
        math.inf,
    ),
    # z = 0.1·2: 1 − σ(0.1 − 0.2) of the wanted one, 1 − σ(0.2 + 0.1) of the unwanted one; then 2 and 0.5 times as much
    "kto": Row(objective("kto", beta=0.1), (0.524979187, 0.425557483), "sum", None, 0),
    "kto, weighted": Row(
        objective("kto", beta=0.1, desirable_weight=2.0, undesirable_weight=0.5),
        (1.049958375, 0.212778742),
        "sum",
        None,
        0,
    ),
    # 2·(−10/5 + 12/6 − 0.5) = −1: ln(1 + e); 2·(−30/9 + 20/4 − 0.5) = 7/3: ln(1 + e^(−7/3))
    "simpo": Row(objective("simpo", beta=2.0, gamma_beta_ratio=0.5), (1.313261688, 0.092553628), "mean", None, 0),
    # 0.1·(−10 + 12) = 0.2: 0.598138869 + 10/5; 0.1·(−30 + 20) = −1: ln(1 + e) + 30/9
    "cpo": Row(objective("cpo", beta=0.1), (2.598138869, 4.646595021), "both", None, 0),
    # 0.25·0.2 more, and half of 10/5; 0.25·(−1) more, and half of 30/9
    "cpo, smoothed": Row(
        objective("cpo", beta=0.1, label_smoothing=0.25, sft_weight=0.5),
        (1.648138869, 2.729928355),
        "both",
        None,
        math.inf,
    ),
    # Both −2 per token, so their odds are the same: 2 + 0.1·ln 2. Then −10/3 and −5, and log odds of
    # −10/3 − ln(1 − e^(−10/3)) = −3.297007473 and −5 − ln(1 − e^−5) = −4.993239251: 10/3 + 0.1·ln(1 + e^−1.696231778)
    "orpo": Row(objective("orpo", beta=0.1), (2.069314718, 3.350170235), "mean", None, 0),
}
