"""Settings of `preflab train NAME`, a class for each objective of the table.

The fields of a class that are not in `PairSettings` are the hyper-parameters of the objective's function, with the same
names and defaults (a test holds that). `recipe` says what has been used with it, and by whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from preflab.core.config import load_settings
from preflab.core.records import UserError
from preflab.data.settings import DataSettings
from preflab.model.settings import LoraSettings, ModelSettings
from preflab.training.settings import TrainSettings

_OUTPUT = TrainSettings.model_fields["output_dir"].description
_BETA = "Strength of the pull towards the reference; values from 0.01 to 0.9 have been published"
_FLIPPED = "Probability that a label is wrong"


@dataclass(frozen=True)
class Term:
    """A further term of a loss, as `mix` names it: "ipo?weight=0.5&beta=0.2"."""

    objective: str
    weight: float
    hyperparameters: Mapping[str, Any]


class PreferenceSettings(ModelSettings, LoraSettings, DataSettings, TrainSettings):
    """What training on preferences needs, whatever the objective."""

    objective: ClassVar[str] = ""
    recipe: ClassVar[str] = ""

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The objective's own settings, by the names of its function's arguments."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in PairSettings.model_fields}

    @property
    def terms(self) -> tuple[Term, ...]:
        """Further terms of the loss."""
        return ()


class PairSettings(PreferenceSettings):
    """An objective on pairs of responses."""

    mix: tuple[str, ...] = Field(
        default=(),
        description="Further terms of the loss by weight, each an objective on pairs or sft (per token of the chosen "
        "response): sft?weight=0.2, ipo?weight=0.5&beta=0.2.",
    )

    @property
    def terms(self) -> tuple[Term, ...]:
        return tuple(map(_read_term, self.mix))

    @field_validator("mix")
    @classmethod
    def _known_terms(cls, mix: tuple[str, ...]) -> tuple[str, ...]:
        names = [_read_term(spec).objective for spec in mix]
        if twice := {name for name in names if names.count(name) > 1} | {
            name for name in names if name == cls.objective
        }:
            raise ValueError(f"each objective once, and {', '.join(sorted(twice))} is a term twice")
        return mix


class DPOSettings(PairSettings):
    """Direct preference optimisation against the model that the run starts from."""

    objective: ClassVar[str] = "dpo"
    recipe: ClassVar[str] = (
        "DPO paper: lr 1e-6, β 0.1; Zephyr (alignment-handbook): full 5e-7, LoRA 5e-6, β 0.01; published LoRA runs on "
        "HH: lr 1e-5, β 0.2; iterative RPO: sft_weight 1, RPO: 0.005"
    )
    output_dir: Path = Field(default=Path("runs/dpo"), description=_OUTPUT)
    learning_rate: float = Field(
        default=1e-6,
        gt=0,
        description="Peak learning rate of AdamW (TRL's DPO default: 1e-6; published LoRA runs on HH use 1e-5).",
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        description="Strength of the pull towards the reference (DPO paper: 0.1; published LoRA runs on HH: 0.2).",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description=f"{_FLIPPED}: conservative DPO (Mitchell, 2023)."
    )
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of an SFT term on the chosen response, per token; keeps it from growing unlikely.",
    )


class MarginSettings(PairSettings):
    """An objective on sums of log-ratios, with DPO's defaults."""

    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate of AdamW (as DPO's).")
    beta: float = Field(default=0.1, gt=0, description=f"{_BETA}.")


class RobustDPOSettings(MarginSettings):
    """Robust DPO: unbiased although a known share of the labels is flipped."""

    objective: ClassVar[str] = "robust_dpo"
    recipe: ClassVar[str] = "rDPO paper: β 0.1, ε 0.1; lr as DPO; ε is the share of flipped labels that is expected"
    output_dir: Path = Field(default=Path("runs/robust_dpo"), description=_OUTPUT)
    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5, description=f"{_FLIPPED}.")


class IPOSettings(PairSettings):
    """Identity preference optimisation: a squared loss towards a margin of 1/(2β) nats per token."""

    objective: ClassVar[str] = "ipo"
    recipe: ClassVar[str] = "alignment-handbook's comparison with DPO and KTO: lr 5e-7, β 0.01 to 0.9"
    output_dir: Path = Field(default=Path("runs/ipo"), description=_OUTPUT)
    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate of AdamW (as DPO's).")
    beta: float = Field(default=0.1, gt=0, description="The paper's τ: the margin aimed at is 1/(2β) nats per token.")


class HingeSettings(PairSettings):
    """Hinge loss on DPO's margin: SLiC with implicit rewards."""

    objective: ClassVar[str] = "hinge"
    recipe: ClassVar[str] = "RSO paper: β (its γ) 0.05; lr as DPO"
    output_dir: Path = Field(default=Path("runs/hinge"), description=_OUTPUT)
    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate of AdamW (as DPO's).")
    beta: float = Field(default=0.1, gt=0, description="Margins beyond 1/β nats cost nothing.")


class LNDPOSettings(PairSettings):
    """DPO on means over tokens instead of sums."""

    objective: ClassVar[str] = "ln_dpo"
    recipe: ClassVar[str] = "Tülu 3: lr 5e-7 (8B), 2e-7 (70B), β 5"
    output_dir: Path = Field(default=Path("runs/ln_dpo"), description=_OUTPUT)
    learning_rate: float = Field(default=5e-7, gt=0, description="Peak learning rate of AdamW (Tülu 3: 5e-7).")
    beta: float = Field(default=5.0, gt=0, description="Scale of the margin per token (Tülu 3: 5).")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description=f"{_FLIPPED}.")


class RDPOSettings(MarginSettings):
    """DPO with a margin for length: what a label owes to length alone is not learnt."""

    objective: ClassVar[str] = "r_dpo"
    recipe: ClassVar[str] = "lr and β as DPO; α has no usual value: it is in rewards per token, and worth a sweep"
    output_dir: Path = Field(default=Path("runs/r_dpo"), description=_OUTPUT)
    alpha: float = Field(default=0.01, ge=0, description="What length explains of a label, in rewards per token.")


class APOZeroSettings(MarginSettings):
    """Anchored preference optimisation for chosen responses that are better than the model's own."""

    objective: ClassVar[str] = "apo_zero"
    recipe: ClassVar[str] = "APO paper: lr 2e-7, β 0.1; SmolLM3: lr 1e-6, β 0.05"
    output_dir: Path = Field(default=Path("runs/apo_zero"), description=_OUTPUT)


class APODownSettings(MarginSettings):
    """Anchored preference optimisation for chosen responses that are worse than the model's own."""

    objective: ClassVar[str] = "apo_down"
    recipe: ClassVar[str] = "APO paper: lr 2e-7, β 0.1"
    output_dir: Path = Field(default=Path("runs/apo_down"), description=_OUTPUT)


class EXOSettings(MarginSettings):
    """Efficient exact optimisation: the reverse KL from the policy's preference to the label's."""

    objective: ClassVar[str] = "exo"
    recipe: ClassVar[str] = "EXO paper: lr 1e-6, β 0.1, ε 1e-3"
    output_dir: Path = Field(default=Path("runs/exo"), description=_OUTPUT)
    label_smoothing: float = Field(
        default=1e-3, gt=0, lt=0.5, description=f"{_FLIPPED}; at 0 the loss would be infinite."
    )


class NCASettings(PairSettings):
    """Noise contrastive alignment: the chosen response is bounded by itself, not only against the rejected one."""

    objective: ClassVar[str] = "nca"
    recipe: ClassVar[str] = "NCA paper: lr 5e-6 (QLoRA), β 0.01"
    output_dir: Path = Field(default=Path("runs/nca"), description=_OUTPUT)
    learning_rate: float = Field(default=5e-6, gt=0, description="Peak learning rate of AdamW (NCA paper: 5e-6).")
    beta: float = Field(default=0.01, gt=0, description="Strength of the pull towards the reference (NCA paper: 0.01).")


class SPPOSettings(PairSettings):
    """Self-play preference optimisation with hard labels, one iteration."""

    objective: ClassVar[str] = "sppo"
    recipe: ClassVar[str] = "SPPO paper: lr 5e-7, η 1e3 (β 1e-3)"
    output_dir: Path = Field(default=Path("runs/sppo"), description=_OUTPUT)
    learning_rate: float = Field(default=5e-7, gt=0, description="Peak learning rate of AdamW (SPPO paper: 5e-7).")
    beta: float = Field(
        default=1e-3, gt=0, description="1/η of the paper (0.001): responses aim at ±1/(2β) nats from the reference."
    )


class PsiPOSettings(PairSettings):
    """ΨPO with a Ψ of your own."""

    objective: ClassVar[str] = "psipo"
    recipe: ClassVar[str] = "none published beyond IPO's"
    output_dir: Path = Field(default=Path("runs/psipo"), description=_OUTPUT)
    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate of AdamW (as DPO's).")
    psi: str = Field(
        default="identity",
        description="Ψ from a probability to a number: identity (IPO), log-odds (DPO), or your own file.py:function.",
    )
    beta: float = Field(
        default=0.1, gt=0, description="The paper's τ: the margin aimed at is (Ψ(1−ε) − Ψ(ε))/(2β) nats."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description=f"{_FLIPPED}, ε: what Ψ is asked for is 1 − ε and ε."
    )


class KTOSettings(PreferenceSettings):
    """Kahneman-Tversky optimisation, on single responses of which is known whether they are wanted.

    Of pairs and rankings the best response counts as wanted, the others as not.
    """

    objective: ClassVar[str] = "kto"
    recipe: ClassVar[str] = (
        "its authors' code: lr 5e-6, β 0.1; TRL's advice: lr 5e-7 to 5e-6, at most 1e-6 at β 0.1, 16 to 128 rows a "
        "step; KTO paper: λ_D·n_D / (λ_U·n_U) from 1 to 4/3"
    )
    output_dir: Path = Field(default=Path("runs/kto"), description=_OUTPUT)
    learning_rate: float = Field(
        default=1e-6, gt=0, description="Peak learning rate of AdamW (TRL's default and, at β 0.1, its advice)."
    )
    beta: float = Field(
        default=0.1, gt=0, description="Strength of the pull towards the reference (KTO's authors: 0.1)."
    )
    desirable_weight: float = Field(default=1.0, gt=0, description="Weight λ_D of wanted responses.")
    undesirable_weight: float = Field(default=1.0, gt=0, description="Weight λ_U of unwanted responses.")


class SimPOSettings(PairSettings):
    """Simple preference optimisation: mean log-probabilities and a target margin, no reference."""

    objective: ClassVar[str] = "simpo"
    recipe: ClassVar[str] = (
        "SimPO's authors: lr 3e-7 to 1e-6, β 2 to 2.5 (10 for later models), γ/β 0 to 1, 0.5 to start with"
    )
    output_dir: Path = Field(default=Path("runs/simpo"), description=_OUTPUT)
    learning_rate: float = Field(
        default=8e-7, gt=0, description="Peak learning rate of AdamW (SimPO's authors: 3e-7 to 1e-6)."
    )
    beta: float = Field(default=2.0, gt=0, description="Scale of the margin per token (SimPO's authors: 2 to 2.5).")
    gamma_beta_ratio: float = Field(
        default=0.5, ge=0, description="Margin aimed at, in nats per token: γ/β (SimPO's authors: about 0.5)."
    )


class CPOSettings(PairSettings):
    """Contrastive preference optimisation: DPO's loss without a reference, and an SFT term."""

    objective: ClassVar[str] = "cpo"
    recipe: ClassVar[str] = "TRL: lr 1e-6, β 0.1, sft_weight 1; its authors (translation): lr 1e-4, β 0.1, sft_weight 1"
    output_dir: Path = Field(default=Path("runs/cpo"), description=_OUTPUT)
    learning_rate: float = Field(
        default=1e-6, gt=0, description="Peak learning rate of AdamW (TRL's CPO default: 1e-6)."
    )
    beta: float = Field(default=0.1, gt=0, description="Scale of the margin (CPO paper: 0.1).")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description=f"{_FLIPPED}.")
    sft_weight: float = Field(
        default=1.0, ge=0, description="Weight of the SFT term on the chosen response, per token."
    )


class ORPOSettings(PairSettings):
    """Odds ratio preference optimisation: SFT and preference in one, no reference."""

    objective: ClassVar[str] = "orpo"
    recipe: ClassVar[str] = "its authors (Mistral 7B): lr 5e-6, λ (here β) 0.1; TRL's example: lr 8e-6"
    output_dir: Path = Field(default=Path("runs/orpo"), description=_OUTPUT)
    learning_rate: float = Field(default=8e-6, gt=0, description="Peak learning rate of AdamW (TRL's example: 8e-6).")
    beta: float = Field(default=0.1, gt=0, description="Weight of the odds-ratio term (λ of the ORPO paper: 0.1).")


_CLASSES: tuple[type[PreferenceSettings], ...] = (
    DPOSettings,
    RobustDPOSettings,
    IPOSettings,
    HingeSettings,
    LNDPOSettings,
    RDPOSettings,
    APOZeroSettings,
    APODownSettings,
    EXOSettings,
    NCASettings,
    SPPOSettings,
    PsiPOSettings,
    KTOSettings,
    SimPOSettings,
    CPOSettings,
    ORPOSettings,
)
PREFERENCE_SETTINGS: Mapping[str, type[PreferenceSettings]] = {kind.objective: kind for kind in _CLASSES}


def settings_of(name: str) -> type[PreferenceSettings]:
    """The settings class of an objective. Raises UserError where there is none of this name."""
    if name not in PREFERENCE_SETTINGS:
        raise UserError(f"{name}: there is no such objective; one of {', '.join(PREFERENCE_SETTINGS)} is needed")
    return PREFERENCE_SETTINGS[name]


def _read_term(spec: str) -> Term:
    """ "ipo?weight=0.5&beta=0.2" as a term. Raises ValueError with what is wrong."""
    name, _, query = spec.partition("?")
    parts = [part.partition("=") for part in query.split("&")] if query else []
    if any(not sign for _, sign, _ in parts):
        raise ValueError(f"{spec}: name=value is needed, and & between several: {name}?weight=0.5&…")
    given = {key: value for key, _, value in parts}
    if len(given) < len(parts):
        raise ValueError(f"{spec}: a name is given twice")
    try:
        weight = float(given.pop("weight", "1"))
    except ValueError:
        raise ValueError(f"{spec}: the weight is no number") from None
    if not 0 < weight < float("inf"):
        raise ValueError(f"{spec}: a weight greater than 0 is needed")
    if name == "sft":
        if given:
            raise ValueError(f"{spec}: sft has a weight only")
        return Term(name, weight, {})
    kind = PREFERENCE_SETTINGS.get(name, PreferenceSettings)
    if not issubclass(kind, PairSettings):
        known = [term for term, kind in PREFERENCE_SETTINGS.items() if issubclass(kind, PairSettings)]
        what = f"{name} reads single responses, and" if name in PREFERENCE_SETTINGS else f"{name!r}"
        raise ValueError(f"{what} cannot be mixed in; sft, or one of {', '.join(known)}, is needed")
    if unknown := set(given) - set(kind.model_fields) | set(given) & set(PairSettings.model_fields):
        own = set(kind.model_fields) - set(PairSettings.model_fields)
        raise ValueError(f"{spec}: {name} has no {', '.join(sorted(unknown))}; it has weight, {', '.join(sorted(own))}")
    try:
        settings = load_settings(kind, None, {"model": "-", "train_data": ["-"], **given})
    except UserError as error:
        raise ValueError(f"{spec}: {error}") from None
    return Term(name, weight, settings.hyperparameters)
