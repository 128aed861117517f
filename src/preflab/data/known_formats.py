"""The formats of rows that are known by name."""

from __future__ import annotations

from dataclasses import dataclass

from preflab.core.plugins import installed
from preflab.data.formats import FORMATS
from preflab.data.settings import FormatsSettings


@dataclass(frozen=True)
class KnownFormats:
    """Name of each format -> what its rows look like."""

    formats: dict[str, str]

    def __str__(self) -> str:
        width = max(map(len, self.formats))
        own = (
            f"{'file.py:function':{width}}  your own: a function from a row to a dict with prompt, chosen and rejected"
        )
        return "\n".join([*(f"{name:{width}}  {about}" for name, about in self.formats.items()), own])


def list_formats(_: FormatsSettings) -> KnownFormats:
    """Name and meaning of every format."""
    ours = {name: form.about for name, form in FORMATS.items()}
    theirs = {name: f"of {point.module}, installed" for name, point in installed("formats").items()}
    return KnownFormats(ours | {name: about for name, about in theirs.items() if name not in ours})
