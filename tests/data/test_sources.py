"""Rows come out of every kind of source alike; of a bad one the file, the line and what would be right are named."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from preflab.core.records import UserError
from preflab.data.sources import Source, is_on_hub, open_source, open_sources, sample_rows

Row = dict[str, Any]
ROWS: list[Row] = [{"prompt": f"Quoi de neuf, n° {i}?\n", "chosen": f"a{i}", "rejected": f"b, {i}"} for i in range(10)]


def write_json_lines(path: Path, rows: list[Row] = ROWS) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)


def zipped(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def write_zipped(path: Path) -> None:
        write(path)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write_zipped


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.jsonl": write_json_lines,
    "a.jsonl.gz": zipped(write_json_lines),
    "array.json": lambda path: path.write_text(json.dumps(ROWS)),
    "pretty array.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "array.json.gz": zipped(lambda path: path.write_text(json.dumps(ROWS))),
    "object holding one.json": lambda path: path.write_text(json.dumps({"version": 2, "tags": ["x"], "rows": ROWS})),
    "object on a line.json": lambda path: path.write_text(json.dumps({"data": ROWS}) + "\n\n"),
    "lines.json": write_json_lines,
    "marked.json": lambda path: path.write_text(json.dumps(ROWS), encoding="utf-8-sig"),
    "marked.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8-sig"),
    "blank lines.jsonl": lambda path: path.write_text("\n" + "\n\n".join(map(json.dumps, ROWS)) + "\n\n"),
    "a.csv": write_csv,
    "a.csv.gz": zipped(write_csv),
    "UPPER.JSONL": write_json_lines,
    "a.parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
    "with [brackets].jsonl": write_json_lines,
}


def rows_of(source: Source) -> list[Row]:
    return [row for _, row in source]


def numbers_of(source: Source) -> list[int]:
    return [number for number, _ in source]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows_each_time(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    source = open_source(str(tmp_path / name))
    for _ in range(2):
        assert rows_of(source) == ROWS
    assert numbers_of(source) == list(range(1, 11))
    assert source.where(3) == f"{tmp_path / name} row 3"


def test_numbers_in_a_json_array_are_plain_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"score": 1.5, "id": 3, "none": null, "yes": true}]')
    assert json.dumps(rows_of(open_source(str(tmp_path / "a.json")))) == (
        '[{"score": 1.5, "id": 3, "none": null, "yes": true}]'
    )


def test_a_long_csv_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\n" + "x" * 200_000 + "\n")
    assert len(rows_of(open_source(str(tmp_path / "a.csv")))[0]["prompt"]) == 200_000


def test_a_folder_is_read_in_the_order_of_its_file_names(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "b.jsonl", ROWS[4:])
    write_json_lines(tmp_path / "a.jsonl", ROWS[:4])
    (tmp_path / "README.md").write_text("not rows")
    source = open_source(str(tmp_path))
    assert rows_of(source) == ROWS
    assert numbers_of(source) == list(range(1, 11))
    assert source.where(6) == f"{tmp_path / 'b.jsonl'} row 2"
    assert rows_of(open_source(f"{tmp_path}[3:5]")) == ROWS[3:5]


def test_sandbox_rows_and_their_fingerprint() -> None:
    source = open_source("sandbox:preferences?rows=20&seed=1")
    assert len(rows_of(source)) == 20
    assert rows_of(source) == rows_of(source)
    assert source.fingerprint() != open_source("sandbox:preferences?rows=20&seed=2").fingerprint()
    with pytest.raises(UserError, match="seeed"):
        rows_of(open_source("sandbox:preferences?seeed=1"))


# Slices ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("[:3]", range(3)),
        ("[3:]", range(3, 10)),
        ("[2:5]", range(2, 5)),
        ("[:-3]", range(7)),
        ("[-3:]", range(7, 10)),
        ("[-3:-1]", range(7, 9)),
        ("[:80%]", range(8)),
        ("[80%:]", range(8, 10)),
        ("[-20%:]", range(8, 10)),
        ("[:33%]", range(3)),
        ("[33%:]", range(3, 10)),
        ("[:]", range(10)),
        ("[0:10]", range(10)),
        ("[:100%]", range(10)),
    ],
)
def test_slices_take_the_rows_that_hub_splits_would(span: str, expected: range, tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl")
    source = open_source(f"{tmp_path / 'a.jsonl'}{span}")
    assert rows_of(source) == [ROWS[i] for i in expected]
    assert numbers_of(source) == [i + 1 for i in expected], "a slice keeps the row numbers of its file"


def test_a_slice_of_a_slice(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl")
    source = open_source(f"{tmp_path / 'a.jsonl'}[:-3][50%:][1:]")
    assert rows_of(source) == ROWS[5:7]
    assert numbers_of(source) == [6, 7]
    assert source.fingerprint() != open_source(f"{tmp_path / 'a.jsonl'}[5:7]").fingerprint()
    assert is_on_hub("owner/name@config:test[:80%][:10]")
    assert not is_on_hub(f"{tmp_path / 'a.jsonl'}[:80%][:10]")


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("[:11]", "beyond the 10 rows"),
        ("[-11:]", "beyond the 10 rows"),
        ("[12:]", "beyond the 10 rows"),
        ("[:101%]", "between -100% and 100%"),
        ("[5:5]", "holds no row"),
        ("[8:-5]", "holds no row"),
        ("[10:]", "holds no row"),
        ("[3]", "slice at the end is not understood"),
        ("[a:b]", "slice at the end is not understood"),
        ("[:1.5]", "slice at the end is not understood"),
        ("[1:2:3]", "slice at the end is not understood"),
        ("[:5][6:]", "beyond the 5 rows"),
    ],
)
def test_a_slice_that_cannot_be_taken_is_refused_before_the_first_row(span: str, message: str, tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match=message):
        next(iter(open_source(f"{tmp_path / 'a.jsonl'}{span}")))


def test_a_file_whose_name_looks_like_a_slice_is_a_file(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl")
    odd = tmp_path / "a.jsonl[1:2]"
    odd.write_text("")
    with pytest.raises(UserError, match="files of this kind are not read"):
        open_source(str(odd))


# Bad files ------------------------------------------------------------------------------------------------------------

GOOD = b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n'

BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty lines": ("a.jsonl", b"\n \n", "a.jsonl: no rows in it"),
    "empty file": ("a.jsonl", b"", "a.jsonl: no rows in it"),
    "empty json": ("a.json", b" \n", "a.json: no rows in it"),
    "empty array": ("a.json", b"[]", "a.json: no rows in it"),
    "empty csv": ("a.csv", b"", "a.csv: no rows in it"),
    "header only": ("a.csv", b"prompt,chosen\n", "a.csv: no rows in it"),
    "empty gzip": ("a.jsonl.gz", gzip.compress(b""), "a.jsonl.gz: no rows in it"),
    "broken line": ("a.jsonl", GOOD + b'{"prompt": \n', "a.jsonl, line 2: broken JSON at column 1"),
    "broken after a blank line": ("a.jsonl", GOOD + b"\n{oops}\n", "a.jsonl, line 3: broken JSON at column 2"),
    "monstrous number": ("a.jsonl", GOOD + b'{"a": ' + b"1" * 9999 + b"}", "a.jsonl, line 2: JSON that cannot be read"),
    "array in lines": ("a.jsonl", b'[{"a": 1}]', "a.jsonl, line 1: an array; .*belongs in a file that ends in .json"),
    "pretty json in lines": ("a.jsonl", b"[\n{}\n]", r"a.jsonl, line 1: broken JSON .* must end in .json"),
    "scalar line": ("a.jsonl", GOOD + b"3\n", "a.jsonl, line 2: a number; each line must be an object"),
    "not utf-8": ("a.jsonl", GOOD + b'{"prompt": "\xe9"}\n', "a.jsonl, line 2: not valid UTF-8"),
    "not utf-8 array": ("a.json", b'[{"a": 1},\n{"a": "\xe9"}]', "a.json, line 2: not valid UTF-8"),
    "not utf-8 csv": ("a.csv", b"prompt\nok\nna\xefve\n", "a.csv, line 3: not valid UTF-8"),
    "broken array": ("a.json", b'[{"a": 1},\n{"a": 2},\n{"a": }]', "a.json, line 3: broken JSON"),
    "cut array": ("a.json", b'[{"a": 1},\n{"a": 2},\n', "a.json, line 3: broken JSON in row 3: it ends"),
    "array of text": ("a.json", b'["a", "b"]', "a.json: row 1 is text; each row must be an object"),
    "text": ("a.json", b"hello", "a.json, line 1: not JSON rows"),
    "no array": ("a.json", b'{"a": 1, "b": {"c": [{}]}}', "a.json: a JSON object must hold exactly one .* holds none"),
    "two arrays": ("a.json", b'{"a": [{"x": 1}], "b": [{"x": 1}]}', "exactly one array of rows; it holds 2: a, b"),
    "ragged csv": ("a.csv", b'a,b\n1,"2\n3"\n1,2,3\n', "a.csv, line 4: 3 cells where the header has 2"),
    "short csv": ("a.csv", b"a,b\n1\n", "a.csv, line 2: 1 cells where the header has 2"),
    "open quote": ("a.csv", b'a,b\n1,"2\n', "a.csv, line 2: broken CSV"),
    "column twice": ("a.csv", b"a,b,a\n1,2,3\n", "a.csv, line 1: column 'a' appears more than once"),
    "not gzip": ("a.jsonl.gz", GOOD, "a.jsonl.gz: not a gzip file"),
    "cut gzip": ("a.jsonl.gz", gzip.compress(GOOD * 9)[:-9], "a.jsonl.gz: the gzip file is truncated or damaged"),
    "not parquet": ("a.parquet", GOOD, "a.parquet: not a readable parquet file, or damaged"),
    "text file": ("a.txt", b"hello", "a.txt: files of this kind are not read; it must end in one of .json, .jsonl"),
    "no ending": ("a", b"hello", "a: files of this kind are not read"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_message_with_file_and_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        rows_of(open_source(str(tmp_path / name)))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_hundred_thousand_names_are_compared_in_one_pass(ending: str, tmp_path: Path) -> None:
    names = [*(f"c{number}" for number in range(100_000)), "c99999"]
    content = ",".join(names) if ending == "csv" else "[{" + ",".join(f'"{name}": 1' for name in names) + "}]"
    (tmp_path / f"a.{ending}").write_text(content)
    with pytest.raises(UserError, match=r"'c99999' (appears more than once|stands twice)"):
        rows_of(open_source(str(tmp_path / f"a.{ending}")))


def test_rows_before_a_bad_line_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"{oops}")
    rows = iter(open_source(str(tmp_path / "a.jsonl")))
    assert next(rows)[0] == 1
    with pytest.raises(UserError, match="line 2"):
        next(rows)


def test_a_misspelt_file_brings_the_nearest_name(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "pairs.jsonl")
    with pytest.raises(UserError, match=r"pair\.jsonl: no such file; did you mean .*pairs\.jsonl\?"):
        open_source(str(tmp_path / "pair.jsonl"))
    with pytest.raises(UserError, match=rf"no folder {tmp_path / 'nowhere'}"):
        open_source(str(tmp_path / "nowhere" / "pairs.jsonl"))


def test_a_folder_without_rows_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"no file in this folder ends in one of \.json, \.jsonl"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("spec", ["", "  ", "[:3]"])
def test_an_empty_spec_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="Empty source"):
        open_source(spec)


# The hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stands in for the hub; records what was asked for."""
    import datasets

    asked: list[tuple[Any, ...]] = []

    class Loaded(list[Row]):
        _fingerprint = "f00d"

    def load_dataset(name: str, config: str | None, *, split: str) -> Loaded:
        asked.append((name, config, split))
        if name == "nobody/offline":
            raise ConnectionError("Couldn't reach 'nobody/offline' on the Hub (OfflineModeIsEnabled)\nmore")
        return Loaded(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("PKU-Alignment/PKU-SafeRLHF", ("PKU-Alignment/PKU-SafeRLHF", None, "train")),
        ("PKU-Alignment/PKU-SafeRLHF:test", ("PKU-Alignment/PKU-SafeRLHF", None, "test")),
        ("stanfordnlp/SHP@askscience:validation", ("stanfordnlp/SHP", "askscience", "validation")),
        ("imdb", ("imdb", None, "train")),
    ],
)
def test_hub_ids_name_configuration_and_split(spec: str, asked: tuple[Any, ...], hub: list[tuple[Any, ...]]) -> None:
    source = open_source(spec)
    assert not hub, "nothing is loaded before it is needed"
    assert rows_of(source) == ROWS
    assert "f00d" in source.fingerprint()
    assert rows_of(open_source(f"{spec}[-2:]")) == ROWS[-2:]
    assert hub[0] == asked


@pytest.mark.usefixtures("hub")
def test_an_unreachable_hub_says_what_was_tried_and_what_would_work() -> None:
    with pytest.raises(UserError) as caught:
        rows_of(open_source("nobody/offline@main:dev"))
    message = str(caught.value)
    for part in ("no file or folder", "nobody/offline (configuration main, split dev)", "OfflineMode", "a local copy"):
        assert part in message
    assert "\n" not in message


@pytest.mark.usefixtures("hub")
def test_a_misspelt_folder_that_reads_like_a_hub_id_brings_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nobody" / "offlines").mkdir(parents=True)
    with pytest.raises(UserError, match=r"local copy; did you mean nobody.offlines\?"):
        rows_of(open_source("nobody/offline"))


# Mixing, sampling, fingerprints ---------------------------------------------------------------------------------------


def test_a_mixture_numbers_rows_on_and_names_their_own_places(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl")
    write_json_lines(tmp_path / "b.jsonl")
    specs = [f"{tmp_path / 'a.jsonl'}[-2:]", str(tmp_path / "b.jsonl")]
    mixed = open_sources(specs)
    assert mixed.where(12) == f"{tmp_path / 'b.jsonl'} row 2", "also before anything was read"
    assert rows_of(mixed) == ROWS[-2:] + ROWS
    assert numbers_of(mixed) == [9, 10, *range(11, 21)]
    assert [mixed.part_of(number) for number in (9, 10, 11, 20)] == [0, 0, 1, 1]
    assert mixed.where(10) == f"{tmp_path / 'a.jsonl'} row 10"
    numbers = iter(mixed)
    next(numbers)
    assert mixed.where(13) == f"{tmp_path / 'b.jsonl'} row 3", "while it is being read again"
    assert [part.name for part in mixed.parts] == specs


def test_mixing_nothing_or_a_source_with_itself_is_refused() -> None:
    with pytest.raises(UserError, match="No source"):
        open_sources([])
    with pytest.raises(UserError, match=r"more than once: x\.jsonl"):
        open_sources(["x.jsonl", "y.jsonl", "x.jsonl"])


def test_fingerprints_follow_content_slice_and_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_json_lines(a)
    write_json_lines(b)
    one = open_source(str(a)).fingerprint()
    assert open_source(str(b)).fingerprint() == one, "the same bytes under another name"
    assert open_source(f"{a}[:5]").fingerprint() != one
    assert sample_rows(open_source(str(a)), 5, 1).fingerprint() != sample_rows(open_source(str(a)), 5, 2).fingerprint()
    write_json_lines(b, ROWS[:-1])
    assert open_source(str(b)).fingerprint() != one
    assert open_sources([str(a), str(b)]).fingerprint() != open_sources([str(b), str(a)]).fingerprint()


def many_rows(tmp_path: Path) -> Source:
    write_json_lines(
        tmp_path / "many.jsonl", [{"id": i, "category": "rare" if i % 10 == 0 else "often"} for i in range(1000)]
    )
    return open_source(str(tmp_path / "many.jsonl"))


def test_a_sample_is_seeded_and_not_the_first_rows(tmp_path: Path) -> None:
    source = many_rows(tmp_path)
    sample = sample_rows(source, 100, seed=3)
    assert rows_of(sample) == rows_of(sample) == rows_of(sample_rows(source, 100, seed=3))
    assert rows_of(sample) != rows_of(sample_rows(source, 100, seed=4))
    numbers = numbers_of(sample)
    assert len(set(numbers)) == 100
    assert numbers == sorted(numbers)
    # Of a fair sample some 50 rows lie in the first half, with a standard deviation of 5.
    assert 25 < sum(number <= 500 for number in numbers) < 75
    assert sample.where(numbers[0]).endswith(f"many.jsonl row {numbers[0]}")
    assert all(row["id"] + 1 == number for number, row in sample)


def test_a_stratified_sample_keeps_every_share(tmp_path: Path) -> None:
    sample = sample_rows(many_rows(tmp_path), 50, seed=0, by="category")
    assert Counter(row["category"] for _, row in sample) == {"rare": 5, "often": 45}
    plain = [Counter(row["category"] for _, row in sample_rows(many_rows(tmp_path), 50, seed)) for seed in range(5)]
    assert any(counts["rare"] != 5 for counts in plain), "without strata the shares vary"
    with pytest.raises(UserError, match="no column `topic` to stratify by; it has id, category"):
        rows_of(sample_rows(many_rows(tmp_path), 50, seed=0, by="topic"))


def test_a_sample_larger_than_the_source_is_the_source(tmp_path: Path) -> None:
    assert len(rows_of(sample_rows(many_rows(tmp_path), 5000, seed=0))) == 1000
    with pytest.raises(UserError, match="at least 1"):
        sample_rows(many_rows(tmp_path), 0, seed=0)


def test_unreadable_files_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json_lines(tmp_path / "a.jsonl")
    source = open_source(str(tmp_path / "a.jsonl"))

    def refuse(*_: object, **__: object) -> SimpleNamespace:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a\.jsonl: cannot be read: Permission denied"):
        rows_of(source)
