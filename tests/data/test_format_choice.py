"""Which format rows have, a format of the user's own, and sources read in the formats that they have."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from golden_formats import ASKED, BETTER, DIALOGUE, GOLDEN, HOMEWORK, REAL_PAIRS, WORSE, Q, Row
from installed_package import install

from preflab.cli import main
from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.comparisons import (
    choose_formats,
    on_training_side,
    read_comparisons,
)
from preflab.data.detect import choose_format, detect_format
from preflab.data.known_formats import list_formats
from preflab.data.rows import parse_row
from preflab.data.settings import FormatsSettings
from preflab.data.sources import open_source, open_sources
from preflab.data.tokenize import Dropped

# Detection and choice -------------------------------------------------------------------------------------------------


def test_detection_survives_some_odd_rows() -> None:
    rows = [{**HOMEWORK, "overall_response": None}, {"comment": "x"}, *[HOMEWORK] * 3]
    assert detect_format(rows) == "HOMEWORK"


def test_columns_that_fit_several_formats_are_an_error_that_lists_them() -> None:
    both = {**HOMEWORK, "history": Q, "human_ref_A": "a", "human_ref_B": "b", "labels": 1}
    with pytest.raises(UserError, match=r"fit several formats: HOMEWORK, shp\. Choose one with --format"):
        detect_format([both])


def test_columns_that_fit_no_format_bring_the_nearest_ones() -> None:
    with pytest.raises(UserError) as caught:
        detect_format([{"question": Q, "response_1": "a", "response_2": "b", "outcome": 1}])
    message = str(caught.value)
    assert "question, response_1, response_2, outcome" in message
    assert "HOMEWORK: needs question, response_1, response_2, overall_response" in message
    assert "trl:" not in message


def test_a_misspelt_format_brings_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no format is called 'homwork'; did you mean HOMEWORK\? Known are"):
        choose_format("homwork", [])


def write_own(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.py").write_text(text)
    return str(tmp_path / "mine.py")


OWN = """
from preflab.cli import main
from preflab.core.records import Comparison, Message, RowError
import json

def pairs(row):
    if row["verdict"] == "tie":
        raise RowError("no preference", "a tie")
    return {"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]}
"""
OWN_TWO = (
    OWN
    + """
def lists(row):
    return Comparison((Message("user", row["q"]),), tuple(row["all"]))

def _hidden(row): ...
"""
)
OWN_ROW = {"q": Q, "good": BETTER, "bad": WORSE, "verdict": "good", "id": 4}


def test_a_format_of_ones_own_from_a_file(tmp_path: Path) -> None:
    path = write_own(tmp_path, OWN)
    name, form = choose_format(path, [])
    made = parse_row(form, OWN_ROW, 5)
    assert (made.prompt, made.responses, made.row, made.meta["id"]) == (ASKED, (BETTER, WORSE), 5, 4)
    assert name == path
    with pytest.raises(RowError, match="no preference"):
        parse_row(form, {**OWN_ROW, "verdict": "tie"})
    with pytest.raises(RowError, match="empty response"):
        parse_row(form, {**OWN_ROW, "good": ""})


def test_the_function_of_ones_own_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = write_own(tmp_path, OWN_TWO)
    _, form = choose_format(f"{path}:lists", [])
    assert parse_row(form, {"q": Q, "all": ["a", "b", "c"]}).responses == ("a", "b", "c")
    with pytest.raises(UserError, match=r"say which with .*mine\.py:NAME; it defines pairs, lists"):
        choose_format(path, [])
    with pytest.raises(UserError, match=r"no 'pair' in it; it defines pairs, lists"):
        choose_format(f"{path}:pair", [])


def test_the_fingerprint_of_ones_own_format_follows_its_text(tmp_path: Path) -> None:
    before = choose_format(write_own(tmp_path, OWN), [])[1].fingerprint
    assert choose_format(write_own(tmp_path, OWN), [])[1].fingerprint == before
    assert choose_format(write_own(tmp_path, OWN + "# changed\n"), [])[1].fingerprint != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def f(row):\n    return row['nope']\n",
            r"pairs\.jsonl row 1: .*mine\.py line 2: KeyError: 'nope', on the row",
        ),
        ("def f(row):\n    return 3\n", r"pairs\.jsonl row 1: .*mine\.py: f returned 3; it must return a Comparison"),
        ("def f(row)\n    return 3\n", r"mine\.py line 1: the file cannot be loaded: SyntaxError"),
        ("import nothing_of_that_name\n", r"mine\.py line 1: the file cannot be loaded: ModuleNotFoundError"),
        ("", r"say which .*; it defines nothing"),
        ("import sys\nsys.exit(0)\n", r"mine\.py line 2: the file cannot be loaded: SystemExit: 0"),
        ("import sys\ndef f(row):\n    sys.exit(0)\n", r"pairs\.jsonl row 1: .*mine\.py line 3: SystemExit: 0"),
    ],
)
def test_errors_in_ones_own_format_name_row_and_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(OWN_ROW) + "\n")
    source = open_source(str(tmp_path / "pairs.jsonl"))
    path = write_own(tmp_path, text)
    with pytest.raises(UserError, match=message):
        list(read_comparisons(source, choose_formats(source, path)))


def test_a_format_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.py: no such file"):
        choose_format(f"{tmp_path}/gone.py:f", [])


# From sources to comparisons ------------------------------------------------------------------------------------------


def write_lines(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_mixture_reads_each_part_in_its_own_format(tmp_path: Path) -> None:
    a = write_lines(tmp_path / "a.jsonl", HOMEWORK, {**HOMEWORK, "overall_response": 0})
    b = write_lines(tmp_path / "b.jsonl", GOLDEN["hh"][0])
    source = open_sources([a, b])
    formats = choose_formats(source)
    assert [name for name, _ in formats] == ["HOMEWORK", "hh"]
    first, tie, second = read_comparisons(source, formats)
    assert isinstance(first, Comparison)
    assert isinstance(second, Comparison)
    assert (first.row, second.row, second.prompt) == (1, 3, DIALOGUE)
    assert isinstance(tie, Dropped)
    assert (tie.row, tie.reason) == (2, "no preference")


def test_a_part_of_unknown_format_is_named(tmp_path: Path) -> None:
    a = write_lines(tmp_path / "a.jsonl", HOMEWORK)
    b = write_lines(tmp_path / "b.jsonl", {"x": 1})
    with pytest.raises(UserError, match=r"b\.jsonl: The rows have the columns x, which fit no known format"):
        choose_formats(open_sources([a, b]))


def test_a_prompt_is_on_one_side_of_a_split_whatever_its_responses() -> None:
    prompts = [(Message("user", f"Question {i}"),) for i in range(4000)]
    sides = [on_training_side(prompt, 0.9, seed=1) for prompt in prompts]
    assert sides == [on_training_side(prompt, 0.9, seed=1) for prompt in prompts]
    assert sides != [on_training_side(prompt, 0.9, seed=2) for prompt in prompts]
    # A standard deviation is 19 prompts.
    assert 3600 - 100 < sum(sides) < 3600 + 100
    # Roles and the bounds between messages count.
    texts = [(Message("user", "a"), Message("user", "b")), (Message("user", "ab"),), (Message("system", "ab"),)]
    patterns = Counter(tuple(on_training_side(text, 0.5, seed) for text in texts) for seed in range(64))
    assert len(patterns) == 8


@pytest.mark.skipif(not REAL_PAIRS.exists(), reason=f"the real HH pairs are not at {REAL_PAIRS}")
def test_real_hh_rows() -> None:
    source = open_source(str(REAL_PAIRS))
    formats = choose_formats(source)
    assert [name for name, _ in formats] == ["hh"]
    raw = dict(source)
    dropped: dict[str, list[int]] = {}
    for item in read_comparisons(source, formats):
        if isinstance(item, Dropped):
            dropped.setdefault(item.reason, []).append(item.row)
            continue
        assert item.prompt[0].role == item.prompt[-1].role == "user"
        # Nothing is lost: the transcript can be put together again.
        speakers = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
        turns = [*item.prompt, Message("assistant", item.responses[0])]
        assert "".join(f"{speakers[turn.role]} {turn.content}" for turn in turns).replace(": ", ":") == raw[item.row][
            "chosen"
        ].replace(": ", ":")
    assert dropped == {"empty response": [87, 517, 926, 1104], "prompts differ": [1255, 1689, 1951, 1953]}


EXAMPLE = Path(__file__).parents[2] / "examples" / "format.py"
VOTES = [
    {"question": Q, "answer_a": WORSE, "votes_a": 1, "answer_b": BETTER, "votes_b": 3},
    {"question": Q, "answer_a": WORSE, "votes_a": 2, "answer_b": BETTER, "votes_b": 2},
]


def test_the_example_reads_rows_from_a_users_folder_and_from_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in VOTES))
    Path("mine.py").write_text(EXAMPLE.read_text())
    install(tmp_path, monkeypatch, "[preflab.formats]\ntheirs = guest_votes:votes\n", guest_votes=EXAMPLE.read_text())
    for name in ("mine.py:votes", "theirs"):
        with pytest.raises(SystemExit) as ended:
            main(["data", "inspect", "votes.jsonl", "--format", name])
        assert ended.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "rows 2, of which 1 can be used columns question -> your function" in shown
        assert "as many votes for both" in shown


def test_an_installed_format_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[preflab.formats]\nvotes = guest_format:votes\ntrl = guest_format:votes\nlimit = guest_format:LIMIT\n"
    install(tmp_path, monkeypatch, points, guest_format=EXAMPLE.read_text() + "\n\nLIMIT = 3\n")
    name, form = choose_format("votes", VOTES)
    assert name == "votes"
    found = parse_row(form, VOTES[0])
    assert (found.prompt[-1].content, found.responses) == (Q, (BETTER, WORSE))
    with pytest.raises(RowError, match="as many votes for both"):
        parse_row(form, VOTES[1])
    assert len(form.fingerprint) == 64
    assert choose_format("trl", [])[1].fingerprint != form.fingerprint, "ours come first"
    assert "votes" in str(list_formats(FormatsSettings()))
    with pytest.raises(UserError, match="did you mean votes"):
        choose_format("vote", [])
    with pytest.raises(UserError, match=r"guest 1\.2: limit is 3; a format is a function"):
        choose_format("limit", [])
