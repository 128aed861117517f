"""Where a response goes on into another task than the one it was given: exam items, questions and answers, premises and
hypotheses, instructions, a new dialogue. Base models do that, for want of an end; nobody asked for what follows.

A plain function of text. A response that was asked for such things announces them ("Here are five questions:"), or
begins with them, and is left alone, so some tails are missed (how many has not been measured). Of the 6,721 different
turns of assistants in Anthropic's HH pairs (2,000 rows of harmless-base) it names none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FLAGS = re.IGNORECASE | re.MULTILINE
_COLON = r"[ \t]*[:\uff1a]"

# Each of these is no ordinary prose, wherever it begins a line.
_EXAM = re.compile(
    rf"^[ \t]*(?:premise|hypothesis){_COLON}"
    r"|^.*\b(?:pick|choose|select) (?:your|the (?:correct|right|best)) answer\b(?! is\b)"
    r"|^[ \t]*(?:options|possible answers|available choices|pick from)[ \t]*:[ \t]*\n?[ \t]*(?:-|\(|a[.)]|\[)",
    _FLAGS,
)
# A task as data sets write it; ordinary where it was announced.
_TASK = re.compile(
    rf"^[ \t]*(?:#+[ \t]*)?(?:\[?q\]?|question|instruction|prompt|\u95ee\u9898|\u9898\u76ee){_COLON}\s*\S"
    r"|^[ \t]*(?:q|question|exercise|problem|task)[ \t]*\d+[ \t]*[:.)]",
    _FLAGS,
)
# The same within a line, after a sentence, where texts were joined: capitals tell it from prose.
_JOINED = tuple(
    (re.compile(rf"(?<=[.!?\"\u201d)]\s)(?:{opens}):\s"), re.compile(closes))
    for opens, closes in (
        ("Premise", r"Hypothesis:|[Yy]our answer"),
        (r"Q|\[Q\]|Question|Instruction", r"(?:\bA|\bAnswer|\[A\]|\bResponse|\bOutput):\s"),
    )
)
# Labels at the beginning of a line: one of the first and, further down, one of the second are an item.
_SPEAKERS = "me|you|friend|he|she|man|woman|boy|girl|bot|ai|user"
_PAIRS = tuple(
    (re.compile(first, re.IGNORECASE), re.compile(second, re.IGNORECASE))
    for first, second in (
        ("sentence (?:1|a)", "sentence (?:2|b)"),
        ("passage|paragraph|context|article|text|document|story", "question|q|summary|answer|title"),
        ("input", "output"),
        ("task", "text|input|output|answer|solution"),
        ("user (?:1|a)", "user (?:2|b)"),
        ("dialog|dialogue|conversation", r"\w+(?: \w+)?"),
        ("review", "sentiment|rating|answer"),
        ("statement|claim", "answer|label|true or false"),
        ("tweet|sentence", "sentiment|label|answer|translation"),
        ("person (?:1|a)|speaker (?:1|a)|a", "person (?:2|b)|speaker (?:2|b)|b"),
        ("teacher|doctor|customer|interviewer|boss", "student|patient|agent|clerk|interviewee|employee"),
        (_SPEAKERS, _SPEAKERS),
    )
)
_LABEL = re.compile(rf"^[ \t]*(\w+(?: (?:or )?\w+){{0,2}}){_COLON}", re.MULTILINE)
# A question with lettered choices under it.
_CHOICES = re.compile(
    r"^.*(?:\?|_{2,}|:)[ \t]*\n+[ \t]*\(?A[.):][ \t]*\S.*\n+[ \t]*\(?B[.):][ \t]*\S.*\n+[ \t]*\(?C[.):][ \t]*\S",
    re.MULTILINE,
)

_LOOKED_BACK = 240  # characters before a task in which it may have been announced
_ANNOUNCED = re.compile(
    r"\b(?:here(?:'s|\u2019s| is| are)|following|examples?|quiz\w*|riddles?|jokes?|exams?|exercises?|faqs?|interview\w*"
    r"|scripts?|dialogues?|conversations?|templates?|formats?|questions?|prompts?|tests?|samples?)\b",
    re.IGNORECASE,
)


def other_task(text: str) -> int | None:
    """Where the text goes on into another task, or None. What stands before it is an answer, or at least not empty."""
    found = sorted(_places(text))
    return found[0] if found else None


def _places(text: str) -> Iterator[int]:
    lines = (match.start() for pattern in (_EXAM, _TASK, _CHOICES) for match in pattern.finditer(text))
    for place in (*lines, *_joined(text), *_items(text)):
        if text[:place].strip() and not _announced(text, place):
            yield place


def _joined(text: str) -> Iterator[int]:
    for opens, closes in _JOINED:
        last = max((match.start() for match in closes.finditer(text)), default=-1)
        if (begun := opens.search(text)) and begun.start() < last:
            yield begun.start()


def _items(text: str) -> Iterator[int]:
    """Where the first label of a pair stands that has its second one further down, another word than the first."""
    labels = [(match[1].lower(), match.start()) for match in _LABEL.finditer(text)]
    for first, second in _PAIRS:
        begun = next((label for label in labels if first.fullmatch(label[0])), None)
        if begun and any(second.fullmatch(word) and word != begun[0] and at > begun[1] for word, at in labels):
            yield begun[1]


def _announced(text: str, place: int) -> bool:
    """Whether what stands before says that this is to come: its last line ends in a colon or is a heading, or it names
    such a thing.
    """
    before = text[:place].rstrip()
    line = before.rpartition("\n")[2].strip()
    return (
        line.endswith((":", "\uff1a", "```"))
        or line.startswith(("#", "**"))
        or bool(_ANNOUNCED.search(before[-_LOOKED_BACK:]))
    )
