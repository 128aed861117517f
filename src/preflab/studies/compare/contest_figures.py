"""Figures of the comparison as a whole: who wins, where, how the text differs, and whether the judges agree."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from preflab.page.marks import Dot, DotRows, dot_rows, rows_height
from preflab.page.style import BLUE, GREY, INK, Look, Panel, looks, shown
from preflab.stats.definitions import win_rate_head
from preflab.stats.results import Agreement, Analysis, Contest, Estimate
from preflab.stats.study import Study
from preflab.stats.wording import NOTHING, SHARES, percent

MOST_SUBSETS = 16


def _looks(study: Study) -> dict[str, Look]:
    return looks([player.name for player in study.models])


def _dots(rows: DotRows, title: str, label: str, *, percent: bool = True, reference: float | None = None) -> Panel:
    def draw(axis: Axes) -> None:
        dot_rows(axis, rows, percent=percent, reference=reference)
        axis.set_xlabel(label)

    return Panel(title, draw, height=rows_height(rows))


def against_baseline(study: Study, analysis: Analysis) -> dict[str, list[Contest]]:
    """Judge -> its judged contests of models against the baseline; judges in the order of the analysis."""
    found: dict[str, list[Contest]] = {}
    for contest in analysis.contests:
        if contest.opponent == study.baseline and contest.win_rate:
            found.setdefault(contest.judge, []).append(contest)
    return found


def overview_panels(study: Study, analysis: Analysis) -> list[Panel]:
    """`model_comparison.png`: win rates against the baseline by judge, raw and at equal length, and mean scores."""
    styles, base = _looks(study), shown(study.baseline, 14)
    panels = []
    for judge, contests in against_baseline(study, analysis).items():
        rows = {c.model: _win_rates(c, styles[c.model]) for c in contests}
        hollow = "; hollow: at equal length" if any(len(dots) > 1 for dots in rows.values()) else ""
        title = f"Wins against {base}, {shown(judge, 16)} judging"
        panels.append(_dots(rows, title, f"{win_rate_head(c.definition for c in contests)}{hollow}", reference=0.5))
    for scorer in study.scorers:
        scored = [figures for figures in analysis.models if scorer.name in figures.scores]
        means = {f.name: [Dot(f.scores[scorer.name].mean, styles[f.name])] for f in scored}
        if means:
            title = f"Mean score by {shown(scorer.name)}"
            panels.append(_dots(means, title, "score, mean and 95 % interval", percent=False))
    return panels


def _win_rates(contest: Contest, look: Look) -> list[Dot]:
    """A win rate, and the same at equal length where it rests on enough to be shown without its caution."""
    dots = [Dot(contest.win_rate, look)] if contest.win_rate else []
    sound = contest.length_controlled if not contest.length_controlled_note else None
    return [*dots, Dot(sound, look, hollow=True)] if sound else dots


def subset_panels(study: Study, analysis: Analysis) -> list[Panel]:
    """Win rate by subset, a panel for each judge; of very many subsets the largest ones."""
    styles = _looks(study)
    panels = []
    for judge, contests in against_baseline(study, analysis).items():
        sizes = {name: estimate.n for c in contests for name, estimate in c.subsets.items()}
        largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_SUBSETS]
        rows = {
            f"{name} ({sizes[name]:,})": [
                Dot(c.subsets[name], styles[c.model], shown(c.model)) for c in contests if name in c.subsets
            ]
            for name in largest
        }
        if rows:
            some = "" if len(sizes) <= MOST_SUBSETS else f" (the {MOST_SUBSETS} largest of {len(sizes)})"
            rate = win_rate_head(c.definition for c in contests)
            panels.append(_dots(rows, f"Win rate by subset, {shown(judge, 16)}{some}", rate, reference=0.5))
    return panels


def diversity_panels(study: Study, analysis: Analysis) -> list[Panel]:
    """How varied the text is, and the signs that generation went wrong, for each model."""
    styles = _looks(study)

    def exact(value: float, n: int) -> Estimate:
        return Estimate(value, value, value, n)

    varied: dict[str, list[Dot]] = {}
    for figures in analysis.models:
        for n, share in figures.distinct.items():
            dot = Dot(exact(share, figures.prompts), styles[figures.name], shown(figures.name))
            varied.setdefault(f"distinct-{n}", []).append(dot)
        repeated = Dot(exact(figures.repetition, figures.prompts), styles[figures.name], shown(figures.name))
        varied.setdefault("repeated 4-grams", []).append(repeated)
    signs = {
        text: [
            Dot(figures.shares[share], styles[figures.name], shown(figures.name))
            for figures in analysis.models
            if share in figures.shares
        ]
        for share, text in SHARES.items()
    }
    signs = {text: dots for text, dots in signs.items() if dots}
    panels = [_dots(varied, "How varied the text is", "share of n-grams")]
    return [*panels, _dots(signs, "Signs of trouble", "share of responses")] if signs else panels


def flip_panels(study: Study, analysis: Analysis) -> list[Panel]:
    """How often the order of presentation decided; none where nothing was judged in both orders."""
    styles = _looks(study)
    rows: dict[str, list[Dot]] = {}
    for contest in analysis.contests:
        if contest.flip_rate and contest.model in styles:
            dot = Dot(contest.flip_rate, styles[contest.model], shown(contest.model))
            rows.setdefault(contest.judge, []).append(dot)
    return [_dots(rows, "Winner changes with the order", "share of samples")] if rows else []


def agreement_panels(analysis: Analysis) -> list[Panel]:
    """Judges against judges: share of cases with the same winner, and Cohen's κ beneath; none for a single judge."""
    names = list(dict.fromkeys(name for pair in analysis.agreements for name in (pair.first, pair.second)))
    if not names:
        return []
    return [
        Panel(
            "Do the judges agree?",
            lambda axis: _matrix(axis, names, analysis.agreements),
            height=1.6 + 0.5 * len(names),
        )
    ]


def _matrix(axis: Axes, names: Sequence[str], agreements: Sequence[Agreement]) -> None:
    place = {name: number for number, name in enumerate(names)}
    for number in place.values():
        axis.add_patch(Rectangle((number - 0.5, number - 0.5), 1, 1, facecolor=GREY, alpha=0.15))
    for pair in agreements:
        for x, y in ((place[pair.first], place[pair.second]), (place[pair.second], place[pair.first])):
            share = pair.accuracy.value if pair.accuracy else None
            if share is not None:
                axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=BLUE, alpha=0.6 * share))
            text = NOTHING if share is None else percent(share)
            kappa = f"\nκ = {pair.kappa.value:.2f}" if pair.kappa else ""
            axis.text(x, y, text + kappa, ha="center", va="center", color=INK, fontsize=8)
    axis.set(
        xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="same winner, of cases where both name one"
    )
    axis.set_xticks(range(len(names)), [shown(name, 14) for name in names], rotation=20, ha="right")
    axis.set_yticks(range(len(names)), [shown(name) for name in names])
    axis.tick_params(length=0)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
