"""The names that people give to the columns of preference data, and what their values must be to count as such.

A name alone decides nothing where a wrong guess would train on the wrong text: where several columns could be the
prompt, the user is asked (`preflab.data.detect`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from preflab.data.fields import Row, excerpt, is_missing, is_truth
from preflab.data.messages import is_message, is_pair_of_turns, is_said_by_assistant

SYSTEM = ("system", "system_prompt", "system_message")
"""Columns with the system message, in every format."""

EARLIER = "history"
"""The column with earlier turns, in every format, where it holds lists."""

CONVERSATION = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "chat_messages")
"""Columns that could be a conversation with the response at its end, if they hold chat messages."""

PROMPT = (
    *("prompt", "question", "query", "input", "instruction", "context", "problem", "user", "title", "post"),
    *("messages", "message", "conversation", "conversations", "dialogue", "dialog", "history", "chat", "turns"),
    *("user_input", "user_query", "user_prompt", "user_message", "user_question", "user_request", "human", "request"),
    *("inputs", "questions", "prompts", "instructions", "query_text", "prompt_text", "question_text", "input_text"),
    *("prompt_messages", "task", "task_description", "article", "document", "passage", "text", "body", "content"),
)
"""Columns that could be the prompt, if they hold text or chat messages."""

_SAID = ("response", "answer", "output", "text", "completion", "messages", "message", "conversation", "conversations")

_OPPOSITES = (("better", "worse"), ("winning", "losing"), ("winner", "loser"), ("good", "bad"), ("best", "worst"))

RESPONSE = (
    *("response", "completion", "answer", "output", "reply", "generation", "generated_text", "generated", "gen_text"),
    *("model_output", "model_response", "model_answer", "model_completion", "generated_response", "generated_answer"),
    *("assistant", "assistant_response", "response_text", "output_text", "completion_text", "answer_text", "solution"),
    *("prediction", "responses", "outputs", "completions", "answers"),
)
"""Columns that could be the one response, if they hold text."""

PAIRS: Mapping[tuple[str, ...], tuple[tuple[str, str], ...]] = {
    ("chosen", "rejected"): (
        *((f"{side}", "rejected") for side in ("accepted", "preferred")),
        *((f"chosen_{what}", f"rejected_{what}") for what in _SAID),
        *((f"{what}_chosen", f"{what}_rejected") for what in _SAID),
        *(("better", "worse"), ("winner", "loser"), ("winning", "losing"), ("accept", "reject"), ("good", "bad")),
        *(("preferred", other) for other in ("dispreferred", "non_preferred", "unpreferred", "not_preferred")),
        *((f"preferred_{what}", f"{other}_{what}") for what in _SAID for other in ("dispreferred", "non_preferred")),
        *((f"preferred_{what}", f"rejected_{what}") for what in _SAID),
        *(("response_j", "response_k"), ("win", "lose"), ("y_w", "y_l"), ("favored", "unfavored")),
        *((f"{better}_{what}", f"{worse}_{what}") for better, worse in _OPPOSITES for what in _SAID),
        *((f"{what}_{better}", f"{what}_{worse}") for better, worse in _OPPOSITES for what in _SAID),
    ),
    **{
        (f"response_{one}", f"response_{other}"): (
            *((f"{what}_{one}", f"{what}_{other}") for what in (*_SAID, "response", "model_response")),
            (f"model_{one}_response", f"model_{other}_response"),
        )
        for one, other in (("a", "b"), ("1", "2"), ("0", "1"))
    },
}
"""The columns with the two responses of a pair -> their other names. Capitals and signs between words do not count."""

CHOICE = (
    *("winner", "preference", "preferred", "preferred_response", "choice", "chosen", "better", "better_response"),
    *("best", "verdict", "label", "labels", "human_preference", "gold_label", "preferred_model", "winning_model"),
)
"""Columns that say which of two responses is the better one."""

CANDIDATES = ("candidates", "responses", "answers", "completions", "outputs", "generations", "choices", "samples")
"""Columns with a list of responses, each an object with its text and its rank or score."""

REASONING = ("reasoning", "reasoning_content", "thinking")
"""Columns with what was thought before the one response."""

SIDES_REASONING = tuple(
    tuple(name for word in REASONING for name in (f"{side}_{word}", f"{word}_{side}"))
    for side in ("chosen", "rejected")
)
"""Columns with what was thought before the chosen response, and before the rejected one."""

REVISED = (
    *("revision", "revised", "revised_response", "revised_answer", "revised_output", "corrected", "corrected_response"),
    *("corrected_answer", "corrected_output", "improved_response", "improved_answer", "improved_output"),
)
"""Columns with a better answer than the one beside it, which are the response if anything is."""

LABEL = (
    *("label", "labels", "kto_tag", "kto_label", "desirable", "is_desirable", "is_desired", "wanted", "is_wanted"),
    *("thumbs_up", "thumbs", "thumb", "feedback", "is_good", "good", "liked", "is_liked", "accepted", "is_accepted"),
    *("preferred", "is_preferred", "upvoted", "is_upvoted", "is_chosen", "chosen"),
)
"""Columns that say of the one response whether it was wanted, if they hold truth values."""

LABEL_IF_TRUTH = ("score", "correct", "is_correct")
"""Columns that say the same if they hold nothing but truth values, and something else if they do not."""

_SCORE_WORDS = ("score", "scores", "rating", "ratings", "reward", "rewards", "grade", "grades", "points")
_RANK_WORDS = ("rank", "ranks", "ranking", "rankings")

LIST_SCORES = (*_SCORE_WORDS, "overall_scores", "reward_scores", "rm_scores", "gold_scores", "preference_scores")
"""Columns with a number per response of a list; more is better."""

LIST_RANKS = _RANK_WORDS
"""Columns with the place of each response of a list; 1 is best."""


def score_columns(names: Iterable[str], responses: Sequence[str]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The columns with a score for each of the columns `responses`, and whether they are ranks (1 is best).

    Of chosen and rejected: `score_chosen`, `chosen_score`, `chosen-rating`, `rejected_avg_rating` …; of `response_1`:
    `score_1`, `response_1_score` …
    """
    known = {_squeezed(name): name for name in names}
    words = [f"{kind}{word}" for word in (*_SCORE_WORDS, *_RANK_WORDS) for kind in ("", *_KINDS)]
    ends = [_ends(response) for response in responses]
    for word, shape in product(words, ("{word}{end}", "{end}{word}")):
        for place in range(len(ends[0])):
            wanted = [shape.format(word=word, end=names_of[place]) for names_of in ends]
            if all(name in known for name in wanted):
                yield tuple(known[name] for name in wanted), word.endswith(_RANK_WORDS)


_KINDS = ("avg", "average", "mean", "overall", "total", "final", "human", "gold", "model")


def _squeezed(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _ends(response: str) -> tuple[str, str]:
    """`response_1` -> its own name and its number."""
    return _squeezed(response), _squeezed(response.rpartition("_")[2])


# What a column holds ----------------------------------------------------------------------------------------------


def said(row: Row, name: str) -> Any:
    """The value of a column, or None where it says nothing: not there, null, NaN, or empty."""
    value = row.get(name)
    if is_missing(value):
        return None
    return None if isinstance(value, str | list | tuple | dict) and not value else value


def values(rows: Iterable[Row], name: str) -> list[Any]:
    """What the rows say in a column, where they say something."""
    return [value for row in rows if (value := said(row, name)) is not None]


def is_number(value: object) -> bool:
    """A number, which in a CSV file is text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return math.isfinite(float(value))
    except (ValueError, OverflowError):
        return False


def holds_text(found: Sequence[object]) -> bool:
    """Whether most of the values are text (not numbers written as text)."""
    return _most(found, _is_text)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not is_number(value)


def holds_conversations(found: Sequence[object]) -> bool:
    """Whether most of the values are chat messages."""
    return _most(found, _is_conversation)


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and all(map(is_message, value))


def _most(found: Sequence[object], holds: Any) -> bool:
    return bool(found) and 2 * sum(map(holds, found)) > len(found)


def could_be_prompts(rows: Sequence[Row], taken: Iterable[str]) -> list[str]:
    """The columns, of those not `taken`, that have the name and the values of a prompt."""
    present = {str(name) for row in rows for name in row} - set(taken)
    named = [name for name in PROMPT if name in present]
    return [name for name in named if _most(values(rows, name), could_be_a_prompt)]


def could_be_a_prompt(value: object) -> bool:
    """Text, or chat messages that an assistant can respond to."""
    if not _is_conversation(value):
        return _is_text(value) and not str(value).lstrip().startswith("[[")  # earlier turns, as text
    return not (isinstance(value, list) and value and is_said_by_assistant(value[-1]))


def other_pairs(rows: Iterable[Row], responses: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The pairs of columns that stand for the columns `responses`."""
    known = {_squeezed(str(name)): str(name) for row in rows for name in row}
    pairs = [tuple(map(_squeezed, pair)) for pair in (responses, *PAIRS.get(responses, ()))]
    return [tuple(map(known.__getitem__, pair)) for pair in dict.fromkeys(pairs) if known.keys() >= set(pair)]


def could_be_choices(rows: Sequence[Row], taken: Iterable[str]) -> list[str]:
    """The columns, of those not `taken`, that have the name of a choice and hold single words or numbers."""
    present = {str(name) for row in rows for name in row} - set(taken)
    short = [name for name in CHOICE if name in present]
    return [name for name in short if _most(values(rows, name), lambda value: len(str(value)) <= _LONGEST_CHOICE)]


_LONGEST_CHOICE = 80


def could_be_candidates(rows: Sequence[Row], taken: Iterable[str]) -> list[str]:
    """The columns, of those not `taken`, that have the name of a list of responses and hold objects."""
    present = {str(name) for row in rows for name in row} - set(taken)
    return [name for name in CANDIDATES if name in present and _most(values(rows, name), _are_objects)]


def could_be_scored(rows: Sequence[Row], taken: Iterable[str]) -> list[str]:
    """The columns that have the name of a list of responses and hold texts, beside as many scores or ranks."""
    scored = {texts for texts, numbers in parallel_lists(rows) if numbers in (*LIST_SCORES, *LIST_RANKS)}
    return [name for name in CANDIDATES if name in scored - set(taken)]


def parallel_lists(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Columns with a list of texts, and columns with as many numbers or truth values in each of most rows."""
    names = dict.fromkeys(str(name) for row in rows for name in row)
    lengths = {name: [_length(row.get(name), lambda item: isinstance(item, str)) for row in rows] for name in names}
    numbers = {name: [_length(row.get(name), is_judged) for row in rows] for name in names}
    return [
        (name, other)
        for name, other in product(names, names)
        if name != other
        and 2 * sum(one > 1 and one == two for one, two in zip(lengths[name], numbers[other], strict=True)) > len(rows)
    ]


def _length(value: object, fits: Callable[[object], bool]) -> int:
    return len(value) if isinstance(value, list) and all(map(fits, value)) else 0


def is_judged(value: object) -> bool:
    """A number, or a truth value: right or wrong, wanted or not."""
    return isinstance(value, bool) or is_number(value)


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def could_be_conversations(rows: Sequence[Row], taken: Iterable[str]) -> list[str]:
    """The columns, of those not `taken`, that have the name of a conversation and hold messages or pairs of turns."""
    present = {str(name) for row in rows for name in row} - set(taken)
    return [name for name in CONVERSATION if name in present and _most(values(rows, name), _are_turns)]


def _are_turns(value: object) -> bool:
    return isinstance(value, list) and all(is_message(item) or is_pair_of_turns(item) for item in value)


def could_be_responses(rows: Sequence[Row], taken: Iterable[str]) -> list[str]:
    """The columns, of those not `taken`, that have the name and the values of one response."""
    present = {str(name) for row in rows for name in row} - set(taken)
    return [name for name in RESPONSE if name in present and holds_text(values(rows, name))]


def texts_of_unknown_meaning(rows: Sequence[Row], taken: Iterable[str]) -> list[str]:
    """The columns, of those not `taken`, that hold conversations, or text of several words that varies."""
    names = dict.fromkeys(str(name) for row in rows for name in row)
    return [name for name in names if name not in set(taken) and _says_much(values(rows, name))]


def _says_much(found: Sequence[object]) -> bool:
    several_words = _most(found, lambda value: isinstance(value, str) and len(value.split()) >= _SEVERAL_WORDS)
    different = len(found) == 1 or len(set(map(repr, found))) > len(found) / 4
    return holds_conversations(found) or (several_words and different)


_SEVERAL_WORDS = 3


def truths(found: Sequence[object]) -> str:
    """ "yes" if all values are truth values, "no" if hardly any is, else what speaks against it."""
    others = [value for value in found if not is_truth(value)]
    if not others:
        return "yes" if found else "no"
    if len(others) == len(found):
        return "no"
    numbers = [value for value in others if is_number(value)]
    if numbers:
        return f"{excerpt(numbers[0])} beside {excerpt(next(value for value in found if is_truth(value)))}"
    return "yes" if 2 * len(others) < len(found) else "no"
