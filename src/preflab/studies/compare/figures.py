"""All figures of a study: as PNG files with the names that users of these workflows know, and as SVG for the report.

model_comparison.png              win rates against the baseline by judge, mean scores
dpo_score_comparison.png          the last model of the study against the baseline, by the first scorer
dpo_score_comparison-MODEL-SCORER.png     every other model and scorer
response_length_analysis.png      the last model; response_length_analysis-MODEL.png the others
delta_hist.png, score_hist.png    preference data by the first scorer; delta_hist-SCORER.png, … by the others
reward_model_depth.png            scores of preference data beside those of generated text
judge_agreement.png, flip_rates.png, winrate_by_subset.png, diversity.png
training_curves-MODEL.png
score_distribution-beforetrain.png, score_distribution-new.png   of a reward model's training
winrate_vs_temperature.png, winrate_vs_step.png   of a grid
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from preflab.page.curves import curve_panels, curves
from preflab.page.style import Panel, compose, panels_as_svg, save_or_remove
from preflab.rewards.figures import delta_hist, score_hist
from preflab.stats.results import Analysis
from preflab.stats.study import Study
from preflab.studies.compare.contest_figures import (
    against_baseline,
    agreement_panels,
    diversity_panels,
    flip_panels,
    overview_panels,
    subset_panels,
)
from preflab.studies.compare.depth_figures import depth_panels, pairs_of
from preflab.studies.compare.length_figures import length_analysis, length_panels
from preflab.studies.compare.score_figures import score_comparison, score_panels


def draw_figures(study: Study, analysis: Analysis, folder: Path) -> None:
    """Write every figure that the rows allow into `folder`; one that does not apply is removed, if it is there."""
    for name, figure in _figures(study, analysis):
        save_or_remove(figure, folder / f"{name}.png")


ReportSection = Literal["answer", "scores", "lengths", "judges", "diversity", "subsets", "training"]
"""Where a figure stands: "answer" is the first screen, whose picture is win rates by the judges with the first word."""

LEADING = 2  # judges in that picture


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """Panels that belong together in a section of the report. The label says whom they are about; figures of a
    section without one stand together.

    Each panel is an `<svg>` element, to be placed beside or beneath the others as there is room: it is legible from 300
    pixels on, and as wide as its place. It uses the CSS variables --ink, --muted, --grid and --paper, the font of the
    page, and ids that begin with `figure-`.
    """

    section: ReportSection
    label: str
    panels: tuple[str, ...]


def report_figures(study: Study, analysis: Analysis) -> tuple[ReportFigure, ...]:
    """The figures of the report, in its order, as far as the rows have anything to show."""
    overview, tuned = overview_panels(study, analysis), _tuned(study)
    leading = min(len(against_baseline(study, analysis)), LEADING)
    found: list[tuple[ReportSection, str, Sequence[Panel]]] = [
        ("answer", "", overview[:leading]),
        ("scores", "", overview[leading:]),
        *(("scores", f"{model}, {by}", score_panels(study, analysis, model, by)) for model, by in _matches(study)),
        *(("lengths", model, length_panels(study, analysis, model)) for model in tuned),
        ("judges", "", agreement_panels(analysis)),
        ("judges", "", flip_panels(study, analysis)),
        ("judges", "", depth_panels(study, analysis)),
        ("diversity", "", diversity_panels(study, analysis)),
        ("subsets", "", subset_panels(study, analysis)),
        *(("training", model, curve_panels(rows)) for model, rows in study.training.items()),
    ]
    return tuple(
        ReportFigure(section, label, panels_as_svg(panels, f"figure-{number}"))
        for number, (section, label, panels) in enumerate(found, start=1)  # names of models need not be fit for ids
        if panels
    )


def _tuned(study: Study) -> list[str]:
    """Every model but the baseline, the last one first: it is what the study is about."""
    return [player.name for player in reversed(study.models[1:])]


def _matches(study: Study) -> list[tuple[str, str]]:
    return [(model, scorer.name) for scorer in study.scorers for model in _tuned(study)]


def _figures(study: Study, analysis: Analysis) -> Iterator[tuple[str, Figure | None]]:
    """Name and figure, drawn one at a time; None where there is nothing to show."""
    yield "model_comparison", _composed(overview_panels(study, analysis))
    for number, (model, scorer) in enumerate(_matches(study)):
        name = f"dpo_score_comparison-{model}-{scorer}" if number else "dpo_score_comparison"
        yield name, score_comparison(study, analysis, model, scorer)
    for number, model in enumerate(_tuned(study)):
        name = f"response_length_analysis-{model}" if number else "response_length_analysis"
        yield name, length_analysis(study, analysis, model)
    scored = [scorer.name for scorer in study.scorers if scorer.name in study.preference_data]
    for number, scorer in enumerate(scored):
        ending, rows = f"-{scorer}" if number else "", pairs_of(study, scorer)
        yield f"delta_hist{ending}", delta_hist({"": rows}) if rows else None
        yield f"score_hist{ending}", score_hist({"": rows}) if rows else None
    yield "reward_model_depth", _composed(depth_panels(study, analysis))
    yield "judge_agreement", _composed(agreement_panels(analysis))
    yield "flip_rates", _composed(flip_panels(study, analysis))
    yield "winrate_by_subset", _composed(subset_panels(study, analysis))
    yield "diversity", _composed(diversity_panels(study, analysis))
    for model, rows in study.training.items():
        yield f"training_curves-{model}", curves(rows)


def _composed(panels: Sequence[Panel]) -> Figure | None:
    return compose(panels) if panels else None
