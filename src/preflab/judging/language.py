"""Judges that are asked which of two responses is better, in one order or both, and whose replies are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from preflab.core.output import explaining_memory
from preflab.core.records import Judgement, Order, Pair, Winner
from preflab.core.rundir import append_jsonl
from preflab.judging.cache import ReplyCache
from preflab.judging.orders import Orders, VerdictFrom
from preflab.judging.parse import Reply, read_reply
from preflab.judging.protocol import JudgeRequest
from preflab.judging.questions import judge_prompt, read_question
from preflab.judging.run import Asking, Backend, Work, judge, plan
from preflab.judging.settings import AskingSettings
from preflab.judging.verdict_rows import verdict_row
from preflab.stats.study import Judge


@dataclass(frozen=True)
class AskedJudge:
    """A judge that is asked: who replies, and what it is asked and how its replies are read.

    `described` says the latter for the verdict file.
    """

    judge: Judge
    settings: AskingSettings
    seed: int
    backend: Backend
    asking: Asking
    described: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        return {**self.backend.identity, **self.described, "seed": self.seed}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    @cached_property
    def cache(self) -> ReplyCache:
        return ReplyCache(self.backend.identity)

    def plan(self, pairs: Sequence[Pair], earlier: Sequence[Judgement]) -> Work:
        return plan(pairs, self.cache, self.asking, earlier=earlier)

    def judgements(self, request: JudgeRequest) -> Sequence[Judgement]:
        by_id = {pair.sample_id: pair for pair in request.pairs}

        def keep(found: Sequence[Judgement]) -> None:
            rows = [verdict_row(each, by_id[each.sample_id], request.opponent_word) for each in found]
            append_jsonl(request.journal, rows)

        work = self.plan(request.pairs, request.earlier)
        with explaining_memory(self.settings.concurrency, "concurrency"):
            return judge(work, self.backend, self.cache, read=self.asking.read, keep=keep)

    def is_final(self, request: JudgeRequest) -> bool:
        """Not with errors, which may go well another time."""
        return not any(judgement.outcome == "error" for judgement in request.earlier)


def language_judge(judge: Judge, settings: AskingSettings, seed: int, backend: Backend) -> AskedJudge:
    """A language model as a judge."""
    question = read_question(settings.question)
    asking = framed(question, settings.orders, settings.verdict_from, seed)
    described = {"question": question, "orders": settings.orders, "verdict_from": settings.verdict_from}
    return AskedJudge(judge, settings, seed, backend, asking, described)


def framed(question: str, orders: Orders, verdict_from: VerdictFrom, seed: int) -> Asking:
    """How a language model is asked: in the frame of `preflab.judging.questions` around the two responses."""

    def prompt(pair: Pair, order: Order) -> str:
        return judge_prompt(question, pair, order, verdict_from)

    def read(reply: Reply) -> tuple[Winner, float | None]:
        return read_reply(reply, verdict_from)

    return Asking(orders, seed, prompt, read, even=None if verdict_from == "text" else 0.5)


def reply_cap(settings: AskingSettings) -> int:
    """Most tokens of a judge's reply."""
    return 1 if settings.verdict_from == "first_token" else settings.judge_max_tokens
