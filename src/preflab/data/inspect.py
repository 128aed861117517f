"""What is in a data source, found in one pass that keeps a few numbers of each row and none of its text."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from preflab.core.records import Comparison, TokenizedComparison
from preflab.core.words import words
from preflab.data.column_use import Columns, ColumnTally
from preflab.data.comparisons import NamedFormat, choose_formats, read_comparisons
from preflab.data.measure import Usable, measurable
from preflab.data.overlap import Hashes, LengthBias, overlap, prompt_hash, row_hash, text_hash, what_drops_did
from preflab.data.remarks import RemarkTally
from preflab.data.sources import Source
from preflab.data.tokenize import TOO_LONG, ChatTemplate, Dropped, ExplainedToken

_FIRST_ROWS = 5


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths."""

    count: int
    min: int
    median: float
    mean: float
    p95: float
    max: int


@dataclass(frozen=True)
class Rows:
    """How many rows have a property, and the first of them."""

    count: int
    first_rows: tuple[int, ...]


@dataclass
class Reason:
    """How many rows are dropped for one reason, the first of them, and what was found in the very first."""

    count: int = 0
    first_rows: list[int] = field(default_factory=list)
    example: str = ""


@dataclass(frozen=True)
class RenderedRow:
    """The prompt and one response of a row as the model gets them, token by token."""

    row: int
    response: int
    name: str
    tokens: tuple[ExplainedToken, ...]


@dataclass(frozen=True)
class PartOverlap:
    """How many rows of a source, and how many of its different prompts, are also in an earlier one, by their text."""

    source: str
    earlier: str
    rows: int
    prompts: int
    of_rows: int
    of_prompts: int


@dataclass(frozen=True)
class Inspection:
    """What `inspect_source` found.

    Attributes:
        formats: the formats of the rows, several where several sources are mixed.
        dropped: reason -> how many rows, the first of them, and what was found in the very first.
        ranking_sizes: number of responses -> number of rows that have so many.
        labels: wanted, unwanted, without -> rows with a single response of which the data says so, or nothing.
        lengths: unit (characters, words, tokens) -> part (prompt, chosen, rejected) -> distribution. `rejected` is
            every response but the best.
        pairs: pairs of a better and a worse response of one row, K·(K-1)/2 of each row.
        chosen_longer, same_length: shares of these pairs, in tokens if a template was given, else in characters.
        length_only_accuracy: what "the longer one is better" would score on these pairs; equal lengths count half.
        duplicates: rows with the prompt and the responses of an earlier row, ranked alike.
        conflicting: rows with two responses to a prompt that another row ranks the other way round.
        repeated_prompts: rows with the prompt of an earlier row.
        cut_prompts: rows that are used, though their prompts lose their oldest tokens to the limits.
        columns: what the columns of each source are read as, which are kept beside the rows, and which are not used.
        remarks: what the rows say of themselves that raises a doubt (scores that tie or contradict the order) -> rows.
        overlaps: of several sources, how many rows and prompts of a later one are also in an earlier one.
        warnings: what is to be told besides: splits that are mixed, what leaving out too long rows does to the data.
        places: row number -> where it is, for every row named above.
    """

    source: str
    formats: tuple[str, ...]
    rows: int
    usable: int
    dropped: Mapping[str, Reason]
    ranking_sizes: Mapping[int, int]
    labels: Mapping[str, int]
    lengths: Mapping[str, Mapping[str, Lengths]]
    pairs: int
    chosen_longer: float | None
    same_length: float | None
    length_only_accuracy: float | None
    duplicates: Rows
    conflicting: Rows
    repeated_prompts: Rows
    cut_prompts: Rows
    columns: tuple[Columns, ...]
    remarks: Mapping[str, Rows]
    overlaps: tuple[PartOverlap, ...]
    warnings: tuple[str, ...]
    rendered: tuple[RenderedRow, ...]
    places: Mapping[int, str]

    def to_json(self) -> dict[str, Any]:
        """The same as dicts, lists, text and numbers."""
        plain = asdict(self)
        for rendered in plain["rendered"]:
            rendered["tokens"] = [token._asdict() for token in rendered["tokens"]]
        return plain


def inspect_source(
    source: Source,
    *,
    format_name: str | None = None,
    template: ChatTemplate | None = None,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
    render_rows: int = 1,
) -> Inspection:
    """Read the whole source once and say what is in it.

    Args:
        source: the rows.
        format_name: as for `choose_format`; None to detect it.
        template: counts tokens, applies the limits and renders rows; without it, only text is measured.
        max_length: limit of prompt and response in tokens, as for `ChatTemplate.encode`.
        max_prompt_length: limit of the prompt in tokens, likewise.
        render_rows: how many usable rows to render, with a template.

    Raises:
        UserError: the source cannot be read or its format is not known.
    """
    formats = choose_formats(source, format_name)
    tally = _Tally(unit="characters" if template is None else "tokens", parts=[_Part() for _ in source.parts])
    rendered: list[RenderedRow] = []
    columns = ColumnTally(formats)
    items = read_comparisons(source, formats, columns)
    for item in measurable(items, template, max_length, max_prompt_length, tally.bias):
        tally.add(item, source.part_of)
        if isinstance(item, Usable) and item.tokens and template and len(tally.usable_rows) <= render_rows:
            rendered += [
                RenderedRow(
                    item.tokens.row, index, _name(item.comparison, index), tuple(template.explain(item.tokens, index))
                )
                for index in range(len(item.tokens.response_ids))
            ]
    return tally.inspection(source, formats, columns.columns(source), rendered)


def _name(comparison: Comparison, index: int) -> str:
    """What a response is called beside the others of its row."""
    worse = len(comparison.responses) - 1
    if not worse:
        return {None: "response", True: "wanted response", False: "unwanted response"}[comparison.label]
    return "chosen" if index == 0 else "rejected" if worse == 1 else f"rejected {index} of {worse}"


_LABELS = {True: "wanted", False: "unwanted", None: "without"}
_PARTS = ("prompt", "chosen", "rejected")


@dataclass
class _Part:
    """The hashes of one of several sources, by which they are held against each other: 16 bytes a row."""

    prompts: array[int] = field(default_factory=lambda: array("q"))
    rows: array[int] = field(default_factory=lambda: array("q"))

    @property
    def hashes(self) -> tuple[Hashes, Hashes]:
        return np.asarray(self.prompts), np.asarray(self.rows)


@dataclass
class _Tally:
    """Compact numbers per row: 4 bytes for a length, 8 for a row number or a hash."""

    unit: str
    rows: int = 0
    dropped: dict[str, Reason] = field(default_factory=dict)
    sizes: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, dict[str, array[int]]] = field(default_factory=dict)
    pairs: int = 0
    chosen_longer: int = 0
    same_length: int = 0
    usable_rows: array[int] = field(default_factory=lambda: array("Q"))
    prompt_hashes: array[int] = field(default_factory=lambda: array("Q"))
    row_hashes: array[int] = field(default_factory=lambda: array("Q"))
    pair_hashes: array[int] = field(default_factory=lambda: array("Q"))
    pair_rows: array[int] = field(default_factory=lambda: array("Q"))
    cut_rows: array[int] = field(default_factory=lambda: array("Q"))
    remarks: RemarkTally = field(default_factory=RemarkTally)
    parts: list[_Part] = field(default_factory=list)
    bias: tuple[LengthBias, LengthBias] = field(default_factory=lambda: (LengthBias(), LengthBias()))

    def add(self, item: Usable | Dropped, part_of: Callable[[int], int]) -> None:
        self.rows += 1
        if isinstance(item, Dropped):
            reason = self.dropped.setdefault(item.reason, Reason(example=item.detail))
            reason.count += 1
            if len(reason.first_rows) < _FIRST_ROWS:
                reason.first_rows.append(item.row)
            return
        comparison, tokens, prompt_tokens = item
        self.usable_rows.append(comparison.row)
        self.sizes[len(comparison.responses)] += 1
        if len(comparison.responses) == 1:
            self.labels[_LABELS[comparison.label]] += 1
        self.remarks.add(comparison)
        self._measure(comparison, tokens, prompt_tokens)
        self._hash(comparison)
        if self.parts:
            part = self.parts[part_of(comparison.row)]
            part.prompts.append(prompt_hash(comparison.prompt))
            part.rows.append(row_hash(comparison))
        if tokens and len(tokens.prompt_ids) < prompt_tokens:
            self.cut_rows.append(comparison.row)

    def _measure(self, comparison: Comparison, tokens: TokenizedComparison | None, prompt_tokens: int) -> None:
        prompt = [message.content for message in comparison.prompt]
        responses = comparison.responses
        measured = {
            "characters": (sum(map(len, prompt)), [len(response) for response in responses]),
            "words": (
                sum(len(words(content)) for content in prompt),
                [len(words(response)) for response in responses],
            ),
        }
        if tokens is not None:
            measured["tokens"] = (prompt_tokens, [len(ids) for ids in tokens.response_ids])
        for unit, (prompt_length, response_lengths) in measured.items():
            lengths = self.lengths.setdefault(unit, {part: array("I") for part in _PARTS})
            lengths["prompt"].append(prompt_length)
            lengths["chosen"].extend(response_lengths[:1])
            lengths["rejected"].extend(response_lengths[1:])
        for better, worse in combinations(measured[self.unit][1], 2):
            self.pairs += 1
            self.chosen_longer += better > worse
            self.same_length += better == worse

    def _hash(self, comparison: Comparison) -> None:
        prompt = text_hash(part for message in comparison.prompt for part in (message.role, message.content))
        responses = [text_hash([response]) for response in comparison.responses]
        self.prompt_hashes.append(_number(prompt))
        self.row_hashes.append(_number(text_hash([prompt, *responses, str(comparison.label)])))
        for better, worse in combinations(responses, 2):
            # The same number for both rankings of two responses, save for its last bit.
            unordered = _number(text_hash([prompt, *sorted((better, worse))]))
            self.pair_hashes.append(unordered & ~1 | (better < worse))
            self.pair_rows.append(comparison.row)

    def _overlaps(self, names: Sequence[str]) -> Iterator[PartOverlap]:
        for earlier, later in combinations(range(len(names)), 2):
            found = overlap(self.parts[earlier].hashes, self.parts[later].hashes)
            yield PartOverlap(
                names[later], names[earlier], found.rows, found.prompts, found.held_out_rows, found.held_out_prompts
            )

    def _drops(self) -> list[str]:
        too_long = self.dropped[TOO_LONG].count if TOO_LONG in self.dropped else 0
        told = what_drops_did(too_long, self.rows, *self.bias, self.unit)
        return [told] if told else []

    def inspection(
        self,
        source: Source,
        formats: Sequence[NamedFormat],
        columns: tuple[Columns, ...],
        rendered: list[RenderedRow],
    ) -> Inspection:
        repeats = {
            "duplicates": _repeating(self.row_hashes, self.usable_rows),
            "conflicting": _conflicting(self.pair_hashes, self.pair_rows),
            "repeated_prompts": _repeating(self.prompt_hashes, self.usable_rows),
            "cut_prompts": _first(np.asarray(self.cut_rows)),
        }
        remarks = {
            remark: Rows(found["count"], tuple(found["first_rows"][:_FIRST_ROWS]))
            for remark, found in self.remarks.found.items()
        }
        named = {row for rows in (*repeats.values(), *remarks.values()) for row in rows.first_rows}
        named |= {row for reason in self.dropped.values() for row in reason.first_rows}
        named |= {shown.row for shown in rendered}
        longer, same = ((n / self.pairs if self.pairs else None) for n in (self.chosen_longer, self.same_length))
        return Inspection(
            source=source.name,
            formats=tuple(dict.fromkeys(name for name, _ in formats)),
            rows=self.rows,
            usable=len(self.usable_rows),
            dropped=dict(sorted(self.dropped.items(), key=lambda item: -item[1].count)),
            ranking_sizes=dict(sorted(self.sizes.items())),
            labels={label: self.labels[label] for label in _LABELS.values() if label in self.labels},
            lengths={
                unit: {part: _distribution(values) for part, values in parts.items() if values}
                for unit, parts in self.lengths.items()
            },
            pairs=self.pairs,
            chosen_longer=longer,
            same_length=same,
            length_only_accuracy=None if longer is None or same is None else longer + same / 2,
            columns=columns,
            remarks=remarks,
            overlaps=tuple(self._overlaps([part.name for part in source.parts])),
            warnings=(*source.notes, *self._drops()),
            rendered=tuple(rendered),
            places={row: source.where(row) for row in sorted(named)},
            **repeats,
        )


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def _first(rows: np.ndarray[Any, Any]) -> Rows:
    return Rows(len(rows), tuple(int(row) for row in rows[:_FIRST_ROWS]))


def _repeating(hashes: array[int], rows: array[int]) -> Rows:
    """The rows whose hash an earlier row has."""
    _, first = np.unique(np.asarray(hashes), return_index=True)
    return _first(np.delete(np.asarray(rows), first))


def _conflicting(pairs: array[int], rows: array[int]) -> Rows:
    """The rows with a pair whose hash occurs with both last bits."""
    hashes = np.asarray(pairs)
    both, direction = hashes >> np.uint64(1), (hashes & np.uint64(1)).astype(bool)
    disputed = np.intersect1d(both[direction], both[~direction])
    return _first(np.unique(np.asarray(rows)[np.isin(both, disputed)]))


def _distribution(values: array[int]) -> Lengths:
    lengths = np.asarray(values)
    return Lengths(
        count=len(lengths),
        min=int(lengths.min()),
        median=float(np.median(lengths)),
        mean=float(lengths.mean()),
        p95=float(np.percentile(lengths, 95)),
        max=int(lengths.max()),
    )
