"""A study: a command that leaves a folder of rows, from which all that is said of them can be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflab.core.command import StageCommand, locate
from preflab.page.sections import Section, anchor
from preflab.stats.results import Finding


@dataclass(frozen=True)
class Part:
    """What a study left as a stage of an experiment, for the experiment's page.

    Attributes:
        group: the stage's name before a sweep made several of it.
        swept: what the sweep gave this one, in words.
        report: the address of its own page; empty where there is none.
        failed: the stage failed, and this is what it had made by then.
        found: what the study's folder holds, as `OnPage.read` gave it.
    """

    name: str
    group: str
    swept: str
    report: str
    failed: bool
    found: Any


@dataclass(frozen=True)
class OnPage:
    """How a study shows on an experiment's page.

    Attributes:
        read: folder -> what is shown of it. Raises UserError where it cannot be read.
        findings: of that, the most important first.
        sections: of all parts that the study made in an experiment, in the order of its stages.
        when_failed: what a failed stage had made is shown too.
    """

    read: Callable[[Path], Any]
    findings: Callable[[Any], Sequence[Finding]]
    sections: Callable[[Sequence[Part]], Iterable[Section]]
    when_failed: bool = False


@dataclass(frozen=True)
class Study(StageCommand):
    """A line of the table of studies. `head` is the file that makes a folder one of this study.

    Attributes:
        report: folder -> what it found, whose text is shown; it writes tables, figures and pages anew, from rows alone.
        on_page: how it shows on an experiment's page, an `OnPage`; by default by what the report says.
    """

    config: bool = True
    place: str = "out"
    harmless: str | frozenset[str] = "preflab.core.output:NOT_IN_RESULT"
    report: str | Callable[[Path], object] = ""
    on_page: str = ""

    def report_on(self, folder: Path) -> object:
        return locate(self.report)(folder)

    def page_part(self) -> OnPage:
        found: OnPage = locate(self.on_page) if self.on_page else OnPage(self.report_on, _no_findings, _told)
        return found


def _no_findings(_: object) -> Sequence[Finding]:
    return ()


def _told(parts: Sequence[Part]) -> Iterable[Section]:
    for part in parts:
        yield Section(anchor("study", part.name), part.name, remarks=tuple(str(part.found).splitlines()))
