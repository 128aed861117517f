"""Who takes part in a comparison: words of the command line -> models, response files, or sides of preference data."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from preflab.core.config import named
from preflab.core.records import UserError
from preflab.data.answers import is_answer_file
from preflab.training.as_run import model_of

PlayerKind = Literal["model", "file", "chosen", "rejected"]

# Folders that say what lies in them, not whose it is: runs/dpo/model is the model of `dpo`.
_ANONYMOUS = {"model", "merged_model", "adapter", "final", "responses", "outputs"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One who takes part, as the user named it: `source` is a model, a file of responses, or a side of the prompts."""

    name: str
    source: str
    kind: PlayerKind


def read_entries(words: Sequence[str], writer: Callable[[str], str | None] | None = None) -> tuple[Entry, ...]:
    """`runs/dpo/model`, `gpt2`, `dpo=runs/dpo`, `outputs.json`, `chosen` -> entries with different names.

    `writer` finds who wrote a file of responses, by whose name it is called where the user gives none.
    Raises UserError where two have one name: `name=…` in front tells them apart.
    """
    entries = tuple(_entry(word, writer) for word in words)
    names = [check_name(entry.name, reserved=("preference_data",)) for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"two of what is compared are called {', '.join(twice)}; put names in front, as in mine={words[-1]}"
        )
    return entries


_OURS = re.compile(r"\.(?:manifest|unfinished|summary|lock|jsonl?)$")  # what stands beside a file of ours


def check_name(name: str, *, reserved: Sequence[str] = ()) -> str:
    """The name itself, where it can be a file's. Raises UserError else, and for `reserved` ones."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name) or name in reserved or _OURS.search(name):
        why = "has a meaning here" if name in reserved or _OURS.search(name) else "cannot be the name of a file"
        raise UserError(f"{name!r} {why}; a name is letters, digits, _, - and ., a hundred at most")
    return name


def short_name(source: str) -> str:
    """What to call a path or an id: its last part that says whose it is, safe as a file's name."""
    parts = [part for part in re.split(r"[/\\]+", source) if part not in ("", ".", "..")] or [source]
    last = re.sub(r"(\[[^\[\]]*\])+$", "", parts[-1]).removesuffix(".gz")
    for ending in (".jsonl", ".json", ".csv", ".parquet", ".gguf"):
        last = last.removesuffix(ending)
    if last in _ANONYMOUS and len(parts) > 1:
        last = parts[-2]
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model"


def own_name(spec: str) -> str:
    """What to call a function of the user's own: `lib/mine.py:score` is mine-score; an installed one has its name."""
    path, colon, function = spec.rpartition(":")
    return f"{short_name(path).removesuffix('.py')}-{function}" if colon else short_name(spec).removesuffix(".py")


def _entry(word: str, writer: Callable[[str], str | None] | None) -> Entry:
    name, source = named(word)
    if source in ("chosen", "rejected"):
        return Entry(name or source, source, source)  # type: ignore[arg-type]
    kind: PlayerKind = "file" if is_answer_file(source) else "model"
    if kind == "file":
        return Entry(name or (writer and writer(source)) or short_name(source), source, kind)
    return Entry(name or short_name(source), model_of(source), kind)
