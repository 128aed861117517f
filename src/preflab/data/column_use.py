"""What each column of the data is read as, which are kept beside it, and which are not used at all, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from preflab.core.terminal import one_line, say
from preflab.data.fields import Row, is_missing
from preflab.data.layout import Format
from preflab.data.messages import unread_fields
from preflab.data.names import SYSTEM
from preflab.data.rows import is_short_scalar, no_meta
from preflab.data.sources import Source

_SHOWN = 20  # columns of one sort in a line


@dataclass(frozen=True)
class Columns:
    """The columns of one source.

    Attributes:
        source: its name.
        read: column -> what it is read as.
        meta: columns that are kept with the comparison, and not read.
        unused: columns, and fields of messages (`messages.name`), that are left out.
    """

    source: str
    read: Mapping[str, str]
    meta: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """`question -> prompt, chosen, rejected; kept as meta: id; not used: notes`."""
        read = [name if name == role else f"{name} -> {role}" for name, role in self.read.items()]
        parts = {"": read or ["none is read"], "kept as meta: ": self.meta, "not used: ": self.unused}
        return "; ".join(f"{what}{_listed(names)}" for what, names in parts.items() if names)


def also_read(columns: Columns, names: Sequence[str]) -> Columns:
    """The same where those of `names` that are kept as meta are read, each as what it is called."""
    more = {name: name for name in columns.meta if name in names}
    return replace(
        columns, read={**columns.read, **more}, meta=tuple(name for name in columns.meta if name not in more)
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(one_line, names[:_SHOWN])) + more


def columns_to_json(columns: Sequence[Columns]) -> list[dict[str, Any]]:
    return [asdict(found) for found in columns]


def columns_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Columns, ...]:
    """What `columns_to_json` wrote."""
    return tuple(Columns(row["source"], row["read"], tuple(row["meta"]), tuple(row["unused"])) for row in rows)


def described(columns: Sequence[Columns]) -> list[str]:
    """A line for each source, which names it where there are several with different columns."""
    lines = [str(found) for found in columns]
    if len(set(lines)) <= 1:
        return [f"columns: {line}" for line in lines[:1]]
    return [f"columns of {one_line(found.source)}: {found}" for found in columns]


def tell_columns(columns: Sequence[Columns]) -> None:
    """Say at the terminal what the columns of the data are read as, in the words of every training."""
    for line in described(columns):
        say(line)


@dataclass
class _Seen:
    """What has been seen of the columns of one source so far."""

    names: dict[str, None] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    left_out: dict[str, None] = field(default_factory=dict)


class ColumnTally:
    """Which columns the rows have, and what becomes of them, found while the rows are read."""

    def __init__(self, formats: Sequence[tuple[str, Format]]) -> None:
        self._formats = [form for _, form in formats]
        self._seen = [_Seen() for _ in formats]
        self._roles = [role_of(form) for form in self._formats]

    def add(self, part: int, row: Row) -> None:
        seen, role = self._seen[part], self._roles[part]
        for name, value in row.items():
            seen.names.setdefault(name)
            if role(name):
                if isinstance(value, list | dict):
                    seen.left_out.update(dict.fromkeys(f"{name}.{key}" for key in sorted(unread_fields(value))))
            elif is_short_scalar(value) and value != "":
                seen.kept.add(name)
            elif not is_missing(value) and value not in ("", [], {}):
                seen.left_out.setdefault(name)

    def columns(self, source: Source) -> tuple[Columns, ...]:
        parts = source.parts or (source,)
        found = []
        for part, seen, role, form in zip(parts, self._seen, self._roles, self._formats, strict=True):
            touched = form.touched if form.own else ()
            read = {str(name): role(name) or "your function" for name in seen.names if role(name) or name in touched}
            rest = [str(name) for name in seen.names if name not in read]
            meta = tuple(name for name in rest if name in seen.kept and name not in seen.left_out)
            unused = tuple(name for name in rest if name not in meta)
            fields = tuple(name for name in map(str, seen.left_out) if name not in seen.names)
            read = {part.renamed.get(name, name): what for name, what in read.items()}
            found.append(Columns(part.name, read, meta, (*unused, *fields, *part.replaced)))
        return tuple(found)


def role_of(form: Format) -> Callable[[Any], str]:
    """Column -> what the format reads it as, "" for one that it does not read."""
    read = set() if form.own else no_meta(form) | set(form.scores) | set(form.renamed)
    roles = {**dict.fromkeys(form.scores, "score"), form.label: "label", **dict.fromkeys(SYSTEM, "system")}

    def role(name: Any) -> str:
        name = form.spelling.get(name, name)
        if name not in read:
            return ""
        name = form.renamed.get(name, name)
        return roles.get(name) or form.roles.get(name) or str(name)

    return role
