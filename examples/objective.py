"""An objective of one's own, for wherever one of preflab's can stand.

preflab train examples/objective.py:focal --help
preflab train examples/objective.py:focal --model MODEL --train-data pairs.jsonl --gamma 1
preflab train dpo --model MODEL --train-data pairs.jsonl --mix "examples/objective.py:focal?weight=0.5"
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch.nn.functional import logsigmoid

from preflab.objectives import Bounds, Loss, PairLogps


def focal(
    pairs: PairLogps,
    *,
    beta: Annotated[float, Bounds(above=0)] = 0.1,
    gamma: Annotated[float, Bounds(at_least=0)] = 2.0,
) -> Loss:
    """DPO that leaves pairs alone which are ranked well already.

    −(1 − p)^γ·log p with p = σ(β·(Δ_w − Δ_l)): the focal loss (Lin et al., 2017) of DPO's probability that the chosen
    response is preferred. Sums over tokens; 0.5^γ·ln 2 where policy and reference agree.

    Args:
        beta: Strength of the pull towards the reference.
        gamma: How much less a well-ranked pair counts; at 0 this is DPO.
    """
    margin = beta * (pairs.chosen - pairs.reference_chosen - pairs.rejected + pairs.reference_rejected)
    loss = -((1 - torch.sigmoid(margin)) ** gamma) * logsigmoid(margin)
    return Loss(loss, {"rewards/margins": margin, "logps/chosen": pairs.chosen, "logps/rejected": pairs.rejected})
