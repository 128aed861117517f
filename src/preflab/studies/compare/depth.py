"""Is a reward model out of its depth on generated text? Its scores there beside its scores of preference data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from preflab.core.records import unit_of
from preflab.core.words import words
from preflab.stats.contests import Frame
from preflab.stats.results import Depth, Estimate
from preflab.stats.statistics import Floats, floats, numbered, per_prompt, wilson_estimate
from preflab.stats.study import Judge, better
from preflab.stats.wording import capital, listed, percent, who

QUANTILES = (0.01, 0.99)  # of the scores of preference data: by construction 2 % of those lie outside
FEWEST_PAIRS = 50  # 100 responses, so that one of them lies beyond each quantile

# Preference data has 1 % of its scores beyond each quantile. Five times that (and by its interval more than 1 % in any
# case), or a mean two standard deviations away, is enough to carry a comparison of means. Less is no sign: a model that
# answers better than the responses of preference data did should score higher.
EXPECTED_BEYOND, MUCH_BEYOND = 0.01, 0.05
LARGE_SHIFT = 2.0


def depth(data: Frame, judge: Judge) -> Depth | None:
    """A reward model's scores of preference data beside those of the models' responses; None for any other judge, and
    where it has not scored preference data. Pairs that it scores alike count half, and so do equally long ones for
    length.
    """
    scorer, pairs = judge.name, data.study.preference_data.get(judge.name, ())
    if judge.kind != "reward_model" or not pairs:
        return None
    chosen = np.array([pair.score_chosen for pair in pairs])
    rejected = np.array([pair.score_rejected for pair in pairs])
    longer_by = np.array([len(words(pair.chosen)) - len(words(pair.rejected)) for pair in pairs])
    prompt_of = numbered(unit_of(pair.prompt) or pair.row for pair in pairs)
    ranked = per_prompt(
        np.array([better(judge, *pair) for pair in zip(chosen, rejected, strict=True)]),
        prompt_of,
        int(prompt_of.max()) + 1,
    )
    accuracy = wilson_estimate(ranked)
    assert accuracy is not None
    known = np.concatenate([chosen, rejected])
    low, high = (float(quantile) for quantile in np.quantile(known, QUANTILES))
    mean, std = float(known.mean()), float(known.std())
    scores = _scores(data, scorer)
    shift = {name: (float(np.nanmean(values)) - mean) / std for name, values in scores.items()} if std else {}
    signs = _signs(data, scores, (low, high), shift) if shift and len(pairs) >= FEWEST_PAIRS else []
    return Depth(
        scorer=scorer,
        accuracy=accuracy,
        length_accuracy=float((0.5 + 0.5 * np.sign(longer_by)).mean()),
        mean=mean,
        std=std,
        low=low,
        high=high,
        outside={name: _share(data, values, (values < low) | (values > high)) for name, values in scores.items()},
        shift=shift,
        statement=_statement(judge, len(pairs), signs, std > 0),
        out_of_depth=bool(signs),
    )


def _scores(data: Frame, scorer: str) -> dict[str, Floats]:
    """Model -> [cases] of its scores, NaN where a response has none; only models with any."""
    scores = {
        model.name: floats([case.answers[model.name].scores.get(scorer) for case in data.study.cases])
        for model in data.study.models
    }
    return {name: values for name, values in scores.items() if not np.isnan(values).all()}


def _share(data: Frame, values: Floats, there: NDArray[np.bool_]) -> Estimate:
    estimate = wilson_estimate(data.by_prompt(np.where(np.isnan(values), np.nan, there)))
    assert estimate is not None
    return estimate


def _signs(
    data: Frame, scores: Mapping[str, Floats], limits: tuple[float, float], shift: Mapping[str, float]
) -> list[str]:
    """Where models' scores leave those of preference data, each in words."""
    signs = []
    for name, values in scores.items():
        for beyond, word in ((values < limits[0], "lower"), (values > limits[1], "higher")):
            share = _share(data, values, beyond)
            if share.value >= MUCH_BEYOND and share.low > EXPECTED_BEYOND:
                signs.append(
                    f"{percent(share.value)} of {name}'s responses score {word} than 99\u00a0% of preference data"
                )
        if abs(shift[name]) >= LARGE_SHIFT:
            where = "above" if shift[name] > 0 else "below"
            signs.append(f"the mean score of {name} lies {abs(shift[name]):.1f} standard deviations {where} theirs")
    return signs


def _statement(judge: Judge, pairs: int, signs: Sequence[str], varied: bool) -> str:
    """The reading in plain words."""
    if signs:
        return f"{capital(listed(signs))}: there the scores of {who(judge)} are extrapolation."
    if pairs < FEWEST_PAIRS:
        return f"{capital(who(judge))} has scored only {pairs} preference pairs: too few to tell where it is at home."
    if not varied:
        return f"{capital(who(judge))} gives all of preference data the same score, so it cannot tell responses apart."
    return f"Generated responses score where preference data does: no sign that {who(judge)} is out of its depth."
