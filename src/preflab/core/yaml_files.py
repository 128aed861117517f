"""YAML as people write settings: plain words stay words, and nothing that a file says is built without bound."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from preflab.core.records import UserError
from preflab.core.rundir import write_text

LARGEST_FILE = 1 << 20
"""Bytes of a settings file; a larger one is something else, such as data."""

DEEPEST = 50
"""Lists and mappings within one another. The deepest settings have four."""

MOST_VALUES = 100_000
"""Values in a file, those that an alias (`*name`) repeats counted each time: a few lines can stand for billions."""

LONGEST_NUMBER = 4300
"""Digits of a whole number, as Python has it."""

_TOO_DEEP = f"more than {DEEPEST} lists and mappings lie within one another"


class _Loader(yaml.SafeLoader):
    """YAML as version 1.2 reads plain words, and without repeated keys.

    In YAML 1.1, PyYAML's own, `1e-5` is text, `no` is false, `1:30` is ninety and a date is an object: a setting such
    as `eval_strategy: no` would arrive as something else than was written.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if parent is not None and self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=parent.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node. PyYAML's constructors fail in ways of their own on a tag (`!!int abc`) that does not fit
        its text.
        """
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"{shown(node.value)} cannot be read as {tag}"
            if tag == "!!int" and isinstance(node.value, str) and len(node.value) > LONGEST_NUMBER:
                problem = f"a whole number of {len(node.value)} digits is too long: {LONGEST_NUMBER} are the most"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first_lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if first_lines.setdefault(str(key.value), line) != line:
                first = first_lines[str(key.value)]
                problem = f"{key.value} is set twice, first in line {first}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _measure(node: yaml.Node, measured: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node stands for, and how deep they lie within one another, aliases followed.

    Raises MarkedYAMLError for too many or too deep, and for a node that holds itself.
    """
    if id(node) in measured:
        known = measured[id(node)]
        if known is None:
            raise yaml.MarkedYAMLError(problem="a value holds itself", problem_mark=node.start_mark)
        return known
    measured[id(node)] = None
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
    found = [_measure(child, measured) for child in children]
    values, depth = 1 + sum(count for count, _ in found), 1 + max((below for _, below in found), default=0)
    if values > MOST_VALUES:
        raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES} values", problem_mark=node.start_mark)
    if depth > DEEPEST:
        raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=node.start_mark)
    measured[id(node)] = values, depth
    return values, depth


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else."""


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    """`010` is ten, as it reads; PyYAML's own constructor takes it for an octal eight."""
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str, place: str) -> object:
    """The value that YAML text stands for. Raises UserError that names the place, and the line where it has several."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: it builds plain values only
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"{place}, line {mark.line + 1}" if mark and "\n" in text else place
        raise UserError(f"{where}: not valid YAML: {problem or error}") from error


def read_yaml(path: Path) -> dict[str, object]:
    """The names and values of a settings file, an empty one's too. Raises UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # a ValueError for a name with a null character too
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        reason = (error.strerror or reason).lower() if isinstance(error, OSError) else reason
        raise UserError(f"{path}: cannot read this settings file: {reason}") from error
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path}: cannot read this settings file: it has more than {LARGEST_FILE >> 20} MiB")
    loaded = parse_yaml(text, str(path))
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: found {shown(loaded)}; settings are lines of the form `name: value`")
    return {str(name): value for name, value in loaded.items()}


def dump_yaml(values: Mapping[str, Any], path: Path) -> None:
    """Write names and values as YAML that `read_yaml` reads back; secrets are the caller's to black out."""
    write_text(path, yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def shown(value: object) -> str:
    """A value as a message shows it: cut, and "nothing" for null."""
    try:
        text = "nothing" if value is None else repr(value)
    except ValueError:  # Python does not write out whole numbers of more than 4,300 digits
        return f"a whole number of more than {LONGEST_NUMBER} digits"
    return text if len(text) <= 80 else text[:79] + "…"
