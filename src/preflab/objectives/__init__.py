"""The table of objectives. A new one is a function, a line here, and a row in the property tests."""

from __future__ import annotations

from collections.abc import Mapping

from preflab.objectives.labels import kto, mean_log_ratio
from preflab.objectives.pairs import (
    PSI,
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
from preflab.objectives.records import Bounds, LabelledLogps, Loss, Named, Objective, PairLogps, Statistic, StepValues
from preflab.objectives.reference_free import cpo, orpo, simpo

OBJECTIVES: Mapping[str, Objective] = {
    "dpo": Objective(
        dpo,
        "−log σ(β·(Δ_w − Δ_l)); ε: cDPO; + α·NLL(y_w)/|y_w|",
        "Rafailov et al., 2023",
        rate_source="TRL's DPO default: 1e-6; published LoRA runs on HH use 1e-5",
        recipe="DPO paper: lr 1e-6, β 0.1; Zephyr (alignment-handbook): full 5e-7, LoRA 5e-6, β 0.01; published LoRA "
        "runs on HH: lr 1e-5, β 0.2; iterative RPO: sft_weight 1, RPO: 0.005",
    ),
    "robust_dpo": Objective(
        robust_dpo,
        "(−(1−ε)·log σ(m) + ε·log σ(−m))/(1−2ε), m = β·(Δ_w − Δ_l)",
        "Chowdhury et al., 2024",
        recipe="rDPO paper: β 0.1, ε 0.1; lr as DPO; ε is the share of flipped labels that is expected",
    ),
    "ipo": Objective(
        ipo,
        "(Δ_w/|y_w| − Δ_l/|y_l| − 1/(2β))²",
        "Azar et al., 2023",
        recipe="alignment-handbook's comparison with DPO and KTO: lr 5e-7, β 0.01 to 0.9",
    ),
    "hinge": Objective(
        hinge,
        "max(0, 1 − β·(Δ_w − Δ_l))",
        "SLiC-HF: Zhao et al., 2023; RSO: Liu et al., 2023",
        recipe="RSO paper: β (its γ) 0.05; lr as DPO",
    ),
    "ln_dpo": Objective(
        ln_dpo,
        "−log σ(β·(Δ_w/|y_w| − Δ_l/|y_l|))",
        "Lambert et al., 2024 (Tülu 3)",
        learning_rate=5e-7,
        rate_source="Tülu 3: 5e-7",
        recipe="Tülu 3: lr 5e-7 (8B), 2e-7 (70B), β 5",
    ),
    "r_dpo": Objective(
        r_dpo,
        "−log σ(β·(Δ_w − Δ_l) + α·(|y_w| − |y_l|))",
        "Park et al., 2024",
        recipe="lr and β as DPO; α has no usual value: it is in rewards per token, and worth a sweep",
    ),
    "apo_zero": Objective(
        apo_zero,
        "1 − σ(β·Δ_w) + σ(β·Δ_l)",
        "D'Oosterlinck et al., 2024",
        recipe="APO paper: lr 2e-7, β 0.1; SmolLM3: lr 1e-6, β 0.05",
    ),
    "apo_down": Objective(
        apo_down,
        "σ(β·Δ_w) + 1 − σ(β·(Δ_w − Δ_l))",
        "D'Oosterlinck et al., 2024",
        recipe="APO paper: lr 2e-7, β 0.1",
        lowers_chosen=True,
    ),
    "exo": Objective(
        exo,
        "KL((σ(m), σ(−m)) ‖ (1−ε, ε)), m = β·(Δ_w − Δ_l)",
        "Ji et al., 2024",
        recipe="EXO paper: lr 1e-6, β 0.1, ε 1e-3",
    ),
    "nca": Objective(
        nca,
        "−log σ(r_w) − ½·log σ(−r_w) − ½·log σ(−r_l), r = β·Δ",
        "Chen et al., 2024",
        learning_rate=5e-6,
        rate_source="NCA paper: 5e-6",
        recipe="NCA paper: lr 5e-6 (QLoRA), β 0.01",
    ),
    "sppo": Objective(
        sppo,
        "(Δ_w − 1/(2β))² + (Δ_l + 1/(2β))²",
        "Wu et al., 2024",
        learning_rate=5e-7,
        rate_source="SPPO paper: 5e-7",
        recipe="SPPO paper: lr 5e-7, η 1e3 (β 1e-3)",
    ),
    "psipo": Objective(
        psipo,
        "(Δ_w − Δ_l − (Ψ(1−ε) − Ψ(ε))/(2β))²",
        "Azar et al., 2023",
        recipe="none published beyond IPO's",
    ),
    "kto": Objective(
        kto,
        "λ_D·(1 − σ(r − z)) if wanted, else λ_U·(1 − σ(z − r)); z = β·KL",
        "Ethayarajh et al., 2024",
        rate_source="TRL's default and, at β 0.1, its advice",
        recipe="its authors' code: lr 5e-6, β 0.1; TRL's advice: lr 5e-7 to 5e-6, at most 1e-6 at β 0.1, 16 to 128 "
        "rows a step; KTO paper: λ_D·n_D / (λ_U·n_U) from 1 to 4/3",
        statistics={"kl": Statistic(mean_log_ratio, mismatched=True)},
    ),
    "simpo": Objective(
        simpo,
        "−log σ(β·(log π(y_w)/|y_w| − log π(y_l)/|y_l|) − γ)",
        "Meng et al., 2024",
        learning_rate=8e-7,
        rate_source="SimPO's authors: 3e-7 to 1e-6",
        recipe="SimPO's authors: lr 3e-7 to 1e-6, β 2 to 2.5 (10 for later models), γ/β 0 to 1, 0.5 to start with",
        reference=False,
    ),
    "cpo": Objective(
        cpo,
        "−log σ(β·(log π(y_w) − log π(y_l))) + α·NLL(y_w)/|y_w|",
        "Xu et al., 2024",
        rate_source="TRL's CPO default: 1e-6",
        recipe="TRL: lr 1e-6, β 0.1, sft_weight 1; its authors (translation): lr 1e-4, β 0.1, sft_weight 1",
        reference=False,
    ),
    "orpo": Objective(
        orpo,
        "NLL(y_w)/|y_w| − β·log σ(log odds(y_w) − log odds(y_l))",
        "Hong et al., 2024",
        learning_rate=8e-6,
        rate_source="TRL's example: 8e-6",
        recipe="its authors (Mistral 7B): lr 5e-6, λ (here β) 0.1; TRL's example: lr 8e-6",
        reference=False,
    ),
}

TERMS: Mapping[str, Objective] = {"sft": Objective(sft, "NLL(y_w)/|y_w|", reference=False)}
"""What can be mixed in beside the objectives, and is none by itself."""

__all__ = [
    "OBJECTIVES",
    "PSI",
    "TERMS",
    "Bounds",
    "LabelledLogps",
    "Loss",
    "Named",
    "Objective",
    "PairLogps",
    "Statistic",
    "StepValues",
    "bradley_terry",
    "dpo",
    "kto",
    "psipo",
    "sft",
    "weighted",
]
