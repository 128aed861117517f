"""Marks that several figures are made of: histograms, dots with intervals, lines with their names at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from preflab.page.style import INK, MUTED, PAPER, Look, shown
from preflab.stats.results import Estimate
from preflab.stats.wording import UNIT, exact_percent, number

Values = NDArray[np.float64]

PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g}{UNIT}")
MANY = 400
"""From so many points on a scatter is embedded as an image, or the report would grow by 100 bytes a point."""


def faintness(points: int) -> float:
    """Opacity of the points of a scatter: where there are many, darker places are where more of them lie."""
    return 0.8 if points < 60 else 0.5


# ---- histograms ----------------------------------------------------------------------------------------------------


def bin_edges(*values: Sequence[float] | Values) -> Values:
    """Edges of equal bins over all values together, as many as suit the smallest group; also for equal values."""
    everything = np.concatenate([np.asarray(group, dtype=float) for group in values])
    low, high = everything.min(), everything.max()
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # equal but for rounding, which no bin could resolve
        low, high = low - 0.5, high + 0.5
    edges: Values = np.linspace(low, high, int(np.clip(np.sqrt(min(map(len, values))), 8, 40)) + 1)
    return edges


def edges_around_zero(*values: Sequence[float] | Values) -> Values:
    """Equal bins with zero in the middle of one: ties stand on the zero line, not on the side of the wins."""
    edges = bin_edges(*values)
    width = edges[1] - edges[0]
    first, last = np.floor(edges[0] / width + 0.5), np.ceil(edges[-1] / width - 0.5)
    around: Values = (np.arange(first, last + 2) - 0.5) * width
    return around


def histogram(
    axis: Axes, values: Sequence[float] | Values, edges: Values, *, share: bool = False, **style: Any
) -> None:
    """Steps over the number (or share) of values in each bin. Style: color, label, and fill or a line style."""
    counts = np.histogram(values, edges)[0]
    heights = counts / max(len(values), 1) if share else counts
    if not share:
        axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    filled = style.pop("fill", True)
    if filled:
        axis.stairs(heights, edges, fill=True, alpha=0.55, **style)
    else:
        axis.stairs(heights, edges, linewidth=1.6, **style)


def line_at(axis: Axes, position: float, text: str = "", *, line: Any = "-", color: str = INK) -> None:
    """A vertical line that a reader is to compare with, named at its top where there is a text."""
    axis.axvline(position, color=color, linewidth=1.1, linestyle=line, label="_nolegend_")
    if text:
        axis.annotate(
            text,
            (position, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=color,
            bbox={"facecolor": PAPER, "alpha": 0.75, "edgecolor": "none", "pad": 0.5},
        )


# ---- dots ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dot:
    """A figure with its interval; hollow where it is a second reading of the same thing."""

    estimate: Estimate
    look: Look
    label: str = ""
    hollow: bool = False


DotRows = Mapping[str, Sequence[Dot]]


def rows_height(rows: DotRows) -> float:
    """Inches that `dot_rows` needs, with title, axis and legend."""
    return 1.25 + sum(0.1 + 0.19 * max(len(dots), 1) for dots in rows.values())


def dot_rows(axis: Axes, rows: DotRows, *, percent: bool = True, reference: float | None = None) -> None:
    """Names from top to bottom, beside each its dots with their intervals, and the values at the right edge.

    Rates (`percent`) begin at 0; with a `reference` to compare them with they also end at 1, so that no panel makes
    a small difference look larger than another one does.
    """
    y, ticks = 0.0, []
    for dots in rows.values():
        ticks.append(y + (len(dots) - 1) / 2)
        for dot in dots:
            _dot(axis, dot, y)
            value = exact_percent(dot.estimate.value) if percent else number(dot.estimate.value)
            axis.text(1.03, y, value, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
            y += 1
        y += 0.5
    axis.set_yticks(ticks, [shown(name) for name in rows])
    axis.set_ylim(y - 0.8, -0.7)
    axis.tick_params(axis="y", length=0, pad=7)
    axis.grid(visible=False, axis="y")
    if percent:
        axis.xaxis.set_major_formatter(PERCENT)
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axis.set_xlim(left=0)
    if reference is not None:
        axis.axvline(reference, color=INK, linewidth=1.1)
        axis.set_xlim(0, 1)
    legend_below(axis)


def _dot(axis: Axes, dot: Dot, y: float) -> None:
    estimate, look = dot.estimate, dot.look
    face = PAPER if dot.hollow else look.color
    axis.hlines(y, estimate.low, estimate.high, color=look.color, linewidth=1.2 if dot.hollow else 2)
    style: dict[str, Any] = {"color": look.color, "markerfacecolor": face, "clip_on": False, "zorder": 3}
    axis.plot(estimate.value, y, look.marker, label=dot.label or None, **style)


def legend_below(axis: Axes, *, columns: int = 3) -> None:
    """A legend of the labelled artists, each label once, under the axis' own label; none where nothing is labelled."""
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if not once:
        return
    under = axis.transAxes + ScaledTranslation(0, -0.42, axis.figure.dpi_scale_trans)
    legend = axis.legend(
        list(once.values()),
        list(once),
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=under,
        ncols=min(columns, len(once)),
        borderaxespad=0,
        handletextpad=0.4,
        columnspacing=1.2,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):  # of a scatter, whose single points are faint
            handle.set_alpha(1)


# ---- lines ---------------------------------------------------------------------------------------------------------


def name_ends(axis: Axes, ends: Sequence[tuple[float, float, str]], colors: Sequence[str]) -> None:
    """Names of lines beside their right ends, given as (x, y, name), pushed apart so that none covers another."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    room, place = 0.07 * (high - low), -np.inf
    for (x, y, name), color in sorted(zip(ends, colors, strict=True), key=lambda end: end[0][1]):
        place = max(y, place + room)
        axis.annotate(
            shown(name),
            (x, y),
            xytext=(right + 0.02 * (right - left), place),
            va="center",
            fontsize=8,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 4},
        )


def muted_note(axis: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """A remark inside the axes, at fractions of their width and height."""
    axis.text(x, y, text, transform=axis.transAxes, color=MUTED, fontsize=8, **style)
