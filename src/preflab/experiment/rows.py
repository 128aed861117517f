"""An experiment on disk: its stages as `experiment.json` tells of them, and what their folders hold.

experiment.json    {name, title, description, stages: [{name, group, command, folder, variant, after, status, seconds,
                   reason}]}, rewritten after each stage; folders are relative to its own
FOLDER/            a training (`metrics.jsonl`), a study (the file that its table names), or a file of responses, scores
                   or verdicts
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from preflab.core.durable import METRICS, RESULT, read_metrics
from preflab.core.file_format import without_format
from preflab.core.origins import Run
from preflab.core.records import DisagreementError, UserError
from preflab.core.rundir import read_json
from preflab.core.yaml_files import shown
from preflab.stats.wording import NOTHING, setting
from preflab.studies import heads, study_in
from preflab.studies.base import OnPage, Part

HEAD = "experiment.json"

Status = Literal["waiting", "running", "done", "skipped", "failed"]
FINISHED: tuple[Status, ...] = ("done", "skipped")

Metrics = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlanStage:
    """A stage of an experiment.

    Attributes:
        group: its name in the experiment's file, before a sweep made several of it.
        command: "train dpo".
        variant: what the sweep gave this one; empty without a sweep.
        after: the stages that it needs.
        seconds: how long it took, where it ran.
        reason: why it failed, or was not run.
    """

    name: str
    group: str
    command: str
    folder: Path
    variant: Mapping[str, Any]
    after: tuple[str, ...]
    status: Status
    seconds: float | None
    reason: str | None

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class Experiment:
    """What `experiment.json` says; folders of stages are absolute, or relative to the working folder as its own is."""

    folder: Path
    name: str
    title: str
    description: str
    stages: tuple[PlanStage, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """A training stage, its lines of metrics, and what its result tells of model, data and settings
    (`preflab.core.origins`).
    """

    stage: PlanStage
    metrics: tuple[Metrics, ...]
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> Metrics:
        """The last value of every metric."""
        return {name: value for row in self.metrics for name, value in row.items() if value is not None}

    @property
    def steps(self) -> int:
        """Optimizer steps that it has gone."""
        return max((int(row["step"]) for row in self.metrics), default=0)

    @property
    def as_run(self) -> Run:
        """What was trained on what, as its folder tells."""
        return Run(self.stage.folder.as_posix(), self.stage.command, self.steps, None, self.told)

    def change(self, metric: str) -> float | None:
        """How much a metric of held-out data changed from before the first step to the end."""
        values = [row[metric] for row in self.metrics if row.get(metric) is not None]
        return values[-1] - values[0] if len(values) > 1 else None


@dataclass(frozen=True, slots=True)
class Results:
    """What the folders of an experiment's stages hold.

    Attributes:
        studies: each kind of study that stages made, in the order of the table, with its parts.
        unreadable: by stage, why its folder cannot be read, though it is finished.
        contradictions: of these, those whose stored figures do not follow from their own rows.
    """

    studies: tuple[tuple[OnPage, tuple[Part, ...]], ...]
    trainings: tuple[Training, ...]
    unreadable: Mapping[str, str]
    contradictions: tuple[str, ...]


def read_experiment(folder: Path) -> Experiment:
    """What `experiment.json` in a folder says. Raises UserError where there is none, or it is not ours."""
    path = folder / HEAD
    if not path.exists():
        raise UserError(f"{folder}: holds no experiment (no {HEAD}); `preflab run` makes one")
    head = without_format(path, read_json(path))
    try:
        stages = tuple(_stage(folder, entry) for entry in head["stages"])
        return Experiment(folder, str(head["name"]), str(head["title"]), str(head["description"]), stages)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not an experiment that this version wrote ({error!r})") from error


def _stage(folder: Path, entry: Mapping[str, Any]) -> PlanStage:
    if entry["status"] not in get_args(Status):
        raise TypeError(f"status {entry['status']!r}")
    seconds, reason = entry["seconds"], entry["reason"]
    if not (seconds is None or (type(seconds) in (int, float) and 0 <= seconds < math.inf)):
        raise TypeError(f"seconds {shown(seconds)}")
    if not (reason is None or isinstance(reason, str)) or "\0" in entry["folder"]:
        raise TypeError(f"reason {shown(reason)}, folder {shown(entry['folder'])}")
    return PlanStage(
        name=str(entry["name"]),
        group=str(entry["group"]),
        command=str(entry["command"]),
        folder=folder / entry["folder"],
        variant=dict(entry["variant"]),
        after=tuple(map(str, entry["after"])),
        status=entry["status"],
        seconds=None if seconds is None else float(seconds),
        reason=reason,
    )


def read_results(experiment: Experiment) -> Results:
    """Everything that the finished stages left, as far as it can be read; of a failed one, what its study shows then.

    What a stage that has yet to run finds in its folder is of another run, and is left alone.
    """
    parts: dict[str, list[Part]] = {head: [] for head in heads()}
    shown: dict[str, OnPage] = {}
    trainings: list[Training] = []
    unreadable: dict[str, str] = {}
    contradictions = []
    for stage in experiment.stages:
        if not (stage.is_finished or stage.status == "failed"):
            continue
        try:
            if study := study_in(stage.folder):
                page = shown.setdefault(study.head, study.page_part())
                if stage.is_finished or page.when_failed:
                    parts.setdefault(study.head, []).append(_part(experiment, stage, page.read(stage.folder)))
            if stage.is_finished and (stage.folder / METRICS).exists():
                trainings.append(_training(stage))
        except UserError as error:
            unreadable[stage.name] = str(error)
            if isinstance(error, DisagreementError):
                contradictions.append(str(error))
    studies = tuple((shown[head], tuple(own)) for head, own in parts.items() if own)
    return Results(studies, tuple(trainings), unreadable, tuple(contradictions))


def _part(experiment: Experiment, stage: PlanStage, found: object) -> Part:
    words = ", ".join(f"{name} {plain(value)}" for name, value in stage.variant.items())
    report = link(experiment, stage.folder / "report.html")
    return Part(stage.name, stage.group, words, report, stage.status == "failed", found)


def _training(stage: PlanStage) -> Training:
    path = stage.folder / RESULT
    result = read_json(path) if path.exists() else {}
    told = result.get("as_run") if isinstance(result, dict) else None
    return Training(stage, tuple(read_metrics(stage.folder)), told if isinstance(told, dict) else {})


def swept(stages: Sequence[PlanStage]) -> tuple[str, ...]:
    """The settings that differ between stages, in the order in which they are first met."""
    return tuple(dict.fromkeys(name for stage in stages for name in stage.variant))


def link(experiment: Experiment, path: Path) -> str:
    """The address of a file beside the page; empty where there is none."""
    if not path.exists():
        return ""
    return "./" + quote(Path(os.path.relpath(path, experiment.folder)).as_posix())


def plain(value: object) -> str:
    if value is None:
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else setting(value)
