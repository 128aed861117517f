"""Choosing the format of rows: by name, a function of the user's own, or from their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from preflab.core.records import RowError, UserError
from preflab.data.fields import Row
from preflab.data.formats import FORMATS
from preflab.data.layout import Format, Kind, renamed_row
from preflab.data.lookalikes import grades, is_about, preference_columns, unread_texts
from preflab.data.names import (
    LABEL,
    LABEL_IF_TRUTH,
    LIST_RANKS,
    LIST_SCORES,
    REVISED,
    SYSTEM,
    could_be_candidates,
    could_be_choices,
    could_be_conversations,
    could_be_prompts,
    could_be_responses,
    could_be_scored,
    holds_conversations,
    is_number,
    other_pairs,
    parallel_lists,
    score_columns,
    texts_of_unknown_meaning,
    truths,
    values,
)
from preflab.data.own_format import load_own_format
from preflab.data.spelling import usual_spelling
from preflab.data.unpack import unpack, written_list

# Where the columns fit several kinds, the one that makes more of them is meant.
_PRECEDENCE: tuple[Kind, ...] = ("ranking", "unpaired", "demonstration", "prompts")

DETECTION_ROWS = 100


def choose_format(name: str | None, rows: Iterable[Row]) -> tuple[str, Format]:
    """A name of the table or of an installed package's format, `file.py:function`, or None for detection from the first
    rows -> name and format.

    The format says too, of the rows at hand, which columns it reads under another name, which one says whether a
    response was wanted, and which ones score the responses. Raises UserError where that is not clear.
    """
    if name is not None and name not in FORMATS:
        return name, load_own_format(name)
    sample = list(islice(rows, DETECTION_ROWS))
    spelling = usual_spelling({str(column) for row in sample for column in row})
    sample = [_unpacked(renamed_row(spelling, row)) for row in sample]
    if name is None:
        name, form = _detect(sample)
    else:
        form = replace(_under_other_names(FORMATS[name], sample), guesses=False)
    return name, replace(_with_scores(_with_label(form, sample), sample), spelling=spelling)


def detect_format(rows: Iterable[Row]) -> str:
    """The name of the one format that most of the first rows have. Raises UserError if there is none, or several."""
    return choose_format(None, rows)[0]


@dataclass(frozen=True)
class _Fit:
    """A format that most rows have, some of its columns perhaps under other names; or the question which they are."""

    name: str
    form: Format
    question: str = ""

    @property
    def columns(self) -> set[str]:
        """The columns of the rows that it needs."""
        return _sources(self.form.columns, self.form)

    def rank(self, present: set[str]) -> tuple[bool, int, int]:
        """The lower the better: no question, few other names, and much that is read."""
        read = _sources((*self.form.columns, *self.form.optional), self.form) & present
        return bool(self.question), len(self.form.renamed), -len(read)


def _sources(columns: Iterable[str], form: Format) -> set[str]:
    other = {target: name for name, target in form.renamed.items()}
    return {other.get(column, column) for column in columns}


def _detect(sample: Sequence[Row]) -> tuple[str, Format]:
    fits = [fit for name, form in FORMATS.items() if (fit := _fit(name, form, sample))]
    if not any(fit.question and fit.form.kind == "ranking" for fit in fits):
        # Where demonstrations are not clear, their prompts may be, which is enough to respond to.
        plain = [fit for fit in fits if not fit.question]
        fits = plain or fits
    best = min((_PRECEDENCE.index(fit.form.kind) for fit in fits), default=0)
    fits = [fit for fit in fits if fit.form.kind == _PRECEDENCE[best]]
    # A format that needs more columns than another says more about the rows.
    fits = [fit for fit in fits if not any(fit.columns < other.columns for other in fits)]
    present = {str(name) for row in sample for name in row}
    fits = [fit for fit in fits if not fit.form.renamed] or sorted(fits, key=lambda fit: fit.rank(present))[:1]
    if len(fits) != 1:
        raise UserError(_no_single_format([fit.name for fit in fits], sample))
    (fit,) = fits
    if fit.form.kind in ("demonstration", "prompts"):
        _refuse_preferences(fit, sample)
    if question := fit.question or next(filter(None, (ask(fit, sample) for ask in _QUESTIONS)), ""):
        raise UserError(question)
    return fit.name, fit.form


def _refuse_preferences(fit: _Fit, sample: Sequence[Row]) -> None:
    """Rows that say which response is better are no demonstrations and no prompts, though they have the columns."""
    labels = [name for name in LABEL if truths(values(sample, name)) == "yes"]
    read = {*fit.columns, *fit.form.optional, *SYSTEM, *labels}
    found = preference_columns(sample, read)
    if fit.form.kind == "prompts" and not found:
        texts = unread_texts(sample, read)
        lists = [name for pair in parallel_lists(sample) if not read & set(pair) for name in pair]
        found = texts if len(texts) > 1 else list(dict.fromkeys(lists))
    if found:
        raise UserError(
            f"{_columns_of(sample)}: {_of_preferences(found)}. Rename the columns, or give a function of your own with "
            f"--format file.py:function; --format {fit.name} reads them as {fit.form.about} all the same"
        )


def _of_preferences(columns: Sequence[str]) -> str:
    return f"these look like preferences in a layout that is not known (see {', '.join(columns)})"


def _unpacked(row: Row) -> Row:
    try:
        return unpack(row)
    except RowError:  # said of that row when it is read
        return row


def _fit(name: str, form: Format, sample: Sequence[Row]) -> _Fit | None:
    if _most_have(form, sample):
        return _Fit(name, form)
    renamed, question = _other_names(form, sample)
    form = replace(form, renamed=renamed)
    if not renamed or not _most_have(form, sample):
        return None
    if form.kind == "prompts" and not _is_a_file_of_prompts(renamed, sample):
        return None
    return _Fit(name, form, question)


def _is_a_file_of_prompts(renamed: Iterable[str], sample: Sequence[Row]) -> bool:
    """Whether the column that is taken for the prompt is the one text of the rows, but for what is said about it."""
    others = {str(name) for row in sample for name in row} - {*renamed, *SYSTEM}
    if all(holds_conversations(values(sample, name)) for name in renamed):
        return True
    texts = [name for name in others if any(isinstance(value, str | list | dict) for value in values(sample, name))]
    return not set(renamed) & _RATHER_A_TEXT and all(map(is_about, texts))


# Alone in a file, these are as likely no prompts at all.
_RATHER_A_TEXT = {"text", "body", "content", "article", "document", "passage", "title", "context", "history"}


def _most_have(form: Format, sample: Sequence[Row]) -> bool:
    return 2 * sum(_has_format(renamed_row(form.renamed, row), form) for row in sample) > len(sample)


def _has_format(row: Row, form: Format) -> bool:
    return all(row.get(column) is not None for column in form.columns) and form.matches(row)


def _under_other_names(form: Format, sample: Sequence[Row]) -> Format:
    """A format that was asked for by name, its prompt and response found under other names where they have to be."""
    renamed, question = _other_names(form, sample)
    if question:
        raise UserError(question)
    return replace(form, renamed=renamed)


def _other_names(form: Format, sample: Sequence[Row]) -> tuple[Mapping[str, str], str]:
    """Column -> as what it is read, for a prompt or response that the rows do not have under its own name; and the
    question which column it is, if several could be.
    """
    renamed: dict[str, str] = {}
    question = ""
    if form.responses and not any(values(sample, column) for column in form.responses):
        pairs = other_pairs(sample, form.responses)
        renamed |= dict(zip(pairs[0], form.responses, strict=True)) if pairs else {}
        if len(pairs) > 1:
            question = _which_pair(form.responses, pairs, sample)
    for column, what, find in (
        (form.prompt, "prompt", could_be_prompts),
        (form.response, "response", could_be_responses),
        (form.choice, "choice", could_be_choices),
        (form.candidates, "list of responses", could_be_candidates),
        (form.scored, "list of responses", could_be_scored),
        (form.conversation, "conversation", could_be_conversations),
    ):
        if not column or values(sample, column):
            continue
        found = find(sample, (*form.columns, *form.optional, *SYSTEM, *renamed))
        if found:
            renamed[found[0]] = column
        if len(found) > 1:
            question = question or _which(what, column, found, sample)
    return renamed, question


def _which(what: str, column: str, found: Sequence[str], sample: Sequence[Row]) -> str:
    return (
        f"{_columns_of(sample)}: which is the {what}, {' or '.join(found)}? Say it with --columns {column}={found[0]}, "
        "or rename the column"
    )


def _which_pair(responses: Sequence[str], pairs: Sequence[Sequence[str]], sample: Sequence[Row]) -> str:
    spoken = " or ".join(" and ".join(pair) for pair in pairs)
    one, other = pairs[0]
    return (
        f"{_columns_of(sample)}: which are {' and '.join(responses)}, {spoken}? Say it with "
        f"--columns {responses[0]}={one},{responses[1]}={other}, or rename the columns"
    )


def _question_of_a_guess(fit: _Fit, sample: Sequence[Row]) -> str:
    """The question which column is the prompt, where it would have to be guessed though a column could be it."""
    form = fit.form
    taken = (*_sources(form.responses, form), *SYSTEM)
    sides = [value for name in taken for value in values(sample, name)]
    if not form.guesses or not any(isinstance(side, str) for side in sides):
        return ""
    named = could_be_prompts(sample, taken)
    found = named or [name for name in texts_of_unknown_meaning(sample, taken) if not is_about(name)]
    if not found:
        return ""
    return (
        f"{_columns_of(sample)}: is {' or '.join(found)} the prompt of chosen and rejected? If so, say it with "
        f"--columns prompt={found[0]}; if the prompt is what both begin with, with --format trl-implicit"
    )


def _question_of_an_order(fit: _Fit, sample: Sequence[Row]) -> str:
    """The question whether a list of numbers ranks a list of responses, which would be taken to stand best first."""
    form = fit.form
    listed = _sources(form.columns, form)
    known = {*LIST_SCORES, *LIST_RANKS}
    beside = [(texts, numbers) for texts, numbers in parallel_lists(sample) if texts in listed and grades(numbers)]
    if known.isdisjoint(form.optional) or not beside or any(numbers in known for _, numbers in beside):
        return ""
    texts, numbers = beside[0]
    return (
        f"{_columns_of(sample)}: does {numbers} say how good each of {texts} is? If so, say it with "
        f"--columns scores={numbers}; if {texts} stand best first, choose the format with --format"
    )


def _question_of_zero(fit: _Fit, sample: Sequence[Row]) -> str:
    """The question whether a choice between responses 1 and 2 counts from 0, where it is 0 or 1 and never above: 1 is
    the second then, and else the first, with 0 for a tie as in AlpacaEval's older files.
    """
    form = fit.form
    if not form.choice or not form.responses[-1].endswith("_2"):
        return ""
    others = {target: name for name, target in form.renamed.items()}
    choice, first, second = (others.get(name, name) for name in (form.choice, *form.responses))
    if {float(value) for value in values(sample, choice) if is_number(value)} != {0.0, 1.0}:
        return ""
    zero, one = (name.removesuffix("_1").removesuffix("_2") + f"_{at}" for at, name in enumerate(form.responses))
    return (
        f"{_columns_of(sample)}: does {choice} count from 0? It is 0 or 1, so 1 could be the first response or the "
        f"second. If it counts from 0, say so with --columns {zero}={first},{one}={second}; if 1 is the first and 0 a "
        f"tie, with --format {fit.name}"
    )


def _question_of_a_revision(fit: _Fit, sample: Sequence[Row]) -> str:
    """The question which of two answers is the response, where one of them corrects the other."""
    form = fit.form
    column = form.response or ("completion" if "completion" in form.columns else "")
    if form.kind not in ("demonstration", "unpaired") or not column:
        return ""
    revised = [name for name in texts_of_unknown_meaning(sample, fit.columns) if name in REVISED]
    return _which("response", column, [*revised, *_sources([column], form)], sample) if revised else ""


def _question_of_written_lists(fit: _Fit, sample: Sequence[Row]) -> str:
    """The question whether chosen and rejected, texts that write lists, are lists of responses."""
    if fit.form.responses != ("chosen", "rejected"):
        return ""
    both = [[row.get(name) for name in _sources(fit.form.responses, fit.form)] for row in sample]
    if 2 * sum(all(isinstance(side, str) and written_list(side) for side in sides) for sides in both) <= len(sample):
        return ""
    return (
        f"{_columns_of(sample)}: are the lists that chosen and rejected write as text lists of responses? If so, keep "
        "them as lists, in JSON lines or parquet; if they are the responses themselves, choose the format with --format"
    )


_QUESTIONS: tuple[Callable[[_Fit, Sequence[Row]], str], ...] = (
    _question_of_a_guess,
    _question_of_an_order,
    _question_of_zero,
    _question_of_a_revision,
    _question_of_written_lists,
)


# What else is said of the responses -------------------------------------------------------------------------------


def _with_label(form: Format, sample: Sequence[Row]) -> Format:
    """One response beside a column that says whether it was wanted is unpaired data. Raises UserError where a column of
    such a name holds something else as well.
    """
    if form.kind not in ("demonstration", "unpaired"):
        return form
    taken = {*form.columns, *form.optional, *form.renamed} - {form.label}
    names = (*LABEL, *LABEL_IF_TRUTH)
    holding = {name: truths(found) for name in names if name not in taken and (found := values(sample, name))}
    for name, verdict in holding.items():
        if verdict == "yes":
            about = form.about if form.kind == "unpaired" else f"{form.about}; {name} says whether it was wanted"
            return replace(form, kind="unpaired", label=name, about=about)
    for name, verdict in holding.items():
        if verdict != "no" and name in LABEL:
            raise UserError(
                f"{_columns_of(sample)}: does {name} say which responses were wanted? It holds {verdict}; if it does, "
                f"write true or false; if not, give it another name, as with --columns kind={name}"
            )
    return form


def _with_scores(form: Format, sample: Sequence[Row]) -> Format:
    if not form.responses:
        return form
    present = {str(name) for row in sample for name in row} - {*form.columns, *form.renamed}
    for columns, ranks in score_columns(present, form.responses):
        if all(any(map(is_number, values(sample, name))) for name in columns):
            return replace(form, scores=columns, ranks=ranks)
    return form


# Messages ---------------------------------------------------------------------------------------------------------


def _columns_of(sample: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(str(name) for row in sample for name in row))
    return f"The rows have the columns {', '.join(columns) or '(none)'}"


def _no_single_format(fitting: Sequence[str], sample: Sequence[Row]) -> str:
    """Why no format was found: there are several, or none, and then which ones come near."""
    if fitting:
        return f"{_columns_of(sample)}, which fit several formats: {', '.join(fitting)}. Choose one with --format"
    columns = {str(name) for row in sample for name in row}
    shared = {name: len(set(form.columns) & columns) / len(form.columns) for name, form in FORMATS.items()}
    near = sorted((name for name in FORMATS if shared[name] > 0), key=lambda name: -shared[name])[:3]
    nearest = "".join(f"\n  {name}: needs {', '.join(FORMATS[name].columns)} ({FORMATS[name].about})" for name in near)
    advice = f" The nearest are:{nearest}" if near else ""
    found = preference_columns(sample, ())
    return (
        f"{_columns_of(sample)}, which fit no known format"
        f"{'; ' + _of_preferences(found) if found else ''}; rename them, or give a function of your own with "
        f"--format file.py:function.{advice}"
    )
