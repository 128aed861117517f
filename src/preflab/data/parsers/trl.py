"""TRL's types of preference data, and files that are read alike."""

from __future__ import annotations

import re
from dataclasses import replace

from preflab.core.records import Comparison, RowError
from preflab.data.fields import Row, number, present, text
from preflab.data.messages import conversation, messages, of_replies, user
from preflab.data.parsers.sides import refuse_other_prompt, reply, shared


def trl(row: Row) -> Comparison:
    prompt = conversation(row, "prompt")
    return of_replies(prompt, (reply(row, "chosen", prompt), reply(row, "rejected", prompt)))


def trl_implicit(row: Row) -> Comparison:
    """The prompt is what both sides begin with: whole messages, or text up to the last blank before they part."""
    if isinstance(present(row, "chosen"), list):
        prompt = messages(row, "chosen")
        prompt = prompt[: shared(prompt, messages(row, "rejected"))]
        if prompt and prompt[-1].role == "assistant":
            prompt = prompt[:-1]  # both sides give the same answer; said below, as "identical responses"
        return of_replies(prompt, (reply(row, "chosen", prompt), reply(row, "rejected", prompt)))
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    if chosen == rejected:
        raise RowError("identical responses", "`chosen` and `rejected` are the same text")
    common = re.match(r"(.*)\s", chosen[: shared(chosen, rejected)], re.DOTALL)
    if common is None:
        raise RowError(
            "empty prompt", "`chosen` and `rejected` do not begin with the same words, and there is no `prompt`"
        )
    return Comparison(user(common[1].rstrip()), (chosen[common.end() :].lstrip(), rejected[common.end() :].lstrip()))


def ultrafeedback(row: Row) -> Comparison:
    """The prompt once more as text beside whole conversations."""
    found = trl_implicit(row)
    refuse_other_prompt(row, found.prompt)
    return found


def rewardbench(row: Row) -> Comparison:
    """RewardBench's per-pair results: both sides are whole rendered conversations."""
    found = trl_implicit({"chosen": present(row, "text_chosen"), "rejected": present(row, "text_rejected")})
    return replace(found, meta={name: number(row, name) for name in ("scores_chosen", "scores_rejected")})
