"""Signs in a response's text that generation went wrong: it repeats itself, or it goes on as somebody else.

Plain functions of text, in any language; none needs a model. They are signs, not proofs: a refrain repeats itself too.
"""

from __future__ import annotations

import re

from preflab.core.words import words
from preflab.stats.diversity import REPEATED_RUN, ngrams

# One phrase four times in a row and more. A phrase without letters or digits (a ruled line, a table's border) is common
# in good text, so only a very long run of it counts.
_LONGEST_PHRASE = 200
_IN_A_ROW = re.compile(rf"(.{{1,{_LONGEST_PHRASE}}}?)\1{{3,}}", re.DOTALL)
_SHORTEST_RUN = 60
_SHORTEST_RUN_OF_SIGNS = 300

# Looking for such runs is slow, and most text has none. In a run of n >= 60 characters whose phrase is at most n / 4
# long, at most n / 4 of the n - 14 windows of 15 characters are new, so at least 31 have been there before.
_WINDOW = 15
_FEWEST_REPEATED = _SHORTEST_RUN - _WINDOW + 1 - _SHORTEST_RUN // 4

# Longer or slightly varied passages that come again: most sequences of four words have been there before.
_SHORTEST_TEXT = 60
_NEW_SHARE = 0.5

_OTHER_SPEAKER = re.compile(
    r"(?:^|\n)\s*(?:human|user|assistant|system)\s*:"
    r"|\#\#\#\s*(?:human|user|instruction|input|response|assistant)\b"
    r"|<\|(?:im_start|im_end|user|assistant|system|start_header_id|eot_id|endoftext)\|>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]",
    re.IGNORECASE,
)

_I_CANNOT = r"i(?: (?:can't|cannot|can not|won't|will not|am (?:not able|unable) to)|'m (?:not able|unable) to)"
_HELP = (
    r"(?:help(?! but\b| it\b)|assist|comply|fulfill?|answer|provide|give (?:you|advice|instructions|information)|offer"
    r"|do (?:this|that)|support|participate|engage|discuss|create|write|generate|share|condone|advise)\b"
)
_SORRY = r"(?:(?:i(?:'m| am) (?:very |really |so )?)?sorry|my apologies|i apologi[sz]e)\W+(?:but )?"
_AS_AN_AI = r"as an? (?:ai|artificial|language|large language)\b[\w ]*, (?:and )?"
_REFUSAL = re.compile(
    rf"(?:{_SORRY})?{_AS_AN_AI}{_I_CANNOT}\b|{_SORRY}{_I_CANNOT}\b"
    rf"|(?:unfortunately, )?{_I_CANNOT} (?:in good conscience )?(?:\w+ )?{_HELP}"
    rf"|{_SORRY}(?:that's|that is|this is) (?:not something i can|something i (?:can't|cannot|won't))\b",
    re.IGNORECASE,
)


def runaway_repetition(text: str) -> str | None:
    """What the text repeats without end, or None. A text that merely ends in a loop counts, whatever came before."""
    for found in _IN_A_ROW.finditer(text) if _may_repeat(text) else ():
        phrase, run = found[1], len(found[0])
        if run >= (_SHORTEST_RUN if any(map(str.isalnum, phrase)) else _SHORTEST_RUN_OF_SIGNS):
            return phrase
    tokens = words(text)
    if len(tokens) < _SHORTEST_TEXT:
        return None
    fours = [" ".join(four) for four in ngrams(tokens, REPEATED_RUN)]
    return max(fours, key=fours.count) if len(set(fours)) < _NEW_SHARE * len(fours) else None


def _may_repeat(text: str) -> bool:
    windows = len(text) - _WINDOW + 1
    return windows - len({text[start : start + _WINDOW] for start in range(windows)}) >= _FEWEST_REPEATED


def foreign_turn(text: str) -> int | None:
    """Where the text goes on as another speaker ("Human:", a marker of a chat template), or None.

    What follows is a tail that nobody asked for: the model wrote the next turn of the conversation itself.
    """
    found = _OTHER_SPEAKER.search(text)
    return None if found is None else found.start()


def refusal(text: str) -> str | None:
    """The words at its start by which a response declines, or None.

    English only, and a sign, not a proof: "I'm sorry, but I can't help with that" is meant to be found, a response that
    helps and warns is not, one that declines in words of its own is missed. Whether declining was right is not asked.
    """
    found = _REFUSAL.match(text.lstrip().replace("’", "'"))
    return None if found is None else found[0]
