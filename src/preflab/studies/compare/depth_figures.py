"""Figures of a reward model's scores of generated text beside those of preference data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from preflab.page.marks import bin_edges, histogram, legend_below, line_at
from preflab.page.style import GREY, INK, Look, Panel, looks, shown
from preflab.rewards.figures import ScoredRows, scores_of_role
from preflab.stats.results import Analysis
from preflab.stats.study import Study
from preflab.stats.wording import percent
from preflab.studies.compare.depth import QUANTILES


def pairs_of(study: Study, scorer: str) -> ScoredRows:
    """The preference data of a study as a scorer sees them."""
    pairs = study.preference_data.get(scorer, ())
    return [{"score_chosen": pair.score_chosen, "score_rejected": pair.score_rejected} for pair in pairs]


def depth_panels(study: Study, analysis: Analysis) -> list[Panel]:
    """For each scorer with preference data: its scores of these (filled) and of what each model wrote (lines)."""
    styles = looks([player.name for player in study.models])
    return [_depth(study, found.scorer, (found.low, found.high), styles) for found in analysis.depth]


def _depth(study: Study, scorer: str, limits: tuple[float, float], styles: Mapping[str, Look]) -> Panel:
    rows = pairs_of(study, scorer)
    familiar = np.concatenate([scores_of_role(rows, "chosen"), scores_of_role(rows, "rejected")])
    generated = {
        name: np.array(
            [case.answers[name].scores[scorer] for case in study.cases if scorer in case.answers[name].scores]
        )
        for name in styles
    }
    generated = {name: scores for name, scores in generated.items() if len(scores)}
    edges = bin_edges(familiar, *generated.values())

    def draw(axis: Axes) -> None:
        histogram(axis, familiar, edges, share=True, color=GREY, label="preference data")
        for name, scores in generated.items():
            look = styles[name]
            line = look.line if name != study.baseline else "-"
            color = look.color if name != study.baseline else INK
            histogram(axis, scores, edges, share=True, fill=False, color=color, linestyle=line, label=shown(name))
        for limit, text in zip(limits, map(percent, QUANTILES), strict=True):
            line_at(axis, limit, text, line=":")
        axis.set(xlabel=f"score by {shown(scorer)}", ylabel="share of responses")
        axis.set_ylim(top=1.12 * axis.get_ylim()[1])
        legend_below(axis)

    return Panel(f"{shown(scorer)}: familiar and generated text", draw, height=3.3)
