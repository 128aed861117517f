"""Settings files that are damaged, hostile, or something else: one message that names file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflab.core.records import UserError
from preflab.core.yaml_files import DEEPEST, LARGEST_FILE, MOST_VALUES, parse_yaml, read_yaml


def bomb(levels: int) -> str:
    """Few lines that stand for 10 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: m\nseed: !!int abc\n", "line 2: not valid YAML: 'abc' cannot be read as !!int"),
        ("model: m\nlora: !!bool maybe\n", "line 2: not valid YAML: 'maybe' cannot be read as !!bool"),
        ("model: m\nseed: !!float x\n", "line 2: not valid YAML: 'x' cannot be read as !!float"),
        ("model: !!timestamp x\nseed: 1\n", "line 1: not valid YAML: 'x' cannot be read as !!timestamp"),
        ("x: !!python/object/apply:os.system [ls]\ny: 1", "line 1: not valid YAML: could not determine a constructor"),
        ("model: m\nseed: " + "9" * 5000 + "\n", "line 2: not valid YAML: a whole number of 5000 digits is too long"),
        ("model: m\nx: " + "[" * 5000 + "\n", f"line 2: not valid YAML: more than {DEEPEST} lists and mappings"),
        ("model: m\nx: " + "{a: " * 5000 + "\n", f"line 2: not valid YAML: more than {DEEPEST} lists and mappings"),
        ("x: &a [*a]\ny: 1\n", "line 1: not valid YAML: a value holds itself"),
        ("x: &a {b: {c: *a}}\ny: 1\n", "line 1: not valid YAML: a value holds itself"),
        (bomb(9), f"not valid YAML: more than {MOST_VALUES} values"),
        ("a0: &a0 x\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000)), "lists and mappings lie"),
        ("? [a, b]\n: 1\ny: 2", "not valid YAML: found unhashable key"),
        ("x: !!set 5\ny: 1", "not valid YAML: "),
        ("x: !!omap {a: 1}\ny: 1", "not valid YAML: "),
        ('x: !!binary "é"\ny: 1', "not valid YAML: "),
        ('x: "\\uD800', "not valid YAML: "),
        ("x: \x00\ny: 1", "not valid YAML: "),
        ("- a\n- b\n", "found ['a', 'b']; settings are lines"),
    ],
)
def test_a_file_that_cannot_be_read_as_settings(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert said in message
    assert message.startswith(str(path))
    assert len(message) < 600


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"x" * (LARGEST_FILE + 1))
    with pytest.raises(UserError, match="more than 1 MiB"):
        read_yaml(path)


def test_aliases_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: &rates [0.1, 0.2]\nb: *rates\n", encoding="utf-8-sig")
    assert read_yaml(path) == {"a": [0.1, 0.2], "b": [0.1, 0.2]}


def test_a_value_of_the_command_line_is_held_to_the_same() -> None:
    with pytest.raises(UserError, match=r"dpo\.beta: not valid YAML: more than 50"):
        parse_yaml("[" * 200, "dpo.beta")
