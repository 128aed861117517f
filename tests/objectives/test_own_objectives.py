"""Objectives of a user's own, and of an installed package: with all that ours have."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from installed_package import install
from objective_rows import SOME
from tiny_runs import DEFAULTS, history, write_model

from preflab import cli
from preflab.core.config import resolved
from preflab.core.durable import read_metrics
from preflab.core.records import UserError
from preflab.experiment.plan import read_plan
from preflab.objectives import dpo
from preflab.training.losses import loss_of, needs_reference, own_code
from preflab.training.objectives import list_objectives
from preflab.training.preference_settings import PairSettings, own_fields, settings_of
from preflab.training.preferences import train_preferences
from preflab.training.settings import ObjectivesSettings

EXAMPLE = Path(__file__).parents[2] / "examples" / "objective.py"
GIVEN: dict[str, Any] = {"model": "-", "train_data": ["-"]}
QUICK: dict[str, Any] = {**DEFAULTS, "eval_data": (), "max_steps": 1, "save_strategy": "no"}
LN_2 = math.log(2)

START = """
from typing import Annotated
import torch
from preflab.objectives import Bounds, LabelledLogps, Loss, Objective, PairLogps, Statistic
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the example in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path / "mine.py")
    return tmp_path


def call(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code in (0, None)


def words(**values: Any) -> list[str]:
    flat = [
        (name, item) for name, value in values.items() for item in (value if isinstance(value, tuple) else (value,))
    ]
    return [word for name, item in flat for word in (f"--{name.replace('_', '-')}", str(item))]


def own(path: Path, body: str) -> str:
    path.write_text(START + body)
    return f"{path}:f"


# ---- what is read off a function ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_settings_of_a_file() -> None:
    kind = settings_of("mine.py:focal")
    assert issubclass(kind, PairSettings)
    assert kind is settings_of("mine.py"), "the only function in the file"
    assert (kind.objective, kind.__doc__) == ("focal", "DPO that leaves pairs alone which are ranked well already.")
    assert own_fields(kind) == ["beta", "gamma"]
    assert kind.model_fields["gamma"].description == "How much less a well-ranked pair counts; at 0 this is DPO."
    assert kind.model_fields["output_dir"].default == Path("runs/focal")
    assert kind.model_fields["learning_rate"].default == 1e-6
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        kind(**GIVEN, gamma=-1)
    given = kind(**GIVEN, gamma=0, beta=0.3)
    torch.testing.assert_close(loss_of(given)(SOME).per_example, dpo(SOME, beta=0.3).per_example)
    assert needs_reference(given)


@pytest.mark.usefixtures("folder")
def test_the_file_is_part_of_the_run() -> None:
    before = own_code(settings_of("mine.py:focal")(**GIVEN))
    assert list(before) == ["objective focal"]
    Path("mine.py").write_text(EXAMPLE.read_text() + "\n# another version\n")
    assert own_code(settings_of("mine.py:focal")(**GIVEN)) != before
    mixed = settings_of("dpo")(**GIVEN, mix=("mine.py:focal?weight=0.5&gamma=1",))
    assert list(own_code(mixed)) == ["objective focal"]
    assert own_code(settings_of("dpo")(**GIVEN)) == {}


def test_a_line_of_ones_own_says_what_the_function_does_not(tmp_path: Path) -> None:
    body = "def g(pairs: PairLogps, *, alpha: int = 3) -> Loss:\n    return Loss(-pairs.chosen * alpha, {})\n\n\n"
    kind = settings_of(own(tmp_path / "mine.py", body + "f = Objective(g, reference=False, learning_rate=5e-6)\n"))
    assert (kind.objective, kind.__doc__) == ("f", "An objective of your own.")
    assert kind.model_fields["learning_rate"].default == 5e-6
    assert kind.model_fields["alpha"].description == "alpha of the objective."
    assert not needs_reference(kind(**GIVEN))
    assert loss_of(kind(**GIVEN))(SOME).per_example.tolist() == [30, 90, 9]


# ---- what is refused, and how ---------------------------------------------------------------------------------------

NO_OBJECTIVE = {
    "def f(x): pass": r"mine\.py: f cannot be an objective: its first argument must be annotated with PairLogps or",
    "def f(): pass": r"its first argument must be annotated",
    "f = 3": "cannot be an objective: 3 is not a callable object",
    "def f(pairs: PairLogps, beta: float = 1): pass": "keyword-only ones with defaults, not beta: float = 1",
    "def f(pairs: PairLogps, *, beta: float): pass": "keyword-only ones with defaults, not beta: float",
    "def f(pairs: PairLogps, *, beta=1): pass": "its argument beta needs a type, such as beta: float",
    "def f(pairs: PairLogps, *, model: str = ''): pass": "model is a setting of every training",
    "def f(pairs: 'Nothing'): pass": "name 'Nothing' is not defined",
}


@pytest.mark.parametrize("body", NO_OBJECTIVE)
def test_what_is_no_objective(body: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=NO_OBJECTIVE[body]):
        settings_of(own(tmp_path / "mine.py", body + "\n"))


PAIRS = "def f(pairs: PairLogps) -> Loss:\n    return "
NO_LOSS = {
    PAIRS + "pairs.chosen": r"mine\.py: f: it must return Loss\(per_example, values\), and returned Tensor",
    PAIRS + "Loss(pairs.chosen.mean(), {})": r"its losses must be a tensor of \[3\], one per row, and are of \[\]",
    PAIRS + "Loss(pairs.chosen / 0, {})": r"its losses are not finite: \[-inf, -inf, -inf\]",
    PAIRS + "Loss(pairs.chosen.detach(), {})": "do not depend on the policy's log-probabilities",
    PAIRS + "Loss(pairs.chosen, None)": "its values must be a dict of tensors by name, and are a NoneType",
    PAIRS + "Loss(pairs.chosen, {'a': 1.0})": r"its value 'a' must be a tensor of \[3\], one per row, and is a float",
    PAIRS + "Loss(pairs.chosen, pairs.nothing)": r"mine\.py line 6: AttributeError: .*nothing",
    PAIRS + "1 / 0": r"mine\.py line 6: ZeroDivisionError",
    PAIRS + "exit()": r"mine\.py line 6: SystemExit",
    "def g(pairs: PairLogps) -> Loss:\n    return Loss(pairs.chosen - pairs.reference_chosen, {})\n"
    "f = Objective(g, reference=False)": r"its losses are not finite: \[nan, nan, nan\]",
    "def g(pairs: PairLogps) -> Loss:\n    return Loss(pairs.chosen, {})\n"
    "f = Objective(g, statistics={'s': Statistic(lambda step: step.values)})": "'s' must be one finite number",
}


@pytest.mark.parametrize("body", NO_LOSS)
def test_what_returns_no_loss(body: str, tmp_path: Path) -> None:
    settings = settings_of(own(tmp_path / "mine.py", body + "\n"))(**GIVEN)
    with pytest.raises(UserError, match=NO_LOSS[body]):
        loss_of(settings)


def test_a_name_that_nobody_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "dpoo", "--help"])
    assert end.value.code == 2
    assert "dpoo" in capsys.readouterr().err


# ---- whole runs, from a user's folder -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_from_the_command_line(tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its loss begins at 0.5^γ·ln 2; its folder is another run's once the file has changed."""
    call("train", "mine.py:focal", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "DPO that leaves pairs alone" in shown
    assert "--gamma NUMBER How much less a well-ranked pair counts; at 0 this is DPO. [default: 2.0]" in shown
    given = words(**QUICK, model=tiny, gamma=1.0)
    call("train", "mine.py:focal", *given)
    assert history(folder / "runs/focal", "loss")[0] == pytest.approx(LN_2 / 2, rel=1e-4)
    config = yaml.safe_load((folder / "runs/focal/config.yaml").read_text())
    assert (config["gamma"], config["beta"]) == (1.0, 0.1)
    call("train", "mine.py:focal", "runs/focal/config.yaml")  # the very run, which is finished
    Path("mine.py").write_text(EXAMPLE.read_text().replace("0.5^γ", "something"))
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "mine.py:focal", *given])
    assert end.value.code == 2
    assert "made from other inputs" in capsys.readouterr().err


@pytest.mark.slow
def test_the_example_as_a_term(tiny: Path, folder: Path) -> None:
    call("train", "dpo", *words(**QUICK, model=tiny), "--mix", "mine.py:focal?weight=0.5&gamma=1")
    assert history(folder / "runs/dpo", "loss/focal")[0] == pytest.approx(LN_2 / 2, rel=1e-4)
    assert history(folder / "runs/dpo", "loss")[0] == pytest.approx(1.25 * LN_2, rel=1e-4)


@pytest.mark.usefixtures("folder")
def test_the_example_in_an_experiment() -> None:
    """As a stage with a sweep over its own parameter; a mistake is one of the file's problems."""
    stage = {"run": "train mine.py:focal", "model": "m", "train_data": ["d"], "sweep": {"gamma": [0.5, 1]}}
    Path("e.yaml").write_text(yaml.safe_dump({"stages": {"focal": stage}}))
    stages = read_plan(Path("e.yaml"), ()).stages
    assert [stage.name for stage in stages] == ["focal-gamma-0.5", "focal-gamma-1"]
    assert [resolved(stage.settings)["gamma"] for stage in stages] == [0.5, 1]
    stage["sweep"] = {"gamma": [-1]}
    Path("e.yaml").write_text(yaml.safe_dump({"stages": {"focal": stage}}))
    with pytest.raises(UserError, match=r"focal\.sweep\.gamma: found -1; a number of at least 0"):
        read_plan(Path("e.yaml"), ())
    Path("e.yaml").write_text(yaml.safe_dump({"stages": {"focal": {**stage, "run": "train mine.py:fokal"}}}))
    with pytest.raises(UserError, match="there is no 'fokal' in it; it defines focal"):
        read_plan(Path("e.yaml"), ())


@pytest.mark.slow
def test_statistics_of_the_steps_own_rows(tiny: Path, tmp_path: Path) -> None:
    """An objective on pairs that gets the mean length of a step, however it is cut; an evaluation's is of all rows."""
    body = """
def g(pairs: PairLogps) -> Loss:
    return Loss(-pairs.chosen * pairs.statistics["length"], {})

def length(step):
    return step.tokens.double().mean()

f = Objective(g, reference=False, statistics={"length": Statistic(length)})
"""
    kind, found = settings_of(own(tmp_path / "mine.py", body)), []
    for cut in (
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ):
        run = tmp_path / str(len(found))
        train_preferences(kind(**{**DEFAULTS, "max_steps": 2, "model": str(tiny), "output_dir": run, **cut}))
        found.append(read_metrics(run))
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert len({row["length"] for row in found[0] if "length" in row}) == 2, "one for each step"
    assert all(row["eval_length"] > 1 for row in found[0] if "eval_loss" in row)


def test_two_terms_with_different_statistics_of_one_name(tmp_path: Path) -> None:
    body = "def g(pairs: PairLogps) -> Loss:\n    return Loss(pairs.chosen, {})\n\n\n"
    lines = "".join(
        f"{name} = Objective(g, statistics={{'s': Statistic(lambda step: step.tokens.sum() + {number})}})\n"
        for number, name in enumerate("fh")
    )
    spec = own(tmp_path / "mine.py", body + lines)
    with pytest.raises(UserError, match="h: another term of the loss has a statistic 's' as well"):
        train_preferences(settings_of(spec)(**GIVEN, mix=(spec.replace(":f", ":h"),)))


@pytest.mark.slow
def test_labels_of_ones_own(tiny: Path, tmp_path: Path) -> None:
    """What it does not report is not asked for."""
    body = """
def f(given: LabelledLogps) -> Loss:
    return Loss(torch.where(given.wanted, -1, 1) * given.policy, {"mine": given.policy})
"""
    kind = settings_of(own(tmp_path / "mine.py", body))
    assert not issubclass(kind, PairSettings)
    train_preferences(kind(**{**QUICK, "model": str(tiny), "output_dir": tmp_path / "run"}))
    (row,) = read_metrics(tmp_path / "run")
    assert row["mine"] < 0
    assert row["logps/chosen_change"] == pytest.approx(0, abs=1e-4)
    assert "rewards/chosen" not in row


# ---- an installed package -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_installed_package(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(
        tmp_path, monkeypatch, "[preflab.objectives]\nguest = guest_losses:focal\n", guest_losses=EXAMPLE.read_text()
    )
    monkeypatch.chdir(tmp_path)
    call("train", "guest", "--help")
    assert "--gamma" in capsys.readouterr().out
    call("train", "guest", *words(**QUICK, model=tiny))
    assert history(tmp_path / "runs/guest", "loss")[0] == pytest.approx(LN_2 / 4, rel=1e-4)
    assert list(own_code(settings_of("guest")(**GIVEN))) == ["objective guest"]
    listed = {known.name: known for known in list_objectives(ObjectivesSettings()).objectives}
    assert "guest 1.2" in str(listed["guest"])
