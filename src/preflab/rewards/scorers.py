"""Scorers: functions from prompts and responses to numbers, usable wherever a reward model is.

A length, a regular expression, a lexicon, a classifier:

    def score(prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> Sequence[float]

`prompts[i]` is the conversation that `responses[i]` answers, and more is better. A number that is not finite says that
a response has no score. Scores are taken as exact: only equal ones tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preflab.core.plugins import FAILURES, Plugin, load, names_plugin
from preflab.core.records import Comparison, Message, UserError
from preflab.core.ties import is_score
from preflab.core.words import words
from preflab.data.fields import excerpt
from preflab.data.tokenize import Dropped
from preflab.sandbox.gold import gold_reward

Prompts = Sequence[Sequence[Message]]
ScorerFunction = Callable[[Prompts, Sequence[str]], Any]


def gold(prompts: Prompts, responses: Sequence[str]) -> list[float]:
    """The sandbox's true reward."""
    return [gold_reward(prompt[-1].content, response) for prompt, response in zip(prompts, responses, strict=True)]


def length(_: Prompts, responses: Sequence[str]) -> list[float]:
    """The number of words of a response."""
    return [float(len(words(response))) for response in responses]


SCORERS: Mapping[str, ScorerFunction] = {"gold": gold, "length": length}
"""Ours, by name. A reward model is a scorer too, where it is named by its folder or hub id (`preflab.sample.score`)."""

_RIGHT = "it must return one number for each response"


@dataclass(frozen=True)
class Scorer:
    """A function that scores, by the name that it was asked for."""

    spec: str
    plugin: Plugin

    @property
    def fingerprint(self) -> str:
        """Changes with the file that a user's own function is in."""
        return self.plugin.fingerprint or self.spec

    def scores(self, prompts: Prompts, responses: Sequence[str], *, batch_size: int) -> list[float | str]:
        """Of each response its score, or why it has none; the function gets at most `batch_size` at once.

        Raises UserError, with file and line, where the function fails, and for what is not one number a response.
        """
        found: list[float | str] = []
        for start in range(0, len(responses), batch_size):
            part = slice(start, start + batch_size)
            found += self._of_batch(list(prompts[part]), list(responses[part]))
        return found

    def _of_batch(self, prompts: list[Sequence[Message]], responses: list[str]) -> list[float | str]:
        count = len(responses)  # the lists are the function's to change
        try:
            returned = self.plugin.value(prompts, responses)
            values = list(returned) if isinstance(returned, Iterable) else None
        except FAILURES as error:
            problem = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.plugin.place(error)}: {problem} (in the scorer {self.spec})") from error
        if values is None or len(values) != count:
            shown = excerpt(returned) if values is None else f"{len(values)} scores for {count} responses"
            raise UserError(f"{self.spec}: the scorer returned {shown}; {_RIGHT}")
        return [self._number(value) for value in values]

    def _number(self, value: Any) -> float | str:
        try:
            number = float("text") if isinstance(value, (str, bytes)) else float(value)
        except FAILURES:
            raise UserError(f"{self.spec}: the scorer returned {excerpt(value)} as a score; {_RIGHT}") from None
        return number if is_score(number) else f"its score is {number}"


def find_scorer(spec: str) -> Scorer | None:
    """The function that scores by this name: one of ours, `file.py:function`, or an installed package's (entry points
    of the group `preflab.scorers`). None where it is to be taken as a reward model's folder or hub id.

    Raises UserError where the file has no such function, and for a name that is a folder's, too.
    """
    if spec not in SCORERS and not names_plugin(spec, "scorers"):
        return None
    if not spec.endswith(".py") and ".py:" not in spec and Path(spec).exists():
        raise UserError(f"{spec}: is the name of a scorer, and there is a folder of this name; for that write ./{spec}")
    plugin = load(spec, "scorers", SCORERS)
    if not callable(plugin.value):
        raise UserError(f"{plugin.where}: {spec} is {excerpt(plugin.value)}; a scorer is a function")
    return Scorer(spec, plugin)


@dataclass(frozen=True)
class ScoredRows:
    """The comparisons of a source that a function has scored; the others were `dropped`.

    Attributes:
        rows: [N] their numbers in the source.
        response_offsets: [N + 1] where the responses of each begin among all of them.
        values: [R] the scores of all their responses.
    """

    rows: NDArray[np.int64]
    response_offsets: NDArray[np.int64]
    values: NDArray[np.float64]
    dropped: tuple[Dropped, ...]


def score_comparisons(scorer: Scorer, items: Iterable[Comparison | Dropped], *, batch_size: int) -> ScoredRows:
    """The scores of all responses, `batch_size` comparisons at once. A row of which a response has no score is dropped,
    as what is dropped already is.
    """
    rows: list[int] = []
    counts = [0]
    values: list[float] = []
    dropped: list[Dropped] = []
    waiting = iter(items)
    while batch := list(islice(waiting, batch_size)):
        comparisons = [item for item in batch if isinstance(item, Comparison)]
        prompts = [item.prompt for item in comparisons for _ in item.responses]
        responses = [text for item in comparisons for text in item.responses]
        scores = iter(scorer.scores(prompts, responses, batch_size=max(1, len(responses))))
        for item in batch:
            if isinstance(item, Dropped):
                dropped.append(item)
                continue
            own = list(islice(scores, len(item.responses)))
            numbers = [score for score in own if not isinstance(score, str)]
            if len(numbers) == len(own):
                rows.append(item.row)
                counts.append(len(own))
                values += numbers
            else:
                dropped.append(Dropped(item.row, "no score", next(why for why in own if isinstance(why, str))))
    return ScoredRows(np.array(rows, np.int64), np.cumsum(counts), np.array(values, np.float64), tuple(dropped))
