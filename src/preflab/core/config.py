"""Settings: a YAML file and what the command line overrides become one frozen, validated object."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from preflab.core.records import UserError
from preflab.core.redaction import redact
from preflab.core.yaml_files import dump_yaml, read_yaml, shown

SettingsT = TypeVar("SettingsT", bound="Settings")


@dataclass(frozen=True)
class Positional:
    """Marks a setting that the command line takes as an argument, not as an option: `Annotated[str, Positional()]`."""


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown names, no empty text, a description on every field (it is the help).

    A class is composed from smaller ones by inheritance (`class SFTSettings(ModelSettings, DataSettings)`). The class
    that defines a field names the section of `--help` in which the field stands.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if not field.description:
                raise TypeError(f"{cls.__name__}.{name} has no description: Field(description=…) is its help text")

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_lookalikes(cls, value: object, info: ValidationInfo) -> object:
        """What pydantic would let through although nobody means it: empty values, and `true` where a number stands."""
        field = cls.model_fields[str(info.field_name)]
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(item, str) and not item.strip() for item in items):
            raise ValueError("a value is needed, not an empty one (leave the setting out for its default)")
        if any(isinstance(item, (str, Path)) and re.search("[\ud800-\udfff]", str(item)) for item in items):
            raise ValueError("text in UTF-8 is needed")
        if any(isinstance(item, (str, Path)) and "\0" in str(item) for item in items):
            raise ValueError("text without null characters is needed")
        if is_list(field) and not value and field.is_required():
            raise ValueError("at least one value is needed")
        if any(isinstance(item, bool) for item in items) and bool not in element_types(field):
            raise ValueError(f"{_describe_types(value_types(field.annotation))} is needed")
        return [value] if is_list(field) and isinstance(value, (str, int, float)) else value


def _read_values(given: object) -> object:
    """`name=value` texts, or one of a JSON object, as a mapping; a mapping as it is. Values are JSON, or plain text."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, (list, tuple)):
        return given
    values: dict[str, object] = {}
    for text in given:
        if isinstance(text, str) and text.lstrip().startswith("{"):
            values |= _json_object(text)
            continue
        name, mark, value = str(text).partition("=")
        if not mark or not name.isidentifier():
            raise ValueError("name=value is needed, such as enable_thinking=false")
        values[name] = _json_or_text(value)
    return values


def _json_object(text: str) -> dict[str, object]:
    found = _json_or_text(text)
    if not isinstance(found, dict):
        raise ValueError('a JSON object is needed, such as {"enable_thinking": false}')
    return found


def _json_or_text(text: str) -> object:
    # Python's words are JSON's here: as text, "False" would switch something on.
    words: dict[str, object] = {"true": True, "false": False, "none": None, "null": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


Values = Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], JsonValue], BeforeValidator(_read_values)]
"""A mapping of names to JSON values: `{name: value}` in YAML, `name=value` (once for each) on the command line."""


def named_fields(cls: type[Settings]) -> dict[str, FieldInfo]:
    """The fields by the names that users give them (a field's alias, where its own name is taken in Python)."""
    return {field.alias or name: field for name, field in cls.model_fields.items()}


def is_positional(field: FieldInfo) -> bool:
    """Whether the command line takes the field as an argument (marked with `Positional`)."""
    return any(isinstance(mark, Positional) for mark in field.metadata)


def named(word: str) -> tuple[str | None, str]:
    """`name=source` -> both; a source alone -> None and the source. (A path with `=` in it stays whole.)"""
    name, mark, source = word.partition("=")
    return (name, source) if mark and source and re.fullmatch(r"[\w.-]+", name) else (None, word)


def source_of(word: str) -> str:
    """The source of `name=source`, or of a source alone."""
    return named(word)[1]


def shared_values(settings: Settings, kind: type[Settings]) -> dict[str, Any]:
    """The values of those settings that `kind` has too, by name."""
    return {name: getattr(settings, name) for name in kind.model_fields if name in type(settings).model_fields}


# ---- what a field accepts ------------------------------------------------------------------------------------------

_TYPE_WORDS: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text (in quotes where it looks like something else)",
    Path: "a path",
    types.NoneType: "null",
}


def value_types(annotation: object) -> tuple[object, ...]:
    """The types that an annotation is a choice of, `Annotated` and unions opened: `int | None` -> (int, NoneType)."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return value_types(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in value_types(part))
    return (annotation,)


def is_list(field: FieldInfo) -> bool:
    """Whether the field holds several values (`list[…]` or `tuple[…, ...]`)."""
    return any(get_origin(member) in (list, tuple) for member in value_types(field.annotation))


def is_mapping(field: FieldInfo) -> bool:
    """Whether the field holds named values (`Values`)."""
    return any(get_origin(member) is dict for member in value_types(field.annotation))


def element_types(field: FieldInfo) -> list[object]:
    """The types of one given value: of a list's elements, or of the field itself; null left out."""
    members = [
        element
        for member in value_types(field.annotation)
        for element in (value_types(get_args(member)[0]) if get_origin(member) in (list, tuple) else (member,))
    ]
    return [member for member in members if member is not types.NoneType]


def _describe_types(members: Iterable[object]) -> str:
    """Types in words for a message: "a whole number or null"."""
    return " or ".join(dict.fromkeys(_describe(member) for member in members))


def _describe(member: object) -> str:
    origin = get_origin(member)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(member))
    if origin in (list, tuple):
        return "a list, such as [one, two]"
    if origin is dict or member is dict:
        return "a mapping of names to values"
    return _TYPE_WORDS.get(member, str(getattr(member, "__name__", member)))


# ---- from values to settings ---------------------------------------------------------------------------------------


def load_settings(cls: type[SettingsT], config_file: Path | None, overrides: Mapping[str, object]) -> SettingsT:
    """The settings of `cls`: its defaults, then the file's values, then `overrides` (what the user gave, no more).

    Raises `UserError` with one line per setting that cannot be used: where it was given, what was found, what would be
    right. All of them are listed at once.
    """
    given, fields = read_yaml(config_file) if config_file else {}, named_fields(cls)

    def place(name: str) -> str:
        if not name:
            return ""
        if name in overrides or config_file is None:
            return name.upper() if name in fields and is_positional(fields[name]) else "--" + name.replace("_", "-")
        return f"{config_file}: {name}"

    return validated(cls, {**given, **overrides}, place)


def validated(cls: type[SettingsT], values: Mapping[str, object], place: Callable[[str], str]) -> SettingsT:
    """The settings of `cls` with these values. Raises `UserError` as `load_settings` does; `place` says where a setting
    was given.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = explain(cls, error, place)
        if len(lines) > 1:
            lines.insert(0, f"{len(lines)} settings cannot be used:")
        raise UserError("\n".join(lines)) from None


def explain(cls: type[Settings], error: ValidationError, place: Callable[[str], str]) -> list[str]:
    """One line per setting that cannot be used: its place, what was found and what would be right.

    place: a setting's name -> where it was given; the empty name stands for all of them together.
    """
    problems: dict[str, dict[str, None]] = {}  # ordered, each once: a union reports the same for all its members
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        problems.setdefault(place(name) + _element(detail), {})[_explain(cls, detail)] = None
    return [f"{where}: {'; or '.join(found)}" if where else "; ".join(found) for where, found in problems.items()]


def _element(detail: ErrorDetails) -> str:
    """Which element of a list an error is about: "[2]", or nothing."""
    return "".join(f"[{part}]" for part in detail["loc"][1:] if isinstance(part, int))


_BOUNDS: Mapping[str, str] = {
    "greater_than": "a number greater than {gt} is needed",
    "greater_than_equal": "a number of at least {ge} is needed",
    "less_than": "a number less than {lt} is needed",
    "less_than_equal": "a number of at most {le} is needed",
    "too_short": "at least {min_length} values are needed",
    "too_long": "at most {max_length} values can be given",
    "finite_number": "a finite number is needed",
}


def _explain(cls: type[Settings], detail: ErrorDetails) -> str:
    """What was found and what would be right, for one error that pydantic reports."""
    kind, context = detail["type"], detail.get("ctx", {})
    if not detail["loc"]:  # from a validator of the whole class, which says all itself
        return str(context.get("error", detail["msg"]))
    name = str(detail["loc"][0])
    if kind == "extra_forbidden":
        nearest = difflib.get_close_matches(name, named_fields(cls), n=1)
        return "there is no such setting" + (f"; did you mean {nearest[0]}?" if nearest else " (--help lists them all)")
    if kind == "missing":
        return "missing, and it has no default"
    if kind == "value_error":
        needed = str(context["error"])
    elif kind in _BOUNDS:
        needed = _BOUNDS[kind].format(**context)
    elif kind.endswith(("_type", "_parsing")) or kind in ("literal_error", "int_from_float", "int_parsing_size"):
        field = named_fields(cls)[name]
        members = element_types(field) if _element(detail) else value_types(field.annotation)
        needed = f"{_describe_types(members)} is needed"
    else:
        needed = detail["msg"]
    return f"found {shown(redact({name: detail['input']})[name])}; {needed}"


# ---- writing -------------------------------------------------------------------------------------------------------


def resolved(settings: Settings) -> dict[str, Any]:
    """Every setting with its value in JSON's types, secrets blacked out: what manifests and logs may hold."""
    values: dict[str, Any] = redact(settings.model_dump(mode="json"))
    return values


def differing(settings: Settings, *, but: Iterable[str] = ()) -> dict[str, Any]:
    """The settings that differ from their defaults, as `resolved` has them, but for some."""
    values, left_out = resolved(settings), set(but)
    return {
        name: values[name]
        for name, field in named_fields(type(settings)).items()
        if name not in left_out
        and name in values
        and getattr(settings, name) != field.get_default(call_default_factory=True)
    }


def dump_settings(settings: Settings, path: Path) -> None:
    """Write every setting as YAML that `load_settings` reads back (but for secrets, which are blacked out)."""
    dump_yaml(resolved(settings), path)


MOST_SEED = 2**32 - 1
"""What NumPy's generators take."""
