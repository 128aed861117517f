"""The table of objectives. A new one is a function, a line here, its settings, and a row in the property tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from preflab.objectives.labels import kto
from preflab.objectives.pairs import (
    apo_down,
    apo_zero,
    bradley_terry,
    dpo,
    exo,
    hinge,
    ipo,
    ln_dpo,
    nca,
    psipo,
    r_dpo,
    robust_dpo,
    sft,
    sppo,
    weighted,
)
from preflab.objectives.records import LabelledLogps, Loss, Objective, PairLogps
from preflab.objectives.reference_free import cpo, orpo, simpo

OBJECTIVES: Mapping[str, Objective] = {
    "dpo": Objective(dpo, "−log σ(β·(Δ_w − Δ_l)); ε: cDPO; + α·NLL(y_w)/|y_w|", "Rafailov et al., 2023"),
    "robust_dpo": Objective(
        robust_dpo, "(−(1−ε)·log σ(m) + ε·log σ(−m))/(1−2ε), m = β·(Δ_w − Δ_l)", "Chowdhury et al., 2024"
    ),
    "ipo": Objective(ipo, "(Δ_w/|y_w| − Δ_l/|y_l| − 1/(2β))²", "Azar et al., 2023"),
    "hinge": Objective(hinge, "max(0, 1 − β·(Δ_w − Δ_l))", "SLiC-HF: Zhao et al., 2023; RSO: Liu et al., 2023"),
    "ln_dpo": Objective(ln_dpo, "−log σ(β·(Δ_w/|y_w| − Δ_l/|y_l|))", "Lambert et al., 2024 (Tülu 3)"),
    "r_dpo": Objective(r_dpo, "−log σ(β·(Δ_w − Δ_l) + α·(|y_w| − |y_l|))", "Park et al., 2024"),
    "apo_zero": Objective(apo_zero, "1 − σ(β·Δ_w) + σ(β·Δ_l)", "D'Oosterlinck et al., 2024"),
    "apo_down": Objective(apo_down, "σ(β·Δ_w) + 1 − σ(β·(Δ_w − Δ_l))", "D'Oosterlinck et al., 2024"),
    "exo": Objective(exo, "KL((σ(m), σ(−m)) ‖ (1−ε, ε)), m = β·(Δ_w − Δ_l)", "Ji et al., 2024"),
    "nca": Objective(nca, "−log σ(r_w) − ½·log σ(−r_w) − ½·log σ(−r_l), r = β·Δ", "Chen et al., 2024"),
    "sppo": Objective(sppo, "(Δ_w − 1/(2β))² + (Δ_l + 1/(2β))²", "Wu et al., 2024"),
    "psipo": Objective(psipo, "(Δ_w − Δ_l − (Ψ(1−ε) − Ψ(ε))/(2β))²", "Azar et al., 2023"),
    "kto": Objective(
        kto, "λ_D·(1 − σ(r − z)) if wanted, else λ_U·(1 − σ(z − r)); z = β·KL", "Ethayarajh et al., 2024", data="labels"
    ),
    "simpo": Objective(
        simpo, "−log σ(β·(log π(y_w)/|y_w| − log π(y_l)/|y_l|) − γ)", "Meng et al., 2024", reference=False
    ),
    "cpo": Objective(cpo, "−log σ(β·(log π(y_w) − log π(y_l))) + α·NLL(y_w)/|y_w|", "Xu et al., 2024", reference=False),
    "orpo": Objective(
        orpo, "NLL(y_w)/|y_w| − β·log σ(log odds(y_w) − log odds(y_l))", "Hong et al., 2024", reference=False
    ),
}

PSI: Mapping[str, Callable[[float], float]] = {
    "identity": lambda p: p,
    "log-odds": lambda p: math.log(p / (1 - p)),
}
"""The Ψ of ΨPO that are known by name: those of IPO and of DPO (Azar et al., 2023)."""

__all__ = [
    "OBJECTIVES",
    "PSI",
    "LabelledLogps",
    "Loss",
    "Objective",
    "PairLogps",
    "bradley_terry",
    "dpo",
    "kto",
    "psipo",
    "sft",
    "weighted",
]
