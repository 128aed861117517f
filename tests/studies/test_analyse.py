"""`analyse` on studies small enough to compute by hand, and its promises: symmetry, prompts as units, no NaN."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hand_studies import CHAT, GOLD, HUMAN, REWARD, case, judged, said, scored, study
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from preflab.core.records import Message, Outcome, UserError
from preflab.core.words import words
from preflab.stats.agreement import RANKED, kappa
from preflab.stats.diversity import distinct, repetition
from preflab.stats.results import Contest, Estimate
from preflab.stats.study import ScoredPair, Study
from preflab.studies.compare.analyse import analyse


def only(study: Study) -> Contest:
    (contest,) = analyse(study).contests
    return contest


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def swapped(original: Study) -> Study:
    return dataclasses.replace(original, models=tuple(reversed(original.models)))


def random_study(seed: int, prompts: int = 40, samples: int = 2) -> Study:
    rng = np.random.default_rng(seed)
    cases = []
    for row in range(prompts):
        for sample in range(samples):
            texts = {name: " ".join(["x"] * rng.integers(1, 30)) for name in ("base", "sft", "dpo")}
            scores = {name: {"reward": float(rng.integers(0, 5)), "gold": float(rng.normal())} for name in texts}
            verdicts = {("gpt-4o", name): said(rng.choice(["win", "tie", "loss", "error"])) for name in ("sft", "dpo")}
            cases.append(case(row, texts, sample=sample, scores=scores, verdicts=verdicts, subset="ab"[row % 2]))
    return study(cases, REWARD, GOLD, CHAT)


# ---- contests --------------------------------------------------------------------------------------------------------


def test_counts_and_win_rate_by_hand() -> None:
    contest = only(judged("wwwwwttlle--"))
    assert (contest.model, contest.opponent, contest.judge) == ("dpo", "base", "gpt-4o")
    assert (contest.wins, contest.ties, contest.losses, contest.errors) == (5, 2, 2, 1)
    assert value(contest.win_rate) == pytest.approx(6 / 9)
    assert contest.win_rate is not None
    assert contest.win_rate.n == 9
    assert contest.p_value == pytest.approx(stats.binomtest(5, 7).pvalue)
    assert contest.difference is None
    assert contest.difference_std is None


def test_an_error_is_neither_a_loss_nor_a_tie() -> None:
    assert value(only(judged("wwle")).win_rate) == value(only(judged("wwl")).win_rate) == pytest.approx(2 / 3)


def test_errors_alone_give_no_rate() -> None:
    contest = only(judged("eee"))
    assert contest.errors == 3
    assert contest.win_rate is contest.wilson is contest.p_value is contest.length_controlled is None
    assert contest.length_controlled_note


def test_two_models_that_were_never_compared_have_no_contest() -> None:
    assert analyse(judged("----")).contests == ()


def test_prompts_are_the_units_and_preferences_count_as_they_are() -> None:
    texts = {"base": "a", "dpo": "b"}
    verdicts = [(0, said("win", points=0.9)), (0, said("loss", points=0.3)), (0, said("win", points=0.6))]
    verdicts += [(1, said("loss", points=0.2))]
    cases = [
        case(row, texts, sample=sample, verdicts={("gpt-4o", "dpo"): verdict})
        for sample, (row, verdict) in enumerate(verdicts)
    ]
    contest = only(study(cases, CHAT))
    assert value(contest.win_rate) == pytest.approx((0.6 + 0.2) / 2)
    assert contest.win_rate is not None
    assert contest.win_rate.n == 2
    assert (contest.wins, contest.losses) == (2, 2)
    assert contest.p_value == 1.0  # one prompt won, one lost


def test_scores_by_hand() -> None:
    differences = [2.0, -1.0, 0.0, 3.0]
    contest = only(scored(differences))
    assert (contest.wins, contest.ties, contest.losses) == (2, 1, 1)
    assert value(contest.difference) == pytest.approx(1.0)
    assert contest.difference_std == pytest.approx(np.std(differences))
    assert contest.flip_rate is None


def test_flip_rate_counts_samples_judged_in_both_orders() -> None:
    flips = [True, False, False, None, None]
    cases = [
        case(row, {"base": "a", "dpo": "b"}, verdicts={("gpt-4o", "dpo"): said("tie", flipped=flipped)})
        for row, flipped in enumerate(flips)
    ]
    rate = only(study(cases, CHAT)).flip_rate
    assert value(rate) == pytest.approx(1 / 3)
    assert rate is not None
    assert rate.n == 3


def test_longer_and_shorter_are_told_apart_by_words() -> None:
    contest = only(scored([1, 1, -1, 1, -1, -1, 1], words=[(5, 3), (6, 3), (9, 3), (2, 3), (1, 3), (2, 9), (3, 3)]))
    assert value(contest.longer) == pytest.approx(2 / 3)
    assert value(contest.shorter) == pytest.approx(1 / 3)


def test_wins_are_counted_in_the_group_of_their_length() -> None:
    words = [(1, 9), (1, 9), (5, 5), (5, 5), (9, 1), (9, 1)]
    rates = only(scored([1.0, 1.0, 0.0, 0.0, -1.0, -1.0], words=words)).by_length
    assert {name: (rate.value, rate.n) for name, rate in rates.items()} == {
        **{"−8": (1.0, 2), "0": (0.5, 2), "+8": (0.0, 2)}
    }
    rates = only(judged("wwle-")).by_length  # what failed or was not judged is in no group
    assert [(rate.value, rate.n) for rate in rates.values()] == [(pytest.approx(2 / 3), 3)]


def test_subsets_by_hand() -> None:
    letters = {"fact": "wwl", "task": "lle", "broken": "ee"}
    cases = [
        case(
            row * 10 + place,
            {"base": "a", "dpo": "b"},
            subset=subset,
            verdicts={("gpt-4o", "dpo"): said({"w": "win", "l": "loss", "e": "error"}[letter])},
        )
        for row, (subset, outcomes) in enumerate(letters.items())
        for place, letter in enumerate(outcomes)
    ]
    subsets = only(study(cases, CHAT)).subsets
    assert {name: (rate.value, rate.n) for name, rate in subsets.items()} == {
        "fact": (pytest.approx(2 / 3), 3),
        "task": (0.0, 2),
    }


def test_scorers_compare_every_two_models_and_judges_only_with_the_baseline() -> None:
    pairs = [(contest.judge, contest.model, contest.opponent) for contest in analyse(random_study(0)).contests]
    three = [("sft", "base"), ("dpo", "base"), ("dpo", "sft")]
    assert pairs == [
        *[("reward", *pair) for pair in three],
        *[("gold", *pair) for pair in three],
        ("gpt-4o", "sft", "base"),
        ("gpt-4o", "dpo", "base"),
    ]


def test_swapping_model_and_opponent_gives_the_rest() -> None:
    differences = np.random.default_rng(0).integers(-2, 4, size=50).tolist()
    lengths = np.random.default_rng(1).integers(1, 40, size=(50, 2)).tolist()
    original = scored(differences, words=lengths)
    ours, theirs = only(original), only(swapped(original))
    assert (theirs.model, theirs.wins, theirs.losses) == ("base", ours.losses, ours.wins)
    for name in ("win_rate", "length_controlled", "difference"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        whole = 0 if name == "difference" else 1
        assert (other.value, other.low, other.high) == pytest.approx(
            (whole - mine.value, whole - mine.high, whole - mine.low), abs=1e-6
        )
    assert ours.p_value == theirs.p_value


# ---- two models, two judges ------------------------------------------------------------------------------------------


def test_mcnemar_by_hand() -> None:
    sft, dpo = "wwwllltte", "wlllwwtww"  # only sft: 2; only dpo: 4 (a tie is no win), the error is left out
    letters: Mapping[str, Outcome] = {"w": "win", "l": "loss", "t": "tie", "e": "error"}
    cases = [
        case(
            row,
            {"base": "a", "sft": "b", "dpo": "c"},
            verdicts={("gpt-4o", "sft"): said(letters[one]), ("gpt-4o", "dpo"): said(letters[other])},
        )
        for row, (one, other) in enumerate(zip(sft, dpo, strict=True))
    ]
    (test,) = analyse(study(cases, CHAT)).paired_tests
    assert (test.first, test.second, test.only_first, test.only_second) == ("sft", "dpo", 2, 3)
    assert test.p_value == pytest.approx(stats.binomtest(2, 5).pvalue)


def test_agreement_by_hand() -> None:
    first, second = "wwlltwet", "wlllwtet"
    letters: Mapping[str, Outcome] = {"w": "win", "l": "loss", "t": "tie", "e": "error"}
    cases = [
        case(
            row,
            {"base": "a", "dpo": "c"},
            verdicts={("gpt-4o", "dpo"): said(letters[one]), ("human", "dpo"): said(letters[other])},
        )
        for row, (one, other) in enumerate(zip(first, second, strict=True))
    ]
    (agreement,) = analyse(study(cases, CHAT, HUMAN)).agreements
    assert (agreement.first, agreement.second) == ("gpt-4o", "human")
    assert value(agreement.accuracy) == pytest.approx(3 / 4)
    assert value(agreement.kappa) == pytest.approx(cohen_kappa_score([*first[:6], "t"], [*second[:6], "t"]))


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    tables = rng.integers(0, 9, size=(20, 9)).astype(np.float64)
    for table, found in zip(tables, kappa(tables), strict=True):
        first, second = (np.repeat(side, table.astype(int)) for side in np.divmod(np.arange(9), len(RANKED)))
        assert found == pytest.approx(cohen_kappa_score(first, second))
    assert np.isnan(kappa(np.eye(1, 9))).all()  # both always say "win"


def test_judges_who_never_judged_the_same_sample_have_no_agreement() -> None:
    texts = {"base": "a", "dpo": "b"}
    cases = [
        case(0, texts, verdicts={("gpt-4o", "dpo"): said("win")}),
        case(1, texts, verdicts={("human", "dpo"): said("win")}),
    ]
    assert analyse(study(cases, CHAT, HUMAN)).agreements == ()


# ---- texts -----------------------------------------------------------------------------------------------------------


def test_words_of_any_language() -> None:
    assert words("The  cat,\nthe dog") == ["the", "cat,", "the", "dog"]
    assert words("我爱 tea です") == ["我", "爱", "tea", "で", "す"]
    assert words(" \n") == []


def test_distinct_and_repetition_by_hand() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"], ["c"]]
    assert distinct(texts, 1) == pytest.approx(3 / 7)
    assert distinct(texts, 2) == pytest.approx(2 / 4)  # ab ba ab ab
    assert distinct(texts, 3) == 1.0
    assert distinct(texts, 5) == 0.0
    assert repetition(["a", "b", "c", "d"] * 2) == pytest.approx(1 - 4 / 5)
    assert repetition(["a", "b", "c"]) == 0.0


def test_figures_of_a_model_by_hand() -> None:
    cases = [
        case(row, {"base": text, "dpo": "I cannot help with that."}, capped=capped, scores={"base": {"reward": score}})
        for row, (text, capped, score) in enumerate(
            [("one two three", False, 1.0), ("one two", True, 2.0), ("", False, 0.0), ("Yes.\nHuman: more", True, 5.0)]
        )
    ]
    base, dpo = analyse(study(cases, REWARD)).models
    assert (base.prompts, base.responses) == (4, 4)
    assert value(base.words) == pytest.approx((3 + 2 + 0 + 3) / 4)
    assert value(base.characters) == pytest.approx((13 + 7 + 0 + 16) / 4)
    assert {name: share.value for name, share in base.shares.items()} == {
        "hit_cap": 0.5,
        "empty": 0.25,
        "runaway_repetition": 0.0,
        "foreign_turn": 0.25,
        "other_task": 0.0,
        "refusal": 0.0,
    }
    assert dpo.shares["refusal"].value == 1.0
    scores = base.scores["reward"]
    assert scores.mean.value == pytest.approx(2.0)
    assert scores.std == pytest.approx(np.std([1, 2, 0, 5]))
    lengths = [3, 2, 0, 3]
    assert scores.length_pearson == pytest.approx(np.corrcoef(lengths, [1, 2, 0, 5])[0, 1])
    assert scores.length_spearman == pytest.approx(stats.spearmanr(lengths, [1, 2, 0, 5])[0])
    assert dpo.scores == {}


def test_what_a_file_does_not_say_is_left_out() -> None:
    model = analyse(judged("wl")).models[0]
    assert model.tokens is None
    assert "hit_cap" not in model.shares


def test_correlation_with_a_constant_is_none() -> None:
    for words_of in (None, [(1, 3), (2, 3)]):
        base = analyse(scored([1.0, 1.0], words=words_of)).models[0]
        assert base.scores["reward"].length_pearson is base.scores["reward"].length_spearman is None


# ---- the reward model's depth ----------------------------------------------------------------------------------------


def pairs(scores: Sequence[tuple[float, float]]) -> tuple[ScoredPair, ...]:
    return tuple(
        ScoredPair(row, (Message("user", f"q{row}"),), "a b", "a b c"[: 5 if row % 2 else 1], *both)
        for row, both in enumerate(scores)
    )


def test_depth_by_hand() -> None:
    known = [(float(place), float(place) - (1 if place % 4 else -1)) for place in range(100)]
    known[0] = (0.0, 0.0)  # a tie
    tested = scored([0.0, 500.0, 10.0, -600.0])  # base scores 1
    tested = dataclasses.replace(tested, preference_data={"reward": pairs(known)})
    (depth,) = analyse(tested).depth
    everything = np.array(known).ravel()
    assert value(depth.accuracy) == pytest.approx(0.755), "the tie is half a success"
    assert depth.accuracy.n == 100
    assert depth.length_accuracy == pytest.approx(0.5)  # shorter in every second pair, longer in the others
    assert (depth.mean, depth.std) == (pytest.approx(everything.mean()), pytest.approx(everything.std()))
    assert (depth.low, depth.high) == tuple(pytest.approx(q) for q in np.quantile(everything, [0.01, 0.99]))
    assert {name: share.value for name, share in depth.outside.items()} == {"base": 0.0, "dpo": 0.5}
    assert depth.shift["base"] == pytest.approx((1 - everything.mean()) / everything.std())


@pytest.mark.parametrize(
    ("scores", "out", "part"),
    [
        ([9.0, *[0.2] * 19], False, "no sign"),  # 5 %, but of so few that it may be chance
        ([0.2, -0.5, 1.0, 0.1] * 10, False, "no sign that the reward model is out of its depth"),
        (
            [0.2, 9.0, 0.3, 9.0] * 10,
            True,
            "50 % of dpo's responses score higher than 99 % of preference data",
        ),
        ([0.2, -9.0, 0.3, 0.4] * 10, True, "25 % of dpo's responses score lower"),
        ([2.6] * 40, True, "the mean score of dpo lies 2.1 standard deviations above"),
    ],
)
def test_the_statement_says_where_scores_are_extrapolation(scores: list[float], out: bool, part: str) -> None:
    rng = np.random.default_rng(0)
    known = pairs([(float(a), float(b)) for a, b in rng.normal(0.5, 1, size=(200, 2))])
    tested = dataclasses.replace(scored([score - 1 for score in scores]), preference_data={"reward": known})
    (depth,) = analyse(tested).depth
    assert depth.out_of_depth is out
    assert part.lower() in depth.statement.lower().replace("\u00a0", " ")
    assert ("extrapolation" in depth.statement) is out


def test_depth_claims_nothing_from_too_little() -> None:
    few = dataclasses.replace(scored([9.0] * 20), preference_data={"reward": pairs([(1.0, 0.0)] * 10)})
    (depth,) = analyse(few).depth
    assert not depth.out_of_depth
    assert "only 10 preference pairs" in depth.statement
    same = dataclasses.replace(scored([9.0] * 20), preference_data={"reward": pairs([(1.0, 1.0)] * 60)})
    (depth,) = analyse(same).depth
    assert depth.shift == {}
    assert "the same score" in depth.statement
    assert analyse(scored([1.0])).depth == ()
    gold = dataclasses.replace(scored([9.0] * 20, judges=[GOLD]), preference_data={"gold": pairs([(1.0, 0.0)] * 60)})
    assert analyse(gold).depth == ()  # gold is the truth, not a model of it


# ---- promises --------------------------------------------------------------------------------------------------------


def numbers(thing: Any) -> Iterator[float]:
    if dataclasses.is_dataclass(thing):
        thing = [getattr(thing, each.name) for each in dataclasses.fields(thing)]
    if isinstance(thing, Mapping):
        thing = list(thing.values())
    if isinstance(thing, (list, tuple)):
        for part in thing:
            yield from numbers(part)
    elif isinstance(thing, float):
        yield thing


@pytest.mark.parametrize(
    "made",
    [
        random_study(1),
        random_study(2, prompts=1, samples=1),
        judged("e"),
        judged("-"),
        judged("t" * 12),
        judged("w" * 12, ours="", theirs=""),
        scored([0.0] * 12),
        study([case(0, {"base": "", "dpo": ""})]),
        study([case(0, {"base": "alone"}, scores={"base": {"reward": 1.0}})], REWARD),
    ],
)
def test_no_figure_is_nan_and_every_interval_holds_its_value(made: Study) -> None:
    analysis = analyse(made)
    assert all(math.isfinite(number) for number in numbers(analysis))
    assert all(type(number) is float for number in numbers(analysis))
    rates = [rate for c in analysis.contests for rate in (c.win_rate, c.longer, c.shorter, c.length_controlled) if rate]
    assert all(0 <= rate.low <= rate.value <= rate.high <= 1 for rate in rates)


def test_the_same_seed_gives_the_same_figures() -> None:
    assert analyse(random_study(0)) == analyse(random_study(0))
    assert analyse(random_study(0)) != analyse(random_study(0), seed=1)


def test_a_study_without_prompts_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to analyse"):
        analyse(study([]))
