"""A scorer as judge, a function or a reward model: it scores the two responses apart, and the higher score wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from preflab.core.config import Settings
from preflab.core.records import Comparison, Judgement, Pair
from preflab.core.ties import root_mean_square
from preflab.judging.players import own_name, short_name
from preflab.judging.protocol import JudgeRequest, Kind
from preflab.judging.settings import JudgingSettings, ScoringSettings, narrowed
from preflab.rewards.scorers import Scorer, find_scorer
from preflab.stats.judgements import leaning
from preflab.stats.study import Judge, better
from preflab.training.as_run import model_of

if TYPE_CHECKING:  # what loads torch
    from preflab.model.in_memory import InMemory

NOT_SCORED = "(not scored: the two responses are the same)"

Scores = Callable[[Sequence[Comparison]], dict[int, float | str]]
"""Comparisons with one response each -> by their row the score, or why there is none."""


@dataclass(frozen=True)
class ScoringJudge:
    """A scorer, which scores the two responses apart: the higher score wins. The same text has one score, and what
    rounding explains (`judge.precision`) is a tie.
    """

    judge: Judge
    settings: Settings
    seed: int
    parameters: Mapping[str, Any]
    scores: Scores

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"precision": self.judge.precision}

    def judgements(self, request: JudgeRequest) -> Sequence[Judgement]:
        asked = {
            (pair.prompt, text): None
            for pair in request.pairs
            if pair.response != pair.opponent
            for text in (pair.response, pair.opponent)
        }
        numbers = {each: number for number, each in enumerate(asked)}
        found = self.scores([Comparison(prompt, (text,), number) for (prompt, text), number in numbers.items()])
        judge = replace(self.judge, size=root_mean_square(each for each in found.values() if not isinstance(each, str)))

        def judgement(pair: Pair) -> Judgement:
            if pair.response == pair.opponent:
                return Judgement(pair.sample_id, "tie", text=NOT_SCORED)
            ours, theirs = (found[numbers[pair.prompt, text]] for text in (pair.response, pair.opponent))
            return _preferred(judge, pair, ours, theirs)

        return [judgement(pair) for pair in request.pairs]

    def is_final(self, _: JudgeRequest) -> bool:
        return True


def _preferred(judge: Judge, pair: Pair, ours: float | str, theirs: float | str) -> Judgement:
    if isinstance(ours, str) or isinstance(theirs, str):
        sides = {"the model's response": ours, "the opponent's response": theirs}
        reasons = [f"{side} could not be scored ({why})" for side, why in sides.items() if isinstance(why, str)]
        return Judgement(pair.sample_id, "error", reason="; ".join(reasons))
    outcome = leaning(better(judge, ours, theirs))
    return Judgement(pair.sample_id, outcome, text=f"score of the model {ours:g}, of the opponent {theirs:g}")


def read_scorer(source: str, name: str | None) -> Judge:
    """`length`, `gold`, `mine.py:score`, or a reward model's folder or hub id -> the judge."""
    if find_scorer(source) is None:
        return Judge(name or short_name(source), "reward_model", model_of(source))
    return Judge(name or own_name(source), "gold" if source == "gold" else "scorer", source)


def make_scorer(judge: Judge, settings: JudgingSettings, seed: int, held: InMemory | None = None) -> ScoringJudge:
    """A scorer as a judge; of a reward model, loaded, or the one that is `held` in memory."""
    scorer = None if held else find_scorer(judge.source)
    return _reward_model(judge, settings, seed, held) if scorer is None else _function(judge, scorer, settings, seed)


def _function(judge: Judge, scorer: Scorer, settings: JudgingSettings, seed: int) -> ScoringJudge:
    def scores(comparisons: Sequence[Comparison]) -> dict[int, float | str]:
        prompts, responses = [item.prompt for item in comparisons], [item.responses[0] for item in comparisons]
        values = scorer.scores(prompts, responses, batch_size=settings.batch_size)
        return {item.row: value for item, value in zip(comparisons, values, strict=True)}

    own = {"code": scorer.fingerprint} if judge.kind == "scorer" else {}
    return ScoringJudge(judge, Settings(), seed, own, scores)


def _reward_model(judge: Judge, settings: JudgingSettings, seed: int, held: InMemory | None) -> ScoringJudge:
    """It scores as `preflab score` does."""
    from preflab.sample.reward_model import load_reward_model  # which loads torch

    model = load_reward_model(
        judge.source,
        chat_template=settings.judge_chat_template,
        chat_template_kwargs=settings.judge_chat_template_kwargs,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        max_length=settings.max_length,
        max_prompt_length=settings.max_prompt_length,
        batch_size=settings.batch_size,
        held=held,
    )
    chosen = narrowed(settings, ScoringSettings)
    return ScoringJudge(replace(judge, precision=model.precision), chosen, seed, model.parameters, model.scores)


def check_scorer(judge: Judge, settings: JudgingSettings) -> None:
    """Raise UserError where a reward model has no tokenizer that can be loaded."""
    if judge.kind == "reward_model":
        from preflab.model.tokenizers import load_tokenizer  # which loads transformers

        load_tokenizer(judge.source, trust_remote_code=settings.trust_remote_code)


KIND = Kind(read_scorer, make_scorer, check_scorer)
