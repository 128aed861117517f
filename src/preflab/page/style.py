"""The look that all figures share, on paper and in the report.

A figure is drawn once, with the colours `INK`, `MUTED`, `GRID` and `PAPER` for everything that is not data. `save_png`
writes it as it is, on white. `as_svg` puts CSS variables in their place, so that the same picture follows the page's
light or dark mode. A model has its colour everywhere, and a marker and a kind of line besides: nothing is told by
colour alone.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from preflab.core.terminal import printable

INK, MUTED, GRID, PAPER = "#1b1c21", "#5d616b", "#d8dae1", "#fffffe"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)"}

# Okabe and Ito's colours, which colour-blind readers can tell apart, those first that stand out on white and on black.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#808289"

WIDTH = 4.2
"""Width of a panel in inches: its text can still be read where a phone shows it on 300 pixels."""

DPI = 120

STYLE: Any = {  # matplotlib's own type lists every one of its settings
    **{"font.family": ["DejaVu Sans"], "font.size": 9, "text.color": INK, "text.parse_math": False},
    **{"axes.titlesize": 10, "axes.labelsize": 9, "axes.labelcolor": INK, "axes.edgecolor": MUTED},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7},
    **{"xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK},
    **{"xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False},
    **{"figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "hatch.linewidth": 0.6},
    **{"lines.linewidth": 1.6, "svg.fonttype": "none", "svg.image_inline": True},
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one model is drawn in every figure."""

    color: str
    marker: str
    line: Any  # a line style of matplotlib


_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_MARKERS = ("o", "^", "D", "v", "P", "X", "*")
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)))


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each model in the order of the study; the first, the baseline, is grey."""
    others = {
        name: Look(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])
        for i, name in enumerate(names[1:])
    }
    return {names[0]: Look(GREY, "s", (0, (1, 1))), **others}


def shown(name: str, longest: int = 22) -> str:
    """A name as a label: on one line, without its middle if it is long, and never hidden for a leading underscore."""
    name = " ".join(printable(name).split())
    half = (longest - 1) // 2
    short = name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"
    return f" {short}" if short.startswith("_") else short


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture with one pair of axes. `title` is also what a screen reader says; `height` is in inches."""

    title: str
    draw: Callable[[Axes], None]
    height: float = 3.0


class Picture(Figure):
    """A figure that a notebook shows, also where pyplot is not in use."""

    @rc_context(STYLE)
    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, dpi=DPI, format="png")
        return buffer.getvalue()


@rc_context(STYLE)
def compose(panels: Sequence[Panel], *, columns: int = 2) -> Figure:
    """The panels side by side and below each other, in one figure."""
    columns = min(columns, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in line) for line in lines]
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Picture(figsize=(WIDTH * columns, sum(heights)), layout=layout)
    axes = list(figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights).flat)
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(panel.title)
        panel.draw(axis)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return figure


@rc_context(STYLE)
def save_png(figure: Figure, path: Path) -> None:
    """Write the figure on white; the old file or the whole new one is there, also after a kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=DPI, format="png")
    temporary.replace(path)


@rc_context(STYLE)
def as_svg(figure: Figure, *, title: str, id: str) -> str:  # noqa: A002 (the attribute's own name)
    """The figure as an `<svg>` element for a page: transparent, as wide as its place, in the page's font and colours.

    Args:
        title: what it shows, for readers who do not see it.
        id: of the element, unique in the page; the names inside begin with it, so that two pictures do not mix.
    """
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": id}):
        figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata={"Date": None})
    svg = buffer.getvalue()
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inside, flags=re.DOTALL)
    inside = re.sub(r"font-family: [^;\"]+", "font-family: inherit", inside)
    inside = re.sub(r"\n\s*", "\n", _own_ids(inside, id)).strip()
    for color, variable in VARIABLES.items():
        inside = inside.replace(color, variable)
    view = re.search(r'viewBox="[^"]+"', svg)
    assert view is not None, "matplotlib says how large its picture is"
    return (
        f'<svg id="{id}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {view[0]} '
        f'width="100%" role="img" aria-labelledby="{id}-title" style="stroke-linejoin: round; stroke-linecap: butt">\n'
        f'<title id="{id}-title">{html.escape(title)}</title>\n{inside}\n</svg>'
    )


def panels_as_svg(panels: Sequence[Panel], id: str) -> tuple[str, ...]:  # noqa: A002
    """Each panel as an `<svg>` element of its own, so that a page can place them beside or below each other."""
    return tuple(
        as_svg(compose([panel]), title=panel.title, id=f"{id}-{number}") for number, panel in enumerate(panels, start=1)
    )


def _own_ids(svg: str, prefix: str) -> str:
    """Names that something refers to get the prefix, the others go: nothing needs them."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)


def save_or_remove(figure: Figure | None, path: Path) -> None:
    """Write a figure as PNG; where there is nothing to show, one that an earlier run drew is removed."""
    if figure is None:
        path.unlink(missing_ok=True)
    else:
        save_png(figure, path)
