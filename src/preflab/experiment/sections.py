"""What an experiment's page shows of its stages: findings, studies, trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from preflab.core.durable import CURVES
from preflab.experiment.figures import MOST_LINES, lines_of, training_panels
from preflab.experiment.rows import Experiment, Results, Training, link, plain, swept
from preflab.page.cells import Cell, Table
from preflab.page.origins import runs_table
from preflab.page.sections import Figure, Section, anchor, leading, with_name
from preflab.page.style import panels_as_svg
from preflab.stats.results import Finding
from preflab.stats.wording import NOTHING, duration, exact_percent, listed, number

FIRST_WORDS = 2  # findings of each stage on the first screen, where several stages have some
MOST_FIRST = 10  # findings on the first screen
MOST_ROWS = 16  # of a table that is not folded
MOST_UNFOLDED = 4  # figures of trainings that stand open


def first_findings(experiment: Experiment, results: Results) -> tuple[Finding, ...]:
    """The first screen: what the stages found, each in its leading sentences, and what is missing."""
    found = _findings(results)
    if len(found) == 1:
        first = list(next(iter(found.values())))
    else:
        first = [with_name(name, said) for name, findings in found.items() for said in leading(findings, FIRST_WORDS)]
    told = first[:MOST_FIRST]
    if len(first) > len(told):
        told.append(Finding("More comparisons were made than can be told here; they stand below.", "neutral"))
    return (*told, *_missing(experiment, results))


def _findings(results: Results) -> dict[str, Sequence[Finding]]:
    """By stage."""
    return {part.name: shown.findings(part.found) for shown, parts in results.studies for part in parts}


def _missing(experiment: Experiment, results: Results) -> Iterator[Finding]:
    failed = [stage.name for stage in experiment.stages if stage.status == "failed"]
    waiting = [stage.name for stage in experiment.stages if stage.status in ("waiting", "running")]
    if failed:
        yield Finding(f"Failed: {_some(failed)}. The reasons stand at the end, under the plan.", "bad")
    if waiting:
        yield Finding(f"Not finished yet: {_some(waiting)}. This page tells of what is.", "warning")
    for name, reason in results.unreadable.items():
        yield Finding(f"{name} cannot be read, and is left out: {reason}", "bad")


def _some(names: Sequence[str], most: int = 6) -> str:
    return listed(names if len(names) <= most else [*names[:most], f"{len(names) - most} more"])


def sections(experiment: Experiment, results: Results) -> tuple[Section, ...]:
    """The sections before the plan that have something to show, in the order of the page."""
    found = [section for shown, parts in results.studies for section in shown.sections(parts)]
    found.append(_trainings(experiment, results.trainings))
    if len(_findings(results)) == 1:  # all of them stand on the first screen
        found = [replace(section, findings=()) for section in found]
    return tuple(section for section in found if not section.is_empty)


# ---- trainings -----------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "Loss": ("loss",),
    "Accuracy": ("rewards/accuracies", "accuracy"),
    "Margin": ("rewards/margins", "margin"),
}
"""Title of a column -> the metric in it; below it stands the same of held-out data."""

CHOSEN = "eval_logps/chosen"


def _trainings(experiment: Experiment, trainings: Sequence[Training]) -> Section:
    by_command: dict[str, list[Training]] = {}
    for training in trainings:
        by_command.setdefault(training.stage.command, []).append(training)
    drawn = {command: panels for command, runs in by_command.items() if (panels := training_panels(runs))}
    figures = tuple(
        Figure(command, panels_as_svg(panels, anchor("figure", command)), unfolded=len(drawn) <= MOST_UNFOLDED)
        for command, panels in drawn.items()
    )
    several = {command: runs for command, runs in by_command.items() if len(runs) > 1}
    alone = [runs[0] for runs in by_command.values() if len(runs) == 1]
    tables = [_training_table("One run each", alone, experiment)] if alone else []
    tables += [_training_table(f"{command}: {len(runs)} runs", runs, experiment) for command, runs in several.items()]
    if len(trainings) > 2 * MOST_ROWS:
        tables = [replace(table, folded=True) for table in tables]
    runs = {run.stage.name: run.as_run for run in trainings}
    if used := runs_table(runs, folded=len(trainings) > MOST_ROWS):
        tables.append(used)
    remarks = []
    if trainings:
        remarks.append("All values are the last ones. The name of a stage leads to its own curves.")
    if any(CHOSEN in run.last for run in trainings):
        remarks.append(
            "Where the log-probability of preferred responses falls while the loss does, too, the loss falls because "
            "the rejected ones fall faster, and probability moves to responses that nobody rated."
        )
    if any(len(lines_of(runs)) > MOST_LINES for runs in by_command.values()):
        remarks.append(
            f"Runs of one objective are drawn together where they make no more than {MOST_LINES} lines; those that "
            "differ in their seed only make one."
        )
    return Section("trainings", "Trainings", tuple(tables), figures=figures, remarks=tuple(remarks))


def _training_table(caption: str, runs: Sequence[Training], experiment: Experiment) -> Table:
    swept_names = swept([run.stage for run in runs])
    shown = {title: names for title, names in COLUMNS.items() if any(_metric(run, names) for run in runs)}
    has_chosen = any(run.change(CHOSEN) is not None for run in runs)
    head = ("Stage", *swept_names, "Steps", *shown, *(["Log-prob. of chosen, change"] if has_chosen else []), "Time")
    rows = tuple(
        (
            Cell(run.stage.name, run.stage.command, href=link(experiment, run.stage.folder / CURVES)),
            *(Cell(plain(run.stage.variant.get(name))) for name in swept_names),
            Cell(f"{run.steps:,}"),
            *(_metric_cell(run, names) for names in shown.values()),
            *([_chosen_cell(run)] if has_chosen else []),
            Cell(NOTHING if run.stage.seconds is None else duration(run.stage.seconds)),
        )
        for run in runs
    )
    return Table(caption, head, rows, folded=len(rows) > MOST_ROWS)


def _metric(run: Training, names: Sequence[str]) -> str | None:
    """The first of these metrics that the run has."""
    return next((name for name in names if name in run.last or f"eval_{name}" in run.last), None)


def _metric_cell(run: Training, names: Sequence[str]) -> Cell:
    name = _metric(run, names)
    if name is None:
        return Cell(NOTHING)
    form = exact_percent if name.endswith(("accuracies", "accuracy")) else number
    held_out = run.last.get(f"eval_{name}")
    return Cell(form(run.last.get(name)), "" if held_out is None else f"held-out {form(held_out)}")


def _chosen_cell(run: Training) -> Cell:
    change = run.change(CHOSEN)
    if change is None:
        return Cell(NOTHING)
    return Cell(number(change, signed=True), f"to {number(run.last[CHOSEN])}, held-out")
