"""What an endpoint sent as a chat completion, checked before any of it is believed."""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from preflab.judging.parse import Reply


def whole_text(text: str) -> str:
    """`text` with every half of a surrogate pair, which no file can hold, replaced."""
    return re.sub(r"[\ud800-\udfff]", "\ufffd", text)


_Text = Annotated[str, BeforeValidator(lambda value: whole_text(value) if isinstance(value, str) else value)]
_ANSWERS = ("text", "output_text")
# A rounding error above 0 is a logarithm of a probability still.
_LogProbability = Annotated[float, Field(le=0.01)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)


class _Part(_Record):
    type: object = "text"  # or of what the judge thought
    text: _Text = ""


class _Message(_Record):
    content: _Text | list[_Part] | None = None
    refusal: _Text | None = None
    reasoning_content: object = None  # what the judge thought, as servers that part it from the reply call it
    reasoning: object = None


class _Candidate(_Record):
    token: _Text
    logprob: _LogProbability


class _Token(_Record):
    top_logprobs: list[_Candidate] | None = None


class _LogProbs(_Record):
    content: list[_Token] | None = None


class _Choice(_Record):
    message: _Message
    logprobs: _LogProbs | None = None
    finish_reason: object = None


class _Completion(_Record):
    choices: Annotated[list[_Choice], Field(min_length=1)]


def read_completion(body: bytes) -> Reply:
    """The first reply of a chat completion, without what the judge thought. Raises ValueError for what is none."""
    try:
        choice = _Completion.model_validate(json.loads(body)).choices[0]
    except RecursionError:
        raise ValueError("nested too deeply") from None
    message = choice.message
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content if part.type in _ANSWERS)
    thought = message.reasoning_content or message.reasoning  # whose tokens come first
    tokens = choice.logprobs.content if choice.logprobs and not thought else None
    first = {top.token: top.logprob for top in tokens[0].top_logprobs or ()} if tokens else None
    return Reply(content or message.refusal or "", first, cut=choice.finish_reason == "length")
