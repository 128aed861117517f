"""Thousands of broken inputs: each ends in a message or in what an independent reading of the file says, never in a
traceback, a hang, or a figure that the file does not hold.

They take minutes and run with `make fuzz`. A failure names the seed; `-k "KIND and SEED"` repeats it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import yaml
from fuzz_blocks import ROWS, Capture, blocks, independent, seeds
from hand_experiments import stage, write_experiment, write_grid, write_study, write_training
from hand_frontiers import write_frontier
from hand_verdicts import write as write_verdicts
from mutations import as_json, as_lines, broken, call, changed, complaint, damage
from no_pictures import draw_nothing

from preflab import cli
from preflab.page import style

pytestmark = pytest.mark.fuzz


# ---- rows ----


@blocks(500)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_rows(suffix: str, first: int, tmp_path: Path, capsys: Capture) -> None:
    for seed, chance in seeds(first, f"rows {suffix}"):
        rows: list[Any] = [dict(chance.choice(ROWS))] * 4
        content = as_lines(rows) if suffix == ".jsonl" else as_json(rows)
        if chance.random() < 0.5:
            rows = changed(rows, chance)
            whole = rows if isinstance(rows, list) else [rows]
            content = as_lines(whole) if suffix == ".jsonl" else as_json(rows)
        else:
            content = broken(content, chance)
        path = tmp_path / f"rows{suffix}"
        path.write_bytes(content)
        ended = call(capsys, "data", "inspect", str(path), "--json")
        assert complaint(ended) is None, f"seed {seed}: {complaint(ended)}"
        if ended.code == 0:
            found = independent(content, suffix)
            shown = json.loads(ended.out)
            counted = shown["usable"] + sum(one["count"] for one in shown["dropped"].values())
            assert found is not None, f"seed {seed}: read, but it is not JSON: {content[:300]!r}"
            assert counted == len(found), f"seed {seed}: {counted} rows counted, {len(found)} are there"


@blocks(250)
def test_csv(first: int, tmp_path: Path, capsys: Capture) -> None:
    content = b'prompt,chosen,rejected,score_chosen\n"How, then?",Like this,"Not ""so""",1.5\nWhy?,Because,No,2\n' * 2
    for seed, chance in seeds(first, "csv"):
        path = tmp_path / "rows.csv"
        path.write_bytes(broken(content, chance))
        ended = call(capsys, "data", "inspect", str(path), "--json")
        assert complaint(ended) is None, f"seed {seed}: {complaint(ended)}"


@blocks(100)
def test_parquet_and_gz(first: int, tmp_path: Path, capsys: Capture) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([ROWS[1]] * 3), tmp_path / "whole.parquet")
    whole = {
        "rows.parquet": (tmp_path / "whole.parquet").read_bytes(),
        "rows.jsonl.gz": gzip.compress(as_lines(ROWS[:1] * 3), mtime=0),
    }
    for seed, chance in seeds(first, "binary"):
        for name, content in whole.items():
            (tmp_path / name).write_bytes(damaged := broken(content, chance))
            ended = call(capsys, "data", "inspect", str(tmp_path / name), "--json")
            assert complaint(ended) is None, f"seed {seed}: {complaint(ended)}"
            if ended.code == 0 and name.endswith("gz"):
                with gzip.open(tmp_path / name) as file:
                    assert len(file.read().splitlines()) == 3, f"seed {seed}: {damaged!r}"


@blocks(75)
def test_saved_folders(first: int, tmp_path: Path, capsys: Capture) -> None:
    """Folders as `datasets` saves them, of one data set and of several splits."""
    from datasets import Dataset, DatasetDict

    one = Dataset.from_list([ROWS[1]] * 3)
    one.save_to_disk(str(tmp_path / "whole" / "one"))
    DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "whole" / "several"))
    capsys.readouterr()
    for seed, chance in seeds(first, "saved folders"):
        kind, folder = chance.choice(("one", "several")), tmp_path / "folder"
        shutil.copytree(tmp_path / "whole" / kind, folder)
        path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        damage(path, chance)
        ended = call(capsys, "data", "inspect", f"{folder}:train" if kind == "several" else str(folder), "--json")
        where = f"seed {seed}, {path.relative_to(folder)}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0:
            shown = json.loads(ended.out)
            counted = shown["usable"] + sum(one["count"] for one in shown["dropped"].values())
            assert counted == 3, f"{where}: {counted} rows counted, 3 are there"
        shutil.rmtree(folder)


# ---- settings and experiments ----

SETTINGS = b"""model: ./no-such-model
train_data: [pairs.jsonl, "other.jsonl[:-300]"]
learning_rate: 1e-5
beta: 0.1
lora: true
eval_strategy: steps
report_to: [none]
seed: 42
output_dir: runs/x
"""

EXPERIMENT = b"""title: A chain
values:
  model: sandbox
  sizes: [1, 2]
settings: {seed: 3}
stages:
  world: {run: sandbox, rows: 20, eval_rows: 10}
  sft: {run: train sft, model: "${world}/model", train_data: "${world}/demonstrations-train.jsonl", max_steps: 2}
  dpo:
    run: train dpo
    model: ${sft}
    train_data: ${world}/preferences-train.jsonl
    sweep: {beta: [0.05, 0.1]}
  compare: {run: compare, models: ["${sft}", "${dpo}"], prompts: "${world}/preferences-test.jsonl", judge: gold}
"""


def yaml_reads(content: bytes) -> bool:
    try:
        return isinstance(yaml.safe_load(content.decode("utf-8-sig")), dict)
    except (ValueError, yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError):
        return False


@blocks(400)
def test_settings(first: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, chance in seeds(first, "settings"):
        Path("dpo.yaml").write_bytes(broken(SETTINGS, chance))
        ended = call(capsys, "train", "dpo", "dpo.yaml")
        assert complaint(ended) is None, f"seed {seed}: {complaint(ended)}"
        assert ended.code == 2, f"seed {seed}: there is no model, and yet it ended well"


STUDY_SETTINGS = b"""prompts: [prompts.jsonl, "other.jsonl[:-300]"]
max_samples: 10
seed: 42
overwrite: false
max_new_tokens: 20
top_p: 0.9
chat_template_kwargs: {enable_thinking: false}
columns: {prompt: user_query}
"""
OF_COMMANDS = {
    "train sft": SETTINGS.replace(b"beta: 0.1\n", b""),
    "train reward": SETTINGS.replace(b"beta: 0.1\n", b"max_steps: 3\n"),
    "train kto": SETTINGS + b"desirable_weight: 1.5\nterms: [{objective: sft, weight: 0.1}]\n",
    "generate": STUDY_SETTINGS + b"model: ./no-such-model\noutput: x.jsonl\ntemperature: 0.5\n",
    "compare": STUDY_SETTINGS + b"models: [a=./no, b=./none]\njudge: [gold]\nout: study\nsubset_by: category\n",
    "grid": STUDY_SETTINGS + b"models: [a=./no]\njudge: [gold]\ntemperatures: [0, 0.5]\nopponent: chosen\n",
    "frontier": STUDY_SETTINGS + b"models: [a=./no]\nreference: ./none\nreward_model: ./no\nbest_of_n: [2, 4]\n",
}


@blocks(200)
def test_settings_of_other_commands(
    first: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, chance in seeds(first, "settings of other commands"):
        command = chance.choice(sorted(OF_COMMANDS))
        content = broken(OF_COMMANDS[command], chance)
        if chance.random() < 0.5:
            content = as_json(changed(yaml.safe_load(OF_COMMANDS[command]), chance))
        Path("s.yaml").write_bytes(content)
        ended = call(capsys, *command.split(), "s.yaml")
        assert complaint(ended) is None, f"seed {seed}, {command}: {complaint(ended)}"
        assert ended.code == 2, f"seed {seed}, {command}: there is no model, and yet it ended well"


@blocks(300)
def test_experiments(first: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, chance in seeds(first, "experiments"):
        content = broken(EXPERIMENT, chance)
        if chance.random() < 0.5:
            content = as_json(changed(yaml.safe_load(EXPERIMENT), chance))  # JSON is YAML
        Path("e.yaml").write_bytes(content)
        ended = call(capsys, "run", "e.yaml", "--dry-run")
        assert complaint(ended) is None, f"seed {seed}: {complaint(ended)}"
        assert ended.code or yaml_reads(content), f"seed {seed}: planned, but it is not YAML: {content!r}"


# ---- verdicts and studies ----


@blocks(400)
def test_verdicts(first: int, tmp_path: Path, capsys: Capture) -> None:
    whole = write_verdicts(tmp_path / "whole.json", "wwltewlt").read_bytes()
    right = json.loads(call(capsys, "winrate", str(tmp_path / "whole.json"), "--json").out)["files"][0]
    for seed, chance in seeds(first, "verdicts"):
        path = tmp_path / "v.json"
        as_value = chance.random() < 0.5
        path.write_bytes(as_json(changed(json.loads(whole), chance)) if as_value else broken(whole, chance))
        ended = call(capsys, "winrate", str(path), "--json")
        assert complaint(ended) is None, f"seed {seed}: {complaint(ended)}"
        if ended.code == 0:
            rows = json.loads(path.read_bytes().decode("utf-8-sig"))["results"]
            (found,) = json.loads(ended.out)["files"]
            assert sum(found["contest"][name] for name in ("wins", "ties", "losses", "errors")) == len(rows), (
                f"seed {seed}"
            )
            assert set(found) == set(right), f"seed {seed}"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of two files of responses, scored and judged by a reward model."""
    folder = tmp_path_factory.mktemp("compared")
    base = tiny_runs.write_model(folder / "base")
    tiny_runs.run("reward", base, folder / "reward", max_steps=2, save_strategy="no")
    for name in ("one", "two"):
        rows = [{"prompt": f"Question {n}?", "response": f"Answer {n * len(name)} {name}."} for n in range(8)]
        (folder / f"{name}.jsonl").write_bytes(as_lines(rows))
    words = ["compare", f"one={folder / 'one.jsonl'}", f"two={folder / 'two.jsonl'}", "--out", str(folder / "out")]
    words += ["--reward-model", str(folder / "reward" / "model")]
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert not caught.value.code
    return folder / "out"


def folders_of_studies(place: Path, compared: Path) -> Path:
    """A comparison, a grid, a frontier and an experiment that are finished, in one folder."""
    shutil.copytree(compared, place / "compare")
    write_grid(place / "grid", {("sft", None, 0.5): "wltw", ("dpo", 10, 0.5): "wwle", ("dpo", 10, 1.0): "ltww"})
    write_frontier(place / "frontier")
    stages = [
        stage("dpo", "train dpo", variant={"beta": "0.1"}),
        stage("study", "compare", after=["dpo"]),
        stage("cells", "grid", after=["dpo"], status="failed", reason="no such model"),
    ]
    write_experiment(place / "experiment", stages)
    write_training(place / "experiment" / "dpo")
    write_study(place / "experiment" / "study", "wwtlw")
    write_grid(place / "experiment" / "cells", {("dpo", None, 1.0): "wtlw"})
    return place


STUDIES = ("compare", "grid", "frontier", "experiment")


@blocks(400)
def test_studies(first: int, compared: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of a finished study is broken: its report is made of what is whole, or refused."""
    as_svg = style.as_svg
    draw_nothing(monkeypatch)
    folder, whole = tmp_path / "studies", folders_of_studies(tmp_path / "whole", compared)
    for seed, chance in seeds(first, "studies"):
        drawn = as_svg if seed % 10 == 0 else lambda *_, **__: "<svg></svg>"  # most of the time goes into pictures
        monkeypatch.setattr("preflab.page.style.as_svg", drawn)
        shutil.copytree(whole / (kind := chance.choice(STUDIES)), folder)
        path = folder / chance.choice(read_by_reports(folder))
        damage(path, chance)
        ended = call(capsys, "report", str(folder))
        where = f"seed {seed}, {kind}, {path.relative_to(folder)}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if (
            ended.code == 0 and path.exists() and kind != "experiment"
        ):  # whose page says which of its stages cannot be read
            assert independent(path.read_bytes(), path.suffix) is not None, f"{where}: reported, but it is not JSON"
        shutil.rmtree(folder)


def read_by_reports(folder: Path) -> list[Path]:
    """The files of a study from which its report is made."""
    names = (path.relative_to(folder) for path in folder.rglob("*.json*") if path.stat().st_size < 200_000)
    return sorted(name for name in names if "analysis" not in name.parts and ".manifest" not in name.name)


# ---- the command line's own words ----

WORDS = (
    *("", " ", "-", "--", "-1", "0", "1e400", "nan", "inf", "9" * 30, "9" * 5000, "x" * 5000, "\udcff", "a\x00b"),
    *(
        "\x1b[2J",
        "~nobody/x",
        "[:10]",
        "x[:1000000000000000000000000000000]",
        "sandbox:",
        "sandbox:preferences?rows=-1",
    ),
    *("sandbox:preferences?rows=nan", "a/b", "a/b:c[", "x.py:", "/dev/null", "/", ".", "..", "/proc/self/mem", "*"),
    *("=", "a=", "=a", "${x}", "[1, 2", "{", "http://[", "openai:@http://", "hf:", "reward:", "4294967296", "😀"),
)


@blocks(250)
def test_words(first: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd words in the place of every setting, on commands that lack what they need."""
    from preflab.commands import COMMANDS
    from preflab.core.config import is_positional, named_fields

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    names = [name for name in COMMANDS if name not in ("quickstart", "objectives", "data formats", "sandbox")]
    for seed, chance in seeds(first, "words"):
        name = chance.choice(names)
        fields = named_fields(COMMANDS[name].settings_class())
        words = name.split()
        for field in chance.sample(sorted(fields), min(3, len(fields))):
            option = [] if is_positional(fields[field]) else ["--" + field.replace("_", "-")]
            words += [*option, chance.choice(WORDS)]
        ended = call(capsys, *words)
        assert complaint(ended) is None, f"seed {seed}: {words}: {complaint(ended)}"
