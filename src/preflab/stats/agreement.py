"""How far two judges agree, with gold and human labels as judges like any other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from preflab.stats.judgements import POINTS
from preflab.stats.results import Agreement, Estimate
from preflab.stats.statistics import Floats, percentiles, ratio_estimate, wilson
from preflab.stats.study import Judge, Study, verdict

RANKED = tuple(POINTS)  # the outcomes that say something: win, tie, loss


def agreements(study: Study, prompt_of: NDArray[np.int64], counts: Floats) -> Iterator[Agreement]:
    """Every two judges on all cases and models (against the baseline) that both judged; none for two judges without
    any. Errors are left out, and so is the same text beside itself, which ties before everybody.
    """
    said = {judge.name: _outcomes(study, judge) for judge in study.judges}  # [models, cases]
    for first, second in combinations(said, 2):
        both = (said[first] >= 0) & (said[second] >= 0)
        if not both.any():
            continue
        pairs = (said[first] * len(RANKED) + said[second])[both]
        yield agreement_of(first, second, pairs, np.broadcast_to(prompt_of, both.shape)[both], counts)


def agreement_of(
    first: str, second: str, pairs: NDArray[np.int64], prompts: NDArray[np.int64], counts: Floats
) -> Agreement:
    """Two judges' agreement on n samples.

    pairs: [n], what both said, as 3 · (place in RANKED of the first's word) + place of the second's.
    prompts: [n], the number of each sample's prompt.
    counts: [resamples, prompts] of `statistics.draw_resamples`.
    """
    tables = np.zeros((counts.shape[1], len(RANKED) ** 2))  # per prompt: how often they said what
    np.add.at(tables, (prompts, pairs), 1)
    return Agreement(first, second, _accuracy(tables, counts), _kappa(tables, counts), _same(tables, counts))


def _outcomes(study: Study, judge: Judge) -> NDArray[np.int64]:
    """What a judge said of each model but the baseline on each case, as an index into RANKED; -1 where nothing."""

    def index(case_number: int, model: str) -> int:
        answers = study.cases[case_number].answers
        if answers[model].text == answers[study.baseline].text:
            return -1
        found = verdict(study.cases[case_number], judge, model, study.baseline, study.baseline)
        return RANKED.index(found.outcome) if found and found.outcome in RANKED else -1

    rows = [[index(number, model.name) for number in range(len(study.cases))] for model in study.models[1:]]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(study.cases))


def _same(tables: Floats, counts: Floats) -> Estimate | None:
    """How often both say the same of win, tie and loss."""
    same = np.array([first == second for first in RANKED for second in RANKED])
    return _share(tables[:, same].sum(axis=1), tables.sum(axis=1), counts)


def _accuracy(tables: Floats, counts: Floats) -> Estimate | None:
    """How often both name the same winner, of the times that both name one."""
    names_winner = np.array([first != "tie" and second != "tie" for first in RANKED for second in RANKED])
    same = np.array([first == second for first in RANKED for second in RANKED])
    return _share(tables[:, names_winner & same].sum(axis=1), tables[:, names_winner].sum(axis=1), counts)


def _share(numerators: Floats, denominators: Floats, counts: Floats) -> Estimate | None:
    estimate = ratio_estimate(numerators, denominators, counts)
    if estimate and estimate.low == estimate.high:  # always, or never: resampling cannot show how sure that is
        return Estimate(estimate.value, *wilson(estimate.value, estimate.n), estimate.n)
    return estimate


def _kappa(tables: Floats, counts: Floats) -> Estimate | None:
    """Cohen's κ over win, tie and loss; None where it is not defined (both always say the same one thing)."""
    value = kappa(tables.sum(axis=0, keepdims=True))[0]
    if np.isnan(value):
        return None
    replicates = kappa(counts @ tables)
    low, high = percentiles(replicates[~np.isnan(replicates)])
    return Estimate(float(value), min(low, float(value)), max(high, float(value)), int(tables.any(axis=1).sum()))


def kappa(tables: Floats) -> Floats:
    """Cohen's κ of each table [tables, outcomes²] of joint frequencies; NaN where agreement by chance is certain."""
    side = len(RANKED)
    joint = tables.reshape(-1, side, side)
    totals = np.maximum(joint.sum(axis=(1, 2)), 1e-12)
    observed = np.trace(joint, axis1=1, axis2=2) / totals
    expected = (joint.sum(axis=2) * joint.sum(axis=1)).sum(axis=1) / totals**2
    undefined = (expected > 1 - 1e-12) | (joint.sum(axis=(1, 2)) <= 0)
    return np.where(undefined, np.nan, (observed - expected) / np.where(undefined, 1, 1 - expected))
