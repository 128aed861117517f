"""ΨPO: Ψ by name and of the user's own, and what it has in common with IPO and with DPO."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_rows import SOME
from tiny_runs import history, run, write_model

from preflab.core.records import UserError
from preflab.objectives import PSI, PairLogps, dpo, psipo
from preflab.training import preferences as recipe
from preflab.training.losses import loss_of, own_code
from preflab.training.preference_settings import settings_of

QUICK: dict[str, Any] = {"max_steps": 1, "eval_data": (), "save_strategy": "no"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


def own(path: Path, body: str, name: str = "psi") -> str:
    path.write_text(f"def {name}(p):\n    return {body}\n")
    return f"{path}:{name}"


def optimum(loss: Callable[[PairLogps], Any]) -> float:
    """The log-ratio of the chosen response at which the loss is least, where that of the rejected one is 0."""
    ratios = torch.linspace(-40, 40, 16001, dtype=torch.float64)
    zeros, ones = torch.zeros_like(ratios), torch.ones_like(ratios)
    return float(ratios[loss(PairLogps(ratios, zeros, zeros, zeros, ones, ones)).per_example.argmin()])


# ---- the objective --------------------------------------------------------------------------------------------------


def test_known_psi() -> None:
    """Ψ(0.75) = 0.75, and ln(0.75/0.25) = ln 3."""
    assert PSI["identity"](0.75) == 0.75
    assert PSI["log-odds"](0.75) == pytest.approx(math.log(3))
    assert PSI["log-odds"](0.25) == pytest.approx(-math.log(3))


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_the_optimum_of_log_odds_is_that_of_conservative_dpo(epsilon: float, beta: float) -> None:
    """σ(β·(Δ_w − Δ_l)) = 1 − ε for both."""
    ours = optimum(partial(psipo, psi=PSI["log-odds"], beta=beta, label_smoothing=epsilon))
    conservative = optimum(partial(dpo, beta=beta, label_smoothing=epsilon))
    assert ours == pytest.approx(conservative, abs=0.006)
    assert 1 / (1 + math.exp(-beta * ours)) == pytest.approx(1 - epsilon, abs=0.001)


def test_the_target_is_what_the_paper_gives_a_pair_of_known_preference() -> None:
    """(Ψ(p) − Ψ(1 − p))/(2β), by hand for Ψ = p² and p = 0.9: (0.81 − 0.01)/0.4 = 2."""
    found = psipo(SOME, psi=lambda p: p**2, beta=0.2, label_smoothing=0.1).per_example
    assert found.tolist() == pytest.approx([(2 - 2) ** 2, (-3 - 2) ** 2, (21 - 2) ** 2])


def test_a_constant_of_psi_does_not_matter() -> None:
    one, other = (psipo(SOME, psi=psi).per_example for psi in (lambda p: 3 * p, lambda p: 3 * p + 7))
    torch.testing.assert_close(one, other)


# ---- reading one ----------------------------------------------------------------------------------------------------


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    """Also the only one in its file, and one that gives whole numbers."""
    expected = psipo(SOME, psi=lambda p: p**3, beta=0.1, label_smoothing=0.1).per_example
    for spec in (own(tmp_path / "mine.py", "p ** 3"), str(tmp_path / "mine.py")):
        torch.testing.assert_close(read_psi(spec, label_smoothing=0.1)(SOME).per_example, expected)
    whole = read_psi(own(tmp_path / "whole.py", "round(p)"), label_smoothing=0.1)(SOME).per_example
    assert whole.tolist() == pytest.approx([(2 - 5) ** 2, (-3 - 5) ** 2, (21 - 5) ** 2])


def read_psi(spec: str, **options: Any) -> Callable[[PairLogps], Any]:
    """ΨPO's loss with this Ψ, tried out."""
    return loss_of(settings_of("psipo")(model="-", train_data=("-",), psi=spec, **options))


REFUSED = {
    "no number": ("'a'", 0.1, r"mine\.py:psi: could not convert string to float"),
    "a mistake": ("p + nothing", 0.1, r"mine\.py line 2: NameError.*, of 0\.9"),
    "not finite": ("1 / (1 - p)", 0.0, r"not finite at the probability 1\.0; a label_smoothing above 0"),
    "too large": ("10.0 ** (10000 * p)", 0.1, r"not finite at the probability 0\.9"),
    "no number at ε": ("float('nan') if p < 0.5 else p", 0.1, r"not finite at the probability 0\.1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    body, epsilon, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        read_psi(own(tmp_path / "mine.py", body), label_smoothing=epsilon)


def test_what_is_no_psi(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no psi is called 'logodds'; did you mean log-odds\? Known are identity, log-odds, or"
    ):
        read_psi("logodds", label_smoothing=0.1)
    with pytest.raises(UserError, match="no such file"):
        read_psi(f"{tmp_path}/none.py:psi", label_smoothing=0.1)
    with pytest.raises(UserError, match=r"no 'phi' in it; it defines psi"):
        read_psi(own(tmp_path / "mine.py", "p").replace(":psi", ":phi"), label_smoothing=0.1)
    with pytest.raises(UserError, match="psipo, psi log-odds: psi is not finite at the probability 1"):
        read_psi("log-odds", label_smoothing=0.0)


def test_the_fingerprint_is_that_of_the_file(tmp_path: Path) -> None:
    spec = own(tmp_path / "mine.py", "p")
    kind = settings_of("psipo")
    given, known = (kind(model="-", train_data=("-",), psi=psi) for psi in (spec, "identity"))
    first = own_code(given)
    assert list(first) == [f"psi {spec}"]
    assert own_code(given) == first
    own(tmp_path / "mine.py", "2 * p")
    assert own_code(given) != first
    assert own_code(known) == {"psi identity": "identity"}


@pytest.mark.parametrize("body", ["-p", "1.0"])
def test_a_psi_that_does_not_rise_is_refused(body: str, tmp_path: Path) -> None:
    """It would draw responses together, or prefer the rejected ones."""
    spec = own(tmp_path / "mine.py", body)
    with pytest.raises(UserError, match=r"psi .*mine\.py:psi: psi is .* it must rise"):
        read_psi(spec, label_smoothing=0.1)


# ---- whole runs -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_changed_psi_is_another_run(tiny: Path, tmp_path: Path) -> None:
    """At the start the loss is t²: with Ψ = p and ε = 0, (1/0.2)² = 25."""
    spec = own(tmp_path / "mine.py", "p")
    run("psipo", tiny, tmp_path / "run", psi=spec, **QUICK)
    assert history(tmp_path / "run", "loss")[0] == pytest.approx(25, rel=1e-4)
    run("psipo", tiny, tmp_path / "run", psi=spec, **QUICK)
    own(tmp_path / "mine.py", "2 * p")
    with pytest.raises(UserError, match=r"made from other inputs[\s\S]*psi .*mine\.py:psi"):
        run("psipo", tiny, tmp_path / "run", psi=spec, **QUICK)
    run("psipo", tiny, tmp_path / "run", psi=spec, overwrite=True, **QUICK)
    assert history(tmp_path / "run", "loss")[0] == pytest.approx(100, rel=1e-4)


@pytest.mark.slow
def test_a_psi_of_ones_own_in_a_mixture(tiny: Path, tmp_path: Path) -> None:
    """Its file is an input of the run there too."""
    spec = own(tmp_path / "mine.py", "p")
    mix = (f"psipo?weight=0.25&psi={spec}&beta=0.2&label_smoothing=0",)
    run("dpo", tiny, tmp_path / "run", mix=mix, **QUICK)
    assert history(tmp_path / "run", "loss/psipo")[0] == pytest.approx((1 / 0.4) ** 2, rel=1e-4)
    assert history(tmp_path / "run", "loss")[0] == pytest.approx(math.log(2) + 0.25 * (1 / 0.4) ** 2, rel=1e-4)
    own(tmp_path / "mine.py", "2 * p")
    with pytest.raises(UserError, match=r"made from other inputs[\s\S]*mine\.py"):
        run("dpo", tiny, tmp_path / "run", mix=mix, **QUICK)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("psipo", {"psi": "log-odds", "label_smoothing": 0.0}),
        ("dpo", {"mix": ("psipo?psi=log-odds&label_smoothing=0",)}),
    ],
    ids=["alone", "in a mixture"],
)
def test_log_odds_of_certain_labels_is_refused_at_the_start(
    kind: str, options: dict[str, Any], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "prepare", None)
    with pytest.raises(UserError, match="log-odds: psi is not finite at the probability"):
        run(kind, tiny, tmp_path / "run", **options, **QUICK)
    assert not (tmp_path / "run").exists()


def test_settings_reach_the_function() -> None:
    settings = settings_of("psipo")(model="-", train_data=("-",), psi="log-odds", beta=0.7, label_smoothing=0.2)
    found = loss_of(settings)(SOME).per_example
    torch.testing.assert_close(found, psipo(SOME, psi=PSI["log-odds"], beta=0.7, label_smoothing=0.2).per_example)
