"""A grid on an experiment's page: its figure and every cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preflab.page.cells import Cell, Table, estimate
from preflab.page.sections import Figure, Section, anchor
from preflab.page.style import Panel, panels_as_svg
from preflab.stats.definitions import win_rate_head
from preflab.stats.wording import capital, exact_percent
from preflab.studies.base import OnPage, Part
from preflab.studies.grid.figures import step_panels, temperature_panels
from preflab.studies.grid.findings import grid_findings
from preflab.studies.grid.rows import GridCell, read_grid

MOST_ROWS = 32  # of a table that is not folded


def _sections(parts: Sequence[Part]) -> Iterator[Section]:
    for part in parts:
        cells: Sequence[GridCell] = part.found
        drawn: list[Panel] = [*temperature_panels(cells), *step_panels(cells)]
        rows = tuple(map(_row, cells))
        rate = capital(win_rate_head(cell.definition for cell in cells))
        head = ("Model", "Temperature", "Judge", rate, "Wins", "Ties", "Losses", "Errors", "Empty responses")
        yield Section(
            anchor("grid", part.name),
            f"Grid: {part.name}",
            (Table("Every cell", head, rows, folded=len(rows) > MOST_ROWS),) if rows else (),
            figures=(Figure("", panels_as_svg(drawn, anchor("figure", part.name))),) if drawn else (),
            remarks=("The stage failed; these are the cells that were judged.",) if part.failed else (),
            findings=grid_findings(cells),
        )


def _row(cell: GridCell) -> tuple[Cell, ...]:
    return (
        Cell(cell.model, "" if cell.step is None else f"step {cell.step:,}"),
        Cell(f"{cell.temperature:g}"),
        Cell(cell.judge, f"against {cell.opponent}"),
        estimate(cell.win_rate, exact_percent, with_n=True),
        *(Cell(f"{count:,}") for count in (cell.wins, cell.ties, cell.losses, cell.errors)),
        Cell(exact_percent(cell.empty)),
    )


ON_PAGE = OnPage(read_grid, grid_findings, _sections, when_failed=True)
