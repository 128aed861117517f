"""The rows of a grid -> its tables and figures; no model is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from preflab.core.results import Result, frame
from preflab.page.winrates import Row, flat, write_winrates
from preflab.stats.definitions import SHORT
from preflab.stats.wording import TONE_MARKS, interval, meanings, percent
from preflab.studies.grid.figures import draw_grid
from preflab.studies.grid.findings import grid_findings
from preflab.studies.grid.rows import GridCell, read_grid

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class GridResult(Result):
    """What a grid found, as `analysis/winrates.*` has it."""

    output_dir: Path
    cells: tuple[GridCell, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Win rates, a row for each cell, as in `winrates.csv`."""
        return frame(flat([grid_row(cell) for cell in self.cells]))

    def __str__(self) -> str:
        lines = [
            f"{cell.model} {'' if cell.step is None else f'step {cell.step} '}T={cell.temperature:g}: "
            + (
                f"{percent(cell.win_rate.value)} against {cell.opponent} ({interval(cell.win_rate)}, "
                f"{cell.win_rate.n} prompts), says {cell.judge}"
                if cell.win_rate
                else f"nothing judged, {cell.errors} errors"
            )
            for cell in self.cells
        ]
        said = [f"{TONE_MARKS.get(found.tone, ' ')} {found.text}" for found in grid_findings(self.cells)]
        lines += meanings(cell.definition for cell in self.cells)
        return "\n".join([*said, *lines, f"tables and figures: {self.output_dir / 'analysis'}"])


def report_grid(folder: Path) -> GridResult:
    """Tables and figures of a grid from its rows alone."""
    cells = read_grid(folder)
    if cells:
        write_winrates([grid_row(cell) for cell in cells], folder / "analysis")
        draw_grid(cells, folder / "analysis")
    return GridResult(folder, cells)


def grid_row(cell: GridCell) -> Row:
    """A cell of a grid as a line."""
    return {
        "judge": cell.judge,
        "model": cell.model,
        "step": cell.step,
        "temperature": cell.temperature,
        "opponent": cell.opponent,
        "wins": cell.wins,
        "ties": cell.ties,
        "losses": cell.losses,
        "errors": cell.errors,
        "win_rate": cell.win_rate,
        "definition": SHORT[cell.definition],
        "empty_responses": cell.empty,
        "prompts_trained_on": cell.trained_on.prompts if cell.trained_on else None,
    }
