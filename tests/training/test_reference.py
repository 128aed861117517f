"""Pitfalls 1 and 2: DPO's reference is the model that the run starts from, and nothing moves it."""

from __future__ import annotations

import math
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from machines import needs_bf16
from memory_rows import random_rows
from tiny_models import tiny_model
from tiny_runs import LORA, history, run, settings
from torch import Tensor

from preflab.core.durable import read_metrics
from preflab.core.records import UserError
from preflab.data.splits import load_splits, load_template
from preflab.model.load import load_model
from preflab.model.prefix import prefix_batch
from preflab.model.responses import ResponseLogps
from preflab.objectives import OBJECTIVES, Loss, Objective, PairLogps, dpo
from preflab.training import preferences as preferences_recipe
from preflab.training import reference as reference_recipe
from preflab.training.rows import RankedRows

pytestmark = pytest.mark.slow

LN_2 = math.log(2)


def held_out_logps(model: Path, tiny: Path) -> Tensor:
    """log π of the held-out responses, by a model loaded from its folder."""
    chosen = settings("dpo", tiny, Path("unused"))
    rows = load_splits(chosen, load_template(chosen), need="rankings", seed=0).held_out
    assert rows is not None
    module = ResponseLogps(load_model(str(model), "policy", dtype=torch.float32)).eval()
    with torch.no_grad():
        return module(prefix_batch(list(rows)))


@pytest.mark.parametrize("start", ["adapter", "merged_model"])
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_1_after_an_sft_adapter_the_reference_is_the_sft_policy(
    start: str, lora: bool, sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter itself goes on, or a new one on the merged model, or all weights; DPO starts at ln 2 in each case."""
    base, tuned = (
        held_out_logps(sft_root / "tiny", sft_root / "tiny"),
        held_out_logps(sft_root / "sft" / start, sft_root / "tiny"),
    )
    assert float((tuned - base).abs().min()) > 1, "the base model would be another reference"
    found = []
    original = preferences_recipe.reference_logps

    def watched(*args: Any) -> Any:
        found.append(original(*args))
        return found[-1]

    monkeypatch.setattr(preferences_recipe, "reference_logps", watched)
    run("dpo", sft_root / "sft" / start, tmp_path / "run", lora=lora, max_steps=3, bf16=False)
    torch.testing.assert_close(torch.from_numpy(found[1]).float(), tuned, rtol=1e-4, atol=1e-3)
    for name in ("loss", "eval_loss"):
        assert history(tmp_path / "run", name)[0] == pytest.approx(LN_2, abs=1e-5)


@pytest.mark.parametrize("side", [0, 1], ids=["training rows", "held-out rows"])
def test_1_a_wrong_reference_stops_the_run(side: int, sft_root: Path, tmp_path: Path, own_cache: Path) -> None:
    """Planted in the cache, as a stale file would be."""
    run("dpo", sft_root / "tiny", tmp_path / "first", max_steps=1)
    files = sorted((own_cache / "reference").glob("*.npy"), key=lambda path: -path.stat().st_size)
    assert [len(np.load(path)) for path in files] == [40, 18]
    reference_recipe._write_cache(files[side], np.load(files[side]) + 0.5)
    with pytest.raises(
        UserError, match=r"differs from the reference's by 0\.5 .*would not start at ln 2.*remove .*reference"
    ):
        run("dpo", sft_root / "tiny", tmp_path / "second", max_steps=1)
    assert history(tmp_path / "second", "loss") == []


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["longest", "shortest"])
def test_1_a_reference_that_is_wrong_for_one_response_stops_the_run(
    kind: str, bf16: bool, sft_root: Path, tmp_path: Path, own_cache: Path
) -> None:
    """By that response's own measure: what is nothing for the longest is a lot for the shortest."""
    if bf16:
        needs_bf16()
    run("dpo", sft_root / "tiny", tmp_path / "first", max_steps=1, eval_data=(), bf16=bf16)
    (file,) = (own_cache / "reference").glob("*.npy")
    chosen = settings("dpo", sft_root / "tiny", tmp_path, eval_data=())
    rows = RankedRows(load_splits(chosen, load_template(chosen), need="rankings", seed=0).training, prefix_batch)
    values, index = np.load(file), rows.lengths.argmin() if kind == "shortest" else rows.lengths.argmax()
    values[rows.offsets[index]] *= 1.04
    reference_recipe._write_cache(file, values)
    with pytest.raises(UserError, match=r"differs from the reference's by"):
        run("dpo", sft_root / "tiny", tmp_path / "second", max_steps=1, eval_data=(), bf16=bf16)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_1_the_reference_of_another_model_stops_the_run(
    kind: str, bf16: bool, sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that did not know the weights would bring it."""
    if bf16:
        needs_bf16()
    monkeypatch.setattr(reference_recipe, "_key", lambda _, rows, *__: f"same-{len(rows.offsets)}-{id(type(rows))}")
    run(kind, sft_root / "sft" / "merged_model", tmp_path / "first", max_steps=1, eval_data=(), bf16=bf16)
    with pytest.raises(UserError, match=r"differs from the reference's by"):
        run(kind, sft_root / "tiny", tmp_path / "second", max_steps=1, eval_data=(), bf16=bf16)


@pytest.mark.parametrize(
    ("change", "files"),
    [
        ({}, 0),
        ({"beta": 0.3, "learning_rate": 1e-4, "max_steps": 2, "num_train_epochs": 3}, 0),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}, 1),
        ({"seed": 7}, 1),
        ({"per_device_eval_batch_size": 9}, 1),
        ({"per_device_train_batch_size": 2, "per_device_eval_batch_size": 9}, 2),
    ],
    ids=["nothing", "what no batch depends on", "another cut", "another order", "other evaluations", "both"],
)
def test_1_the_cache_knows_the_batches(
    change: dict[str, Any], files: int, sft_root: Path, tmp_path: Path, own_cache: Path
) -> None:
    """A reference of other batches is rounded otherwise."""
    run("dpo", sft_root / "tiny", tmp_path / "first", max_steps=1)
    before = set((own_cache / "reference").glob("*.npy"))
    run("dpo", sft_root / "tiny", tmp_path / "second", **{"max_steps": 1, **change})
    assert len(before) == 2
    assert len(set((own_cache / "reference").glob("*.npy")) - before) == files


def test_1_the_cache_knows_kernels_and_precision(
    sft_root: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, kernels in enumerate(["some", "others"]):
        monkeypatch.setattr(reference_recipe, "kernels", lambda _, kernels=kernels: kernels)
        run("dpo", sft_root / "tiny", tmp_path / str(number), max_steps=1, eval_data=())
    assert len(list((own_cache / "reference").glob("*.npy"))) == 2


@pytest.mark.parametrize("others", [0, 1], ids=["the other process has none", "both have it"])
def test_1_processes_decide_together_whether_there_is_a_cached_reference(
    others: int, sft_root: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that went its own way would wait for ever in the collectives of the forward passes."""
    run("dpo", sft_root / "tiny", tmp_path / "first", max_steps=1, eval_data=())
    (file,) = (own_cache / "reference").glob("*.npy")
    monkeypatch.setattr(reference_recipe, "_read_cache", lambda *_: np.load(file))
    computed = []
    monkeypatch.setattr(reference_recipe, "response_values", lambda *_, **__: computed.append(1))
    one_of_two: Any = SimpleNamespace(
        num_processes=2,
        is_main_process=False,
        device=torch.device("cpu"),
        mixed_precision="no",
        reduce=lambda tensor, **_: tensor + others,
        wait_for_everyone=lambda: None,
    )
    rows = RankedRows(random_rows(20), prefix_batch)
    reference_recipe.reference_logps(one_of_two, torch.nn.Identity(), rows, [np.arange(20)], "weights")
    assert computed == [1] * (1 - others)


def test_1_a_damaged_cache_is_made_again(sft_root: Path, tmp_path: Path, own_cache: Path) -> None:
    run("dpo", sft_root / "tiny", tmp_path / "first", max_steps=2)
    for path in (own_cache / "reference").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-9])
    run("dpo", sft_root / "tiny", tmp_path / "second", max_steps=2)
    assert read_metrics(tmp_path / "first") == read_metrics(tmp_path / "second")


def test_1_reference_log_probabilities_are_computed_once(
    sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    original = reference_recipe.response_values

    def watched(*given: Any, **options: Any) -> Any:
        computed.append(1)
        return original(*given, **options)

    monkeypatch.setattr(reference_recipe, "response_values", watched)
    run("dpo", sft_root / "tiny", tmp_path / "first", max_steps=1)
    assert len(computed) == 2, "of training rows and of held-out rows"
    run("dpo", sft_root / "tiny", tmp_path / "second", max_steps=1, beta=0.4)
    assert len(computed) == 2
    run("dpo", sft_root / "sft" / "merged_model", tmp_path / "third", max_steps=1)
    assert len(computed) == 4, "another model is another reference"


def test_1_the_dropout_of_the_base_model_is_off(tmp_path: Path) -> None:
    """Else two passes of the same weights would differ, and the loss would not start at ln 2."""
    tiny_model("gpt2", attn_pdrop=0.3, resid_pdrop=0.3, embd_pdrop=0.3).save_pretrained(tmp_path)
    module = ResponseLogps(load_model(str(tmp_path), "policy", dtype=torch.float32)).train()
    batch = prefix_batch(list(random_rows(4)))
    assert torch.equal(module(batch), module(batch))


def test_2_the_reference_of_evaluation_does_not_move(
    sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references, policies = [], []

    @wraps(dpo)
    def watched(pairs: PairLogps, **options: float) -> Loss:
        if len(pairs.chosen) == 9:  # the held-out rows
            references.append(torch.cat([pairs.reference_chosen, pairs.reference_rejected]))
            policies.append(torch.cat([pairs.chosen, pairs.rejected]))
        return dpo(pairs, **options)

    table: Any = OBJECTIVES
    monkeypatch.setitem(table, "dpo", Objective(watched))
    run("dpo", sft_root / "tiny", tmp_path / "run", **LORA, learning_rate=1e-2)
    assert len(references) == 3
    assert all(torch.equal(reference, references[0]) for reference in references)
    torch.testing.assert_close(references[0], policies[0], rtol=1e-6, atol=1e-4)
    assert float((policies[-1] - policies[0]).abs().max()) > 1, "the policy has moved"
