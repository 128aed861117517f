"""A frontier's figures: from rows, as their definitions say, and refused where a file states others."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import hand_frontiers
import numpy as np
import pandas as pd
import pytest
from hand_frontiers import ROWS, write_frontier

from preflab.core.records import DisagreementError, UserError
from preflab.core.rundir import read_json, read_jsonl, write_json, write_jsonl
from preflab.studies.frontier.rows import (
    best_of_measures,
    curves,
    kl_bound,
    lowest_proxy,
    policy_measures,
    read_frontier,
    strength,
)
from preflab.studies.frontier.tables import write_frontier_tables


def test_figures_are_means_over_prompts_of_means_over_responses() -> None:
    figures = policy_measures(ROWS, [3, 7], samples=2, lowest=-1.5).figures()
    assert (figures["n"], figures["unread"]) == (2, 1 / 4)
    assert (figures["kl"], figures["gold"]) == ((2.0 + 0.5) / 2, (0.5 + 0.5) / 2)
    assert figures["proxy"] == ((0.5 - 1.5) / 2 + 0.5) / 2
    assert figures["kl_se"] == pytest.approx(np.std([2.0, 0.5], ddof=1) / np.sqrt(2))


def test_responses_to_other_prompts_or_not_all_of_them_are_refused() -> None:
    for rows, prompts in ((ROWS, [3]), (ROWS, [3, 7, 8]), (ROWS[:3], [3, 7]), ([*ROWS, ROWS[0]], [3, 7])):
        with pytest.raises(UserError, match="not 2 responses to each prompt"):
            policy_measures(rows, prompts, samples=2, lowest=0.0)


def test_a_policy_that_learns_to_write_nothing_does_not_gain_by_the_proxy() -> None:
    """A response that cannot be read counts as the lowest of the reference's, for a policy and for best-of-n alike."""
    reference = [{"row": 1, "gold": 0.0, "proxy": proxy} for proxy in (-2.0, None, 1.0, 3.0)]
    assert lowest_proxy(reference) == -2.0
    honest = [{"row": 1, "kl": 1.0, "gold": 0.0, "proxy": proxy} for proxy in (-1.0, 1.0)]
    silent = [{"row": 1, "kl": 1.0, "gold": -1.0, "proxy": proxy} for proxy in (None, 1.0)]
    scores = [policy_measures(rows, [1], samples=2, lowest=-2.0).proxy[0] for rows in (honest, silent)]
    assert scores == [0.0, -0.5]
    everybody = best_of_measures(reference, [1], 1, lowest=-2.0)
    assert (everybody.proxy[0], everybody.unread[0]) == (0.0, 1 / 4)
    assert best_of_measures(reference, [1], 2, lowest=-2.0).unread[0] == 0.0


def test_best_of_n_is_the_mean_over_all_ways_to_draw_n() -> None:
    rng = np.random.default_rng(1)
    drawn = [
        {"row": row, "sample": sample, "gold": float(rng.normal()), "proxy": float(rng.normal())}
        for row in (1, 2)
        for sample in range(6)
    ]
    for n in (1, 2, 4, 6):
        found = best_of_measures(drawn, [1, 2], n, lowest=0.0)
        for place, row in enumerate((1, 2)):
            own = [response for response in drawn if response["row"] == row]
            best = [max(subset, key=lambda response: response["proxy"]) for subset in combinations(own, n)]
            assert found.gold[place] == pytest.approx(np.mean([response["gold"] for response in best]))
            assert found.proxy[place] == pytest.approx(np.mean([response["proxy"] for response in best]))


def test_best_of_n_takes_what_cannot_be_read_last() -> None:
    drawn = [{"row": 1, "gold": 5.0, "proxy": None}, {"row": 1, "gold": 1.0, "proxy": -9.0}]
    assert best_of_measures(drawn, [1], 2, lowest=-9.0).gold[0] == 1.0
    assert best_of_measures(drawn, [1], 1, lowest=-9.0).gold[0] == 3.0


def test_fewer_responses_than_n_and_those_to_other_prompts_are_told() -> None:
    drawn = [{"row": 1, "gold": 5.0, "proxy": 0.0}, {"row": 1, "gold": 1.0, "proxy": -9.0}]
    with pytest.raises(UserError, match="prompt 1 has 2 responses, too few to take the best of 4"):
        best_of_measures(drawn, [1], 4, lowest=0.0)
    with pytest.raises(UserError, match="prompt 1, which is none of the frontier's"):
        best_of_measures(drawn, [2], 1, lowest=0.0)


def test_the_bound_of_best_of_n_is_that_of_the_literature() -> None:
    assert kl_bound(1) == 0
    assert kl_bound(4) == pytest.approx(0.6363, abs=1e-4)  # log 4 − 3/4
    assert kl_bound(64) == pytest.approx(3.1745, abs=1e-4)


def test_the_bound_holds_for_an_exact_divergence() -> None:
    """Best of n by a score without ties: F(i)^n − F(i−1)^n, whose KL from the start can be summed."""
    start = np.array([0.1, 0.2, 0.3, 0.4])
    for n in (2, 4, 16):
        best = np.diff(np.concatenate([[0.0], start.cumsum()]) ** n)
        assert (best * np.log(best / start)).sum() <= kl_bound(n)


def test_points_gather_seeds_and_go_away_from_the_reference() -> None:
    points = {"dpo": {0.1: (4.0, 1.2, 0.3), 1.0: (0.5, 1.1, 0.2)}, "ipo": {1.0: (1.0, 1.0, 0.1)}}
    found = curves(hand_frontiers.frontier(points, seeds=3))
    assert {name: [point.label for point in curve] for name, curve in found.items()} == {
        "dpo": ["beta 1.0", "beta 0.1"],
        "ipo": ["beta 1.0"],
    }
    near, far = found["dpo"]
    assert near.gold.shape == (3, hand_frontiers.PROMPTS)
    assert (near.mean("kl"), far.mean("kl")) == (0.5, 4.0)
    assert near.by_seed("gold") == pytest.approx([1.08, 1.1, 1.12])


def test_tables_hold_every_point_and_every_policy(tmp_path: Path) -> None:
    points = {"dpo": {0.1: (4.0, 1.2, 0.3), 1.0: (0.5, 1.1, 0.2)}}
    write_frontier_tables(hand_frontiers.frontier(points, seeds=3), tmp_path)
    lines = (tmp_path / "frontier.md").read_text(encoding="utf-8").splitlines()
    assert "| best-of-n | n = 4 | 0.64 | +1.20 | +0.40 |" in lines
    assert lines[-1] == "| dpo | beta 0.1 | 4.00 [4.00, 4.00] | +1.20 [+1.18, +1.22] | +0.30 [+0.28, +0.32] |"
    table = pd.read_csv(tmp_path / "frontier.csv")
    assert table["strength"].tolist() == ["n 1", "n 4", "n 64", *["beta 0.1"] * 3, *["beta 1.0"] * 3]
    assert table["seed"].tolist()[3:] == [0, 1, 2, 0, 1, 2]
    assert table["gold"].tolist()[3:6] == pytest.approx([1.18, 1.2, 1.22])


# ---- on disk ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_frontier(tmp_path)


def test_a_frontier_is_read_from_its_rows(folder: Path) -> None:
    found = read_frontier(folder)
    (policy,) = found.policies
    assert (policy.objective, policy.settings, policy.seed) == ("dpo", {"beta": 0.1}, 0)
    assert policy.measures.gold.tolist() == [0.5, 0.5]
    assert [best.n for best in found.best_of] == [1, 2, 4]
    assert found.best_of[-1].measures.gold.tolist() == [1.5, 1.5]
    assert (found.prompts, found.has_gold) == (2, True)
    assert found.spread["proxy"] == pytest.approx(np.std([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("part", "figure", "named"),
    [("policies", "gold", "gold of dpo"), ("policies", "kl_se", "kl_se of dpo"), ("best_of_n", "proxy", "best of 1")],
)
def test_a_stated_figure_that_the_rows_do_not_give_is_refused(folder: Path, part: str, figure: str, named: str) -> None:
    head = read_json(folder / "frontier.json")
    head[part][0][figure] += 1e-4
    write_json(folder / "frontier.json", head)
    with pytest.raises(DisagreementError, match=named):
        read_frontier(folder)


def test_a_row_that_was_changed_is_refused(folder: Path) -> None:
    write_jsonl(folder / "responses" / "dpo.jsonl", [{**row, "gold": row["gold"] + 1} for row in ROWS])
    with pytest.raises(DisagreementError, match=r"gold of dpo is 0\.5, but its rows say 1\.5"):
        read_frontier(folder)


def test_rows_that_were_removed_are_told_with_their_file(folder: Path) -> None:
    write_jsonl(folder / "reference.jsonl", list(read_jsonl(folder / "reference.jsonl"))[4:])
    with pytest.raises(UserError, match=r"reference\.jsonl: prompt 3 has 0 responses, too few"):
        read_frontier(folder)
    write_jsonl(folder / "responses" / "dpo.jsonl", ROWS[1:])
    with pytest.raises(UserError, match=r"dpo\.jsonl: these are not 2 responses to each prompt"):
        read_frontier(folder)


def test_a_figure_that_was_removed_is_refused(folder: Path) -> None:
    head = read_json(folder / "frontier.json")
    head["policies"][0]["gold"] = None
    write_json(folder / "frontier.json", head)
    with pytest.raises(DisagreementError):
        read_frontier(folder)


def test_a_folder_without_a_frontier_and_one_of_another_kind_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no frontier"):
        read_frontier(tmp_path / "elsewhere")
    write_json(folder / "frontier.json", {"policies": []})
    with pytest.raises(UserError, match="not a frontier that this version wrote"):
        read_frontier(folder)


@pytest.mark.parametrize("kl", [None, math.inf, "much", True])
def test_a_response_without_a_finite_kl_is_refused(kl: object, folder: Path) -> None:
    (folder / "responses" / "dpo.jsonl").write_text("".join(json.dumps({**row, "kl": kl}) + "\n" for row in ROWS))
    with pytest.raises(UserError, match=r"dpo\.jsonl: 4 of 4 responses have no finite KL, the first to prompt 3"):
        read_frontier(folder)


def test_switches_are_called_as_files_have_them() -> None:
    assert strength({"beta": 0.1, "lora": True}) == "beta 0.1, lora true"
