"""Whether rows taken for prompts or demonstrations say, in columns that are not read, which response is better."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from preflab.data.fields import Row
from preflab.data.messages import is_nothing
from preflab.data.names import texts_of_unknown_meaning

# Words of a column's name that say that one response was set above another.
_PREFERENCE = {
    *("chosen", "rejected", "better", "worse", "winner", "loser", "preferred", "dispreferred", "unpreferred"),
    *("preference", "preferences", "rank", "ranks", "ranking", "rankings"),
}
# Words that say so of a column if it holds texts; of one that holds truth values or kinds they say something else.
_WORSE = {
    *("lose", "losing", "l", "yl", "negative", "neg", "bad", "worst", "incorrect", "wrong", "unsafe", "harmful"),
    *("misaligned", "unaligned", "unfavored", "disfavored", "undesired", "undesirable", "unwanted", "disliked"),
}
_RESPONSE = frozenset(
    ("response", "answer", "output", "completion", "conversation", "reply", "summary", "generation", "candidate", "ref")
)
_GRADING = frozenset((
    *("label", "labels", "correct", "correctness", "accuracy", "accuracies", "quality", "feedback", "preferred"),
    *("score", "scores", "rating", "ratings", "reward", "rewards", "rank", "ranks", "grade", "grades", "verdict"),
    *("vote", "votes", "upvotes", "likes", "wins", "verdicts"),
))  # fmt: skip
_MARKS = (("a", "b"), ("1", "2"), ("0", "1"), ("i", "j"), ("j", "k"), ("first", "second"), ("one", "two"))
_ORDER = frozenset(
    ("rank", "ranking", "score", "rating", "reward", "overall_score", "annotations", "scores", "ratings")
)
# NVIDIA's attributes of one response a row: together they grade it.
_GRADES = frozenset(("helpfulness", "correctness", "coherence", "complexity", "verbosity", "overall_quality"))


def preference_columns(rows: Sequence[Row], read: Collection[str]) -> list[str]:
    """The columns, of those not `read`, that hold something and look as if they said which response is preferred."""
    names = dict.fromkeys(str(name) for row in rows for name in row)
    unread = [name for name in names if name not in read and any(not is_nothing(row.get(name)) for row in rows)]
    words = {name: _words(name) for name in unread}
    found = {name for name in unread if words[name] & _PREFERENCE}
    found |= {name for name in texts_of_unknown_meaning(rows, read) if words.get(name, frozenset()) & _WORSE}
    for name in unread:
        for one, other in _MARKS:
            partner = next((of for of in unread if words[of] == words[name] - {one} | {other}), None)
            if one in words[name] and partner and words[name] & _RESPONSE:
                found |= {name, partner}
    found |= {name for name in unread if any(_are_ordered(row.get(name)) for row in rows)}
    grades = [name for name in unread if name.lower() in _GRADES]
    return [name for name in unread if name in found or (len(grades) > 1 and name in grades)]


def grades(name: str) -> bool:
    """Whether a column with a number for each response is called as if it said how good that is; others count tokens,
    say.
    """
    return not _words(name).isdisjoint(_GRADING)


def unread_texts(rows: Sequence[Row], read: Collection[str]) -> list[str]:
    """The columns, of those not `read`, with texts that could be responses: several of them beside a prompt are."""
    return [name for name in texts_of_unknown_meaning(rows, read) if not is_about(name)]


def is_about(name: str) -> bool:
    """Whether a column says something about the pair or where it comes from."""
    words = name.lower()
    return words in _ABOUT_WHOLE or words.endswith("_id") or any(word in words for word in _ABOUT)


_ABOUT_WHOLE = {"id", "type", "lang", "date", "kind"}
_ABOUT = (
    "source",
    "model",
    "reason",
    "rationale",
    "explanation",
    "justification",
    "critique",
    "comment",
    "note",
    "url",
    "reference",
    "rubric",
    "criteria",
    "checklist",
    "description",
    "ground_truth",
)


def _words(name: str) -> frozenset[str]:
    """`responseA_2` -> response, a, 2."""
    return frozenset(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name))


def _are_ordered(value: object) -> bool:
    """A list of objects that each have a rank or a score."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(item, dict) and not _ORDER.isdisjoint(item) for item in value)
    )
