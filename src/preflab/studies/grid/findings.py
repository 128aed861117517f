"""A grid in words: how well each model does, and what temperature and training steps change.

No difference is claimed that the intervals do not show. What a sentence tells of is picked from many: the best of all
cells, the lines that change most. So its intervals hold for all of those together, at 95 % (Bonferroni); the intervals
of tables and figures hold for each cell by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from scipy.stats import t

from preflab.stats.results import Estimate, Finding
from preflab.stats.statistics import CONFIDENCE
from preflab.stats.wording import FEWEST_PROMPTS, MANY_EMPTY, TONES, interval, listed, percent, prompts, side, told_of
from preflab.studies.grid.rows import GridCell

MOST_MODELS = 3  # that get a sentence of their own from each judge

Lines = Mapping[str, Sequence[tuple[float, Estimate]]]
"""Name of a line of the figure -> its points in order: temperature or step, and the win rate there."""


def grid_findings(cells: Sequence[GridCell]) -> tuple[Finding, ...]:
    """What the judged cells say, judge by judge: the best cell of each model, then temperature, then training steps."""
    judged = [cell for cell in cells if cell.win_rate]
    if not judged:
        failed = f": all {errors:,} judgements failed" if (errors := sum(cell.errors for cell in cells)) else ""
        return (Finding(f"Nothing can be said of this grid{failed or ', in which nothing is judged'}.", "warning"),)
    groups: dict[tuple[str, str], list[GridCell]] = {}
    for cell in judged:
        groups.setdefault((cell.judge, cell.opponent), []).append(cell)
    found = [finding for own in groups.values() for finding in _of_judge(own)]
    return (*_empty(judged), *_trained_on(judged), *found, *_errors(cells))


def _empty(cells: Sequence[GridCell]) -> Iterator[Finding]:
    """Whose responses say nothing in many cases, the worst first: before any verdict."""
    shares = {_place(cell): cell.empty for cell in cells} | {cell.opponent: cell.opponent_empty for cell in cells}
    worst = sorted(((share, place) for place, share in shares.items() if share >= MANY_EMPTY), reverse=True)
    if worst:
        said = _some([f"{percent(share)} of {place}" for share, place in worst])
        yield Finding(f"Many responses are empty: {said}. No verdict below holds without that.", "warning")


def _place(cell: GridCell) -> str:
    step = "" if cell.step is None else f" step {cell.step:,}"
    return f"{cell.model}{step} at temperature {cell.temperature:g}"


def _trained_on(cells: Sequence[GridCell]) -> Iterator[Finding]:
    """Which models were trained on prompts of the grid."""
    if said := told_of({cell.model: cell.trained_on for cell in cells if cell.trained_on}, _some):
        yield Finding(f"{said}.", "warning")


def _of_judge(cells: Sequence[GridCell]) -> Iterator[Finding]:
    yield from _best(cells)
    yield from _trend(temperature_lines(cells), "temperature", cells[0].judge)
    yield from _trend(step_lines(cells), "step", cells[0].judge)


def _best(cells: Sequence[GridCell]) -> Iterator[Finding]:
    """The best cell of each model, the best model first."""
    of_model: dict[str, list[GridCell]] = {}
    for cell in cells:
        of_model.setdefault(cell.model, []).append(cell)
    # Of equal ones the last model first, which a grid is most likely about.
    best = sorted((max(own, key=_rate) for own in reversed(of_model.values())), key=_rate, reverse=True)
    for cell in best[:MOST_MODELS]:
        own = cell.win_rate
        assert own is not None
        if own.n < FEWEST_PROMPTS:
            few = f"only {prompts(own.n)} were judged by {cell.judge}"
            yield Finding(f"Nothing can be said about which model is better: {few}.", "warning")
            return
        rate = _together(own, len(cells))
        where = f"at temperature {cell.temperature:g}" + ("" if cell.step is None else f", step {cell.step:,}")
        said = {
            "better": f"{cell.model} is better than {cell.opponent} {where}",
            "worse": f"{cell.model} is worse than {cell.opponent}, also at its best, {where}",
            "unclear": f"No clear difference between {cell.model} and {cell.opponent} {where}, where it does best",
        }[side(rate)]
        together = f", which holds for all {len(cells)} cells together" if len(cells) > 1 else ""
        sure = f"win rate {percent(rate.value)} ({interval(rate)}{together}; {prompts(rate.n)})"
        count = len(of_model[cell.model])
        chosen = f" It is the best of its {count} cells, so the rate flatters it a little." if count > 1 else ""
        hidden = side(rate) == "better" and cell.empty >= MANY_EMPTY  # what it does not answer stands against it
        tone = "warning" if hidden else TONES[side(rate)]
        yield Finding(f"{said}, says {cell.judge}: {sure}.{chosen}", tone)


def _trend(lines: Lines, what: str, judge: str) -> Iterator[Finding]:
    """Between the first and the last point of each line: who rises, who falls; and for whom that is not clear."""
    told = {name: [point for point in points if point[1].n >= FEWEST_PROMPTS] for name, points in lines.items()}
    ends = {name: (points[0], points[-1]) for name, points in told.items() if len(points) > 1}
    if not ends:
        return
    clear = {name: pair for name, pair in ends.items() if _changes(pair[0][1], pair[1][1], len(ends))}
    changes = [
        f"of {name} it {'rises' if last.value > first.value else 'falls'} from {percent(first.value)} at {what} "
        f"{start:g} to {percent(last.value)} at {end:g}"
        for name, ((start, first), (end, last)) in clear.items()
    ]
    unclear = [name for name in ends if name not in clear]
    if changes:
        rest = f"; of {_some(unclear)} no change is clear" if unclear else ""
        yield Finding(f"Win rate by {what}, says {judge}: {_some(changes)}{rest}.", "neutral")
    else:
        yield Finding(
            f"From the first {what} to the last, no win rate changes by more than separate intervals can show, says "
            f"{judge}; prompt by prompt, a difference may yet be clear.",
            "neutral",
        )


def _together(rate: Estimate, comparisons: int) -> Estimate:
    """The rate with an interval that holds for so many rates at once: its sides grow as those of Student's t do."""
    tail, freedom = (1 - CONFIDENCE) / 2, rate.n - 1
    longer = float(t.isf(tail / comparisons, freedom) / t.isf(tail, freedom))
    low, high = (rate.value + longer * (end - rate.value) for end in (rate.low, rate.high))
    return replace(rate, low=max(0.0, low), high=min(1.0, high))


def _changes(first: Estimate, last: Estimate, comparisons: int) -> bool:
    """Whether two rates differ, by an interval of the difference made of theirs (Newcombe, 1998). That is for
    independent rates; rates of the same prompts differ less by chance, so too little is claimed here and not too much.
    """
    low, high = sorted((_together(rate, comparisons) for rate in (first, last)), key=lambda rate: rate.value)
    return high.value - low.value > math.hypot(high.value - high.low, low.high - low.value)


def _some(parts: Sequence[str], most: int = 4) -> str:
    return listed(parts if len(parts) <= most else [*parts[:most], f"{len(parts) - most} more"])


def _errors(cells: Sequence[GridCell]) -> Iterator[Finding]:
    errors = sum(cell.errors for cell in cells)
    if errors:
        total = errors + sum(cell.wins + cell.ties + cell.losses for cell in cells)
        yield Finding(
            f"{errors:,} of {total:,} judgements failed; they are counted as errors, and left out of the rates.",
            "warning",
        )


def _rate(cell: GridCell) -> float:
    return cell.win_rate.value if cell.win_rate else -1.0


# ---- lines ---------------------------------------------------------------------------------------------------------


def temperature_lines(cells: Sequence[GridCell]) -> Lines:
    """Win rate against temperature: a line for each model and checkpoint."""

    def name(cell: GridCell) -> str:
        return cell.model if cell.step is None else f"{cell.model} · step {cell.step:,}"

    return _lines(cells, name, lambda cell: cell.temperature)


def step_lines(cells: Sequence[GridCell]) -> Lines:
    """Win rate against training step: a line for each temperature (and model, where there are several)."""
    checkpoints = [cell for cell in cells if cell.step is not None]
    several = len({cell.model for cell in checkpoints}) > 1

    def name(cell: GridCell) -> str:
        return f"{cell.model}, T = {cell.temperature:g}" if several else f"T = {cell.temperature:g}"

    return _lines(checkpoints, name, lambda cell: cell.step)


def _lines(cells: Sequence[GridCell], name: Callable[[GridCell], str], at: Callable[[GridCell], float | None]) -> Lines:
    found: dict[str, list[tuple[float, Estimate]]] = {}
    for cell in cells:
        place = at(cell)
        if cell.win_rate and place is not None:
            found.setdefault(name(cell), []).append((place, cell.win_rate))
    return {line: sorted(points, key=lambda point: point[0]) for line, points in found.items()}
