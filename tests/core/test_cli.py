"""The command line: what each command accepts, what --help says, and how it ends."""

from __future__ import annotations

import ast
import errno
import importlib
import importlib.util
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from pydantic.fields import FieldInfo

import preflab
from preflab import cli
from preflab.commands import COMMANDS
from preflab.core.command import Command
from preflab.core.config import Positional, Settings, is_positional, named_fields
from preflab.core.records import UserError


class SpeedSettings(Settings):
    learning_rate: float = Field(2e-5, gt=0, description="How fast.")
    seed: int | None = Field(None, description="Which one.")


class ToySettings(SpeedSettings):
    """The leaf's own fields come first in help, the inherited ones under the name of their class."""

    sources: Annotated[tuple[str, ...], Positional()] = Field((), description="What to read.")
    data: tuple[str, ...] = Field(("a", "b"), description="Files.")
    level: Literal[1, 2] = Field(1, description="How high.")
    mode: Literal["no", "chat_ml"] | None = Field("no", description="Which way.")
    packing: bool = Field(False, description="Whether to pack.")
    bf16: bool | None = Field(None, description="Whether to halve.")
    json_output: bool = Field(False, alias="json", description="Whether in JSON.")
    output_dir: Path = Field(Path("runs/toy"), description="Where to.")
    learning_rate: float = Field(3e-5, gt=0, description="How fast.")


class TrainToySettings(SpeedSettings):
    model: str = Field(description="What.")
    packing: bool = Field(True, description="Whether to pack.")


def echo(settings: Settings) -> str:
    return repr(settings.model_dump(mode="json", exclude_unset=True))


def echo_path(settings: ToySettings) -> Path:
    return settings.output_dir


def echo_text(settings: ToySettings) -> str:
    return settings.sources[0]


def fail(settings: ToySettings) -> None:
    """Fails in the way that the test asks for in `data`."""
    errors: dict[str, BaseException] = {
        "user": UserError("rows.jsonl, row 3: empty response\nfound '\x1b[2J'"),
        "full": OSError(errno.ENOSPC, "No space left on device", "runs/toy/weights"),
        "wrapped": RuntimeError("I/O error: No space left on device (os error 28)"),
        "chained": RuntimeError("unexpected pos"),
        "read-only": OSError(errno.EROFS, "Read-only file system", "runs/toy"),
        "long": OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300),
        "large": RuntimeError("I/O error: File too large (os error 27)"),
        "memory": MemoryError(),
        "endless": UserError("rows.csv: the columns " + "x" * 10**6 + " fit no format"),
        "missing": FileNotFoundError("no name, so it is ours"),
        "interrupt": KeyboardInterrupt(),
        "defect": ZeroDivisionError("ours"),
    }
    raise errors[settings.data[0]] from (errors["wrapped"] if settings.data[0] == "chained" else None)


def toy(run: str, *, settings: str = "ToySettings", config: bool = False) -> Command:
    return Command(f"{__name__}:{settings}", f"{__name__}:{run}", f"Toy that does {run}.", config=config)


TOYS = {
    "train toy": toy("echo", settings="TrainToySettings", config=True),
    "echo": toy("echo"),
    "path": toy("echo_path"),
    "text": toy("echo_text"),
    "fail": toy("fail"),
}


@dataclass(frozen=True)
class Ended:
    code: object
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a toy command in this process."""

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments, TOYS)
        out, err = capsys.readouterr()
        return Ended(caught.value.code, out, err)

    return run


Call = Callable[..., Ended]


# ---- options ----


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ("", {}),
        ("--learning-rate 1e-3", {"learning_rate": 1e-3}),
        ("--learning_rate=1e-3", {"learning_rate": 1e-3}),
        ("--data x --data y", {"data": ["x", "y"]}),
        ("--data none", {"data": []}),
        ("--packing", {"packing": True}),
        ("--no-packing", {"packing": False}),
        ("--no_packing", {"packing": False}),
        ("--packing true --bf16 False", {"packing": True, "bf16": False}),
        ("--packing x y", {"packing": True, "sources": ["x", "y"]}),
        ("--json", {"json_output": True}),
        ("--level 2", {"level": 2}),
        ("--mode chat_ml", {"mode": "chat_ml"}),
        ("--mode no", {"mode": "no"}),
        ("--mode none", {"mode": None}),
        ("--seed none", {"seed": None}),
        ("--output-dir none", {"output_dir": "none"}),
        ("x --seed 3 y", {"sources": ["x", "y"], "seed": 3}),
        ("-- --seed", {"sources": ["--seed"]}),
    ],
)
def test_what_is_typed_and_no_more_becomes_settings(call: Call, arguments: str, settings: dict[str, object]) -> None:
    ended = call("echo", *arguments.split())
    assert (ended.code, ended.err) == (0, "")
    assert ast.literal_eval(ended.out) == settings


def test_options_win_over_the_file_and_those_not_given_leave_it_alone(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text("model: m\nseed: 1\nlearning_rate: 1e-3\npacking: false\n")
    ended = call("train", "toy", str(file), "--seed", "2")
    assert ast.literal_eval(ended.out) == {"model": "m", "seed": 2, "learning_rate": 1e-3, "packing": False}


def test_only_commands_that_say_so_take_a_file(call: Call) -> None:
    assert "[CONFIG.yaml]" in call("train", "toy", "--help").out
    assert "CONFIG" not in call("echo", "--help").out
    assert call("train", "toy", "").err.startswith("Error: .: cannot read this settings file")


# ---- mistakes ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["echo", "--sead", "3"], "No such option '--sead'. Did you mean '--seed'?"),
        (["ecco"], "No such command 'ecco'. Did you mean 'echo'?"),
        (["train", "toi"], "No such command 'toi'. Did you mean 'toy'?"),
        (["train", "toy", "a.yaml", "b"], "unexpected extra argument (b)"),
        (["echo", "--seed"], "Option '--seed' requires an argument."),
        (["echo", "--seed", "x"], "Error: --seed: found 'x'; a whole number or null is needed\n"),
        (["echo", "--data", ""], "Error: --data: found ['']; a value is needed, not an empty one"),
        (["echo", "--mode", "chatml"], "Error: --mode: found 'chatml'; one of no, chat_ml or null is needed\n"),
        (["train", "toy"], "Error: --model: missing, and it has no default\n"),
        (
            ["train", "toy", "none.yaml"],
            "Error: none.yaml: cannot read this settings file: no such file or directory\n",
        ),
    ],
)
def test_a_mistake_of_the_users_ends_with_2_and_a_message(call: Call, arguments: list[str], message: str) -> None:
    ended = call(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_a_mistake_found_on_the_way_is_told_without_traceback_or_control_characters(call: Call) -> None:
    assert call("fail", "--data", "user") == Ended(
        2, "", "Error: rows.jsonl, row 3: empty response\nfound '\\x1b[2J'\n"
    )


@pytest.mark.parametrize(
    "words", [("echo", "\udcff\x1b[2J", "--sead"), ("\x1b[2J\udcff",), ("echo", "--seed", "\x1b\udcff")]
)
def test_words_that_cannot_be_written_are_told_escaped(call: Call, words: tuple[str, ...]) -> None:
    ended = call(*words)
    assert (ended.code, ended.out) == (2, "")
    assert "\x1b" not in ended.err
    assert "Error: " in ended.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("read-only", "runs/toy: read-only file system; choose a place that can be written"),
        ("long", "x" * 300 + ": the name is too long for the file system; choose a shorter one"),
        ("large", "runs/toy: cannot be written, no file may be as large here; raise the limit (ulimit -f)"),
        ("memory", "out of memory; use a smaller batch"),
    ],
)
def test_what_the_system_refuses_is_one_message(call: Call, error: str, said: str) -> None:
    ended = call("fail", "--data", error)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"Error: {said}")
    assert ended.err.count("\n") == 1


def test_a_message_with_an_endless_name_in_it_keeps_its_head_and_its_end(call: Call) -> None:
    ended = call("fail", "--data", "endless")
    assert ended.code == 2
    assert ended.err.startswith("Error: rows.csv: the columns xxx")
    assert ended.err.endswith("xxx fit no format\n")
    assert len(ended.err) < 5000


def test_a_missing_file_without_a_name_is_a_defect(call: Call) -> None:
    assert call("fail", "--data", "missing").code == 1


def test_a_full_disk_names_the_path(call: Call) -> None:
    advice = "cannot be written, the disk seems full; free some space and run the same command again\n"
    assert call("fail", "--data", "full") == Ended(2, "", f"Error: runs/toy/weights: {advice}")
    for error in ("wrapped", "chained"):
        assert call("fail", "--data", error) == Ended(2, "", f"Error: runs/toy: {advice}")


def test_a_defect_of_ours_shows_its_traceback(call: Call) -> None:
    ended = call("fail", "--data", "defect")
    assert ended.code == 1
    assert re.search(r"Traceback(.|\n)*ZeroDivisionError: ours\nThis is a defect of preflab", ended.err)


def test_an_interrupt_says_how_to_go_on(call: Call) -> None:
    ended = call("fail", "--data", "interrupt")
    assert (ended.code, ended.err.strip()) == (130, "stopped; run the same command to resume")


def test_other_processes_print_no_result_and_errors_in_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert call("echo") == Ended(0, "", "")
    assert call("fail", "--data", "user") == Ended(2, "", "process 3: Error: rows.jsonl, row 3: empty response\n")
    assert call("echo", "--sead") == Ended(2, "", "")


# ---- what is said ----


def test_what_a_recipe_returns_is_said(call: Call) -> None:
    assert call("path").out == "written to runs/toy\n"
    assert call("text", "caf\u00e9\n\x1b]0;x\x07\u202e").out == "caf\u00e9\n\\x1b]0;x\\x07\\u202e\n"


def without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_help_shows_every_setting_with_its_default_under_its_section(call: Call) -> None:
    text = call("echo", "--help").out
    sections = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)
    by_title = {title: without_spaces(body) for title, body in zip(sections[1::2], sections[2::2], strict=True)}
    assert list(by_title) == ["Arguments", "Toy", "Speed", "Options"]
    assert by_title["Arguments"] == without_spaces("[SOURCES]... What to read. [default: none]")
    assert by_title["Speed"] == without_spaces(
        "--learning-rate NUMBER How fast. [default: 3e-05] --seed INTEGER Which one. [default: none]"
    )
    assert by_title["Toy"] == without_spaces(
        "--data TEXT Files. [default: a b; may be repeated] --level 1|2 How high. [default: 1]"
        "--mode no|chat_ml Which way. [default: no] --packing / --no-packing Whether to pack. [default: false]"
        "--bf16 / --no-bf16 Whether to halve. [default: none] --json / --no-json Whether in JSON. [default: false]"
        "--output-dir PATH Where to. [default: runs/toy]"
    )
    assert re.search(r"--model TEXT +What\.  \[required\]", call("train", "toy", "--help").out)


def note(field: FieldInfo) -> str:
    """What help adds to a description, written out apart from the code that is tested."""
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if default in (None, (), [], {}):
        return "default:none"
    if isinstance(default, (tuple, list)):
        return "default:" + "".join(map(str, default))
    return f"default:{str(default).lower() if isinstance(default, bool) else default}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_every_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*name.split(), "--help"])
    text = without_spaces(capsys.readouterr().out)
    for field_name, field in named_fields(COMMANDS[name].settings_class()).items():
        shown = field_name.upper() if is_positional(field) else "--" + field_name.replace("_", "-")
        described = without_spaces(f"{field.description}[{note(field)}")
        assert re.search(re.escape(shown) + r"((?!\[default:|\[required).)*" + re.escape(described), text), shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_recipe(name: str) -> None:
    module, _, function = str(COMMANDS[name].run).partition(":")
    spec = importlib.util.find_spec(module)  # reading the source spares the import of torch
    assert spec is not None, module
    tree = ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_version(call: Call) -> None:
    assert call("--version").out == f"preflab, version {preflab.__version__}\n"


# ---- the installed program ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["train", "sft", "--help"], ["train", "sft", "--lora-r", "x"]]
)
def test_help_and_mistakes_do_not_load_the_heavy_libraries(arguments: list[str]) -> None:
    program = """
import sys
for heavy in ("torch", "transformers", "datasets", "pandas", "matplotlib", "statsmodels", "sklearn", "openai"):
    sys.modules[heavy] = None  # importing it is now an error
from preflab import cli
cli.main(sys.argv[1:])
"""
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == (2 if "x" in arguments else 0), ended.stderr


@pytest.mark.slow
def test_ctrl_c_stops_a_running_command_cleanly() -> None:
    program = """
import signal, sys, time
from preflab import cli
from preflab.core.config import Settings
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
class Nothing(Settings): pass
def sleep(settings):
    print("started", flush=True)
    time.sleep(60)
cli.main(["sleep"], {"sleep": cli.Command("__main__:Nothing", "__main__:sleep", "Sleep.")})
"""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program], **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.strip()) == (130, "stopped; run the same command to resume")
