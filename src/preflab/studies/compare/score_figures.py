"""Figures of two models' scores by one scorer: which cases differ, and how the scores are distributed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preflab.page.marks import (
    MANY,
    Values,
    edges_around_zero,
    faintness,
    histogram,
    line_at,
    muted_note,
)
from preflab.page.style import INK, MUTED, Look, Panel, compose, looks, shown
from preflab.stats.results import Analysis
from preflab.stats.study import Study
from preflab.stats.wording import number


def paired_scores(study: Study, scorer: str, model: str, opponent: str) -> tuple[Values, Values]:
    """[n], [n] the scores of both on every case where both have one."""
    answers = [
        (case.answers[model].scores.get(scorer), case.answers[opponent].scores.get(scorer)) for case in study.cases
    ]
    pairs = [pair for pair in answers if None not in pair]
    both = np.array(pairs, dtype=float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def score_comparison(study: Study, analysis: Analysis, model: str, scorer: str) -> Figure | None:
    """`dpo_score_comparison.png`: scatter with y = x, differences, both CDFs, box plots; None without scores."""
    panels = score_panels(study, analysis, model, scorer)
    return compose(panels) if panels else None


def score_panels(study: Study, analysis: Analysis, model: str, scorer: str) -> list[Panel]:
    """The four pictures of a model's scores against the baseline's; none where no case has both scores."""
    ours, theirs = paired_scores(study, scorer, model, study.baseline)
    if not len(ours):
        return []
    by_model = looks([player.name for player in study.models])
    base = study.baseline
    sides = {base: (theirs, by_model[base]), model: (ours, by_model[model])}
    met = analysis.contest(scorer, model, base)

    def scatter(axis: Axes) -> None:
        low, high = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
        margin = 0.14 * (high - low) or 0.5  # room for the two remarks in the corners
        axis.plot([low - margin, high + margin], [low - margin, high + margin], color=INK, linewidth=1.1, label="y = x")
        color = by_model[model].color
        axis.scatter(
            theirs, ours, s=12, alpha=faintness(len(ours)), linewidth=0, color=color, rasterized=len(ours) > MANY
        )
        axis.set(xlabel=f"score of {shown(base)}", ylabel=f"score of {shown(model)}")
        axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
        muted_note(axis, 0.03, 0.97, f"{shown(model, 18)} better", va="top")
        muted_note(axis, 0.97, 0.03, f"{shown(base, 18)} better", ha="right")

    def differences(axis: Axes) -> None:
        histogram(axis, ours - theirs, edges_around_zero(ours - theirs), color=by_model[model].color)
        line_at(axis, 0)
        if met and met.difference:
            line_at(axis, met.difference.value, f"mean {number(met.difference.value, signed=True)}", line="--")
        axis.set(xlabel=f"score of {shown(model, 16)} − {shown(base, 16)}", ylabel="cases")
        axis.set_ylim(top=1.12 * axis.get_ylim()[1])

    def distribution(axis: Axes) -> None:
        for name, (scores, look) in sides.items():
            axis.ecdf(scores, color=look.color, linestyle=look.line, label=shown(name))
        axis.set(xlabel=f"score by {shown(scorer)}", ylabel="share of cases up to it")
        axis.legend(loc="upper left")

    return [
        Panel(f"Each case by {shown(scorer)}", scatter),
        Panel("Difference of scores", differences),
        Panel("Scores, cumulated", distribution),
        Panel("Scores, quartiles", lambda axis: _boxes(axis, sides, scorer)),
    ]


def _boxes(axis: Axes, sides: Mapping[str, tuple[Values, Look]], scorer: str) -> None:
    drawn = axis.boxplot(
        [scores for scores, _ in sides.values()],
        widths=0.5,
        patch_artist=True,
        showmeans=True,
        medianprops={"color": INK, "linewidth": 1.6},
        meanprops={"marker": "D", "markerfacecolor": INK, "markeredgecolor": INK, "markersize": 5},
        whiskerprops={"color": MUTED},
        capprops={"color": MUTED},
        flierprops={"marker": ".", "markersize": 4, "markeredgecolor": MUTED},
    )
    for box, outliers, (scores, look) in zip(drawn["boxes"], drawn["fliers"], sides.values(), strict=True):
        box.set(facecolor=look.color, alpha=0.6, edgecolor=MUTED)
        outliers.set_rasterized(len(scores) > MANY)
    axis.set_xticks([1, 2], [shown(name, 18) for name in sides])
    axis.set_ylabel(f"score by {shown(scorer)}")
    axis.legend([drawn["medians"][0], drawn["means"][0]], ["median", "mean"])
    axis.grid(visible=False, axis="x")
