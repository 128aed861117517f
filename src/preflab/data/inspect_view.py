"""An `Inspection` for people. Text of the data is shown with control characters escaped, and never read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from preflab.core.terminal import one_line
from preflab.data.column_use import Columns, described
from preflab.data.formats import FORMATS
from preflab.data.inspect import Inspection, RenderedRow, Rows
from preflab.data.remarks import MEANING


def render(inspection: Inspection) -> RenderableType:
    """Tables of what was found, then the rendered rows."""
    shown: list[RenderableType] = [
        Text(one_line(inspection.source), style="bold"),
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
        **_columns(found.columns),
        "responses per row": sizes or "-",
        **_labels(found.labels),
        "pairs": f"{found.pairs}",
        "duplicates": _rows(found.duplicates, found),
        "conflicting pairs": _rows(found.conflicting, found),
        "repeated prompts": _rows(found.repeated_prompts, found),
        **{remark: f"{_rows(rows, found)}: {MEANING[remark]}" for remark, rows in found.remarks.items()},
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
        table.add_row(Text(name, style="dim"), Text(one_line(fact)))
    return table


def _columns(columns: Sequence[Columns]) -> dict[str, str]:
    """What the columns are read as; one line for each source that differs."""
    lines = described(columns)
    return dict(line.split(": ", 1) for line in lines)


def _labels(labels: Mapping[str, int]) -> dict[str, str]:
    shown = ", ".join(f"{count} {label}" for label, count in labels.items() if count)
    return {"labels": shown} if labels.keys() - {"without"} else {}


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
        table.add_row(*(Text(one_line(cell)) for cell in (name, str(reason.count), places, reason.example)))
    return table


def _lengths(found: Inspection) -> Table:
    table = Table("Length in", "of", *("min", "median", "mean", "95 %", "max"))
    for column in table.columns[2:]:
        column.justify = "right"
    for unit, parts in found.lengths.items():
        for part, length in parts.items():
            figures = (length.min, length.median, length.mean, length.p95, length.max)
            # One response alone is not chosen over any.
            name = "response" if part == "chosen" and "rejected" not in parts else part
            table.add_row(unit, name, *(f"{figure:,.0f}" for figure in figures))
    return table


def _rendered_row(shown: RenderedRow, found: Inspection) -> Text:
    """All tokens, divided by bars; the trained ones in bold, after a line that says so where there are no styles."""
    text = Text()
    trained: bool | None = None
    for token in shown.tokens:
        if token.trained is not trained:
            trained = token.trained
            count = sum(other.trained is trained for other in shown.tokens)
            place = f"{found.places[shown.row]}, {shown.name}"
            what = f"trained, {count} tokens" if trained else f"prompt, not trained, {count} tokens"
            text.append(f"{one_line(place)}: {what}\n" if not text else f"\n{what}\n", style="cyan")
        visible = one_line(token.text)
        text.append(visible, style="bold green" if trained else "")
        text.append("│" + ("\n" if "\n" in token.text else ""), style="dim")
    return text
