"""What is known of the models, data and settings of a study: records that were read off the runs themselves.

A description that came with a file is not among them: it says what somebody else once ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from preflab.core.records import UserError


@dataclass(frozen=True, slots=True)
class Run:
    """A training, as its own folder tells; or, without a command, the model that the first one began with.

    Attributes:
        folder: of the run; of a model that no training beside it made, its folder or hub id.
        command: "train dpo"; None where no training is known.
        step: optimizer steps of the weights.
        start: the model that it started from, as its settings name it.
        told: what its result says of model, data and settings, as `preflab.training.as_run` wrote it; empty where an
            earlier version made it.
    """

    folder: str
    command: str | None
    step: int | None
    start: str | None
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Leak:
    """Of `of` different prompts of a study, how many a model was trained on; of `unknown` trainings that made it, the
    prompts are not known.
    """

    prompts: int
    of: int
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model, or a judge, comes from: its trainings, the last one first, and what they began with.

    Attributes:
        kind: "model", "file" (of responses), "chosen", "rejected", "judge".
        source: what it was called by on the command line.
        written_by: of a file of responses, the model that the manifest beside it names.
        dtype: the precision in which it was sampled, where that is known.
        runs: empty where nothing is known.
        leak: the study's prompts that it was trained on; None where nothing is known of any training.
    """

    kind: str
    source: str
    written_by: str | None = None
    dtype: str | None = None
    runs: tuple[Run, ...] = ()
    leak: Leak | None = None


@dataclass(frozen=True, slots=True)
class AsRun:
    """`as_run.json` of a study: where its prompts come from, and origins by name of model and of judge."""

    prompts: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Origin] = field(default_factory=dict)
    judges: Mapping[str, Origin] = field(default_factory=dict)


def as_run_of(document: Any, where: str) -> AsRun:
    """The record of a JSON document. Raises UserError where it is not one that this version wrote."""
    try:
        return AsRun(
            dict(document["prompts"]),
            {str(name): _origin(found) for name, found in document["models"].items()},
            {str(name): _origin(found) for name, found in document["judges"].items()},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{where}: not as this version wrote it ({error!r})") from error


def _origin(found: Mapping[str, Any]) -> Origin:
    runs = tuple(Run(**run) for run in found["runs"])
    if any(not isinstance(run.told, Mapping) for run in runs):
        raise TypeError("what a run tells is no object")
    leak = found["leak"] and Leak(**{name: int(value) for name, value in found["leak"].items()})
    return Origin(**{**found, "runs": runs, "leak": leak or None})


def leaks_of(document: Any) -> dict[str, Leak]:
    """`trained_on` of a verdict file's metadata, by name; what is not as we write it is left out."""
    found = document.items() if isinstance(document, Mapping) else ()
    names = ("prompts", "of", "unknown")
    return {
        str(name): Leak(*(each[part] for part in names))
        for name, each in found
        if isinstance(each, Mapping) and all(type(each.get(part)) is int for part in names)
    }


def trained_on(origins: Mapping[str, Origin]) -> dict[str, dict[str, int] | None]:
    """`trained_on` of a verdict file: whose training data is known, how many of the prompts it has; else null."""
    return {name: asdict(origin.leak) if origin.leak else None for name, origin in origins.items()}
