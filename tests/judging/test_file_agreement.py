"""A person's verdicts beside a judge's: matched by what they are about, not by how the files call it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from preflab.core.records import Judgement, Message, Outcome, Pair
from preflab.judging.file_agreement import file_agreement
from preflab.judging.settings import WinrateSettings
from preflab.judging.verdicts import read_verdicts, write_verdicts
from preflab.judging.winrate import compute_winrate

WORDS: dict[str, Outcome] = {"w": "win", "t": "tie", "l": "loss", "e": "error"}
HUMAN, JUDGE = "wwwwwwwwllllttte", "wwwwwwllllwltlww"


def write(path: Path, outcomes: str, *, mirrored: bool = False, prefix: str = "", order: Sequence[int] = ()) -> Path:
    """Verdicts on dpo against base, one prompt a letter; `mirrored`, the same said of base against dpo."""
    judgements, pairs = [], {}
    for place in order or range(len(outcomes)):
        outcome: Outcome = WORDS[outcomes[place]]
        texts = (f"dpo {place}", f"base {place}")
        if mirrored:
            turned: dict[Outcome, Outcome] = {"win": "loss", "loss": "win"}
            outcome, texts = turned.get(outcome, outcome), (texts[1], texts[0])
        sample_id = f"{prefix}{len(pairs) + 1}/0"
        judgements.append(Judgement(sample_id, outcome))
        pairs[sample_id] = Pair(sample_id, (Message("user", f"Question {place}"),), *texts)
    write_verdicts(path, judgements, metadata={"judge": path.stem}, opponent_word="baseline", pairs=pairs)
    return path


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("order", [(), tuple(reversed(range(16))), (3, 1, 2, *range(4, 16), 0)])
def test_samples_are_matched_by_texts_in_any_order_and_under_any_name(
    tmp_path: Path, mirrored: bool, order: tuple[int, ...]
) -> None:
    mine = read_verdicts(write(tmp_path / "mine.json", HUMAN))
    other = read_verdicts(write(tmp_path / "judge.json", JUDGE, mirrored=mirrored, prefix="x", order=order))
    for found in (file_agreement(mine, other), file_agreement(other, mine)):
        assert (found.samples, found.matched, found.judged) == ((16, 16), 16, 15)
        agreement = found.agreement
        assert agreement is not None
        assert agreement.same is not None
        assert agreement.accuracy is not None
        assert agreement.kappa is not None
        # both say w 6, l 3, t 1 of 15; both name a winner on 8 + 4 samples, 9 of them the same
        assert (agreement.same.value, agreement.same.n) == (pytest.approx(10 / 15), 15)
        assert (agreement.accuracy.value, agreement.accuracy.n) == (pytest.approx(9 / 12), 12)
        chance = (8 * 8 + 4 * 6 + 3 * 1) / 15**2
        assert agreement.kappa.value == pytest.approx((10 / 15 - chance) / (1 - chance))
        assert agreement.kappa.low < agreement.kappa.value < agreement.kappa.high


def test_what_cannot_be_matched_is_said(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.json", HUMAN[:4])
    other = write(tmp_path / "judge.json", JUDGE[2:6], order=[])
    document = json.loads(other.read_text())
    del document["win_rate"]  # which is of other prompts then
    for row in document["results"][2:]:
        row["prompt"] = [{"role": "user", "content": "Something else"}]
    other.write_text(json.dumps(document))
    shown = str(compute_winrate(WinrateSettings(files=(mine, other))))
    assert "2 of 4 and 4 samples with two different responses are about the same prompt and responses" in shown
    assert "and 2 of these have a verdict in both" in shown
    assert "same verdict       1.000" in shown
    for row in document["results"]:
        row["prompt"] = "Something else"
    other.write_text(json.dumps(document))
    shown = str(compute_winrate(WinrateSettings(files=(mine, other))))
    assert "0 of 4 and 4 samples with two different responses match" in shown


def test_a_file_without_texts_is_named(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.json", HUMAN)
    bare = tmp_path / "bare.json"
    write_verdicts(bare, [Judgement("1/0", "win")], metadata={}, opponent_word="baseline", pairs={})
    assert f"cannot be matched: {bare} lacks the texts" in str(compute_winrate(WinrateSettings(files=(mine, bare))))


def test_the_same_text_is_nothing_to_agree_on(tmp_path: Path) -> None:
    pairs = {f"{n}/0": Pair(f"{n}/0", (Message("user", f"q{n}"),), "a", "a" if n else "b") for n in range(5)}
    said = [Judgement(sample_id, "win") for sample_id in pairs]
    for name in ("a.json", "b.json"):
        write_verdicts(tmp_path / name, said, metadata={}, opponent_word="baseline", pairs=pairs)
    found = file_agreement(*(read_verdicts(tmp_path / name) for name in ("a.json", "b.json")))
    assert (found.samples, found.matched, found.judged) == ((1, 1), 1, 1)


def test_the_figures_are_in_the_json_too(tmp_path: Path) -> None:
    files = (write(tmp_path / "mine.json", HUMAN), write(tmp_path / "judge.json", JUDGE))
    (found,) = json.loads(str(compute_winrate(WinrateSettings(files=files, json_output=True))))["agreements"]
    assert (found["matched"], found["judged"], found["agreement"]["same"]["n"]) == (16, 15, 15)
