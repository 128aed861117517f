"""What a training would take beside the run itself: the same steps and tokens, and a first step of which nothing is
kept.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_runs import COMMANDS, settings, write_model

from preflab.core.durable import read_metrics
from preflab.core.records import Amount, UserError
from preflab.model.responses import ResponseLogps, ResponseRewards
from preflab.training import amount
from preflab.training.amount import training_amount

pytestmark = pytest.mark.slow

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
def learnt(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Tokens that go through a model with gradients ("learnt") and without ("read") from here on."""
    counts: Counter[str] = Counter()
    for kind in (ResponseLogps, ResponseRewards):

        def counting(self: Any, batch: Any, *, original: Any = kind.forward) -> Any:
            counts["learnt" if torch.is_grad_enabled() else "read"] += len(batch.input_ids)
            return original(self, batch)

        monkeypatch.setattr(kind, "forward", counting)
    return counts


def found(name: str, chosen: Any, *, measure: bool = False) -> Amount:
    return training_amount(COMMANDS[name][1], chosen, measure=measure)


def check(name: str, model: Path, folder: Path, **changes: Any) -> None:
    """Count it, run it, and compare."""
    chosen = {**UNEVEN, **changes}
    counted = found(name, settings(name, model, folder / "run", **chosen))
    assert not (folder / "run").exists()
    tiny_runs.run(name, model, folder / "run", **chosen)
    last = [row for row in read_metrics(folder / "run") if "num_tokens" in row][-1]
    assert counted == Amount(int(last["step"]), int(last["num_tokens"]))


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "kto"])
@pytest.mark.parametrize("batches", [{}, BUDGET], ids=["rows", "tokens"])
def test_what_is_counted_is_what_the_run_takes(name: str, batches: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    check(name, tiny, tmp_path, **batches)


@pytest.mark.parametrize("name", ["sft", "kto"])
def test_rows_that_do_not_serve_a_training_are_left_out(name: str, tiny: Path, labelled: str, tmp_path: Path) -> None:
    check(name, tiny, tmp_path, train_data=(labelled,), max_train_samples=None)


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "simpo", "kto"])
def test_the_first_step_is_taken_and_nothing_of_it_is_kept(
    name: str, tiny: Path, tmp_path: Path, learnt: Counter[str]
) -> None:
    chosen = settings(name, tiny, tmp_path / "run", **UNEVEN)
    measured = found(name, chosen, measure=True)
    assert not (tmp_path / "run").exists()
    assert (measured.seconds or 0) > 0
    assert (measured.memory or 0) > 10**8, "of the whole process, with its libraries"
    step, read = learnt["learnt"], learnt["read"]
    assert (read > 0) == (name in ("dpo", "kto")), "a reference is read of this step alone"
    assert read <= 2 * 3 * step
    tiny_runs.run(name, tiny, tmp_path / "run", **UNEVEN)
    first = next(row for row in read_metrics(tmp_path / "run") if "num_tokens" in row)
    assert step == first["num_tokens"]
    assert Amount(measured.steps, measured.tokens) == found(name, chosen)


def test_what_a_dry_run_would_have_to_fetch_or_run_is_not_counted(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lies on a hub; its rows are not downloaded"):
        found("dpo", settings("dpo", tiny, tmp_path / "run", train_data=("Anthropic/hh-rlhf:train",)))
    mine = tmp_path / "mine.py"
    mine.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\ndef f(row): return row\n")
    with pytest.raises(UserError, match="runs no function of yours"):
        found("dpo", settings("dpo", tiny, tmp_path / "run", format=str(mine)))
    assert not (tmp_path / "ran").exists()


def test_a_first_step_without_room_says_so(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(amount, "train", full)
    with pytest.raises(UserError, match=r"its first step runs out of memory \(no room\)"):
        found("sft", settings("sft", tiny, tmp_path / "run"), measure=True)
