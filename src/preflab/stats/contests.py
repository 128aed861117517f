"""Contests: each model against its opponents before each judge, and models tested against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from preflab.stats.judgements import definition
from preflab.stats.length_control import LengthControlled, length_controlled
from preflab.stats.results import Contest, Estimate, PairedTest
from preflab.stats.statistics import (
    Floats,
    draw_resamples,
    floats,
    mcnemar_exact,
    mean_estimate,
    numbered,
    per_prompt,
    rate_estimate,
    sign_test,
    wilson,
    wilson_estimate,
)
from preflab.stats.study import Judge, Study, score_difference, verdict

LENGTH_GROUPS = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """A study as arrays: which prompt each case belongs to, its subset, lengths, and the resamples of prompts.

    prompt_of [cases]; subset_of [cases], None where a prompt has none; lengths (in words) and characters: model ->
    [cases]; counts [resamples, prompts].
    """

    study: Study
    prompt_of: NDArray[np.int64]
    subset_of: tuple[str | None, ...]
    lengths: Mapping[str, Floats]
    characters: Mapping[str, Floats]
    counts: Floats

    @property
    def prompts(self) -> int:
        return len(self.counts[0])

    def by_prompt(self, values: Floats) -> Floats:
        """Means over the samples of each prompt: [cases] -> [prompts], NaN where a prompt has no value."""
        return per_prompt(values, self.prompt_of, self.prompts)


def frame(study: Study, seed: int) -> Frame:
    """Lay a study out as arrays."""
    prompt_of = numbered(case.unit for case in study.cases)
    return Frame(
        study,
        prompt_of,
        tuple(case.subset for case in study.cases),
        {
            model.name: np.array([case.answers[model.name].words for case in study.cases], dtype=np.float64)
            for model in study.models
        },
        {
            model.name: np.array([len(case.answers[model.name].text) for case in study.cases], dtype=np.float64)
            for model in study.models
        },
        draw_resamples(int(prompt_of.max(initial=-1)) + 1, seed),
    )


def contests(data: Frame) -> Iterator[Contest]:
    """For each judge every model against the baseline; for scorers then each later model against each earlier one.
    Two models that a judge has not compared have no contest.
    """
    for judge in data.study.judges:
        for opponent, model in combinations([model.name for model in data.study.models], 2):
            if found := contest(data, judge, model, opponent):
                yield found


def contest(data: Frame, judge: Judge, model: str, opponent: str) -> Contest | None:
    """One model against one opponent before one judge; None where the judge has not compared them."""
    verdicts = [verdict(case, judge, model, opponent, data.study.baseline) for case in data.study.cases]
    outcomes = Counter(found.outcome for found in verdicts if found)
    if not outcomes:
        return None
    points = floats([found.points if found else None for found in verdicts])
    flipped = floats([found.flipped if found else None for found in verdicts])
    differences = _differences(data.study, judge, model, opponent)
    by_prompt = data.by_prompt(points)
    win_rate = rate_estimate(by_prompt, data.counts)
    longer_by = data.lengths[model] - data.lengths[opponent]
    more_characters = data.characters[model] - data.characters[opponent]
    controlled = length_controlled(points, more_characters, data.prompt_of, data.counts)

    def rate_where(mask: NDArray[np.bool_]) -> Estimate | None:
        return rate_estimate(data.by_prompt(np.where(mask, points, np.nan)), data.counts)

    subset_of = np.array(data.subset_of, dtype=object)
    subsets = {name: rate_where(subset_of == name) for name in dict.fromkeys(data.subset_of) if name is not None}
    return Contest(
        model=model,
        opponent=opponent,
        judge=judge.name,
        wins=outcomes["win"],
        ties=outcomes["tie"],
        losses=outcomes["loss"],
        errors=outcomes["error"],
        win_rate=win_rate,
        wilson=wilson(win_rate.value, win_rate.n) if win_rate else None,
        p_value=sign_test(by_prompt),
        difference=mean_estimate(data.by_prompt(differences), data.counts),
        difference_std=None if np.isnan(differences).all() else float(np.nanstd(differences)),
        flip_rate=rate_estimate(data.by_prompt(flipped), data.counts),
        longer=rate_where(longer_by > 0),
        shorter=rate_where(longer_by < 0),
        same_length=rate_where(longer_by == 0),
        by_length=_by_length(data, points, longer_by),
        length_controlled=controlled.rate,
        length_controlled_note=_note(model, controlled),
        subsets={name: rate for name, rate in subsets.items() if rate},
        definition=definition(judgement for found in verdicts if found for judgement in found.judgements),
    )


def _by_length(data: Frame, points: Floats, longer_by: Floats) -> dict[str, Estimate]:
    """Win rate with Wilson's interval in groups of about as many cases each, from much shorter to much longer."""
    edges = np.unique(np.quantile(longer_by, np.linspace(0, 1, LENGTH_GROUPS + 1)[1:-1], method="lower"))
    groups = np.searchsorted(edges, longer_by, side="left")
    rates = {}
    for group in np.unique(groups):
        inside = groups == group
        if rate := wilson_estimate(data.by_prompt(np.where(inside, points, np.nan))):
            low, high = int(longer_by[inside].min()), int(longer_by[inside].max())
            rates[_signed(low) if low == high else f"{_signed(low)} to {_signed(high)}"] = rate
    return rates


def _signed(words: int) -> str:
    return f"{words:+d}".replace("-", "−") if words else "0"


def _note(model: str, controlled: LengthControlled) -> str:
    if not controlled.reason:
        return ""
    what = "rests on few and unusual prompts" if controlled.rate else "cannot be told"
    return f"The win rate of {model} at equal lengths {what}: {controlled.reason}."


def _differences(study: Study, judge: Judge, model: str, opponent: str) -> Floats:
    """[cases], score(model) − score(opponent); NaN where one has none."""

    if not judge.is_scorer:
        return np.full(len(study.cases), np.nan)
    return floats([score_difference(case, judge, model, opponent) for case in study.cases])


def _points(study: Study, judge: Judge, model: str) -> Floats:
    """[cases], what the judge gives the model against the baseline; NaN where nothing."""
    verdicts = [verdict(case, judge, model, study.baseline, study.baseline) for case in study.cases]
    return floats([found.points if found else None for found in verdicts])


def paired_tests(data: Frame) -> Iterator[PairedTest]:
    """For each judge, each two models: on how many prompts does only one of them beat the baseline? The prompts are
    those on which the judge compared both with it; over a prompt's samples, more than half the points beat it.
    """
    study = data.study
    for judge in study.judges:
        points = {model.name: data.by_prompt(_points(study, judge, model.name)) for model in study.models[1:]}
        for first, second in combinations(points, 2):
            both = ~np.isnan(points[first]) & ~np.isnan(points[second])
            if both.any():
                won_first, won_second = points[first][both] > 0.5, points[second][both] > 0.5
                only_first, only_second = int((won_first & ~won_second).sum()), int((won_second & ~won_first).sum())
                p_value = mcnemar_exact(only_first, only_second)
                yield PairedTest(judge.name, study.baseline, first, second, only_first, only_second, p_value)
