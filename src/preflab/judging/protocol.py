"""What a judge is: what every kind of judge is asked to do, whatever it is, and what is asked of each kind.

A kind is one module with a `KIND`, and one line in `preflab.judging.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from preflab.core.config import Settings
from preflab.core.records import Judgement, Pair
from preflab.judging.settings import JudgingSettings
from preflab.judging.verdict_rows import OpponentWord
from preflab.stats.study import Judge


@dataclass(frozen=True)
class JudgeRequest:
    """What a file of verdicts is to hold.

    Attributes:
        pairs: to judge; their ids differ.
        earlier: judgements that were made before.
        journal: where a judgement that takes long to come by is added at once, as a row of a verdict file.
        opponent_word: what rows call the opponent.
    """

    pairs: Sequence[Pair]
    earlier: Sequence[Judgement]
    journal: Path
    opponent_word: OpponentWord


class ReadyJudge(Protocol):
    """A judge that is ready: made once, whatever it takes to load, and then given one set of pairs after the other."""

    @property
    def judge(self) -> Judge:
        """Which judge it is."""

    @property
    def settings(self) -> Settings:
        """Those of the settings that it goes by, for the manifest."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All that decides its judgements besides the pairs, for the verdict file."""

    @property
    def seed(self) -> int:
        """Of orders, and of sampling."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else the verdict file is to say of it."""

    def judgements(self, request: JudgeRequest, /) -> Sequence[Judgement]:
        """All judgements, the earlier ones among them."""

    def is_final(self, request: JudgeRequest, /) -> bool:
        """Whether a file with the earlier judgements is as good as it gets, and not to be gone on with."""


def nothing_to_check(_: Judge, __: JudgingSettings) -> None:
    """For kinds of judges that are always there."""


@dataclass(frozen=True)
class Kind:
    """A kind of judge.

    Attributes:
        read: what stands behind its prefix on the command line (of a kind without one, the whole word), and the name
            that the user gave -> the judge. Raises UserError for what is none.
        make: judge, settings, and the seed of orders and of sampling -> the judge, loaded and ready.
        check: raises UserError where the judge cannot be had, before hours are spent on what it is to judge.
        is_asked: whether pairs are put to it in words, so that it can be counted what there is left to ask.
        is_paid: whether its tokens have a price.
    """

    read: Callable[[str, str | None], Judge]
    make: Callable[[Judge, JudgingSettings, int], ReadyJudge]
    check: Callable[[Judge, JudgingSettings], None] = nothing_to_check
    is_asked: bool = False
    is_paid: bool = False
