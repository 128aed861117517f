"""A grid: models, or checkpoints of their training, at several temperatures, each judged; read from its folder.

grid.json                       the cells: {name, model, step, temperature}, the opponent, the judges
prompts.jsonl, opponent.jsonl   what was asked, and the responses that every cell is judged against
cells/NAME/responses.jsonl      the responses of a cell
cells/NAME/JUDGE.json           its verdict file (`preflab.judging.verdicts`)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preflab.core.file_format import without_format
from preflab.core.origins import Leak, leaks_of
from preflab.core.records import Message, UserError, messages_from_json
from preflab.core.rundir import read_json, read_jsonl
from preflab.judging.file_figures import file_figures, shares_empty
from preflab.judging.verdicts import VerdictFile, read_verdicts
from preflab.stats.alignment import align
from preflab.stats.definitions import TIES_HALF
from preflab.stats.results import Contest, Estimate


@dataclass(frozen=True, slots=True)
class GridCell:
    """One cell of a grid: a model (at a training step, if it is a checkpoint) sampled at a temperature, and judged.

    Attributes:
        definition: which of the usual win rates it is.
        empty, opponent_empty: shares of its and of the opponent's responses that say nothing (means over prompts).
        trained_on: of the grid's prompts, those that the model was trained on; None where that is not known.
    """

    model: str
    step: int | None
    temperature: float
    judge: str
    opponent: str
    wins: int
    ties: int
    losses: int
    errors: int
    win_rate: Estimate | None
    definition: str = TIES_HALF
    empty: float = 0.0
    opponent_empty: float = 0.0
    trained_on: Leak | None = None


def read_grid(folder: Path, *, seed: int = 0) -> tuple[GridCell, ...]:
    """All judged cells, judge by judge. Those that are not judged yet are left out, and so are verdicts of another grid
    that the folder held before: by another judge, against another opponent, or of other prompts.

    Raises UserError where the folder holds no grid.
    """
    path = folder / "grid.json"
    if not path.exists():
        raise UserError(f"{folder}: holds no grid (no grid.json); `preflab grid` makes one")
    try:
        head = without_format(path, read_json(path))
        prompts = {str(row["row"]): messages_from_json(row["prompt"]) for row in read_jsonl(folder / "prompts.jsonl")}
        return tuple(_judged(folder, head, prompts, seed))
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: not a grid that this version wrote ({error!r})") from error


def _judged(
    folder: Path, head: Mapping[str, Any], prompts: Mapping[str, tuple[Message, ...]], seed: int
) -> Iterator[GridCell]:
    for judge, spec in head["judges"].items():
        for entry in head["cells"]:
            path = folder / "cells" / entry["name"] / f"{judge}.json"
            file = read_verdicts(path) if path.exists() else None
            if file and _belongs(file, spec, head["opponent"], prompts):
                _check_texts(file, path.parent / "responses.jsonl", folder / "opponent.jsonl")
                found = _cell(file_figures(file, seed=seed).contest, entry, judge, head["opponent"])
                leak = leaks_of(file.metadata.get("trained_on")).get(str(file.metadata.get("model")))
                ours, theirs = shares_empty(file)
                yield replace(found, empty=ours, opponent_empty=theirs, trained_on=leak)


def _belongs(file: VerdictFile, spec: str, opponent: str, prompts: Mapping[str, tuple[Message, ...]]) -> bool:
    made_by = (file.metadata.get("judge"), file.metadata.get("opponent"))
    return made_by == (spec, opponent) and all(
        pair.prompt == prompts.get(sample_id.split("/")[0]) for sample_id, pair in file.pairs.items()
    )


def _check_texts(file: VerdictFile, responses: Path, opponents: Path) -> None:
    """Raise UserError where the verdicts are about other responses than those beside them."""
    if not (responses.exists() and opponents.exists()):
        return
    aligned = align({"model": read_jsonl(responses), "opponent": read_jsonl(opponents)})
    for (row, sample), both in aligned.rows.items():
        judged = file.pairs.get(f"{row}/{sample}")
        there = (both["model"]["response"], both["opponent"]["response"])
        if judged and (judged.response, judged.opponent) != there:
            raise UserError(
                f"{file.path}: sample {row}/{sample} is a verdict on other texts than {responses} and "
                f"{opponents} have, so they do not belong together; put the right file back, or run "
                "`preflab grid` again with --overwrite"
            )


def _cell(found: Contest, entry: Mapping[str, Any], judge: str, opponent: str) -> GridCell:
    return GridCell(
        model=entry["model"],
        step=entry["step"],
        temperature=entry["temperature"],
        judge=judge,
        opponent=opponent,
        wins=found.wins,
        ties=found.ties,
        losses=found.losses,
        errors=found.errors,
        win_rate=found.win_rate,
        definition=found.definition,
    )
