"""From what a judge replied to a verdict. What is not plainly a verdict is none: never a tie, and never a loss."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from preflab.core.records import Winner
from preflab.data.thinking import after_thinking
from preflab.judging.orders import VerdictFrom


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge replied.

    Attributes:
        text: as it came; what a judge thinks before it, in tags or channels, is not read.
        first_token: log-probabilities of what its first token might have been, where they were asked for.
        cut: whether the text ends because it reached the token cap.
    """

    text: str
    first_token: Mapping[str, float] | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no verdict, and what the judge replied, if it did."""

    reason: str
    text: str = ""


class UnusableReplyError(Exception):
    """A reply holds no verdict; the message says why."""


# Around the word, what a model may add without saying something else: Markdown, quotes, brackets, a full stop. Only
# ASCII letters are compared without regard to case, so that no look-alike passes; the colon may be a full-width one.
_TRIMMINGS = r"[\s*_`#>\"'()\[\].!-]*"
_VERDICT = re.compile(
    rf"{_TRIMMINGS}(?:final )?verdict{_TRIMMINGS}[:\uff1a]{_TRIMMINGS}(FIRST|SECOND|TIE){_TRIMMINGS}",
    re.ASCII | re.IGNORECASE,
)
_WINNERS: Mapping[str, Winner] = {"first": "first", "second": "second", "tie": "tie"}
_SHOWN = 80


def read_reply(reply: Reply, verdict_from: VerdictFrom) -> tuple[Winner, float | None]:
    """Which submission a judge prefers; from the first token also the probability in [0, 1] that it is the first one.

    Raises UnusableReplyError.
    """
    if verdict_from == "text":
        return _read_text(reply), None
    preference = _read_first_token(reply)
    return "first" if preference > 0.5 else "second" if preference < 0.5 else "tie", preference


def _read_text(reply: Reply) -> Winner:
    """The verdict in the last line that is not empty; another one further up must not contradict it."""
    lines = [line for line in after_thinking(reply.text).splitlines() if line.strip()]
    if not lines and reply.cut:
        raise UnusableReplyError(
            "the reply was cut off at the token cap (judge_max_tokens) while the judge was thinking"
        )
    if not lines:
        thinking = reply.text.strip() != ""
        raise UnusableReplyError("the reply ends within the judge's thinking" if thinking else "the reply is empty")
    found = [_WINNERS[match[1].lower()] for line in lines if (match := _VERDICT.fullmatch(line))]
    if not _VERDICT.fullmatch(lines[-1]):
        if reply.cut:
            raise UnusableReplyError("the reply was cut off at the token cap before its verdict")
        last = lines[-1].strip()
        shown = repr(last if len(last) <= _SHOWN else last[: _SHOWN - 1] + "…")
        raise UnusableReplyError(f"the last line of the reply is no verdict: {shown}")
    if len(set(found)) > 1:
        raise UnusableReplyError(f"the reply holds verdicts that contradict each other: {', '.join(found)}")
    return found[-1]


def _read_first_token(reply: Reply) -> float:
    """P(A) / (P(A) + P(B)), over all tokens that read A, or B, but for white space."""
    if not reply.first_token:
        raise UnusableReplyError(
            "the endpoint gave no log-probabilities of an answer, which verdict_from first_token needs"
        )
    first, second = (
        math.fsum(math.exp(logp) for token, logp in reply.first_token.items() if token.strip() == letter)
        for letter in "AB"
    )
    if not first + second > 0:
        likely = ", ".join(repr(token) for token in list(reply.first_token)[:3])
        raise UnusableReplyError(f"neither A nor B is among the likely first tokens ({likely}…)")
    return first / (first + second)
