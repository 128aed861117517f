"""`experiments/family.yaml`: every objective of the table at one budget, through to the frontier and the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, Any

import pytest
from matplotlib.figure import Figure

from preflab.core.rundir import write_jsonl
from preflab.data.sources import open_sources, sample_rows
from preflab.experiment.plan import Plan, read_plan
from preflab.experiment.run import run_experiment
from preflab.experiment.settings import RunSettings
from preflab.objectives import OBJECTIVES
from preflab.studies.frontier.rows import read_frontier

FAMILY = Path(__file__).parents[2] / "experiments" / "family.yaml"
SMALL = (
    *("seeds=[0]", "pool=40", "pairs=8", "prompts=12", "world.eval_rows=20", "base.train_data=sandbox:demonstrations"),
    *("frontier.best_of_n=[2]", "frontier.max_new_tokens=8", "settings.max_steps=1"),
    *(f"{name}.sweep.beta=[0.1]" for name in OBJECTIVES if name != "simpo"),
    "simpo.sweep.learning_rate=[1e-3]",
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(FAMILY, [])


def test_every_objective_takes_part_at_the_same_budget(plan: Plan) -> None:
    policies = [stage for stage in plan.stages if stage.group in OBJECTIVES]
    assert {stage.group for stage in policies} == OBJECTIVES.keys()
    assert all(stage.command == f"train {stage.group}" for stage in policies)
    shared = (
        "model",
        "train_data",
        "max_train_samples",
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
    )
    values = {tuple(str(getattr(stage.settings, name)) for name in shared) for stage in policies}
    assert len(values) == 1
    for objective in OBJECTIVES:
        own = [stage for stage in policies if stage.group == objective]
        swept = {tuple(value for name, value in stage.variant.items() if name != "seed") for stage in own}
        seeds = {stage.variant["seed"] for stage in own}
        assert (len(swept), len(seeds), len(own)) == (4, 3, 12), "as much tuning for the one as for the other"


def test_the_frontier_measures_all_of_them_on_prompts_that_were_not_trained_on(plan: Plan) -> None:
    *_, frontier = plan.stages
    assert frontier.command == "frontier"
    policies = {stage.name for stage in plan.stages if stage.group in OBJECTIVES}
    assert set(frontier.after) == policies | {"sft", "reward", "world"}
    settings = frontier.settings.model_dump()
    assert len(settings["models"]) == len(policies)
    assert all(re.search(r"-test\.jsonl$", prompts) for prompts in settings["prompts"])


def test_the_proxy_is_trained_on_a_sample_of_its_own(plan: Plan, tmp_path: Path) -> None:
    """The sample is drawn by the seed, so a policy of the same seed would see the very same wrong labels."""
    stages = {stage.name: stage for stage in plan.stages}
    reward: Any = stages["reward"].settings
    seeds = {stage.variant["seed"] for stage in plan.stages if stage.group in OBJECTIVES}
    write_jsonl(tmp_path / "pool.jsonl", [{"row": row} for row in range(4000)])
    source = open_sources((str(tmp_path / "pool.jsonl"),))

    def drawn(seed: int) -> set[int]:
        return {number for number, _ in sample_rows(source, reward.max_train_samples, seed)}

    own = drawn(reward.seed)
    assert len(own) == 1000
    assert all(len(own & drawn(seed)) < 300 for seed in seeds)
    assert own == drawn(reward.seed), "it is the seed that draws"


def test_what_is_not_equal_in_the_budget_is_told(plan: Plan) -> None:
    rates = {stage.group for stage in plan.stages if "learning_rate" in stage.variant}
    assert rates == {"simpo"}
    assert "except with SimPO" in plan.description


@pytest.mark.slow
def test_it_runs_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", _save_nothing)
    run_experiment(RunSettings(experiment=FAMILY, assignments=(*SMALL, f"output_dir={tmp_path / 'family'}")))
    found = read_frontier(tmp_path / "family" / "frontier")
    assert {policy.objective for policy in found.policies} == OBJECTIVES.keys()
    assert found.has_gold
    written = {path.name for path in (tmp_path / "family" / "frontier" / "analysis").iterdir()}
    assert written >= {"frontier.png", "overoptimisation.png", "frontier.md"}
    page = (tmp_path / "family" / "report.html").read_text(encoding="utf-8")
    assert "Gold reward against KL from the reference" in page
    assert "This rests on" in page


def _save_nothing(_: Figure, place: Path | IO[str], **__: object) -> None:
    """In place of drawing, which would take most of the time."""
    empty = '<svg viewBox="0 0 1 1"></svg>'
    place.write_text(empty) if isinstance(place, Path) else place.write(empty)
