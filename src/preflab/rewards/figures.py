"""Figures of a reward model on preference data, and of its scores there beside those of generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preflab.studies.compare.depth import QUANTILES
from preflab.stats.results import Analysis
from preflab.stats.study import Study
from preflab.stats.wording import exact_percent, number, percent
from preflab.page.marks import Values, bin_edges, edges_around_zero, histogram, legend_below, line_at
from preflab.page.style import BLUE, GREY, INK, VERMILION, Look, Panel, compose, looks, shown

ScoredRows = Sequence[Mapping[str, Any]]
"""Pairs of preference data, as rows with `score_chosen` and `score_rejected`."""

Parts = Mapping[str, ScoredRows]
"""Rows by the name of the data that they are from (train split and test split, say); none of them empty."""


def _scores(rows: ScoredRows, side: str) -> Values:
    return np.array([row[f"score_{side}"] for row in rows], dtype=float)


def _named(title: str, name: str, rows: ScoredRows) -> str:
    return f"{' · '.join(filter(None, [title, shown(name)]))} ({len(rows):,} pairs)".strip()


def score_hist(parts: Parts, *, title: str = "", alongside: Parts | None = None) -> Figure:
    """`score_hist.png`: scores of chosen and rejected responses over each other, a panel for each part of the data.

    All panels share bins and axes, and so does the figure of the parts in `alongside`, drawn with these as its own
    `alongside`: the distributions before and after training compare by eye.
    """
    every = [*parts.values(), *(alongside or {}).values()]
    pooled = [_scores(rows, side) for rows in every for side in ("chosen", "rejected")]
    edges = bin_edges(*pooled)
    highest = max(np.histogram(scores, edges)[0].max() / len(scores) for scores in pooled)

    def panel(name: str, rows: ScoredRows) -> Panel:
        def draw(axis: Axes) -> None:
            chosen, rejected = _scores(rows, "chosen"), _scores(rows, "rejected")
            histogram(axis, chosen, edges, share=True, color=BLUE, label="chosen")
            histogram(axis, rejected, edges, share=True, fill=False, color=VERMILION, label="rejected")
            axis.axvline(chosen.mean(), color=BLUE, linestyle="--", label="mean of chosen")
            axis.axvline(rejected.mean(), color=VERMILION, linestyle=":", label="mean of rejected")
            axis.set(xlabel="score", ylabel="share of responses", ylim=(0, 1.08 * highest))
            legend_below(axis, columns=2)

        return Panel(_named(title or "Scores", name, rows), draw, height=3.4)

    return compose([panel(name, rows) for name, rows in parts.items()])


def delta_hist(parts: Parts, *, title: str = "") -> Figure:
    """`delta_hist.png`: score of the chosen response − score of the rejected one, all parts over each other."""
    deltas = {name: _scores(rows, "chosen") - _scores(rows, "rejected") for name, rows in parts.items()}
    edges = edges_around_zero(*deltas.values())
    styles = looks(["", *deltas])

    def draw(axis: Axes) -> None:
        for place, (name, delta) in enumerate(deltas.items()):
            look = styles[name]
            figures = f"{exact_percent(float(np.mean(delta > 0)))} above 0, mean {number(delta.mean(), signed=True)}"
            style: dict[str, Any] = {"fill": True} if place == 0 else {"fill": False, "linestyle": look.line}
            label = ": ".join(filter(None, [shown(name), figures]))
            histogram(axis, delta, edges, share=True, color=look.color, label=label, **style)
        line_at(axis, 0)
        axis.set(xlabel="score of chosen − score of rejected", ylabel="share of pairs")
        legend_below(axis, columns=1)

    pairs = sum(map(len, parts.values()))
    return compose([Panel(f"{title or 'Chosen − rejected'} ({pairs:,} pairs)", draw, height=3.1 + 0.15 * len(parts))])


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
    familiar = np.concatenate([_scores(rows, "chosen"), _scores(rows, "rejected")])
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
