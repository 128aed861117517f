"""A study of your own: how often each of several models refuses, with an interval, as text and as CSV.

    preflab examples/study.py:refusals base=base.jsonl dpo=dpo.jsonl --out runs/refusals
    preflab report runs/refusals

The files are what `preflab generate` writes, or any file of responses. As a stage of an experiment:

    refusals: {run: "examples/study.py:refusals", responses: ["base=${base}", "dpo=${dpo}"]}
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from preflab.core.config import Positional, Settings, named
from preflab.core.rundir import read_json, write_json, write_text
from preflab.data.answers import read_answers
from preflab.stats.degenerate import refusal
from preflab.stats.results import Estimate
from preflab.stats.statistics import draw_resamples, numbered, per_prompt, rate_estimate
from preflab.stats.wording import interval, percent
from preflab.studies.base import Study

HEAD = "refusals.json"


class RefusalSettings(Settings):
    """How often each of several models refuses."""

    responses: Annotated[tuple[str, ...], Positional()] = Field(description="NAME=FILE of responses, for each model.")
    out: Path = Field(default=Path("runs/refusals"), description="Folder of the study.")


@dataclass(frozen=True)
class Refusals:
    """What the study found: by model, the share of its responses that refuse."""

    folder: Path
    shares: Mapping[str, Estimate]

    def __str__(self) -> str:
        lines = [
            f"{name} refuses {percent(share.value)} ({interval(share)}, {share.n} prompts)"
            for name, share in self.shares.items()
        ]
        return "\n".join([*lines, f"table: {self.folder / 'refusals.csv'}"])


def count(settings: RefusalSettings) -> Refusals:
    """Write the rows, one for each response, and what follows from them."""
    rows = {}
    for word in settings.responses:
        name, file = named(word)
        rows[name or Path(file).stem] = [
            {"row": answer.row, "words": refusal(answer.response)} for answer in read_answers(file)
        ]
    write_json(settings.out / HEAD, rows)
    return report(settings.out)


def report(folder: Path) -> Refusals:
    """From the rows alone; a prompt is the unit, however many responses there are to it."""
    shares = {name: share for name, rows in read_json(folder / HEAD).items() if (share := _share(rows))}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["model", "refuses", "low", "high", "prompts"])
    writer.writerows([name, share.value, share.low, share.high, share.n] for name, share in shares.items())
    write_text(folder / "refusals.csv", table.getvalue())
    return Refusals(folder, shares)


def _share(rows: Sequence[Mapping[str, object]]) -> Estimate | None:
    prompt_of = numbered(row["row"] for row in rows)
    prompts = int(prompt_of.max(initial=-1)) + 1
    refused = np.array([row["words"] is not None for row in rows], dtype=np.float64)
    return rate_estimate(per_prompt(refused, prompt_of, prompts), draw_resamples(prompts, seed=0)) if prompts else None


refusals = Study(
    settings=RefusalSettings,
    run=count,
    help="Count how often models refuse.",
    head=HEAD,
    report=report,
)
