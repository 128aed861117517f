"""Prompts are the units of every figure, whatever the number of samples of each."""

from __future__ import annotations

from hand_studies import CHAT, HUMAN, REWARD, case, said, study

from preflab.stats.results import Agreement
from preflab.studies.compare.analyse import analyse


def agreement(samples: int) -> Agreement:
    """Ten prompts: on six of them both judges agree, in all samples, and on four they do not, in any."""
    cases = [
        case(
            row,
            {"base": "a", "dpo": "b"},
            sample=sample,
            verdicts={
                ("gpt-4o", "dpo"): said("win" if row % 2 else "loss"),
                ("human", "dpo"): said("win" if row % 2 == (row < 6) else "loss"),
            },
        )
        for row in range(10)
        for sample in range(samples)
    ]
    (found,) = analyse(study(cases, CHAT, HUMAN)).agreements
    return found


def test_samples_that_say_the_same_make_agreement_no_surer() -> None:
    once, often = agreement(1), agreement(4)
    assert once.accuracy is not None
    assert once.kappa is not None
    assert (once.accuracy.value, once.accuracy.n) == (0.6, 10)
    assert once.accuracy.high - once.accuracy.low > 0.4
    assert (often.accuracy, often.kappa) == (once.accuracy, once.kappa)


def test_variety_is_measured_on_as_many_texts_of_every_model() -> None:
    one, two = {"base": "a b c d", "dpo": "a b c d"}, {"base": "a b c d", "dpo": "e f g h"}
    cases = [case(1, one, sample=0), case(1, two, sample=1), case(2, {"base": "i j", "dpo": "i j"})]
    base, dpo = analyse(study(cases, REWARD)).models
    assert base.distinct == dpo.distinct == {1: 1.0, 2: 1.0, 3: 1.0}, "the second response to a prompt does not count"
