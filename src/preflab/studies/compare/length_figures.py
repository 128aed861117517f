"""Figures of response lengths, in words, and of what they have to do with scores and wins."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preflab.page.marks import (
    MANY,
    PERCENT,
    Dot,
    Values,
    dot_rows,
    edges_around_zero,
    faintness,
    histogram,
    legend_below,
    line_at,
    rows_height,
)
from preflab.page.style import INK, Panel, compose, looks, shown
from preflab.stats.definitions import win_rate_head
from preflab.stats.results import Analysis, Contest, ModelFigures
from preflab.stats.study import Study
from preflab.stats.wording import number


def length_analysis(study: Study, analysis: Analysis, model: str) -> Figure:
    """`response_length_analysis.png`: lengths, their difference, length against score, wins by difference of length."""
    return compose(length_panels(study, analysis, model))


def length_panels(study: Study, analysis: Analysis, model: str) -> list[Panel]:
    """What lengths have to do with it: for all models their means, for `model` the rest, as far as there are judges."""
    difference = lengths(study, model) - lengths(study, study.baseline)
    scorer = study.scorers[0].name if study.scorers else None
    panels = [_means(study, analysis), _difference(study, analysis, model, difference)]
    if scorer:
        panels.append(_against_score(study, analysis, model, scorer))
    if study.judges and (contest := analysis.contest(study.judges[0].name, model, study.baseline)):
        panels.append(_wins(study, contest))
    return panels


def lengths(study: Study, model: str) -> Values:
    """[cases] the number of words of a model's responses."""
    return np.array([case.answers[model].words for case in study.cases], dtype=float)


def _means(study: Study, analysis: Analysis) -> Panel:
    styles = looks([player.name for player in study.models])
    rows = {figures.name: [Dot(figures.words, styles[figures.name])] for figures in analysis.models}

    def draw(axis: Axes) -> None:
        dot_rows(axis, rows, percent=False)
        axis.set_xlabel("words in a response, mean and 95 % interval")

    return Panel("Mean length", draw, height=max(rows_height(rows), 1.8))


def _difference(study: Study, analysis: Analysis, model: str, difference: Values) -> Panel:
    """The differences of the cases; their mean is that of the prompts, as in the table."""
    words = {figures.name: figures.words.value for figures in analysis.models}
    mean = words[model] - words[study.baseline]
    color = looks([player.name for player in study.models])[model].color

    def draw(axis: Axes) -> None:
        histogram(axis, difference, edges_around_zero(difference), color=color)
        line_at(axis, 0)
        line_at(axis, mean, f"mean {number(mean, signed=True)}", line="--")
        axis.set(xlabel=f"words of {shown(model, 16)} − {shown(study.baseline, 16)}", ylabel="cases")
        axis.set_ylim(top=1.12 * axis.get_ylim()[1])

    return Panel("Difference of length", draw)


def _against_score(study: Study, analysis: Analysis, model: str, scorer: str) -> Panel:
    styles = looks([player.name for player in study.models])
    figures: Mapping[str, ModelFigures] = {figures.name: figures for figures in analysis.models}

    def draw(axis: Axes) -> None:
        for name in (study.baseline, model):
            scores = np.array([case.answers[name].scores.get(scorer, np.nan) for case in study.cases])
            found = figures[name].scores.get(scorer)
            r = None if found is None else found.length_pearson
            axis.scatter(
                lengths(study, name),
                scores,
                s=11,
                alpha=faintness(len(scores)),
                linewidth=0,
                color=styles[name].color,
                marker=styles[name].marker,
                label=f"{shown(name, 18)}, r = {number(r)}",
                rasterized=len(scores) > MANY,
            )
        axis.set(xlabel="words in the response", ylabel=f"score by {shown(scorer)}")
        legend_below(axis)

    return Panel("Length and score", draw, height=3.2)


def _wins(study: Study, contest: Contest) -> Panel:
    rates = contest.by_length

    def draw(axis: Axes) -> None:
        color = looks([player.name for player in study.models])[contest.model].color
        for place, estimate in enumerate(rates.values()):
            axis.vlines(place, estimate.low, estimate.high, color=color, linewidth=2)
            axis.plot(place, estimate.value, "o", color=color)
        axis.axhline(0.5, color=INK, linewidth=1.1)
        labels = [f"{name}\nn = {estimate.n:,}" for name, estimate in rates.items()]
        axis.set_xticks(range(len(rates)), labels)
        rate = win_rate_head([contest.definition])
        axis.set(ylim=(-0.03, 1.03), ylabel=rate, xlabel=f"words more than {shown(study.baseline)}")
        axis.yaxis.set_major_formatter(PERCENT)
        axis.grid(visible=False, axis="x")

    return Panel(f"Wins by length, {shown(contest.judge, 18)} judging", draw)
