"""Every objective of the table by its command's recipe, on the sandbox: where it starts, and what it needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import history, run, weights, write_model

from preflab.core.durable import read_metrics
from preflab.core.records import UserError
from preflab.objectives import OBJECTIVES, Objective, dpo
from preflab.training.losses import needs_reference
from preflab.training.preference_settings import settings_of

LN_2 = math.log(2)
TABLE: Any = OBJECTIVES
QUICK: dict[str, Any] = {"max_steps": 2, "eval_steps": 2, "save_strategy": "no"}

# At the defaults of their settings, where policy and reference agree, as the docstrings have it.
AT_THE_START = {
    **dict.fromkeys(("dpo", "robust_dpo", "ln_dpo"), LN_2),
    **dict.fromkeys(("hinge", "apo_zero", "apo_down"), 1.0),
    "ipo": 1 / (4 * 0.1**2),
    "exo": -math.log(4 * 0.001 * 0.999) / 2,
    "nca": 2 * LN_2,
    "sppo": 1 / (2 * 0.001**2),
    "psipo": (1 / 0.2) ** 2,
    "kto": 0.5,
}
# r_dpo's depends on the lengths, and that of an objective without a reference on the policy.
ELSEWHERE = {"r_dpo"} | {name for name, line in OBJECTIVES.items() if not line.reference}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


def references(cache: Path) -> list[Path]:
    return list((cache / "reference").glob("*")) if (cache / "reference").exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run(name: str, tiny: Path, tmp_path: Path, own_cache: Path) -> None:
    """It starts where its docstring says, learns something, and has a reference only where the table says so."""
    result = run(name, tiny, tmp_path / "run", **QUICK)
    losses = history(tmp_path / "run", "eval_loss")
    assert name in AT_THE_START or name in ELSEWHERE
    if name in AT_THE_START:
        assert losses[0] == pytest.approx(AT_THE_START[name], rel=1e-4)
        assert history(tmp_path / "run", "loss")[0] == pytest.approx(AT_THE_START[name], rel=1e-4)
    assert losses[1] != losses[0]
    before, after = weights(tiny), weights(result.model)
    assert any(not torch.equal(after[key], before[key]) for key in before)
    held = OBJECTIVES[name].reference
    assert bool(references(own_cache)) is held
    assert ("logps/chosen_change" in read_metrics(tmp_path / "run")[1]) is held
    assert str(result), "the command prints it"


@pytest.mark.slow
def test_a_term_with_a_reference_brings_it_back(tiny: Path, tmp_path: Path, own_cache: Path) -> None:
    """And a term without one needs none."""
    run("simpo", tiny, tmp_path / "free", mix=("orpo?weight=0.5", "sft"), **QUICK)
    assert not references(own_cache)
    run("simpo", tiny, tmp_path / "mixed", mix=("dpo?weight=0.5",), **QUICK)
    assert len(references(own_cache)) == 2, "of training rows and of held-out rows"
    assert history(tmp_path / "mixed", "eval_loss/dpo")[0] == pytest.approx(LN_2, abs=1e-5)
    first = read_metrics(tmp_path / "mixed")[0]
    assert first["eval_loss"] == pytest.approx(first["eval_loss/simpo"] + 0.5 * first["eval_loss/dpo"])
    assert first["eval_rewards/chosen"] < -0.1, "what is reported is simpo's; dpo's would be 0"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_who_needs_a_reference(name: str) -> None:
    kind, line = settings_of(name), OBJECTIVES[name]
    alone = kind(model="-", train_data=("-",))
    assert needs_reference(alone) is line.reference
    if line.data == "pairs":
        others = {"dpo", "ipo"} - {name}
        assert needs_reference(kind(model="-", train_data=("-",), mix=tuple(others)))
        assert needs_reference(kind(model="-", train_data=("-",), mix=("sft",))) is line.reference


def test_an_objective_that_reads_a_reference_that_no_one_computed_stops_the_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TABLE, "simpo", Objective(dpo, reference=False))
    with pytest.raises(UserError, match=r"simpo: its losses are not finite: \[nan, nan, nan\]"):
        run("simpo", tiny, tmp_path / "run", eval_data=(), **QUICK)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("name", ["kto", "simpo", "ipo"])
def test_float16_is_refused(name: str, tiny: Path, tmp_path: Path) -> None:
    """In which sums of log-probabilities, squared, would overflow."""
    with pytest.raises(UserError, match=r"float16 overflows.*bfloat16 or float32"):
        run(name, tiny, tmp_path / "run", dtype="float16")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ipo", "orpo"])
def test_responses_without_tokens_never_reach_a_division(name: str, tiny: Path, tmp_path: Path) -> None:
    """They are dropped by row, and counted; of two tokens, the terminator among them, the mean exists."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"prompt": "name a colour", "chosen": "red", "rejected": ""}\n'
        '{"prompt": "name a colour", "chosen": " ", "rejected": "red"}\n'
        '{"prompt": "name a colour", "chosen": "red", "rejected": "a"}\n'
        '{"prompt": "name a number", "chosen": "a", "rejected": "red"}\n'
    )
    run(name, tiny, tmp_path / "run", train_data=(str(rows),), eval_data=(), **QUICK)
    losses = history(tmp_path / "run", "loss")
    assert all(math.isfinite(loss) for loss in losses)
    assert len(losses) == 2
    with pytest.raises(UserError, match=r"no row can be used[\s\S]*empty response: 2 \(row 1, 2\)"):
        run(name, tiny, tmp_path / "none", train_data=(f"{rows}[:2]",), eval_data=(), **QUICK)
