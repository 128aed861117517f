"""From an experiment's file to its plan: stages in their order, each with its checked settings and its folder.

Nothing is run, and of the disk only the file is read. Which commands there are, the table of commands says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from preflab.commands import stage_commands
from preflab.core.command import StageCommand
from preflab.core.config import Settings, explain, named_fields
from preflab.core.records import UserError
from preflab.experiment.file import Experiment, StageText, did_you_mean, read_experiment_file
from preflab.experiment.references import fill_values, ordered, references, resolve_values
from preflab.experiment.sweeps import Instance, Variant, crossed, joined, name_of, put_in, shown, stages_in

MOST_STAGES = 1000
"""Stages of a plan, sweeps multiplied out; more are a slip, such as a range in the place of a few values."""


@dataclass(frozen=True)
class PlannedStage:
    """One run of a command.

    Attributes:
        name: of the stage, and of its folder in the experiment's: "dpo-beta-0.1".
        group: its name in the file, before a sweep made several of it: "dpo".
        command: "train dpo".
        kind: what the table of commands says of it.
        after: the stages that its settings name.
        variant: what was swept, here or in a stage that this one follows; empty without a sweep.
    """

    name: str
    group: str
    command: str
    kind: StageCommand
    settings: Settings
    folder: Path
    after: tuple[str, ...]
    variant: Variant


@dataclass(frozen=True)
class Plan:
    """An experiment's stages in the order in which they run; `document` is its file with all overrides."""

    name: str
    title: str
    description: str
    output_dir: Path
    stages: tuple[PlannedStage, ...]
    document: Mapping[str, Any] = field(default_factory=dict)


def read_plan(path: Path, assignments: Sequence[str]) -> Plan:
    """The plan of an experiment's file with `key=value` overrides.

    Raises UserError that lists what is wrong: commands and settings that there are not, names that nothing has, stages
    that wait for one another.
    """
    experiment = read_experiment_file(path, assignments)
    kinds = stage_commands(stage.run for stage in experiment.stages.values() if stage.run)
    problems: list[str] = []
    values = resolve_values(experiment.values, problems)
    _refuse(experiment, problems)
    texts = {group: _filled(group, experiment, values, kinds, problems) for group in experiment.stages}
    _check_common(experiment, kinds, problems)
    after = {group: _needs(text) & experiment.stages.keys() for group, text in texts.items()}
    instances: dict[str, list[Instance]] = {}
    stages: list[PlannedStage] = []
    for group in ordered(after, problems):
        instances[group] = []
        if all(instances[other] for other in after[group]) and texts[group].run:
            draft = _Draft(group, texts[group], kinds[texts[group].run], experiment, problems)
            for instance, stage in islice(_expand(draft, instances), MOST_STAGES + 1 - len(stages)):
                instances[group].append(instance)
                stages += [stage] if stage else []
    if len(stages) > MOST_STAGES:
        problems = [f"the sweeps together make more than {MOST_STAGES} stages, which are the most"]
    problems += _clashes(instances)
    _refuse(experiment, problems)
    name, title = experiment.output_dir.name, experiment.title
    document = experiment.document
    return Plan(name, title or name, experiment.description, experiment.output_dir, tuple(stages), document)


def _refuse(experiment: Experiment, problems: Iterable[str]) -> None:
    listed = [f"{experiment.place}: {problem}" for problem in dict.fromkeys(problems)]
    if listed:
        raise UserError("\n".join([f"{len(listed)} problems:", *listed] if len(listed) > 1 else listed))


# ---- what the file says --------------------------------------------------------------------------------------------


def _filled(
    group: str,
    experiment: Experiment,
    values: Mapping[str, Any],
    kinds: Mapping[str, StageCommand],
    problems: list[str],
) -> StageText:
    """A stage with the settings for all added, and with values in the place of their names: what `${…}` is left, names
    stages.
    """
    stage = experiment.stages[group]
    if stage.run not in kinds:
        problems.append(f"{group}.run: no stage does {stage.run!r}" + did_you_mean(stage.run, kinds))
        return StageText("", {}, {})
    kind = kinds[stage.run]
    fields = named_fields(kind.settings_class())
    common = {name: value for name, value in experiment.settings.items() if name in fields and name not in stage.sweep}
    settings = {**common, **stage.settings}
    found = [
        *_not_to_be_set({*settings, *stage.sweep}, kind),
        *_unknown_names((*settings.values(), *stage.sweep.values()), values, experiment.stages),
    ]
    try:
        filled = {name: fill_values(value, values) for name, value in settings.items()}
        sweep = {name: fill_values(value, values) for name, value in stage.sweep.items()}
    except ValueError as error:
        found.append(str(error))
    problems += [f"{group}: {problem}" for problem in found]
    if found:
        return StageText("", {}, {})
    return StageText(
        stage.run, filled, {name: value if isinstance(value, list) else [value] for name, value in sweep.items()}
    )


def _not_to_be_set(names: Collection[str], kind: StageCommand) -> Iterator[str]:
    if kind.place in names:
        yield f"{kind.place} is not set here: what a stage leaves lies in OUTPUT_DIR/STAGE"
    if "overwrite" in names:
        yield "overwrite is not set here: `preflab run --overwrite` makes anew what has changed"


def _unknown_names(given: Iterable[Any], values: Collection[str], stages: Collection[str]) -> Iterator[str]:
    for name in (name for value in given for name in references(value)):
        if name not in values and name.removesuffix(".folder") not in stages:
            yield f"nothing is called {name}" + did_you_mean(name, [*values, *stages])


def _check_common(experiment: Experiment, kinds: Mapping[str, StageCommand], problems: list[str]) -> None:
    """Refuse settings for all stages that reach no stage: none has such a one, or all that do set their own."""
    stages = [stage for stage in experiment.stages.values() if stage.run in kinds]
    fields = [named_fields(kinds[stage.run].settings_class()) for stage in stages]
    known = {name for names in fields for name in names}
    for name in experiment.settings:
        having = [stage for stage, names in zip(stages, fields, strict=True) if name in names]
        if not having:
            problems.append(f"settings.{name}: no stage has such a setting" + did_you_mean(name, sorted(known)))
        elif all(name in {*stage.settings, *stage.sweep} for stage in having):
            problems.append(f"settings.{name}: is for no stage, as each that has such a setting sets its own")


def _needs(text: StageText) -> set[str]:
    return {stage for value in (*text.settings.values(), *text.sweep.values()) for stage in stages_in(value)}


# ---- instances -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    """A stage about to be planned, and where to say what is wrong with it."""

    group: str
    text: StageText
    kind: StageCommand
    experiment: Experiment
    problems: list[str]

    def place(self, setting: str) -> str:
        """Where a setting was given: "dpo.beta", "settings.seed, for dpo"."""
        if not setting:
            return self.group
        if setting in self.text.sweep:
            return f"{self.group}.sweep.{setting}"
        if setting in self.experiment.settings and setting not in self.experiment.stages[self.group].settings:
            return f"settings.{setting}, for {self.group}"
        return f"{self.group}.{setting}"


def _expand(
    draft: _Draft, instances: Mapping[str, Sequence[Instance]]
) -> Iterator[tuple[Instance, PlannedStage | None]]:
    """Every instance of a stage; without settings that can be used, others can still name it.

    A text makes an instance for each instance of a stage that it names. A list is given all that agree with the
    instance's own variant.
    """
    if (many := math.prod(len(values) for values in draft.text.sweep.values())) > MOST_STAGES:
        draft.problems.append(f"{draft.group}.sweep: makes {many} stages of one; {MOST_STAGES} are the most")
        return
    for own in crossed(draft.text.sweep):
        given = {**draft.text.settings, **own}
        variants: list[Variant] = [{name: shown(value) for name, value in own.items()}]
        for value in given.values():
            for stage in stages_in(value) if isinstance(value, str) else ():
                variants = joined(variants, [instance.variant for instance in instances[stage]])
        if not variants:
            draft.problems.append(f"{draft.group}: what it sweeps, and what the stages that it names sweep, never meet")
        for variant in variants:
            resolved: dict[str, Any] = {}
            meant: dict[str, None] = {}
            for name, value in given.items():
                found = _resolve(value, variant, instances)
                resolved[name] = found[0]
                meant |= dict.fromkeys(found[1])
            yield _instance(draft, variant, resolved, tuple(meant))


def _resolve(value: Any, variant: Variant, instances: Mapping[str, Sequence[Instance]]) -> tuple[Any, list[str]]:
    """A setting with the products of stages in it, and the names of these stages' instances."""
    texts = value if isinstance(value, list) else [value]
    found: list[tuple[Any, list[Instance]]] = []
    for text in texts:
        found += put_in(text, variant, instances) if isinstance(text, str) else [(text, [])]
    after = [instance.name for _, meant in found for instance in meant]
    parts = [part for part, _ in found]
    return (parts if isinstance(value, list) else parts[0]), after


def _instance(
    draft: _Draft, variant: Variant, resolved: dict[str, Any], after: tuple[str, ...]
) -> tuple[Instance, PlannedStage | None]:
    kind, name = draft.kind, name_of(draft.group, variant)
    settings_class = kind.settings_class()
    folder = draft.experiment.output_dir / name
    try:
        settings = settings_class.model_validate({**resolved, kind.place: folder / kind.file})
    except ValidationError as error:
        draft.problems.extend(explain(settings_class, error, draft.place))
        return Instance(name, variant, folder, folder), None
    made = folder / kind.product_of(settings)
    stage = PlannedStage(name, draft.group, draft.text.run, kind, settings, folder, after, variant)
    return Instance(name, variant, folder, made), stage


def _clashes(instances: Mapping[str, Sequence[Instance]]) -> Iterator[str]:
    """Names of stages that two have, or that a folder or a `name=` cannot have."""
    names = [instance.name for group in instances.values() for instance in group]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"stages: two would be called {name}; call one of them otherwise, or sweep values that differ in writing"
    for name in names:
        if not re.fullmatch(r"[\w.-]{1,100}", name):
            yield f"stages: {name} is too long for a name; give what is swept a shorter name in `values`"
