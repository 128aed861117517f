"""A grid in words: how well each model does, and what temperature and training steps change.

As in `preflab.analysis.findings`, no difference is claimed that the intervals do not show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from preflab.analysis.findings import TONES
from preflab.analysis.results import Estimate, Finding, GridCell
from preflab.analysis.wording import FEWEST_PROMPTS, apart, interval, listed, percent, prompts, side

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
    return (*found, *_errors(cells))


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
        rate, count = cell.win_rate, len(of_model[cell.model])
        assert rate is not None
        where = f"at temperature {cell.temperature:g}" + ("" if cell.step is None else f", step {cell.step:,}")
        sure = f"win rate {percent(rate.value)} ({interval(rate)}, {prompts(rate.n)})"
        if rate.n < FEWEST_PROMPTS:
            few = f"only {prompts(rate.n)} were judged by {cell.judge}"
            yield Finding(f"Nothing can be said about which model is better: {few}.", "warning")
            return
        said = {
            "better": f"{cell.model} is better than {cell.opponent} {where}",
            "worse": f"{cell.model} is worse than {cell.opponent}, also at its best, {where}",
            "unclear": f"No clear difference between {cell.model} and {cell.opponent} {where}, where it does best",
        }[side(rate)]
        chosen = f" It is the best of its {count} cells, so the rate flatters it a little." if count > 1 else ""
        yield Finding(f"{said}, says {cell.judge}: {sure}.{chosen}", TONES[side(rate)])


def _trend(lines: Lines, what: str, judge: str) -> Iterator[Finding]:
    """Between the first and the last point of each line: who rises, who falls; and for whom that is not clear."""
    told = {name: [point for point in points if point[1].n >= FEWEST_PROMPTS] for name, points in lines.items()}
    ends = {name: (points[0], points[-1]) for name, points in told.items() if len(points) > 1}
    if not ends:
        return
    clear = {name: pair for name, pair in ends.items() if apart(pair[0][1], pair[1][1])}
    changes = [
        f"of {name} it {'rises' if last.value > first.value else 'falls'} from {percent(first.value)} at {what} "
        f"{start:g} to {percent(last.value)} at {end:g}"
        for name, ((start, first), (end, last)) in clear.items()
    ]
    unclear = [name for name in ends if name not in clear]
    if changes:
        rest = f"; of {_some(unclear)} the change is within the intervals" if unclear else ""
        yield Finding(f"Win rate by {what}, says {judge}: {_some(changes)}{rest}.", "neutral")
    else:
        yield Finding(
            f"From the first {what} to the last, no win rate changes by more than its intervals allow, says {judge}.",
            "neutral",
        )


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
