"""Transcripts as in Anthropic's hh-rlhf."""

from __future__ import annotations

import re

from preflab.core.records import Comparison, Message, RowError
from preflab.data.fields import Row, excerpt, text
from preflab.data.parsers.sides import refuse_other_prompt, shared

_TURN = re.compile(r"\n\n(Human|Assistant):")
_REPLY = "\n\nAssistant:"


def hh(row: Row) -> Comparison:
    """Two transcripts that differ in their last turn only, the assistant's. The space after a speaker is not text."""
    transcripts = [_transcript(row, name) for name in ("chosen", "rejected")]
    (prompt, best), (other_prompt, worst) = (_last_reply(transcript) for transcript in transcripts)
    if prompt != other_prompt:
        parted = shared(*transcripts)
        raise RowError("prompts differ", f"the transcripts part at character {parted}, before their last `Assistant:`")
    turns = _turns(prompt)
    refuse_other_prompt(row, turns)
    return Comparison(turns, (best, worst))


def is_transcript(row: Row) -> bool:
    names = ("chosen", "rejected")
    return all(isinstance(row.get(name), str) for name in names) and all(
        _TURN.match(transcript) and _REPLY in transcript for transcript in (_transcript(row, name) for name in names)
    )


def _transcript(row: Row, name: str) -> str:
    """Some copies of the data strip the leading blank lines, and some keep the earlier turns in a column `prompt`."""
    transcript, prompt = text(row, name), row.get("prompt")
    if isinstance(prompt, str) and not _TURN.match(f"\n\n{transcript.lstrip()}"):
        transcript = prompt + transcript
    return f"\n\n{transcript.lstrip()}"


def _last_reply(transcript: str) -> tuple[str, str]:
    prompt, mark, reply = transcript.rpartition(_REPLY)
    if not mark:
        raise RowError("not a transcript", r"there is no `\n\nAssistant:` in it")
    if _TURN.search(reply):
        raise RowError("not a transcript", "the last turn is not the assistant's")
    return prompt, reply.removeprefix(" ")


def _turns(transcript: str) -> tuple[Message, ...]:
    before, *rest = _TURN.split(transcript)
    if before.strip() or not rest:
        raise RowError("not a transcript", rf"it begins with {excerpt(transcript, 30)}, not with `\n\nHuman:`")
    speakers, contents = rest[::2], rest[1::2]
    return tuple(
        Message("user" if speaker == "Human" else "assistant", content.removeprefix(" "))
        for speaker, content in zip(speakers, contents, strict=True)
    )


def transcript_prompt(text: str) -> tuple[Message, ...]:
    """The turns of a transcript that ends where the assistant is to speak; none where a text is no such thing."""
    start, end = f"\n\n{text.strip()}", _REPLY
    return _turns(start.removesuffix(end)) if _TURN.match(start) and start.endswith(end) else ()
