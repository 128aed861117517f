"""Judging: which judgements there are to make, which are made already, and the rest, each kept once it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from preflab.core.records import Judgement, Order, Pair, Winner, outcome_of
from preflab.core.terminal import progress_bar
from preflab.judging.cache import ReplyCache
from preflab.judging.orders import BOTH, IDENTICAL, Orders, draw_order
from preflab.judging.parse import Failure, Reply, UnusableReplyError

LOST_IN_A_ROW = 20  # judgements that fail one after the other before it is taken that all would fail

Key = tuple[str, Order]
Keep = Callable[[Sequence[Judgement]], None]
Read = Callable[[Reply], tuple[Winner, float | None]]
"""A reply -> which of the two is better, perhaps with the probability that it is the first; or UnusableReplyError."""


class Backend(Protocol):
    """Something that replies to prompts: an endpoint, a model in this process, or a function."""

    @property
    def identity(self) -> Mapping[str, object]:
        """All that decides a reply besides the prompt."""

    def count_tokens(self, prompt: str) -> int | None:
        """Tokens of a prompt, None where only the endpoint could say."""

    def ask(
        self,
        prompts: Sequence[str],
        read: Callable[[Reply], object],
        report: Callable[[int, Reply | Failure], None],
    ) -> None:
        """Report a reply that `read` accepts, or a Failure, for each prompt, once each, as soon as it is known."""


@dataclass(frozen=True)
class Asking:
    """How a judge is asked about pairs, and how its replies are read.

    Attributes:
        seed: of random orders.
        prompt: what it is asked about a pair, shown in this order.
        even: the preference that a tie of two responses with the same text has, which nobody is asked about.
    """

    orders: Orders
    seed: int
    prompt: Callable[[Pair, Order], str]
    read: Read
    even: float | None = None


@dataclass(frozen=True)
class Work:
    """The judgements of a file: `wanted` in the order of the file, those that are `settled`, and what to ask for the
    rest. Judgements that ask the same (of a prompt and responses that came twice) wait for one reply together.
    """

    wanted: tuple[Key, ...]
    settled: dict[Key, Judgement]
    cached: int
    waiting: Mapping[str, tuple[Key, ...]]  # by the prompt to the judge


def plan(pairs: Sequence[Pair], cache: ReplyCache, asking: Asking, *, earlier: Sequence[Judgement] = ()) -> Work:
    """What there is to judge, and what of it is known: from `earlier` judgements (errors are tried again), from the
    cache, or because the two responses are the same text, which is a tie without asking.
    """
    known = {(judgement.sample_id, judgement.order): judgement for judgement in earlier if judgement.outcome != "error"}
    wanted: list[Key] = []
    settled: dict[Key, Judgement] = {}
    waiting: dict[str, tuple[Key, ...]] = {}
    cached = 0
    for pair in pairs:
        for order in BOTH if asking.orders == "both" else (draw_order(asking.seed, pair.sample_id),):
            key = (pair.sample_id, order)
            wanted.append(key)
            if key in known:
                settled[key] = known[key]
                continue
            if pair.response == pair.opponent:
                settled[key] = Judgement(pair.sample_id, "tie", order, preference=asking.even, text=IDENTICAL)
                continue
            prompt = asking.prompt(pair, order)
            reply = cache.get(cache.key(prompt))
            judgement = reply and _judgement(key, reply, asking.read)
            if judgement and judgement.outcome != "error":
                settled[key] = judgement
                cached += 1
            else:
                waiting[prompt] = (*waiting.get(prompt, ()), key)
    return Work(tuple(wanted), settled, cached, waiting)


def judge(work: Work, backend: Backend, cache: ReplyCache, *, read: Read, keep: Keep) -> list[Judgement]:
    """All judgements that are wanted, in their order; those that are waiting are asked for now.

    Each is in the cache, and kept by `keep`, before the next is looked at, so whatever ends this ends it without loss.
    A judgement that fails stays out of both, and comes back as an error with its reason.
    """
    prompts = list(work.waiting)
    found = dict(work.settled)
    errors = 0

    def report(index: int, outcome: Reply | Failure) -> None:
        nonlocal errors
        prompt = prompts[index]
        judged = [_judgement(key, outcome, read) for key in work.waiting[prompt]]
        if isinstance(outcome, Reply):
            cache.add(cache.key(prompt), prompt, outcome)
            keep(judged)
        else:
            errors += len(judged)
        found.update(zip(work.waiting[prompt], judged, strict=True))
        bar.update(task, completed=len(found), shown=f"{errors} errors" if errors else "")

    with progress_bar(disable=not prompts) as bar:
        task = bar.add_task("judgements", total=len(work.wanted), completed=len(found), shown="")
        backend.ask(prompts, read, report)
    assert len(found) == len(work.wanted), "every judgement is reported, one way or the other"
    return [found[key] for key in work.wanted]


def _judgement(key: Key, outcome: Reply | Failure, read: Read) -> Judgement:
    """A reply as a judgement of the model; without a verdict in it, as an error."""
    sample_id, order = key
    if isinstance(outcome, Failure):
        return Judgement(sample_id, "error", order, text=outcome.text, reason=outcome.reason)
    try:
        winner, preference = read(outcome)
    except UnusableReplyError as error:
        return Judgement(sample_id, "error", order, text=outcome.text, reason=str(error))
    if preference is not None and order == "opponent_first":
        preference = 1 - preference
    return Judgement(sample_id, outcome_of(winner, order), order, preference, outcome.text)
