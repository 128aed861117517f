"""The objectives that are known by name."""

from __future__ import annotations

from dataclasses import dataclass

from preflab.core.plugins import installed
from preflab.objectives import OBJECTIVES, Objective
from preflab.training.preference_settings import own_fields, settings_of, summary_of
from preflab.training.settings import ObjectivesSettings

NEEDS = {"pairs": "pairs or rankings", "labels": "single responses with labels, or pairs"}


@dataclass(frozen=True)
class KnownObjective:
    """A line of the table with its defaults and their sources."""

    name: str
    where: str
    line: Objective
    defaults: dict[str, object]

    def __str__(self) -> str:
        line, defaults = self.line, ", ".join(f"{name} {value}" for name, value in self.defaults.items())
        return "\n".join([
            self.name,
            f"  {line.formula or summary_of(line.loss)}",
            f"  needs {NEEDS[line.data]}; {'a' if line.reference else 'no'} reference  ({line.source or self.where})",
            f"  defaults: {defaults}",
            f"  used with: {line.recipe or 'nothing that its line says'}",
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
    """Formula, needs, defaults and recipe of each of ours and of installed packages."""
    found = []
    for name in (*OBJECTIVES, *(name for name in installed("objectives") if name not in OBJECTIVES)):
        kind = settings_of(name)
        defaults = {field: kind.model_fields[field].default for field in ("learning_rate", *own_fields(kind))}
        found.append(KnownObjective(name, kind.plugin.where, kind.line, defaults))
    return KnownObjectives(tuple(found))
