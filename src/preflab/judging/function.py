"""A judge of the user's own: a function, `file.py:function` or an installed package's, asked as any judge is.

    def judge(prompt: Sequence[Message], first: str, second: str) -> str | float

It returns "A" where the first response is better, "B" where the second one is, or "tie"; or else the probability that
the first one is better. It is asked in both orders, what it said is kept by content, and a pair on which it fails is an
error with the reason, to be asked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preflab.core.plugins import FAILURES, Plugin, load
from preflab.core.records import Order, Pair, UserError, Winner, messages_from_json, messages_to_json
from preflab.data.fields import excerpt
from preflab.judging.language import AskedJudge
from preflab.judging.parse import Failure, Reply, UnusableReplyError
from preflab.judging.players import own_name
from preflab.judging.protocol import Kind
from preflab.judging.run import LOST_IN_A_ROW, Asking
from preflab.judging.settings import AskingSettings, JudgingSettings
from preflab.stats.study import Judge

_WINNERS: Mapping[str, Winner] = {"A": "first", "B": "second", "tie": "tie"}
_RIGHT = '"A" (the first is better), "B", "tie", or the probability that the first is better, is needed'


@dataclass(frozen=True)
class FunctionBackend:
    """The function in the place of a model: its prompts are JSON, and its replies what it returned, as text."""

    name: str
    plugin: Plugin

    @property
    def identity(self) -> Mapping[str, object]:
        return {"model": self.name, "code": self.plugin.fingerprint}

    def count_tokens(self, _: str) -> int:
        return 0

    def ask(
        self,
        prompts: Sequence[str],
        read: Callable[[Reply], object],
        report: Callable[[int, Reply | Failure], None],
    ) -> None:
        """Call the function for each prompt; see `preflab.judging.run.Backend`.

        Raises UserError after `LOST_IN_A_ROW` failures one after the other: then it is the function that is wrong.
        """
        lost = 0
        for index, prompt in enumerate(prompts):
            asked = json.loads(prompt)
            outcome: Reply | Failure
            try:
                returned = self.plugin.value(messages_from_json(asked["prompt"]), asked["first"], asked["second"])
                outcome = Reply(_text(returned))
                read(outcome)
            except UnusableReplyError:
                outcome = Failure(f"{self.name} returned {excerpt(returned)}; {_RIGHT}")
            except FAILURES as error:
                outcome = Failure(f"{self.plugin.place(error)}: {type(error).__name__}: {error}")
            lost = lost + 1 if isinstance(outcome, Failure) else 0
            report(index, outcome)
            if isinstance(outcome, Failure) and lost >= LOST_IN_A_ROW:
                raise UserError(f"{outcome.reason} ({lost} times in a row); what has been judged is kept")


def _text(returned: Any) -> str:
    """What the function returned, as a reply that says the same when it is read from the cache."""
    if isinstance(returned, str):
        return returned if returned in _WINNERS else ""
    try:
        return "" if isinstance(returned, bool) else repr(float(returned))
    except (TypeError, ValueError):
        return ""


def _read(reply: Reply) -> tuple[Winner, float | None]:
    if reply.text in _WINNERS:
        return _WINNERS[reply.text], None
    try:
        preference = float(reply.text)
    except ValueError:
        raise UnusableReplyError(_RIGHT) from None
    if not 0 <= preference <= 1:
        raise UnusableReplyError(_RIGHT)
    return "first" if preference > 0.5 else "second" if preference < 0.5 else "tie", preference


def _prompt(pair: Pair, order: Order) -> str:
    first, second = (pair.response, pair.opponent) if order == "model_first" else (pair.opponent, pair.response)
    return json.dumps({"prompt": messages_to_json(pair.prompt), "first": first, "second": second})


def read_function(spec: str, name: str | None) -> Judge:
    return Judge(name or own_name(spec), "function", spec)


def make_function(judge: Judge, settings: JudgingSettings, seed: int) -> AskedJudge:
    orders = settings.orders
    backend = FunctionBackend(own_name(judge.source), _load(judge.source))
    asking = Asking(orders, seed, _prompt, _read)
    return AskedJudge(judge, AskingSettings(orders=orders), seed, backend, asking, {"orders": orders})


def check_function(judge: Judge, _: JudgingSettings) -> None:
    """Raise UserError where there is no such function."""
    _load(judge.source)


def _load(spec: str) -> Plugin:
    plugin = load(spec, "judges", {})
    if not callable(plugin.value):
        raise UserError(f"{plugin.where}: {spec} is {excerpt(plugin.value)}; a judge is a function")
    return plugin


KIND = Kind(read_function, make_function, check_function, is_asked=True)
