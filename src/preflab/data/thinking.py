"""What a model thought, kept apart from what it answered: tags such as <think>, and gpt-oss's channels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

TAGS: Mapping[str, str] = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen 3, Nemotron, GLM, LFM
    "[THINK]": "[/THINK]",  # Magistral
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A Reasoning
    "<|channel>thought": "<channel|>",  # Gemma 4
}
"""What stands before and behind a thought."""

# gpt-oss's format (harmony): `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)\b((?!<\|(?:message|channel)\|>).)*<\|message\|>", re.DOTALL)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
# The same from servers that drop special tokens.
_BARE_CHANNELS = re.compile(r"\A(?:analysis|commentary)(.*)assistantfinal(.*)\Z", re.DOTALL)

_SPACE = re.compile(r"\s*")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Split:
    """Where a text holds thoughts, and where the answer; `finished` says whether the thinking came to an end."""

    thoughts: tuple[Span, ...]
    answer: Span
    finished: bool = True

    def is_plain(self, text: str) -> bool:
        """Whether all of the text is the answer."""
        return not self.thoughts and self.answer == (0, len(text))


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer, and what was thought before it. A thought that has no end (`finished` is false) leaves no answer."""

    response: str
    reasoning: str = ""
    finished: bool = True


def split_reasoning(text: str) -> Spoken:
    """The answer and the reasoning of a response that somebody else's program wrote.

    A thought stands at the start, or ends in a closing tag whose opening one was in the prompt; tags that an answer
    writes about in pairs are its own. Text without a thought comes back as it is.
    """
    if bare := _BARE_CHANNELS.match(text):
        return Spoken(bare[2].strip(), bare[1].strip())
    return spoken(text, find_reasoning(text))


def find_reasoning(text: str, *, opened: bool = False, tags: Mapping[str, str] = TAGS) -> Split:
    """Where a text holds thoughts, by its channels or by tags. `opened`: the prompt has opened a thought already."""
    channels = list(_channels(text))
    if not channels and text.lstrip().startswith("<|channel|>"):  # cut within its name
        return Split(((0, 0),), (len(text), len(text)), finished=False)
    if not channels:
        return _by_tags(text, opened, tags)
    thoughts = tuple(span for name, span in channels if name != "final")
    answers = [span for name, span in channels if name == "final"]
    return Split(thoughts, answers[-1]) if answers else Split(thoughts, (len(text), len(text)), finished=False)


def spoken(text: str, split: Split, left_out: Sequence[Span] = ()) -> Spoken:
    """The parts of `text` that `split` says, without what stands at the places `left_out`."""

    def part(span: Span) -> str:
        start, end = span
        kept = ""
        for left, right in (*((a, b) for a, b in left_out if start <= a < end), (end, end)):
            kept += text[start:left]
            start = right
        return kept

    if split.is_plain(text):
        return Spoken(text)
    thoughts = (part(span).strip() for span in split.thoughts)
    return Spoken(part(split.answer).lstrip(), "\n\n".join(filter(None, thoughts)), split.finished)


def after_thinking(text: str) -> str:
    """What a judge said once it had thought: behind the last closing tag, or in the last final channel. A thought that
    has no end leaves nothing.
    """
    if next(_channels(text), None) or _BARE_CHANNELS.match(text):
        return split_reasoning(text).response
    behind = max((at + len(tag) for tag in TAGS.values() if (at := text.rfind(tag)) >= 0), default=0)
    rest = text[behind:]
    return "" if rest.lstrip().startswith(tuple(TAGS)) else rest


def _channels(text: str) -> Iterator[tuple[str, Span]]:
    """Name and content of each channel, in order."""
    for match in _CHANNEL.finditer(text):
        end = _CHANNEL_END.search(text, match.end())
        yield match[1], (match.end(), end.start() if end else len(text))


def _by_tags(text: str, opened: bool, tags: Mapping[str, str]) -> Split:
    closings = {opening: closing for opening, closing in tags.items() if closing in text}
    thoughts: list[Span] = []
    begin = 0
    while True:
        opening = _opening(text, begin, tags)
        inside = opened and begin == 0
        if opening:
            tag, start = opening
            end = text.find(tags[tag], start)
            closing = (end, tags[tag]) if end >= 0 else None
        else:
            start, closing = begin, _first_closing(text, begin, closings, stray=not inside)
        if closing is None:
            if opening or inside:
                return Split((*thoughts, (start, len(text))), (len(text), len(text)), finished=False)
            return Split(tuple(thoughts), (begin, len(text)))
        thoughts.append((start, closing[0]))
        begin = closing[0] + len(closing[1])


def _opening(text: str, begin: int, tags: Mapping[str, str]) -> tuple[str, int] | None:
    """The tag that stands at `begin`, white space aside, and where it ends."""
    space = _SPACE.match(text, begin)
    assert space is not None, "it may be empty"
    at = space.end()
    return next(((tag, at + len(tag)) for tag in tags if text.startswith(tag, at)), None)


def _first_closing(text: str, begin: int, tags: Mapping[str, str], *, stray: bool) -> tuple[int, str] | None:
    """The first closing tag; with `stray`, only one that no opening tag stands before."""
    found: list[tuple[int, str]] = []
    for opening, closing in tags.items():
        at = text.find(closing, begin)
        if at >= 0 and not (stray and text.find(opening, begin, at) >= 0):
            found.append((at, closing))
    return min(found, default=None)
