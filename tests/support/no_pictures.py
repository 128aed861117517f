"""Studies without their pictures and pages, which take longer than all the rest."""

from __future__ import annotations

import pytest

DRAWN = (
    "preflab.studies.compare.report.draw_figures",
    "preflab.studies.grid.report.draw_grid",
    "preflab.studies.frontier.report.draw_frontier",
)
PAGE = "preflab.studies.compare.report.write_report"


def draw_nothing(patch: pytest.MonkeyPatch, *more: str) -> None:
    """No figures are drawn, nor is made what `more` names."""
    for place in (*DRAWN, *more):
        patch.setattr(place, lambda *_, **__: None)
