"""Tokenised rows are made once, kept whole, and never stale."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tokenizers

from preflab.core.records import Comparison, Message, TokenizedComparison, UserError
from preflab.core.rundir import default_cache_dir
from preflab.data import cache
from preflab.data.cache import TokenizedDataset, tokenized
from preflab.data.rendering import Rendering
from preflab.data.templates import apply_named_template
from preflab.data.tokenize import ChatTemplate, Dropped

HELLO = (Message("user", "Hello there"),)


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(tiny_tokenizers.qwen())


def rows(count: int = 40) -> Iterator[Comparison | Dropped]:
    """Rows with one to three responses, of which every tenth is unreadable and every fifteenth says nothing."""
    for n in range(1, count + 1):
        if n % 10 == 0:
            yield Dropped(n, "unreadable", f"line {n}")
        else:
            responses = ("Hi", f"I know {n}", "No " * n)[: 1 + n % 3]
            yield Comparison(HELLO, ("",) if n % 15 == 0 else responses, n)


def untouchable() -> Iterator[Comparison]:
    raise AssertionError("the rows were read again")
    yield


def build(template: ChatTemplate, folder: Path, items=None, **changed: Any) -> TokenizedDataset:
    options: dict[str, Any] = {"data_fingerprint": "d", "max_length": 100, "max_prompt_length": None}
    return tokenized(rows() if items is None else items, template, cache_dir=folder, **{**options, **changed})


def expected(template: ChatTemplate) -> list[TokenizedComparison]:
    results = template.encode_many(rows(), max_length=100)
    return [result for result in results if isinstance(result, TokenizedComparison)]


def only_folder(root: Path) -> Path:
    (folder,) = (path for path in (root / "tokens").iterdir() if path.is_dir())
    return folder


@pytest.mark.parametrize("flush_at", [1, 50, 1 << 20])
def test_dataset_holds_the_rows_as_encoded(
    template: ChatTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_at: int
) -> None:
    monkeypatch.setattr(cache, "_FLUSH_AT", flush_at)
    dataset, want = build(template, tmp_path), expected(template)
    assert len(dataset) == len(want)
    assert list(dataset) == want
    assert dataset[3] == want[3]
    assert dataset.rows.tolist() == [row.row for row in want]
    assert dataset.prompt_lengths.tolist() == [len(row.prompt_ids) for row in want]
    lengths = np.split(dataset.response_lengths, dataset.response_offsets[1:-1])
    assert [part.tolist() for part in lengths] == [[len(ids) for ids in row.response_ids] for row in want]
    for outside in (len(want), -1):
        with pytest.raises(IndexError):
            dataset[outside]


def test_ids_are_mapped_not_loaded(template: ChatTemplate, tmp_path: Path) -> None:
    assert isinstance(build(template, tmp_path)._tokens, np.memmap)


def test_dropped_rows_are_counted_by_reason(template: ChatTemplate, tmp_path: Path) -> None:
    for dataset in (build(template, tmp_path, rows(200)), build(template, tmp_path, untouchable())):
        assert dataset.dropped["unreadable"] == {
            "count": 20,
            "first_rows": list(range(10, 101, 10)),
            "example": "line 10",
        }
        assert dataset.dropped["empty response"]["first_rows"] == [15, 45, 75, 105, 135, 165, 195]
        assert sum(drop["count"] for drop in dataset.dropped.values()) + len(dataset) == 200


def test_second_run_tokenises_nothing(template: ChatTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(template, tmp_path)

    def impossible(*_: object) -> None:
        raise AssertionError("tokenised again")

    fresh = ChatTemplate(tiny_tokenizers.qwen())
    monkeypatch.setattr(ChatTemplate, "_token_ids", impossible)
    monkeypatch.setattr(Rendering, "render", impossible)
    second = build(fresh, tmp_path, untouchable())
    assert list(second) == list(first)
    assert second.fingerprint == first.fingerprint


def test_every_part_of_the_key_counts(template: ChatTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_tokenizer = tiny_tokenizers.qwen()
    apply_named_template(other_tokenizer, "human-assistant")
    prints = [
        build(template, tmp_path).fingerprint,
        build(template, tmp_path, data_fingerprint="e").fingerprint,
        build(ChatTemplate(other_tokenizer), tmp_path).fingerprint,
        build(template, tmp_path, max_length=99).fingerprint,
        build(template, tmp_path, max_prompt_length=50).fingerprint,
        build(template, tmp_path, on_too_long="raise", max_length=200).fingerprint,
        build(template, tmp_path, max_length=200).fingerprint,
    ]
    monkeypatch.setattr(cache, "hash_of_sources", lambda _: "a parser was corrected")
    prints.append(build(template, tmp_path).fingerprint)
    assert len(set(prints)) == len(prints)


def cut_short(folder: Path) -> None:
    os.truncate(folder / "tokens.bin", 100)


def flip_one_bit(folder: Path) -> None:
    data = bytearray((folder / "tokens.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "tokens.bin").write_bytes(data)


def lose_a_part(folder: Path) -> None:
    (folder / "rows.bin").unlink()


def lose_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def half_meta(folder: Path) -> None:
    text = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(text[: len(text) // 2])


def foreign_meta(folder: Path) -> None:
    (folder / "meta.json").write_text(json.dumps([1]))


@pytest.mark.parametrize("damage", [cut_short, flip_one_bit, lose_a_part, lose_meta, half_meta, foreign_meta])
def test_damaged_cache_is_made_anew(template: ChatTemplate, tmp_path: Path, damage: Any) -> None:
    build(template, tmp_path)
    damage(only_folder(tmp_path))
    assert list(build(template, tmp_path)) == expected(template)
    assert list(build(template, tmp_path, untouchable())) == expected(template)


def test_nothing_is_left_of_a_build_that_failed(template: ChatTemplate, tmp_path: Path) -> None:
    def failing() -> Iterator[Comparison | Dropped]:
        yield from rows()
        raise UserError("the file ends in the middle of a row")

    with pytest.raises(UserError, match="in the middle of a row"):
        build(template, tmp_path, failing())
    assert [path.suffix for path in (tmp_path / "tokens").iterdir()] in ([], [".lock"])
    assert list(build(template, tmp_path)) == expected(template)


@pytest.mark.slow
def test_kill_in_the_middle_leaves_nothing_half_valid(template: ChatTemplate, tmp_path: Path) -> None:
    def killed() -> Iterator[Comparison | Dropped]:
        for _ in range(20):
            yield from rows()
        assert (tmp_path / "tokens").exists()
        os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        cache._FLUSH_AT = 1
        build(template, tmp_path, killed())

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert any(path.stat().st_size for path in (tmp_path / "tokens").glob("*.unfinished/tokens.bin"))
    assert list(build(template, tmp_path)) == expected(template)
    assert not list((tmp_path / "tokens").glob("*.unfinished"))


def test_two_processes_at_once_make_it_once_and_both_can_read_it(template: ChatTemplate, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    together, results = context.Barrier(2), context.Queue()

    def child() -> None:
        read = []

        def counted() -> Iterator[Comparison | Dropped]:
            for row in rows():
                read.append(row)
                yield row

        together.wait(30)
        results.put(([row.row for row in build(template, tmp_path, counted())], len(read)))

    processes = [context.Process(target=child) for _ in range(2)]
    for process in processes:
        process.start()
    got = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
    assert [numbers for numbers, _ in got] == [[row.row for row in expected(template)]] * 2
    assert sorted(read for _, read in got) == [0, 40]


def test_full_disk_is_a_clear_message(template: ChatTemplate, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(UserError, match=r"cannot keep tokenised rows in .*PREFLAB_CACHE"):
            build(template, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(build(template, tmp_path)) == expected(template)


def test_folder_that_cannot_be_written_is_a_clear_message(template: ChatTemplate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot keep tokenised rows"):
        build(template, tmp_path / "file")


def test_a_reader_s_own_disk_error_is_not_called_the_cache_s(template: ChatTemplate, tmp_path: Path) -> None:
    def unreadable() -> Iterator[Comparison]:
        raise OSError("the source is gone")
        yield

    with pytest.raises(OSError, match="the source is gone"):
        build(template, tmp_path, unreadable())


def test_no_rows_make_an_empty_dataset(template: ChatTemplate, tmp_path: Path) -> None:
    for items in ([Dropped(1, "unreadable")], untouchable()):
        dataset = build(template, tmp_path, items)
        assert (len(dataset), list(dataset), dataset.dropped["unreadable"]["count"]) == (0, [], 1)


def test_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PREFLAB_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == tmp_path / ".cache" / "preflab"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "preflab"
    monkeypatch.setenv("PREFLAB_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"


def test_the_hash_of_sources_is_of_names_and_texts(tmp_path: Path) -> None:
    hashes = []
    for number, files in enumerate(({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1", "c": "2"}, {"a": "12"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        hashes.append(cache.hash_of_sources(folder))
    assert len(set(hashes)) == 4
