"""Verdict files: what is read from whom, what is refused, and that stored figures are never believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preflab.core.output import unfinished
from preflab.core.records import DisagreementError, Judgement, Message, Pair, UserError
from preflab.core.rundir import append_jsonl
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.sources import open_source
from preflab.judging.verdict_rows import verdict_row
from preflab.judging.verdicts import read_journal, read_verdicts, write_verdicts
from preflab.stats.judgements import combine, counts

TEXTS = Pair("3/0", (Message("system", "Be brief."), Message("user", "Why?")), "Because.", "I do not know.")


def judged(outcomes: str, order: Any = None) -> list[Judgement]:
    """ "wtle" -> a win, a tie, a loss and an error of samples 1/0, 2/0, …"""
    names: dict[str, Any] = {"w": "win", "t": "tie", "l": "loss", "e": "error"}
    return [
        Judgement(f"{row}/0", names[letter], order, reason="timed out" if letter == "e" else "")
        for row, letter in enumerate(outcomes, 1)
    ]


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def outcomes_of(path: Path) -> list[str]:
    return [judgement.outcome for judgement in read_verdicts(path).judgements]


# ---- our own files ----


@pytest.mark.parametrize("word", ["chosen", "baseline"])
def test_what_is_written_is_read_back(tmp_path: Path, word: Any) -> None:
    judgements = [
        Judgement("3/0", "win", "model_first", text="A is better"),
        Judgement("3/0", "loss", "opponent_first"),
        Judgement("1/1", "error", "model_first", text="As an AI", reason="no verdict in the reply"),
        Judgement("2/0", "win", None, preference=0.83),
        Judgement("4/0", "tie"),
    ]
    path = tmp_path / "judge" / "dpo.json"
    write_verdicts(
        path, judgements, metadata={"judge": "j", "api_key": "abc"}, opponent_word=word, pairs={"3/0": TEXTS}
    )
    found = read_verdicts(path)
    assert found.judgements == tuple(judgements)
    assert found.pairs == {"3/0": TEXTS}
    assert found.opponent_word == word
    assert found.metadata == {"judge": "j", "api_key": "[redacted]"}
    stored = json.loads(path.read_text())
    assert stored["win_counts"] == {"model": 1, word: 0, "tie": 2, "error": 1}
    assert stored["win_rates"] == {"model_winrate": 0.25, f"{word}_winrate": 0.0, "tie_rate": 0.5, "error_rate": 0.25}
    row = stored["results"][1]
    assert (row["presentation_order"], row["verdict"]) == (f"{word}_first", word)
    assert row[f"{word}_response"] == "I do not know."


def test_a_journal_is_read_up_to_where_a_kill_cut_it(tmp_path: Path) -> None:
    path = unfinished(tmp_path / "dpo.json")
    assert path.name == "dpo.unfinished.jsonl"
    assert read_journal(path).judgements == ()
    judgements = judged("wl", "model_first")
    append_jsonl(path, [verdict_row(judgement, TEXTS, "chosen") for judgement in judgements])
    with path.open("a") as file:
        file.write('{"sample_id": "3/0", "ver')
    assert read_journal(path).judgements == tuple(judgements)
    found = read_verdicts(path)  # how it stands, at any time
    assert (found.judgements, found.opponent_word) == (tuple(judgements), "chosen")
    assert found.pairs["1/0"] == Pair("1/0", TEXTS.prompt, TEXTS.response, TEXTS.opponent)


def test_the_last_of_doubled_rows_counts_in_a_journal_and_in_no_finished_file(tmp_path: Path) -> None:
    path = unfinished(tmp_path / "dpo.json")
    first, other, last = Judgement("1/0", "loss"), Judgement("2/0", "tie"), Judgement("1/0", "win")
    rows = [verdict_row(judgement, TEXTS, "chosen") for judgement in (first, other, last)]
    append_jsonl(path, rows)
    assert set(read_journal(path).judgements) == set(read_verdicts(path).judgements) == {last, other}
    append_jsonl(tmp_path / "dpo.jsonl", rows)
    with pytest.raises(UserError, match="row 3: sample 1/0 is judged a second time"):
        read_verdicts(tmp_path / "dpo.jsonl")


# ---- samples judged more than once ----


@pytest.mark.parametrize(
    ("first", "second", "outcome", "points", "flipped"),
    [
        ("win", "win", "win", 1.0, False),
        ("win", "loss", "tie", 0.5, True),
        ("win", "tie", "win", 0.75, False),
        ("tie", "loss", "loss", 0.25, False),
        ("win", "error", "error", None, None),
    ],
)
def test_both_orders_speak_together(first: Any, second: Any, outcome: str, points: float, flipped: bool) -> None:
    both = [Judgement("1/0", first, "model_first"), Judgement("1/0", second, "opponent_first")]
    found = combine(both)["1/0"]
    assert (found.outcome, found.points, found.flipped, found.judgements) == (outcome, points, flipped, tuple(both))


def test_probabilities_are_averaged_and_win_over_half() -> None:
    both = [Judgement("1/0", "win", "model_first", 0.7), Judgement("1/0", "loss", "opponent_first", 0.4)]
    found = combine(both)["1/0"]
    assert found.points == pytest.approx(0.55)
    assert (found.outcome, found.flipped) == ("win", True)
    assert combine([Judgement("1/0", "win", "model_first")])["1/0"].flipped is None


def test_samples_keep_the_order_of_their_first_appearance() -> None:
    found = combine(Judgement(name, "win") for name in ("2/0", "10/0", "1/0", "2/0"))
    assert list(found) == ["2/0", "10/0", "1/0"]
    assert counts(found.values()) == {"win": 3, "loss": 0, "tie": 0, "error": 0}


# ---- files of other tools ----


def test_a_replication_file_with_percentages_and_capitals_is_read(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "model_response": "a", "chosen_response": "b", "presentation_order": "chosen_first"}
    rows = [
        {**row, "sample_id": number, "verdict": verdict, "raw_gpt4_response": f"said {number}"}
        for number, verdict in enumerate(["Model", "Chosen", "Tie", "Error", "Model", "Model"])
    ]
    document = {
        "metadata": {"run_name": "dpo", "reverse_order": True},
        "win_counts": {"Model": 3, "Chosen": 1, "Tie": 1, "Error": 1},
        "winrates": {"model_winrate": 50.0, "chosen_winrate": 100 / 6, "tie_rate": 100 / 6, "error_rate": 100 / 6},
        "results": rows,
    }
    found = read_verdicts(written(tmp_path / "a.json", document))
    assert [judgement.outcome for judgement in found.judgements] == ["win", "loss", "tie", "error", "win", "win"]
    assert found.opponent_word == "chosen"
    assert (found.judgements[1].sample_id, found.judgements[1].order) == ("1", "opponent_first")
    assert found.judgements[3].text == "said 3"
    assert found.pairs["0"] == Pair("0", (Message("user", "Why?"),), "a", "b")


@pytest.mark.parametrize("container", ["results", "samples", "per_sample", "annotations", None])
def test_rows_may_stand_under_several_names_or_alone(tmp_path: Path, container: str | None) -> None:
    rows = [{"verdict": "win"}, {"verdict": "loss"}, {"verdict": None, "error": "timed out"}]
    path = written(tmp_path / "a.json", rows if container is None else {container: rows})
    assert outcomes_of(path) == ["win", "loss", "error"]
    assert [judgement.sample_id for judgement in read_verdicts(path).judgements] == ["1", "2", "3"]
    assert read_verdicts(path).judgements[2].reason == "timed out"


def test_letters_mean_places(tmp_path: Path) -> None:
    rows = [{"verdict": v, "presentation_order": f"{o}_first"} for v in "AB" for o in ("model", "baseline")]
    assert outcomes_of(written(tmp_path / "a.json", rows)) == ["win", "loss", "loss", "win"]


def test_annotations_of_alpaca_eval_are_read(tmp_path: Path) -> None:
    """`output_2` is the model's; 1.5, and 0 in older files, is a draw; nothing is a failure."""
    row = {"instruction": "Why?", "output_1": "ref", "output_2": "ours", "generator_1": "gpt4", "generator_2": "dpo"}
    preferences = [1, 2, 1.5, 0, 1.25, 1.9998, None, float("nan")]
    rows = [{**row, "annotator": "weighted", "preference": value} for value in preferences]
    del rows[-1]["preference"]
    rows.append({**row, "annotator": "weighted", "preference": float("nan")})
    found = read_verdicts(written(tmp_path / "annotations.json", rows))
    assert [judgement.outcome for judgement in found.judgements] == [
        *("loss", "win", "tie", "tie", "loss", "win", "error", "error", "error"),
    ]
    assert [judgement.preference for judgement in found.judgements[:6]] == pytest.approx([0, 1, 0.5, 0.5, 0.25, 0.9998])
    assert found.metadata == {"judge": "weighted", "model": "dpo", "opponent": "gpt4"}
    assert found.pairs["1"] == Pair("1", (Message("user", "Why?"),), "ours", "ref")


# ---- what is refused ----

ALPACA = {"instruction": "?", "output_1": "a", "output_2": "b"}
REFUSED: dict[str, tuple[Any, str]] = {
    "word": ([{"verdict": "win"}, {"verdict": "left"}], r"row 2: `verdict` is 'left'; known are model, win, chosen"),
    "number": ([{"verdict": 1}], "row 1: `verdict` is 1; known are"),
    "no verdict": (
        [{"sample_id": "1", "winner": "model"}],
        "row 1: there is no `verdict`; the row has sample_id, winner",
    ),
    "letter": ([{"verdict": "A"}], "row 1: `verdict` is 'A', which says nothing without `presentation_order`"),
    "order": ([{"verdict": "tie", "presentation_order": "AB"}], "`presentation_order` is 'AB'; known are model_first"),
    "twice": (
        [{"sample_id": "7/0", "verdict": "win"}, {"sample_id": "7/0", "verdict": "win"}],
        "row 2: sample 7/0 is judged a second time without an order",
    ),
    "twice in one order": (
        [{"sample_id": 7, "verdict": v, "presentation_order": "model_first"} for v in ("win", "loss")],
        "row 2: sample 7 is judged a second time with the order model_first",
    ),
    "other texts": (
        [
            {"sample_id": 7, "verdict": "tie", "prompt": p, "model_response": "a", "chosen_response": "b", **order}
            for p, order in (("x", {}), ("y", {"presentation_order": "model_first"}))
        ],
        "row 2: sample 7 has other texts than in an earlier row",
    ),
    "some ids": ([{"sample_id": 7, "verdict": "win"}, {"verdict": "win"}], "row 2: `sample_id` is missing here"),
    "id": ([{"sample_id": [7], "verdict": "win"}], r"`sample_id` is \[7\]; text or a whole number"),
    "no object": (["win"], 'row 1: found "win"; an object'),
    "empty": ({"results": []}, "there is no judgement in it"),
    "no rows": ({"metadata": {}}, r"one list of judgements is needed, .* found none \(it has metadata\)"),
    "two lists": ({"results": [1], "samples": [1]}, r"found several \(results, samples\)"),
    "text": ("win", "not a verdict file"),
    "two opponents": (
        [{"verdict": "chosen", "baseline_response": "b"}],
        "the opponent is called both baseline and chosen",
    ),
    "probability": ([{"verdict": "win", "preference": 61}], "`preference` is 61; a probability"),
    "contradiction": ([{"verdict": "win", "preference": 0.2}], "says win for the model but `preference`.* is 0.2"),
    "alpaca": ([{**ALPACA, "preference": 3}], "`preference` is 3; AlpacaEval writes 1"),
    "annotators": (
        [{**ALPACA, "annotator": name, "preference": 1} for name in ("claude", "gpt4")],
        r"several in `annotator` \(claude, gpt4\); one file is about one judge",
    ),
    "response": ([{"prompt": "q", "response": "a"}], "row 1: this is a response, not a verdict"),
    "unknown count": ({"win_counts": {"us": 1}, "results": [{"verdict": "win"}]}, "`win_counts.us`: what this counts"),
    "one name for both": (
        {"metadata": {"model": "a", "opponent": "A"}, "win_counts": {"a": 1}, "results": [{"verdict": "win"}]},
        "`win_counts.a`: what this counts",
    ),
    "huge": ({"win_counts": {"model": 10**400}, "results": [{"verdict": "win"}]}, "`win_counts.model` is '1000"),
    "no table": ({"win_rates": [0.5], "results": [{"verdict": "win"}]}, "`win_rates` is .*; an object with"),
    "stored": ({"win_counts": {"model": "3"}, "results": [{"verdict": "win"}]}, "`win_counts.model` is '3'; a number"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_understood_is_named(tmp_path: Path, value: Any, message: str) -> None:
    path = written(tmp_path / "a.json", value)
    with pytest.raises(UserError, match=message) as caught:
        read_verdicts(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.json", "nested too deeply"),
        ("a.jsonl", "line 1: not a JSON object"),
        ("a.unfinished.jsonl", "there is no judgement in it"),  # as where a kill cut the line short
    ],
)
def test_nesting_without_end_is_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(UserError, match=message):
        read_verdicts(tmp_path / name)


def test_a_file_of_rows_that_was_cut_is_refused(tmp_path: Path) -> None:
    """Only what is still being judged may end in half a row."""
    rows = "".join(json.dumps({"verdict": "win"}) + "\n" for _ in range(10))
    (tmp_path / "a.jsonl").write_text(rows[:-5])
    with pytest.raises(UserError, match="line 10: not a JSON object"):
        read_verdicts(tmp_path / "a.jsonl")
    (tmp_path / "a.unfinished.jsonl").write_text(rows[:-5])
    assert len(read_verdicts(tmp_path / "a.unfinished.jsonl").judgements) == 9


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("no.json", "no.jsonl"):
        with pytest.raises(UserError, match=f"{name}: cannot be read: no such file"):
            read_verdicts(tmp_path / name)


# ---- stored figures ----


def stored(tmp_path: Path, **figures: Any) -> Path:
    """A file of 73 wins, 40 losses, 6 ties and 1 error (0.6083, 0.3333, 0.05, 0.0083) that states some figures."""
    names = ["model"] * 73 + ["baseline"] * 40 + ["tie"] * 6 + ["error"]
    return written(tmp_path / "a.json", {**figures, "results": [{"verdict": name} for name in names]})


NAMED = {"model": "DPO", "opponent": "base"}


@pytest.mark.parametrize(
    "figures",
    [
        {"win_counts": {"model": 73, "baseline": 40, "tie": 6, "error": 1}},
        {"win_counts": {"model": 73}},
        {"win_rates": {"model_winrate": 0.61, "baseline_winrate": 0.33, "tie_rate": 0.05, "error_rate": 0.01}},
        {"win_rates": {"model_winrate": 73 / 120}},
        {"win_rates": {"model_winrate": 0.608, "baseline_winrate": 0.333}},
        {"winrates": {"model_winrate": 61.0, "error_rate": 1}},
        {"win_rates": {"model_winrate": 60.83}},
        {"win_rates": {"model_winrate": None, "some_other_rate": None}},
        {"win_counts": {"wins": 73, "Losses": 40, "ties": 6, "errors": 1}},
        {"win_counts": {"model": 73, "opponent": 40}, "win_rates": {"opponent_winrate": 0.333}},
        {"metadata": NAMED, "win_counts": {"DPO": 73, "base": 40}, "win_rates": {"DPO_winrate": 0.608}},
        {"win_rates": {"model_winrate": 0.6, "baseline_winrate": 0.3, "error_rate": 0}},
    ],
)
def test_figures_that_follow_from_the_rows_agree(tmp_path: Path, figures: Any) -> None:
    assert len(read_verdicts(stored(tmp_path, **figures)).judgements) == 120


@pytest.mark.parametrize(
    "figures",
    [
        {"win_counts": {"model": 40, "baseline": 73, "tie": 6, "error": 1}},
        {"win_counts": {"model": 73, "error": 0}},
        {"win_rates": {"model_winrate": 0.59}},
        {"win_rates": {"model_winrate": 0.6, "baseline_winrate": 0.33}},  # 0.60, with the digits of its neighbour
        {"win_rates": {"model_winrate": 0.33, "baseline_winrate": 0.61}},
        {"win_rates": {"model_winrate": 0.6083, "tie_rate": 0.0501}},
        {"win_rates": {"model_winrate": 1}},
        {"winrates": {"model_winrate": 62}},
        {"win_rates": {"model_winrate": 0.6134}},  # errors left out: not a share of all samples
        {"win_counts": {"model": 73}, "win_rates": {"error_rate": 0.02}},
        {"win_counts": {"wins": 40, "losses": 73}},
        {"win_rates": {"opponent_winrate": 0.61}},
        {"metadata": NAMED, "win_counts": {"DPO": 40, "base": 73}},
        {"metadata": NAMED, "win_rates": {"DPO_winrate": 0.333}},
        {"win_rates": {"error_rate": 0}},
    ],
)
def test_figures_that_do_not_are_refused(tmp_path: Path, figures: Any) -> None:
    with pytest.raises(DisagreementError, match="do not follow from the file's own rows"):
        read_verdicts(stored(tmp_path, **figures))


def test_all_and_none_are_no_rounded_shares(tmp_path: Path) -> None:
    rows = [{"verdict": name} for name in ["win"] * 96 + ["loss"] * 4]
    for stored in ({"model_winrate": 1, "baseline_winrate": 0}, {"model_winrate": 1.0}, {"baseline_winrate": 0.0}):
        with pytest.raises(DisagreementError):
            read_verdicts(written(tmp_path / "a.json", {"win_rates": stored, "results": rows}))
        read_verdicts(written(tmp_path / "b.json", {"win_rates": stored, "results": rows[:96]}))


def test_each_stored_figure_is_shown_beside_the_rows(tmp_path: Path) -> None:
    path = stored(tmp_path, win_counts={"model": 40, "tie": 6}, win_rates={"model_winrate": 0.61})
    with pytest.raises(DisagreementError) as caught:
        read_verdicts(path)
    lines = [line.split() for line in str(caught.value).splitlines()]
    assert lines[1] == ["stored", "from", "the", "rows", "(120)"]
    assert lines[2:] == [
        ["win_counts.model", "40", "73", "<-", "differs"],
        ["win_counts.tie", "6", "6"],
        ["win_rates.model_winrate", "0.61", "0.608333"],
    ]


def test_counts_may_be_over_samples_or_over_judgements_but_not_over_both(tmp_path: Path) -> None:
    rows = [
        {"sample_id": 1, "verdict": v, "presentation_order": f"{o}_first"}
        for v, o in (("win", "model"), ("tie", "chosen"))
    ]
    for agreed in ({"model": 1, "tie": 0}, {"model": 1, "tie": 1}):
        assert len(read_verdicts(written(tmp_path / "a.json", {"win_counts": agreed, "results": rows})).judgements) == 2
    mixed = {"win_counts": {"model": 1, "tie": 1}, "win_rates": {"model_winrate": 1.0}, "results": rows}
    with pytest.raises(DisagreementError):
        read_verdicts(written(tmp_path / "a.json", mixed))


# ---- verdicts as preference data ----


def test_a_verdict_file_is_training_data(tmp_path: Path) -> None:
    """The winner is the chosen response; ties and errors are counted and left out."""
    texts = {f"{row}/0": Pair(f"{row}/0", TEXTS.prompt, f"ours {row}", f"theirs {row}") for row in range(1, 5)}
    write_verdicts(
        tmp_path / "a.json", judged("wlte"), metadata={"judge": "human"}, opponent_word="chosen", pairs=texts
    )
    source = open_source(str(tmp_path / "a.json"))
    first, second, *dropped = read_comparisons(source, choose_formats(source))
    assert (first.responses, second.responses) == (("ours 1", "theirs 1"), ("theirs 2", "ours 2"))
    assert first.prompt == TEXTS.prompt
    assert [row.reason for row in dropped] == ["no preference", "no preference"]
