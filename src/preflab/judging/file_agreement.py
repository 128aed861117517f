"""How far two verdict files agree: a person's beside a judge's, or two judges', about the same responses."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preflab.core.records import Outcome, Pair, SampleVerdict, unit_of
from preflab.judging.verdicts import VerdictFile
from preflab.stats.agreement import RANKED, agreement_of
from preflab.stats.results import Agreement
from preflab.stats.statistics import draw_resamples, numbered

_MIRRORED: Mapping[Outcome, Outcome] = {"win": "loss", "loss": "win"}


@dataclass(frozen=True, slots=True)
class FileAgreement:
    """Two files set side by side.

    Attributes:
        samples: how many samples each file has, with two different responses.
        matched: how many of them are about the same prompt and the same two responses.
        judged: how many of these have a verdict in both files.
        agreement: over these; None where there is none.
        lacking: the files that lack the texts by which samples are matched.
    """

    first: Path
    second: Path
    samples: tuple[int, int]
    matched: int
    judged: int
    agreement: Agreement | None
    lacking: tuple[Path, ...] = ()


def file_agreement(first: VerdictFile, second: VerdictFile, *, seed: int = 0) -> FileAgreement:
    """Match two files by prompt and responses, whatever their samples are called, and whichever of the two responses
    each file calls the model's. Samples whose responses are one text are left out: nobody can prefer one of them.
    """
    ours, theirs = first.samples, second.samples
    by_texts: dict[Hashable, list[str]] = {}
    for sample_id, pair in _judgeable(second).items():
        by_texts.setdefault(_texts(pair), []).append(sample_id)
    said: list[tuple[Hashable, Outcome, Outcome]] = []
    for sample_id, pair in _judgeable(first).items():
        for texts, mirrored in ((_texts(pair), False), (_texts(pair, mirrored=True), True)):
            if partners := by_texts.get(texts):
                other = theirs[partners.pop(0)]
                said.append((unit_of(pair.prompt), ours[sample_id].outcome, _seen(other, mirrored)))
                break
    counted = [each for each in said if "error" not in each[1:]]
    found = None
    if counted:
        prompt_of = numbered(unit for unit, *_ in counted)
        pairs = np.array([RANKED.index(one) * len(RANKED) + RANKED.index(other) for _, one, other in counted])
        names = (str(first.path), str(second.path))
        found = agreement_of(*names, pairs, prompt_of, draw_resamples(int(prompt_of.max()) + 1, seed))
    files = (first, second)
    return FileAgreement(
        first.path,
        second.path,
        (len(ours) - _same(first), len(theirs) - _same(second)),
        len(said),
        len(counted),
        found,
        tuple(file.path for file in files if not file.pairs),
    )


def _judgeable(file: VerdictFile) -> dict[str, Pair]:
    return {sample_id: pair for sample_id, pair in file.pairs.items() if pair.response != pair.opponent}


def _same(file: VerdictFile) -> int:
    return len(file.pairs) - len(_judgeable(file))


def _texts(pair: Pair, *, mirrored: bool = False) -> Hashable:
    sides: Sequence[str] = (pair.response.strip(), pair.opponent.strip())
    return unit_of(pair.prompt), tuple(reversed(sides) if mirrored else sides)


def _seen(verdict: SampleVerdict, mirrored: bool) -> Outcome:
    return _MIRRORED.get(verdict.outcome, verdict.outcome) if mirrored else verdict.outcome
