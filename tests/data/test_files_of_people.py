"""Files as people have them: other delimiters, one row, several splits, what `datasets` saved; and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from preflab.core.records import UserError
from preflab.data import reading
from preflab.data.answers import is_answer_file
from preflab.data.sources import is_on_hub, open_source

Row = dict[str, Any]
ROW: Row = {"prompt": "p", "chosen": "a", "rejected": "b"}


def rows_of(spec: object) -> list[Row]:
    return [row for _, row in open_source(str(spec))]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def arrow(rows: list[Row], *, stream: bool = True) -> bytes:
    table, buffer = pyarrow.Table.from_pylist(rows), io.BytesIO()
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


# One object: a row, or what holds the rows ---------------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
ONE_ROW: list[Row] = [
    ROW,
    {"prompt": "p", "chosen": MESSAGES[1:], "rejected": MESSAGES[1:]},
    {"messages": MESSAGES},
    {"conversations": SHAREGPT, "id": 7},
    {"instruction": "p", "models": ["a"], "completions": [{"response": "a", "overall_score": 1.0}]},
    {"question": "p", "answers": [{"text": "a", "pm_score": 3}]},
    {"prompt": "p", "responses": ["a", "b"]},
    {"info": {"post": "p"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 1, "prompt": "p"},
]


@pytest.mark.parametrize("row", ONE_ROW)
@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_that_is_a_row_is_one_row(row: Row, indent: int | None, tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "one.json", json.dumps(row, indent=indent))) == [row]


@pytest.mark.parametrize(
    "holder",
    [
        {"data": [ROW, ROW]},
        {"version": 1, "metadata": {"model": "m", "seeds": [1, 2]}, "results": [ROW, ROW]},
        {"anything": [ROW, ROW], "tags": ["x"]},
        {"prompt": "You are a judge", "results": [ROW, ROW]},
    ],
)
def test_an_object_that_holds_rows_gives_these(holder: Row, tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "held.json", json.dumps(holder, indent=1))) == [ROW, ROW]


def test_objects_one_after_the_other_are_rows_also_over_several_lines(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row, indent=1) for row in ONE_ROW[:2])
    assert rows_of(written(tmp_path / "a.json", text)) == ONE_ROW[:2]


def test_one_of_several_arrays_is_named_after_a_colon(tmp_path: Path) -> None:
    other = {**ROW, "prompt": "q"}
    path = written(tmp_path / "both.json", json.dumps({"train": [ROW, ROW], "test": [other]}))
    assert rows_of(f"{path}:train") == [ROW, ROW]
    assert rows_of(f"{path}:test") == [other]
    assert rows_of(f"{path}:train[1:]") == [ROW]
    assert open_source(f"{path}:test").where(1) == f"{path}:test row 1"
    assert open_source(f"{path}:test").fingerprint() != open_source(f"{path}:train").fingerprint()
    assert not is_on_hub("nowhere/both.json:train")
    assert is_answer_file(f"{path}:train[:1]")
    for spec, message in {
        str(path): "it holds 2: train, test. Say which: add :train to the file's name",
        f"{path}:dev": "no array of rows called 'dev'; it has train, test",
    }.items():
        with pytest.raises(UserError, match=message):
            rows_of(spec)
    with pytest.raises(UserError, match=r"only a \.json file has parts"):
        rows_of(f"{written(tmp_path / 'a.jsonl', json.dumps(ROW))}:train")


@pytest.mark.parametrize(
    "table", [{"prompt": ["p", "q"], "chosen": ["a", "b"]}, {"prompt": {"0": "p", "1": "q"}, "chosen": {"0": "a"}}]
)
def test_a_table_written_column_by_column_is_named(table: Row, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column by column \(prompt, chosen\); .*orient='records'"):
        rows_of(written(tmp_path / "a.json", json.dumps(table)))


# The same row in every kind of file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": NaN, "b": [NaN, 1]}', {"a": None, "b": [None, 1]}),
        ('{"a": 18446744073709551615}', {"a": 2**64 - 1}),
        ('{"a": ' + "9" * 400 + "}", {"a": int("9" * 400)}),
        ('{"a": 1.5e3, "b": -Infinity}', {"a": 1500.0, "b": float("-inf")}),
        ('{"a": "\\ud83d\\ude00 \\u0000"}', {"a": "😀 \0"}),
    ],
)
def test_json_and_json_lines_give_the_same_row(text: str, expected: Row, tmp_path: Path) -> None:
    for name, content in {"a.jsonl": text, "a.json": f"[{text}]", "w.json": f'{{"data": [{text}]}}'}.items():
        assert rows_of(written(tmp_path / name, content)) == [expected]


BAD_ROWS = {
    "digits": ('{"a": ' + "9" * 5000 + "}", "a whole number of 5,000 digits"),
    "deep": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 200 deep"),
    "deeper than allowed": ('{"a": ' + "[" * 300 + "]" * 300 + "}", "nested more than 200 deep"),
    "a name twice": ('{"a": 1, "b": 2, "a": 3}', "the field 'a' stands twice"),
    "a name twice within": ('{"a": [{"b": 1, "b": 1}]}', "the field 'b' stands twice"),
    "a null character": ('{"a": "\0"}', "Invalid control character"),
}


@pytest.mark.parametrize(("text", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_read_is_named_in_every_kind_of_file(text: str, message: str, tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": f"{json.dumps(ROW)}\n{text}",
        "a.json": f"[{json.dumps(ROW)},\n{text}]",
        "lines.json": f"{json.dumps(ROW)}\n{text}",
        "w.json": f'{{"data": [{json.dumps(ROW)},\n{text}]}}',
    }.items():
        with pytest.raises(UserError, match=rf"{name}, line 2: .*{message}"):
            rows_of(written(tmp_path / name, content))


@pytest.mark.parametrize("size", [70_000, 300_000])
def test_a_row_longer_than_a_block_is_read_whole(size: int, tmp_path: Path) -> None:
    rows = [{"a": "é" * size, "n": 7}, {"a": "b"}]
    assert rows_of(written(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False))) == rows
    assert rows_of(written(tmp_path / "w.json", json.dumps({"n": 12345, "data": rows}))) == rows


# Without bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "jsonl.gz"])
def test_a_row_without_an_end_is_given_up(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reading", "json_rows", "tables"):
        monkeypatch.setattr(f"preflab.data.{module}.LONGEST_ROW", 1 << 20)
    content = {"json": b'[{"a": "', "csv": b'a,b\n"'}.get(ending, b'{"a": "') + b"x" * (3 << 20)
    path = written(tmp_path / f"a.{ending}", gzip.compress(content) if ending.endswith("gz") else content)
    with pytest.raises(UserError, match=r"a row of more than|field larger than field limit"):
        rows_of(path)


@pytest.mark.slow
def test_what_grows_as_no_text_does_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_CHECKED_FROM", 1 << 16)
    blank = written(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * (1 << 20)))
    with pytest.raises(UserError, match=r"a\.jsonl\.gz: its first \d+ MiB are more than 300 times"):
        rows_of(blank)
    monkeypatch.setattr(reading, "_MOST_BLANK", 1000)
    with pytest.raises(UserError, match=r"b\.jsonl, line 1001: more than 1,000 blank lines"):
        rows_of(written(tmp_path / "b.jsonl", b"\n" * 2000))
    many = b"".join(b'{"a": %d}\n' % n for n in range(10_000))
    assert len(rows_of(written(tmp_path / "b.jsonl.gz", gzip.compress(many)))) == 10_000


@pytest.mark.parametrize(
    "spec", ["a.jsonl[:1000000000000000000000000000000]", "~no-such-user/a.jsonl", "a" * 5000 + ".jsonl"]
)
def test_a_path_or_slice_that_no_system_has_is_one_message(spec: str) -> None:
    with pytest.raises(UserError, match=r"slice at the end is not|there is no user|cannot be opened"):
        open_source(spec)


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "prompt;chosen;rejected\np;a;b\n",
        "prompt;chosen;rejected\np;a;b",
        "prompt\tchosen\trejected\r\np\ta\tb\r\n",
        "prompt|chosen|rejected\np|a|b\n",
        "sep=;\nprompt;chosen;rejected\np;a;b\n",
        'prompt;chosen;rejected\n"p";"a";"b"\n',
        "\ufeffprompt;chosen;rejected\np;a;b\n",
        "prompt,chosen,rejected\rp,a,b\r",
    ],
)
def test_whatever_parts_the_cells_is_found(text: str, tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "a.csv", text)) == [ROW]
    assert rows_of(written(tmp_path / "a.csv.gz", gzip.compress(text.encode()))) == [ROW]


def test_other_delimiters_within_cells_do_not_part_them(tmp_path: Path) -> None:
    assert (
        rows_of(written(tmp_path / "a.csv", "prompt;chosen\nWell, then, a;b\nNo, b;c\n"))[0]["prompt"]
        == "Well, then, a"
    )
    assert rows_of(written(tmp_path / "b.csv", 'prompt,chosen\n"a;b;c",d\n"e\tf;g",h\n'))[0]["prompt"] == "a;b;c"
    assert rows_of(written(tmp_path / "c.csv", 'prompt\n"One; a, b"\n')) == [{"prompt": "One; a, b"}]


def test_cells_that_two_delimiters_part_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"parted in several ways, by commas: .*; or by semicolons: "):
        rows_of(written(tmp_path / "a.csv", "a,b;c\n1,2;3\n"))


def test_nan_in_a_column_is_missing(tmp_path: Path) -> None:
    table = pyarrow.table({"a": [1.5, float("nan")], "b": ["x", None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [{"a": 1.5, "b": "x"}, {"a": None, "b": None}]


def test_damaged_columns_are_one_message(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW] * 50), tmp_path / "a.parquet")
    whole = {"a.parquet": (tmp_path / "a.parquet").read_bytes(), "a.arrow": arrow([ROW] * 50)}
    for name, content in whole.items():
        for damaged in (content[:-40], content[: len(content) // 2], content[:50] + b"\xff" * 20 + content[70:]):
            with pytest.raises(UserError, match="not a readable"):
                rows_of(written(tmp_path / name, damaged))


def test_text_that_is_no_utf8_in_parquet_is_named(tmp_path: Path) -> None:
    bad = pyarrow.array([b"na\xefve"]).view(pyarrow.string()) if hasattr(pyarrow.Array, "view") else None
    pyarrow.parquet.write_table(pyarrow.table({"prompt": bad}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"UTF-?8"):
        rows_of(tmp_path / "a.parquet")


# Folders --------------------------------------------------------------------------------------------------------------


def saved(folder: Path, rows: list[Row]) -> None:
    written(folder / "data-00000-of-00001.arrow", arrow(rows))
    written(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    written(folder / "dataset_info.json", "{}")


def test_what_datasets_saved_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "one", [ROW, ROW])
    assert rows_of(tmp_path / "one") == [ROW, ROW]
    for split, count in {"train": 2, "test": 1}.items():
        saved(tmp_path / "both" / split, [ROW] * count)
    written(tmp_path / "both" / "dataset_dict.json", json.dumps({"splits": ["train", "test"]}))
    assert len(rows_of(f"{tmp_path / 'both'}:train")) == 2
    assert len(rows_of(f"{tmp_path / 'both'}:test[:1]")) == 1
    with pytest.raises(UserError, match=r"it holds the splits train, test; say which: .*both:train"):
        rows_of(tmp_path / "both")
    with pytest.raises(UserError, match="it holds no split 'dev', but train, test"):
        rows_of(f"{tmp_path / 'both'}:dev")
    (tmp_path / "one" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(UserError, match=r"00001\.arrow: no such file, though state\.json names it"):
        rows_of(tmp_path / "one")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "an object with named fields is needed"),
        ('{"_data_files": 3}', "as `datasets` writes it"),
        ('{"_data_files": [{"filename": 3}]}', "as `datasets` writes it"),
        ("{}", "as `datasets` writes it"),
    ],
)
def test_what_says_nothing_of_its_data_is_refused(content: str, message: str, tmp_path: Path) -> None:
    written(tmp_path / "state.json", content)
    with pytest.raises(UserError, match=rf"state\.json: .*{message}"):
        rows_of(tmp_path)


def test_both_kinds_of_arrow_files_are_read(tmp_path: Path) -> None:
    for stream in (True, False):
        assert rows_of(written(tmp_path / "a.arrow", arrow([ROW], stream=stream))) == [ROW]


def test_a_folder_says_which_splits_it_mixes_and_can_be_asked_for_one(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test-00000-of-00001.jsonl", "more_train.jsonl"):
        written(tmp_path / name, json.dumps({**ROW, "prompt": name}))
    source = open_source(str(tmp_path))
    assert len(rows_of(tmp_path)) == 3
    assert source.notes == (
        f"{tmp_path} mixes the splits train (more_train.jsonl, train.jsonl), test (test-00000-of-00001.jsonl); "
        f"{tmp_path}:train takes the rows of train alone",
    )
    assert [row["prompt"] for row in rows_of(f"{tmp_path}:train")] == ["more_train.jsonl", "train.jsonl"]
    assert not open_source(f"{tmp_path}:test").notes
    with pytest.raises(UserError, match="there is no split 'dev' in this folder; it has train, test"):
        rows_of(f"{tmp_path}:dev")


def test_a_folder_passes_over_hidden_files_and_names_folders_within(tmp_path: Path) -> None:
    written(tmp_path / "data" / "a.jsonl", json.dumps(ROW))
    written(tmp_path / ".a.jsonl.tmp.jsonl", "half")
    written(tmp_path / "dataset_infos.json", "{}")
    with pytest.raises(
        UserError, match=rf"no file in this folder ends in .*; there are such files in {tmp_path}/data/"
    ):
        rows_of(tmp_path)


def test_a_link_to_nothing_in_a_folder_is_an_error(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", json.dumps(ROW))
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match=r"b\.jsonl: a link to a file that is not there"):
        rows_of(tmp_path)


@pytest.mark.parametrize("number", ["1.5", "-12.25", "1.5e+3", "2E-7", "-3"])
def test_a_number_may_lie_across_the_pieces_in_which_a_file_is_read(number: str, tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = tmp_path / "a.json"
    for held in range(1, len(number) + 1):
        before = '{"note": "NOTE", "version": '
        padding = "x" * ((1 << 16) + 3 - len(before) + len("NOTE") - held)  # three bytes come first, for a mark
        text = f'{before.replace("NOTE", padding)}{number}, "data": [{json.dumps(row)}]}}'
        path.write_text(text)
        assert rows_of(path) == [row]


@pytest.mark.parametrize("split", [".", "..", "", "a/b", 7])
def test_a_saved_split_is_a_folder_in_the_folder(split: object, tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    with pytest.raises(UserError, match=r"dataset_dict\.json: it must name the splits of this folder"):
        open_source(str(tmp_path))
