"""What an experiment would take, before anything runs: tokens from the data, sizes from configurations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rich.console import Console
from transformers import AutoModelForCausalLM

from preflab.data.sources import is_on_hub
from preflab.data.splits import load_splits, load_template
from preflab.experiment import speed
from preflab.experiment.estimate import Estimate, as_table, estimate
from preflab.experiment.plan import Plan, PlannedStage
from preflab.experiment.sizes import model_size
from preflab.experiment.speed import Machine
from preflab.experiment.work import Need
from preflab.judging.settings import JudgeSettings
from preflab.model.adapters import add_lora
from preflab.model.load import load_model
from preflab.sample.settings import GenerateSettings, ScoreSettings
from preflab.sandbox.settings import SandboxSettings
from preflab.sandbox.tiny import build_tiny_model
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.frontier.settings import FrontierSettings
from preflab.studies.grid.settings import GridSettings
from preflab.training.preference_settings import DPOSettings, SimPOSettings
from preflab.training.settings import RewardSettings, SFTSettings

PAIRS = "sandbox:preferences?rows=40&seed=3"
TEST = "sandbox:preferences?rows=20&split=test&seed=3"


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of a known speed, so that times can be compared."""
    monkeypatch.setattr(speed, "_flops", lambda *_: 1e10)
    monkeypatch.setattr(speed, "_bandwidth", lambda *_: 1e10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


class Planned:
    """A plan that is put together stage by stage in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: list[PlannedStage] = []

    def add(self, name: str, command: str, settings: Any) -> Path:
        """The stage's folder."""
        place = self.folder / name
        self.stages.append(PlannedStage(name, name, command, settings, place, (), {}))
        return place

    def estimates(self, **options: Any) -> dict[str, Estimate]:
        plan = Plan("plan", "Plan", "", self.folder, tuple(self.stages))
        return {one.stage: one for one in estimate(plan, **options)}


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    return Planned(tmp_path / "out")


def dpo(model: Path | str, **changes: Any) -> DPOSettings:
    return DPOSettings(**{"model": str(model), "train_data": (PAIRS,), "per_device_train_batch_size": 8, **changes})


def known(value: float | None) -> float:
    assert value is not None
    return value


# ---- tokens ----


def test_it_is_told_how_tokens_were_counted(tiny: Path, planned: Planned) -> None:
    planned.add("dpo", "train dpo", dpo(tiny))
    assert planned.estimates()["dpo"].found == "tokens of 40 rows"


def test_many_rows_are_taken_to_be_like_a_sample(tiny: Path, planned: Planned) -> None:
    planned.add("many", "train dpo", dpo(tiny, train_data=("sandbox:preferences?rows=450&seed=3",)))
    settings = dpo(tiny, train_data=("sandbox:preferences?rows=450&seed=3",))
    rows = load_splits(settings, load_template(settings), need="rankings", seed=0).training
    found = planned.estimates()["many"]
    assert found.found == "tokens of 200 rows"
    assert known(found.tokens) == pytest.approx(rows.prompt_lengths.sum() + rows.response_lengths.sum(), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"num_train_epochs": 3.0}, 3),
        ({"max_train_samples": 20}, 1 / 2),
        ({"max_steps": 2}, 2 * 8 / 40),
        ({"max_steps": 2, "gradient_accumulation_steps": 2}, 2 * 16 / 40),
        ({"train_split_ratio": 0.75}, 3 / 4),
        ({"train_data": (f"{PAIRS}[:25%]",)}, 1 / 4),
    ],
)
def test_what_limits_training_is_heeded(tiny: Path, planned: Planned, changes: dict[str, Any], factor: float) -> None:
    planned.add("whole", "train dpo", dpo(tiny))
    planned.add("part", "train dpo", dpo(tiny, **changes))
    found = planned.estimates()
    assert known(found["part"].tokens) / known(found["whole"].tokens) == pytest.approx(factor, rel=0.1)


def test_without_a_tokenizer_characters_are_counted(planned: Planned, tmp_path: Path) -> None:
    rows = [{"prompt": "p" * 40, "chosen": "c" * 8, "rejected": "r" * 16}] * 10
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    planned.add("dpo", "train dpo", dpo("no-such/model", train_data=(str(data),)))
    found = planned.estimates()["dpo"]
    assert found.tokens == 10 * (10 + 2 + 4)
    assert found.seconds is None
    assert found.memory is None
    assert "4 characters a token" in found.found
    assert "no-such/model" in found.found


def test_data_of_a_hub_is_unknown_and_never_zero(tiny: Path, planned: Planned) -> None:
    assert is_on_hub("owner/name@config:train[:100]")
    assert not is_on_hub(PAIRS)
    assert not is_on_hub(str(tiny))
    planned.add("dpo", "train dpo", dpo(tiny, train_data=("Anthropic/hh-rlhf:train",)))
    found = planned.estimates()["dpo"]
    assert (found.tokens, found.seconds) == (None, None)
    assert "lies on a hub" in found.found
    assert "unknown" in shown([found])


# ---- stages that others feed ----


def test_a_stage_has_the_size_and_the_tokenizer_of_the_model_that_its_chain_begins_with(
    tiny: Path, planned: Planned
) -> None:
    sft = planned.add("sft", "train sft", SFTSettings(model=str(tiny), train_data=(PAIRS,)))
    planned.add("first", "train dpo", dpo(tiny))
    planned.add("second", "train dpo", dpo(sft / "model"))
    found = planned.estimates()
    assert found["second"] == Estimate(**{**vars_of(found["first"]), "stage": "second"})


def vars_of(one: Estimate) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Estimate.__dataclass_fields__}


def test_what_a_sandbox_stage_will_write_is_known(tiny: Path, planned: Planned) -> None:
    sandbox = planned.add(
        "sandbox", "sandbox", SandboxSettings(output_dir=planned.folder, rows=40, eval_rows=20, seed=3)
    )
    data = (str(sandbox / "homework-train.jsonl"),)
    planned.add("here", "train dpo", dpo(tiny))
    planned.add("there", "train dpo", dpo(sandbox / "model", train_data=data))
    found = planned.estimates()
    assert found["there"].tokens == found["here"].tokens
    assert found["sandbox"].tokens == 0


def test_responses_that_are_yet_to_be_generated_are_scored_and_judged(tiny: Path, planned: Planned) -> None:
    asked = {"prompts": (TEST,), "max_new_tokens": 30, "num_return_sequences": 2}
    made = planned.add("generate", "generate", GenerateSettings(model=str(tiny), **asked)) / "responses.jsonl"
    planned.add("score", "score", ScoreSettings(data=(str(made),), reward_model=str(tiny)))
    judged = JudgeSettings(responses=str(made), opponent="chosen", prompts=(TEST,), judge="openai:gpt-4o")
    planned.add("judge", "judge", judged)
    found = planned.estimates()
    prompts = known(found["generate"].tokens) / (2 * 30)
    assert prompts <= 20
    assert known(found["score"].tokens) > 2 * 30 * prompts
    assert found["judge"].calls == 2 * 2 * prompts  # two samples, both orders


def test_a_done_stage_takes_nothing(tiny: Path, planned: Planned) -> None:
    planned.add("dpo", "train dpo", dpo(tiny))
    found = planned.estimates(done={"dpo"})["dpo"]
    assert (found.tokens, found.seconds, found.memory, found.found) == (0, 0.0, 0, "done")


# ---- studies ----


def test_a_grid_has_a_cell_for_each_model_temperature_and_checkpoint(tiny: Path, planned: Planned) -> None:
    asked: dict[str, Any] = {"prompts": (TEST,), "max_new_tokens": 10, "judge": ("openai:gpt-4o",)}
    run = planned.add("dpo", "train dpo", dpo(tiny, save_steps=2, save_total_limit=10))  # 5 steps: 2, 4, and the last
    planned.add("one", "grid", GridSettings(models=(str(tiny),), temperatures=(1.0,), **asked))
    planned.add("grid", "grid", GridSettings(models=(f"dpo={run}/checkpoints",), temperatures=(0.0, 0.7), **asked))
    found = planned.estimates()
    assert known(found["grid"].tokens) == pytest.approx(6 * known(found["one"].tokens), rel=1e-3)
    assert found["grid"].calls == 6 * found["one"].calls


def test_judges_of_every_kind(tiny: Path, planned: Planned) -> None:
    def compared(*judges: str) -> CompareSettings:
        models = (str(tiny), f"again={tiny}")
        return CompareSettings(models=models, prompts=(TEST,), max_new_tokens=10, judge=judges)

    for name, judges in {"none": (), "gold": ("gold",), "hf": (f"hf:{tiny}",), "human": ("human",)}.items():
        planned.add(name, "compare", compared(*judges))
    planned.add("openai", "compare", compared("openai:gpt-4o"))
    found = planned.estimates()
    assert known(found["gold"].seconds) == known(found["none"].seconds)
    assert known(found["hf"].seconds) > known(found["none"].seconds)
    assert found["human"].seconds is None
    assert "a person judges" in found["human"].found
    assert found["openai"].calls > 0
    assert {one.calls for name, one in found.items() if name != "openai"} == {0}


def test_a_frontier_counts_every_policy_and_best_of_n(tiny: Path, planned: Planned) -> None:
    def frontier(policies: int, best: int) -> FrontierSettings:
        models = tuple(f"p{number}={tiny}" for number in range(policies))
        common: dict[str, Any] = {"reference": str(tiny), "reward_model": str(tiny), "prompts": (TEST,)}
        return FrontierSettings(models=models, best_of_n=(best,), max_new_tokens=8, **common)

    planned.add("small", "frontier", frontier(1, 2))
    planned.add("policies", "frontier", frontier(3, 2))
    planned.add("best", "frontier", frontier(1, 32))
    found = planned.estimates()
    assert known(found["policies"].seconds) > known(found["small"].seconds)
    assert known(found["best"].seconds) > known(found["small"].seconds)


def test_what_is_unknown_of_one_part_is_unknown_of_the_whole() -> None:
    known_part, unknown = Need(5, 1.0, 100, calls=2, notes=("a",)), Need(None, None, None, calls=1, notes=("a", "b"))
    assert known_part + unknown == Need(None, None, None, calls=3, notes=("a", "b"))
    assert known_part + Need(7, 2.0, 300) == Need(12, 3.0, 300, calls=2, notes=("a",))


# ---- size, time, memory ----


def test_sizes_are_those_of_the_model_itself(tiny: Path) -> None:
    size, model = model_size(str(tiny)), AutoModelForCausalLM.from_pretrained(tiny)
    assert size.total == model.num_parameters()
    assert size.head == model.lm_head.weight.numel()
    assert size.body == size.total - size.head  # tied
    assert size.vocabulary == model.config.vocab_size
    adapted = add_lora(
        load_model(str(tiny), "policy", dtype=torch.float32), "policy", r=4, alpha=8, dropout=0, targets=()
    )
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert 4 * size.linear_width == trained


def test_no_weights_are_read(tiny: Path, planned: Planned, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in tiny.iterdir():
        if path.suffix != ".safetensors":
            (empty / path.name).write_bytes(path.read_bytes())
    planned.add("dpo", "train dpo", dpo(empty))
    assert known(planned.estimates()["dpo"].seconds) > 0


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"num_train_epochs": 4.0}),
        ({}, {"eval_data": (TEST,), "eval_steps": 1}),
        ({"lora": True}, {}),
        ({}, {"gradient_checkpointing": True}),
    ],
)
def test_more_work_takes_more_time(tiny: Path, planned: Planned, less: dict[str, Any], more: dict[str, Any]) -> None:
    planned.add("less", "train dpo", dpo(tiny, **less))
    planned.add("more", "train dpo", dpo(tiny, **more))
    found = planned.estimates()
    assert known(found["less"].seconds) < known(found["more"].seconds)


def test_a_reference_takes_time_and_objectives_without_one_save_it(tiny: Path, planned: Planned) -> None:
    common: dict[str, Any] = {"model": str(tiny), "train_data": (PAIRS,)}
    planned.add("dpo", "train dpo", DPOSettings(**common))
    planned.add("simpo", "train simpo", SimPOSettings(**common))
    planned.add("reward", "train reward", RewardSettings(**common))
    found = planned.estimates()
    assert known(found["reward"].seconds) < known(found["simpo"].seconds) < known(found["dpo"].seconds)


def test_adapters_and_checkpointing_save_memory(tiny: Path, planned: Planned) -> None:
    for name, changes in {"all": {}, "lora": {"lora": True}, "checkpointing": {"gradient_checkpointing": True}}.items():
        planned.add(name, "train dpo", dpo(tiny, per_device_train_batch_size=32, **changes))
    memory = {name: known(one.memory) for name, one in planned.estimates().items()}
    assert memory["lora"] < memory["all"]
    assert memory["checkpointing"] < memory["all"]


def test_speed_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    machine = Machine(torch.device("cpu"), torch.float32)
    assert machine.flops(64, 64, 64) > 1e6
    assert machine.bandwidth() > 1e6
    assert machine.flops(65, 64, 64) == machine.flops(64, 64, 64), "rows are rounded, so that few products are timed"


# ---- the table ----


def shown(estimates: list[Estimate]) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        console.print(as_table(estimates))
    return capture.get()


def test_totals_are_of_what_is_known_and_memory_is_the_peak() -> None:
    rows = [
        Estimate("sft", 2_000_000, 60.0, 3_000_000_000, 0, "tokens of 200 rows"),
        Estimate("judge", 500, 30.0, 1_000_000, 12, "calls of 2 s"),
        Estimate("far", None, None, None, 0, "lies on a hub"),
    ]
    last = shown(rows).strip().splitlines()[-1]
    assert " ".join(last.split()) == "all 2M + unknown 1 min 30 s + unknown 3.0 GB + unknown 12"
    assert "Calls" not in shown(rows[:1])
    assert shown([rows[2]]).strip().splitlines()[-1].split() == ["all", "unknown", "unknown", "unknown"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


def test_a_dry_run_runs_no_function_of_the_file(tiny: Path, planned: Planned, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\ndef f(row): return row\n")
    planned.add("dpo", "train dpo", dpo(tiny, format=str(mine)))
    assert "a dry run runs no function of yours" in planned.estimates()["dpo"].found
    assert not (tmp_path / "ran").exists()
