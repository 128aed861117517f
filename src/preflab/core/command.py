"""A command: what it takes, what it does, and how it can be a stage of an experiment."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preflab.core.config import Settings
from preflab.core.records import Amount


def locate(location: Any) -> Any:
    """What "module:name" names, imported now; anything that is not text is itself meant."""
    if not isinstance(location, str):
        return location
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Command:
    """A command. What it names as "module:name" is imported when the command is used.

    Attributes:
        settings: the class of its settings.
        run: the function that takes the settings and returns what it made: a `Path`, or an object whose text says what
            lies where.
        help: a sentence for the command line.
        config: the first argument may be a YAML file of settings.
    """

    settings: str | type[Settings]
    run: str | Callable[..., object]
    help: str
    config: bool = False

    def settings_class(self) -> type[Settings]:
        found: type[Settings] = locate(self.settings)
        return found

    def function(self) -> Callable[..., object]:
        found: Callable[..., object] = locate(self.run)
        return found


@dataclass(frozen=True)
class StageCommand(Command):
    """A command that can be a stage of an experiment.

    Attributes:
        place: the setting that says where the command writes, which the plan fills in.
        file: of a command that writes one file, its name in the stage's folder.
        product: what `${stage}` stands for, relative to the folder: a name, or "module:name" of a function from the
            settings to it; empty for the folder itself.
        head: of a command whose product is the folder of a study, the file in it that says what the study is.
        harmless: settings that change nothing of what the stage leaves, as "module:name" of their names.
        extends: settings that, when they change, let the stage go on, and not begin anew.
        amount: the function that counts what it would take; empty where nobody knows.
    """

    place: str = "output_dir"
    file: str = ""
    product: str = ""
    head: str = ""
    harmless: str | frozenset[str] = frozenset()
    extends: frozenset[str] = frozenset()
    amount: str = ""

    def product_of(self, settings: Settings) -> str:
        product: str = locate(self.product)(settings) if ":" in self.product else self.product
        return product

    def harmless_settings(self) -> frozenset[str]:
        return frozenset(locate(self.harmless))

    def amount_of(self, settings: Settings, *, measure: bool) -> Amount:
        """Raises UserError where what it reads cannot be read."""
        found: Amount = locate(self.amount)(self.function(), settings, measure=measure)
        return found
