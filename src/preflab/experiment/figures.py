"""The courses of several trainings in one picture; runs that differ in their seed only make one line and a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from preflab.experiment.rows import Training
from preflab.page.marks import legend_below
from preflab.page.style import Panel, looks
from preflab.stats.wording import number, setting

MOST_LINES = 6
"""With more, no line could be followed."""

PANELS: Mapping[str, tuple[str, ...]] = {
    "loss": ("eval_loss", "loss"),
    "accuracy": ("eval_rewards/accuracies", "rewards/accuracies", "eval_accuracy", "accuracy"),
}
"""Title -> the metrics that it may show; the first that all runs have at several steps."""

Runs = Mapping[str, Sequence[Training]]
"""Label of a line -> the runs in it, which differ in their seed only."""

Point = tuple[int, float, float, float]
"""Step, mean over the runs, lowest and highest of them."""


def lines_of(trainings: Sequence[Training]) -> Runs:
    """Runs by what a sweep gave them, the seed aside; by the stage's name where nothing was swept."""
    groups = {training.stage.group for training in trainings}
    lines: dict[str, list[Training]] = {}
    for training in trainings:
        stage = training.stage
        swept = ", ".join(f"{name} {_short(value)}" for name, value in stage.variant.items() if name != "seed")
        parts = [stage.group] if len(groups) > 1 or not swept else []
        lines.setdefault(" · ".join([*parts, *([swept] if swept else [])]), []).append(training)
    return lines


def training_panels(trainings: Sequence[Training]) -> list[Panel]:
    """Loss and accuracy against the optimizer step, on held-out data where there is some; nothing for too many runs."""
    lines = lines_of(trainings)
    if not lines or len(lines) > MOST_LINES:
        return []
    panels = []
    for title, metrics in PANELS.items():
        metric = next((name for name in metrics if all(_drawable(training, name) for training in trainings)), None)
        if metric:
            where = "held-out data" if metric.startswith("eval_") else "training data"
            draw = partial(_draw, lines=lines, metric=metric)
            panels.append(Panel(f"{title}, {where}", draw, height=2.9 + 0.2 * (len(lines) // 2)))
    return panels


def _draw(axis: Axes, lines: Runs, metric: str) -> None:
    styles = looks(["", *lines])  # no run is the baseline, which is grey
    for name, runs in lines.items():
        look, points = styles[name], _mean(runs, metric)
        steps = [step for step, *_ in points]
        axis.plot(steps, [mean for _, mean, *_ in points], color=look.color, linestyle=look.line, label=name)
        if len(runs) > 1:
            low, high = [point[2] for point in points], [point[3] for point in points]
            axis.fill_between(steps, low, high, color=look.color, alpha=0.15, linewidth=0)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.ticklabel_format(axis="y", useOffset=False)
    if len(lines) > 1 or next(iter(lines)):
        legend_below(axis, columns=2)


def _mean(runs: Sequence[Training], metric: str) -> list[Point]:
    """The metric at the steps that all runs have it at."""
    values = [_values(training, metric) for training in runs]
    steps = sorted(set.intersection(*(set(own) for own in values)))
    at = {step: [own[step] for own in values] for step in steps}
    return [(step, sum(own) / len(own), min(own), max(own)) for step, own in at.items()]


def _values(training: Training, metric: str) -> dict[int, float]:
    return {int(row["step"]): float(row[metric]) for row in training.metrics if row.get(metric) is not None}


def _drawable(training: Training, metric: str) -> bool:
    return len(_values(training, metric)) > 2


def _short(value: object) -> str:
    return number(value) if isinstance(value, float) and not 0 < abs(value) < 0.01 else setting(value)
