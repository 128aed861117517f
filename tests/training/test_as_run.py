"""What a report says of models, data and settings is read off the runs; prompts that were trained on are told."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from no_pictures import draw_nothing
from tiny_studies import tiny_study

from preflab.core.origins import AsRun, Leak, Origin, Run, as_run_of, leaks_of
from preflab.core.records import Comparison, Message, UserError, messages_from_json
from preflab.core.rundir import read_json, read_jsonl
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.overlap import prompt_hash
from preflab.data.sources import open_source
from preflab.experiment.report import build_report
from preflab.experiment.settings import ReportSettings
from preflab.judging.command import judge_responses
from preflab.judging.origins import leak_of, origin_of
from preflab.judging.settings import JudgeSettings, WinrateSettings
from preflab.judging.winrate import compute_winrate
from preflab.page.origins import as_run_tables
from preflab.sample.generate import generate_responses
from preflab.sample.settings import GenerateSettings
from preflab.stats.wording import leak_words
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.page import render
from preflab.studies.compare.settings import CompareSettings
from preflab.training.as_run import PROMPTS, runs_of

pytestmark = pytest.mark.slow

TRAINED = "sandbox:preferences?rows=20&seed=1"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SFT on five rows, then DPO on ten others, of one source."""
    folder = tmp_path_factory.mktemp("runs")
    base = tiny_runs.write_model(folder / "base")
    tiny_runs.run("sft", base, folder / "sft", train_data=(f"{TRAINED}[15:]",), eval_data=(), max_steps=1)
    dpo = {"train_data": (f"{TRAINED}[:10]",), "eval_data": (f"{TRAINED}[8:12]",), "max_steps": 2, "max_length": 60}
    tiny_runs.run("dpo", folder / "sft" / "model", folder / "dpo", **dpo)
    return {"base": base, "sft": folder / "sft", "dpo": folder / "dpo"}


def prompts_of(spec: str) -> list[tuple[Message, ...]]:
    source = open_source(spec)
    return [
        item.prompt for item in read_comparisons(source, choose_formats(source, None)) if isinstance(item, Comparison)
    ]


def hashes(spec: str) -> set[int]:
    return {prompt_hash(prompt) for prompt in prompts_of(spec)}


def test_a_training_says_what_it_used(runs: dict[str, Path]) -> None:
    result = read_json(runs["dpo"] / "result.json")
    told = result["as_run"]
    assert told["model"]["from"] == str(runs["sft"] / "model")
    assert told["model"]["beside"] == "../sft/model"
    assert told["model"]["dtype"] == "float32"
    training, held_out = told["data"]["training"], told["data"]["held_out"]
    assert training["sources"] == [f"{TRAINED}[:10]"]
    assert training["rows"] + sum(training["dropped"].values()) == 10
    assert held_out["rows"] == result["overlap"]["held_out_rows"]
    assert (told["settings"]["max_steps"], told["settings"]["max_length"]) == (2, 60)
    assert "train_data" not in told["settings"]
    assert "beta" not in told["settings"], "it has its default"
    used = read_json(runs["dpo"] / PROMPTS)
    assert len(used) == training["prompts"]
    assert set(used) <= hashes(f"{TRAINED}[:10]")
    split = tiny_runs.run  # a ratio instead of sources is told as such
    split("sft", runs["base"], runs["base"].parent / "split", eval_data=(), train_split_ratio=0.75, max_steps=1)
    assert read_json(runs["base"].parent / "split" / "result.json")["as_run"]["data"]["held_out"]["split"] == 0.25


def test_the_trainings_of_a_model_are_followed_to_the_first(runs: dict[str, Path], tmp_path: Path) -> None:
    for place in (runs["dpo"], runs["dpo"] / "model"):
        found = list(runs_of(str(place)))
        assert [run.command for run in found] == ["train dpo", "train sft"]
        assert [run.step for run in found] == [2, 1]
    (alone,) = runs_of(str(runs["base"]))
    assert (alone.command, alone.folder) == (None, str(runs["base"]))
    (hub,) = runs_of("nobody/nothing-of-this-name")
    assert hub.told == {"model": {"commit": None}}
    (tmp_path / "stage.json").write_text('{"status": "done"}')
    (broken,) = runs_of(str(tmp_path))
    assert broken.command is None


def test_prompts_of_all_trainings_count(runs: dict[str, Path]) -> None:
    of_dpo, of_sft = (set(read_json(runs[name] / PROMPTS)) for name in ("dpo", "sft"))
    asked = prompts_of(f"{TRAINED}[5:]")
    wanted = {prompt_hash(prompt) for prompt in asked} & (of_dpo | of_sft)
    assert of_sft - of_dpo
    found = leak_of(runs_of(str(runs["dpo"])), [*asked, *asked])
    assert found == Leak(len(wanted), len(hashes(f"{TRAINED}[5:]")), 0)
    (runs["sft"] / PROMPTS).rename(runs["sft"] / "aside")
    try:
        assert leak_of(runs_of(str(runs["dpo"])), asked).unknown == 1
    finally:
        (runs["sft"] / "aside").rename(runs["sft"] / PROMPTS)


@pytest.fixture(scope="module")
def compared(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        compare_models(
            CompareSettings(
                models=(f"base={runs['base']}", str(runs["dpo"])),
                prompts=(f"{TRAINED}[5:]",),
                judge=("gold",),
                max_new_tokens=4,
                dtype="float32",
                out=out,
            )
        )
    return out


def test_a_comparison_tells_the_prompts_that_a_model_was_trained_on(compared: Path, runs: dict[str, Path]) -> None:
    trained = set(read_json(runs["dpo"] / PROMPTS)) | set(read_json(runs["sft"] / PROMPTS))
    asked = {prompt_hash(messages_from_json(row["prompt"])) for row in read_jsonl(compared / "prompts.jsonl")}
    words = f"dpo was trained on {len(asked & trained)} of the {len(asked)} prompts"
    assert 0 < len(asked & trained) < len(asked)
    result: Any = build_report(ReportSettings(folder=compared))
    assert words in result.analysis.findings[0].text
    assert words in str(result)
    stored = read_json(compared / "analysis" / "model_comparison_results.json")
    assert stored["trained_on"] == {
        "base": None,
        "dpo": {"prompts": len(asked & trained), "of": len(asked), "unknown": 0},
    }
    page = html.unescape((compared / "report.html").read_text(encoding="utf-8"))
    assert words in page
    for told in ("Models and data as run", "train dpo", "train sft", f"{TRAINED}[:10]", "max_length: 60"):
        assert told in page
    assert "not known: no training of preflab lies beside it" in page, "of the base model"


def test_a_judge_and_winrate_tell_it_of_files_that_generate_wrote(runs: dict[str, Path], tmp_path: Path) -> None:
    spec = f"{TRAINED}[:4]"
    for name in ("base", "dpo"):
        generate_responses(
            GenerateSettings(
                model=str(runs[name] if name == "base" else runs[name] / "model"),
                prompts=(spec,),
                output=tmp_path / f"{name}.jsonl",
                max_new_tokens=4,
                dtype="float32",
            )
        )
    files = [str(tmp_path / f"{name}.jsonl") for name in ("dpo", "base")]
    told: Any = judge_responses(
        JudgeSettings(responses=files[0], opponent=files[1], judge="gold", output=tmp_path / "v.json")
    )
    seen = set(read_json(runs["dpo"] / PROMPTS)) & hashes(spec)
    assert read_json(tmp_path / "v.json")["metadata"]["trained_on"]["dpo"]["prompts"] == len(seen) > 0
    words = leak_words("dpo", Leak(len(seen), len(hashes(spec))))
    assert f"warning: {words}" in str(told)
    found = compute_winrate(WinrateSettings(files=(tmp_path / "v.json",)))
    assert words in str(found)
    assert (
        words
        in json.loads(str(compute_winrate(WinrateSettings(files=(tmp_path / "v.json",), json=True))))["warnings"][
            str(tmp_path / "v.json")
        ][0]
    )
    bare = tmp_path / "other.jsonl"
    bare.write_text((tmp_path / "dpo.jsonl").read_text())
    assert origin_of("file", str(bare), prompts_of(spec)).leak is None, "by whom it is, nobody tells"


def test_what_is_not_known_is_said_so_and_all_is_escaped(tmp_path: Path) -> None:
    mark = "<script>window.ran = 1</script>"
    told = {"settings": {"x": mark}, "data": {"training": {"sources": [mark], "rows": 3}, "held_out": None}}
    found = AsRun(
        {"sources": [mark], "asked": 3},
        {
            "base": Origin("model", "org/model", runs=(Run("org/model", None, None, None, {}),)),
            "file": Origin("file", "some.jsonl"),
            "dpo": Origin("model", "runs/dpo", runs=(Run(mark, "train dpo", 1, None, told),), leak=Leak(1, 3)),
            "old": Origin("model", "runs/old", runs=(Run("runs/old", "train dpo", None, None, {}),)),
        },
    )
    prompts, models = as_run_tables(found)
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in models.rows}
    assert cells["base"][0].startswith("not known")
    assert "by whom is not known" in cells["file"][0]
    assert cells["old"] == ["train dpo", *["not known"] * 4]
    assert cells["dpo"][2:] == [mark, "nothing", f"x: {mark}"]
    assert [cell.text for cell in prompts.rows[0][2:]] == ["not known", "not known", "1 of 3", "not known"]
    study = tiny_study(tmp_path)
    page = render(study.__class__(**{**vars(study), "as_run": found}), analyse(study), (), {})
    assert mark not in page
    assert mark in html.unescape(page)


def test_a_file_of_somebody_elses_is_refused_by_name() -> None:
    for document in ({}, [], {"prompts": {}, "models": {"a": {"runs": [{}]}}, "judges": {}}, {"prompts": 1}):
        with pytest.raises(UserError, match=r"as_run\.json: not as this version wrote it"):
            as_run_of(document, "as_run.json")
    assert leaks_of({"a": {"prompts": "1", "of": 2, "unknown": 0}, "b": None, "c": 3}) == {}
    assert leaks_of(None) == {}
    assert leak_words("dpo", Leak(0, 3)) == ""
    assert leak_words("dpo", Leak(3, 3)) == "dpo was trained on all 3 prompts"
    assert leak_words("dpo", Leak(1, 1)) == "dpo was trained on the only prompt"


@pytest.mark.parametrize(
    "told",
    [
        {"model": 3, "data": [], "settings": "x"},
        {"model": {"from": 5, "dtype": []}, "data": {"training": 1, "held_out": {"rows": "many", "split": "x"}}},
        {"data": {"training": {"sources": 7, "rows": None, "dropped": {"too long": "all"}}}},
    ],
)
def test_what_a_run_tells_in_another_shape_is_not_known(told: dict[str, Any]) -> None:
    run = Run("runs/dpo", "train dpo", "ten", None, told)  # type: ignore[arg-type]
    (table,) = as_run_tables(AsRun({}, {"dpo": Origin("model", "runs/dpo", runs=(run,))}))
    assert "not known" in " ".join(cell.text + cell.detail for cell in table.rows[0])


def test_long_lists_and_paths_keep_both_ends() -> None:
    path = f"/{'a' * 300}/model"
    told = {"settings": {"lora_target_modules": [f"m{n}" for n in range(40)]}, "model": {"from": path}}
    (table,) = as_run_tables(AsRun({}, {"dpo": Origin("model", "d", runs=(Run(path, "train dpo", 1, None, told),))}))
    start, settings = table.rows[0][2].text, table.rows[0][5].text
    assert start.startswith("/aaa")
    assert start.endswith("/model")
    assert len(start) < 200
    assert settings.endswith("m11, and 28 more")
