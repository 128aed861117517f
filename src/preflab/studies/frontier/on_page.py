"""A frontier on an experiment's page: its figures and its reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preflab.page.sections import Figure, Section, anchor
from preflab.page.style import as_svg
from preflab.studies.base import OnPage, Part
from preflab.studies.frontier.figures import frontier_figures
from preflab.studies.frontier.findings import reading
from preflab.studies.frontier.rows import read_frontier

TITLES = {
    "frontier": "Gold reward against KL from the reference",
    "overoptimisation": "What the reward model sees, and what is true",
}


def _sections(parts: Sequence[Part]) -> Iterator[Section]:
    for part in parts:
        figures = tuple(
            Figure("", (as_svg(figure, title=TITLES[which], id=anchor(f"figure-{which}", part.name)),), wide=True)
            for which, figure in frontier_figures(part.found).items()
        )
        name = part.name
        yield Section(anchor("frontier", name), f"Frontier: {name}", figures=figures, findings=reading(part.found))


ON_PAGE = OnPage(read_frontier, reading, _sections)
