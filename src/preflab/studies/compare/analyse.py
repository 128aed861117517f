"""All figures of a study from its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr

from preflab.core.records import UserError
from preflab.core.words import words
from preflab.stats.agreement import agreements
from preflab.stats.contests import Frame, contests, frame, paired_tests
from preflab.stats.degenerate import foreign_turn, refusal, runaway_repetition
from preflab.stats.diversity import distinct, repetition
from preflab.stats.results import Analysis, Estimate, ModelFigures, ScoreFigures
from preflab.stats.statistics import Floats, floats, mean_estimate, wilson_estimate
from preflab.stats.study import Answer, Study
from preflab.stats.tails import other_task
from preflab.studies.compare.depth import depth
from preflab.studies.compare.findings import findings

COUNTED: Mapping[str, Callable[[Answer], bool | None]] = {
    "hit_cap": lambda answer: answer.capped,
    "empty": lambda answer: not answer.text.strip(),
    "runaway_repetition": lambda answer: runaway_repetition(answer.text) is not None,
    "foreign_turn": lambda answer: foreign_turn(answer.text) is not None,
    "other_task": lambda answer: other_task(answer.text) is not None,
    "refusal": lambda answer: refusal(answer.text) is not None,
}
"""Name of a share (`wording.SHARES`) -> whether a response counts; None where it does not say."""

DISTINCT = (1, 2, 3)


def analyse(study: Study, *, seed: int = 0) -> Analysis:
    """Everything that tables, figures and report say of a study.

    The same study and seed (of the bootstrap) give the same figures. Raises UserError for a study without cases.
    """
    if not study.cases:
        raise UserError(f"{study.folder}: the study has no prompts, so there is nothing to analyse")
    data = frame(study, seed)
    models = tuple(model_figures(data, model.name) for model in study.models)
    all_contests = tuple(contests(data))
    tests = tuple(paired_tests(data))
    agreed = tuple(agreements(study, data.prompt_of, data.counts))
    depths = tuple(found for judge in study.judges if (found := depth(data, judge)))
    return Analysis(models, all_contests, tests, agreed, depths, findings(study, models, all_contests, agreed, depths))


def model_figures(data: Frame, model: str) -> ModelFigures:
    """One model's responses as text, and its scores."""
    answers = [case.answers[model] for case in data.study.cases]
    tokens = [words(answer.text) for answer in answers]
    # The share of distinct n-grams falls with the number of texts, so all models are measured on as many.
    first = np.unique(data.prompt_of, return_index=True)[1]
    return ModelFigures(
        name=model,
        prompts=data.prompts,
        responses=len(answers),
        words=_mean(data, data.lengths[model]),
        characters=_mean(data, np.array([float(len(answer.text)) for answer in answers])),
        tokens=mean_estimate(data.by_prompt(floats([answer.tokens for answer in answers])), data.counts),
        distinct={n: distinct([tokens[case] for case in first], n) for n in DISTINCT},
        repetition=_mean(data, np.array([repetition(text) for text in tokens])).value,
        shares={name: share for name, of in COUNTED.items() if (share := _share(data, [of(each) for each in answers]))},
        scores={judge.name: found for judge in data.study.scorers if (found := score_figures(data, judge.name, model))},
    )


def score_figures(data: Frame, scorer: str, model: str) -> ScoreFigures | None:
    """A scorer's numbers for a model's responses; None where it scored none of them."""
    scores = floats([case.answers[model].scores.get(scorer) for case in data.study.cases])
    mean = mean_estimate(data.by_prompt(scores), data.counts)
    if mean is None:
        return None
    known = ~np.isnan(scores)
    scores, lengths = scores[known], data.lengths[model][known]
    varied = np.ptp(scores) > 0 and np.ptp(lengths) > 0
    return ScoreFigures(
        mean=mean,
        std=float(scores.std()),
        length_pearson=float(pearsonr(lengths, scores).statistic) if varied else None,
        length_spearman=float(spearmanr(lengths, scores).statistic) if varied else None,
    )


def _mean(data: Frame, values: Floats) -> Estimate:
    estimate = mean_estimate(data.by_prompt(values), data.counts)
    assert estimate is not None
    return estimate


def _share(data: Frame, said: Sequence[bool | None]) -> Estimate | None:
    return wilson_estimate(data.by_prompt(floats(said)))
