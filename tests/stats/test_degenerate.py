"""Signs in text: refusals, and that the quick look for repetition misses nothing."""

from __future__ import annotations

import random

import pytest

from preflab.stats import degenerate
from preflab.stats.degenerate import refusal, runaway_repetition


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "I can’t help you with this request, as it could harm somebody.",
        "  I'm sorry, but I can't assist with that.",
        "I’m sorry, but I cannot provide instructions for this.",
        "I am sorry, I am unable to help with that.",
        "Sorry, I won't do that.",
        "Unfortunately, I am not able to answer this question.",
        "As an AI language model, I cannot give medical advice.",
        "I'm sorry, but as an AI language model, I cannot tell you that.",
        "I apologize, but I cannot fulfill this request.",
        "I apologise, but I can't comply.",
        "I'm unable to create such content.",
        "I cannot in good conscience help you with that.",
        "I will not help you with this. Someone would come to harm.",
        "I'm sorry, but that's not something I can help with.",
    ],
)
def test_a_refusal_is_found(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Of course! You boil the kettle.",
        "I'm sorry to hear that. Have you tried turning it off and on?",
        "I'm sorry for your loss. You can write to her family.",
        "I can help with that.",
        "I can't believe it! What a goal.",
        "I cannot stress this enough: back up your files.",
        "I can't help but smile at this.",
        "I won't give up, and neither should you.",
        "As an AI, I think your essay reads well.",
        "You boil it. I can't help with the sugar.",
        "Icannot help",
    ],
)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert refusal(text) is None


def test_the_quick_look_lets_every_run_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts with runs of every length of phrase, just long enough to count, with and without text around them."""
    rng = random.Random(0)
    found = 0
    for length in range(1, 60):
        phrase = "".join(rng.choice("abc de") for _ in range(length - 1)) + "x"
        for times in (4, 5, -(-60 // length), 60 // length):
            for around in ("", "".join(rng.choices("abcdefgh ", k=80))):
                text = around + phrase * times + around[::-1]
                quick = runaway_repetition(text)
                with monkeypatch.context() as patched:
                    patched.setattr(degenerate, "_may_repeat", lambda _: True)
                    assert runaway_repetition(text) == quick
                found += quick is not None
    assert found > 200
