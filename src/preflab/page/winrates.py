"""A table of win rates for three kinds of reader: Markdown for people, CSV for programs, LaTeX for papers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from preflab.core.rundir import write_text
from preflab.page.cases import markdown_cell
from preflab.stats.results import Estimate
from preflab.stats.wording import NOTHING, exact_percent, p_value

Row = Mapping[str, Any]
"""Columns of a line: texts, counts, `Estimate`s of rates, `p_value`; all lines have the same, None where unknown."""


def write_winrates(rows: Sequence[Row], folder: Path) -> None:
    """Write `winrates.md`, `winrates.csv` and `winrates.tex`."""
    write_text(folder / "winrates.md", as_markdown(rows))
    write_text(folder / "winrates.csv", as_csv(rows))
    write_text(folder / "winrates.tex", as_latex(rows))


def csv_text(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Rows under their own names, every line ended by a line feed; what a row lacks is empty."""
    frame = pd.DataFrame(list(rows), columns=columns).convert_dtypes()  # whole numbers stay so where some are unknown
    return str(frame.to_csv(index=False, lineterminator="\n"))


def as_csv(rows: Sequence[Row]) -> str:
    """Plain numbers in full precision; a rate is four columns: itself, _low, _high and _n."""
    return csv_text(flat(rows))


def flat(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same rows with four columns of numbers for a rate."""
    found = []
    rates = {name for row in rows for name, value in row.items() if isinstance(value, Estimate)}
    for row in rows:
        line: dict[str, Any] = {}
        for name, value in row.items():
            line[name] = value.value if isinstance(value, Estimate) else value
            if name in rates:
                line |= {f"{name}_{part}": getattr(value, part, None) for part in ("low", "high", "n")}
        found.append(line)
    return found


def as_markdown(rows: Sequence[Row]) -> str:
    """A table with rates as per cent and their intervals in brackets."""
    if not rows:
        return "No contests.\n"
    header = [_heading(name) for name in rows[0]]
    rule = ["---:" if _is_number(rows, name) else "---" for name in rows[0]]
    body = ([markdown_cell(v) if isinstance(v, str) else _shown(v, name) for name, v in row.items()] for row in rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *body]) + "\n"


def as_latex(rows: Sequence[Row]) -> str:
    """A plain tabular that needs no package; for \\input."""
    if not rows:
        return "% no contests\n"
    columns = "".join("r" if _is_number(rows, name) else "l" for name in rows[0])
    header = " & ".join(escape_latex(_heading(name)) for name in rows[0])
    lines = [" & ".join(escape_latex(_shown(value, name)) for name, value in row.items()) for row in rows]
    body = " \\\\\n".join(lines)
    return f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{header} \\\\\n\\hline\n{body} \\\\\n\\hline\n\\end{{tabular}}\n"


_LATEX: Mapping[str, str] = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"−": "$-$", "–": "--", "—": "---"},
}


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it reads here; brackets are kept from being taken for the option of a line break."""
    line = " ".join(text.split())
    escaped = re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], line)
    return f"{{{escaped}}}" if escaped.startswith(("[", "*")) else escaped


def _is_number(rows: Sequence[Row], name: str) -> bool:
    return not any(isinstance(row[name], str) for row in rows)


def _heading(name: str) -> str:
    return {"p_value": "p", "length_controlled": "at equal length"}.get(name, name.replace("_", " "))


def _shown(value: Any, name: str) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, Estimate):
        return f"{exact_percent(value.value)} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    if name == "p_value":
        return p_value(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
