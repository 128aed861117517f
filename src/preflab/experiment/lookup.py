"""What an estimate looks up: sizes of models and amounts of data, also of those that other stages have yet to make."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from preflab.core.records import UserError
from preflab.data.templates import apply_named_template, apply_template_values
from preflab.data.tokenize import ChatTemplate
from preflab.experiment.amounts import EVERYTHING, Amount, Wanted, measure
from preflab.experiment.plan import Plan, PlannedStage
from preflab.experiment.sizes import ModelSize, model_size
from preflab.model.files import at_revision, quiet
from preflab.model.tokenizers import load_tokenizer
from preflab.sandbox.tiny import build_tiny_model

MODEL_SETTINGS = ("model", "adapter")


class UnknownError(Exception):
    """Something that an estimate needs cannot be known; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Found = TypeVar("Found")


class Notes:
    """How a stage's need was found, each note once."""

    def __init__(self) -> None:
        self.texts: tuple[str, ...] = ()

    def add(self, text: str) -> None:
        self.texts = tuple(dict.fromkeys((*self.texts, text)))

    def unless_unknown(self, find: Callable[[], Found]) -> Found | None:
        """What is found; None, and the reason among the notes, where it cannot be known."""
        try:
            return find()
        except UnknownError as unknown:
            self.add(unknown.reason)
            return None


@dataclass(frozen=True)
class Root:
    """The model that a chain of trainings begins with, and the named template that one of them gave it."""

    name: str
    chat_template: str | None
    values: str  # chat_template_kwargs, as JSON


@dataclass
class Lookup:
    """Sizes and amounts for the stages of a plan, each found once.

    A dry run runs nothing, so neither code that comes with a model nor a user's own function is run here.
    """

    plan: Plan
    sizes: dict[str, ModelSize | UnknownError] = field(default_factory=dict)
    templates: dict[Root, ChatTemplate | None] = field(default_factory=dict)
    amounts: dict[tuple[Any, ...], Amount | UnknownError] = field(default_factory=dict)
    scratch: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def maker(self, place: str) -> PlannedStage | None:
        """The stage in whose folder a path lies."""
        path = Path(place).absolute()
        return next((stage for stage in self.plan.stages if path.is_relative_to(stage.folder.absolute())), None)

    def root(self, model: str, chat_template: str | None = None, values: Mapping[str, Any] | None = None) -> Root:
        """The model from which the stages before have made, or will make, this one."""
        stage = self.maker(model)
        if stage is None:
            return Root(model, chat_template, json.dumps(values or {}, sort_keys=True))
        settings: Any = stage.settings
        if stage.command == "sandbox":
            return Root(str(self._tiny_model()), chat_template, json.dumps(values or {}, sort_keys=True))
        start = next((getattr(settings, name) for name in MODEL_SETTINGS if hasattr(settings, name)), None)
        if start is None:
            raise UnknownError(f"{stage.name} makes no model")
        named = chat_template or getattr(settings, "chat_template", None)
        own = getattr(settings, "chat_template_kwargs", {})
        start = at_revision(str(start), getattr(settings, "revision", None))
        return self.root(start, named, {**own, **(values or {})})

    def size(self, model: str) -> ModelSize:
        """Raises UnknownError where the model's configuration cannot be had."""
        root = self.root(model)
        if root.name not in self.sizes:
            try:
                self.sizes[root.name] = model_size(root.name)
            except UserError as error:
                self.sizes[root.name] = UnknownError(_first_sentence(error))
        found = self.sizes[root.name]
        if isinstance(found, UnknownError):
            raise found
        return found

    def template(
        self, model: str, chat_template: str | None, values: Mapping[str, Any] | None = None
    ) -> ChatTemplate | None:
        """The template that counts tokens; None where the model's tokenizer cannot be had."""
        root = self.root(model, chat_template, values)
        if root not in self.templates:
            try:
                self.size(model)  # a hub that did not give the configuration is not asked again
                tokenizer = load_tokenizer(root.name)
                apply_named_template(tokenizer, root.chat_template)
                apply_template_values(tokenizer, json.loads(root.values))
                self.templates[root] = ChatTemplate(tokenizer)
            except (UserError, UnknownError):
                self.templates[root] = None
        return self.templates[root]

    def amount(
        self,
        specs: Sequence[str],
        form: str | None,
        template: ChatTemplate | None,
        *,
        max_length: int | None = None,
        max_prompt_length: int | None = None,
        wanted: Wanted = EVERYTHING,
    ) -> Amount:
        """Number and lengths of the rows that are wanted of the sources. Raises UnknownError where they are on a hub,
        or not there to be read.
        """
        places = tuple(self._sandbox_spec(spec) for spec in specs)
        limits = {"max_length": max_length, "max_prompt_length": max_prompt_length}
        key = (places, form, template and template.fingerprint, *limits.values(), wanted)
        if key not in self.amounts:
            try:
                self.amounts[key] = measure(places, form, template, **limits, wanted=wanted)
            except UserError as error:
                self.amounts[key] = UnknownError(_first_sentence(error))
        found = self.amounts[key]
        if isinstance(found, UnknownError):
            raise found
        return found

    def _sandbox_spec(self, spec: str) -> str:
        """A file that a sandbox stage will write, as the spec of the same rows; anything else as it is."""
        stage = self.maker(spec)
        if stage is None or Path(spec).exists():
            return spec
        if stage.command != "sandbox":
            raise UnknownError(f"its data is yet to be made by {stage.name}")
        settings: Any = stage.settings
        name, _, rest = Path(spec).name.partition("-")
        split = "test" if rest.startswith("test") else "train"
        kind = name if name in ("demonstrations", "prompts") else "preferences"
        rows = settings.eval_rows if split == "test" else settings.rows
        return f"sandbox:{kind}?rows={rows}&split={split}&seed={settings.seed}"

    def _tiny_model(self) -> Path:
        path = Path(self.scratch.name) / "tiny"
        with quiet():
            return path if path.exists() else build_tiny_model(path)


def _first_sentence(error: UserError) -> str:
    line = str(error).splitlines()[0]
    return line if len(line) <= 160 else f"{line[:159]}…"
