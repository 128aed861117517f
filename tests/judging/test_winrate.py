"""`preflab winrate`: figures from rows, side by side, and exit code 3 for a file that contradicts its rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hand_verdicts import NAMES, write
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from preflab import cli
from preflab.core.output import unfinished
from preflab.core.records import DisagreementError, Judgement, Message, Pair
from preflab.core.rundir import append_jsonl
from preflab.judging.file_figures import shares_empty
from preflab.judging.settings import WinrateSettings
from preflab.judging.verdict_rows import verdict_row
from preflab.judging.verdicts import read_verdicts, write_verdicts
from preflab.judging.winrate import compute_winrate


def swap_counts(path: Path) -> Path:
    """The file with wins and losses exchanged in what it states, and in nothing else."""
    document = json.loads(path.read_text())
    counts = document["win_counts"]
    counts["model"], counts["baseline"] = counts["baseline"], counts["model"]
    path.write_text(json.dumps(document))
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["winrate", *arguments])
    return int(caught.value.code or 0)


def figures(path: Path) -> Any:
    return compute_winrate(WinrateSettings(files=(path,))).files[0]


# ---- figures ----


def test_every_figure_follows_from_the_rows(tmp_path: Path) -> None:
    found = figures(write(tmp_path / "a.json", "w" * 24 + "l" * 12 + "t" * 8 + "e" * 6))
    contest = found.contest
    assert (contest.wins, contest.losses, contest.ties, contest.errors) == (24, 12, 8, 6)
    assert (found.judgements, found.samples, found.prompts) == (50, 50, 50)
    for outcome, count in {"win": 24, "loss": 12, "tie": 8, "error": 6}.items():  # shares of all
        rate = found.rates[outcome]
        assert (rate.value, rate.n) == (count / 50, 50)
        assert (rate.low, rate.high) == pytest.approx(proportion_confint(count, 50, method="wilson"))
    assert contest.win_rate.value == pytest.approx(28 / 44)  # ties half, errors left out
    assert contest.win_rate.n == 44
    assert contest.wilson == pytest.approx(proportion_confint(28, 44, method="wilson"))
    assert contest.win_rate.low == pytest.approx(contest.wilson[0], abs=0.03)
    assert contest.p_value == pytest.approx(binomtest(24, 36).pvalue)
    assert contest.flip_rate is None


def test_lengths_count_where_the_file_has_texts(tmp_path: Path) -> None:
    """The model wins exactly where its response is the longer one: half the time, and by length alone."""
    contest = figures(write(tmp_path / "a.json", "wl" * 30)).contest
    assert (contest.longer.value, contest.shorter.value, contest.longer.n) == (1.0, 0.0, 30)
    assert contest.length_controlled.value == pytest.approx(0.5, abs=0.02)
    contest = figures(write(tmp_path / "b.json", "wl" * 30, texts=False)).contest
    assert (contest.longer, contest.shorter, contest.length_controlled) == (None, None, None)
    assert contest.length_controlled_note == "the file lacks texts of responses"


def test_the_flip_rate_is_of_samples_judged_in_both_orders(tmp_path: Path) -> None:
    rows = [("1/0", "win", "win"), ("2/0", "win", "loss"), ("3/0", "loss", "win"), ("4/0", "tie", "win")]
    judgements = [
        Judgement(sample, outcome, order)
        for sample, *outcomes in rows
        for outcome, order in zip(outcomes, ("model_first", "opponent_first"), strict=True)
    ]
    write_verdicts(tmp_path / "a.json", judgements, metadata={}, opponent_word="baseline", pairs={})
    found = figures(tmp_path / "a.json")
    assert (found.judgements, found.samples) == (8, 4)
    assert (found.contest.flip_rate.value, found.contest.flip_rate.n) == (0.5, 4)


def test_samples_of_one_prompt_are_not_taken_for_several_prompts(tmp_path: Path) -> None:
    def rates(name: str, ids: list[str]) -> Any:
        judgements = [Judgement(each, "win" if index % 8 < 4 else "loss") for index, each in enumerate(ids)]
        write_verdicts(tmp_path / name, judgements, metadata={}, opponent_word="baseline", pairs={})
        return figures(tmp_path / name)

    alone = rates("a.json", [f"{index}/0" for index in range(80)])
    shared = rates("b.json", [f"{index // 4}/{index % 4}" for index in range(80)])
    named = rates("c.json", [f"helpful/{index}x" for index in range(80)])  # another tool's names
    assert (alone.prompts, shared.prompts, named.prompts) == (80, 20, 80)
    assert alone.contest.win_rate.value == shared.contest.win_rate.value == 0.5
    wide, narrow = ((it.contest.win_rate.high - it.contest.win_rate.low) for it in (shared, alone))
    assert wide > 1.5 * narrow


def test_a_file_of_errors_has_no_win_rate(tmp_path: Path) -> None:
    result = compute_winrate(WinrateSettings(files=(write(tmp_path / "a.json", "eee"),)))
    assert result.files[0].contest.win_rate is None
    assert "none: no sample has a usable judgement" in str(result)


def test_an_unfinished_file_shows_how_it_stands(tmp_path: Path) -> None:
    path = unfinished(tmp_path / "dpo.json")
    append_jsonl(path, [verdict_row(Judgement("1/0", "win", "opponent_first"), None, "chosen")])
    contest = figures(path).contest
    assert (contest.wins, contest.judge, contest.model, contest.opponent) == (1, "unnamed judge", "model", "chosen")
    (tmp_path / "dpo.manifest.json").write_text(json.dumps({"data": {"judge": "openai:gpt-4o", "pairs": "ab"}}))
    assert figures(path).contest.judge == "openai:gpt-4o"


def test_a_model_against_itself_is_still_two_sides(tmp_path: Path) -> None:
    contest = figures(write(tmp_path / "a.json", "wwl", model="dpo", opponent="dpo")).contest
    assert (contest.wins, contest.model, contest.opponent) == (2, "dpo", "dpo (baseline)")


# ---- the command ----


def test_files_stand_side_by_side_and_in_detail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "a.json", "wwwwwwlte", judge="\x1b[2Jjudge")
    second = write(tmp_path / "b.json", "lllwwt", model="sft")
    assert run(str(first), str(second)) == 0
    shown = capsys.readouterr().out
    head, one, two = shown.splitlines()[:3]
    assert head.split()[:9] == ["file", "judge", "model", "against", "samples", "win", "tie", "loss", "error"]
    assert re.search(r"a\.json .* dpo +base +9 +6 +1 +1 +1 +0\.812 \[", one)
    assert re.search(r"b\.json .* sft +base +6 +2 +1 +3 +0 +0\.417 \[", two)
    assert "dpo against base, judged by \\x1b[2Jjudge: 9 judgements of 9 samples of 9 prompts" in shown
    assert "fewer than 10 prompts" in shown  # why there is no length-controlled rate
    assert "\x1b" not in shown


def test_manifests_beside_verdicts_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "a.manifest.json"
    manifest.write_text("{}")
    assert run(str(write(tmp_path / "a.json", "wwl")), str(manifest), "--json") == 0
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)["files"]) == 1
    assert shown.err.count("\n") == 1
    assert f"left out, as they hold no verdicts: {manifest}" in shown.err
    assert run(str(manifest)) == 2


def test_why_there_is_no_length_controlled_rate_has_a_line_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(write(tmp_path / "a.json", "wwl"))) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert re.fullmatch("length-controlled +none", lines[-2])
    assert lines[-1].startswith("The win rate of dpo at equal lengths cannot be told")


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(write(tmp_path / "a.json", "wwl", judge="\x9b\u202ejudge")), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    assert found["file"] == str(tmp_path / "a.json")
    assert (found["contest"]["wins"], found["contest"]["judge"]) == (2, "\x9b\u202ejudge")
    assert found["rates"]["win"]["value"] == pytest.approx(2 / 3)


def test_a_file_whose_counts_were_swapped_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.json", "wwwwl")
    assert run(str(path)) == 0
    capsys.readouterr()
    assert run(str(swap_counts(path))) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{path}: the stored figures do not follow from the file's own rows" in shown.err
    assert re.search(r"win_counts\.model +1 +4 +<- differs", shown.err)
    assert re.search(r"win_counts\.baseline +4 +1 +<- differs", shown.err)


def test_the_other_files_are_shown_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [swap_counts(write(tmp_path / name, "wwl")) for name in ("a.json", "c.json")]
    good = write(tmp_path / "b.json", "wwl")
    assert run(str(bad[0]), str(good), str(bad[1]), "--json") == 3
    shown = capsys.readouterr()
    assert [found["file"] for found in json.loads(shown.out)["files"]] == [str(good)]
    assert all(str(path) in shown.err for path in bad)
    with pytest.raises(DisagreementError) as caught:
        compute_winrate(WinrateSettings(files=(bad[0], good)))
    assert [found.file for found in caught.value.shown.files] == [good]


def test_a_file_that_cannot_be_read_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "no.json")) == 2
    assert "no.json: cannot be read" in capsys.readouterr().err


# ---- what the rows of equal lengths say, and what a rate is a rate of ----


def test_responses_of_equal_length_have_a_row_of_their_own(tmp_path: Path) -> None:
    words = {"1/0": "a b c", "2/0": "a b", "3/0": "a b", "4/0": "x"}
    outcomes = {"1/0": "w", "2/0": "w", "3/0": "l", "4/0": "l"}
    shown = {name: Pair(name, (Message("user", name),), text, "y z") for name, text in words.items()}
    path = tmp_path / "lengths.json"
    judgements = [Judgement(name, NAMES[letter]) for name, letter in outcomes.items()]
    write_verdicts(path, judgements, metadata={}, opponent_word="baseline", pairs=shown)
    contest = figures(path).contest
    rates = {"longer": contest.longer, "shorter": contest.shorter, "same": contest.same_length}
    assert {name: (rate.value, rate.n) for name, rate in rates.items() if rate} == {
        "longer": (1.0, 1),
        "shorter": (0.0, 1),
        "same": (0.5, 2),
    }
    said = str(compute_winrate(WinrateSettings(files=(path,))))
    assert "win rate where both have as many words (n = 2 prompts)" in said
    assert "counts are of samples" not in said


def test_counts_of_samples_beside_rates_over_prompts_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    prompts = {"1/0": "p", "1/1": "p", "2/0": "q"}
    shown = {name: Pair(name, (Message("user", text),), "a b", "y z w") for name, text in prompts.items()}
    judgements = [Judgement(name, NAMES[letter]) for name, letter in zip(prompts, "wwl", strict=True)]
    write_verdicts(path, judgements, metadata={}, opponent_word="baseline", pairs=shown)
    assert figures(path).rates["win"].value == 0.5, "of two prompts one, though of three samples two"
    said = str(compute_winrate(WinrateSettings(files=(path,))))
    assert "3 samples of 2 prompts; counts are of samples, rates are means over prompts" in said


def test_lengths_that_are_not_known_have_no_row(tmp_path: Path) -> None:
    assert figures(write(tmp_path / "bare.json", "wl", texts=False)).contest.same_length is None


def test_the_share_of_empty_responses_is_a_mean_over_prompts(tmp_path: Path) -> None:
    """As in a report of the same responses: of two prompts one has empty samples only, though of four samples three."""
    path = tmp_path / "empty.json"
    texts = {"1/0": "", "1/1": " ", "1/2": "", "2/0": "a b"}
    shown = {name: Pair(name, (Message("user", name[0]),), text, "y z w") for name, text in texts.items()}
    judgements = [Judgement(name, "loss") for name in texts]
    write_verdicts(path, judgements, metadata={"model": "m"}, opponent_word="baseline", pairs=shown)
    assert shares_empty(read_verdicts(path)) == (0.5, 0.0)
