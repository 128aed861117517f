"""What is in a data source, for people and for programs."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.text import Text

from preflab.core.records import UserError
from preflab.core.results import Result
from preflab.data.inspect import Inspection, inspect_source
from preflab.data.inspect_view import render
from preflab.data.settings import InspectSettings
from preflab.data.sources import open_sources
from preflab.data.tokenize import ChatTemplate


@dataclass(frozen=True, repr=False)
class InspectResult(Result):
    """What was found. Its text is JSON if that was asked for, else tables; in a terminal the tables have colours."""

    inspection: Inspection
    as_json: bool = False

    def __rich__(self) -> RenderableType:
        # Lines of JSON are never broken.
        return Text(str(self), no_wrap=True, overflow="ignore") if self.as_json else render(self.inspection)

    def __str__(self) -> str:
        if self.as_json:
            return json.dumps(self.inspection.to_json(), indent=2, allow_nan=False)
        console = Console(file=io.StringIO(), width=Console().width, color_system=None)
        console.print(self)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


def inspect_data(settings: InspectSettings) -> InspectResult:
    """Read the whole source once; with a model, count its tokens and render rows with its chat template."""
    if (settings.chat_template or settings.chat_template_kwargs) and not settings.model:
        name = "chat_template" if settings.chat_template else "chat_template_kwargs"
        raise UserError(f"{name}: a template needs a tokenizer; name a model with --model")
    template: ChatTemplate | None = None
    if settings.model:
        from preflab.data.splits import template_of  # brings torch, which inspection does without

        template = template_of(settings.model, settings.chat_template, settings.chat_template_kwargs)
    found = inspect_source(
        open_sources(settings.source, settings.columns),
        format_name=settings.format,
        template=template,
        max_length=settings.max_length if template else None,
        max_prompt_length=settings.max_prompt_length if template else None,
        render_rows=settings.rows,
    )
    return InspectResult(found, as_json=settings.json_output)
