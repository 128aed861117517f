"""The small frozen records that pass between the rooms of the house."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, where, and what would be right.

    The command line prints the message alone and exits with 2; any other exception is a defect of ours and shows its
    traceback.
    """


class RowError(UserError):
    """One row of the data cannot be used. `reason` is a short constant phrase, so that rows can be counted by it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prompt and its ranked responses, best first.

    Two or more responses are a ranking. A single one is a demonstration (for supervised fine-tuning), or, where `label`
    says whether it was wanted, an unpaired judgement. None is a prompt to answer. `row` counts from 1 in the source, so
    that a message can point at it.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    row: int = 0
    label: bool | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenizedComparison:
    """Token ids of a comparison: a prompt, and responses that continue it, each ending in the trained terminator.

    The prompt ids end where the assistant starts to speak. Every response token is a training target and no prompt
    token is one, so the split of the ids is the mask.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[tuple[int, ...], ...]
    row: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A response that a model generated. `finish` is "eos" if the model ended its turn, "length" at the token cap."""

    prompt: tuple[Message, ...]
    response: str
    sample: int
    tokens: int
    finish: Literal["eos", "length"]
    row: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
