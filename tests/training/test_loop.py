"""The training loop: gradients that depend on the rows of a step and on nothing else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import loop_runs
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from loop_runs import OneOfMany, assert_same, averaged, gradients
from memory_rows import random_rows
from tiny_models import tiny_model
from torch import Tensor, nn

from preflab.core.records import UserError
from preflab.data.batches import Indices, Step, plan_evaluation
from preflab.model.prefix import prefix_batch, separate_batch
from preflab.model.responses import ResponseLogps, ResponseRewards
from preflab.objectives import dpo
from preflab.training.loop import response_values, train
from preflab.training.rows import BestRows, RankedRows
from preflab.training.steps import StepFn, means, pair_step, reward_step, sft_step

pytestmark = pytest.mark.slow

DATASET = random_rows(19, widths=(2, 3, 2))
KINDS: dict[str, tuple[type[RankedRows], StepFn]] = {
    "sft": (BestRows, sft_step),
    "reward": (RankedRows, partial(reward_step, center=0.1)),
    "dpo": (RankedRows, partial(pair_step, objective=partial(dpo, beta=0.5))),
}


def module_and_rows(kind: str) -> tuple[nn.Module, RankedRows, StepFn]:
    """In float64, so that whatever differs is no matter of rounding."""
    rows_class, step_fn = KINDS[kind]
    module: nn.Module
    if kind == "reward":
        module = ResponseRewards(tiny_model("qwen2", task="reward").double())
    else:
        module = ResponseLogps(tiny_model("qwen2").double())
    rows = rows_class(DATASET, prefix_batch)
    if kind == "dpo":
        rows.reference = np.random.default_rng(0).normal(-20, 4, int(rows.offsets[-1]))
    return module, rows, step_fn


def run(kind: str, plan: Sequence[Step], accelerator: Any = None, **options: float) -> Any:
    """The gradients as the optimizer saw them in each step, and the reports."""
    module, rows, step_fn = module_and_rows(kind)
    return gradients(module, rows, step_fn, plan, accelerator, **options)


def planned(**options: Any) -> Sequence[Step]:
    return loop_runs.planned(RankedRows(DATASET, prefix_batch).lengths, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_passes_of_one_give_the_gradients_of_one_pass_of_eight(kind: str) -> None:
    """19 rows: steps of 8, 8 and 3. Prompts, responses and widths differ in length, so a mean of means would differ."""
    whole, single = planned(batch_size=8, passes=1), planned(batch_size=1, passes=8)
    assert [len(step.micro_batches) for step in single] == [8, 8, 3]
    expected, whole_reports = run(kind, whole)
    found, reports = run(kind, single)
    assert_same(found, expected)
    for one, other in zip(reports, whole_reports, strict=True):
        assert one.tokens == other.tokens
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-5)
        assert means(one.totals) == pytest.approx(means(other.totals), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_share_a_step(kind: str, processes: int) -> None:
    """Their gradients, averaged as DDP does, are those of one process; also where the last passes have no rows."""
    plan = planned(batch_size=2, passes=3)
    assert any(len(step.micro_batches) % processes for step in plan), "some pass must be empty"
    expected, _ = run(kind, plan)
    shares = [run(kind, plan, OneOfMany(index, processes)) for index in range(processes)]
    assert_same(averaged([grads for grads, _ in shares]), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_budget_gives_the_gradients_of_its_rows(kind: str) -> None:
    plan = planned(max_tokens=60, passes=3)
    one_pass = [Step((step.rows,)) for step in plan]
    assert_same(run(kind, plan)[0], run(kind, one_pass)[0])


def test_an_sft_loss_is_a_mean_over_the_response_tokens_of_the_step() -> None:
    """Against the textbook: cross-entropy of each row alone, summed, divided by all response tokens of the step."""
    model = tiny_model("qwen2")
    total, tokens = torch.zeros(()), 0
    for row in (DATASET[index] for index in (2, 5, 7)):
        ids = torch.tensor([row.prompt_ids + row.response_ids[0]])
        labels = ids.clone()
        labels[:, : len(row.prompt_ids)] = -100
        count = len(row.response_ids[0])
        total, tokens = total + model(input_ids=ids, labels=labels).loss * count, tokens + count
    (total / tokens).backward()
    plan = [Step((np.array([5, 2]), np.array([7])))] * 2
    grads, reports = run("sft", plan)
    assert means(reports[0].totals)["loss"] == pytest.approx(float(total / tokens), rel=1e-5)
    expected = {f"model.{name}": parameter.grad for name, parameter in model.named_parameters()}
    assert_same(grads, [expected, expected], relative=1e-4)


def test_packed_sft_rows_do_not_see_each_other() -> None:
    module, rows, _ = module_and_rows("sft")
    with torch.no_grad():
        together = module(rows.batch(np.arange(len(DATASET)))[0])
        alone = torch.cat([module(rows.batch(np.array([index]))[0]) for index in range(len(DATASET))])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_evaluation_finds_depends_on_neither_batch_size_nor_processes(kind: str) -> None:
    module, rows, _ = module_and_rows(kind)
    plans = [
        plan_evaluation(rows.lengths, batch_size=size, max_tokens=tokens)
        for size, tokens in ((1, None), (5, None), (100, None), (1, 50))
    ]
    first, *others = (response_values(OneOfMany(), module, rows, plan) for plan in plans)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-5)
    halves = [response_values(OneOfMany(index, 2), module, rows, plans[1]) for index in range(2)]
    np.testing.assert_allclose(sum(halves), first, rtol=1e-5, atol=1e-5)
    assert all((half == 0).any() for half in halves), "each process computes its own share"


def test_evaluation_leaves_the_module_as_it_was() -> None:
    module, rows, _ = module_and_rows("dpo")
    module.train()
    response_values(OneOfMany(), module, rows, [np.arange(3)])
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(poison: float) -> None:
    module, rows, step_fn = module_and_rows("dpo")
    assert rows.reference is not None
    plan = [Step((np.array([0, 1]),)), Step((np.array([2]), np.array([3]))), Step((np.array([4]),))]
    rows.reference[rows.offsets[3]] = poison
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    steps = train(OneOfMany(), module, optimizer, schedule, rows, plan, step_fn, max_grad_norm=1.0)
    assert next(steps).step == 1
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(UserError, match=r"step 2: the loss is (nan|inf).*before the weights were touched.*rows 2, 3"):
        next(steps)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_gradients_are_clipped_and_their_norm_shown_as_it_was() -> None:
    plan = planned(batch_size=8, passes=1)
    free, reports = run("dpo", plan)
    limit = reports[0].grad_norm / 4
    clipped, clipped_reports = run("dpo", plan, clip=limit)
    assert clipped_reports[0].grad_norm == pytest.approx(reports[0].grad_norm)
    norm = torch.cat([grad.flatten() for grad in clipped[0].values()]).norm()
    assert float(norm) == pytest.approx(limit, rel=1e-3)
    assert_same([{n: g / 4 for n, g in free[0].items()}] * 2, [clipped[0]] * 2, relative=1e-3)


def test_a_run_goes_on_at_any_step() -> None:
    module, rows, step_fn = module_and_rows("reward")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    plan = planned(batch_size=4, passes=1)
    steps = train(OneOfMany(), module, optimizer, schedule, rows, plan, step_fn, max_grad_norm=1.0, first=3)
    assert [report.step for report in steps] == [4, 5]


def test_bfloat16_arithmetic_keeps_rewards_and_losses_in_float32() -> None:
    for kind in ("dpo", "reward"):
        module, rows, _ = module_and_rows(kind)
        module.float()
        accelerator = SimpleNamespace(mixed_precision="bf16", autocast=lambda: torch.autocast("cpu", torch.bfloat16))
        half = OneOfMany()
        half.autocast = accelerator.autocast
        exact = response_values(OneOfMany(), module, rows, [np.arange(19)])
        rough = response_values(half, module, rows, [np.arange(19)])
        assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()
        with half.autocast():
            values = module(rows.batch(np.arange(3))[0])
        assert values.dtype == torch.float32


def test_it_runs_on_accelerates_own_accelerator() -> None:
    expected, _ = run("dpo", planned(batch_size=8, passes=1))
    found, _ = run("dpo", planned(batch_size=1, passes=8), Accelerator(cpu=True))
    assert_same(found, expected)


def test_indices_are_those_of_the_plan() -> None:
    asked: list[list[int]] = []

    class Asked(RankedRows):
        def batch(self, indices: Indices) -> Any:
            asked.append(indices.tolist())
            return super().batch(indices)

    module, _, step_fn = module_and_rows("reward")
    plan = [Step((np.array([4, 1]), np.array([7])))]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    rows = Asked(DATASET, prefix_batch)
    list(train(OneOfMany(), module, optimizer, schedule, rows, plan, step_fn, max_grad_norm=1.0))
    assert asked == [[4, 1], [7]]


def test_values_are_brought_to_the_cpu_before_they_become_float64() -> None:
    """Not every accelerator has float64."""

    class OnDevice:
        def cpu(self) -> Tensor:
            return torch.ones(6)

    class Module(nn.Module):
        def forward(self, _batch: Any) -> Any:
            return OnDevice()

    rows = BestRows(DATASET, prefix_batch)
    values = response_values(OneOfMany(), Module(), rows, [np.arange(6)])
    assert values.sum() == 6


def test_what_is_known_of_all_rows_is_computed_once() -> None:
    """In a loop over rows it would take quadratic time."""
    for rows in (RankedRows(DATASET, prefix_batch), BestRows(DATASET, prefix_batch)):
        assert rows.offsets is rows.offsets
        assert rows.lengths is rows.lengths


@pytest.mark.parametrize("rows_class", [RankedRows, BestRows])
@pytest.mark.parametrize("collate", [prefix_batch, separate_batch])
def test_lengths_are_what_the_batch_holds(rows_class: type[RankedRows], collate: Any) -> None:
    """Also of models that cannot share a prompt, whose sequences are padded."""
    rows = rows_class(DATASET, collate)
    for index in range(len(DATASET)):
        batch, _ = rows.batch(np.array([index]))
        held = batch.tree.positions.numel() if collate is separate_batch else len(batch.input_ids)
        assert rows.lengths[index] == held
