"""Trainings from data to folders, on the sandbox's model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from machines import needs_bf16
from safetensors.torch import load_file
from tiny_runs import HELD_OUT, TRAIN, history, run, settings, steer, weights, write_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from preflab.core.durable import read_metrics
from preflab.core.records import UserError
from preflab.data.splits import load_splits, load_template
from preflab.training.checkpoint import Checkpoints, Progress
from preflab.training.fit import _more_is_better, _start_trackers, adamw
from preflab.training.rows import RankedRows
from preflab.training.stage import TrainResult

pytestmark = pytest.mark.slow

LN_2 = math.log(2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def tokenized(side: str, model: Path, **changes: Any) -> list[Any]:
    chosen = settings("dpo", model, Path("unused"), **changes)
    splits = load_splits(chosen, load_template(chosen), need="rankings", seed=chosen.seed)
    rows = splits.training if side == "training" else splits.held_out
    assert rows is not None
    return list(rows)


# ---- what each command leaves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_run_learns_and_leaves_a_model_that_transformers_loads(
    kind: str, lora: bool, tiny: Path, tmp_path: Path
) -> None:
    changes = {"max_steps": 15, "learning_rate": 3e-3, "lora": lora}
    result = run(kind, tiny, tmp_path / "run", **changes)
    losses = history(tmp_path / "run", "loss")
    assert np.mean(losses[-3:]) < 0.97 * losses[0]
    assert result.model == tmp_path / "run" / ("merged_model" if lora else "model")
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").exists() == lora
    loader = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    model = loader.from_pretrained(result.model)
    assert model.dtype == torch.float32
    assert AutoTokenizer.from_pretrained(result.model).chat_template
    assert result.metrics["loss"] == losses[-1]
    if kind != "reward":
        assert model.generation_config.eos_token_id == [AutoTokenizer.from_pretrained(tiny).eos_token_id]


def test_what_a_run_writes(tiny: Path, tmp_path: Path) -> None:
    result = run("dpo", tiny, tmp_path / "run", draw=True, report_to=("tensorboard",))
    folder = tmp_path / "run"
    assert isinstance(result, TrainResult)
    wanted = {"config.yaml", "manifest.json", "metrics.jsonl", "training_history.json", "training_curves.png"}
    assert wanted | {"model", "checkpoints", "stage.json", "result.json"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "training_history.json").read_text()) == read_metrics(folder)
    assert (folder / "training_curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(folder.rglob("events.out.tfevents*")), "a TensorBoard file"


def test_evaluation_comes_before_the_first_step_and_at_the_end(tiny: Path, tmp_path: Path) -> None:
    run("reward", tiny, tmp_path / "run", max_steps=5, eval_steps=2)
    evaluated = [int(row["step"]) for row in read_metrics(tmp_path / "run") if "eval_loss" in row]
    assert evaluated == [0, 2, 4, 5]


def test_evaluation_by_epoch(tiny: Path, tmp_path: Path) -> None:
    changes = {"max_steps": -1, "num_train_epochs": 2.0, "eval_strategy": "epoch", "save_strategy": "epoch"}
    run("reward", tiny, tmp_path / "run", **changes)
    rows = [row for row in read_metrics(tmp_path / "run") if "eval_loss" in row]
    assert [(row["step"], row["epoch"]) for row in rows] == [(0, 0), (5, 1), (10, 2)]  # 20 rows by fours
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005"]


def test_evaluation_by_epoch_under_a_token_budget(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs then differ in length, and yet each is evaluated when all of its rows have been seen."""
    seen: list[int] = []
    counts: list[int] = []
    original = RankedRows.batch

    def watched(self: RankedRows, indices: Any) -> Any:
        if torch.is_grad_enabled():
            seen.extend(indices.tolist())
        return original(self, indices)

    monkeypatch.setattr(RankedRows, "batch", watched)
    monkeypatch.setattr("preflab.data.batches.BUCKET", 2)  # so that few rows make several buckets
    original_save = Checkpoints.save

    def counted(self: Checkpoints, progress: Progress) -> Path:
        counts.append(len(seen))
        return original_save(self, progress)

    monkeypatch.setattr(Checkpoints, "save", counted)
    changes = {"max_steps": -1, "num_train_epochs": 4.0, "eval_strategy": "epoch", "save_strategy": "epoch", "seed": 1}
    run("reward", tiny, tmp_path / "run", max_tokens_per_batch=240, **changes)
    rows = [row for row in read_metrics(tmp_path / "run") if "eval_loss" in row]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert len(set(np.diff([row["step"] for row in rows]))) > 1, "epochs of different lengths"
    assert counts == [20, 40, 60]


# ---- losses and metrics --------------------------------------------------------------------------------------------


def test_dpo_starts_at_ln_2(tiny: Path, tmp_path: Path) -> None:
    run("dpo", tiny, tmp_path / "run", bf16=False)
    for name in ("loss", "eval_loss"):
        assert history(tmp_path / "run", name)[0] == pytest.approx(LN_2, abs=1e-6)
    assert history(tmp_path / "run", "rewards/margins")[0] == pytest.approx(0, abs=1e-4)
    for name in ("rewards/accuracies", "eval_rewards/accuracies"):
        assert history(tmp_path / "run", name)[0] == 0.5, "all ties, and a tie is half"


HALVES: dict[str, dict[str, Any]] = {
    "arithmetic": {"bf16": True},
    "weights": {"bf16": False, "dtype": "bfloat16"},
    "LoRA's base": {"bf16": True, "dtype": "bfloat16", "lora": True},
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("kind", ["dpo", "kto", "ipo"])
def test_bfloat16_starts_where_policy_and_reference_agree(
    kind: str, half: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    """To the last bit: the reference is computed in the batches that training and evaluation use."""
    needs_bf16()
    cut = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3, "max_steps": 2}
    run(kind, tiny, tmp_path / "run", **half, **cut)
    found = [history(tmp_path / "run", f"{side}loss")[0] for side in ("", "eval_")]
    assert found == pytest.approx([{"dpo": LN_2, "kto": 0.5, "ipo": 25.0}[kind]] * 2, abs=1e-6)
    for side in ("", "eval_"):
        assert history(tmp_path / "run", f"{side}rewards/accuracies")[0] == 0.5
        assert history(tmp_path / "run", f"{side}rewards/chosen")[0] == 0
        assert history(tmp_path / "run", f"{side}logps/chosen_change")[0] == 0


def test_label_smoothing_and_sft_weight_reach_the_loss(tiny: Path, tmp_path: Path) -> None:
    """At the first step both rewards are zero, so that the SFT term is all that ln 2 does not explain."""
    run("dpo", tiny, tmp_path / "plain", max_steps=5)
    run("dpo", tiny, tmp_path / "smooth", max_steps=5, label_smoothing=0.3)
    run("dpo", tiny, tmp_path / "sft", max_steps=5, sft_weight=0.5)
    plain, smooth, sft = (history(tmp_path / name, "loss") for name in ("plain", "smooth", "sft"))
    assert smooth[0] == pytest.approx(LN_2, abs=1e-6)
    assert smooth[3] != plain[3]
    margins = history(tmp_path / "smooth", "rewards/margins")
    assert any(margin != 0 for margin in margins)
    # An untrained model of V tokens gives each about 1/V.
    vocabulary = len(AutoTokenizer.from_pretrained(tiny))
    assert sft[0] - LN_2 == pytest.approx(0.5 * math.log(vocabulary), rel=0.05)


def test_reward_figures_are_those_of_the_rows(tiny: Path, tmp_path: Path) -> None:
    """Accuracy, mean and standard deviation by numpy, from the file of scores, before training and after."""
    run("reward", tiny, tmp_path / "run", center_rewards_coefficient=0.1)
    for file, index in (("reward_model_eval_results-beforetrain.json", 0), ("reward_model_eval_results.json", -1)):
        rows = json.loads((tmp_path / "run" / file).read_text())
        chosen, rejected = (np.array([row[f"score_{name}"] for row in rows]) for name in ("chosen", "rejected"))
        assert len(rows) == 9
        pooled = np.concatenate([chosen, rejected])
        expected = {
            "accuracy": np.mean(chosen > rejected),
            "margin": np.mean(chosen - rejected),
            "reward_mean": np.mean(pooled),
            "reward_std": np.std(pooled),
            "loss": np.mean(np.log1p(np.exp(rejected - chosen))) + 0.1 * np.mean(pooled**2),
        }
        found = {name: history(tmp_path / "run", f"eval_{name}")[index] for name in expected}
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_evaluation_does_not_depend_on_its_batch_size(kind: str, tiny: Path, tmp_path: Path) -> None:
    for name, changes in {"one": {"per_device_eval_batch_size": 1}, "all": {"per_device_eval_batch_size": 99}}.items():
        run(kind, tiny, tmp_path / name, max_steps=3, **changes)
    one, every = ([r for r in read_metrics(tmp_path / name) if "eval_loss" in r] for name in ("one", "all"))
    for ours, theirs in zip(one, every, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_accumulation_changes_neither_metrics_nor_weights(kind: str, tiny: Path, tmp_path: Path) -> None:
    run(kind, tiny, tmp_path / "8x1", per_device_train_batch_size=8, max_steps=5)
    run(kind, tiny, tmp_path / "1x8", per_device_train_batch_size=1, gradient_accumulation_steps=8, max_steps=5)
    for ours, theirs in zip(read_metrics(tmp_path / "1x8"), read_metrics(tmp_path / "8x1"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    one, other = weights(tmp_path / "1x8" / "model"), weights(tmp_path / "8x1" / "model")
    for name, tensor in other.items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_gradient_checkpointing_changes_nothing(kind: str, tiny: Path, tmp_path: Path) -> None:
    run(kind, tiny, tmp_path / "plain", max_steps=3)
    run(kind, tiny, tmp_path / "less-memory", max_steps=3, gradient_checkpointing=True)
    for ours, theirs in zip(read_metrics(tmp_path / "less-memory"), read_metrics(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_gradient_checkpointing_under_lora(tiny: Path, tmp_path: Path) -> None:
    changes = {"lora": True, "lora_dropout": 0.0, "max_steps": 4, "learning_rate": 1e-2}
    run("dpo", tiny, tmp_path / "plain", **changes)
    run("dpo", tiny, tmp_path / "less-memory", gradient_checkpointing=True, **changes)
    losses = history(tmp_path / "plain", "loss")
    assert history(tmp_path / "less-memory", "loss") == pytest.approx(losses, rel=1e-4)
    assert losses[-1] != losses[0], "the adapter gets gradients"


def test_a_token_budget(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = RankedRows.batch

    def watched(self: RankedRows, indices: Any) -> Any:
        batch, reference = original(self, indices)
        seen.append(len(batch.input_ids))
        return batch, reference

    monkeypatch.setattr(RankedRows, "batch", watched)
    run("dpo", tiny, tmp_path / "run", max_tokens_per_batch=200, max_steps=-1, eval_data=())
    lengths = [len(row.prompt_ids) + sum(map(len, row.response_ids)) for row in tokenized("training", tiny)]
    assert max(lengths) <= 200 < sum(lengths) / 2
    assert max(seen) <= 200
    assert len([size for size in seen if size > 100]) > 1


def test_rankings_of_many_responses(tiny: Path, tmp_path: Path) -> None:
    source = "sandbox:preferences?rows=12&seed=3&responses=4&style=RANKED"
    changes = {"train_data": (source,), "eval_data": (f"{source}&split=test",)}
    assert {len(row.response_ids) for row in tokenized("training", tiny, **changes)} == {4}
    for kind in ("dpo", "reward"):
        run(kind, tiny, tmp_path / kind, max_steps=4, **changes)
    assert history(tmp_path / "dpo", "loss")[0] == pytest.approx(LN_2, abs=1e-6)
    scores = history(tmp_path / "reward", "eval_accuracy")
    assert all(round(score * 12 * 6, 6).is_integer() for score in scores), "six pairs of each of twelve comparisons"


# ---- data ----------------------------------------------------------------------------------------------------------


def test_a_split_by_ratio_shares_no_prompt(tiny: Path) -> None:
    changes = {"train_data": ("sandbox:preferences?rows=200&seed=2",), "eval_data": (), "train_split_ratio": 0.8}
    training, held_out = (tokenized(side, tiny, **changes) for side in ("training", "held-out"))
    assert len(training) + len(held_out) == 200
    assert 140 < len(training) < 180
    assert not {row.prompt_ids for row in training} & {row.prompt_ids for row in held_out}
    assert {row.row for row in training} | {row.row for row in held_out} == set(range(1, 201))
    other = tokenized("training", tiny, **changes, seed=7)
    assert {row.row for row in other} != {row.row for row in training}, "the seed decides"


def test_unpaired_rows_are_dropped_with_their_reason(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "unpaired.jsonl"
    rows = [{"prompt": "Hello", "completion": f"Answer {number}", "label": number % 2 == 0} for number in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"no row can be used\n(?:.*\n)?.*0 used, 3 dropped\n +no ranking: 3 \(row 1, 2, 3\)"
    ):
        run("dpo", tiny, tmp_path / "none", train_data=(str(path),))
    run("dpo", tiny, tmp_path / "some", train_data=(TRAIN, str(path)), max_steps=1)
    said = capsys.readouterr().err
    assert "training rows: 20 used, 3 dropped" in said
    assert "no ranking: 3" in said


def test_sft_takes_the_best_response_and_no_unwanted_one(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    rows = [{"prompt": "Hello", "completion": f"Answer {number}", "label": number != 1} for number in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run("sft", tiny, tmp_path / "run", train_data=(str(path),), eval_data=(), max_steps=1)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["train_data"]
    chosen = settings("sft", tiny, tmp_path, train_data=(str(path),), eval_data=())
    splits = load_splits(chosen, load_template(chosen), need="demonstrations", seed=0)
    assert [row.row for row in splits.training] == [1, 3]
    assert {name: reason["count"] for name, reason in splits.training.dropped.items()} == {"unwanted response": 1}


def test_a_seeded_sample(tiny: Path) -> None:
    def sample(seed: int) -> list[int]:
        return [row.row for row in tokenized("training", tiny, max_train_samples=5, seed=seed)]

    assert sample(1) == sample(1) != sample(2)
    assert len(sample(1)) == 5
    assert sample(1) != [1, 2, 3, 4, 5] or sample(2) != [1, 2, 3, 4, 5], "not the first rows"


# ---- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "values"), [("eval_loss", (9, 5, 3, 4, 6, 3, 8, 7)), ("eval_accuracy", (0, 5, 7, 6, 4, 7, 2, 3))]
)
def test_the_newest_checkpoints_are_kept_and_the_best_besides(
    metric: str, values: tuple[float, ...], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best is the first of equals; of a loss the least, of an accuracy the most."""
    steer(monkeypatch, metric, *values)
    changes = {"eval_steps": 1, "save_steps": 1, "max_steps": 7, "metric_for_best_model": metric}
    result = run("reward", tiny, tmp_path / "run", load_best_model_at_end=True, **changes)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000002", "step-00000005", "step-00000006"]
    final = weights(tmp_path / "run" / "model")
    best, other = (load_file(checkpoints / f"step-0000000{step}" / "model.safetensors") for step in (2, 5))
    assert all(torch.equal(tensor, best[f"model.{name}"]) for name, tensor in final.items())
    assert not all(torch.equal(tensor, other[f"model.{name}"]) for name, tensor in final.items())
    rows = json.loads((tmp_path / "run" / "reward_model_eval_results.json").read_text())
    margin = np.mean([row["score_chosen"] - row["score_rejected"] for row in rows])
    assert margin == pytest.approx(history(tmp_path / "run", "eval_margin")[2], rel=1e-5), "scores of the kept model"
    kept = {name: value for row in read_metrics(tmp_path / "run")[: 2 + 3] for name, value in row.items()}
    assert kept["step"] == 2
    assert result.metrics == kept, "and its metrics, not the last ones"


@pytest.mark.parametrize("metric", ["eval_loss", "eval_reward_std", "eval_logps/rejected"])
def test_of_some_metrics_less_is_better(metric: str, tiny: Path) -> None:
    assert not _more_is_better(settings("dpo", tiny, Path("run"), metric_for_best_model=metric))
    assert _more_is_better(settings("dpo", tiny, Path("run"), metric_for_best_model=metric, greater_is_better=True))


@pytest.mark.parametrize("metric", ["eval_accuracy", "eval_margin", "eval_rewards/accuracies", "eval_rewards/margins"])
def test_of_others_more_is_better(metric: str, tiny: Path) -> None:
    assert _more_is_better(settings("dpo", tiny, Path("run"), metric_for_best_model=metric))
    assert not _more_is_better(
        settings("dpo", tiny, Path("run"), metric_for_best_model=metric, greater_is_better=False)
    )


def test_early_stopping(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patience is counted from the best: what is better than the one before, but not than that, is no progress."""
    steer(monkeypatch, "eval_loss", 9, 5, 3, 4, 6, 3.5, 1, 0)
    run("reward", tiny, tmp_path / "run", early_stopping_patience=3, eval_steps=1, max_steps=7)
    assert history(tmp_path / "run", "eval_loss") == [9, 5, 3, 4, 6, 3.5]
    assert len(history(tmp_path / "run", "loss")) == 5
    assert "stopped early: no evaluation since step 2 was better" in capsys.readouterr().err


def test_an_evaluation_that_is_no_number_is_not_the_best() -> None:
    first = Progress(step=1).evaluated(float("nan"), greater_is_better=False)
    assert (first.best_step, first.evaluations_since_best) == (None, 1)
    assert Progress(step=2).evaluated(5.0, greater_is_better=False).best_step == 2
    best = Progress(step=3, best_step=2, best_value=5.0).evaluated(float("nan"), greater_is_better=True)
    assert (best.best_step, best.best_value) == (2, 5.0)


def test_frozen_weights_are_not_in_a_checkpoint(tiny: Path, tmp_path: Path) -> None:
    run("dpo", tiny, tmp_path / "run", lora=True)
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000004" / "model.safetensors")
    assert saved
    assert all("lora_" in name for name in saved)


def test_held_out_rows_come_from_the_data_named(tiny: Path) -> None:
    held_out = tokenized("held-out", tiny, eval_data=(HELD_OUT,))
    assert len(held_out) == 9


def test_tokens_are_counted(tiny: Path, tmp_path: Path) -> None:
    run("dpo", tiny, tmp_path / "run", max_steps=-1, eval_data=())
    lengths = [len(row.prompt_ids) + sum(map(len, row.response_ids)) for row in tokenized("training", tiny)]
    counts = history(tmp_path / "run", "num_tokens")
    assert counts == sorted(counts)
    assert counts[-1] == sum(lengths)


def test_trackers_are_told_no_secrets(tiny: Path, tmp_path: Path) -> None:
    told: dict[str, str] = {}
    accelerator: Any = SimpleNamespace(init_trackers=lambda _name, config, **_: told.update(config))
    _start_trackers(accelerator, settings("dpo", tiny, tmp_path, eval_data=("https://me:hunter2@host/rows.jsonl",)))
    assert told["learning_rate"] == "0.001"
    assert "host/rows.jsonl" in told["eval_data"]
    assert "hunter2" not in str(told)


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("cuda", True), ("mps", False), ("xla", False)])
def test_the_optimizer_is_fused_where_its_parameters_will_be(
    device: str, fused: bool, tiny: Path, tmp_path: Path
) -> None:
    optimizer = adamw(torch.nn.Linear(2, 2), settings("dpo", tiny, tmp_path), torch.device(device))
    assert optimizer.defaults["fused"] == fused
