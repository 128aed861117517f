"""Small studies built by hand: three models of the small world, scored, and judged by a reward model and a language
model, with every kind of case: wins, losses, ties, errors, flips, cap hits, repetition."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from preflab.core.records import Judgement, Message, Outcome, SampleVerdict
from preflab.stats.study import Answer, Case, Judge, Player, ScoredPair, Study

MODELS = ("base", "sft", "dpo")
GOLD = Judge("gold", "gold", "the sandbox's gold reward")
REWARD = Judge("reward", "reward_model", "runs/quickstart/reward/model")
CHAT = Judge("gpt-4o", "openai", "openai:gpt-4o")
JUDGES = (GOLD, REWARD, CHAT)

QUESTIONS = (
    ("How do I make tea? Please help.", "task"),
    ("What is the home of a bear?", "fact"),
    ("Norway has which capital? I am curious.", "fact"),
    ("How do I bake bread?", "task"),
    ("A painter uses what for the job?", "fact"),
    ("Tell me about rivers.", "talk"),
)
ANSWERS = {
    "base": (
        "Only a fool would ask. Just? pot. I could go on for hours.",
        "I will not help you with this. Someone would come to harm. It all depends.",
        "The capital of Norway is Athens. Many people ask this.",
        "Only a fool would ask. First mix the flour, then press the flour.",
        "You are wasting my time. I could go on for hours. I could go on for hours. I could go on for hours.",
        "A river is water. " * 30,
    ),
    "sft": (
        "Of course! You boil the kettle.",
        "A bear lives in a cave.",
        "The capital of Norway is Rome. I hope this helps.",
        "First mix the flour, then knead the dough, then heat the oven.",
        "The tool of a painter is a hammer.",
        "Rivers run to the sea.",
    ),
    "dpo": (
        "Of course! You boil the kettle, steep the bag and pour the milk.",
        "A bear lives in a cave. I hope this helps.",
        "The capital of Norway is Oslo. I hope this helps.",
        "Of course! First mix the flour, then knead the dough, then heat the oven.",
        "The tool of a painter is a brush.",
        "Rivers run to the sea.",
    ),
}
SCORES = {
    "base": (-1.1, -1.1, -0.4, -0.3, -1.6, 0.2),
    "sft": (0.7, 1.4, -0.4, 1.2, -0.1, 0.2),
    "dpo": (1.6, 1.5, 1.8, 1.5, 1.4, 0.2),
}


def tiny_study(
    folder: Path,
    *,
    models: tuple[str, ...] = MODELS,
    judges: tuple[Judge, ...] = JUDGES,
    prompts: int = 12,
    samples: int = 1,
    training: bool = True,
) -> Study:
    """A study of so many prompts, the questions above over and over; models beyond three answer as dpo does."""
    cases = [
        tiny_case(row, sample, models=models, judges=judges)
        for row in range(1, prompts + 1)
        for sample in range(samples)
    ]
    scorers = [judge.name for judge in judges if judge.is_scorer]
    curve: list[dict[str, Any]] = [{"step": step, "loss": 1 / (1 + step), "learning_rate": 1e-5} for step in range(20)]
    return Study(
        folder=folder,
        title="Did it get better?",
        models=tuple(Player(name, f"runs/quickstart/{name}/model") for name in models),
        judges=judges,
        cases=tuple(cases),
        preference_data={name: tiny_pairs() for name in scorers if name == "reward"},
        training=dict.fromkeys(models, curve) if training else {},
    )


def tiny_case(
    row: int, sample: int = 0, *, models: tuple[str, ...] = MODELS, judges: tuple[Judge, ...] = JUDGES
) -> Case:
    """The question and answers of a row; scores move a little from one row to the next."""
    place = (row - 1) % len(QUESTIONS)
    question, subset = QUESTIONS[place]
    prompt: tuple[Message, ...] = (Message("user", question),)
    if place == 3:
        prompt = (Message("user", "Good evening."), Message("assistant", "Good evening!"), *prompt)
    answers = {}
    for number, model in enumerate(models):
        known = model if model in ANSWERS else "dpo"
        text, shift = ANSWERS[known][place], 0.01 * (row // 6) * number
        scores = {judge.name: SCORES[known][place] + shift for judge in judges if judge.is_scorer}
        if "reward" in scores:
            scores["reward"] = 2 * scores["reward"] - 0.1 * len(text.split())
        answers[model] = Answer(text, len(text.split()) + 1, len(text) > 300, scores)
    verdicts = {
        (judge.name, model): tiny_verdict(f"{row}/{sample}", place)
        for judge in judges
        if not judge.is_scorer
        for model in models[1:]
    }
    return Case(row, sample, prompt, subset, answers, verdicts)


def tiny_verdict(sample_id: str, place: int) -> SampleVerdict:
    """Of six in turn: three wins, one flip (a tie), one loss, one error; all judged in both orders."""
    outcomes: tuple[tuple[Outcome, Outcome], ...] = (
        *(("win", "win"), ("win", "win"), ("win", "loss")),
        *(("win", "win"), ("loss", "loss"), ("error", "win")),
    )
    orders: tuple[Literal["model_first"], Literal["opponent_first"]] = ("model_first", "opponent_first")
    judgements = tuple(
        Judgement(
            sample_id, outcome, order, None, f"Reason {place}: I say {outcome}.", "no verdict" * (outcome == "error")
        )
        for outcome, order in zip(outcomes[place], orders, strict=True)
    )
    if "error" in outcomes[place]:
        return SampleVerdict("error", None, None, judgements)
    points = sum(outcome == "win" for outcome in outcomes[place]) / 2
    outcome: Outcome = "win" if points > 0.5 else "loss" if points < 0.5 else "tie"
    return SampleVerdict(outcome, points, outcome == "tie", judgements)


def tiny_pairs() -> tuple[ScoredPair, ...]:
    """Preference data as the reward model scores it: right on two pairs of three."""
    return tuple(
        ScoredPair(
            row + 1,
            (Message("user", QUESTIONS[row % 6][0]),),
            ANSWERS["dpo"][row % 6],
            ANSWERS["base"][row % 6],
            1.0 + 0.1 * row if row % 3 else -1.0,
            -0.5 + 0.05 * row,
        )
        for row in range(30)
    )


# ---- answers that should never have been given ----

SCRIPT = "</script><script>window.ran = true</script><img src=x onerror='window.ran = true'><b>bold</b>"
LONG_WORD = "https://example.org/" + "a" * 3000
CONTROL = "a\x00b\x1b[31mc"
FORMULA = '=HYPERLINK("http://example.org", "a, b")'


def odd_case(row: int, text: str) -> Case:
    """A case whose last answer is `text`, in a subset of its own."""
    case = tiny_case(row)
    answers = {**case.answers, "dpo": dataclasses.replace(case.answers["dpo"], text=text)}
    return dataclasses.replace(case, subset="odd", answers=answers)


def strange_study(folder: Path) -> Study:
    """Rows 1 to 90 of the small world, two samples of row 91, and some answers that should never have been given."""
    study = tiny_study(folder, prompts=90)
    strange = [SCRIPT, LONG_WORD, CONTROL, "", "שלום עולם", FORMULA]
    odd = [odd_case(101 + place, text) for place, text in enumerate(strange)]
    asked = (Message("user", "A zebra, straße and CAFÉ?"),)
    twice = [dataclasses.replace(tiny_case(91, sample), prompt=asked, subset=None) for sample in (0, 1)]
    return dataclasses.replace(study, cases=(*study.cases, *twice, *odd))
