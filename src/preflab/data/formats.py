"""The formats of preference data: one table of plain functions, its detection, and formats of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import Any, Literal

from preflab.data import parsers
from preflab.data.fields import Row, excerpt
from preflab.data.own_format import load_own_format
from preflab.own_function import names_function
from preflab.records import Comparison, RowError, UserError

Kind = Literal["ranking", "unpaired", "demonstration", "prompts"]

# Where the columns fit several kinds, the one that makes more of them is meant.
_PRECEDENCE: tuple[Kind, ...] = ("ranking", "unpaired", "demonstration", "prompts")

_DETECTION_ROWS = 100
_LONGEST_META = 200


def _fits(row: Row) -> bool:  # noqa: ARG001 - the columns alone decide
    return True


@dataclass(frozen=True)
class Format:
    """How rows of one layout become comparisons.

    `parse` takes a row and raises RowError. `kind` says what comes out: two or more ranked responses, one with a label,
    one to imitate, or none. A row has this format if it has the `columns` and `matches` holds. `fingerprint` is the
    hash of a user's own file.
    """

    parse: Callable[[Row], Comparison]
    kind: Kind
    about: str
    columns: tuple[str, ...]
    matches: Callable[[Row], bool] = _fits
    fingerprint: str = ""


def _texts(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], str) for name in names)


def _lists(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], list) for name in names)


def _whole_conversations(row: Row) -> bool:
    sides = (row["chosen"], row["rejected"])
    return isinstance(row.get("prompt"), str) and all(isinstance(side, list) and len(side) > 1 for side in sides)


FORMATS: dict[str, Format] = {
    "HOMEWORK": Format(
        parsers.homework,
        "ranking",
        "question, response_1 and response_2; overall_response (1 or 2) is the better one",
        ("question", "response_1", "response_2", "overall_response"),
    ),
    "pku-better": Format(
        parsers.pku_better,
        "ranking",
        "PKU-SafeRLHF, ranked by better_response_id (0 or 1)",
        ("prompt", "response_0", "response_1", "better_response_id"),
    ),
    "pku-safer": Format(
        parsers.pku_safer,
        "ranking",
        "PKU-SafeRLHF, ranked by safer_response_id (0 or 1); rows with both ids are read as pku-better unless asked",
        ("prompt", "response_0", "response_1", "safer_response_id"),
        lambda row: "better_response_id" not in row,
    ),
    "hh": Format(
        parsers.hh,
        "ranking",
        "Anthropic's hh-rlhf: two transcripts that differ in the last assistant turn",
        ("chosen", "rejected"),
        parsers.is_transcript,
    ),
    "shp": Format(
        parsers.shp,
        "ranking",
        "Stanford Human Preferences: labels is 1 where human_ref_A is preferred",
        ("history", "human_ref_A", "human_ref_B", "labels"),
    ),
    "stack-exchange": Format(
        parsers.stack_exchange,
        "ranking",
        "Stack-Exchange preferences: answers ranked by pm_score",
        ("question", "answers"),
        _lists("answers"),
    ),
    "summarize-from-feedback": Format(
        parsers.summarize_from_feedback,
        "ranking",
        "OpenAI's comparisons of two summaries; choice (0 or 1) is the better one",
        ("info", "summaries", "choice"),
    ),
    "trl": Format(
        parsers.trl,
        "ranking",
        "TRL's preference type: prompt, chosen and rejected, as text or as chat messages",
        ("prompt", "chosen", "rejected"),
        lambda row: not parsers.is_transcript(row) and not _whole_conversations(row),
    ),
    "trl-implicit": Format(
        parsers.trl_implicit,
        "ranking",
        "TRL's preference type without a prompt: it is what chosen and rejected begin with",
        ("chosen", "rejected"),
        lambda row: (
            not parsers.is_transcript(row) and (_texts("chosen", "rejected")(row) or _lists("chosen", "rejected")(row))
        ),
    ),
    "rewardbench": Format(
        parsers.rewardbench,
        "ranking",
        "RewardBench's results: text_chosen and text_rejected with what a reward model gave them",
        ("text_chosen", "text_rejected", "scores_chosen", "scores_rejected"),
    ),
    "trl-unpaired": Format(
        parsers.trl_unpaired,
        "unpaired",
        "TRL's unpaired type: completion, and label says whether it was wanted",
        ("prompt", "completion", "label"),
    ),
    "ultrafeedback": Format(
        parsers.trl_implicit,
        "ranking",
        "UltraFeedback, binarised: prompt as text, chosen and rejected as whole conversations",
        ("prompt", "chosen", "rejected"),
        _whole_conversations,
    ),
    "ultrafeedback-raw": Format(
        parsers.ultrafeedback_raw,
        "ranking",
        "UltraFeedback as published: completions ranked by overall_score",
        ("instruction", "completions"),
        _lists("completions"),
    ),
    "sharegpt-ranking": Format(
        parsers.sharegpt_ranking,
        "ranking",
        "conversations up to the user's turn, chosen and rejected as one message each",
        ("conversations", "chosen", "rejected"),
    ),
    "alpaca-ranking": Format(
        parsers.alpaca_ranking,
        "ranking",
        "instruction (with input, system, history where there are), chosen and rejected",
        ("instruction", "chosen", "rejected"),
    ),
    "alpaca-ranking-list": Format(
        parsers.alpaca_ranking_list,
        "ranking",
        "instruction, and output as a list of responses, best first",
        ("instruction", "output"),
        _lists("output"),
    ),
    "ranked": Format(
        parsers.ranked,
        "ranking",
        "prompt, and responses as a list, best first",
        ("prompt", "responses"),
        _lists("responses"),
    ),
    "verdicts": Format(
        parsers.verdicts,
        "ranking",
        "verdict files, of a judge or a person; a sample judged in both orders gives two noisy labels",
        ("prompt", "model_response", "baseline_response", "verdict"),
    ),
    "verdicts-chosen": Format(
        parsers.verdicts,
        "ranking",
        "verdict files whose opponent is the preferred response of preference data",
        ("prompt", "model_response", "chosen_response", "verdict"),
    ),
    "messages": Format(
        parsers.chat,
        "demonstration",
        "chat messages of which the last is the response to imitate",
        ("messages",),
        _lists("messages"),
    ),
    "sharegpt": Format(
        parsers.sharegpt,
        "demonstration",
        "conversations of which the last turn is the response to imitate",
        ("conversations",),
        _lists("conversations"),
    ),
    "prompt-response": Format(
        parsers.prompt_response,
        "demonstration",
        "prompt and one response, as in demonstrations and in the files that `preflab generate` writes",
        ("prompt", "response"),
    ),
    "prompt-completion": Format(
        parsers.prompt_completion,
        "demonstration",
        "TRL's prompt-completion type, as text or as chat messages",
        ("prompt", "completion"),
    ),
    "alpaca": Format(
        parsers.alpaca,
        "demonstration",
        "instruction (with input, system, history where there are) and output",
        ("instruction", "output"),
        _texts("output"),
    ),
    "prompts": Format(
        parsers.prompts,
        "prompts",
        "prompts alone, as text or as chat messages, to generate responses to",
        ("prompt",),
    ),
}


def parse_row(form: Format, row: Row, number: int = 0) -> Comparison:
    """One row -> its comparison, checked: the one way from rows to comparisons.

    Raises RowError where the row cannot be used, UserError where a user's own format function fails.
    """
    found = form.parse(row)
    if not found.prompt or not found.prompt[-1].content.strip():
        raise RowError("empty prompt", "there is nothing to respond to")
    if found.prompt[-1].role != "user":
        raise RowError("not the user's turn", f"the prompt ends with a message of the {found.prompt[-1].role}")
    if not all(response.strip() for response in found.responses):
        raise RowError("empty response", "each response needs some text")
    if len({response.strip() for response in found.responses}) < len(found.responses):
        raise RowError("identical responses", f"there is nothing to prefer in {excerpt(found.responses[0])}")
    refuse_half_characters(found)
    return replace(found, row=number, meta={**short_scalars(row, form.columns), **found.meta})


def refuse_half_characters(comparison: Comparison) -> None:
    """Raises RowError for text with halves of characters, which JSON can hold, but neither tokenizers nor files."""
    for content in (*(message.content for message in comparison.prompt), *comparison.responses):
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise RowError("not valid Unicode", f"half a surrogate pair at character {error.start}") from None


def short_scalars(row: Row, used: Iterable[str]) -> dict[str, Any]:
    """What else the row says in single short values: categories, ids, gold scores."""
    others = {name: value for name, value in row.items() if name not in used}
    return {name: value for name, value in others.items() if _is_short_scalar(value)}


def _is_short_scalar(value: object) -> bool:
    """Numbers that JSON can write, and short text that UTF-8 can."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_META and not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


# Choosing a format ----------------------------------------------------------------------------------------------------


def choose_format(name: str | None, rows: Iterable[Row]) -> tuple[str, Format]:
    """A name of the table, `file.py:function`, or None for detection from the first rows -> name and format."""
    if name is None:
        name = detect_format(rows)
    if names_function(name):
        parse, fingerprint = load_own_format(name)
        return name, Format(parse, "ranking", f"your own, {name}", (), fingerprint=fingerprint)
    if name not in FORMATS:
        near = get_close_matches(name.lower(), [known.lower() for known in FORMATS], n=1)
        hint = next((f"; did you mean {known}" for known in FORMATS if near and known.lower() == near[0]), "")
        raise UserError(f"No format is called {name!r}{hint}. Known are {', '.join(FORMATS)}, or file.py:function")
    return name, FORMATS[name]


def detect_format(rows: Iterable[Row]) -> str:
    """The name of the one format that most of the first rows have. Raises UserError if there is none, or several."""
    sample = list(islice(rows, _DETECTION_ROWS))
    fitting = [
        name for name, form in FORMATS.items() if 2 * sum(_has_format(row, form) for row in sample) > len(sample)
    ]
    best = min((_PRECEDENCE.index(FORMATS[name].kind) for name in fitting), default=0)
    fitting = [name for name in fitting if FORMATS[name].kind == _PRECEDENCE[best]]
    # A format that needs more columns than another says more about the rows.
    fitting = [name for name in fitting if not any(_columns(name) < _columns(other) for other in fitting)]
    if len(fitting) == 1:
        return fitting[0]
    columns = list(dict.fromkeys(str(name) for row in sample for name in row))
    found = f"The rows have the columns {', '.join(columns) or '(none)'}"
    if fitting:
        raise UserError(f"{found}, which fit several formats: {', '.join(fitting)}. Choose one with --format")
    shared = {name: len(_columns(name) & set(columns)) / len(_columns(name)) for name in FORMATS}
    near = sorted((name for name in FORMATS if shared[name] > 0), key=lambda name: -shared[name])[:3]
    nearest = "".join(f"\n  {name}: needs {', '.join(FORMATS[name].columns)} ({FORMATS[name].about})" for name in near)
    advice = f" The nearest are:{nearest}" if near else ""
    raise UserError(
        f"{found}, which fit no known format; rename them, or give a function of your own with "
        f"--format file.py:function.{advice}"
    )


def _columns(name: str) -> set[str]:
    return set(FORMATS[name].columns)


def _has_format(row: Row, form: Format) -> bool:
    return all(row.get(column) is not None for column in form.columns) and form.matches(row)
