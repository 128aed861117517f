"""Every objective of the table in the training loop: gradients and metrics that depend on the rows of a step alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loop_runs import Grads, OneOfMany, assert_same, averaged, gradients, planned
from memory_rows import MemoryDataset, random_rows
from tiny_models import tiny_model

from preflab.data.batches import Indices
from preflab.model.prefix import prefix_batch, separate_batch
from preflab.model.responses import ResponseLogps, usual_attention
from preflab.objectives import OBJECTIVES
from preflab.training.loop import StepReport
from preflab.training.losses import loss_of, statistics_of
from preflab.training.preference_settings import PreferenceSettings, settings_of
from preflab.training.rows import LabelledRows, MismatchedRows, RankedRows
from preflab.training.statistics import find_statistics
from preflab.training.steps import Responses, StepFn, label_step, means, pair_step

pytestmark = pytest.mark.slow

COUNT = 11  # steps of 8 and 3
MIXTURE = "dpo and others"
NAMES = [*OBJECTIVES, MIXTURE]


def settings(name: str) -> PreferenceSettings:
    """With every option of the objective that its default leaves out."""
    mix = {"mix": ("ipo?weight=0.5&beta=0.2", "orpo?weight=0.3", "sft?weight=0.2")} if name == MIXTURE else {}
    kind = settings_of("dpo" if name == MIXTURE else name)
    options = {"label_smoothing": 0.1, "sft_weight": 0.5, "undesirable_weight": 0.7, "alpha": 0.1}
    own = {option: value for option, value in options.items() if option in kind.model_fields}
    return kind(model="-", train_data=("-",), **own, **mix)


@cache
def policy(share_prefix: bool) -> ResponseLogps:
    """One for all runs: their steps are of length 0."""
    module = ResponseLogps(tiny_model("qwen2").double())
    if not share_prefix:
        module.share_prefix = False
        usual_attention(module.model)
    return module


class Run:
    """An objective's module, rows and steps, in float64, so that whatever differs is no matter of rounding."""

    def __init__(self, name: str, collate: Any = prefix_batch) -> None:
        random = np.random.default_rng(0)
        self.module = policy(collate is prefix_batch)
        self.settings = settings(name)
        labelled = OBJECTIVES[self.settings.objective].data == "labels"
        dataset: Any = random_rows(COUNT, widths=(2, 3, 1) if labelled else (2, 3, 2))
        if labelled:
            dataset = with_labels(dataset)
        self.rows: RankedRows = (
            LabelledRows(dataset, collate, MismatchedRows(dataset, collate, max_length=30, seed=1))
            if labelled
            else RankedRows(dataset, collate)
        )
        if OBJECTIVES[self.settings.objective].reference:
            self.rows.reference = random.normal(-20, 4, int(self.rows.offsets[-1]))
        if self.rows.mismatched:
            self.rows.mismatched.reference = random.normal(-80, 4, COUNT)

    @property
    def step_fn(self) -> StepFn:
        step = label_step if isinstance(self.rows, LabelledRows) else pair_step
        return partial(step, objective=loss_of(self.settings))

    def statistics_of(self, accelerator: Any) -> Callable[[Indices], Mapping[str, torch.Tensor]]:
        given = statistics_of(self.settings)
        return partial(find_statistics, accelerator, self.settings, given, self.module, self.rows)

    def gradients(
        self, accelerator: Any = None, *, kl_from: Any = None, **plan: int
    ) -> tuple[list[Grads], list[StepReport]]:
        accelerator = accelerator or OneOfMany()
        steps, statistics = planned(self.rows.lengths, **plan), self.statistics_of(kl_from or accelerator)
        return gradients(self.module, self.rows, self.step_fn, steps, accelerator, statistics_of=statistics)


def with_labels(dataset: MemoryDataset) -> MemoryDataset:
    """Of single responses, every other one unwanted."""
    dataset.label = lambda index: None if len(dataset[index].response_ids) > 1 else index % 2 == 0
    return dataset


@cache
def in_one_pass(name: str) -> tuple[list[Grads], list[StepReport]]:
    return Run(name).gradients(batch_size=8, passes=1)


def same_metrics(found: list[StepReport], expected: list[StepReport]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert means(one.totals) == pytest.approx(means(other.totals), rel=1e-9, abs=1e-9, nan_ok=True)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_eight_passes_of_one_are_one_pass_of_eight(name: str) -> None:
    expected, whole = in_one_pass(name)
    found, reports = Run(name).gradients(batch_size=1, passes=8)
    assert len(reports) == 2
    assert_same(found, expected)
    same_metrics(reports, whole)
    assert all(np.isfinite(means(report.totals)["loss"]) for report in reports)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_are_one(name: str) -> None:
    """Gradients averaged, and metrics summed; KTO's KL, of which a process hears in a collective, is found by one."""
    expected, whole = in_one_pass(name)
    shares = [
        Run(name).gradients(OneOfMany(index, 2), kl_from=OneOfMany(), batch_size=2, passes=4) for index in range(2)
    ]
    assert_same(averaged([grads for grads, _ in shares]), expected)
    for step, (first, second) in enumerate(zip(*(reports for _, reports in shares), strict=True)):
        summed = {metric: first.totals[metric] + second.totals[metric] for metric in first.totals}
        assert means(summed) == pytest.approx(means(whole[step].totals), rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_prefix_is_separate_sequences(name: str) -> None:
    expected, whole = in_one_pass(name)
    run = Run(name, separate_batch)
    lengths = RankedRows(run.rows.dataset, prefix_batch).lengths  # the same plan
    run.rows.lengths = lengths
    found, reports = run.gradients(batch_size=8, passes=1)
    assert_same(found, expected, relative=1e-5)
    for one, other in zip(reports, whole, strict=True):
        assert means(one.totals) == pytest.approx(means(other.totals), rel=1e-5, abs=1e-6, nan_ok=True)


def test_the_kl_of_a_step_is_that_of_its_rows_however_they_are_cut() -> None:
    """And another one in the next step, of other rows; a mean of the log-ratios of mismatched rows, by hand."""
    run = Run("kto")
    others = run.rows.mismatched
    assert others is not None
    assert others.reference is not None
    with torch.no_grad():
        policy = torch.cat([run.module(others.batch(np.array([index]))[0]) for index in range(COUNT)])
    ratios = policy.numpy() - others.reference
    for cut in ({"batch_size": 8, "passes": 1}, {"batch_size": 1, "passes": 8}, {"batch_size": 3, "passes": 3}):
        plan = planned(run.rows.lengths, **cut)
        _, reports = run.gradients(**cut)
        found = [means(report.totals)["kl"] for report in reports]
        assert found == pytest.approx([float(np.mean(ratios[step.rows])) for step in plan], rel=1e-6)
        assert len(set(found)) == len(found) == 2
        assert min(found) > 0


def test_a_step_without_unwanted_responses_reports_none_of_them() -> None:
    """And its loss and gradient are those of the wanted ones."""
    run = Run("kto")
    run.rows.wanted = torch.ones(int(run.rows.offsets[-1]), dtype=torch.bool)
    _, reports = run.gradients(batch_size=8, passes=1)
    for report in reports:
        found = means(report.totals)
        missing = {name for name, value in found.items() if np.isnan(value)}
        assert missing == {"rewards/rejected", "logps/rejected"}
        assert report.grad_norm > 0


def test_an_evaluation_far_from_the_device_of_training_brings_the_kl_to_its_values() -> None:
    """They are float64 on the CPU, whatever the device and precision of training."""
    given: Any = SimpleNamespace(to=lambda values: torch.tensor(0.5, dtype=values.dtype, device=values.device))
    run = Run("kto")
    values = torch.full((int(run.rows.offsets[3]),), -20.0, dtype=torch.float64)
    known = run.rows.batch(np.arange(3))[1]
    responses = Responses(values, torch.ones(len(values)), (2, 3, 1), known, statistics={"kl": given})
    found = means(run.step_fn(responses).totals)
    assert found["kl"] == 0.5
