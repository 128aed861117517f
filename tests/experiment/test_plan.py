"""An experiment's file becomes a plan: what stages name, what is swept, what is overridden, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_stages import CHAIN, KINDS, write

from preflab.core.records import UserError
from preflab.experiment.plan import Plan, read_plan


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("preflab.commands.COMMANDS", KINDS)


def plan(text: str, *assignments: str) -> Plan:
    return read_plan(write(text), assignments)


def one(text: str, *assignments: str, name: str = "a") -> dict[str, object]:
    """The settings of a stage."""
    return next(stage.settings.model_dump() for stage in plan(text, *assignments).stages if stage.name == name)


def problems(text: str, *assignments: str) -> str:
    with pytest.raises(UserError) as error:
        plan(text, *assignments)
    return str(error.value)


def stages(text: str) -> str:
    return f"stages:\n{text}"


# ---- names ---------------------------------------------------------------------------------------------------------


def test_stages_come_in_the_order_of_their_needs_and_else_of_the_file() -> None:
    found = plan(CHAIN)
    assert [stage.name for stage in found.stages] == ["first", "second", "gather", "apart"]
    assert {stage.name: stage.after for stage in found.stages} == {
        "first": (),
        "second": ("first",),
        "gather": ("first", "second"),
        "apart": (),
    }
    assert (found.name, found.title, found.output_dir) == ("out", "A chain", Path("out"))


def test_a_name_stands_for_what_a_stage_made_and_its_folder_for_all_of_it() -> None:
    text = """
  a: {run: make, source: "${b}"}
  b: {run: make, source: x, lora: true}
  c: {run: make, source: "${b.folder}/checkpoints"}
  d: {run: make, source: "${e}"}
  e: {run: gather, things: x}"""
    assert one(stages(text))["source"] == "runs/experiment/b/merged"
    assert one(stages(text), "b.lora=false")["source"] == "runs/experiment/b/model"
    assert one(stages(text), name="c")["source"] == "runs/experiment/b/checkpoints"
    assert one(stages(text), name="d")["source"] == "runs/experiment/e/things.json"


def test_values_stand_whole_within_text_and_within_one_another() -> None:
    text = """
values: {data: "pairs.jsonl", train: "${data}[:-3]", many: [x, "${data}"], half: 0.5, nothing: null}
stages:
  a: {run: gather, things: ["${many}", "first=${train}"], judge: "${nothing}", title: "β ${half}"}
  b: {run: make, source: x, beta: "${half}"}
"""
    assert one(text)["things"] == ("x", "pairs.jsonl", "first=pairs.jsonl[:-3]")
    assert (one(text)["judge"], one(text)["title"]) == (None, "β 0.5")
    assert one(text, name="b")["beta"] == 0.5
    assert one(text, "data=mine.jsonl")["things"] == ("x", "mine.jsonl", "first=mine.jsonl[:-3]")


def test_settings_for_all_reach_the_stages_that_have_them_and_a_stages_own_wins() -> None:
    text = "settings: {seed: 3, beta: 0.3}\n" + stages(
        """
  a: {run: make, source: x, beta: 0.5}
  b: {run: gather, things: x}
  c: {run: make, source: x}"""
    )
    assert (one(text)["seed"], one(text)["beta"]) == (3, 0.5)
    assert one(text, name="b")["seed"] == 3
    assert one(text, name="c")["beta"] == 0.3


# ---- sweeps --------------------------------------------------------------------------------------------------------


def names(text: str) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.after for stage in plan(text).stages}


def test_what_is_swept_is_crossed() -> None:
    text = stages(
        "\n  a: {run: make, source: x, sweep: {beta: [0.05, 1e-5], seed: [0, 1]}}\n  b: {run: make, source: y}"
    )
    found = plan(text).stages
    assert [stage.name for stage in found] == [
        *("a-beta-0.05-seed-0", "a-beta-0.05-seed-1", "a-beta-1e-05-seed-0", "a-beta-1e-05-seed-1"),
        "b",
    ]
    assert found[1].variant == {"beta": 0.05, "seed": 1}
    assert found[1].group == "a"
    assert found[1].settings.model_dump()["beta"] == 0.05
    assert found[1].folder == Path("runs/experiment/a-beta-0.05-seed-1")


def test_a_list_takes_all_instances_with_names_that_differ() -> None:
    text = stages(
        """
  a: {run: gather, things: ["base=x", "mine=${b}", "${b}", "r=reward:${b.folder}"]}
  b: {run: make, source: x, sweep: {seed: [0, 1]}}"""
    )
    assert one(text)["things"] == (
        "base=x",
        *("mine-seed-0=runs/experiment/b-seed-0/model", "mine-seed-1=runs/experiment/b-seed-1/model"),
        *("runs/experiment/b-seed-0/model", "runs/experiment/b-seed-1/model"),
        *("r-seed-0=reward:runs/experiment/b-seed-0", "r-seed-1=reward:runs/experiment/b-seed-1"),
    )
    assert names(text)["a"] == ("b-seed-0", "b-seed-1")


def test_a_stage_that_takes_one_thing_is_made_for_each() -> None:
    text = stages(
        """
  sft: {run: make, source: x, sweep: {seed: [0, 1]}}
  dpo: {run: make, source: "${sft}", sweep: {beta: [0.1, 0.2]}}
  end: {run: make, source: "${dpo}"}"""
    )
    assert {name: after for name, after in names(text).items() if name.startswith("end")} == {
        f"end-beta-{beta}-seed-{seed}": (f"dpo-beta-{beta}-seed-{seed}",) for beta in (0.1, 0.2) for seed in (0, 1)
    }
    assert names(text)["dpo-beta-0.1-seed-1"] == ("sft-seed-1",)


def test_a_list_gathers_and_a_text_does_not_whatever_the_setting_takes() -> None:
    text = stages(
        """
  b: {run: make, source: x, sweep: {seed: [0, 1]}}
  each: {run: gather, things: "b=${b.folder}/x"}
  all: {run: gather, things: ["b=${b.folder}/x"]}"""
    )
    assert {name: after for name, after in names(text).items() if name[0] != "b"} == {
        **{"each-seed-0": ("b-seed-0",), "each-seed-1": ("b-seed-1",)},
        "all": ("b-seed-0", "b-seed-1"),
    }
    assert one(text, name="each-seed-1")["things"] == ("b=runs/experiment/b-seed-1/x",)
    assert "all.source: " in problems(text.replace('gather, things: ["b=', 'make, source: ["b='))


def test_what_is_swept_under_one_name_goes_hand_in_hand() -> None:
    text = stages(
        """
  sft: {run: make, source: x, sweep: {seed: [0, 1]}}
  dpo: {run: make, source: "${sft}", sweep: {seed: [0, 1], beta: [0.1, 0.2]}}
  all: {run: gather, things: ["sft=${sft}", "dpo=${dpo}"], sweep: {seed: [0, 1]}}"""
    )
    assert names(text)["dpo-seed-1-beta-0.2"] == ("sft-seed-1",)
    assert len(names(text)) == 2 + 4 + 2
    assert one(text, name="all-seed-1")["things"] == (
        "sft=runs/experiment/sft-seed-1/model",
        "dpo-beta-0.1=runs/experiment/dpo-seed-1-beta-0.1/model",
        "dpo-beta-0.2=runs/experiment/dpo-seed-1-beta-0.2/model",
    )
    assert "never meet" in problems(
        text.replace("beta: [0.1, 0.2]}", "beta: [0.1]}").replace("[0, 1], beta", "[7], beta")
    )


def test_stages_and_values_can_be_swept() -> None:
    text = """
values: {betas: [0.1, 0.2]}
stages:
  b: {run: make, source: x}
  a: {run: make, sweep: {source: ["${b}", "up/to you"], beta: "${betas}"}}
"""
    assert set(names(text)) == {"b"} | {
        f"a-source-{source}-beta-{beta}" for source in ("b", "up-to-you") for beta in (0.1, 0.2)
    }
    assert names(text)["a-source-b-beta-0.1"] == ("b",)
    assert names(text)["a-source-up-to-you-beta-0.1"] == ()
    assert one(text, name="a-source-b-beta-0.1")["source"] == "runs/experiment/b/model"


# ---- overrides -----------------------------------------------------------------------------------------------------


def test_what_is_overridden() -> None:
    changed = (
        *("start=./local.jsonl[:-300]", "second.beta=0.5", "second.sweep.seed=[1, 2]", "settings.seed=4"),
        *("output_dir=there", "title=Mine", "other=[z]"),
    )
    found = plan(CHAIN, *changed)
    assert (found.output_dir, found.title, found.name) == (Path("there"), "Mine", "there")
    by_name = {stage.name: stage.settings.model_dump() for stage in found.stages}
    assert by_name["first"]["source"] == "./local.jsonl[:-300]"
    assert (by_name["first"]["seed"], by_name["second-seed-2"]["seed"]) == (4, 2)
    assert by_name["second-seed-1"]["beta"] == 0.5
    assert found.document["values"] == {"start": "./local.jsonl[:-300]", "other": ["z"]}
    assert found.document["output_dir"] == "there"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stat=x", "there is no stat; did you mean start?"),
        ("secnd.beta=1", "there is no secnd.beta; did you mean second.beta?"),
        ("second.beta.x=1", "write second.SETTING=value or second.sweep.SETTING=[one, two]"),
        ("start", "write key=value"),
        ("start=[1", "start=[1: not valid YAML"),
        ("second.bta=1", "second.bta: there is no such setting; did you mean beta?"),
        ("second.sweep.bta=[1]", "second.sweep.bta: there is no such setting; did you mean beta?"),
        ("second.sweep.beta=[1]", "second: beta is set and swept"),
        ("second.sweep.seed=1", "second.sweep: a list of values for each setting is needed"),
        ("second.beta=no", "second.beta: found 'no'; a number is needed"),
        ("second.run=mak", "second.run: no stage does 'mak'; did you mean make?"),
        ("second.output_dir=x", "output_dir is not set here: what a stage leaves lies in OUTPUT_DIR/STAGE"),
        ("second.overwrite=true", "overwrite is not set here: `preflab run --overwrite` makes anew what has changed"),
        ("settings.overwrite=true", "overwrite is not set here"),
        ("settings.sed=1", "settings.sed: no stage has such a setting; did you mean seed?"),
        ("settings.seed=x", "settings.seed, for first: found 'x'; a whole number is needed"),
        ("second.source=${frst}", "second: nothing is called frst; did you mean first?"),
        ("second.source=${start.folder}", "second: nothing is called start.folder"),
        ("start=${oter}", "values.start: there is no value oter; did you mean other?"),
        ("start=${first}", "values.start: there is no value first"),
        ("start=a ${other}", "${other} is a list, and cannot stand amid other text: a ${other}"),
        ("first.source=${gather}", "needs the one before, so none can be the first: gather → first → gather"),
        ("first.source=${first}", "so none can be the first: first → first"),
    ],
)
def test_what_cannot_be_overridden(assignment: str, message: str) -> None:
    assert message in problems(CHAIN, assignment)


# ---- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x", "experiment.yaml: stages: missing, and it has no default"),
        ("stage: {a: 1}\nstages: {}", "experiment.yaml: stage: there is no such setting; did you mean stages?"),
        ("stages: {a: 1}", "a: a stage is written `run: COMMAND`"),
        ("stages: {a: {source: x}}", "a: a stage is written `run: COMMAND`"),
        ("stages: {a: {run: make}}", "a.source: missing, and it has no default"),
        ("stages: {a.b: {run: make, source: x}}", "'a.b' cannot be a name here"),
        ("stages: {settings: {run: make, source: x}}", "settings has a meaning of its own"),
        ("values: {a: 1}\nstages: {a: {run: make, source: x}}", "a names a value and a stage"),
        ("values: {b: {c: 1}}\nstages: {a: {run: make, source: x}}", "values.b: a value is text, a number"),
        ("values: {b: '${c}', c: '${b}'}\nstages: {a: {run: make, source: x}}", "values: each of these needs the one"),
        ("stages: {a: {run: make, source: x, sweep: {seed: [0, 0]}}}", "stages: two would be called a-seed-0"),
        ("stages: {a: {run: make, sweep: {source: [a b, a-b]}}}", "stages: two would be called a-source-a-b"),
        (f"stages: {{a: {{run: make, sweep: {{source: [{'x' * 100}]}}}}}}", "is too long for a name"),
        (
            "settings: {beta: 1}\nstages: {a: {run: make, source: x, sweep: {beta: [1]}}}",
            "settings.beta: is for no stage",
        ),
        ("settings: {seed: 1}\nstages: {a: {run: make, source: x, seed: 2}}", "settings.seed: is for no stage"),
        ("stages: {a: {run: gather, things: [x=${b}]}}", "what holds ${…} has to stand in quotes"),
    ],
)
def test_what_a_file_cannot_say(text: str, message: str) -> None:
    assert message in problems(text)


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = """
settings: {sed: 1}
stages:
  a: {run: make, source: "${nobody}"}
  b: {run: fly}
  c: {run: make, source: x, beta: -1, gama: 2}
  d: {run: make, source: "${c}", seed: "1.5"}
  e: {run: make, source: "${b}"}
"""
    found = problems(text)
    assert found.startswith("6 problems:\n")
    for problem in (
        "a: nothing is",
        "b.run: no stage does",
        "c.beta: found -1",
        "c.gama: ",
        "d.seed: ",
        "settings.sed",
    ):
        assert f"experiment.yaml: {problem}" in found


def test_a_sweep_of_a_million_is_refused_before_it_is_laid_out() -> None:
    numbers = ", ".join(str(number) for number in range(1, 1001))
    text = stages(f"""
  a: {{run: make, source: x, sweep: {{beta: [{numbers}], seed: [{numbers}]}}}}""")
    assert "a.sweep: makes 1000000 stages of one; 1000 are the most" in problems(text)


def test_sweeps_that_multiply_to_too_many_are_refused() -> None:
    numbers = ", ".join(str(number) for number in range(1, 41))
    text = stages(f"""
  a: {{run: make, source: x, sweep: {{beta: [{numbers}]}}}}
  b: {{run: make, source: "${{a}}", sweep: {{seed: [{numbers}]}}}}""")
    assert "the sweeps together make more than 1000 stages" in problems(text)
