"""Settings of every objective, the grammar of mixtures, and the lists of objectives that people read."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from objective_rows import ROWS, SOME

from preflab import cli
from preflab.core.config import load_settings
from preflab.core.records import UserError
from preflab.objectives import OBJECTIVES
from preflab.training.losses import loss_of
from preflab.training.objective_commands import objective_summaries
from preflab.training.objectives import NEEDS, KnownObjective, list_objectives
from preflab.training.preference_settings import PairSettings, PreferenceSettings, own_fields, settings_of, summary_of
from preflab.training.settings import ObjectivesSettings

DOCS = Path(__file__).parents[2] / "docs" / "objectives.md"
GIVEN: dict[str, Any] = {"model": "-", "train_data": ["-"]}
of_every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def listed() -> dict[str, KnownObjective]:
    return {known.name: known for known in list_objectives(ObjectivesSettings()).objectives}


# ---- the classes ----------------------------------------------------------------------------------------------------


def test_every_objective_has_settings_of_its_own() -> None:
    assert [settings_of(name).objective for name in OBJECTIVES] == list(OBJECTIVES)
    folders = {settings_of(name).model_fields["output_dir"].default for name in OBJECTIVES}
    assert folders == {Path("runs") / name for name in OBJECTIVES}
    assert settings_of("ipo") is settings_of("ipo")
    with pytest.raises(UserError, match=r"no objective is called 'ipoo'; did you mean ipo\?"):
        settings_of("ipoo")


@of_every_objective
def test_own_fields_are_the_arguments_of_the_function(name: str) -> None:
    """With the same defaults, but Ψ, which the settings name and the function is given."""
    kind, parameters = settings_of(name), inspect.signature(OBJECTIVES[name].loss).parameters
    arguments = {p.name: p.default for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert own_fields(kind) == list(arguments)
    defaults = {field: kind.model_fields[field].default for field in own_fields(kind)}
    assert {**defaults, "psi": None} == {**arguments, "psi": None}
    settings = kind(**GIVEN)
    assert settings.hyperparameters == defaults
    assert settings.model_dump().keys() == kind.model_fields.keys(), "what is derived is no setting"


@of_every_objective
def test_each_says_what_it_is_and_where_its_defaults_come_from(name: str) -> None:
    kind = settings_of(name)
    assert issubclass(kind, PairSettings) is (OBJECTIVES[name].data == "pairs")
    assert kind.__doc__
    assert kind.__doc__ != PreferenceSettings.__doc__
    assert kind.line.recipe
    for field in ("learning_rate", *own_fields(kind)):
        assert kind.model_fields[field].description


def recorded(name: str, field: str) -> str:
    """A setting as a line of settings.txt."""
    found = settings_of(name).model_fields[field]
    kind, default = getattr(found.annotation, "__name__", found.annotation), found.default
    return " ".join([f"{name}.{field}:", str(kind), *map(repr, found.metadata), f"= {default}: {found.description}"])


def test_settings_are_those_that_are_recorded() -> None:
    """What is read off the functions: a type, a bound or a default that changes changes what runs are."""
    lines = (Path(__file__).parent / "settings.txt").read_text(encoding="utf-8").splitlines()[1:]
    fields = [
        (name, field)
        for name in OBJECTIVES
        for field in ("learning_rate", "output_dir", *own_fields(settings_of(name)))
    ]
    assert [recorded(*field) for field in fields] == lines


@of_every_objective
def test_settings_that_all_have_come_first(name: str) -> None:
    kind = settings_of(name)
    base = PairSettings if OBJECTIVES[name].data == "pairs" else PreferenceSettings
    assert list(kind.model_fields) == [*base.model_fields, *own_fields(kind)]


def test_summaries_are_read_without_torch() -> None:
    assert objective_summaries() == {name: summary_of(line.loss) for name, line in OBJECTIVES.items()}
    code = "import sys, preflab.cli; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


OUT_OF_BOUNDS = {
    "beta": (0, -1),
    "label_smoothing": (-0.1, 0.5),
    "sft_weight": (-1,),
    "alpha": (-0.1,),
    "gamma_beta_ratio": (-0.1,),
    "desirable_weight": (0,),
    "undesirable_weight": (0,),
    "learning_rate": (0,),
}


@of_every_objective
def test_values_out_of_bounds_are_refused(name: str) -> None:
    kind = settings_of(name)
    for field in ("learning_rate", *own_fields(kind)):
        for value in OUT_OF_BOUNDS.get(field, ()):
            with pytest.raises(UserError, match="number"):
                load_settings(kind, None, {**GIVEN, field: str(value)})
    assert set(own_fields(kind)) <= {*OUT_OF_BOUNDS, "psi"}
    with pytest.raises(UserError, match="number greater than 0"):
        load_settings(settings_of("exo"), None, {**GIVEN, "label_smoothing": "0"})


# ---- mixtures -------------------------------------------------------------------------------------------------------


def mixed(name: str, *mix: str) -> list[tuple[str, float, dict[str, Any]]]:
    """The further terms of a mixture: objective, weight and hyper-parameters."""
    own, *others = load_settings(settings_of(name), None, {**GIVEN, "mix": list(mix)}).terms
    assert (own.weight, own.settings.objective) == (1, name)
    return [(term.settings.objective, term.weight, term.settings.hyperparameters) for term in others]


def test_terms() -> None:
    found = mixed("dpo", "ipo?weight=0.5&beta=0.2", "robust_dpo", "sft?weight=2", "psipo?psi=my+own/a=b.py:f")
    assert found[0] == ("ipo", 0.5, {"beta": 0.2})
    assert found[1] == ("robust_dpo", 1.0, {"beta": 0.1, "label_smoothing": 0.1}), "its own defaults"
    assert found[2] == ("sft", 2.0, {})
    assert found[3][2]["psi"] == "my+own/a=b.py:f", "a path is taken as it is"
    assert mixed("orpo") == []


@pytest.mark.parametrize("name", [name for name, line in OBJECTIVES.items() if line.data == "pairs"])
def test_every_objective_on_pairs_can_be_mixed_with_another(name: str) -> None:
    other = "dpo" if name != "dpo" else "ipo"
    (term,) = mixed(other, f"{name}?weight=0.25")
    assert term == (name, 0.25, settings_of(name)(**GIVEN).hyperparameters)
    assert mixed(name, other)[0][0] == other


REFUSED = {
    "nope": r"nope: no objective is called 'nope'.* Known are dpo, .*orpo, sft",
    "kto?weight=1": "kto reads single responses, and cannot be mixed in",
    "?weight=1": "no objective is called ''",
    "ipo?weight=x": r"ipo\?weight=x: the weight is no number",
    "ipo?weight=0": "a weight greater than 0 is needed",
    "ipo?weight=nan": "a weight greater than 0 is needed",
    "ipo?weight=inf": "a weight greater than 0 is needed",
    "ipo?alpha=1": "ipo has no alpha; it has weight, beta",
    "ipo?learning_rate=1": "ipo has no learning_rate",
    "ipo?beta": r"name=value is needed.*ipo\?weight=0\.5",
    "ipo?beta=0.1&beta=0.2": "a name is given twice",
    "ipo?beta=0": "beta: found '0'; a number greater than 0",
    "ipo?beta=many": "beta: found 'many'; a number is needed",
    "exo?label_smoothing=0.5": "label-smoothing: found '0.5'",
    "sft?beta=1": "sft has no beta; it has weight",
    "sft?weight=-1": "a weight greater than 0 is needed",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_what_is_no_term(spec: str) -> None:
    with pytest.raises(UserError, match=REFUSED[spec]):
        mixed("dpo", spec)


@pytest.mark.parametrize("mix", [("dpo",), ("ipo", "ipo?beta=0.5"), ("sft", "sft")])
def test_each_objective_is_a_term_once(mix: tuple[str, ...]) -> None:
    """Else their losses would be reported under one name, and one would hide the other."""
    with pytest.raises(UserError, match=f"each objective once, and {mix[0]} is a term twice"):
        mixed("dpo", *mix)


def test_kto_takes_no_mixture() -> None:
    with pytest.raises(UserError, match="mix: there is no such setting"):
        load_settings(settings_of("kto"), None, {**GIVEN, "mix": ["sft"]})


# ---- the command line -----------------------------------------------------------------------------------------------


@of_every_objective
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["train", name, "--help"])
    assert not end.value.code
    shown = capsys.readouterr().out
    for field in ("learning_rate", *own_fields(settings_of(name))):
        assert f"--{field.replace('_', '-')}" in shown
    assert ("--mix" in shown) is (OBJECTIVES[name].data == "pairs")


def test_the_command_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["objectives"])
    assert not end.value.code
    shown = capsys.readouterr().out
    blocks = re.split(r"\n(?=\w+\n  )", shown)
    assert [block.split("\n")[0] for block in blocks] == list(OBJECTIVES)
    for block, (name, line) in zip(blocks, OBJECTIVES.items(), strict=True):
        kind = settings_of(name)
        assert line.formula in block
        assert line.source in block
        assert NEEDS[line.data] in block
        assert f"{'a' if line.reference else 'no'} reference" in block
        assert line.recipe in block
        for field in ("learning_rate", *own_fields(kind)):
            assert f"{field} {kind.model_fields[field].default}" in block


# ---- docs/objectives.md ---------------------------------------------------------------------------------------------


def tables() -> list[list[list[str]]]:
    """The page's tables as rows of cells, without their heads."""
    found = re.findall(r"(?:^\|.*\n)+", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return [
        [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()[2:]
        ]
        for table in found
    ]


def test_the_page_lists_the_table() -> None:
    over_tokens = {"sum": "sums", "mean": "means", "both": None}
    formulas, defaults = tables()
    known = listed()
    assert [row[0] for row in formulas] == [row[0] for row in defaults] == [f"`{name}`" for name in known]
    for row, objective in zip(formulas, known.values(), strict=True):
        _, formula, tokens, reference, data = row
        assert (formula, reference, data) == (
            objective.line.formula,
            "yes" if objective.line.reference else "no",
            objective.line.data,
        )
        assert tokens == (over_tokens[ROWS[objective.name].lengths] or tokens)
        assert tokens.startswith(("sums", "means"))
    for row, objective in zip(defaults, known.values(), strict=True):
        shown = ", ".join(f"{name} {value}" for name, value in objective.defaults.items())
        assert row[1:] == [shown, objective.line.source, objective.line.recipe]


def test_the_page_says_when_to_use_each_and_its_examples_are_of_the_grammar(tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    advice = text.split("## When to use which")[1].split("\n## ")[0]
    assert all(f"`{name}`" in advice for name in OBJECTIVES)
    mixing = text.split("## Mixing terms")[1].split("\n## ")[0]
    assert len(mixed("dpo", *re.findall(r'--mix "(.+?)"', mixing))) == 2
    (code,) = re.findall(r"```python\n# psi\.py\n(.+?)```", text, re.DOTALL)
    (tmp_path / "psi.py").write_text(code)
    psi = f"{tmp_path}/psi.py:cautious"
    found = loss_of(settings_of("psipo")(**GIVEN, psi=psi, beta=0.2, label_smoothing=0.1))(SOME).per_example
    assert found.tolist() == pytest.approx([(2 - 2) ** 2, (-3 - 2) ** 2, (21 - 2) ** 2]), "t = (0.81 - 0.01)/0.4"
