"""Empty responses lead what a grid, a judge and `winrate` say; nobody is asked about the same text twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from preflab.core.origins import Leak
from preflab.core.records import Message, Pair
from preflab.judging import human
from preflab.judging.command import JudgeResult, judge_pairs_with
from preflab.judging.human import HumanJudge
from preflab.judging.kinds import make_judge
from preflab.judging.settings import JudgingSettings, WinrateSettings
from preflab.judging.verdicts import read_verdicts
from preflab.judging.winrate import compute_winrate
from preflab.stats.results import Estimate
from preflab.stats.study import Judge
from preflab.studies.grid.findings import grid_findings
from preflab.studies.grid.report import GridResult, grid_row
from preflab.studies.grid.rows import GridCell

RATE = Estimate(0.8, 0.7, 0.9, 60)
CELL = GridCell("dpo", 200, 1.0, "gold", "chosen", 48, 0, 12, 0, RATE)


def texts(cells: list[GridCell]) -> list[str]:
    return [finding.text.replace("\u00a0", " ") for finding in grid_findings(cells)]


def test_empty_responses_lead_a_grid_and_better_is_no_good_news() -> None:
    empty = replace(CELL, empty=0.4)
    first, second, *_ = grid_findings([empty, replace(CELL, temperature=0.5)])
    assert first.tone == "warning"
    assert "40\u00a0% of dpo step 200 at temperature 1. No verdict below holds without that." in first.text
    assert "is better than chosen" in second.text
    (_, alone, *_) = grid_findings([empty])
    assert ("is better than chosen" in alone.text, alone.tone) == (True, "warning")
    (clean, *_) = grid_findings([replace(CELL, empty=0.04)])
    assert clean.tone == "good"
    assert "40 % of chosen." in texts([replace(CELL, opponent_empty=0.4)])[0]
    told = str(GridResult(Path("grid"), (empty,)))
    assert told.startswith("! Many responses are empty")
    assert grid_row(empty)["empty_responses"] == 0.4


def test_a_grid_says_which_models_were_trained_on_its_prompts() -> None:
    found = texts([replace(CELL, trained_on=Leak(3, 60)), replace(CELL, temperature=0.5, trained_on=Leak(3, 60))])
    assert found[0].startswith("dpo was trained on 3 of the 60 prompts: ")
    assert not any("trained on" in text for text in texts([replace(CELL, trained_on=Leak(0, 60))]))


def pairs(*both: tuple[str, str]) -> list[Pair]:
    return [
        Pair(f"{row}/0", (Message("user", f"How do I make tea, {row}?"),), ours, theirs)
        for row, (ours, theirs) in enumerate(both, 1)
    ]


def test_a_judge_and_winrate_say_how_many_responses_are_empty(tmp_path: Path) -> None:
    given = pairs(*[("", "You boil the kettle.")] * 2, *[("Of course!", "No.")] * 3)
    maker = make_judge(Judge("gold", "gold", "gold"), JudgingSettings(), seed=0)
    file = judge_pairs_with(maker, given, tmp_path / "v.json", model="dpo", opponent="base", overwrite=False)
    words = "warning: many responses are empty: 40 % of dpo's and 0 % of base's"
    assert words in str(JudgeResult(file)).replace("\u00a0", " ")
    assert words in str(compute_winrate(WinrateSettings(files=(tmp_path / "v.json",)))).replace("\u00a0", " ")


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A person who prefers whatever is shown first; the ids that they were asked about."""
    asked: list[str] = []

    class Server:
        server_port = 1

        def __init__(self, _: int, sitting: human.Sitting, __: str) -> None:
            self.sitting = sitting

        def __enter__(self) -> Server:
            return self

        def __exit__(self, *_: object) -> None: ...

        def shutdown(self) -> None: ...

        def serve_forever(self, **_: object) -> None:
            while pair := self.sitting.state()["pair"]:
                assert pair["first"] != pair["second"]
                asked.append(pair["sample"])
                assert self.sitting.judge(pair["sample"], "first")
            self.sitting.answered.set()

    monkeypatch.setattr(human, "_Server", Server)
    return asked


def test_a_person_is_not_asked_about_the_same_text_twice(tmp_path: Path, person: list[str]) -> None:
    given = pairs(("a", "a"), ("a", "b"), ("", ""), ("c", "d"))
    maker = HumanJudge(Judge("human", "human", "human"), 0)

    def judge() -> None:
        judge_pairs_with(maker, given, tmp_path / "v.json", model="dpo", opponent="base", overwrite=False)

    judge()
    assert person == ["2/0", "4/0"]
    file = read_verdicts(tmp_path / "v.json")
    outcomes = {sample: found.outcome for sample, found in file.samples.items()}
    assert {outcomes["1/0"], outcomes["3/0"]} == {"tie"}
    assert not {"tie", "error"} & {outcomes["2/0"], outcomes["4/0"]}
    judge()
    assert person == ["2/0", "4/0"], "all is judged"
    all_same = pairs(("a", "a"), ("b", "b"))
    found = human.judge_by_hand(
        all_same, tmp_path / "j.jsonl", opponent_word="baseline", seed=0, announce=person.append
    )
    assert [each.outcome for each in found] == ["tie", "tie"]
    assert len(person) == 2, "no page is opened where there is nothing to ask"


def test_what_a_sitting_counts_are_the_pairs_that_are_asked(tmp_path: Path) -> None:
    given = pairs(("a", "a"), ("a", "b"), ("c", "d"))
    sitting = human.Sitting(given, tmp_path / "none.jsonl", "baseline", 0)
    assert (sitting.state()["left"], sitting.state()["done"]) == (2, 0)
    assert not sitting.undo(0)
    assert sitting.judge("2/0", "first")
    assert sitting.finish(), "before all is judged"
    assert [each.sample_id for each in sitting.all_judgements()] == ["2/0", "1/0"]
