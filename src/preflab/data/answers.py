"""Files of responses, whoever wrote them -> rows that can be laid side by side, prompt by prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from preflab.core.plugins import names_plugin
from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.column_use import Columns, ColumnTally, also_read
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.fields import excerpt
from preflab.data.formats import FORMATS
from preflab.data.layout import Format, in_the_datas_words
from preflab.data.rows import read_row
from preflab.data.sources import Source, is_file_of_rows, open_sources
from preflab.data.thinking import Spoken, split_reasoning

Side = Literal["chosen", "rejected"]
_SHOWN = 3
_OWN = ("row", "sample", "tokens", "finish", "reasoning")  # what a file of responses says of each


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One response in a file. `tokens` and `finish` ("eos" or "length") are None where the file does not say.

    `reasoning` is what was thought before it, of the file's own or in tags such as <think> within the text; nobody
    judges, scores or measures it.

    `row` and `sample` are the file's own where it has them (as files of `preflab generate` do); else the line, and 0.
    """

    row: int
    sample: int
    prompt: tuple[Message, ...]
    response: str
    tokens: int | None = None
    finish: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str = ""


def is_answer_file(word: str) -> bool:
    """Whether a word of the command line names a file of rows (or a slice of one), and not a model or a folder."""
    return is_file_of_rows(word)


def format_of_prompts(name: str | None, files: Sequence[str]) -> str | None:
    """Of a format that was asked for beside files of responses, what it says of the prompts: one of single responses
    is meant for the files.
    """
    return None if files and _is_of_answers(name) else name


def _is_of_answers(name: str | None) -> bool:
    return name in FORMATS and FORMATS[name].kind in _OF_ANSWERS


_OF_ANSWERS = ("demonstration", "unpaired")


def read_answers(
    spec: str,
    form: str | None = None,
    columns: Sequence[str] = (),
    *,
    beside: Sequence[str] = (),
    tell: Callable[[Sequence[Columns]], None] | None = None,
) -> tuple[AnswerRow, ...]:
    """Every response of a file: ours, AlpacaEval's `outputs.json`, or rows with a prompt and a response.

    Args:
        spec: the source spec of the file.
        form: a format that was asked for. One of preferences is not meant for files of responses; a function of the
            user's own is, save for files that `preflab generate` wrote.
        columns: pairs as for `open_sources`.
        beside: other sources that are read with these pairs.
        tell: is told what the columns are read as; not of a file that `preflab generate` wrote.

    An empty response is an answer too. Raises UserError for a file without responses, and for the first row that cannot
    be read: a row that is left out in silence would change what is compared.
    """
    source = open_sources((spec,), columns, beside=beside)
    is_own = form is not None and names_plugin(form, "formats")
    asked = form if _is_of_answers(form) or (is_own and not _is_ours(source)) else None
    ((name, found),) = formats = choose_formats(source, asked)
    if not found.own and found.kind not in _OF_ANSWERS:
        hint = (
            "; for the preferred responses of preference data, write `chosen` and name the data with --prompts"
            if found.kind == "ranking"
            else f"{_other_columns(source)}; let a model respond to them with `preflab generate`"
        )
        raise UserError(f"{spec}: a file of responses has one response a row, but these rows are {name}{hint}")
    tally = ColumnTally(formats)
    answers = []
    for number, row in source:
        tally.add(0, row)
        answers.append(_answer(source, found, number, row))
    if tell and not _is_ours(source):
        tell([also_read(part, _OWN) for part in tally.columns(source)])
    return _numbered(answers)


def _other_columns(source: Source) -> str:
    """What could be the response by its kind, though not by its name."""
    row = next((row for _, row in source), {})
    texts = [str(name) for name, value in row.items() if isinstance(value, str) and name != "prompt"]
    return f". If {' or '.join(texts)} is the response, say so with --columns response={texts[0]}" if texts else ""


def _is_ours(source: Source) -> bool:
    """Whether `preflab generate` wrote these rows."""
    return all(
        {"row", "sample", "prompt", "response", "tokens", "finish"} <= row.keys() for _, row in islice(source, 9)
    )


def _numbered(answers: Iterable[AnswerRow]) -> tuple[AnswerRow, ...]:
    rows = tuple(answers)
    if len({(row.row, row.sample) for row in rows}) < len(rows):  # its `row` means something else
        rows = tuple(replace(row, row=number, sample=0) for number, row in enumerate(rows, 1))
    return rows


def _answer(source: Source, form: Format, number: int, row: Mapping[str, Any]) -> AnswerRow:
    try:
        found = read_row(form, row)
    except RowError as error:
        detail = in_the_datas_words(error.detail, form, source.renamed)
        raise UserError(f"{source.where(number)}: {RowError(error.reason, detail)}") from error
    if not found.prompt:
        raise UserError(f"{source.where(number)}: the prompt is empty")
    if len(found.responses) != 1:
        raise UserError(
            f"{source.where(number)}: {len(found.responses)} responses; a row of a file of responses has one: for "
            "these files the function must return a dict with prompt and response"
        )
    own = {name: value for name in ("row", "sample", "tokens") if isinstance(value := row.get(name), int)}
    said = apart(found, 0)
    # A thought without an end was cut, whatever the file says or does not say.
    finish = str(row["finish"]) if row.get("finish") else None if said.finished else "length"
    return AnswerRow(
        row=own.get("row", number),
        sample=own.get("sample", 0),
        prompt=found.prompt,
        response=said.response,
        tokens=own.get("tokens"),
        finish=finish,
        meta={name: value for name, value in found.meta.items() if name not in _OWN},
        reasoning=said.reasoning,
    )


def apart(comparison: Comparison, index: int) -> Spoken:
    """A response of a comparison, and what was thought before it: in its own field, or in tags within the text."""
    said = split_reasoning(comparison.responses[index])
    thought = comparison.reasoning[index] if comparison.reasoning else ""
    return replace(said, reasoning="\n\n".join(filter(None, (thought, said.reasoning))))


def read_side(source: Source, side: Side, format_name: str | None = None) -> tuple[AnswerRow, ...]:
    """The preferred, or the worst, response to each prompt of preference data; rows that cannot be used are left out.

    Raises UserError where the rows are not preferences.
    """
    rankings = (
        item
        for item in read_comparisons(source, choose_formats(source, format_name))
        if isinstance(item, Comparison) and len(item.responses) > 1
    )
    index = 0 if side == "chosen" else -1
    rows = tuple(
        AnswerRow(item.row, 0, item.prompt, said.response, meta=item.meta, reasoning=said.reasoning)
        for item in rankings
        for said in (apart(item, index),)
    )
    if not rows:
        raise UserError(f"{source.name}: `{side}` stands for responses of preference data, but no row here ranks two")
    return rows


def match_answers(files: Mapping[str, Sequence[AnswerRow]]) -> list[tuple[AnswerRow, ...]]:
    """Name -> rows of a file; the answers to the same prompt side by side, in the order of the first file.

    Prompts are matched by their text, and the n-th answer to a prompt with the n-th in every other file. All rows of a
    tuple get the `row` and `sample` of the first file. Raises UserError where a file lacks a prompt of another.
    """
    keyed = {name: _by_prompt(rows) for name, rows in files.items()}
    first_name, first = next(iter(keyed.items()))
    for name, rows in keyed.items():
        _refuse_unmatched(first_name, first, name, rows)
    return [
        tuple(replace(rows[key], row=first_row.row, sample=first_row.sample) for rows in keyed.values())
        for key, first_row in first.items()
    ]


_Key = tuple[tuple[Message, ...], int]


def _by_prompt(rows: Sequence[AnswerRow]) -> dict[_Key, AnswerRow]:
    """Answers by their prompt and the place among the answers to it."""
    seen: Counter[tuple[Message, ...]] = Counter()
    keyed: dict[_Key, AnswerRow] = {}
    for row in rows:
        keyed[row.prompt, seen[row.prompt]] = row
        seen[row.prompt] += 1
    return keyed


def _refuse_unmatched(
    first_name: str, first: Mapping[_Key, AnswerRow], name: str, rows: Mapping[_Key, AnswerRow]
) -> None:
    missing, extra = [key for key in first if key not in rows], [key for key in rows if key not in first]
    if not missing and not extra:
        return
    lines = [f"{name} and {first_name} do not answer the same prompts, so they cannot be compared:"]
    for keys, has, lacks in ((missing, first_name, name), (extra, name, first_name)):
        if keys:
            shown = ", ".join(excerpt(prompt[-1].content) for prompt, _ in keys[:_SHOWN])
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            lines.append(f"  {len(keys)} in {has} have no partner in {lacks}: {shown}{more}")
    lines.append("generate responses to the same prompts for both, or give files of the same rows")
    raise UserError("\n".join(lines))
