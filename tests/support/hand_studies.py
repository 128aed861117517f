"""Studies put together from outcomes and scores, small enough to compute by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from preflab.core.records import Message, Outcome, SampleVerdict
from preflab.stats.study import Answer, Case, Judge, Player, ScoredPair, Study

REWARD = Judge("reward", "reward_model", "runs/reward")
GOLD = Judge("gold", "gold", "sandbox")
CHAT = Judge("gpt-4o", "openai", "openai:gpt-4o")
HUMAN = Judge("human", "human", "human")

POINTS: Mapping[Outcome, float | None] = {"win": 1.0, "tie": 0.5, "loss": 0.0, "error": None}
LETTERS: Mapping[str, Outcome] = {"w": "win", "t": "tie", "l": "loss", "e": "error"}


def said(outcome: Outcome, *, flipped: bool | None = None, points: float | None = None) -> SampleVerdict:
    return SampleVerdict(outcome, POINTS[outcome] if points is None else points, flipped)


def case(
    row: int,
    texts: Mapping[str, str],
    *,
    sample: int = 0,
    scores: Mapping[str, Mapping[str, float]] | None = None,  # model -> scorer -> score
    verdicts: Mapping[tuple[str, str], SampleVerdict] | None = None,
    subset: str | None = None,
    capped: bool | None = None,
) -> Case:
    answers = {
        name: Answer(text, None if capped is None else len(text), capped, (scores or {}).get(name, {}))
        for name, text in texts.items()
    }
    return Case(row, sample, (Message("user", f"question {row}"),), subset, answers, verdicts or {})


def study(
    cases: Sequence[Case], *judges: Judge, preference_data: Mapping[str, tuple[ScoredPair, ...]] | None = None
) -> Study:
    models = tuple(Player(name, name) for name in cases[0].answers) if cases else (Player("base", "base"),)
    return Study(Path("study"), "by hand", models, judges, tuple(cases), preference_data or {}, {})


def judged(outcomes: str, *, judge: Judge = CHAT, ours: str = "one two three", theirs: str = "four five six") -> Study:
    """dpo against base before one judge, one prompt for each letter: w(in), t(ie), l(oss), e(rror), - (not judged)."""
    cases = [
        case(row, {"base": theirs, "dpo": ours}, verdicts={(judge.name, "dpo"): said(LETTERS[letter])})
        if letter != "-"
        else case(row, {"base": theirs, "dpo": ours})
        for row, letter in enumerate(outcomes)
    ]
    return study(cases, judge)


def scored(
    differences: Sequence[float], *, words: Sequence[tuple[int, int]] | None = None, judges: Sequence[Judge] = (REWARD,)
) -> Study:
    """dpo against base before scorers, one prompt for each difference in score; `words` are (dpo's, base's) lengths."""
    cases = []
    for row, difference in enumerate(differences):
        ours, theirs = words[row] if words else (3, 3)
        texts = {"base": " ".join(["b"] * theirs), "dpo": " ".join(["d"] * ours)}
        scores = {"base": {judge.name: 1.0 for judge in judges}, "dpo": {j.name: 1.0 + difference for j in judges}}
        cases.append(case(row, texts, scores=scores))
    return study(cases, *judges)
