"""The figures of a study, as frozen records: what `analyse` makes of the rows, and tables, figures and report show.

Every interval covers 95 %. n counts prompts (several samples of one prompt are not independent of each other).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its 95 % interval, and the number of prompts that it rests on."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class ScoreFigures:
    """A scorer's numbers for one model's responses; correlations are None where one side does not vary. `std` is over
    responses, of the population (divided by n).
    """

    mean: Estimate
    std: float
    length_pearson: float | None
    length_spearman: float | None


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model's responses as text.

    Attributes:
        words, characters, tokens: mean lengths of a response; tokens are None where its file does not say.
        distinct: n -> distinct n-grams / n-grams over the first response to each prompt (Li et al., 2016), n = 1, 2, 3.
        repetition: mean share of a response's four-word runs that stood in it before.
        shares: hit_cap, empty, runaway_repetition, foreign_turn, other_task, refusal -> share of responses; hit_cap is
            left out where the file does not say.
        scores: by scorer.
    """

    name: str
    prompts: int
    responses: int
    words: Estimate
    characters: Estimate
    tokens: Estimate | None
    distinct: Mapping[int, float]
    repetition: float
    shares: Mapping[str, Estimate]
    scores: Mapping[str, ScoreFigures]


@dataclass(frozen=True, slots=True)
class Contest:
    """A model against an opponent before one judge.

    Attributes:
        wins, ties, losses, errors: samples. Responses with the same text tie, and so do scores that differ by rounding.
        win_rate: mean points (ties, and orders that contradict each other, count half; errors are left out), with
            its bootstrap interval over prompts; None where nothing was judged.
        wilson: Wilson's interval of the same rate.
        p_value: two-sided sign test of wins against losses over prompts.
        difference: mean of score(model) − score(opponent), for scorers; `difference_std` its standard deviation over
            cases (of the population: divided by n).
        flip_rate: share of samples judged in both orders whose winner changed with the order.
        longer, shorter, same_length: win rate where the model's response has more, fewer, as many words as the
            opponent's.
        by_length: how many words more the model's response has ("−12 to −3") -> win rate there, with Wilson's interval.
        length_controlled: win rate expected at equal lengths, by logistic regression as in AlpacaEval 2 (Dubois et
            al., 2024); None where it cannot be told.
        length_controlled_note: a sentence that says why it cannot be told, or why to read it with care; else empty.
        subsets: win rate by subset, where prompts have one.
        definition: which of the usual win rates all of these are (`preflab.stats.definitions`).
    """

    model: str
    opponent: str
    judge: str
    wins: int
    ties: int
    losses: int
    errors: int
    win_rate: Estimate | None
    wilson: tuple[float, float] | None
    p_value: float | None
    difference: Estimate | None
    difference_std: float | None
    flip_rate: Estimate | None
    longer: Estimate | None
    shorter: Estimate | None
    same_length: Estimate | None
    by_length: Mapping[str, Estimate]
    length_controlled: Estimate | None
    length_controlled_note: str
    subsets: Mapping[str, Estimate]
    definition: str


@dataclass(frozen=True, slots=True)
class PairedTest:
    """McNemar's exact test: do two models beat the same opponent on different numbers of prompts?"""

    judge: str
    opponent: str
    first: str
    second: str
    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two judges name the same winner where both named one (`accuracy`), how often they say the same of win,
    tie and loss (`same`), and Cohen's κ over win, tie and loss, which is that beyond chance.
    """

    first: str
    second: str
    accuracy: Estimate | None
    kappa: Estimate | None
    same: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """Is a reward model out of its depth on generated text? Its scores there beside those of preference data.

    Attributes:
        accuracy: share of preference pairs that it ranks as people did.
        length_accuracy: what "the longer one is better" would reach on the same pairs.
        mean, std, low, high: of its scores of preference data; low and high are the 1 % and 99 % quantiles.
        outside: model -> share of its responses with a score beyond low or high.
        shift: model -> (mean score − mean on preference data) / std on preference data.
        statement: the reading in one plain sentence.
        out_of_depth: whether it names a sign of extrapolation.
    """

    scorer: str
    accuracy: Estimate
    length_accuracy: float
    mean: float
    std: float
    low: float
    high: float
    outside: Mapping[str, Estimate]
    shift: Mapping[str, float]
    statement: str
    out_of_depth: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the report's first screen. `tone` is how it should be read, never a colour alone."""

    text: str
    tone: str  # "good", "bad", "neutral", "warning"


@dataclass(frozen=True, slots=True)
class Analysis:
    """All figures of a study. Contests come in the order: main judge first, models in the order of the study."""

    models: tuple[ModelFigures, ...]
    contests: tuple[Contest, ...]
    paired_tests: tuple[PairedTest, ...]
    agreements: tuple[Agreement, ...]
    depth: tuple[Depth, ...]
    findings: tuple[Finding, ...]

    def contest(self, judge: str, model: str, opponent: str) -> Contest | None:
        """The contest of these two before this judge, or None."""
        found = (c for c in self.contests if (c.judge, c.model, c.opponent) == (judge, model, opponent))
        return next(found, None)
