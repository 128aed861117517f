"""The experiments that come with preflab run from beginning to end, with a tiny model and the sandbox's data."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import tiny_runs
from matplotlib.figure import Figure
from torch import nn

from preflab.commands import stage_commands
from preflab.core.rundir import read_json
from preflab.experiment.plan import Plan, read_plan
from preflab.experiment.run import RunResult, run_experiment
from preflab.experiment.settings import RunSettings
from preflab.training.loop import StepReport, train

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[2] / "experiments"
TRAIN, HELD_OUT = "sandbox:preferences?rows=12", "sandbox:preferences?rows=8&split=test"


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model, and figures that are composed but not drawn, which would take most of the time."""

    def save(_: Figure, place: Path | IO[str], **__: object) -> None:
        empty = '<svg viewBox="0 0 1 1"></svg>'
        place.write_text(empty) if isinstance(place, Path) else place.write(empty)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", save)
    tiny_runs.write_model(tmp_path / "tiny")


def run(name: str, *assignments: str) -> Path:
    small = ("model=tiny", "output_dir=out", "settings.report_to=none", "settings.max_new_tokens=6")
    result = run_experiment(RunSettings(experiment=SHIPPED / name, assignments=(*small, *assignments)))
    assert isinstance(result, RunResult)
    again = run_experiment(RunSettings(experiment=SHIPPED / name, assignments=(*small, *assignments)))
    assert isinstance(again, RunResult)
    assert again.ran == ()
    assert result.report.exists()
    return Path("out")


def plan(name: str, assignments: Sequence[str] = ()) -> Plan:
    return read_plan(SHIPPED / name, assignments)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_experiment_can_be_planned_and_says_what_it_follows(path: Path) -> None:
    found = plan(path.name)
    assert found.stages
    assert found.title != found.name
    assert len(found.description) > 100
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_homework() -> None:
    given = (f"train={TRAIN}&style=HOMEWORK[:-2]", f"heldout={HELD_OUT}&style=HOMEWORK", "prompts=4")
    out = run("homework.yaml", *given, "settings.max_length=256", "settings.max_prompt_length=128")
    assert read_json(out / "dpo" / "stage.json")["status"] == "done"
    assert (out / "pairs" / "scores.delta_hist.png").exists()
    assert (out / "reward" / "score_distribution-new.png").exists()
    for folder in ("compare", "compare-train"):
        names = {path.name for path in (out / folder / "analysis").iterdir()}
        assert {"dpo_eval_results.json", "dpo_score_comparison.png", "response_length_analysis.png"} <= names
    assert [len(read_json(out / "compare-train" / "analysis" / "dpo_eval_results.json"))] == [4]


def test_homework_follows_its_source() -> None:
    stages = {stage.name: stage.settings.model_dump() for stage in plan("homework.yaml").stages}
    assert {name: stages["reward"][name] for name in ("num_train_epochs", "learning_rate", "warmup_ratio")} == {
        "num_train_epochs": 3,
        "learning_rate": 2e-5,
        "warmup_ratio": 0.03,
    }
    assert stages["reward"]["lr_scheduler_type"] == "cosine"
    assert (stages["dpo"]["num_train_epochs"], stages["dpo"]["beta"]) == (1, 0.1)
    assert stages["compare"]["models"] == (
        "base=Qwen/Qwen2.5-0.5B-Instruct",
        "dpo=runs/homework/dpo/model",
    )


def test_dpo_paper_hh() -> None:
    given = ("chat_template=null", f"train={TRAIN}", f"heldout={HELD_OUT}", "judge=gold", "prompts=3", "eval_pairs=4")
    small = ("dpo.save_steps=1", "dpo.per_device_train_batch_size=6", "dpo.gradient_accumulation_steps=1")
    out = run("dpo-paper-hh.yaml", *given, *small, "settings.max_length=256", "settings.lora_r=2")
    cells = {path.name for path in (out / "temperatures" / "cells").iterdir()}
    assert cells == {f"{model}-t{t}" for model in ("base", "sft", "dpo") for t in ("0.25", "0.5", "0.75", "1")}
    assert {path.name for path in (out / "steps" / "cells").iterdir()} == {
        f"dpo-step-{step}-t{t}" for step in (1, 2) for t in ("0.7", "1")
    }
    for grid, figure in {"temperatures": "winrate_vs_temperature", "steps": "winrate_vs_step"}.items():
        assert list((out / grid / "analysis").glob(f"{figure}*.png"))
        assert (out / grid / "analysis" / "winrates.tex").exists()


def test_dpo_paper_hh_follows_its_source() -> None:
    stages = {stage.name: stage.settings.model_dump() for stage in plan("dpo-paper-hh.yaml").stages}
    assert stages["dpo"]["model"] == "runs/dpo-paper-hh/sft/merged_model"
    wanted = {
        **{"lora": True, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.1, "beta": 0.2, "learning_rate": 1e-5},
        **{"max_length": 512, "max_prompt_length": 358, "num_train_epochs": 1},
    }
    assert {name: stages["dpo"][name] for name in wanted} == wanted
    assert stages["temperatures"]["temperatures"] == (0.25, 0.5, 0.75, 1.0)
    assert stages["steps"]["temperatures"] == (0.7, 1.0)
    assert stages["steps"]["judge"] == ("openai:gpt-4o",)
    assert stages["steps"]["opponent"] == "chosen"


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sft.yaml").write_text(
        f"stages: {{sft: {{run: train sft, model: tiny, train_data: '{TRAIN}', max_steps: 4, save_steps: 1, "
        "per_device_train_batch_size: 2, report_to: none, logging_steps: 1}}",
        encoding="utf-8",
    )
    steps: list[int] = []

    def stopping(*given: Any, **named: Any) -> Iterator[StepReport]:
        for report in train(*given, **named):
            steps.append(report.step)
            if steps == [1, 2, 3]:
                raise KeyboardInterrupt
            yield report

    monkeypatch.setattr("preflab.training.fit.train", stopping)
    monkeypatch.setattr("preflab.experiment.report.report_experiment", lambda folder: folder / "report.html")
    with pytest.raises(KeyboardInterrupt):
        run_experiment(RunSettings(experiment=Path("sft.yaml")))
    run_experiment(RunSettings(experiment=Path("sft.yaml")))
    assert steps == [1, 2, 3, 3, 4]


def test_no_model_of_a_stage_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("two.yaml").write_text(
        f"settings: {{train_data: '{TRAIN}', lora: true, max_steps: 1, report_to: none, save_strategy: 'no'}}\n"
        "stages: {sft: {run: train sft, model: tiny}, dpo: {run: train dpo, model: '${sft}'}}",
        encoding="utf-8",
    )
    monkeypatch.setattr("preflab.experiment.report.report_experiment", lambda folder: folder / "report.html")
    before = _modules()
    run_experiment(RunSettings(experiment=Path("two.yaml")))
    assert [type(one) for one in _modules() if not any(one is other for other in before)] == []


def _modules() -> list[nn.Module]:
    """All that are in memory, also those that nothing refers to any more."""
    return [found for found in gc.get_objects() if issubclass(type(found), nn.Module)]


def test_the_experiment_of_the_documentation_is_one() -> None:
    page = (SHIPPED.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    Path("example.yaml").write_text(example, encoding="utf-8")
    stages = {stage.name: stage for stage in read_plan(Path("example.yaml"), ["dpo.label_smoothing=0.1"]).stages}
    assert list(stages) == ["sft", "reward", "dpo-beta-0.05", "dpo-beta-0.1", "dpo-beta-0.5", "compare"]
    named = stages["compare"].settings.model_dump()["models"]
    assert named[2] == "dpo-beta-0.05=runs/strengths/dpo-beta-0.05/model"
    assert all(f"`{command}" in page for command in {name.split()[0] for name in stage_commands()})


def test_every_objective_is_a_stage() -> None:
    from preflab.objectives import OBJECTIVES

    assert {f"train {name}" for name in OBJECTIVES} <= set(stage_commands())
