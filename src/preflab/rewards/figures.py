"""Figures of a reward model on preference data, and of its scores there beside those of generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preflab.page.marks import Values, bin_edges, edges_around_zero, histogram, legend_below, line_at
from preflab.page.style import BLUE, VERMILION, Panel, compose, looks, save_or_remove, shown
from preflab.stats.wording import exact_percent, number

ScoredRows = Sequence[Mapping[str, Any]]
"""Pairs of preference data, as rows with `score_chosen` and `score_rejected`."""

Parts = Mapping[str, ScoredRows]
"""Rows by the name of the data that they are from (train split and test split, say); none of them empty."""


def scores_of_role(rows: ScoredRows, role: str) -> Values:
    return np.array([row[f"score_{role}"] for row in rows], dtype=float)


def _named(title: str, name: str, rows: ScoredRows) -> str:
    return f"{' · '.join(filter(None, [title, shown(name)]))} ({len(rows):,} pairs)".strip()


def score_hist(parts: Parts, *, title: str = "", alongside: Parts | None = None) -> Figure:
    """`score_hist.png`: scores of chosen and rejected responses over each other, a panel for each part of the data.

    All panels share bins and axes, and so does the figure of the parts in `alongside`, drawn with these as its own
    `alongside`: the distributions before and after training compare by eye.
    """
    every = [*parts.values(), *(alongside or {}).values()]
    pooled = [scores_of_role(rows, side) for rows in every for side in ("chosen", "rejected")]
    edges = bin_edges(*pooled)
    highest = max(np.histogram(scores, edges)[0].max() / len(scores) for scores in pooled)

    def panel(name: str, rows: ScoredRows) -> Panel:
        def draw(axis: Axes) -> None:
            chosen, rejected = scores_of_role(rows, "chosen"), scores_of_role(rows, "rejected")
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
    deltas = {name: scores_of_role(rows, "chosen") - scores_of_role(rows, "rejected") for name, rows in parts.items()}
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


def draw_pairs(parts: Parts, *, delta: Path, scores: Path) -> None:
    """Write the two figures of preference data as a reward model scores it; no data, no figures."""
    save_or_remove(delta_hist(parts) if parts else None, delta)
    save_or_remove(score_hist(parts) if parts else None, scores)


def draw_training_of_reward_model(before: ScoredRows, after: ScoredRows, folder: Path) -> None:
    """Write `delta_hist.png` and `score_hist.png` of the trained model's scores of held-out pairs, and beside them
    `score_distribution-beforetrain.png` and `score_distribution-new.png`, which have the same axes.
    """
    untrained, trained = {"before training": before}, {"after training": after}
    draw_pairs({"": after}, delta=folder / "delta_hist.png", scores=folder / "score_hist.png")
    save_or_remove(score_hist(untrained, alongside=trained), folder / "score_distribution-beforetrain.png")
    save_or_remove(score_hist(trained, alongside=untrained), folder / "score_distribution-new.png")
