"""The cases of files, folders and splits: each is read as its README says, or refused with the cause."""

from __future__ import annotations

import pytest
from shared_cases import case

from preflab.core.records import Comparison, UserError
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.sources import open_source
from preflab.data.tokenize import Dropped

FOLDERS = "25-folders-and-one-row-files"


def usable(spec: str) -> list[Comparison]:
    source = open_source(spec)
    return [item for item in read_comparisons(source, choose_formats(source)) if isinstance(item, Comparison)]


@pytest.mark.parametrize(
    ("name", "rows", "best"),
    [
        ("13-save_to_disk", 4, "Put it in boiling water for eight minutes."),
        ("13b-save_to_disk-dict:train", 4, "Put it in boiling water for eight minutes."),
        ("13b-save_to_disk-dict:test", 4, "Put it in boiling water for eight minutes."),
        ("19-nan.json", 2, "Eight minutes."),
        ("19b-nan.jsonl", 2, "Eight minutes."),
        ("22e-semicolon.csv", 1, "Eight minutes."),
        ("29-one-row.json", 1, "Eight minutes."),
        ("29b-one-line.json", 1, "Yes."),
        ("29d-split.json:train", 3, "Put it in boiling water for eight minutes."),
    ],
)
def test_files_and_folders_of_case_25_are_read(name: str, rows: int, best: str) -> None:
    found = usable(f"{case(FOLDERS)}/{name}")
    assert len(found) == rows
    assert found[0].responses[0] == best


@pytest.mark.parametrize(
    ("name", "message"), [("13b-save_to_disk-dict", "splits train, test; say which"), ("29d-split.json", "Say which")]
)
def test_several_splits_have_to_be_told_apart(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        usable(str(case(f"{FOLDERS}/{name}")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int5000.json", "line 1: .*row 1: a whole number of 4,301 digits"),
        ("int5000-wrapped.json", "line 1: .*a whole number of 4,301 digits"),
        ("deep-row.json", "line 1: .*row 1: nested more than 200 deep"),
        ("deep-first-line.json", "line 1: .*nested more than 200 deep"),
    ],
)
def test_malformed_json_of_case_27_is_one_message(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        usable(str(case(f"27-malformed/{name}")))


@pytest.mark.parametrize("name", ["uint64.json", "uint64.jsonl", "uint64-wrapped.json"])
def test_unsigned_numbers_are_read_alike(name: str) -> None:
    (found,) = usable(str(case(f"27-malformed/{name}")))
    assert found.meta["id"] == 2**64 - 1


def test_a_number_beyond_floats_drops_its_row() -> None:
    source = open_source(str(case("27-malformed/pku-overflow.jsonl")))
    (item,) = read_comparisons(source, choose_formats(source))
    assert isinstance(item, Dropped)
    assert item.reason == "wrong type"


def test_the_folder_of_case_17_says_which_splits_it_mixes() -> None:
    folder = case("17-held-out-rows-in-training/14b-hh")
    (note,) = open_source(str(folder)).notes
    assert "mixes the splits test (test.jsonl.gz), train (train.jsonl.gz)" in note
    assert len(usable(f"{folder}:train")) < len(usable(str(folder)))
