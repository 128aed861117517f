"""The first screen in words: what is claimed, what is not, and what is warned of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hand_studies import CHAT, GOLD, HUMAN, REWARD, case, judged, said, scored, study

from preflab.core.records import Message
from preflab.stats.results import Estimate, Finding
from preflab.stats.study import Judge, ScoredPair, Study
from preflab.stats.wording import SHARES, listed, percent, side, who
from preflab.studies.compare.analyse import COUNTED, analyse


def findings(study: Study) -> tuple[Finding, ...]:
    found = analyse(study).findings
    assert 1 <= len(found) <= 7
    for finding in found:
        assert finding.tone in ("good", "bad", "neutral", "warning")
        assert finding.text.endswith(".")
        assert "nan" not in finding.text.lower().split()
        assert "  " not in finding.text
    return tuple(replace(finding, text=finding.text.replace("\u00a0", " ")) for finding in found)


def text(study: Study) -> str:
    return "\n".join(finding.text for finding in findings(study))


# ---- who is better ---------------------------------------------------------------------------------------------------


def test_better_worse_and_unclear() -> None:
    better, worse, unclear = (
        findings(judged(letters))[0] for letters in ("w" * 70 + "l" * 30, "w" * 30 + "l" * 70, "wl" * 50)
    )
    assert better.text.startswith(
        "dpo is better than base, says the judge gpt-4o: win rate 70 % (95 % interval 60 to 78 %, 100 prompts)."
    )
    assert better.tone == "good"
    assert worse.text.startswith("dpo is worse than base, says the judge gpt-4o: win rate 30 % (")
    assert worse.tone == "bad"
    assert unclear.text.startswith("No clear difference between dpo and base, says the judge gpt-4o: win rate 50 % (")
    assert unclear.tone == "neutral"


def test_ties_are_said_to_count_half() -> None:
    assert "20 prompts, ties count half)" in text(judged("t" * 20))
    assert "No clear difference" in text(judged("t" * 20))
    assert "ties" not in text(judged("w" * 20))


@pytest.mark.parametrize("letters", ["w", "l", "t", "www", "w" * 9])
def test_few_prompts_show_nothing(letters: str) -> None:
    (first, *rest) = findings(judged(letters))
    number = f"{len(letters)} prompt{'s' if len(letters) > 1 else ''}"
    assert first.text.startswith("Too few prompts to tell whether dpo is better than base: win rate")
    assert number in first.text
    assert first.tone == "warning"
    assert not any("better than" in finding.text or "cost" in finding.text for finding in rest)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (judged("----"), "Nothing can be said about which model is better: no response was scored or judged."),
        (judged("eee"), "Nothing can be said about which model is better: all 3 judgements failed."),
        (
            study([case(0, {"base": "alone"})]),
            "Nothing can be said about which model is better: no response was scored or judged.",
        ),
    ],
)
def test_nothing_judged_is_said(made: Study, said: str) -> None:
    assert findings(made) == (Finding(said, "warning"),)


def test_the_first_judge_that_judged_anything_leads() -> None:
    original = judged("w" * 20, judge=HUMAN)
    both = replace(original, judges=(CHAT, HUMAN))
    assert findings(both)[0].text.startswith(
        "dpo is better than base, says the human judge: win rate 100 % (95 % interval 84 to 100 %"
    )


def scored_by_both(gold: str, reward: str) -> Study:
    """dpo against base before gold, then a reward model: w(in) or l(oss) of each prompt."""
    points = {"w": 1.0, "l": -1.0}
    cases = [
        case(
            row,
            {"base": "a b c", "dpo": "d e f"},
            scores={"base": {"gold": 0.0, "reward": 0.0}, "dpo": {"gold": points[true], "reward": points[seen]}},
        )
        for row, (true, seen) in enumerate(zip(gold, reward, strict=True))
    ]
    return study(cases, GOLD, REWARD)


def test_the_truth_may_lead_and_a_reward_model_follow() -> None:
    mostly, half = "w" * 45 + "l" * 15, "wl" * 30
    same = text(scored_by_both(mostly, mostly))
    assert same.startswith("dpo is better than base, says the gold reward: win rate 75 %")
    assert "The reward model (win rate 75 % for dpo) says the same." in same
    assert (
        "The reward model names the same winner as the gold reward 100 % of the time (95 % interval 94 to 100 %)."
        in same
    )
    fooled = text(scored_by_both(half, mostly))
    assert fooled.startswith("No clear difference between dpo and base, says the gold reward: win rate 50 %")
    assert "Other judges are of another mind: of dpo, the reward model sees it ahead (75 %)." in fooled
    assert "The reward model names the same winner as the gold reward only 52 % of the time" in fooled
    assert "; by chance 50 %)." in fooled


def test_first_by_scores_is_the_reward_model_also_where_gold_leads() -> None:
    assert [judge.name for judge in scored_by_both("w", "w").scorers] == ["reward", "gold"]


# ---- length ----------------------------------------------------------------------------------------------------------


def lengthy(seed: int, theta: float, phi: float) -> Study:
    """A reward model that likes length, and a model that mostly writes more."""
    rng = np.random.default_rng(seed)
    words = [(int(ours), 50) for ours in rng.normal(70, 25, size=400).clip(1)]
    spread = np.std([ours for ours, _ in words])
    won = [rng.random() < 1 / (1 + np.exp(-theta - phi * np.tanh((ours - 50) / spread))) for ours, _ in words]
    return scored([1.0 if each else -1.0 for each in won], words=words)


def test_a_gain_by_length_alone_is_warned_of() -> None:
    said = text(lengthy(0, theta=0.0, phi=1.5))
    assert "dpo is better than base, says the reward model" in said
    assert "Its responses are 37 % longer (69 words on average against 50)" in said
    assert "; at equal lengths the win rate would be 49 % (" in said
    assert (
        "Length may explain what the reward model prefers: at equal lengths the result of dpo would not be clear."
        in said
    )


def test_a_result_that_turns_round_at_equal_lengths_is_warned_of() -> None:
    assert "at equal lengths the result of dpo would be the opposite" in text(lengthy(0, theta=-1.2, phi=3.5))


def test_a_gain_that_stands_at_equal_lengths_is_not() -> None:
    assert "Length may explain" not in text(lengthy(0, theta=1.0, phi=0.5))


def test_equal_lengths_that_are_rare_are_named() -> None:
    made = scored([1.0, 1.0, -1.0] * 10, words=[(11 + 2 * place, 10) for place in range(30)])
    reason = "its response is the longer one on 100 % of prompts"
    assert f"The win rate of dpo at equal lengths rests on few and unusual prompts: {reason}." in text(made)
    assert "Its responses are 4.0 times as long (40 words on average against 10)" in text(made)
    blank = scored([1.0, -1.0] * 10, words=[(3, 0)] * 20)
    assert "Its responses are longer (3 words on average against 0). The win rate of dpo at equal" in text(blank)


# ---- other judges ----------------------------------------------------------------------------------------------------


def two_judges(first: str, second: str, judges: tuple[Judge, Judge] = (CHAT, HUMAN)) -> Study:
    letters = {"w": "win", "l": "loss", "t": "tie", "e": "error"}
    cases = [
        case(
            row,
            {"base": "a b c", "dpo": "d e f"},
            verdicts={(judge.name, "dpo"): said(letters[letter]) for judge, letter in zip(judges, pair, strict=True)},
        )
        for row, pair in enumerate(zip(first, second, strict=True))
    ]
    return study(cases, *judges)


def test_judges_that_agree_and_that_contradict() -> None:
    mostly, hardly, half = "w" * 45 + "l" * 15, "l" * 45 + "w" * 15, "wl" * 30
    assert "The human judge (win rate 75 % for dpo) says the same." in text(two_judges(mostly, mostly))
    assert "Judges contradict each other: of dpo, the human judge sees it behind (25 %)." in text(
        two_judges(mostly, hardly)
    )
    assert "Other judges are of another mind: of dpo, the human judge sees no clear difference (50 %)." in text(
        two_judges(mostly, half)
    )
    assert "the same" not in text(two_judges(half, half)).replace("names the same winner", "")


def test_agreement_with_people_is_weighed() -> None:
    mostly = "w" * 45 + "l" * 15
    good = findings(two_judges(mostly, mostly))[-1]
    said = "The judge gpt-4o names the same winner as the human judge 100 % of the time (95 % interval 94 to 100 %)."
    assert good == Finding(said, "good")
    low = text(two_judges(mostly, "wl" * 30))
    assert "The judge gpt-4o names the same winner as the human judge only 52 % of the time" in low
    assert "names the same winner as the human judge 52 %" not in low


def test_many_errors_are_said_and_few_are_not() -> None:
    assert "The judge gpt-4o gave no usable verdict on 20 % of samples; its figures leave them out." in text(
        judged("wwwwe" * 10)
    )
    assert "no usable verdict" not in text(judged("w" * 98 + "ee"))


def test_a_judge_that_follows_the_place_is_warned_of() -> None:
    def flipping(share: float) -> Study:
        cases = [
            case(row, {"base": "a", "dpo": "b"}, verdicts={("gpt-4o", "dpo"): said("tie", flipped=row < 40 * share)})
            for row in range(40)
        ]
        return study(cases, CHAT)

    assert "named the other winner when the two responses changed places, on 40 % of 40 prompts" in text(flipping(0.4))
    assert "changed places" not in text(flipping(0.1))


def preferring(right: float, longer: float) -> Study:
    """A reward model that ranks this share of 200 pairs as people did, where the chosen one is so often the longer."""
    rng = np.random.default_rng(0)
    pairs = []
    for row in range(200):
        low, high = sorted(rng.normal(1.0, 1.0, size=2).tolist())
        scores = (high, low) if row < 200 * right else (low, high)
        texts = ("a b", "a") if (row * 7) % 200 < 200 * longer else ("a", "a b")
        pairs.append(ScoredPair(row, (Message("user", f"q{row}"),), *texts, *scores))
    return replace(scored([0.5, -0.4] * 20), preference_data={"reward": tuple(pairs)})


def test_a_reward_model_is_held_against_chance_and_length() -> None:
    assert "52 % of preference pairs as people did (95 % interval 45 to 59 %): not clearly more than chance." in text(
        preferring(0.52, 0.3)
    )
    assert "not clearly more than “the longer one is better” (70 %)" in text(preferring(0.72, 0.7))
    good = text(preferring(0.8, 0.6))
    short = text(preferring(0.72, 0.3))
    assert "not clearly more than “the shorter one is better” (70 %)" in short, "a liking for short ones is a rule, too"
    sure = "95 % interval 74 to 85 %; going by length alone: 60 %"
    assert f"The reward model ranks 80 % of preference pairs as people did ({sure})" in good
    assert "not clearly" not in good.replace("not clearly more repetition", "")


def test_a_reward_model_out_of_its_depth_is_warned_of() -> None:
    known = preferring(0.8, 0.6).preference_data
    out = replace(scored([9.0, 0.1] * 20), preference_data=known)
    statement = analyse(out).depth[0].statement.replace("\u00a0", " ")
    assert Finding(statement, "warning") in findings(out)
    assert "50 % of dpo's responses score higher than 99 % of preference data" in text(out)
    assert "depth" not in text(preferring(0.8, 0.6))


# ---- what changed in the text ----------------------------------------------------------------------------------------


def written(base: list[str], dpo: list[str], *, capped: tuple[bool, bool] = (False, False)) -> Study:
    made = judged("wwl" * 20)
    cases = []
    for row, each in enumerate(made.cases):
        texts = {"base": base[row % len(base)], "dpo": dpo[row % len(dpo)]}
        answers = case(row, texts).answers
        answers = {name: replace(answers[name], capped=cut) for name, cut in zip(texts, capped, strict=True)}
        cases.append(replace(each, answers=answers))
    return replace(made, cases=tuple(cases))


PLAIN = [f"Answer number {n} says {n * n} and {n + 7} in {n % 5} words." for n in range(60)]


def test_costs_are_named() -> None:
    loops = text(written(PLAIN, [*PLAIN[:3], "I could go on. " * 30]))
    assert "Not for the better, beside base: dpo: 25 % of responses repeat without end (base: 0 %)" in loops
    assert "wording is less varied, partly because it writes more" in loops
    assert "100 % of responses hit the token cap (base: 0 %)" in text(written(PLAIN, PLAIN, capped=(False, True)))
    assert "decline to answer" in text(written(PLAIN, ["I'm sorry, but I can't help with that."]))
    assert "of responses are empty" in text(written(PLAIN, [*PLAIN[:3], ""]))
    assert "speak as someone else" in text(written(PLAIN, [f"{each}\nHuman: and?" for each in PLAIN]))


def test_no_cost_is_said_where_there_is_none() -> None:
    assert "The text itself shows no cost" in text(written(PLAIN, PLAIN))
    assert "Not for the better" not in text(written(["I could go on. " * 30], PLAIN))


def test_a_few_prompts_show_no_cost() -> None:
    made = written(PLAIN, ["one two three four five one two three four five"])
    assert "of a response's four-word runs stood in it before" in text(made)
    assert "Not for the better" not in text(replace(made, cases=made.cases[:4]))


# ---- several models --------------------------------------------------------------------------------------------------


def test_models_are_compared_with_each_other_too() -> None:
    rng = np.random.default_rng(0)
    cases = [
        case(
            row,
            {name: f"a b {name}" for name in ("base", "sft", "dpo")},
            scores={
                name: {"reward": float(mean + rng.normal())} for name, mean in (("base", 0), ("sft", 1), ("dpo", 2))
            },
        )
        for row in range(200)
    ]
    said = text(study(cases, REWARD))
    assert (
        said.index("dpo is better than base")
        < said.index("sft is better than base")
        < said.index("dpo is better than sft")
    )


def test_the_first_screen_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    made = two_judges("w" * 45 + "l" * 15, "wl" * 30)
    everything = findings(made)
    assert len(everything) > 2
    monkeypatch.setattr("preflab.studies.compare.findings.MOST", 2)
    assert findings(made) == everything[:2]


def test_of_many_models_the_best_are_named() -> None:
    names = ("base", "a", "b", "c", "d", "e")
    cases = [
        case(
            row,
            {name: name for name in names},
            scores={name: {"reward": float(place * (row % 3 > 0))} for place, name in enumerate(names)},
        )
        for row in range(60)
    ]
    found = findings(study(cases, REWARD))
    named = [finding.text.split()[0] for finding in found[:3]]
    assert len(named) == 3
    assert sum("better than base" in finding.text for finding in found) == 3


# ---- words -----------------------------------------------------------------------------------------------------------


def test_percentages_do_not_round_to_nothing_half_or_all() -> None:
    shares = (0.714, 0.004, 0.996, 0.503, 0.0, 0.5, 1.0, 1 / 3)
    assert [percent(share).replace("\u00a0", " ") for share in shares] == [
        "71 %",
        "0.4 %",
        "99.6 %",
        "50.3 %",
        "0 %",
        "50 %",
        "100 %",
        "33 %",
    ]


def test_every_share_that_is_counted_has_its_words() -> None:
    assert COUNTED.keys() == SHARES.keys()


def test_lists_and_names() -> None:
    assert (listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == ("a", "a and b", "a, b and c")
    assert who(REWARD) == "the reward model"
    assert who(Judge("reward_model", "reward_model", "x")) == "the reward model"
    assert who(Judge("rm-2b", "reward_model", "x")) == "the reward model rm-2b"
    assert (who(GOLD), who(CHAT), who(HUMAN)) == ("the gold reward", "the judge gpt-4o", "the human judge")


def test_a_difference_is_claimed_only_where_the_interval_shows_it() -> None:
    assert side(Estimate(0.6, 0.51, 0.7, 100)) == "better"
    assert side(Estimate(0.4, 0.3, 0.49, 100)) == "worse"
    assert side(Estimate(0.6, 0.5, 0.7, 100)) == side(Estimate(0.9, 0.8, 1.0, 9)) == side(None) == "unclear"


def test_many_empty_responses_come_before_any_verdict() -> None:
    cases = [
        case(
            row,
            {"base": "one two three", "dpo": "" if row < 10 else "four five six"},
            verdicts={("gpt-4o", "dpo"): said("win")},
        )
        for row in range(25)
    ]
    first, second, *_ = findings(study(cases, CHAT))
    assert first.tone == "warning"
    assert (
        first.text == "Many responses are empty: 0 % of base's and 40 % of dpo's. No verdict below holds without that."
    )
    assert second.text.startswith("dpo is better than base")


def test_few_empty_responses_are_not_said_first() -> None:
    cases = [
        case(row, {"base": "one", "dpo": "" if not row else "two"}, verdicts={("gpt-4o", "dpo"): said("win")})
        for row in range(25)
    ]
    assert not analyse(study(cases, CHAT)).findings[0].text.startswith("Many")


def test_a_model_that_leaves_much_unanswered_is_not_shown_as_simply_better() -> None:
    for answered, tone in ((20, "warning"), (40, "good")):
        cases = [
            case(
                row,
                {"base": f"b {row}", "dpo": f"d {row}" if row < answered else ""},
                scores={"base": {"reward": 0.0}, "dpo": {"reward": 1.0} if row < answered else {}},
            )
            for row in range(40)
        ]
        (said,) = [found for found in findings(study(cases, REWARD)) if "dpo is better than base" in found.text]
        assert said.tone == tone
