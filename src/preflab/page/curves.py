"""Training curves from the lines of metrics.jsonl. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preflab.page.marks import legend_below
from preflab.page.style import BLUE, VERMILION, Panel, compose, save_png
from preflab.stats.definitions import STD_SHORT

PANELS: Mapping[str, tuple[str, ...]] = {
    "loss": ("loss", "eval_loss"),
    "accuracy": ("accuracy", "eval_accuracy"),
    "reward accuracy": ("rewards/accuracies", "eval_rewards/accuracies"),
    "implicit rewards": ("rewards/chosen", "rewards/rejected", "eval_rewards/chosen", "eval_rewards/rejected"),
    "margin": ("margin", "eval_margin", "rewards/margins", "eval_rewards/margins"),
    "log-probabilities of responses": ("logps/chosen", "logps/rejected", "eval_logps/chosen", "eval_logps/rejected"),
    "reward, mean": ("reward_mean", "eval_reward_mean"),
    f"reward, {STD_SHORT}": ("reward_std", "eval_reward_std"),
    "learning rate": ("learning_rate",),
    "gradient norm": ("grad_norm",),
}
"""Title of a panel -> the metrics in it; panels without any are left out."""


_LINES = {(False, False): "-", (False, True): ":", (True, False): "--", (True, True): "-."}
"""(on held-out data, of rejected responses) -> line"""


def draw_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the figure of `curves`; nothing where no row has a metric that belongs in a panel."""
    if figure := curves(rows):
        save_png(figure, path)


def curves(rows: Sequence[Mapping[str, float]]) -> Figure | None:
    """The panels of `curve_panels` in one figure; None where there is none."""
    panels = curve_panels(rows)
    return compose(panels, columns=3) if panels else None


def curve_panels(rows: Sequence[Mapping[str, float]]) -> list[Panel]:
    """Every metric against the optimizer step: on training data a line, on held-out data a dashed one with markers."""
    there = {name for row in rows for name, value in row.items() if value is not None}
    panels = {title: [metric for metric in metrics if metric in there] for title, metrics in PANELS.items()}
    return [Panel(title, partial(_draw, rows=rows, metrics=metrics)) for title, metrics in panels.items() if metrics]


def _draw(axis: Axes, rows: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> None:
    for metric in metrics:
        points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
        held_out, rejected = metric.startswith("eval_"), "rejected" in metric
        axis.plot(
            *zip(*points, strict=True),
            label=metric,
            color=VERMILION if rejected else BLUE,
            linestyle=_LINES[held_out, rejected],
            marker=("s" if rejected else "o") if held_out or len(points) == 1 else None,
            markersize=3,
        )
    axis.set_xlabel("step")
    if len(metrics) > 1:
        legend_below(axis, columns=2)
