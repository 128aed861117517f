"""The command line, read off the table of commands. What a command accepts is read off its settings."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import click

import preflab
from preflab.commands import COMMANDS, GROUPS, other_command
from preflab.core.command import Command
from preflab.core.config import Settings
from preflab.core.failures import explain_failure
from preflab.core.options import CONTEXT, Menu, SettingsCommand
from preflab.core.records import DisagreementError, UserError
from preflab.core.terminal import is_main_process, printable, process_index

_LONGEST_LINE = 4000


def app(commands: Mapping[str, Command]) -> click.Group:
    """The command line as a click group; "train dpo" is `dpo` in a group `train`."""
    root = Menu("preflab", others=_other_command, help=preflab.__doc__, context_settings=CONTEXT)
    click.version_option(preflab.__version__, prog_name="preflab")(root)
    for words, command in commands.items():
        *groups, name = words.split()
        parent: click.Group = root
        for group in groups:
            others = partial(_other_command, group)
            child = parent.commands.setdefault(group, Menu(group, others=others, help=GROUPS.get(group)))
            assert isinstance(child, click.Group), f"{group} is a command and a group at once"
            parent = child
        parent.add_command(_as_click(name, command))
    return root


def _as_click(name: str, command: Command) -> SettingsCommand:
    run = partial(_run, command)
    return SettingsCommand(name, command.help, command.settings_class, run, config=command.config)


def _other_command(*words: str) -> SettingsCommand | None:
    command = other_command(" ".join(words))
    return _as_click(words[-1], command) if command else None


def _run(command: Command, settings: Settings) -> None:
    """Run a command and say what it made."""
    try:
        result = command.function()(settings)
    except Exception as error:
        if isinstance(error, DisagreementError):
            _show(error.shown)
        if isinstance(error, UserError):
            raise
        where = getattr(settings, "output_dir", None) or getattr(settings, "output", None) or "output"
        if said := explain_failure(error, where):
            raise UserError(said) from error
        raise
    _show(result)
    if failure := getattr(result, "failure", ""):  # it wrote what it found, and that is nothing to go on with
        _complain(f"Error: {failure}")
        click.get_current_context().exit(1)


def _show(result: object) -> None:
    """Print what a command made, if it is anything."""
    if hasattr(result, "__rich__") and sys.stdout.isatty() and is_main_process():
        from rich.console import Console  # the text of such a result, with colours

        Console().print(result, crop=False)
    elif result is not None and is_main_process():
        click.echo(f"written to {result}" if isinstance(result, Path) else printable(str(result)))


def main(arguments: Sequence[str] | None = None, commands: Mapping[str, Command] = COMMANDS) -> NoReturn:
    """Run the command line. Exit code 2 and a message alone for the user's mistakes, 3 for a file that contradicts its
    own rows, a traceback for our mistakes only.
    """
    sys.exit(_exit_code(arguments, commands))


def _exit_code(arguments: Sequence[str] | None, commands: Mapping[str, Command]) -> int:
    try:
        code: int | None = app(commands).main(arguments, prog_name="preflab", standalone_mode=False)
    except click.Abort:  # what click makes of Ctrl-C
        _complain("stopped; run the same command to resume")
        return 130
    except click.ClickException as error:
        if is_main_process():
            shown = io.StringIO()  # it quotes the words of the command line, which can hold anything
            error.show(shown)
            _complain(shown.getvalue())
        return error.exit_code
    except UserError as error:
        _complain(f"Error: {error}")
        return 3 if isinstance(error, DisagreementError) else 2
    except Exception:
        traceback.print_exc()
        _complain("This is a defect of preflab, not of your input: please report it with the lines above.")
        return 1
    return code or 0


def _complain(message: str) -> None:
    """Print to standard error. Other processes than the main one keep to one line, as it may be about them alone."""
    if not is_main_process():
        message = f"process {process_index()}: {message.splitlines()[0]}"
    click.echo("\n".join(map(_cut, printable(message).splitlines())), err=True)


def _cut(line: str) -> str:
    """A line that a person can read: a row's field, or a column's name, may have any length."""
    if len(line) <= _LONGEST_LINE:
        return line
    half = _LONGEST_LINE // 2
    return f"{line[:half]} … ({len(line) - 2 * half} characters) … {line[-half:]}"
