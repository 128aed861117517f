"""Figures of a grid: win rate against temperature and against training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preflab.page.marks import PERCENT, name_ends
from preflab.page.style import INK, Panel, compose, looks, save_or_remove, shown
from preflab.stats.definitions import win_rate_head
from preflab.studies.grid.findings import Lines, step_lines, temperature_lines
from preflab.studies.grid.rows import GridCell


def winrate_vs_temperature(cells: Sequence[GridCell]) -> Figure | None:
    """`winrate_vs_temperature.png`: a line for each model and checkpoint, a panel for each judge.

    None where no judged cell has been sampled at a temperature beside another one.
    """
    panels = temperature_panels(cells)
    return compose(panels) if panels else None


def winrate_vs_step(cells: Sequence[GridCell]) -> Figure | None:
    """`winrate_vs_step.png`: a line for each temperature, a panel for each judge; None without several checkpoints."""
    panels = step_panels(cells)
    return compose(panels) if panels else None


def temperature_panels(cells: Sequence[GridCell]) -> list[Panel]:
    """The panels of `winrate_vs_temperature`."""
    return _panels(cells, temperature_lines, "temperature")


def step_panels(cells: Sequence[GridCell]) -> list[Panel]:
    """The panels of `winrate_vs_step`."""
    return _panels(cells, step_lines, "training step")


def _panels(cells: Sequence[GridCell], lines_of: Callable[[Sequence[GridCell]], Lines], label: str) -> list[Panel]:
    """A panel for each judge and opponent; none where all points are at one place."""
    matches = dict.fromkeys((cell.judge, cell.opponent) for cell in cells)
    drawn = {match: lines_of([cell for cell in cells if (cell.judge, cell.opponent) == match]) for match in matches}
    places = {place for lines in drawn.values() for points in lines.values() for place, _ in points}
    if len(places) < 2:
        return []
    rates = {judge: win_rate_head(cell.definition for cell in cells if cell.judge == judge) for judge, _ in drawn}
    return [_panel(*match, lines, label, rates[match[0]]) for match, lines in drawn.items() if lines]


def _panel(judge: str, opponent: str, lines: Lines, label: str, rate: str) -> Panel:
    styles = looks(["", *lines])

    def draw(axis: Axes) -> None:
        for name, points in lines.items():
            look, x = styles[name], [place for place, _ in points]
            values = [estimate.value for _, estimate in points]
            axis.plot(x, values, color=look.color, linestyle=look.line, marker=look.marker, markersize=5, label=name)
            low, high = [e.low for _, e in points], [e.high for _, e in points]
            axis.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
        axis.axhline(0.5, color=INK, linewidth=1.1)
        axis.set(xlabel=label, ylabel=f"{rate}, 95 % interval")
        axis.yaxis.set_major_formatter(PERCENT)
        ends = [(points[-1][0], points[-1][1].value, name) for name, points in lines.items()]
        name_ends(axis, ends, [styles[name].color for name in lines])

    return Panel(f"Against {shown(opponent, 16)}, {shown(judge, 18)} judging", draw)


def draw_grid(cells: Sequence[GridCell], folder: Path) -> None:
    """Write `winrate_vs_temperature.png` and `winrate_vs_step.png`, where there are several of these."""
    save_or_remove(winrate_vs_temperature(cells), folder / "winrate_vs_temperature.png")
    save_or_remove(winrate_vs_step(cells), folder / "winrate_vs_step.png")
