"""What an experiment's page shows of its stages: findings, comparisons, grids, frontiers, trainings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from preflab.experiment.figures import MOST_LINES, lines_of, training_panels
from preflab.experiment.rows import Experiment, PlanStage, Results, Training, swept
from preflab.page.cells import Cell, Table, estimate
from preflab.page.origins import runs_table
from preflab.page.style import Panel, as_svg, panels_as_svg
from preflab.stats.definitions import win_rate_head
from preflab.stats.results import Analysis, Contest, Finding, GridCell
from preflab.stats.study import Study
from preflab.stats.wording import NOTHING, capital, duration, exact_percent, listed, number, p_value, setting
from preflab.studies.compare.contest_figures import against_baseline, overview_panels
from preflab.studies.compare.sections import Figure, Section
from preflab.studies.frontier.figures import frontier_figures
from preflab.studies.frontier.findings import reading
from preflab.studies.frontier.rows import Frontier
from preflab.studies.grid.figures import step_panels, temperature_panels
from preflab.studies.grid.findings import grid_findings

FIRST_WORDS = 2  # findings of each stage on the first screen, where several stages have some
MOST_FIRST = 10  # findings on the first screen
LEADING = 4  # findings of a comparison; the others stand in its own report
LEADING_PANELS = 2  # of a comparison: win rates by the judges with the first word
MOST_DRAWN = 6  # comparisons of one sweep that are drawn, or that get words
MOST_ROWS = 16  # of a table that is not folded
MOST_UNFOLDED = 4  # figures of trainings that stand open


def first_findings(experiment: Experiment, results: Results) -> tuple[Finding, ...]:
    """The first screen: what the stages found, each in its leading sentences, and what is missing."""
    found = _findings(results)
    if len(found) == 1:
        leading = list(next(iter(found.values())))
    else:
        leading = [_named(name, said) for name, findings in found.items() for said in _first(findings, FIRST_WORDS)]
    told = leading[:MOST_FIRST]
    if len(leading) > len(told):
        told.append(Finding("More comparisons were made than can be told here; they stand below.", "neutral"))
    return (*told, *_missing(experiment, results))


def _first(findings: Sequence[Finding], count: int) -> Sequence[Finding]:
    """So many findings, with the warnings that stand before them and go with them."""
    before = next((number for number, found in enumerate(findings) if found.tone != "warning"), 0)
    return findings[: max(count, before + 1)]


def _findings(results: Results) -> dict[str, tuple[Finding, ...]]:
    """By stage."""
    found = {name: analysis.findings for name, (_, analysis) in results.studies.items()}
    found |= {name: grid_findings(cells) for name, cells in results.grids.items()}
    return found | {name: reading(frontier) for name, frontier in results.frontiers.items()}


def _named(name: str, finding: Finding) -> Finding:
    return Finding(f"{name}: {finding.text}", finding.tone)


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
    studies: dict[str, list[PlanStage]] = {}
    for stage in experiment.stages:
        if stage.name in results.studies:
            studies.setdefault(stage.group, []).append(stage)
    stages = experiment.stages
    found = [
        *(_comparisons(group, stages, experiment, results.studies) for group, stages in studies.items()),
        *(_grid(stage, results.grids[stage.name]) for stage in stages if stage.name in results.grids),
        *(_frontier(name, frontier) for name, frontier in results.frontiers.items()),
        _trainings(experiment, results.trainings),
    ]
    if len(_findings(results)) == 1:  # all of them stand on the first screen
        found = [replace(section, findings=()) for section in found]
    return tuple(section for section in found if not section.is_empty)


def anchor(kind: str, name: str) -> str:
    """An id for the page, of any name."""
    return f"{kind}-{quote(name, safe='').replace('%', '_')}"


def link(experiment: Experiment, path: Path) -> str:
    """The address of a file beside the page; empty where there is none."""
    if not path.exists():
        return ""
    return "./" + quote(Path(os.path.relpath(path, experiment.folder)).as_posix())


# ---- comparisons ---------------------------------------------------------------------------------------------------


def _comparisons(
    group: str,
    stages: Sequence[PlanStage],
    experiment: Experiment,
    studies: Mapping[str, tuple[Study, Analysis]],
) -> Section:
    """One comparison, or all that a sweep made of it."""
    alone = len(stages) == 1
    findings: list[Finding] = []
    figures: list[Figure] = []
    for stage in stages[:MOST_DRAWN]:
        study, analysis = studies[stage.name]
        leading = [_named(stage.name, found) for found in _first(analysis.findings, 1)]
        findings += analysis.findings[:LEADING] if alone else leading
        panels = overview_panels(study, analysis)[: min(len(against_baseline(study, analysis)), LEADING_PANELS)]
        if panels:
            drawn = panels_as_svg(panels, anchor("figure", stage.name))
            figures.append(Figure("" if alone else stage.name, drawn, unfolded=not figures))
    rows = [
        (_report_link(stage, experiment), *_contest_cells(contest))
        for stage in stages
        for contest in studies[stage.name][1].contests
        if contest.opponent == studies[stage.name][0].baseline
    ]
    told = [contest.definition for stage in stages for contest in studies[stage.name][1].contests]
    head = ("Report", "Model", "Judge", capital(win_rate_head(told)), "Sign test, p", "Win rate at equal lengths")
    note = "The first column leads to the comparison’s own report, with every case."
    table = Table("Against the baseline", head, tuple(rows), note, folded=len(rows) > MOST_ROWS)
    return Section(
        anchor("comparison", group),
        f"Comparison: {group}",
        (table,),
        figures=tuple(figures),
        findings=tuple(findings),
    )


def _report_link(stage: PlanStage, experiment: Experiment) -> Cell:
    return Cell(stage.name, _swept_words(stage), link(experiment, stage.folder / "report.html"))


def _swept_words(stage: PlanStage) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in stage.variant.items())


def _contest_cells(contest: Contest) -> tuple[Cell, ...]:
    return (
        Cell(contest.model, f"against {contest.opponent}"),
        Cell(contest.judge),
        estimate(contest.win_rate, exact_percent, with_n=True),
        Cell(p_value(contest.p_value)),
        estimate(contest.length_controlled, exact_percent),
    )


# ---- grids ---------------------------------------------------------------------------------------------------------


def _grid(stage: PlanStage, cells: Sequence[GridCell]) -> Section:
    drawn: list[Panel] = [*temperature_panels(cells), *step_panels(cells)]
    rows = tuple(
        (
            Cell(cell.model, "" if cell.step is None else f"step {cell.step:,}"),
            Cell(f"{cell.temperature:g}"),
            Cell(cell.judge, f"against {cell.opponent}"),
            estimate(cell.win_rate, exact_percent, with_n=True),
            *(Cell(f"{count:,}") for count in (cell.wins, cell.ties, cell.losses, cell.errors)),
            Cell(exact_percent(cell.empty)),
        )
        for cell in cells
    )
    rate = capital(win_rate_head(cell.definition for cell in cells))
    head = ("Model", "Temperature", "Judge", rate, "Wins", "Ties", "Losses", "Errors", "Empty responses")
    table = Table("Every cell", head, rows, folded=len(rows) > 2 * MOST_ROWS)
    note = ("The stage failed; these are the cells that were judged.",) if stage.status == "failed" else ()
    return Section(
        anchor("grid", stage.name),
        f"Grid: {stage.name}",
        (table,) if rows else (),
        figures=(Figure("", panels_as_svg(drawn, anchor("figure", stage.name))),) if drawn else (),
        remarks=note,
        findings=grid_findings(cells),
    )


# ---- frontiers -----------------------------------------------------------------------------------------------------


def _frontier(name: str, frontier: Frontier) -> Section:
    titles = {
        "frontier": "Gold reward against KL from the reference",
        "overoptimisation": "What the reward model sees, and what is true",
    }
    figures = tuple(
        Figure("", (as_svg(figure, title=titles[which], id=anchor(f"figure-{which}", name)),), wide=True)
        for which, figure in frontier_figures(frontier).items()
    )
    return Section(anchor("frontier", name), f"Frontier: {name}", figures=figures, findings=reading(frontier))


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
            Cell(run.stage.name, run.stage.command, href=link(experiment, run.stage.folder / "training_curves.png")),
            *(Cell(_plain(run.stage.variant.get(name))) for name in swept_names),
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


def _plain(value: object) -> str:
    if value is None:
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else setting(value)
