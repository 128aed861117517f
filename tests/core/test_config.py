"""Settings: what a YAML file and overrides become, and what is said of what they cannot become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, ValidationError, model_validator

from preflab.core.config import Positional, Settings, dump_settings, load_settings, resolved
from preflab.core.records import UserError


class Base(Settings):
    model: str = Field(description="A model.")
    eval_strategy: Literal["no", "steps"] = Field("steps", description="When.")


class Example(Base):
    learning_rate: float = Field(2e-5, gt=0, description="A rate.")
    steps: int | None = Field(None, ge=1, description="Steps.")
    data: tuple[str, ...] = Field(description="Files.")
    extra_data: tuple[str, ...] = Field((), description="More files.")
    packing: bool = Field(False, description="Pack.")
    hub_token: str | None = Field(None, description="A secret.")
    eos_token: str | None = Field(None, description="No secret.")
    output_dir: Path = Field(Path("runs/x"), description="Where.")
    source: Annotated[str | None, Positional()] = Field(None, description="An argument.")

    @model_validator(mode="after")
    def _together(self) -> Example:
        if self.packing and self.steps == 13:
            raise UserError("packing needs steps other than 13")
        return self


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path: Path, text: str, **overrides: object) -> Example:
    return load_settings(Example, write(tmp_path, "model: m\ndata: [a]\n" + text), overrides)


def refusal(tmp_path: Path, text: str, **overrides: object) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, **overrides)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_the_file_wins_over_defaults_and_overrides_win_over_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, "learning_rate: 0.5\nsteps: 3\n", steps=7)
    assert (settings.learning_rate, settings.steps, settings.packing) == (0.5, 7, False)
    assert settings.data == ("a",)


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(tmp_path, "").steps = 3  # type: ignore[misc]  # what is tested


def test_a_field_without_a_description_is_a_defect_of_the_class() -> None:
    with pytest.raises(TypeError, match=r"Bad\.beta has no description"):

        class Bad(Settings):
            beta: float = 0.1


@pytest.mark.parametrize(
    ("text", "value"), [("1e-5", 1e-5), ("1E5", 1e5), ("5.e-6", 5e-6), (".5", 0.5), ("3", 3.0), ("'1e-5'", 1e-5)]
)
def test_numbers_are_read_as_they_look(tmp_path: Path, text: str, value: float) -> None:
    assert load(tmp_path, f"learning_rate: {text}").learning_rate == value


def test_words_that_yaml_1_1_turns_into_something_else_stay_words(tmp_path: Path) -> None:
    assert load(tmp_path, "eval_strategy: no").eval_strategy == "no"
    settings = load(tmp_path, "extra_data: [2024-01-31, 1:30, on]\nsteps: 010\n")
    assert settings.extra_data == ("2024-01-31", "1:30", "on")
    assert settings.steps == 10


@pytest.mark.parametrize(("word", "value"), [("true", True), ("False", False), ("yes", True), ("off", False)])
def test_booleans(tmp_path: Path, word: str, value: bool) -> None:
    assert load(tmp_path, f"packing: {word}").packing is value


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert refusal(tmp_path, "lerning_rate: 1") == (
        "run.yaml: lerning_rate: there is no such setting; did you mean learning_rate?"
    )
    assert "did you mean learning_rate?" in refusal(tmp_path, "learning-rate: 1")
    assert refusal(tmp_path, "qqq: 1").endswith("there is no such setting (--help lists them all)")
    assert refusal(tmp_path, "", qqq="1").startswith("--qqq: there is no such setting")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: fast", "learning_rate: found 'fast'; a number is needed"),
        ("learning_rate: true", "learning_rate: found True; a number is needed"),
        ("learning_rate: .nan", "learning_rate: found nan; a finite number is needed"),
        ("learning_rate: 0", "learning_rate: found 0; a number greater than 0.0 is needed"),
        ("learning_rate:", "learning_rate: found nothing; a number is needed"),
        ("steps: 2.5", "steps: found 2.5; a whole number or null is needed"),
        ("steps: false", "steps: found False; a whole number or null is needed"),
        ("steps: 0", "steps: found 0; a number of at least 1 is needed"),
        ("packing: 7", "packing: found 7; true or false is needed"),
        ("eval_strategy: never", "eval_strategy: found 'never'; one of no, steps is needed"),
        ("eos_token: 7", "eos_token: found 7; text (in quotes where it looks like something else) or null is needed"),
        ("extra_data: {a: b}", "extra_data: found {'a': 'b'}; a list, such as [one, two] is needed"),
        ("extra_data: [true]", "extra_data: found [True]; a list, such as [one, two] is needed"),
        ("extra_data: [b, 3]", "extra_data[1]: found 3; text (in quotes where it looks like something else) is needed"),
        ("eos_token: ''", "eos_token: found ''; a value is needed, not an empty one"),
        ("extra_data: [b, ' ']", "extra_data: found ['b', ' ']; a value is needed, not an empty one"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(f"run.yaml: {message}")


def test_required_values_must_be_there_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_settings(Example, write(tmp_path, "data: []\nmodel: ''\n"), {})
    assert [line.partition("run.yaml: ")[2] for line in str(caught.value).splitlines()[1:]] == [
        "model: found ''; a value is needed, not an empty one (leave the setting out for its default)",
        "data: found []; at least one value is needed",
    ]
    with pytest.raises(UserError, match=r"(?s)2 settings.*--model: missing.*--data: missing, and it has no default"):
        load_settings(Example, None, {})


def test_every_problem_is_listed_at_once_and_says_where_it_was_given(tmp_path: Path) -> None:
    assert refusal(tmp_path, "steps: x\nlearning_rte: 1\n", learning_rate="0", source="").splitlines() == [
        "4 settings cannot be used:",
        "--learning-rate: found '0'; a number greater than 0.0 is needed",
        "run.yaml: steps: found 'x'; a whole number or null is needed",
        "SOURCE: found ''; a value is needed, not an empty one (leave the setting out for its default)",
        "run.yaml: learning_rte: there is no such setting; did you mean learning_rate?",
    ]


def test_a_rule_about_several_settings_speaks_for_itself(tmp_path: Path) -> None:
    assert refusal(tmp_path, "packing: true\nsteps: 13") == "packing needs steps other than 13"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1\nsteps: 2\n", "run.yaml, line 4: not valid YAML: steps is set twice, first in line 3"),
        ("steps: [1\n", "run.yaml, line 4: not valid YAML: expected ',' or ']'"),
        (
            "output_dir: !!python/name:os.system\n",
            "run.yaml, line 3: not valid YAML: could not determine a constructor",
        ),
    ],
)
def test_broken_yaml_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.yaml: found \['model'\]; settings are lines of the form `name: value`"):
        load_settings(Example, write(tmp_path, "- model\n"), {})
    with pytest.raises(UserError, match=r"none\.yaml: cannot read this settings file: no such file"):
        load_settings(Example, tmp_path / "none.yaml", {})
    with pytest.raises(UserError, match="cannot read this settings file: is a directory"):
        load_settings(Example, tmp_path, {})
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9\n")
    with pytest.raises(UserError, match="not UTF-8 text"):
        load_settings(Example, tmp_path / "latin.yaml", {})
    assert load_settings(Example, write(tmp_path, "# nothing\n"), {"model": "m", "data": ["a"]}).model == "m"


def test_what_is_dumped_loads_to_the_same_settings(tmp_path: Path) -> None:
    settings = load(
        tmp_path, "learning_rate: 1e-7\nextra_data: ['no', '1e5', 'null', '~', '08', 1:30, é]\neos_token: 'true'\n"
    )
    dump_settings(settings, tmp_path / "out" / "config.yaml")
    assert load_settings(Example, tmp_path / "out" / "config.yaml", {}) == settings


def test_secrets_are_neither_dumped_nor_shown(tmp_path: Path) -> None:
    token = "hf_" + "a1B2" * 8
    settings = load(tmp_path, f"hub_token: short\neos_token: </s>\nextra_data: [x, 'https://me:pw@host/{token}']\n")
    dump_settings(settings, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert not [secret for secret in ("short", "pw", token) if secret in text]
    assert yaml.safe_load(text) == resolved(settings)
    assert resolved(settings)["eos_token"] == "</s>"
    assert resolved(load(tmp_path, ""))["hub_token"] is None
    assert "s3cret" not in refusal(tmp_path, "hub_token: [s3cret]")


def test_one_value_is_a_list_of_one(tmp_path: Path) -> None:
    assert load(tmp_path, "extra_data: b\n").extra_data == ("b",)


def test_text_that_no_file_can_be_called_is_refused(tmp_path: Path) -> None:
    assert "text without null characters is needed" in refusal(tmp_path, "", model="a\0b")
    assert "text without null characters is needed" in refusal(tmp_path, "", output_dir=Path("a\0b"))
    with pytest.raises(UserError, match="cannot read this settings file"):
        load_settings(Example, Path("a\0b.yaml"), {})
