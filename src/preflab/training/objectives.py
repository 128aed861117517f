"""The objectives that are known by name."""

from __future__ import annotations

from dataclasses import dataclass

from preflab.objectives import OBJECTIVES
from preflab.training.preference_settings import PREFERENCE_SETTINGS, PairSettings
from preflab.training.settings import ObjectivesSettings

NEEDS = {"pairs": "pairs or rankings", "labels": "single responses with labels, or pairs"}


@dataclass(frozen=True)
class KnownObjective:
    """A line of the table with its defaults and their sources."""

    name: str
    formula: str
    source: str
    reference: bool
    data: str
    defaults: dict[str, object]
    recipe: str

    def __str__(self) -> str:
        defaults = ", ".join(f"{name} {value}" for name, value in self.defaults.items())
        return "\n".join([
            self.name,
            f"  {self.formula}",
            f"  needs {NEEDS[self.data]}; {'a' if self.reference else 'no'} reference  ({self.source})",
            f"  defaults: {defaults}",
            f"  used with: {self.recipe}",
        ])  # fmt: skip


@dataclass(frozen=True)
class KnownObjectives:
    """Every objective of `preflab train NAME`."""

    objectives: tuple[KnownObjective, ...]

    def __str__(self) -> str:
        legend = (
            "Δ = log π(y) − log π_ref(y), summed over tokens; w better, l worse; |y| tokens of a response; σ the",
            "logistic function; NLL = −log π(y); β beta, ε label_smoothing, α sft_weight or alpha, γ =",
            "gamma_beta_ratio·β, λ the weights of wanted and unwanted responses. Terms are mixed with",
            "--mix NAME?weight=…; docs/objectives.md says which objective is for what.",
        )
        return "\n".join([*map(str, self.objectives), *legend])


def list_objectives(_: ObjectivesSettings) -> KnownObjectives:
    """Formula, needs, defaults and recipe of each."""
    found = []
    for name, objective in OBJECTIVES.items():
        kind = PREFERENCE_SETTINGS[name]
        fields = [field for field in kind.model_fields if field not in PairSettings.model_fields]
        defaults = {field: kind.model_fields[field].default for field in ("learning_rate", *fields)}
        found.append(
            KnownObjective(
                name, objective.formula, objective.source, objective.reference, objective.data, defaults, kind.recipe
            )
        )
    return KnownObjectives(tuple(found))
