"""The rows of a frontier -> its tables, figures and reading; no model is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preflab.core.results import Result
from preflab.core.terminal import status
from preflab.stats.results import Finding
from preflab.stats.wording import TONE_MARKS
from preflab.studies.frontier.figures import draw_frontier
from preflab.studies.frontier.findings import reading
from preflab.studies.frontier.rows import Frontier, read_frontier
from preflab.studies.frontier.tables import write_frontier_tables


@dataclass(frozen=True, repr=False)
class FrontierResult(Result):
    """What a frontier found, and its reading."""

    output_dir: Path
    frontier: Frontier
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        lines = [f"{TONE_MARKS.get(finding.tone, ' ')} {finding.text}" for finding in self.findings]
        return "\n".join([*lines, f"tables and figures: {self.output_dir / 'analysis'}"])


def report_frontier(folder: Path) -> FrontierResult:
    """Tables, figures and reading of a frontier from its rows alone."""
    frontier = read_frontier(folder)
    write_frontier_tables(frontier, folder / "analysis")
    with status("drawing figures"):
        draw_frontier(frontier, folder / "analysis")
    return FrontierResult(folder, frontier, reading(frontier))
