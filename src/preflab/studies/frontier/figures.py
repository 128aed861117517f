"""Figures of a frontier: gold reward against KL, and over-optimisation; a small picture for each objective.

frontier.png            gold reward against KL: the objective, and in grey best-of-n and the yardstick of all
overoptimisation.png    gold reward and the reward model's score against KL, as gains over the reference
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from preflab.page.style import BLUE, GREY, INK, STYLE, VERMILION, WIDTH, Panel, save_png, shown
from preflab.studies.frontier.findings import BEST_OF_N, yardstick_of
from preflab.studies.frontier.rows import Curve, Frontier, best_of_n, curves

COLUMNS = 4
HEIGHT = 1.75
"""Inches of one of the small pictures; four of them side by side are as wide as two panels of other figures."""

LEAST_KL = 0.05
"""Where the axis begins at the latest: what is nearer to the reference is the reference."""


def draw_frontier(frontier: Frontier, folder: Path) -> None:
    """Write `frontier.png` and `overoptimisation.png`; without gold, the latter alone, with the proxy alone."""
    figures = frontier_figures(frontier)
    for name in ("frontier", "overoptimisation"):
        if name in figures:
            save_png(figures[name], folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)


def frontier_figures(frontier: Frontier) -> dict[str, Figure]:
    """The figures of `draw_frontier` by the names of their files, each two panels wide."""
    panels = {"frontier": frontier_panels(frontier), "overoptimisation": gain_panels(frontier)}
    return {name: _small_multiples(own) for name, own in panels.items() if own}


def frontier_panels(frontier: Frontier) -> list[Panel]:
    """Gold reward against KL, a panel for each objective; nothing where gold is not known."""
    if not frontier.has_gold:
        return []
    found, others = curves(frontier), {BEST_OF_N: best_of_n(frontier)}
    yardstick = yardstick_of(found)
    others[yardstick] = found[yardstick]
    limits = _limits([*found.values(), others[BEST_OF_N]])
    return [
        Panel(
            shown(name),
            partial(
                _draw_gold,
                curve=curve,
                others={other: line for other, line in others.items() if other != name},
                limits=limits,
            ),
            height=HEIGHT,
        )
        for name, curve in found.items()
    ]


def gain_panels(frontier: Frontier) -> list[Panel]:
    """What gold and proxy gain over the reference against KL, in standard deviations of the reference's responses: a
    panel for best-of-n and each objective.
    """
    found = {BEST_OF_N: best_of_n(frontier), **curves(frontier)}
    measures = ("gold", "proxy") if frontier.has_gold else ("proxy",)
    start = {measure: found[BEST_OF_N][0].mean(measure) for measure in measures}
    low, high = _limits(list(found.values()))
    return [
        Panel(
            shown(name),
            partial(_draw_gains, curve=curve, start=start, spread=frontier.spread, limits=(low, high)),
            height=HEIGHT,
        )
        for name, curve in found.items()
    ]


# ---- one picture -----------------------------------------------------------------------------------------------------


def _draw_gold(axis: Axes, *, curve: Curve, others: Mapping[str, Curve], limits: tuple[float, float]) -> None:
    _kl_axis(axis, limits)
    start = others[BEST_OF_N][0].mean("gold")
    axis.axhline(start, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="the reference")
    for (other, line), style in zip(others.items(), ("-", "--"), strict=False):
        x, y, _, _ = _line(line, "gold")
        axis.plot(
            x,
            y,
            color=GREY,
            linewidth=1.3,
            linestyle=style,
            label="best-of-n, at the bound of its KL" if other == BEST_OF_N else shown(other),
        )
    x, y, low, high = _line(curve, "gold")
    several = low != high
    if several:
        axis.fill_between(x, low, high, color=BLUE, alpha=0.2, linewidth=0, label="lowest to highest seed")
    label = "the objective, mean over seeds" if several else "the objective"
    axis.plot(x, y, color=BLUE, marker="o", markersize=4, label=label)
    axis.set_ylabel("gold reward")


def _draw_gains(
    axis: Axes, *, curve: Curve, start: Mapping[str, float], spread: Mapping[str, float], limits: tuple[float, float]
) -> None:
    _kl_axis(axis, limits)
    axis.axhline(0, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="the reference")
    looks = {"gold": (BLUE, "o", "-", "gold reward"), "proxy": (VERMILION, "^", "--", "reward model's score")}
    for measure, first in start.items():
        color, marker, line, label = looks[measure]
        x, *values = _line(curve, measure)
        y, low, high = ((np.asarray(value) - first) / (spread[measure] or 1.0) for value in values)
        axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(x, y, color=color, marker=marker, markersize=4, linestyle=line, label=label)
    axis.set_ylabel("gain, SD")


def _line(curve: Curve, measure: str) -> tuple[list[float], list[float], list[float], list[float]]:
    """KL, mean, lowest and highest seed of each point; what lies at the reference itself is left out."""
    points = [point for point in curve if point.mean("kl") > 0]
    by_seed = [point.by_seed(measure) for point in points]
    return (
        [point.mean("kl") for point in points],
        [float(seeds.mean()) for seeds in by_seed],
        [float(seeds.min()) for seeds in by_seed],
        [float(seeds.max()) for seeds in by_seed],
    )


def _limits(found: Sequence[Curve]) -> tuple[float, float]:
    """Of the KL axis that all pictures share."""
    kls = [kl for curve in found for point in curve if (kl := point.mean("kl")) > 0]
    return max(min(kls, default=1.0), LEAST_KL) / 1.3, max(kls, default=1.0) * 1.3


def _kl_axis(axis: Axes, limits: tuple[float, float]) -> None:
    axis.set_xscale("log")
    axis.set_xlim(limits)
    decades = math.log10(limits[1] / limits[0])
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda kl, _: f"{kl:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlabel("KL from the reference in nats")


# ---- all of them -----------------------------------------------------------------------------------------------------


@rc_context(STYLE)
def _small_multiples(panels: Sequence[Panel]) -> Figure:
    """The pictures in rows with one pair of axes' labels and one legend for all."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2 * WIDTH, HEIGHT * rows + 0.7), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    handles: dict[str, Artist] = {}
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=False)):
        panel.draw(axis)
        axis.set_title(panel.title)
        x_label, y_label = axis.get_xlabel(), axis.get_ylabel()
        axis.set(xlabel="", ylabel="")
        axis.tick_params(labelbottom=place + columns >= len(panels))
        artists, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, artists, strict=True))
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel(x_label, fontsize=9, color=INK)
    figure.supylabel(y_label, fontsize=9, color=INK)
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=min(5, len(handles)))
    return figure
