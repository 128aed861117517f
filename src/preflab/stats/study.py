"""A study: what several models answered to the same prompts, with scores and verdicts, as rows of a folder.

    study.json                            who takes part: models, the baseline, scorers and judges
    prompts.jsonl                         {row, prompt, subset}: the prompts that all models answered
    responses/MODEL.jsonl                 {row, sample, prompt, response, tokens, finish}
    scores/SCORER/MODEL.jsonl             {row, sample, prompt, response, score}
    scores/SCORER/preference_data.jsonl   {row, prompt, chosen, rejected, score_chosen, score_rejected}
    verdicts/JUDGE/MODEL.json             a verdict file of the model against the baseline (`preflab.judging.verdicts`)
    training/MODEL.jsonl                  the metrics of the model's training
    training/MODEL.overlap.json           how many of its held-out rows and prompts were trained on as well
    as_run.json                           where prompts, models and judges come from (`preflab.core.origins`)

All of it can be read without a model; whatever `analysis/` and `report.html` say is made from these rows alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preflab.core.origins import AsRun
from preflab.core.records import Message, Outcome, SampleVerdict, unit_of
from preflab.core.ties import Precision, compare
from preflab.core.words import words
from preflab.stats.judgements import POINTS


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """What a study's figures and words need to know of a kind of judge.

    Attributes:
        words: what it is, in tables.
        rank: whose word comes first in a report: people and the truth, then those that are asked, then reward models,
            at which models may have been trained to please, and functions, which know one thing each.
        scores: whether it gives each response a number; the others compare two.
        is_trained: whether it is a model, which has seen training data.
        called: what it is called in a sentence; empty: `words`.
    """

    words: str
    rank: int
    scores: bool = False
    is_trained: bool = False
    called: str = ""


JUDGE_KINDS: Mapping[str, JudgeKind] = {
    "reward_model": JudgeKind("reward model", 2, scores=True, is_trained=True),
    "gold": JudgeKind("gold reward", 0, scores=True),
    "scorer": JudgeKind("scorer", 3, scores=True),
    "openai": JudgeKind("language model behind an API", 1, called="judge"),
    "hf": JudgeKind("local language model", 1, is_trained=True, called="judge"),
    "function": JudgeKind("function that compares", 1, called="judge"),
    "human": JudgeKind("human judge", 0),
}
"""The kinds of judges, as `study.json` names them."""


@dataclass(frozen=True, slots=True)
class Player:
    """A model that takes part: its name in the study, and what it was made from (a path, a hub id, a file)."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Judge:
    """Who says which response is better: a key of `JUDGE_KINDS`. A scorer (a reward model, a function) gives each
    response a number, the others compare two of them.

    Of a scorer, `precision` is that in which it computed (None: its numbers are exact) and `size` the root mean square
    of its scores: what lies between two scores that differ by more than rounding (`preflab.core.ties`).
    """

    name: str
    kind: str
    source: str
    precision: Precision | None = None
    size: float = 0.0

    @property
    def is_scorer(self) -> bool:
        return JUDGE_KINDS[self.kind].scores

    @property
    def is_trained(self) -> bool:
        return JUDGE_KINDS[self.kind].is_trained


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's response. `tokens` and `capped` (it hit the token cap) are None where its file does not say."""

    text: str
    tokens: int | None
    capped: bool | None
    scores: Mapping[str, float]

    @property
    def words(self) -> int:
        """Its length in words, as all figures of lengths count them."""
        return len(words(self.text))


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt (and the n-th sample of each model) with everybody's answer.

    `verdicts` is keyed by (judge, model) and always about the model against the study's baseline.
    """

    row: int
    sample: int
    prompt: tuple[Message, ...]
    subset: str | None
    answers: Mapping[str, Answer]
    verdicts: Mapping[tuple[str, str], SampleVerdict] = field(default_factory=dict)

    @property
    def sample_id(self) -> str:
        return f"{self.row}/{self.sample}"

    @property
    def asked(self) -> str:
        """The last turn of its prompt."""
        return self.prompt[-1].content if self.prompt else ""

    @property
    def unit(self) -> Hashable:
        """What it is counted by: its prompt, whatever its row, or the row where the text of the prompt is not known."""
        return unit_of(self.prompt) or self.row


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A pair of preference data as a scorer sees it."""

    row: int
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float


@dataclass(frozen=True)
class Study:
    """Everything that a comparison is made from. `models` begins with the baseline, `judges` with the main judge."""

    folder: Path
    title: str
    models: tuple[Player, ...]
    judges: tuple[Judge, ...]
    cases: tuple[Case, ...]
    preference_data: Mapping[str, tuple[ScoredPair, ...]]  # by scorer, in any order
    training: Mapping[str, list[dict[str, Any]]]  # by model: lines of metrics
    overlaps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by model: as its result.json has it
    as_run: AsRun = field(default_factory=AsRun)  # empty where an earlier version made the study

    @property
    def baseline(self) -> str:
        return self.models[0].name

    @property
    def scorers(self) -> tuple[Judge, ...]:
        """Reward models, gold, functions: what is shown "by the first scorer" is by the reward model, where there is
        one.
        """
        scorers = (judge for judge in self.judges if judge.is_scorer)
        return tuple(sorted(scorers, key=lambda judge: [*JUDGE_KINDS].index(judge.kind)))


def verdict(case: Case, judge: Judge, model: str, opponent: str, baseline: str) -> SampleVerdict | None:
    """What a judge says of `model` against `opponent` on a case; None where it did not judge these two.

    A scorer prefers the higher score, beyond what rounding explains, and can judge any two; a response that it could
    not score (an empty one) is an error. The others have compared every model with the baseline. The same text ties
    before everybody.
    """
    if not judge.is_scorer:
        return case.verdicts.get((judge.name, model)) if opponent == baseline else None
    difference = score_difference(case, judge, model, opponent)
    if difference is None:
        return SampleVerdict("error", None, None)
    outcome: Outcome = "win" if difference > 0 else "loss" if difference < 0 else "tie"
    return SampleVerdict(outcome, POINTS[outcome], None)


def score_difference(case: Case, judge: Judge, model: str, opponent: str) -> float | None:
    """What a scorer gives `model` more than `opponent` on a case, None where it could not score both. 0 where both gave
    the same text, or where rounding explains the difference.
    """
    if case.answers[model].text == case.answers[opponent].text:
        return 0.0
    ours, theirs = (case.answers[name].scores.get(judge.name) for name in (model, opponent))
    if ours is None or theirs is None:
        return None
    return 0.0 if better(judge, ours, theirs) == POINTS["tie"] else ours - theirs


def better(judge: Judge, first: float, second: float) -> float:
    """The points of one of a scorer's scores against another: 1, 1/2 where rounding explains the difference, or 0."""
    return float(compare(first, second, judge.precision, size=judge.size))
