"""An estimate beside the run itself: the same steps, the same tokens, and as many read without gradients."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import run, settings, write_model

from preflab.core.durable import read_metrics
from preflab.experiment import training
from preflab.experiment.lookup import Lookup, Notes
from preflab.experiment.plan import Plan, PlannedStage
from preflab.experiment.training import course_of, training_need
from preflab.experiment.work import Tokens
from preflab.model.responses import ResponseLogps, ResponseRewards

# Uneven on purpose: epochs that end within a step, rows that are drawn and split, evaluations that fall on few steps.
UNEVEN: dict[str, Any] = {
    "train_data": ("sandbox:preferences?rows=60&seed=1",),
    "eval_data": (),
    "max_steps": -1,
    "num_train_epochs": 1.5,
    "max_train_samples": 45,
    "train_split_ratio": 0.7,
    "gradient_accumulation_steps": 2,
    "per_device_eval_batch_size": 3,
    "save_strategy": "no",
    "seed": 5,
}
BUDGET: dict[str, Any] = {"per_device_train_batch_size": 1, "max_tokens_per_batch": 300}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    """Single responses, most of them labelled, some wanted."""
    path = tmp_path / "labelled.jsonl"
    rows = [{"prompt": f"name colour {row}", "completion": "red " * (1 + row % 7)} for row in range(30)]
    labels = [{} if row % 10 == 9 else {"label": row % 3 > 0} for row in range(30)]
    path.write_text("".join(json.dumps({**row, **label}) + "\n" for row, label in zip(rows, labels, strict=True)))
    return str(path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Tokens that go through a model from here on: "learnt", and "read" without gradients."""
    counts: Counter[str] = Counter()
    for kind in (ResponseLogps, ResponseRewards):

        def counting(self: Any, batch: Any, *, original: Any = kind.forward) -> Any:
            counts["learnt" if torch.is_grad_enabled() else "read"] += len(batch.input_ids)
            return original(self, batch)

        monkeypatch.setattr(kind, "forward", counting)
    return counts


def check(name: str, model: Path, folder: Path, read: Counter[str], patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Run it, and compare."""
    chosen = settings(name, model, folder / "run", **{**UNEVEN, **changes})
    stage = PlannedStage("it", "it", f"train {name}", chosen, folder / "run", (), {})
    lookup = Lookup(Plan("plan", "Plan", "", folder, (stage,)))
    without_gradients: list[Tokens] = []
    patch.setattr(training, "forward_seconds", lambda _, tokens, __: without_gradients.append(tokens) or 0.0)
    need, steps = training_need(stage, lookup), course_of(stage, lookup, Notes()).steps
    run(name, model, folder / "run", **{**UNEVEN, **changes})
    last = [row for row in read_metrics(folder / "run") if "num_tokens" in row][-1]
    assert (need.tokens, steps) == (last["num_tokens"], last["step"])
    assert read["learnt"] == last["num_tokens"]
    assert without_gradients[0].total == pytest.approx(read["read"], rel=0.05)


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "simpo", "kto"])
@pytest.mark.parametrize("batches", [{}, BUDGET], ids=["rows", "tokens"])
def test_an_estimate_is_what_the_run_takes(
    name: str, batches: dict[str, Any], tiny: Path, tmp_path: Path, read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, tiny, tmp_path, read, monkeypatch, **batches)


def test_a_term_with_a_reference_needs_it_read(
    tiny: Path, tmp_path: Path, read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check("simpo", tiny, tmp_path, read, monkeypatch, mix=("dpo?weight=0.5",))


@pytest.mark.parametrize("name", ["sft", "kto"])
def test_rows_that_do_not_serve_a_recipe_are_left_out(
    name: str, tiny: Path, labelled: str, tmp_path: Path, read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, tiny, tmp_path, read, monkeypatch, train_data=(labelled,), max_train_samples=None)
