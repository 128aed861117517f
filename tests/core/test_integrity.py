"""What is finished is on disk, with checksums: damage is one message that names the file, and never used."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import LORA, run, write_model, zero_last_block

from preflab.cli import main
from preflab.core import durable
from preflab.core.durable import CHECKSUMS, DamagedError, check_files, check_model, digests, read_metrics, whole_folder
from preflab.core.output import beside
from preflab.core.records import UserError
from preflab.core.rundir import read_json, write_json
from preflab.data.answers import read_answers
from preflab.model.load import load_model
from preflab.sample.generate import generate_responses
from preflab.sample.settings import GenerateSettings
from preflab.training import fit, reference
from preflab.training.settings import MergeSettings

pytestmark = pytest.mark.slow

# ---- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_takes_its_place_when_all_of_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")
    synced: list[str] = []
    original = durable.sync

    def watched(path: Path) -> None:
        synced.append(f"{path.name}, {[entry.name for entry in folder.iterdir()] if folder.exists() else []}")
        original(path)

    monkeypatch.setattr(durable, "sync", watched)
    with whole_folder(folder) as unfinished:
        (unfinished / "part").mkdir()
        (unfinished / "part" / "weights").write_bytes(b"1")
    before = [word for word in synced if word.endswith("['old']")]
    assert {word.split(",")[0] for word in before} == {"part", "weights", CHECKSUMS, ".model.tmp"}
    assert synced[-1].startswith(tmp_path.name), "and the list of what stands in the folder above"
    assert sorted(path.name for path in folder.iterdir()) == [CHECKSUMS, "part"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    check_files(folder, read_json(folder / CHECKSUMS))


def test_a_file_is_on_disk_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both what it holds and, after it got its name, the list of what its folder holds."""
    done: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: done.append(f"{(tmp_path / 'x.json').exists()}"))
    write_json(tmp_path / "x.json", {})
    assert done == ["False", "True"]


def test_what_fails_half_way_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(IsADirectoryError), whole_folder(tmp_path / "model") as unfinished:
        unfinished.write_bytes(b"1")
    assert list((tmp_path / "model").iterdir()) == []


def test_every_file_counts(tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = digests(tmp_path)
    assert sorted(found) == ["a", "b/c"]
    check_files(tmp_path, found)
    (tmp_path / "b/c").write_text("d")
    with pytest.raises(DamagedError, match=r"b/c: is not as it was written"):
        check_files(tmp_path, found)
    (tmp_path / "b/c").unlink()
    with pytest.raises(DamagedError, match=r"b/c: is missing"):
        check_files(tmp_path, found)


# ---- models --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    tiny = write_model(root / "tiny")
    run("sft", tiny, root / "full", max_steps=1)
    run("sft", tiny, root / "lora", max_steps=1, **LORA)
    return root


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    for name in ("full", "lora"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "place",
    ["full/model/model.safetensors", "lora/adapter/adapter_model.safetensors", "lora/merged_model/model.safetensors"],
)
def test_zeroed_weights_are_not_loaded(place: str, runs: Path) -> None:
    path = runs / place
    load_model(str(path.parent), "policy", dtype=torch.float32)
    zero_last_block(path)
    with pytest.raises(UserError, match=rf"{path.name}: is not as it was written.*remove .*checksums\.json"):
        load_model(str(path.parent), "policy", dtype=torch.float32)
    (path.parent / CHECKSUMS).unlink()
    load_model(str(path.parent), "policy", dtype=torch.float32)


def test_a_small_file_may_be_changed_by_hand_and_that_is_said(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = runs / "full" / "model" / "generation_config.json"
    write_json(path, {**read_json(path), "temperature": 0.5})
    load_model(str(path.parent), "policy", dtype=torch.float32)
    assert "was changed since preflab wrote it" in " ".join(capfd.readouterr().err.split())
    path = runs / "full" / "model" / "chat_template.jinja"
    zero_last_block(path)
    with pytest.raises(UserError, match=r"chat_template\.jinja: holds zeroed bytes"):
        check_model(path.parent)


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', "{"])
def test_checksums_of_the_wrong_kind_are_named(content: str, runs: Path) -> None:
    (runs / "full" / "model" / CHECKSUMS).write_text(content)
    with pytest.raises(UserError, match=r"checksums\.json: not"):
        load_model(str(runs / "full" / "model"), "policy", dtype=torch.float32)


@pytest.mark.parametrize(
    "place", ["full/model/model.safetensors", "lora/adapter/adapter_model.safetensors", "full/metrics.jsonl"]
)
def test_a_finished_run_that_is_damaged_is_trained_anew_when_that_is_wanted(
    place: str, trained: Path, runs: Path
) -> None:
    path, whole = runs / place, (trained / place).read_bytes()
    changes = LORA if place.startswith("lora") else {}
    zero_last_block(path)
    folder = runs / place.split("/")[0]
    with pytest.raises(UserError, match=rf"{path.name}: is not as it was written.*--overwrite trains the run anew"):
        run("sft", trained / "tiny", folder, max_steps=1, **changes)
    run("sft", trained / "tiny", folder, max_steps=1, overwrite=True, **changes)
    if path.suffix == ".safetensors":
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "result",
    [
        "[]", "{}", "3", "null", '{"model": 3, "metrics": {}}', '{"model": "model"}',
        '{"model": "model", "metrics": {"loss": "low"}}', '{"model": "model", "metrics": []}', "{",
    ],
)  # fmt: skip
def test_a_result_of_the_wrong_kind_is_one_message(result: str, trained: Path, runs: Path) -> None:
    (runs / "full" / "result.json").write_text(result)
    with pytest.raises(UserError, match=r"result\.json: "):
        run("sft", trained / "tiny", runs / "full", max_steps=1)


@pytest.mark.parametrize(
    "change",
    [{"status": "well"}, {"inputs": 3}, {"files": [1]}, {"fingerprint": 3}, {"started": None}, {"mood": 1}, None],
)
def test_a_stage_file_of_the_wrong_kind_is_one_message(
    change: dict[str, Any] | None, trained: Path, runs: Path
) -> None:
    path = runs / "full" / "stage.json"
    write_json(path, None if change is None else {**read_json(path), **change})
    with pytest.raises(UserError, match=r"stage\.json: not a stage file that this version wrote"):
        run("sft", trained / "tiny", runs / "full", max_steps=1)


# ---- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["zeroed", "a row less", "a word changed"])
def test_rows_that_are_not_as_they_were_written_are_not_used(how: str, trained: Path, tmp_path: Path) -> None:
    given = {"model": str(trained / "tiny"), "prompts": ("sandbox:prompts?rows=3",), "max_new_tokens": 4}
    settings = GenerateSettings(**given, output=tmp_path / "r.jsonl")
    generate_responses(settings)
    whole = settings.output.read_bytes()
    if how == "zeroed":
        zero_last_block(settings.output)
    elif how == "a row less":
        settings.output.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    else:
        settings.output.write_bytes(whole.replace(b"eos", b"EOS").replace(b"length", b"Length"))
    with pytest.raises(UserError, match=r"r\.jsonl: is not as it was written.*--overwrite"):
        generate_responses(settings)
    with pytest.raises(UserError, match=r"r\.jsonl: is not as it was written"):
        read_answers(str(settings.output))
    generate_responses(GenerateSettings(**given, output=settings.output, overwrite=True))
    assert settings.output.read_bytes() == whole


@pytest.mark.parametrize(
    "line", ['{"loss": 1}', '{"step": "2"}', '{"step": null}', '{"step": 2, "loss": []}', '{"step": -1}']
)
def test_metrics_without_a_step_are_one_message(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: `(step|loss)` is missing or no number"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"settings": 1, "data": {}}', "3", "{"])
def test_a_manifest_of_the_wrong_kind_is_one_message(manifest: str, trained: Path, tmp_path: Path) -> None:
    given = {"model": str(trained / "tiny"), "prompts": ("sandbox:prompts?rows=2",), "max_new_tokens": 4}
    settings = GenerateSettings(**given, output=tmp_path / "r.jsonl")
    generate_responses(settings)
    beside(settings.output, "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=r"r\.manifest\.json: not"):
        generate_responses(settings)


def test_what_a_kill_at_the_very_end_left_is_removed(trained: Path, tmp_path: Path) -> None:
    given = {"model": str(trained / "tiny"), "prompts": ("sandbox:prompts?rows=2",), "max_new_tokens": 4}
    settings = GenerateSettings(**given, output=tmp_path / "r.jsonl")
    whole = generate_responses(settings).output.read_bytes()
    (tmp_path / "r.unfinished.jsonl").write_bytes(whole)  # the file has got its name, and this was not removed yet
    assert generate_responses(settings).output.read_bytes() == whole
    assert not (tmp_path / "r.unfinished.jsonl").exists()


# ---- the reference's cache -----------------------------------------------------------------------------------------


def test_a_damaged_reference_is_computed_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a" / "key.npy"
    values = np.linspace(-9.0, -1.0, 40)
    reference._write_cache(path, values)
    assert np.array_equal(reference._read_cache(path, 40), values)  # type: ignore[arg-type]
    assert reference._read_cache(path, 41) is None
    content = path.read_bytes()
    for damaged in (content[:-50] + bytes(50), content[:200] + b"\1" + content[201:], content[:-1], b"", b"x"):
        path.write_bytes(damaged)
        assert reference._read_cache(path, 40) is None
        assert "the reference is computed again" in " ".join(capfd.readouterr().err.split())
    assert [entry.name for entry in path.parent.iterdir()] == ["key.npy"]


# ---- evaluations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reward", "dpo", "sft", "kto"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_evaluation_without_a_number_ends_the_run(
    kind: str, value: float, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one: what was evaluated before does not speak for the model."""
    original, calls = fit.response_values, []

    def broken(*given: Any, **options: Any) -> Any:
        values = original(*given, **options)
        calls.append(1)
        if len(calls) == 3:
            values[4] = value
        return values

    monkeypatch.setattr(fit, "response_values", broken)
    with pytest.raises(UserError, match=r"step 6: the loss of the evaluation is \S+; the model gives no finite number"):
        run(kind, trained / "tiny", tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    json.loads("[" + ",".join((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) + "]")


def test_merging_leaves_a_whole_folder(trained: Path, tmp_path: Path) -> None:
    from preflab.training.merge import merge_adapter

    merge_adapter(MergeSettings(adapter=trained / "lora" / "adapter", output_dir=tmp_path / "merged"))
    check_files(tmp_path / "merged", read_json(tmp_path / "merged" / CHECKSUMS))
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
@pytest.mark.parametrize(
    "command", ["winrate v.json", "data inspect v.jsonl", "data inspect v.csv", "judge v.json v.jsonl"]
)
def test_what_has_no_end_is_not_read(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("v.json", "v.jsonl", "v.csv"):
        (tmp_path / place).symlink_to("/dev/zero")
    given = [str(tmp_path / word) if word.startswith("v.") else word for word in command.split()]
    given += ["--judge", "gold"] if command.startswith("judge") else []
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert "device" in capsys.readouterr().err


def test_what_was_changed_by_hand_is_said_in_the_order_of_the_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [f"{letter}.json" for letter in "abcdefgh"]
    with whole_folder(tmp_path / "m") as folder:
        for name in names:
            (folder / name).write_text("{}")
    for name in names:
        (tmp_path / "m" / name).write_text("[]")
    check_model(tmp_path / "m")
    said = "".join(capfd.readouterr().err.split())
    places = [said.index(f"/{name}:") for name in names]
    assert places == sorted(places)
