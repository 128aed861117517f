"""KTO: which responses are wanted, mismatched pairs that are mismatched, and the KL that they estimate (pitfall 14)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loop_runs import OneOfMany
from memory_rows import MemoryDataset
from tiny_models import tiny_model
from tiny_runs import history, run, settings, write_model

from preflab.core.durable import read_metrics
from preflab.core.records import TokenizedComparison, UserError
from preflab.data.splits import load_splits, load_template
from preflab.data.tokenize import ChatTemplate
from preflab.model.prefix import prefix_batch, separate_batch
from preflab.model.responses import ResponseLogps
from preflab.page.curves import curve_panels
from preflab.training import preferences as recipe
from preflab.training import statistics
from preflab.training.losses import statistics_of
from preflab.training.rows import LabelledRows, MismatchedRows
from preflab.training.statistics import find_statistics


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


def unpaired(path: Path, labels: Sequence[bool], prompts: int = 100) -> str:
    """A file in TRL's unpaired format, with so many different prompts."""
    lines = [
        {"prompt": f"name the colour {i % prompts}", "completion": ("red", "blue and red", "a")[i % 3], "label": label}
        for i, label in enumerate(labels)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


# ---- mismatched rows ------------------------------------------------------------------------------------------------


def dataset(prompts: Sequence[tuple[int, ...]], *, seed: int = 0, longest: int = 6) -> Any:
    """Rows of these prompts, each with responses that name the row: its number, and then some."""
    random = np.random.default_rng(seed)
    rows = []
    for number, prompt in enumerate(prompts):
        responses = tuple(
            (1000 + number, *range(int(random.integers(1, longest)))) for _ in range(int(random.integers(1, 4)))
        )
        rows.append(TokenizedComparison(prompt, responses, number))
    return MemoryDataset(rows)


# Prompts by the place of their first row: all different, in pairs, nearly all the same, one against the rest, …
REPETITIONS = {
    "all different": [(i, 3) for i in range(20)],
    "each twice": [(i // 2, 3) for i in range(20)],
    "three prompts": [(i % 3, 3) for i in range(20)],
    "two prompts in blocks": [(int(i > 9), 3) for i in range(20)],
    "one stands out": [(int(i == 7), 3) for i in range(20)],
    "two rows": [(1,), (2,)],
    "same beginnings": [(1,) * (1 + i % 4) for i in range(20)],
}


@pytest.mark.parametrize("prompts", REPETITIONS.values(), ids=REPETITIONS)
def test_no_prompt_meets_a_response_to_itself(prompts: list[tuple[int, ...]]) -> None:
    for seed in range(20):
        data = dataset(prompts, seed=seed)
        rows = MismatchedRows(data, prefix_batch, max_length=50, seed=seed)
        for index, prompt in enumerate(prompts):
            made = rows.row(index)
            (response,) = made.response_ids
            owner = response[0] - 1000
            assert made.prompt_ids == prompt
            assert prompts[owner] != prompt
            assert response in data[owner].response_ids


def test_responses_are_drawn_from_all_and_the_same_throughout_a_run() -> None:
    data = dataset([(i, 3) for i in range(200)])
    rows, again, other = (MismatchedRows(data, prefix_batch, max_length=50, seed=seed) for seed in (1, 1, 2))
    partners = [rows.row(index).response_ids for index in range(200)]
    assert partners == [again.row(index).response_ids for index in range(200)]
    assert partners != [other.row(index).response_ids for index in range(200)]
    assert rows.fingerprint == again.fingerprint != other.fingerprint, "the cached reference is of these rows"
    assert len({response[0][0] for response in partners}) == 200, "each row's responses go to one other row"
    several = [index for index in range(200) if len(data[index].response_ids) > 1]
    places = {data[r[0][0] - 1000].response_ids.index(r[0]) for r in partners if r[0][0] - 1000 in several}
    assert places >= {0, 1, 2}, "not the best response alone"


@pytest.mark.parametrize("collate", [prefix_batch, separate_batch])
def test_a_long_partner_takes_its_room_from_the_oldest_of_the_prompt(collate: Any) -> None:
    prompts = [tuple(range(i, i + 5 + i % 7)) for i in range(20)]
    data = dataset(prompts, longest=9)
    rows = MismatchedRows(data, collate, max_length=10, seed=0)
    cut = 0
    for index, prompt in enumerate(prompts):
        made = rows.row(index)
        whole = len(made.prompt_ids) + len(made.response_ids[0])
        assert rows.lengths[index] == whole <= 10
        assert rows.token_counts[index] == len(made.response_ids[0])
        assert made.prompt_ids == prompt[len(prompt) - len(made.prompt_ids) :]
        cut += len(made.prompt_ids) < len(prompt)
    assert 0 < cut < 20


def test_a_single_prompt_is_refused(tiny: Path, tmp_path: Path) -> None:
    data = unpaired(tmp_path / "rows.jsonl", [True, False] * 4, prompts=1)
    with pytest.raises(
        UserError, match=r"all rows have the same prompt.*KL is estimated from responses to other prompts"
    ):
        run("kto", tiny, tmp_path / "run", train_data=(data,), eval_data=())


# ---- which responses are wanted -------------------------------------------------------------------------------------


def test_labels_say_it_of_single_responses_and_rank_of_others() -> None:
    data = MemoryDataset([TokenizedComparison((i,), ((5,),) * width, i) for i, width in enumerate((1, 3, 1, 2))])
    labels = (False, None, True, None)
    data.label = lambda index: labels[index]
    rows = LabelledRows(data, prefix_batch)
    assert rows.wanted.tolist() == [False, True, False, False, True, True, False]
    assert rows.weight(np.array([0, 1])) == 4, "responses weigh, not rows"
    _, known = rows.batch(np.array([1, 0]))
    assert known.wanted is not None
    assert known.wanted.tolist() == [True, False, False, False]


def test_labels_survive_the_token_cache(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [True, False, False, True, False]
    data = unpaired(tmp_path / "rows.jsonl", labels)
    chosen = settings("kto", tiny, tmp_path, train_data=(data,), eval_data=())
    for _ in range(2):
        rows = load_splits(chosen, load_template(chosen), need="labels", seed=0).training
        assert [rows.label(index) for index in range(5)] == labels
        assert [row.label for row in rows] == labels
        monkeypatch.setattr(ChatTemplate, "encode_many", None)  # the second time they come from the cache


def test_a_single_response_without_a_label_is_no_judgement(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "name a colour", "completion": "red"}\n')
    with pytest.raises(UserError, match=r"no label: 1 \(row 1\)"):
        run("kto", tiny, tmp_path / "run", train_data=(str(path),), eval_data=())


# ---- the estimate ---------------------------------------------------------------------------------------------------


class Watched:
    """What the recipe's step functions were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kls: list[float] = []
        self.rows: list[list[int]] = []
        original, find = recipe.label_step, recipe.find_statistics

        def step(responses: Any, **options: Any) -> Any:
            self.kls.append(float(responses.statistics["kl"]))
            return original(responses, **options)

        def watched(*given: Any) -> Any:
            self.rows.append(sorted(given[-1].tolist()))
            return find(*given)

        monkeypatch.setattr(recipe, "label_step", step)
        monkeypatch.setattr(recipe, "find_statistics", watched)


@pytest.mark.slow
def test_one_kl_for_all_passes_of_a_step(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole runs, cut two ways: the same metrics in every line, the KL among them."""
    options: dict[str, Any] = {"max_steps": 3, "eval_steps": 3, "save_strategy": "no", "learning_rate": 1e-2}
    run("kto", tiny, tmp_path / "one", per_device_train_batch_size=6, **options)
    watched = Watched(monkeypatch)
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6}
    run("kto", tiny, tmp_path / "six", **cut, **options)
    # Evaluations before the first step and after the last; six passes of each step with one KL.
    assert [len(rows) for rows in watched.rows] == [9, 6, 6, 6, 9]
    assert len(watched.kls) == 1 + 3 * 6 + 1
    assert watched.kls[1:7] == [0] * 6, "policy and reference agree"
    assert len(set(watched.kls[7:13])) == len(set(watched.kls[13:19])) == 1
    one, six = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "six")
    assert [row.get("kl", row.get("eval_kl")) for row in six][-1] != 0
    for ours, theirs in zip(six, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_the_estimate_by_hand() -> None:
    """The mean of log π − log π_ref of a step's mismatched rows, each computed by transformers alone; not below 0."""
    policy, reference = tiny_model("qwen2", seed=0), tiny_model("qwen2", seed=1)
    random = np.random.default_rng(0)
    data: Any = MemoryDataset(
        [
            TokenizedComparison(
                tuple(random.integers(3, 99, 4).tolist()), (tuple(random.integers(3, 99, 5).tolist()),), i
            )
            for i in range(8)
        ]
    )
    data.label = lambda index: index % 2 == 0
    others = MismatchedRows(data, prefix_batch, max_length=20, seed=0)
    rows = LabelledRows(data, prefix_batch, others)

    def logp(model: Any, index: int) -> float:
        made = others.row(index)
        ids = torch.tensor([made.prompt_ids + made.response_ids[0]])
        labels = ids.clone()
        labels[:, : len(made.prompt_ids)] = -100
        with torch.no_grad():
            return -float(model(input_ids=ids, labels=labels).loss) * len(made.response_ids[0])

    ratios = np.array([logp(policy, index) - logp(reference, index) for index in range(8)])
    others.reference = np.array([logp(reference, index) for index in range(8)])
    chosen: Any = settings("kto", "-", Path("-"))
    find = partial(find_statistics, OneOfMany(), chosen, statistics_of(chosen))
    module = ResponseLogps(policy)
    groups = [np.flatnonzero(ratios > 0), np.flatnonzero(ratios < 0), np.array([5, 2, 7])]
    assert all(len(group) for group in groups)
    for group in groups:
        kl = find(module, rows, group)["kl"]
        assert float(kl) == pytest.approx(max(0, ratios[group].mean()), rel=1e-4)
        assert not kl.requires_grad


def test_batch_1_is_refused_at_the_start_with_the_reason(tiny: Path, tmp_path: Path) -> None:
    """Before a model is loaded, and without a claim on the folder, which the mended command can have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "prepare", None)
        with pytest.raises(UserError, match=r"kl is estimated from all rows of an opt.*Give at least 2 rows"):
            run("kto", tiny, tmp_path / "run", per_device_train_batch_size=1)
        patch.setattr(statistics, "join_processes", lambda: SimpleNamespace(num_processes=2))
        with pytest.raises(TypeError, match="NoneType"):  # two processes have two rows: it goes on to prepare
            run("kto", tiny, tmp_path / "run", per_device_train_batch_size=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_batch_1_with_accumulation_is_a_batch(tiny: Path, tmp_path: Path) -> None:
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 1}
    run("kto", tiny, tmp_path / "run", eval_data=(), **options)
    assert len(history(tmp_path / "run", "kl")) == 1


# ---- whole runs -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "held_out"),
    [([True, False] * 6, [True] * 5), ([True] * 8, [False] * 5), ([False] * 8, [True, False] * 3)],
    ids=["both", "wanted only", "unwanted only"],
)
def test_unpaired_rows(
    training: list[bool], held_out: list[bool], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where one side has no responses, a figure of it is null, in the lines as in the curves and in what is printed."""
    train, evaluate = (
        unpaired(tmp_path / f"{name}.jsonl", labels) for name, labels in (("train", training), ("eval", held_out))
    )
    folder = tmp_path / "run"
    result = run("kto", tiny, folder, train_data=(train,), eval_data=(evaluate,), max_steps=3, draw=True)
    kind = "wanted" if training[0] else "unwanted"
    warned = f"warning: all {len(training)} responses to train on are {kind}" in capsys.readouterr().err
    assert warned == (len(set(training)) == 1)
    assert "NaN" not in "".join(path.read_text() for path in folder.glob("*.json*"))
    lines = read_metrics(folder)
    for prefix, labels in (("", training), ("eval_", held_out)):
        own = [row for row in lines if f"{prefix}loss" in row]
        assert len(own) >= 2
        for side, there in (("chosen", any(labels)), ("rejected", not all(labels))):
            for name in (f"{prefix}rewards/{side}", f"{prefix}logps/{side}"):
                values = [row[name] for row in own]
                assert any(value is not None for value in values) is there
                assert (name in result.metrics) is there
        assert all(np.isfinite(row[name]) for row in own for name in (f"{prefix}loss", f"{prefix}kl"))
    assert (folder / "training_curves.png").stat().st_size > 10_000
    assert {panel.title for panel in curve_panels(lines)} >= {"loss", "implicit rewards", "reward accuracy"}
    assert "loss" in str(result)


@pytest.mark.slow
def test_it_learns_what_is_wanted(tiny: Path, tmp_path: Path) -> None:
    """Wanted rewards go up and unwanted ones down, from labels alone."""
    data = unpaired(tmp_path / "rows.jsonl", [i % 3 == 0 for i in range(24)])
    options: dict[str, Any] = {"max_steps": 8, "eval_steps": 8, "learning_rate": 3e-3, "save_strategy": "no"}
    run("kto", tiny, tmp_path / "run", train_data=(data,), eval_data=(data,), **options)
    first, last = (row for row in read_metrics(tmp_path / "run") if "eval_loss" in row)
    assert last["eval_loss"] < first["eval_loss"]
    assert last["eval_rewards/chosen"] > last["eval_rewards/rejected"]
    assert first["eval_rewards/accuracies"] == 0.5
    assert last["eval_rewards/accuracies"] > 0.6


@pytest.mark.slow
def test_weights_say_how_much_each_side_counts(tiny: Path, tmp_path: Path) -> None:
    """At the start, where each response's loss is λ/2: λ_D on a third of the rows, λ_U on the others."""
    data = unpaired(tmp_path / "rows.jsonl", [i % 3 == 0 for i in range(6)])
    weights = {"desirable_weight": 3.0, "undesirable_weight": 0.5}
    run("kto", tiny, tmp_path / "run", train_data=(data,), eval_data=(data,), max_steps=1, **weights)
    assert history(tmp_path / "run", "eval_loss")[0] == pytest.approx((2 * 3.0 + 4 * 0.5) / 6 / 2, rel=1e-5)
