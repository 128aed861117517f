"""Which rows go into which forward pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from preflab.data.batches import Indices, Plan, Step, plan_evaluation, plan_training

LENGTHS = np.random.default_rng(0).integers(5, 200, 103).astype(np.int64)


def planned(lengths: Indices = LENGTHS, **changes: object) -> Plan:
    options = {"epochs": 1.0, "max_steps": -1, "batch_size": 8, "max_tokens": None, "passes": 1, "seed": 0} | changes
    return plan_training(lengths, **options)


def batches(plan: Plan) -> list[Indices]:
    return [batch for step in plan.steps for batch in step.micro_batches]


BUDGETS = [None, 150, 400, 5000]


@pytest.mark.parametrize("max_tokens", BUDGETS)
@pytest.mark.parametrize("passes", [1, 3, 8])
def test_every_row_comes_once_an_epoch(max_tokens: int | None, passes: int) -> None:
    plan = planned(epochs=3.0, max_tokens=max_tokens, passes=passes)
    assert plan.epoch_ends[-1] == len(plan.steps)
    for start, end in pairwise((0, *plan.epoch_ends)):
        assert sorted(np.concatenate([step.rows for step in plan.steps[start:end]])) == list(range(103))


def test_epochs_end_where_they_do_though_they_differ_in_length() -> None:
    plan = planned(np.tile(LENGTHS, 20), epochs=5.0, max_tokens=400)
    assert len({end - start for start, end in pairwise((0, *plan.epoch_ends))}) > 1
    assert [plan.epoch(end) for end in plan.epoch_ends] == [1, 2, 3, 4, 5]
    found = [plan.epoch(step) for step in range(len(plan.steps) + 1)]
    assert found[0] == 0
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize(("changes", "epochs"), [({"epochs": 1.5}, 1 + 6 / 13), ({"max_steps": 5}, 5 / 13)])
def test_an_epoch_that_is_cut_off_does_not_count_as_whole(changes: dict[str, float], epochs: float) -> None:
    plan = planned(**changes)
    assert plan.epoch(len(plan.steps)) == pytest.approx(epochs)


def test_a_fixed_number_of_rows() -> None:
    plan = planned(passes=4)
    assert [len(batch) for batch in batches(plan)].count(8) == 103 // 8
    assert sorted(len(batch) for batch in batches(plan))[0] == 103 % 8
    assert len(plan.steps) == plan.epoch_ends[0] == 4  # 13 batches, four a step
    assert [len(step.micro_batches) for step in plan.steps] == [4, 4, 4, 1]


@pytest.mark.parametrize("max_tokens", [150, 400, 5000])
def test_a_token_budget_is_never_exceeded_but_by_a_single_row(max_tokens: int) -> None:
    made = batches(planned(max_tokens=max_tokens))
    assert any(LENGTHS > 150)
    assert all(LENGTHS[batch].sum() <= max_tokens or len(batch) == 1 for batch in made)
    full = [LENGTHS[batch].sum() / max_tokens for batch in made if len(batch) > 1]
    assert np.mean(full) > 0.6, "and the budget is used"


def test_under_a_token_budget_rows_of_a_batch_are_of_similar_length() -> None:
    lengths = np.random.default_rng(1).integers(5, 200, 3000).astype(np.int64)
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches(planned(lengths, max_tokens=800))])
    assert spread < 20 < np.mean([np.ptp(lengths[batch]) for batch in batches(planned(lengths))])


@pytest.mark.parametrize("max_tokens", BUDGETS)
def test_the_seed_decides_the_order_and_nothing_else_does(max_tokens: int | None) -> None:
    def order(**changes: object) -> list[int]:
        return np.concatenate(batches(planned(epochs=2.0, max_tokens=max_tokens, **changes))).tolist()

    np.random.seed(5)
    first = order()
    np.random.seed(6)
    assert order() == first
    assert order(seed=1) != first
    assert first[:103] != first[103:], "epochs differ"


@pytest.mark.parametrize("max_tokens", [None, 400])
def test_a_step_has_the_same_rows_on_any_number_of_processes(max_tokens: int | None) -> None:
    plan = planned(max_tokens=max_tokens, passes=6)
    for step in plan.steps:
        for processes in (1, 2, 3, 4, 8):
            shares = [step.of_process(index, processes) for index in range(processes)]
            assert len({len(share) for share in shares}) == 1, "as many passes for each"
            rows = np.concatenate([batch for share in shares for batch in share])
            assert sorted(rows) == sorted(step.rows)


@pytest.mark.parametrize(("batch_size", "passes"), [(1, 8), (2, 4), (4, 2)])
def test_rows_of_a_step_do_not_depend_on_how_it_is_cut(batch_size: int, passes: int) -> None:
    """Eight at once, eight passes of one, or two processes with two passes of two."""
    whole = planned(epochs=2.5, batch_size=8, passes=1)
    cut = planned(epochs=2.5, batch_size=batch_size, passes=passes)
    assert [sorted(step.rows) for step in whole.steps] == [sorted(step.rows) for step in cut.steps]


@pytest.mark.parametrize("max_tokens", BUDGETS)
@pytest.mark.parametrize("passes", [1, 2])
def test_the_longest_steps_come_first(max_tokens: int | None, passes: int) -> None:
    first, second, *others = (LENGTHS[step.rows] for step in planned(max_tokens=max_tokens, passes=passes).steps)
    assert first.sum() == max(rows.sum() for rows in (first, second, *others))
    assert second.max() == max(rows.max() for rows in (second, *others))


def test_the_longest_rows_of_a_step_come_first() -> None:
    for step in planned(passes=4).steps:
        assert (np.diff(LENGTHS[step.rows]) <= 0).all()


def test_uneven_ends() -> None:
    step = Step((np.array([1, 2]), np.array([3]), np.array([4])))
    assert [batch.tolist() for batch in step.of_process(0, 2)] == [[1, 2], [4]]
    assert [batch.tolist() for batch in step.of_process(1, 2)] == [[3], []]
    assert [batch.tolist() for batch in step.of_process(3, 4)] == [[]]


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"),
    [(1.0, -1, 13), (2.0, -1, 26), (0.5, -1, 6), (1.5, -1, 19), (1.0, 5, 5), (1.0, 30, 30)],
)
def test_how_long_a_run_is(epochs: float, max_steps: int, steps: int) -> None:
    plan = planned(epochs=epochs, max_steps=max_steps)
    assert len(plan.steps) == steps
    assert plan.epoch_ends[0] == 13


def test_a_part_of_an_epoch_is_at_least_a_batch() -> None:
    assert len(planned(np.array([5, 6]), epochs=0.01).steps) == 1


@pytest.mark.parametrize("max_tokens", BUDGETS)
def test_evaluation_takes_every_row_once_longest_first(max_tokens: int | None) -> None:
    plan = plan_evaluation(LENGTHS, batch_size=10, max_tokens=max_tokens)
    order = np.concatenate(plan)
    assert sorted(order) == list(range(103))
    assert (np.diff(LENGTHS[order]) <= 0).all()
    if max_tokens:
        assert all(LENGTHS[batch].sum() <= max_tokens or len(batch) == 1 for batch in plan)
    else:
        assert [len(batch) for batch in plan] == [10] * 10 + [3]
