"""A settings class as click parameters: every field an option or an argument, and its description the help."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import click
from pydantic.fields import FieldInfo

from preflab.core.config import (
    Settings,
    element_types,
    is_list,
    is_mapping,
    is_positional,
    load_settings,
    named_fields,
    value_types,
)

# `--learning_rate`, as in the YAML file and in transformers, is `--learning-rate`.
CONTEXT: Mapping[str, Any] = {"token_normalize_func": lambda name: name.replace("_", "-"), "max_content_width": 110}


class Menu(click.Group):
    """A group that lists its commands in the order in which they are used, each with its whole help line.

    `others` makes a command that is not in the list, where there is one of this name.
    """

    def __init__(
        self, name: str, *, others: Callable[[str], click.Command | None] | None = None, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._others = others

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or (self._others and self._others(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in commands if command])


class SettingsCommand(click.Command):
    """A command that fills a settings class and hands it to `run`.

    `load` imports the class, and is called only when the command is used. With `config`, the first argument may be a
    YAML file; where arguments are a list of something, only a name in .yaml or .yml is one. Options that are not given
    leave the file's values, and the class's defaults, alone.
    """

    def __init__(
        self,
        name: str,
        text: str,
        load: Callable[[], type[Settings]],
        run: Callable[[Settings], None],
        *,
        config: bool = False,
    ) -> None:
        super().__init__(name, help=text, callback=self._fill_and_run)
        self._load, self._run, self._config = load, run, config

    @cached_property
    def settings(self) -> type[Settings]:
        return self._load()

    @cached_property
    def _parameters(self) -> list[click.Parameter]:
        config = [click.Argument([_CONFIG], required=False, metavar="[CONFIG.yaml]")] if self._config else []
        parameters = [_parameter(name, field) for name, field in named_fields(self.settings).items()]
        for parameter in parameters if config else ():
            parameter.required = False  # the file may give it; the settings class says what is missing
        return [*config, *parameters]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*self._parameters, *super().get_params(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {_option(name) for name, field in named_fields(self.settings).items() if _is_flag(field)}
        return super().parse_args(ctx, _spell_out_flags(args, flags))

    def _fill_and_run(self, **values: Any) -> None:
        file = values.pop(_CONFIG, None)
        fields = named_fields(self.settings)
        listed = next((name for name, field in fields.items() if is_positional(field) and is_list(field)), None)
        if file and listed and not file.lower().endswith((".yaml", ".yml")):
            file, values[listed] = None, (file, *values[listed])
        given = {name: _value(fields[name], value) for name, value in values.items() if value not in (None, ())}
        self._run(load_settings(self.settings, None if file is None else Path(file), given))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The settings under the name of the class that each comes from, the command's own first."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        sections.update({_section(base): [] for base in _bases(self.settings)})
        if self._config:
            sections["Arguments"].append(("[CONFIG.yaml]", "settings as `name: value` lines; options win over them"))
        for name, field in named_fields(self.settings).items():
            owner = next(base for base in reversed(_bases(self.settings)) if name in named_fields(base))
            section = "Arguments" if is_positional(field) else _section(owner)
            sections[section].append((_signature(name, field), _describe(field)))
        sections["Options"] = [record for param in super().get_params(ctx) if (record := param.get_help_record(ctx))]
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


_CONFIG = "config_file"


# ---- a field as a parameter ----------------------------------------------------------------------------------------
#
# Values are handed on as the text that was typed: the settings class is the one judge of what is right, for the command
# line as for a file, and says it in the same words.


def _parameter(name: str, field: FieldInfo) -> click.Parameter:
    option = _option(name)
    if is_positional(field):
        nargs = -1 if is_list(field) else 1
        return click.Argument([name], nargs=nargs, required=field.is_required(), metavar=_signature(name, field))
    if _is_flag(field):
        return click.Option([f"{option}/{_negated(option)}", name], default=None)
    return click.Option([option, name], multiple=is_list(field) or is_mapping(field), metavar=_metavar(field))


def _value(field: FieldInfo, typed: Any) -> object:
    """What a field is given: a flag or text as it was typed, a list of texts, or what a word for no text stands for."""
    choices = {str(choice): choice for member in element_types(field) for choice in get_args(member)}
    if isinstance(typed, tuple):
        return [] if typed == ("none",) and "none" not in choices else list(typed)
    nothing = {"none": None} if type(None) in value_types(field.annotation) else {}
    return {**nothing, **choices}.get(typed, typed)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _negated(option: str) -> str:
    return option.replace("--", "--no-", 1)


def _is_flag(field: FieldInfo) -> bool:
    return element_types(field) == [bool]


def _spell_out_flags(args: Sequence[str], flags: Collection[str]) -> list[str]:
    """`--flag true` and `--flag false`, as other trainers write them, in click's terms: `--flag` and `--no-flag`."""
    spelled: list[str] = []
    for word in args:
        if spelled and spelled[-1].replace("_", "-") in flags and word.lower() in ("true", "false"):
            spelled[-1] = spelled[-1] if word.lower() == "true" else _negated(spelled[-1])
        else:
            spelled.append(word)
    return spelled


# ---- help ----------------------------------------------------------------------------------------------------------

_METAVARS: Mapping[object, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "true|false"}


def _metavar(field: FieldInfo) -> str:
    """What to write for a value: "NUMBER", "INTEGER|TEXT", "cosine|linear", "NAME=VALUE"."""
    if is_mapping(field):
        return "NAME=VALUE"
    words = [word for member in element_types(field) for word in get_args(member) or [_METAVARS.get(member, "TEXT")]]
    return "|".join(dict.fromkeys(map(str, words)))


def _signature(name: str, field: FieldInfo) -> str:
    """A setting as help and usage show it: "--beta NUMBER", "--packing / --no-packing", "[SOURCE]..."."""
    if is_positional(field):
        word = name.upper() if field.is_required() else f"[{name.upper()}]"
        return word + "..." * is_list(field)
    option = _option(name)
    return f"{option} / {_negated(option)}" if _is_flag(field) else f"{option} {_metavar(field)}"


def _describe(field: FieldInfo) -> str:
    notes = ["required" if field.is_required() else f"default: {_default(field)}"]
    if (is_list(field) or is_mapping(field)) and not is_positional(field):
        notes.append("may be repeated")
    return f"{field.description}  [{'; '.join(notes)}]"


def _default(field: FieldInfo) -> str:
    """A default in the words in which it would be given."""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, dict):
        return " ".join(f"{name}={value}" for name, value in default.items()) or "none"
    if isinstance(default, (list, tuple)):
        return " ".join(map(str, default)) or "none"
    if default is None:
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _bases(settings: type[Settings]) -> list[type[Settings]]:
    """The settings classes that a class is composed of, itself first. Fields belong to the last that has them."""
    return [base for base in settings.__mro__ if issubclass(base, Settings)]


def _section(settings: type[Settings]) -> str:
    """A settings class's name as a heading: `TrainingSettings` -> "Training"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", settings.__name__.removesuffix("Settings"))
