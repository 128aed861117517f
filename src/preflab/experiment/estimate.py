"""What an experiment would take, before anything runs: tokens, time and memory of every stage.

Nothing is trained, and no weights or data are downloaded, to find out: rows are counted and a sample of them is
tokenised, parameters come from configurations, and speed from a product of matrices and a copy that take a moment
(`preflab.experiment.work` says how time follows).

How far off it was, on one core of a CPU in float32, in seconds of that core: DPO of Gemma 3 270M on 8 pairs of HH 74
estimated and 81 measured, with LoRA on 6 pairs 59 and 61; 8 responses of 24 tokens from it 4.9 and 7.3, 16 of 12 tokens
6.8 and 6.6. Of the quickstart's trainings, by the clock: SFT on demonstrations 16 and 13, SFT 9 and 7, reward model 10
and 10, DPO 12 and 11. Tokens were within 1 %. Peak memory of that DPO: 5.7 GB estimated, 5.6 GB seen. No other device
has been tried. Responses are taken to reach the token cap, so of models that end their turn it says too much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from preflab.core.records import UserError
from preflab.experiment.lookup import Lookup, UnknownError
from preflab.experiment.plan import Plan, PlannedStage
from preflab.experiment.sampling import (
    comparison_need,
    frontier_need,
    generation_need,
    grid_need,
    judging_need,
    scoring_need,
)
from preflab.experiment.training import training_need
from preflab.experiment.work import STAGE_SECONDS, Need, loading_seconds
from preflab.stats.wording import duration


@dataclass(frozen=True)
class Estimate:
    """What one stage would take; None is what cannot be known.

    Attributes:
        tokens: that are trained on, generated, or read.
        seconds: on this computer's device, as fast as it is now.
        memory: bytes at the peak.
        calls: of an endpoint.
        found: how these were found, what was taken for granted, or why they cannot be known.
    """

    stage: str
    tokens: int | None
    seconds: float | None
    memory: int | None
    calls: int
    found: str


def estimate(plan: Plan, *, done: Collection[str] = ()) -> tuple[Estimate, ...]:
    """An estimate for each stage of a plan, in its order; those that are `done` take nothing."""
    lookup = Lookup(plan)
    return tuple(
        Estimate(stage.name, 0, 0.0, 0, 0, "done") if stage.name in done else _estimate(stage, lookup)
        for stage in plan.stages
    )


def _merging(stage: PlannedStage, lookup: Lookup) -> Need:
    settings: Any = stage.settings
    size = lookup.size(str(settings.adapter))
    return Need(0, loading_seconds(size, times=3), 2 * 4 * size.total)


def _writing(_: PlannedStage, __: Lookup) -> Need:
    return Need(0, STAGE_SECONDS, 0)


RULES: Mapping[str, Callable[[PlannedStage, Lookup], Need]] = {
    "train": training_need,
    "generate": generation_need,
    "score": scoring_need,
    "judge": judging_need,
    "compare": comparison_need,
    "grid": grid_need,
    "frontier": frontier_need,
    "merge": _merging,
    "sandbox": _writing,
}
"""First word of a command -> what it needs."""


def _estimate(stage: PlannedStage, lookup: Lookup) -> Estimate:
    rule = RULES.get(stage.command.split()[0])
    try:
        need = rule(stage, lookup) if rule else Need(None, None, None, notes=("there is no rule for this command",))
    except UnknownError as unknown:
        need = Need(None, None, None, notes=(unknown.reason,))
    except (
        UserError
    ) as error:  # a file that is not there, an adapter that names no base: the stage itself will say more
        need = Need(None, None, None, notes=(str(error).splitlines()[0],))
    tokens = None if need.tokens is None else round(need.tokens)
    return Estimate(stage.name, tokens, need.seconds, need.memory, need.calls, "; ".join(need.notes))


# ---- for the terminal ----------------------------------------------------------------------------------------------

UNKNOWN = "unknown"


def as_table(estimates: Sequence[Estimate]) -> Table:
    """A line for each stage, and the totals: of what is known, with a + where something is not; memory is the peak."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Stage", overflow="fold")
    for name in ("Tokens", "Time", "Memory", *(["Calls"] if any(one.calls for one in estimates) else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("How it was found", overflow="fold", style="dim")
    calls = any(one.calls for one in estimates)
    for one in estimates:
        cells = (_tokens(one.tokens), _time(one.seconds), _memory(one.memory), *([f"{one.calls:,}"] if calls else []))
        table.add_row(one.stage, *cells, one.found)
    table.add_section()
    table.add_row("all", *_totals(estimates, calls=calls), "", style="bold")
    return table


def _totals(estimates: Sequence[Estimate], *, calls: bool) -> tuple[str, ...]:
    tokens, seconds = ([getattr(one, name) for one in estimates] for name in ("tokens", "seconds"))
    memories = [one.memory for one in estimates]
    return (
        _total(tokens, sum, _tokens),
        _total(seconds, sum, _time),
        _total(memories, max, _memory),
        *([f"{sum(one.calls for one in estimates):,}"] if calls else []),
    )


def _total(values: Sequence[Any], total: Callable[[list[Any]], Any], shown: Callable[[Any], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    return shown(total(known)) + (f" + {UNKNOWN}" if None in values else "")


def _tokens(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def _time(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else duration(seconds) if seconds else "0 s"


def _memory(value: int | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
