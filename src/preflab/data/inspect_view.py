"""An `Inspection` for people. Text of the data is shown with control characters escaped, and never read as markup."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from preflab.data.formats import FORMATS
from preflab.data.inspect import Inspection, RenderedRow, Rows
from preflab.terminal import printable


def render(inspection: Inspection) -> RenderableType:
    """Tables of what was found, then the rendered rows."""
    shown: list[RenderableType] = [
        Text(_plain(inspection.source), style="bold"),
        _summary(inspection),
        *([_dropped(inspection)] if inspection.dropped else []),
        *([_lengths(inspection)] if inspection.lengths else []),
        *(_rendered_row(row, inspection) for row in inspection.rendered),
    ]
    return Group(*(part for item in shown for part in (item, Text())))


def _summary(found: Inspection) -> Table:
    table = Table.grid(padding=(0, 2))
    sizes = ", ".join(f"{rows} with {size}" for size, rows in found.ranking_sizes.items())
    facts = {
        "format": "; ".join(f"{name}: {FORMATS[name].about}" if name in FORMATS else name for name in found.formats),
        "rows": f"{found.rows}, of which {found.usable} can be used",
        "responses per row": sizes or "-",
        "pairs": f"{found.pairs}",
        "duplicates": _rows(found.duplicates, found),
        "conflicting pairs": _rows(found.conflicting, found),
        "repeated prompts": _rows(found.repeated_prompts, found),
    }
    if found.chosen_longer is not None and found.same_length is not None and found.length_only_accuracy is not None:
        unit = "tokens" if "tokens" in found.lengths else "characters"
        facts["chosen is longer"] = f"{found.chosen_longer:.1%} of pairs, {found.same_length:.1%} equal (in {unit})"
        facts["length-only accuracy"] = f'{found.length_only_accuracy:.1%}, by "the longer one is better"'
    if "tokens" in found.lengths:
        facts["prompts cut"] = _rows(found.cut_prompts, found)
    for index, shared in enumerate(found.overlaps):
        counts = f"{shared.prompts} of {shared.of_prompts} prompts, {shared.rows} of {shared.of_rows} rows"
        facts[f"shared{f' ({index + 1})' if index else ''}"] = (
            f"{counts} of {shared.source} are also in {shared.earlier}"
        )
    for index, warning in enumerate(found.warnings):
        facts[f"warning{f' ({index + 1})' if index else ''}"] = warning
    for name, fact in facts.items():
        table.add_row(Text(name, style="dim"), Text(_plain(fact)))
    return table


def _rows(rows: Rows, found: Inspection) -> str:
    return f"{rows.count}" + (f" ({_named(rows.first_rows, rows.count, found)})" if rows.count else "")


def _named(rows: Iterable[int], count: int, found: Inspection) -> str:
    """The first rows by number, after the name of their file unless it is the one that was asked for."""
    numbers: dict[str, list[str]] = {}
    for row in rows:
        name, _, number = found.places[row].rpartition(" row ")
        numbers.setdefault(name, []).append(number)
    names = [("" if name == found.source else f"{name} ") + f"row {', '.join(of)}" for name, of in numbers.items()]
    return "; ".join(names) + (", …" if count > sum(map(len, numbers.values())) else "")


def _dropped(found: Inspection) -> Table:
    table = Table("Dropped because", "rows", "first", "what was found", title_justify="left", expand=False)
    for name, reason in found.dropped.items():
        places = _named(reason.first_rows, reason.count, found)
        table.add_row(*(Text(_plain(cell)) for cell in (name, str(reason.count), places, reason.example)))
    return table


def _lengths(found: Inspection) -> Table:
    table = Table("Length in", "of", *("min", "median", "mean", "95 %", "max"))
    for column in table.columns[2:]:
        column.justify = "right"
    for unit, parts in found.lengths.items():
        for part, length in parts.items():
            figures = (length.min, length.median, length.mean, length.p95, length.max)
            table.add_row(unit, part, *(f"{figure:,.0f}" for figure in figures))
    return table


def _rendered_row(shown: RenderedRow, found: Inspection) -> Text:
    """All tokens, divided by bars; the trained ones in bold, after a line that says so where there are no styles."""
    text = Text()
    trained: bool | None = None
    for token in shown.tokens:
        if token.trained is not trained:
            trained = token.trained
            count = sum(other.trained is trained for other in shown.tokens)
            place = f"{found.places[shown.row]}, response {shown.response + 1}"
            what = f"trained, {count} tokens" if trained else f"prompt, not trained, {count} tokens"
            text.append(f"{_plain(place)}: {what}\n" if not text else f"\n{what}\n", style="cyan")
        visible = _plain(token.text)
        text.append(visible, style="bold green" if trained else "")
        text.append("│" + ("\n" if "\n" in token.text else ""), style="dim")
    return text


def _plain(text: str) -> str:
    """One line of text, line breaks and tabs shown as signs."""
    return printable(text).replace("\n", "⏎").replace("\t", "⇥")
