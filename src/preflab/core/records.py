"""The small frozen records that pass between the rooms of the house."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, where, and what would be right.

    The command line prints the message alone and exits with 2; any other exception is a defect of ours and shows its
    traceback.
    """


class DisagreementError(UserError):
    """A file whose stored figures do not follow from its own rows. The command line exits with 3.

    `shown` is what a command found besides, to be printed before the message.
    """

    def __init__(self, message: str, shown: object = None) -> None:
        super().__init__(message)
        self.shown = shown


@dataclass(frozen=True)
class Amount:
    """What a training takes.

    Attributes:
        steps: optimizer steps.
        tokens: trained on, over all steps.
        seconds: of the first step on this device; None where it was not taken.
        memory: bytes at the peak, up to the end of that step; None where it was not taken, or cannot be known.
    """

    steps: int
    tokens: int
    seconds: float | None = None
    memory: int | None = None


def refuse_device(path: Path) -> None:
    """Raise UserError for what has no end to read to."""
    if path.is_char_device() or path.is_block_device():
        raise UserError(f"{path}: is a device, and no file")


class RowError(UserError):
    """One row of the data cannot be used. `reason` is a short constant phrase, so that rows can be counted by it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `reasoning` is what an assistant thought before its `content`, kept apart from it."""

    role: Role
    content: str
    reasoning: str = ""


def messages_to_json(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as all files have them: `[{"role": "user", "content": "…"}, …]`, with `reasoning_content` (the name
    that chat templates read) where a turn has reasoning.
    """
    return [
        {"role": message.role, "content": message.content}
        | ({"reasoning_content": message.reasoning} if message.reasoning else {})
        for message in messages
    ]


def messages_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The messages that `messages_to_json` wrote."""
    return tuple(Message(row["role"], row["content"], row.get("reasoning_content", "")) for row in rows)


def unit_of(prompt: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """What makes two prompts one: who says what in them. All statistics count by it.

    Responses to the same prompt are samples of it, in whatever rows they stand: they are not independent of each other.
    White space around a turn makes no other prompt, and neither does what was thought before it.
    """
    return tuple((message.role, message.content.strip()) for message in prompt)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prompt and its ranked responses, best first.

    Two or more responses are a ranking. A single one is a demonstration (for supervised fine-tuning), or, where `label`
    says whether it was wanted, an unpaired judgement. None is a prompt to answer. `row` counts from 1 in the source, so
    that a message can point at it. `reasoning` holds what was thought before each response ("" where nothing was), in
    their order; it is empty where no response has any. `scores` is what the data says of each response (more is
    better), () where it says nothing; the order of a pair may contradict it.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    row: int = 0
    label: bool | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    reasoning: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenizedComparison:
    """Token ids of a comparison: a prompt, and responses that continue it, each ending in the trained terminator.

    The prompt ids end where the assistant starts to speak. Every response token is a training target and no prompt
    token is one, so the split of the ids is the mask. `label` is that of the comparison.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[tuple[int, ...], ...]
    row: int = 0
    label: bool | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A response that a model generated. `finish` is "eos" if the model ended its turn, "length" at the token cap.

    `ids` are its tokens as they were sampled, without the one that ended it; `reasoning` is what the model thought
    before the response, apart from it.
    """

    prompt: tuple[Message, ...]
    response: str
    sample: int
    tokens: int
    finish: Literal["eos", "length"]
    row: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    ids: tuple[int, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a judgement is about: the model's response and its opponent's to one prompt. `sample_id` is "row/sample" in
    files of ours.
    """

    sample_id: str
    prompt: tuple[Message, ...]
    response: str
    opponent: str


Outcome = Literal["win", "tie", "loss", "error"]
"""What a judgement says of the model's response. An error is an unusable judgement: never a loss and never a tie."""

Order = Literal["model_first", "opponent_first"]

Winner = Literal["first", "second", "tie"]
"""Which of two responses a judge prefers, by the place in which it was shown."""


def outcome_of(winner: Winner, order: Order) -> Outcome:
    """What it says of the model that a judge prefers the response in this place."""
    if winner == "tie":
        return "tie"
    return "win" if (winner == "first") == (order == "model_first") else "loss"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judgement of a model's response against its opponent's, seen from the model's side.

    Attributes:
        sample_id: which prompt and sample it is about; "row/sample" in files of ours.
        outcome: win, tie or loss of the model; "error" with its `reason` where the judge gave nothing usable.
        order: which of the two the judge was shown first; None where it saw them apart, or is not known.
        preference: probability in [0, 1] that the model's response is the better one, where the judge gives one.
        text: what the judge wrote, as it came.
        reason: why there is no verdict, for an error.
    """

    sample_id: str
    outcome: Outcome
    order: Order | None = None
    preference: float | None = None
    text: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """What all judgements of one sample say together (it may have been judged in both orders).

    Attributes:
        outcome: win where `points` > 1/2, loss where < 1/2, tie where equal; error as soon as one judgement is one.
        points: mean over the judgements of 1 for a win, 1/2 for a tie, 0 for a loss, or of `preference` where there is
            one; None for an error.
        flipped: whether two orders gave opposite winners (a win in one and a loss in the other); None where not judged
            in both orders.
    """

    outcome: Outcome
    points: float | None
    flipped: bool | None
    judgements: tuple[Judgement, ...] = ()
