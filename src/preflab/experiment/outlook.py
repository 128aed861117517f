"""What a run of an experiment would do, before anything runs: where each stage stands, and what its trainings take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preflab.core.records import Amount, UserError
from preflab.experiment.inputs import Standing, State, several
from preflab.experiment.plan import Plan, PlannedStage
from preflab.stats.wording import duration


@dataclass(frozen=True)
class Outlook:
    """Where every stage stands, what has changed of it, and, of a training, what it would take or why that is not
    known.
    """

    heading: str
    plan: Plan
    standings: Mapping[str, Standing]
    amounts: Mapping[str, Amount | str]

    def __str__(self) -> str:
        lines = [f"{self.heading}: {len(self.plan.stages)} stages, in {self.plan.output_dir}"]
        for stage in self.plan.stages:
            found = self.standings[stage.name]
            after = f", after {several(stage.after)}" if stage.after else ""
            lines.append(f"{stage.name}: {stage.command}{after}: {_SHOWN[found.state]}")
            told = [_told(self.amounts[stage.name])] if stage.name in self.amounts else []
            lines += [f"    {short(line)}" for line in (*found.lines, *told)]
        return "\n".join(lines)


_SHOWN: Mapping[State, str] = {
    "new": "to run",
    "unfinished": "to go on with",
    "extended": "to go on with, for what has changed",
    "done": "done",
    "gone": "to make again: what it made is gone",
    "changed": "made from other inputs; needs --overwrite",
}


def short(line: str) -> str:
    return line if len(line) <= 400 else line[:399] + "…"


def look_ahead(heading: str, plan: Plan, standings: Mapping[str, Standing], *, measure: bool) -> Outlook:
    """Count what each training that is not done would take; with `measure`, take its first step."""
    amounts = {
        stage.name: _amount(stage, standings, measure=measure)
        for stage in plan.stages
        if stage.kind.amount and standings[stage.name].state != "done"
    }
    return Outlook(heading, plan, standings, amounts)


def _amount(stage: PlannedStage, standings: Mapping[str, Standing], *, measure: bool) -> Amount | str:
    if waiting := [name for name in stage.after if standings[name].state != "done"]:
        return f"steps and tokens are counted once its input is made, by {several(waiting)}"
    try:
        return stage.kind.amount_of(stage.settings, measure=measure)
    except UserError as error:  # data that is not there, say: the stage itself will say more
        return f"cannot be counted: {str(error).splitlines()[0]}"


def _told(amount: Amount | str) -> str:
    if isinstance(amount, str):
        return amount
    steps = "1 step" if amount.steps == 1 else f"{amount.steps:,} steps"
    parts = [f"{steps}, {amount.tokens:,} tokens"]
    if amount.seconds is not None:
        parts.append(f"the first step, with the longest rows, took {duration(amount.seconds)}")
    if amount.memory is not None:
        parts.append(f"{amount.memory / 1e9:.1f} GB in use at the peak")
    return "; ".join(parts)
