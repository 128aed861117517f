"""Single cases worth reading: where a model gained most, lost most, and where nothing was decided."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from preflab.core.records import Message
from preflab.core.terminal import printable
from preflab.stats.study import Case, Judge, Study, score_difference, verdict

TOP = 10
LONGEST = 300  # characters of a text in a Markdown cell


def prompt_text(prompt: Sequence[Message]) -> str:
    """A prompt as plain text: a single user turn as it is, else one paragraph a turn, with its role."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in prompt)


def gains(study: Study, model: str) -> tuple[Judge | None, list[tuple[float, Case]]]:
    """How much better `model` is than the baseline on each case that was judged, most first, and by whom it is said.

    By the study's first scorer it is the difference of scores, else by its first judge the points beyond 1/2.
    """
    judges = (*study.scorers, *study.judges)
    if not judges or model == study.baseline:
        return None, []
    judge, base = judges[0], study.baseline
    found = []
    for case in study.cases:
        if judge.is_scorer:
            gain = score_difference(case, judge, model, base)
        else:
            said = verdict(case, judge, model, base, base)
            gain = None if said is None or said.points is None else said.points - 0.5
        if gain is not None:
            found.append((gain, case))
    return judge, sorted(found, key=lambda item: -item[0])


def cases_as_markdown(study: Study) -> str:
    """`cases.md`: the last model's ten largest gains and losses and ten ties, as tables to read."""
    model, base = study.models[-1].name, study.baseline
    judge, ranked = gains(study, model)
    title = f"# {markdown_cell(model)} against {markdown_cell(base)}"
    if judge is None:
        return f"{title}\n\nNobody judged these responses.\n"
    what = "difference of scores" if judge.is_scorer else "points beyond one half"
    groups = {
        "Largest gains": [item for item in ranked if item[0] > 0][:TOP],
        "Largest losses": [item for item in ranked[::-1] if item[0] < 0][:TOP],
        "Ties": [item for item in ranked if item[0] == 0][:TOP],
    }
    parts = [title, f"By {markdown_cell(judge.name)}: {what}, over {len(ranked):,} cases. Long texts are cut."]
    for heading, items in groups.items():
        parts.append(f"## {heading}\n\n{_table(items, model, base)}" if items else f"## {heading}\n\nNone.")
    return "\n\n".join(parts) + "\n"


def _table(items: Sequence[tuple[float, Case]], model: str, base: str) -> str:
    lines = [f"| case | prompt | {markdown_cell(model)} | {markdown_cell(base)} | gain |", "|---|---|---|---|---:|"]
    for gain, case in items:
        texts = (prompt_text(case.prompt), case.answers[model].text, case.answers[base].text)
        lines.append(f"| {case.sample_id} | {' | '.join(map(markdown_cell, texts))} | {gain:+.3g} |")
    return "\n".join(lines)


def markdown_cell(text: str) -> str:
    """Anybody's text as a cell of a Markdown table: on one line, cut if it is long, and without markup."""
    line = " ".join(printable(text).split())
    cut = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", html.escape(cut, quote=False)) or " "
