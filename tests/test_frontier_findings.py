"""What is said of frontiers whose truth is known: who dominates, who loses to best-of-n, where gold falls while the
proxy rises, and nothing where noise explains it.
"""

from __future__ import annotations

import hand_frontiers
import pytest

from preflab.analysis.frontier import best_of_n, curves
from preflab.analysis.frontier_findings import gold_at, reading
from preflab.analysis.results import Finding

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
    curve = curves(hand_frontiers.frontier({"ipo": {1.0: (1.0, 1.0, 0.0), 0.1: (9.0, 2.0, 0.0)}}))["ipo"]
    gold = gold_at(curve, 4.0)
    assert gold is not None
    assert gold.mean() == pytest.approx(1.5)  # √4 lies halfway between √1 and √9


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


def test_a_fall_within_noise_is_no_fall() -> None:
    text = said({"dpo": {1.0: (1.0, 1.12, 0.2), 0.1: (9.0, 1.10, 0.9)}})
    assert "Over-optimisation" not in text
    assert "no fall of gold is clear" in text


def test_where_gold_peaks_is_said() -> None:
    text = said({"dpo": FLAT, "ipo": OVER})
    assert "of all policies with ipo (+1.40 at 1 nat, beta 1.0), of best-of-n with n = 64 (+1.40)" in text
    assert "the reference has +1.00" in text


def test_what_it_rests_on_is_said() -> None:
    assert "This rests on 100 prompts and 3 seeds for each point." in said({"dpo": FLAT})
    assert "how much training runs differ is not in the intervals" in said({"dpo": FLAT}, seeds=1)


def test_without_gold_nothing_is_said_of_it() -> None:
    (only,) = reading(hand_frontiers.without_gold(hand_frontiers.frontier({"dpo": FLAT, "ipo": OVER})))
    assert only.tone == "warning"
    assert "over-optimisation, where it happens, cannot be seen" in only.text


def test_from_too_few_prompts_nothing_is_read() -> None:
    (only,) = findings({"dpo": FLAT, "ipo": OVER}, prompts=9)
    assert only.text == "Too few prompts to read anything from: 9 prompts."
