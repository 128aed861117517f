"""A section of a page, ready to be set: text only, no HTML but the figures' SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from preflab.core.rundir import to_json
from preflab.page.cells import Cell, Table
from preflab.stats.results import Finding


@dataclass(frozen=True, slots=True)
class Bar:
    """A model's samples before a judge, by outcome, drawn as one stacked bar."""

    model: str
    opponent: str
    counts: Mapping[str, int]  # outcome -> samples, without those that did not occur
    flips: str


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels (SVG elements) that belong together. Those with a label, which says whom they are about, can be folded.

    Of a `wide` figure a narrow page shows a part, to be scrolled sideways.
    """

    label: str
    panels: tuple[str, ...]
    unfolded: bool = True
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. `bars` is judge -> bars."""

    anchor: str
    title: str
    tables: tuple[Table, ...] = ()
    bars: Mapping[str, tuple[Bar, ...]] | None = None
    figures: tuple[Figure, ...] = ()
    remarks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.tables or self.bars or self.figures or self.remarks or self.findings)


def anchor(kind: str, name: str) -> str:
    """An id for the page, of any name."""
    return f"{kind}-{quote(name, safe='').replace('%', '_')}"


def leading(findings: Sequence[Finding], count: int) -> Sequence[Finding]:
    """So many findings, with the warnings that stand before them and go with them."""
    before = next((number for number, found in enumerate(findings) if found.tone != "warning"), 0)
    return findings[: max(count, before + 1)]


def with_name(name: str, finding: Finding) -> Finding:
    """A finding with the name of what it is about in front."""
    return Finding(f"{name}: {finding.text}", finding.tone)


def run_tables(manifest: Mapping[str, Any]) -> Iterable[Table]:
    """What a `manifest.json` says of a run, where it says it."""
    facts = {
        "command": manifest.get("command"),
        "started": ", ".join(manifest.get("started") or ()),
        "seed": manifest.get("seed"),
        "versions": ", ".join(f"{name} {version}" for name, version in (manifest.get("versions") or {}).items()),
        "commit": (manifest.get("git") or {}).get("commit"),
    }
    for caption, told in {"Run": facts, "Settings": manifest.get("settings") or {}}.items():
        rows = tuple((Cell(name), Cell(_plain(fact))) for name, fact in told.items() if fact not in (None, "", [], {}))
        if rows:
            yield Table(caption, ("Name", "Value"), rows)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else to_json(value)
