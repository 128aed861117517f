"""A format of the user's own: a function in a file of theirs, or in an installed package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from preflab.core.plugins import FAILURES, Plugin, load
from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.fields import Row, excerpt
from preflab.data.formats import FORMATS
from preflab.data.layout import Format
from preflab.data.parsers.demonstrations import prompt_response
from preflab.data.parsers.trl import trl


def load_own_format(spec: str) -> Format:
    """`file.py:function`, or the name of an installed package's (entry points of the group `preflab.formats`) -> a
    format; its fingerprint is the hash of the file.

    The function takes a row (a dict) and returns a Comparison, or a dict with prompt, chosen and rejected, as text or
    chat messages; of files of responses, a dict with prompt and response. To leave a row out it raises
    RowError(reason). All else that it raises is passed on as UserError.
    """
    plugin = load(spec, "formats", FORMATS)
    if not callable(plugin.value):
        raise UserError(f"{plugin.where}: {spec} is {excerpt(plugin.value)}; a format is a function")
    touched: set[str] = set()
    return Format(
        _parser(plugin, touched),
        "ranking",
        f"your own, {spec}",
        (),
        fingerprint=plugin.fingerprint,
        own=True,
        touched=touched,
    )


def _parser(plugin: Plugin, touched: set[str]) -> Callable[[Row], Comparison]:
    function: Callable[[Row], Any] = plugin.value

    def parse(row: Row) -> Comparison:
        try:
            made = function(_WatchedRow(row, touched))
        except RowError as error:
            raise RowError(_one_line(error.reason), _one_line(error.detail)) from error
        except FAILURES as error:
            problem = f"{type(error).__name__}: {error}"
            raise UserError(f"{plugin.place(error)}: {problem}, on the row {excerpt(dict(row), 200)}") from error
        if isinstance(made, dict):
            return prompt_response(made) if "response" in made else trl(made)
        if isinstance(made, Comparison) and _is_whole(made):
            return made
        right = "a Comparison of Message and text, or a dict with prompt, chosen and rejected (or prompt and response)"
        raise UserError(
            f"{plugin.where}: {getattr(function, '__name__', 'it')} returned {excerpt(made)}; it must return {right}"
        )

    return parse


def _one_line(text: object) -> str:
    """What the function says of a row, which may quote the row: as it may stand in a line of a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def _is_whole(made: Comparison) -> bool:
    prompt = isinstance(made.prompt, tuple) and all(
        isinstance(message, Message) and isinstance(message.content, str) for message in made.prompt
    )
    return prompt and isinstance(made.responses, tuple) and all(isinstance(text, str) for text in made.responses)


class _WatchedRow(dict[str, Any]):
    """A row that notes which of its columns are read, for the list of those that are not."""

    def __init__(self, row: Row, touched: set[str]) -> None:
        super().__init__(row)
        self._touched = touched

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()  # where this is overridden, dict(row) and {**row} come through __getitem__

    def __getitem__(self, name: str) -> Any:
        self._touched.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._touched.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self._touched.add(name)
        return super().pop(name, *default)

    def items(self) -> Any:
        self._touched.update(self)
        return super().items()

    def values(self) -> Any:
        self._touched.update(self)
        return super().values()
