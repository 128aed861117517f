"""What is said of frontiers whose truth is known: who dominates, who loses to best-of-n, where gold falls while the
proxy rises, and nothing where noise explains it.
"""

from __future__ import annotations

from dataclasses import replace

import hand_frontiers
import numpy as np
import pytest

from preflab.core.origins import Leak
from preflab.stats.results import Finding
from preflab.studies.frontier.differences import difference, gold_at, trained_sides
from preflab.studies.frontier.findings import reading
from preflab.studies.frontier.rows import best_of_n, curves

Points = dict[float, hand_frontiers.Means]

FLAT: Points = {1.0: (0.9, 1.10, 0.3), 0.1: (4.1, 1.10, 0.3)}
BETTER: Points = {1.0: (0.9, 1.30, 0.3), 0.1: (4.1, 1.30, 0.3)}
OVER: Points = {3.0: (0.5, 1.20, 0.2), 1.0: (1.0, 1.40, 0.5), 0.1: (9.0, 0.90, 0.9)}
"""Gold peaks at 1 nat and falls below the reference's, while the proxy goes on rising."""


def said(points: dict[str, Points], **changes: object) -> str:
    return " ".join(finding.text for finding in findings(points, **changes))


def findings(points: dict[str, Points], **changes: object) -> tuple[Finding, ...]:
    return reading(hand_frontiers.frontier(points, **changes))  # type: ignore[arg-type]


def test_an_objective_that_dominates_is_named_with_its_lead() -> None:
    text = said({"dpo": FLAT, "ipo": BETTER, "kto": FLAT})
    assert "At a KL of 1 nat from the reference, where dpo has a gold reward of +1.10, ipo (+0.20) has more" in text
    assert "no difference to the others is clear (kto)" in text
    assert "ipo (+0.20) has less" not in text


def test_an_objective_that_is_dominated_is_named() -> None:
    text = said({"dpo": BETTER, "ipo": FLAT})
    assert "where dpo has a gold reward of +1.30, ipo (−0.20) has less." in text


@pytest.mark.parametrize("changes", [{"noise": 2.0}, {"between_seeds": 0.3}], ids=["prompts", "seeds"])
def test_what_noise_explains_is_not_claimed(changes: dict[str, float]) -> None:
    text = said({"dpo": FLAT, "ipo": BETTER}, **changes)
    assert "no difference to the other objectives is clear (ipo)" in text
    assert "more" not in text.split("Best-of-n")[0]


def test_more_comparisons_ask_for_more() -> None:
    slightly: Points = {1.0: (1.0, 1.145, 0.3), 0.1: (1.1, 1.145, 0.3)}
    alone: dict[str, Points] = {"dpo": FLAT, "ipo": slightly}
    assert "ipo (+0.045) has more" in findings(alone, seeds=5)[0].text
    crowd = {f"other{number}": FLAT for number in range(20)}
    assert "ipo (+0.045) has more" not in findings({**alone, **crowd}, seeds=5)[0].text


def test_those_that_lose_to_best_of_n_are_named_with_the_gap() -> None:
    strong = ((1, 1.0, 0.0), (4, 1.8, 0.4), (64, 1.8, 0.8))
    found = findings({"dpo": FLAT, "ipo": BETTER}, best_of=strong)
    (lost, _) = (finding for finding in found if finding.text.startswith("Best-of-n reaches"))
    assert lost.text == (
        "Best-of-n reaches +1.80 at a KL of at most 1 nat: all 2 objectives lose to it, by 0.50 (ipo) to 0.70 (dpo)."
    )
    assert lost.tone == "bad"


def test_those_that_beat_best_of_n_and_those_that_may_not_are_told_apart() -> None:
    weak = ((1, 1.0, 0.0), (4, 1.1, 0.4), (64, 1.1, 0.8))
    text = said({"dpo": FLAT, "ipo": BETTER}, best_of=weak)
    assert (
        "Best-of-n reaches +1.10 at a KL of at most 1 nat: ipo (+0.20) has more; no difference to dpo is clear." in text
    )


def test_beyond_the_ends_of_a_curve_nothing_is_said_of_it() -> None:
    far: Points = {1.0: (6.0, 1.30, 0.3), 0.1: (9.0, 1.30, 0.3)}
    text = said({"dpo": FLAT, "ipo": far, "kto": FLAT})
    assert "At a KL of 1 nat" in text
    assert "ipo" not in text.split("At a KL of 1 nat")[1].split(".")[1]
    frontier = hand_frontiers.frontier({"ipo": far})
    assert gold_at(curves(frontier)["ipo"], 1.0) is None
    assert gold_at(best_of_n(frontier), 8.0) is None


def test_between_two_points_gold_is_read_in_the_root_of_kl() -> None:
    curve = curves(hand_frontiers.frontier({"ipo": {1.0: (1.0, 1.0, 0.0), 0.1: (4.0, 2.0, 0.0)}}))["ipo"]
    gold = gold_at(curve, 2.25)
    assert gold is not None
    assert gold.mean() == pytest.approx(1.5)  # √2.25 lies halfway between √1 and √4


STEEP: Points = {1.0: (0.5, 1.0, 0.3), 0.3: (1.2, 1.4, 0.3), 0.1: (3.6, 2.0, 0.3)}


def test_each_seed_is_read_at_its_own_kl() -> None:
    """With equal strengths, seeds end up at different KLs; at equal KL, each lies elsewhere on its own curve."""
    curve = curves(hand_frontiers.frontier({"ipo": STEEP}, kl_ratio=4.0, between_seeds=0.0))["ipo"]
    gold = gold_at(curve, 2.0)
    assert gold is not None
    kls, golds = np.array([kl for kl, _, _ in STEEP.values()]), [gold for _, gold, _ in STEEP.values()]
    by_hand = [np.interp(np.sqrt(2.0), np.sqrt(kls * ratio), golds) for ratio in (1.0, 2.0, 4.0)]
    assert by_hand[0] - by_hand[2] > 0.5
    assert gold.mean(axis=1) == pytest.approx(by_hand)


def test_what_seeds_differ_by_at_equal_kl_is_in_the_interval() -> None:
    points = {"dpo": FLAT, "ipo": STEEP}
    assert "where dpo has a gold reward of +1.10, ipo (+0.20) has more" in said(points)
    assert "has more" not in said(points, kl_ratio=4.0).split("Best-of-n")[0]


def test_seeds_are_matched_by_their_number() -> None:
    given = hand_frontiers.frontier({"ipo": STEEP}, kl_ratio=4.0)
    gold = gold_at(curves(given)["ipo"], 2.0)
    without = replace(given, policies=tuple(p for p in given.policies if p.name != "ipo-0.3-0"))
    found = gold_at(curves(without)["ipo"], 2.0)
    assert gold is not None
    assert found is not None
    assert found == pytest.approx(gold[1:])  # what is left of seed 0 lies too far apart to be read between


def test_points_far_apart_are_not_read_between() -> None:
    curve = curves(hand_frontiers.frontier({"ipo": {1.0: (0.5, 1.0, 0.0), 0.1: (4.0, 2.0, 0.0)}}))["ipo"]
    assert gold_at(curve, 2.0) is None


def test_a_single_seed_is_not_compared() -> None:
    text = said({"dpo": FLAT, "ipo": BETTER, "kto": OVER}, seeds=1)
    assert "At a KL of" not in text
    assert "lose" not in text
    assert "Over-optimisation" not in text
    assert "no fall of gold is clear" not in text.replace("With best-of-n no fall", "")
    assert "cannot be told from one seed, so no policies are compared" in text


def test_gold_that_falls_while_the_proxy_rises_is_called_overoptimisation() -> None:
    found = findings({"dpo": FLAT, "ipo": OVER})
    (warning,) = (finding for finding in found if finding.text.startswith("Over-optimisation"))
    assert warning.tone == "warning"
    assert warning.text == (
        "Over-optimisation, gold falling while the reward model's score rises: ipo. Most of all ipo from KL 1.00 to "
        "9.00 (beta 0.1): gold +1.40 to +0.90, reward model +0.50 to +0.90."
    )
    assert "With dpo and best-of-n no fall of gold is clear at the KLs that were reached." in said(
        {"dpo": FLAT, "ipo": OVER}
    )


def test_best_of_n_can_be_overoptimised_too() -> None:
    text = said({"dpo": FLAT}, best_of=((1, 1.0, 0.0), (4, 1.6, 0.4), (64, 1.2, 0.8)))
    assert "Most of all best-of-n from KL 0.64 to 3.17 (n = 64): gold +1.60 to +1.20" in text


def test_gold_that_falls_with_the_proxy_is_not_called_so() -> None:
    both: Points = {1.0: (1.0, 1.40, 0.5), 0.1: (9.0, 0.90, -0.3)}
    text = said({"dpo": both})
    assert "Over-optimisation" not in text
    assert "With dpo gold falls too, but the reward model's score does not clearly rise meanwhile." in text


def test_a_proxy_that_is_blind_at_the_far_end_is_told() -> None:
    blind: Points = {1.0: (1.0, 1.40, 0.7), 0.1: (9.0, 1.00, 0.5)}
    far_end = "at the far end of dpo it still sees a gain over the reference, where none of gold is clear."
    assert f"the reward model's score does not clearly rise meanwhile; {far_end}" in said({"dpo": blind})
    assert "far end" not in said({"dpo": {1.0: (1.0, 1.40, 0.7), 0.1: (9.0, 1.20, 0.5)}})


def test_a_fall_below_the_reference_is_told_from_there() -> None:
    text = said({"dpo": {0.1: (9.0, 0.60, 0.5)}}, best_of=((1, 1.0, 0.1), (4, 1.2, 0.4)))
    assert "dpo from the reference to KL 9.00 (beta 0.1): gold +1.00 to +0.60, reward model +0.10 to +0.50." in text


@pytest.mark.filterwarnings("error")
def test_a_prompt_without_a_score_takes_no_part() -> None:
    given = hand_frontiers.frontier({"dpo": FLAT, "ipo": OVER})
    for policy in given.policies:
        policy.measures.proxy[7] = np.nan
    assert "Over-optimisation" in " ".join(finding.text for finding in reading(given))


def test_a_fall_within_noise_is_no_fall() -> None:
    text = said({"dpo": {1.0: (1.0, 1.12, 0.2), 0.1: (9.0, 1.10, 0.9)}})
    assert "Over-optimisation" not in text
    assert "no fall of gold is clear" in text


def test_a_fall_within_the_noise_of_its_own_seeds_is_no_fall() -> None:
    """Far from the reference seeds differ by more than near it, so what they differ by there must not be diluted."""
    calm: Points = {beta: (kl, 1.40, 0.3) for beta, kl in ((8.0, 0.5), (4.0, 0.7), (2.0, 0.9), (1.0, 1.1))}
    given = hand_frontiers.frontier({"dpo": {**calm, 0.1: (9.0, 0.6, 0.9)}, "ipo": calm})
    assert "Over-optimisation" in " ".join(finding.text for finding in reading(given))
    for policy in given.policies:
        if policy.settings["beta"] == 0.1:
            policy.measures.gold[:] += {0: -0.3, 1: 0.0, 2: 0.3}[policy.seed or 0]
    assert "Over-optimisation" not in " ".join(finding.text for finding in reading(given))


def test_runs_share_their_variance_between_seeds_but_noisy_ones_keep_their_own() -> None:
    calm, noisy = np.array([[-0.1], [0.0], [0.1]]), np.array([[-0.5], [0.0], [0.5]])
    sides = trained_sides({"dpo": calm, "ipo": noisy, "kto": calm[:1]})
    pooled = (0.01 + 0.25) / 2
    variances = {name: side.seeds and (side.seeds.value, side.seeds.freedom) for name, side in sides.items()}
    assert variances == {"dpo": (pytest.approx(pooled / 3), 4), "ipo": (pytest.approx(0.25 / 3), 4)}


@pytest.mark.slow
@pytest.mark.parametrize(("spreads", "most"), [([0.1] * 6, 0.05), ([0.1] * 5 + [0.3], 0.05), ([0.3] + [0.1] * 5, 0.09)])
def test_noise_is_called_a_difference_no_more_often_than_stated(spreads: list[float], most: float) -> None:
    """Six objectives without a difference, 600 times over: all seeds equally far apart, or those of one objective three
    times as far; the first is the yardstick.
    """
    rng, repeats, false = np.random.default_rng(0), 600, 0
    for _ in range(repeats):
        shared = rng.normal(size=40)
        noise = [rng.normal(size=(3, 1)) * spread + rng.normal(size=(3, 40)) * 0.3 for spread in spreads]
        base, *others = trained_sides({str(place): shared + each for place, each in enumerate(noise)}).values()
        false += any(difference(other, base).clear(len(others)) for other in others)
    assert false / repeats < most


def test_where_gold_peaks_is_said_and_ends_of_sweeps_are_no_peaks() -> None:
    falling: Points = {3.0: (0.5, 1.30, 0.2), 1.0: (1.0, 1.20, 0.5)}
    rising: Points = {3.0: (0.6, 1.20, 0.2), 1.0: (1.5, 1.30, 0.5)}
    text = said({"dpo": falling, "ipo": OVER, "kto": rising, "nca": rising})
    assert "within the sweep with ipo, at 1 nat;" in text
    assert "dpo no swept point does better than the one nearest to the reference, at 0.5 nats, so the peak may" in text
    assert "kto and nca no swept point does better than those farthest from the reference, at 1.50 to 1.50 nats" in text
    assert "of best-of-n, n = 64 (+1.40); the reference has +1.00" in text


def test_a_winner_is_named_only_where_it_clearly_wins() -> None:
    close: Points = {1.0: (0.9, 1.39, 0.3), 0.1: (4.1, 1.10, 0.3)}
    lead = "The highest gold of all policies is measured with ipo (+1.40 at 1 nat, beta 1.0)"
    assert f"{lead}, but it is not clear that kto cannot reach as much." in said(
        {"dpo": FLAT, "ipo": OVER, "kto": close}
    )
    clear = f"{lead}, clearly more than the highest of the other; as the highest of 5 points on the same prompts"
    assert clear in said({"dpo": FLAT, "ipo": OVER})
    assert "clearly more" not in said({"dpo": FLAT, "ipo": OVER}, seeds=1)


def test_the_bound_of_best_of_n_errs_on_a_known_side_only_while_its_gold_rises() -> None:
    rising = said({"dpo": FLAT})
    assert (
        "upper bound: at 1 and 2 nats, where its gold still rises, it may do better than said here, not worse" in rising
    )
    falling = ((1, 1.0, 0.0), (4, 1.8, 0.4), (8, 1.7, 0.5), (64, 1.4, 0.8))
    known = "at 1 and 2 nats, where its gold no longer rises, it may do better or worse than said here"
    assert known in said({"dpo": FLAT}, best_of=falling)
    between = ((1, 1.0, 0.0), (4, 1.2, 0.4), (8, 1.8, 0.5), (64, 1.4, 0.8))
    assert "at 1 nat, where its gold still rises" in said({"dpo": FLAT}, best_of=between)
    assert "at 2 nats, where its gold no longer rises" in said({"dpo": FLAT}, best_of=between)
    assert "upper bound" not in said({"dpo": {1.0: (0.1, 1.1, 0.3)}})


def test_a_truth_that_was_named_is_told() -> None:
    given = hand_frontiers.frontier({"dpo": FLAT})
    told = "The gold reward is the score by mine.py:vowels."
    assert told not in reading(given)[-1].text
    assert reading(replace(given, gold="mine.py:vowels"))[-1].text.endswith(told)


def test_responses_that_the_reward_model_cannot_read_are_told() -> None:
    given = hand_frontiers.frontier({"dpo": FLAT})
    given.policies[0].measures.unread[:20] = 0.5
    found = reading(given)
    (warning,) = (finding for finding in found if "cannot read" in finding.text)
    assert warning.tone == "warning"
    assert f"10.0\xa0% of {given.policies[0].name}." in warning.text
    assert "cannot read" not in said({"dpo": FLAT})


def test_what_it_rests_on_is_said() -> None:
    assert "This rests on 100 prompts and 3 seeds for each point." in said({"dpo": FLAT})


def test_without_gold_nothing_is_said_of_it() -> None:
    (only,) = reading(hand_frontiers.without_gold(hand_frontiers.frontier({"dpo": FLAT, "ipo": OVER})))
    assert only.tone == "warning"
    assert "over-optimisation, where it happens, cannot be seen" in only.text


def test_from_too_few_prompts_nothing_is_read() -> None:
    (only,) = findings({"dpo": FLAT, "ipo": OVER}, prompts=9)
    assert only.text == "Too few prompts to read anything from: 9 prompts."


@pytest.mark.parametrize("gold", [True, False])
def test_who_was_trained_on_the_prompts_is_told_first(gold: bool) -> None:
    made = hand_frontiers.frontier({"dpo": FLAT, "ipo": OVER})
    leaks = {"dpo-0.1-0": Leak(3, 100), "ipo-0.1-0": Leak(0, 100), "the reward model": Leak(100, 100)}
    told = replace(made if gold else hand_frontiers.without_gold(made), trained_on=leaks)
    first, *others = reading(told)
    assert first.text == (
        "dpo-0.1-0 was trained on 3 of the 100 prompts and the reward model was trained on all 100 prompts: verdicts "
        "and scores on these say less about new prompts."
    )
    assert first.tone == "warning"
    assert tuple(others) == reading(replace(told, trained_on={}))
