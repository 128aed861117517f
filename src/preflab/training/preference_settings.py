"""Settings of `preflab train NAME`, read off the objective's function and its line of the table.

A class has the fields of `PairSettings` (of an objective on labels, of `PreferenceSettings`) and the hyper-parameters
of the function: its keyword-only arguments, with their types, bounds and defaults, and what its docstring says of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from pydantic import Field, create_model, field_validator
from pydantic.errors import PydanticUserError

from preflab.core.config import load_settings
from preflab.core.plugins import Plugin, load
from preflab.core.records import UserError
from preflab.data.settings import DataSettings
from preflab.model.settings import LoraSettings, ModelSettings
from preflab.objectives import OBJECTIVES, TERMS, Bounds, Named, Objective
from preflab.training.settings import TrainSettings

_OUTPUT = TrainSettings.model_fields["output_dir"].description


@dataclass(frozen=True)
class Term:
    """A term of a loss: an objective with its hyper-parameters, times a weight."""

    weight: float
    settings: PreferenceSettings


class PreferenceSettings(ModelSettings, LoraSettings, DataSettings, TrainSettings):
    """What training on preferences needs, whatever the objective.

    objective: its name; line: its line of the table; plugin: where it comes from.
    """

    objective: ClassVar[str] = ""
    line: ClassVar[Objective]
    plugin: ClassVar[Plugin]

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The objective's own settings, by the names of its function's arguments."""
        return {name: getattr(self, name) for name in own_fields(type(self))}

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the loss, the objective itself first."""
        return (Term(1.0, self),)


class PairSettings(PreferenceSettings):
    """An objective on pairs of responses."""

    mix: tuple[str, ...] = Field(
        default=(),
        description="Further terms of the loss by weight, each an objective on pairs or sft (per token of the chosen "
        "response): sft?weight=0.2, ipo?weight=0.5&beta=0.2.",
    )

    @property
    def terms(self) -> tuple[Term, ...]:
        return (*super().terms, *map(_read_term, self.mix))

    @field_validator("mix")
    @classmethod
    def _known_terms(cls, mix: tuple[str, ...]) -> tuple[str, ...]:
        names = [cls.objective, *(_read_term(spec).settings.objective for spec in mix)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"each objective once, and {', '.join(sorted(twice))} is a term twice")
        return mix


# ---- from a function to a class ------------------------------------------------------------------------------------


def settings_of(objective: str) -> type[PreferenceSettings]:
    """The settings class of an objective: of one of ours or an installed package's by its name, of one's own by
    `file.py:function`. The same class each time, until the file changes.

    Raises UserError where there is no such objective, and where it is not a function as one is needed.
    """
    return _class_of(load(objective, "objectives", OBJECTIVES))


def own_fields(kind: type[PreferenceSettings]) -> list[str]:
    """The hyper-parameters of the objective, in the order of its function's arguments."""
    return [name for name in kind.model_fields if name not in PairSettings.model_fields]


@lru_cache(maxsize=256)
def _class_of(plugin: Plugin) -> type[PreferenceSettings]:
    line = plugin.value if isinstance(plugin.value, Objective) else Objective(plugin.value)
    rate = f"Peak learning rate of AdamW ({line.rate_source})."
    try:
        base = PairSettings if line.data == "pairs" else PreferenceSettings
        fields: Any = dict(_hyperparameters(line.loss))
        if taken := fields.keys() & PairSettings.model_fields.keys():
            raise TypeError(f"{', '.join(sorted(taken))} is a setting of every training; call its argument otherwise")
        fields["output_dir"] = (Path, Field(default=Path("runs") / plugin.name, description=_OUTPUT))
        fields["learning_rate"] = (float, Field(default=line.learning_rate, gt=0, description=rate))
        kind: type[PreferenceSettings] = create_model(
            plugin.name, __base__=base, __doc__=summary_of(line.loss), __module__=__name__, **fields
        )
    except (TypeError, ValueError, NameError, KeyError, PydanticUserError) as error:
        raise UserError(f"{plugin.where}: {plugin.name} cannot be an objective: {error}") from error
    kind.objective, kind.line, kind.plugin = plugin.name, line, plugin
    return kind


def _hyperparameters(loss: Callable[..., object]) -> Iterator[tuple[str, tuple[object, Any]]]:
    """The keyword-only arguments as fields. Raises TypeError where one is not as it has to be."""
    hints, texts = get_type_hints(loss, include_extras=True), _arguments_of(loss)
    for parameter in list(inspect.signature(loss).parameters.values())[1:]:
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
            raise TypeError(f"behind its first argument it takes keyword-only ones with defaults, not {parameter}")
        if parameter.name not in hints:
            raise TypeError(f"its argument {parameter.name} needs a type, such as {parameter.name}: float")
        description = texts.get(parameter.name, f"{parameter.name} of the objective.")
        yield parameter.name, _field(hints[parameter.name], parameter.default, description)


def _field(hint: object, default: Any, description: str) -> tuple[object, Any]:
    annotation, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    bounds: dict[str, Any] = {}
    for mark in marks:
        if isinstance(mark, Named):
            annotation, default = str, {known: name for name, known in mark.known.items()}[default]
        if isinstance(mark, Bounds):
            bounds = {"gt": mark.above, "ge": mark.at_least, "lt": mark.below, "le": mark.at_most}
    return annotation, Field(default=default, description=description, **bounds)


def summary_of(loss: Callable[..., object]) -> str:
    """The first line of a function's docstring, which is the help of its command."""
    return (inspect.getdoc(loss) or "An objective of your own.").split("\n")[0]


def _arguments_of(loss: Callable[..., object]) -> dict[str, str]:
    """What the docstring says of each argument under `Args:`."""
    _, _, section = f"\n{inspect.getdoc(loss) or ''}\n".partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    found = re.findall(r"^ {4}(\w+):((?:.*\n)(?: {5,}.*\n)*)", section + "\n", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


# ---- mixtures ------------------------------------------------------------------------------------------------------


def _read_term(spec: str) -> Term:
    """ "ipo?weight=0.5&beta=0.2" as a term. Raises ValueError with what is wrong."""
    name, _, query = spec.partition("?")
    parts = [part.partition("=") for part in query.split("&")] if query else []
    if any(not sign for _, sign, _ in parts):
        raise ValueError(f"{spec}: name=value is needed, and & between several: {name}?weight=0.5&…")
    given = {key: value for key, _, value in parts}
    if len(given) < len(parts):
        raise ValueError(f"{spec}: a name is given twice")
    try:
        weight = float(given.pop("weight", "1"))
    except ValueError:
        raise ValueError(f"{spec}: the weight is no number") from None
    if not 0 < weight < float("inf"):
        raise ValueError(f"{spec}: a weight greater than 0 is needed")
    try:
        kind = _class_of(load(name, "objectives", {**OBJECTIVES, **TERMS}))
    except UserError as error:
        raise ValueError(f"{spec}: {error}") from None
    if not issubclass(kind, PairSettings):
        raise ValueError(f"{name} reads single responses, and cannot be mixed in")
    own = own_fields(kind)
    if unknown := set(given) - set(own):
        known = ", ".join(["weight", *sorted(own)])
        raise ValueError(f"{spec}: {name} has no {', '.join(sorted(unknown))}; it has {known}")
    try:
        settings = load_settings(kind, None, {"model": "-", "train_data": ["-"], **given})
    except UserError as error:
        raise ValueError(f"{spec}: {error}") from None
    return Term(weight, settings)
