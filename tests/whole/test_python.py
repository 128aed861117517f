"""The functions of `preflab` on objects in memory: the same numbers, to the last digit, as on paths."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import tiny_runs
import torch
from matplotlib.figure import Figure
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import preflab
from preflab.core.durable import read_metrics
from preflab.core.rundir import read_jsonl, write_jsonl
from preflab.core.yaml_files import read_yaml
from preflab.data.in_memory import sources_of
from preflab.data.sources import open_source
from preflab.sandbox.world import World, preference_rows

pytestmark = pytest.mark.slow

Rows = list[dict[str, Any]]
SETTINGS: dict[str, Any] = {
    name: value for name, value in tiny_runs.DEFAULTS.items() if name not in ("train_data", "eval_data")
}


@pytest.fixture(scope="module", autouse=True)
def _no_figures() -> Iterator[None]:
    """They take longer to draw than all the rest takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preflab.training.stage.draw_curves", lambda *_: None)
        patch.setattr("preflab.training.reward.draw_training_of_reward_model", lambda *_: None)
        patch.setattr("preflab.studies.compare.report.draw_figures", lambda *_: None)
        patch.setattr("preflab.studies.compare.report.write_report", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def rows() -> Rows:
    return list(preference_rows(World(), rows=20, split="train", style="TRL"))


@pytest.fixture(scope="module")
def held_out() -> Rows:
    return list(preference_rows(World(), rows=9, split="test", style="TRL"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: Rows, held_out: Rows) -> Path:
    """A model, and the rows as files."""
    root = tmp_path_factory.mktemp("python")
    tiny_runs.write_model(root / "tiny")
    write_jsonl(root / "pairs.jsonl", rows)
    write_jsonl(root / "held_out.jsonl", held_out)
    return root


@pytest.fixture(scope="module")
def trained(folder: Path) -> Any:
    """DPO of paths."""
    return train(folder, "dpo", output_dir=folder / "dpo")


@pytest.fixture(scope="module")
def rewarding(folder: Path) -> Any:
    """A reward model of paths."""
    return train(folder, "reward", output_dir=folder / "reward")


def train(folder: Path, objective: str, **changed: Any) -> Any:
    given = {"model": folder / "tiny", "train_data": folder / "pairs.jsonl", "eval_data": folder / "held_out.jsonl"}
    return preflab.train(objective, **{**SETTINGS, **given, **changed})


def load(path: Path, kind: Any = AutoModelForCausalLM) -> dict[str, Any]:
    return {"model": kind.from_pretrained(path), "tokenizer": AutoTokenizer.from_pretrained(path)}


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(preflab.UserError) as error:
        call()
    return str(error.value)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "changed"),
    [("dpo", {"beta": 0.2}), ("sft", {}), ("kto", {}), ("dpo", tiny_runs.LORA)],
    ids=["dpo", "sft", "kto", "dpo with lora"],
)
def test_a_model_in_memory_is_trained_as_one_of_a_path(
    objective: str, changed: dict[str, Any], folder: Path, rows: Rows, held_out: Rows, tmp_path: Path
) -> None:
    of_paths = train(folder, objective, output_dir=tmp_path / "paths", **changed)
    held = load(folder / "tiny")
    given = {**held, "train_data": datasets.Dataset.from_list(rows), "eval_data": pd.DataFrame(held_out)}
    of_objects = preflab.train(objective, **{**SETTINGS, **given, **changed}, output_dir=tmp_path / "objects")
    assert of_objects.metrics == of_paths.metrics
    assert read_metrics(tmp_path / "objects") == read_metrics(tmp_path / "paths")
    name = "model.safetensors"
    assert (of_objects.model / name).read_bytes() == (of_paths.model / name).read_bytes()
    model, tokenizer = of_objects.load()
    assert tokenizer.get_vocab() == held["tokenizer"].get_vocab()
    if not changed.get("lora"):
        assert model is held["model"]
        assert same_weights(model, of_paths.load()[0])
    assert read_yaml(tmp_path / "objects" / "config.yaml")["model"] == "in memory: Qwen2ForCausalLM"


def test_a_reward_model_in_memory_is_trained_as_one_of_a_path(folder: Path, rewarding: Any, tmp_path: Path) -> None:
    held = load(rewarding.model, AutoModelForSequenceClassification)
    of_objects = train(folder, "reward", **held, output_dir=tmp_path / "objects")
    assert of_objects.metrics == train(folder, "reward", model=rewarding, output_dir=tmp_path / "paths").metrics


def test_the_model_keeps_its_mode_and_its_attention(folder: Path, tmp_path: Path) -> None:
    held = load(folder / "tiny")
    model = held["model"].train()
    model.set_attn_implementation("eager")
    train(folder, "dpo", **held, output_dir=tmp_path / "run")
    assert model.training
    assert model.config._attn_implementation == "eager"
    preflab.generate(
        model, [{"prompt": "Hi"}], tokenizer=held["tokenizer"], output=tmp_path / "a.jsonl", max_new_tokens=4
    )
    assert model.training


def test_a_run_is_claimed_for_weights_and_rows_and_not_for_objects(folder: Path, rows: Rows, tmp_path: Path) -> None:
    first = load(folder / "tiny")
    given = {"train_data": rows, "output_dir": tmp_path / "run"}
    done = train(folder, "dpo", **first, **given)
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    again = load(folder / "tiny")
    skipped = train(folder, "dpo", **again, **{**given, "train_data": [dict(row) for row in rows]})
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before
    assert skipped.metrics == done.metrics
    assert same_weights(again["model"], first["model"]), "the finished run's weights are put into it"
    other = refused(lambda: train(folder, "dpo", **first, **given))  # which has been trained
    assert "holds a run made from other inputs:\n  model: " in other
    fewer = refused(lambda: train(folder, "dpo", **load(folder / "tiny"), **{**given, "train_data": rows[:-1]}))
    assert "train_data" in fewer


def test_training_shows_itself_in_a_few_lines(trained: Any) -> None:
    assert repr(trained) == str(trained)
    assert repr(trained).endswith(f"curves: {trained.output_dir / 'training_curves.png'}")
    assert len(repr(trained).splitlines()) < 30
    table = trained.to_pandas()
    lines = read_metrics(trained.output_dir)
    assert list(table.index) == sorted({line["step"] for line in lines}) == [0, 1, 2, 3, 4, 5, 6]
    for line in lines:
        for name, value in line.items():
            assert name == "step" or table.loc[line["step"], name] == value
    figure = trained.figure()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"


# ---- generating, scoring, judging, comparing -------------------------------------------------------------------------


def test_generate(folder: Path, held_out: Rows, tmp_path: Path) -> None:
    common: dict[str, Any] = {"max_new_tokens": 8, "num_return_sequences": 2}
    of_paths = preflab.generate(folder / "tiny", folder / "held_out.jsonl", output=tmp_path / "paths.jsonl", **common)
    held = load(folder / "tiny")
    of_objects = preflab.generate(
        held["model"], held_out, tokenizer=held["tokenizer"], output=tmp_path / "objects.jsonl", **common
    )
    assert list(read_jsonl(of_objects.output)) == list(read_jsonl(of_paths.output))
    assert of_objects.summary == of_paths.summary
    assert of_objects.to_pandas()["response"].tolist() == [row["response"] for row in read_jsonl(of_paths.output)]
    assert repr(of_objects).splitlines()[0].split() == ["prompts", "9"]


def test_score(folder: Path, rewarding: Any, held_out: Rows, tmp_path: Path) -> None:
    of_paths = preflab.score(folder / "held_out.jsonl", rewarding, output=tmp_path / "paths.jsonl")
    held = load(rewarding.model, AutoModelForSequenceClassification)
    of_objects = preflab.score(
        pd.DataFrame(held_out), held["model"], tokenizer=held["tokenizer"], output=tmp_path / "objects.jsonl"
    )
    assert of_objects.summary == of_paths.summary
    pd.testing.assert_frame_equal(of_objects.to_pandas(), of_paths.to_pandas(), check_exact=True)
    assert {"score_chosen", "score_rejected"} <= set(of_objects.to_pandas().columns)
    assert isinstance(of_objects.figure(), Figure)
    of_one = preflab.score([{"prompt": "Hi", "response": "Ho"}], rewarding, output=tmp_path / "one.jsonl")
    assert of_one.figure() is None


def test_judge(held_out: Rows, tmp_path: Path) -> None:
    ours, theirs = (
        [{"prompt": row["prompt"], "response": row[side]} for row in held_out] for side in ("chosen", "rejected")
    )
    write_jsonl(tmp_path / "ours.jsonl", ours)
    write_jsonl(tmp_path / "theirs.jsonl", theirs)
    common = {"judge": "gold", "overwrite": True}
    of_paths = preflab.judge(
        tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl", output=tmp_path / "paths.json", **common
    )
    of_objects = preflab.judge(ours, pd.DataFrame(theirs), output=tmp_path / "objects.json", **common)
    assert of_objects.verdicts.judgements == of_paths.verdicts.judgements
    assert repr(of_objects).replace("objects", "paths") == repr(of_paths)
    pd.testing.assert_frame_equal(of_objects.to_pandas(), of_paths.to_pandas())
    assert of_objects.to_pandas()["sample_id"].tolist() == [f"{number}/0" for number in range(1, 10)]
    against_chosen = preflab.judge(
        theirs, "chosen", prompts=held_out, output=tmp_path / "chosen.json", **common
    ).to_pandas()
    swapped = {"model": "chosen", "baseline": "model", "tie": "tie"}
    assert against_chosen["verdict"].tolist() == [swapped[each] for each in of_paths.to_pandas()["verdict"]]


def test_judge_by_a_model_in_memory(folder: Path, rewarding: Any, held_out: Rows, tmp_path: Path) -> None:
    ours, theirs = (
        [{"prompt": row["prompt"], "response": row[side]} for row in held_out] for side in ("chosen", "rejected")
    )
    scorer, asked = load(rewarding.model, AutoModelForSequenceClassification), load(folder / "tiny")
    common = {"verdict_from": "first_token", "max_length": 512, "orders": "random"}
    for name, word, held in (("rm", f"reward:{rewarding.model}", scorer), ("lm", f"hf:{folder / 'tiny'}", asked)):
        of_paths = preflab.judge(ours, theirs, judge=word, output=tmp_path / f"{name}-path.json", **common)
        given = {"judge": held["model"], "tokenizer": held["tokenizer"], **common}
        of_objects = preflab.judge(ours, theirs, output=tmp_path / f"{name}.json", **given)
        assert of_objects.verdicts.judgements == of_paths.verdicts.judgements
        assert of_objects.verdicts.metadata["judge"].endswith(f":in memory: {type(held['model']).__name__}")


def test_compare(folder: Path, trained: Any, held_out: Rows, tmp_path: Path) -> None:
    answers = [{"prompt": row["prompt"], "response": row["chosen"]} for row in held_out]
    write_jsonl(tmp_path / "answers.jsonl", answers)
    common: dict[str, Any] = {"judge": "gold", "max_new_tokens": 8}
    of_paths = preflab.compare(
        [f"people={tmp_path / 'answers.jsonl'}", f"dpo={trained.output_dir}"],
        prompts=folder / "held_out.jsonl",
        out=tmp_path / "paths",
        **common,
    )
    of_objects = preflab.compare(
        {"people": answers, "dpo": trained}, prompts=held_out, out=tmp_path / "objects", **common
    )
    assert of_objects.analysis == of_paths.analysis
    table = of_objects.to_pandas()
    (contest,) = of_objects.analysis.contests
    assert contest.win_rate is not None
    assert table[["model", "judge", "win_rate", "win_rate_low", "win_rate_high", "win_rate_n"]].values.tolist() == [
        ["dpo", "gold", contest.win_rate.value, contest.win_rate.low, contest.win_rate.high, 9]
    ]
    assert repr(of_objects) == str(of_objects)
    assert isinstance(of_objects.figure(), Figure)


def test_compare_models_in_memory(folder: Path, trained: Any, held_out: Rows, tmp_path: Path) -> None:
    common: dict[str, Any] = {"prompts": held_out, "judge": "gold", "max_new_tokens": 8}
    paths = {"base": folder / "tiny", "dpo": trained}
    of_paths = preflab.compare(paths, out=tmp_path / "paths", **common)
    base, dpo = load(folder / "tiny"), load(trained.model)
    models = {"base": base["model"], "dpo": dpo["model"]}
    of_objects = preflab.compare(models, tokenizer=base["tokenizer"], out=tmp_path / "objects", **common)
    assert of_objects.to_pandas().equals(of_paths.to_pandas())
    for name in ("base", "dpo"):
        ours, theirs = (tmp_path / side / "responses" / f"{name}.jsonl" for side in ("objects", "paths"))
        assert ours.read_bytes() == theirs.read_bytes()
    missing = refused(lambda: preflab.compare(models, prompts=held_out))
    assert missing.startswith("tokenizer: missing; Qwen2ForCausalLM is given in memory")


def test_inspect(folder: Path, held_out: Rows) -> None:
    of_paths, of_objects = preflab.inspect(folder / "held_out.jsonl"), preflab.inspect(held_out)
    ours, theirs = (
        {name: value for name, value in each.inspection.to_json().items() if name not in ("source", "columns")}
        for each in (of_objects, of_paths)
    )
    assert ours == theirs
    assert "9, of which 9 can be used" in repr(of_objects)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_the_same_rows_are_one_source_whatever_holds_them(rows: Rows) -> None:
    kinds = [rows, tuple(rows), iter(rows), pd.DataFrame(rows), datasets.Dataset.from_list(rows)]
    (source,) = {sources_of(given, "train_data") for given in kinds}
    assert re.fullmatch(r"in-memory:20-rows-[0-9a-f]{16}\.jsonl", source[0])
    assert [row for _, row in open_source(source[0])] == rows
    assert next(row for _, row in open_source(f"{source[0]}[-1:]")) == rows[-1]
    assert sources_of(rows[:3], "train_data") != source
    assert sources_of(["a.jsonl", rows], "train_data") == ("a.jsonl", *source)


def test_empty_cells_of_a_data_frame_are_null() -> None:
    table = pd.DataFrame(
        {"prompt": ["a", "b"], "score": [1.5, float("nan")], "on": pd.to_datetime(["2024-05-01", None])}
    )
    (source,) = sources_of(table, "data")
    assert [row for _, row in open_source(source)] == [
        {"prompt": "a", "score": 1.5, "on": "2024-05-01T00:00:00"},
        {"prompt": "b", "score": None, "on": None},
    ]


def test_rows_are_read_wherever_the_cache_is(rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = sources_of(rows, "train_data")
    monkeypatch.setenv("PREFLAB_CACHE", str(tmp_path / "another"))
    gone = refused(lambda: preflab.inspect(source))
    assert gone.startswith(f"{source}: rows that a Python session had in memory; the cache does not have them")
    assert sources_of(rows, "train_data") == (source,)
    assert len(list(open_source(source))) == 20


def test_half_a_character_is_dropped_as_it_is_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "half.jsonl").write_text('{"prompt": "\\ud800"}\n{"prompt": "whole"}\n')
    (source,) = sources_of([{"prompt": "\ud800"}, {"prompt": "whole"}], "prompts")
    assert [row for _, row in open_source(source)] == [row for _, row in open_source(str(tmp_path / "half.jsonl"))]


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_mistakes_in_settings_read_as_on_the_command_line(folder: Path, rows: Rows) -> None:
    given = {"model": folder / "tiny", "train_data": rows}
    assert refused(lambda: preflab.train("dpo", **given, betta=0.2)) == (
        "betta: there is no such setting; did you mean beta?"
    )
    assert refused(lambda: preflab.train("dpo", model="a", trian_data=rows, beta="x")).splitlines() == [
        "3 settings cannot be used:",
        "train_data: missing, and it has no default",
        "beta: found 'x'; a number is needed",
        "trian_data: there is no such setting; did you mean train_data?",
    ]
    assert refused(lambda: preflab.train("rewrd", **given)) == "objective: found 'rewrd'; did you mean reward?"
    assert "dpoo" in refused(lambda: preflab.train("dpoo", **given))
    assert refused(lambda: preflab.generate(folder / "tiny", rows, temperature=-1)) == (
        "temperature: found -1; a number of at least 0.0 is needed"
    )


def test_mistakes_in_data(folder: Path, rows: Rows) -> None:
    def of(data: object) -> str:
        return refused(lambda: preflab.train("dpo", model=folder / "tiny", train_data=data))

    assert of(3) == ("train_data: found int; a path, a hub id, a list of rows, a DataFrame or a Dataset is needed")
    assert of([]) == "train_data: no rows in it"
    assert of([rows[0], "b"]).startswith("train_data: row 2 is str; rows are dicts: [{")
    assert of([{"prompt": "a", "image": object()}]) == (
        "train_data: row 1: `image` holds object, which is neither text, number, list nor dict"
    )
    split = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})
    assert of(split) == "train_data: found a DatasetDict of train; give one of its splits"
    assert of({"prompt": ["a"]}).startswith("train_data: found a dict with prompt; rows are a list of dicts")
    assert refused(lambda: preflab.generate(folder / "tiny", "What is it like?")).startswith(
        "prompts: found the text 'What is it like?'; a text names a file, a hub id or sandbox:…. Prompts themselves"
    )
    assert refused(lambda: preflab.compare("a.jsonl")) == (
        "models: found str; a list, or a dict by name, of models is needed"
    )


def test_mistakes_in_models(folder: Path, rows: Rows) -> None:
    held = load(folder / "tiny")

    def of(**given: Any) -> str:
        return refused(lambda: preflab.train("dpo", train_data=rows, **given))

    assert of(model=held["model"]) == (
        "tokenizer: missing; Qwen2ForCausalLM is given in memory, and its tokenizer is needed"
    )
    assert of(model=torch.nn.Linear(1, 1)) == (
        "model: found Linear; a path, a hub id or a model of transformers is needed"
    )
    assert of(model=held["model"], tokenizer="x") == ("tokenizer: found str; a tokenizer of transformers is needed")
    assert of(model=folder / "tiny", tokenizer=held["tokenizer"]).startswith("tokenizer: only for a model in memory")
    assert of(**held, dtype="bfloat16") == "dtype: says how a model is loaded, and the model is in memory already"
    assert "has no reward head" in refused(lambda: preflab.score(rows, held["model"], tokenizer=held["tokenizer"]))
    scorer = tiny_model("qwen2", task="reward", vocab_size=len(held["tokenizer"]))
    assert "is a reward model, not a language model" in of(model=scorer, tokenizer=held["tokenizer"])
    held["model"].half()
    assert "float16 overflows" in of(**held)


# ---- the package -----------------------------------------------------------------------------------------------------


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, preflab; preflab.train; print([m for m in ('torch', 'pandas', 'pydantic') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_its_functions_stay_functions_when_its_rooms_are_imported() -> None:
    rooms = [importlib.import_module(f"preflab.{name}") for name in ("training.sft", "judging.command")]
    assert len(rooms) == 2
    assert callable(preflab.train)
    assert callable(preflab.judge)
