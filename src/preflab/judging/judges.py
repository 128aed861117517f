"""Who judges, ready to do it: language models that are asked, scorers, which prefer the higher score, and people.

Nothing here loads torch, which takes seconds, before a judge needs it (`preflab.judging.local_judges`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from preflab.core.config import Settings
from preflab.core.output import explaining_memory
from preflab.core.records import Comparison, Judgement, Pair
from preflab.core.rundir import append_jsonl, write_jsonl
from preflab.core.terminal import say
from preflab.core.ties import root_mean_square
from preflab.judging.cache import ReplyCache
from preflab.judging.endpoint import Endpoint
from preflab.judging.human import judge_by_hand
from preflab.judging.questions import read_question
from preflab.judging.run import Backend, Work, judge, plan
from preflab.judging.settings import AskingSettings
from preflab.judging.verdict_rows import OpponentWord, verdict_row
from preflab.sandbox.gold import gold_reward
from preflab.stats.judgements import leaning
from preflab.stats.study import Judge, better


@dataclass(frozen=True)
class Job:
    """What a file of verdicts is to hold.

    Attributes:
        pairs: to judge; their ids differ.
        earlier: judgements that were made before.
        journal: where a judgement that takes long to come by is added at once, as a row of a verdict file.
        opponent_word: what rows call the opponent.
    """

    pairs: Sequence[Pair]
    earlier: Sequence[Judgement]
    journal: Path
    opponent_word: OpponentWord


class Maker(Protocol):
    """A judge that is ready: made once, whatever it takes to load, and then given one set of pairs after the other."""

    @property
    def judge(self) -> Judge:
        """Which judge it is."""

    @property
    def settings(self) -> Settings:
        """Those of the settings that it goes by, for the manifest."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All that decides its judgements besides the pairs, for the verdict file."""

    @property
    def seed(self) -> int:
        """Of orders, and of sampling."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else the verdict file is to say of it."""

    def judgements(self, job: Job, /) -> Sequence[Judgement]:
        """All judgements, the earlier ones among them."""

    def is_final(self, job: Job, /) -> bool:
        """Whether a file with the earlier judgements is as good as it gets, and not to be gone on with."""


# ---- language models -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LanguageJudge:
    """A language model that is asked, and all that decides what it is asked and how its replies are read."""

    judge: Judge
    settings: AskingSettings
    seed: int
    backend: Backend
    question: str

    @property
    def parameters(self) -> dict[str, Any]:
        settings = self.settings
        asked = {"question": self.question, "orders": settings.orders, "verdict_from": settings.verdict_from}
        return {**self.backend.identity, **asked, "seed": self.seed}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    @cached_property
    def cache(self) -> ReplyCache:
        return ReplyCache(self.backend.identity)

    def plan(self, pairs: Sequence[Pair], earlier: Sequence[Judgement]) -> Work:
        return plan(
            pairs,
            self.cache,
            question=self.question,
            orders=self.settings.orders,
            verdict_from=self.settings.verdict_from,
            seed=self.seed,
            earlier=earlier,
        )

    def judgements(self, job: Job) -> Sequence[Judgement]:
        by_id = {pair.sample_id: pair for pair in job.pairs}

        def keep(found: Sequence[Judgement]) -> None:
            append_jsonl(job.journal, [verdict_row(each, by_id[each.sample_id], job.opponent_word) for each in found])

        work, verdict_from = self.plan(job.pairs, job.earlier), self.settings.verdict_from
        with explaining_memory(self.settings.concurrency, "concurrency"):
            return judge(work, self.backend, self.cache, verdict_from=verdict_from, keep=keep)

    def is_final(self, job: Job) -> bool:
        """Not with errors, which may go well another time."""
        return not any(judgement.outcome == "error" for judgement in job.earlier)


def openai_judge(judge: Judge, settings: AskingSettings, *, seed: int) -> LanguageJudge:
    """A model behind an OpenAI-compatible endpoint."""
    first_token = settings.verdict_from == "first_token"
    endpoint = Endpoint(
        judge.source,
        temperature=settings.judge_temperature,
        max_tokens=reply_cap(settings),
        first_token=first_token,
        concurrency=settings.concurrency,
        requests_per_minute=settings.requests_per_minute,
        timeout=settings.timeout,
        retries=settings.retries,
    )
    return LanguageJudge(judge, settings, seed, endpoint, read_question(settings.question))


def reply_cap(settings: AskingSettings) -> int:
    """Most tokens of a judge's reply."""
    return 1 if settings.verdict_from == "first_token" else settings.judge_max_tokens


# ---- scorers -------------------------------------------------------------------------------------------------------

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

    def judgements(self, job: Job) -> Sequence[Judgement]:
        asked = {
            (pair.prompt, text): None
            for pair in job.pairs
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

        return [judgement(pair) for pair in job.pairs]

    def is_final(self, _: Job) -> bool:
        return True


def gold_judge(judge: Judge, *, seed: int) -> ScoringJudge:
    """The sandbox's own reward."""
    return ScoringJudge(judge, Settings(), seed, {}, _gold_scores)


def _gold_scores(comparisons: Sequence[Comparison]) -> dict[int, float | str]:
    return {item.row: gold_reward(item.prompt[-1].content, item.responses[0]) for item in comparisons}


def _preferred(judge: Judge, pair: Pair, ours: float | str, theirs: float | str) -> Judgement:
    if isinstance(ours, str) or isinstance(theirs, str):
        sides = {"the model's response": ours, "the opponent's response": theirs}
        reasons = [f"{side} could not be scored ({why})" for side, why in sides.items() if isinstance(why, str)]
        return Judgement(pair.sample_id, "error", reason="; ".join(reasons))
    outcome = leaning(better(judge, ours, theirs))
    return Judgement(pair.sample_id, outcome, text=f"score of the model {ours:g}, of the opponent {theirs:g}")


# ---- people --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HumanJudge:
    """A person, at a page on this computer, who may stop before all is judged and go on another day."""

    judge: Judge
    seed: int

    @property
    def settings(self) -> Settings:
        return Settings()

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"seed": self.seed}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    def judgements(self, job: Job) -> Sequence[Judgement]:
        word = job.opponent_word
        if job.earlier and not job.journal.exists():  # of a file that was finished before all was judged
            by_id = {pair.sample_id: pair for pair in job.pairs}
            judged = [(found, by_id[found.sample_id]) for found in job.earlier]
            asked = [(found, pair) for found, pair in judged if pair.response != pair.opponent]
            write_jsonl(job.journal, [verdict_row(found, pair, word) for found, pair in asked])
        return judge_by_hand(job.pairs, job.journal, opponent_word=word, seed=self.seed, announce=_announce)

    def is_final(self, job: Job) -> bool:
        return len(job.earlier) == len(job.pairs)


def _announce(address: str) -> None:
    say(f"open {address} in a browser on this computer to judge")
