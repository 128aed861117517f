"""A frontier as tables: its points for people, its policies for programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preflab.core.rundir import write_text
from preflab.page.cases import markdown_cell
from preflab.page.winrates import Row, csv_text
from preflab.stats.wording import NOTHING, number
from preflab.studies.frontier.findings import BEST_OF_N
from preflab.studies.frontier.rows import Frontier, Point, best_of_n, curves, strength


def write_frontier_tables(frontier: Frontier, folder: Path) -> None:
    """Write `frontier.md`, a line for each objective and strength, and `frontier.csv`, a line for each policy."""
    write_text(folder / "frontier.md", as_markdown(frontier))
    write_text(folder / "frontier.csv", csv_text(list(_policy_rows(frontier))))


def as_markdown(frontier: Frontier) -> str:
    """Means over seeds, with the lowest and the highest seed where there are several."""
    lines = [
        ["objective", "strength", "KL", "gold reward", "reward model"],
        ["---", "---", "---:", "---:", "---:"],
        *(
            [markdown_cell(name), markdown_cell(point.label), *(_shown(point, m) for m in ("kl", "gold", "proxy"))]
            for name, curve in {BEST_OF_N: best_of_n(frontier), **curves(frontier)}.items()
            for point in curve
        ),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _shown(point: Point, measure: str) -> str:
    seeds, signed = point.by_seed(measure), measure != "kl"
    value = number(float(seeds.mean()), signed=signed)
    if len(seeds) == 1 or value == NOTHING:
        return value
    return f"{value} [{number(float(seeds.min()), signed=signed)}, {number(float(seeds.max()), signed=signed)}]"


def _policy_rows(frontier: Frontier) -> Iterator[Row]:
    """Best-of-n first; its KL is an upper bound."""
    for best in frontier.best_of:
        named: dict[str, object] = {
            "name": f"best of {best.n}",
            "objective": BEST_OF_N,
            "strength": f"n {best.n}",
            "seed": None,
        }
        yield named | best.measures.figures()
    for policy in frontier.policies:
        named = {
            "name": policy.name,
            "objective": policy.objective,
            "strength": strength(policy.settings),
            "seed": policy.seed,
        }
        yield named | policy.measures.figures()
