"""How much a data source holds: rows, and tokens of a sample of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from preflab.core.plugins import names_file
from preflab.core.records import Comparison, TokenizedComparison, UserError
from preflab.data.comparisons import Need, Side, choose_formats, fitting, read_comparisons, sample_comparisons
from preflab.data.sources import is_on_hub, open_sources, sample_rows
from preflab.data.tokenize import TOO_LONG, ChatTemplate, Dropped

SAMPLE = 200  # rows that are tokenised
CHARACTERS_PER_TOKEN = 4

Lengths = tuple[int, tuple[int, ...]]
"""Tokens of a row's prompt, and of each of its responses."""


@dataclass(frozen=True)
class Wanted:
    """Which rows of a source a training takes, by the same functions as it: those on one side of a split, a seeded
    sample of at most so many, those that serve its need; all rows without. Its columns by other names.
    """

    need: Need | None = None
    most: int | None = None
    ratio: float | None = None
    side: Side | None = None
    seed: int = 0
    columns: tuple[str, ...] = ()
    min_score_margin: float | None = None


EVERYTHING = Wanted()


@dataclass(frozen=True)
class Amount:
    """Rows that can be used, and their lengths in tokens.

    Attributes:
        rows: as many as there are, those left out that the sample says cannot be used.
        sample: lengths of a sample of them, in their order; of all, where they are few.
        counted: how tokens were counted.
    """

    rows: int
    sample: tuple[Lengths, ...]
    counted: str

    @property
    def prompt(self) -> float:
        """Mean length of a prompt."""
        return fmean(prompt for prompt, _ in self.sample)

    @property
    def best(self) -> float:
        """Mean length of the first response of a row; 0 where rows are prompts alone."""
        return fmean(responses[0] if responses else 0 for _, responses in self.sample)

    @property
    def responses(self) -> float:
        """Mean length of all responses of a row together."""
        return fmean(sum(responses) for _, responses in self.sample)

    @property
    def response(self) -> float:
        """Mean over the rows of the mean length of their responses."""
        return fmean(fmean(responses) if responses else 0 for _, responses in self.sample)


def measure(
    specs: Sequence[str],
    form: str | None,
    template: ChatTemplate | None,
    *,
    max_length: int | None,
    max_prompt_length: int | None,
    wanted: Wanted = EVERYTHING,
) -> Amount:
    """Read the sources through once and tokenise a sample; without a template, characters are counted.

    Raises UserError where they cannot be read, would have to be downloaded, or are read by a user's own function.
    """
    if form and names_file(form):
        raise UserError(f"its rows are read by {form}, and a dry run runs no function of yours")
    if remote := [spec for spec in specs if is_on_hub(spec)]:
        raise UserError(f"{remote[0]} lies on a hub; its rows are not downloaded to be counted")
    source = open_sources(tuple(specs), wanted.columns)
    if wanted.most and not wanted.side:
        source = sample_rows(source, wanted.most, wanted.seed)
    formats = choose_formats(source, form)

    def read() -> Iterator[Comparison | Dropped]:
        rows = read_comparisons(source, formats)
        if wanted.need is None:
            return rows
        return fitting(
            rows,
            wanted.need,
            ratio=wanted.ratio,
            seed=wanted.seed,
            side=wanted.side,
            min_score_margin=wanted.min_score_margin,
        )

    drawn = sample_comparisons(read, wanted.most, wanted.seed) if wanted.most and wanted.side else read()
    count, sample = _sampled(drawn)
    encode = template.encode_many if template else _guessed
    found = encode(sample, max_length=max_length, max_prompt_length=max_prompt_length)
    lengths = tuple(_lengths(item) for item in found if not isinstance(item, Dropped))
    if not lengths:
        raise UserError(f"{source.name}: no row of a sample can be used")
    return Amount(
        rows=max(1, round(count * len(lengths) / len(sample))),
        sample=lengths,
        counted=f"tokens of {len(lengths)} rows" if template else f"{CHARACTERS_PER_TOKEN} characters a token",
    )


def _sampled(items: Iterator[Comparison | Dropped]) -> tuple[int, list[Comparison | Dropped]]:
    """How many there are, and a sample in which each has the same chance (reservoir sampling, seeded)."""
    chance, count = random.Random(0), 0
    sample: list[Comparison | Dropped] = []
    for count, item in enumerate(items, 1):
        if len(sample) < SAMPLE:
            sample.append(item)
        elif (place := chance.randrange(count)) < SAMPLE:
            sample[place] = item
    return count, sample


def _lengths(item: TokenizedComparison) -> Lengths:
    return len(item.prompt_ids), tuple(len(ids) for ids in item.response_ids)


def _guessed(
    items: Iterable[Comparison | Dropped], *, max_length: int | None, max_prompt_length: int | None
) -> Iterator[TokenizedComparison | Dropped]:
    """Rows with zeros for ids, as many as they have characters by `CHARACTERS_PER_TOKEN`."""
    for item in items:
        if isinstance(item, Dropped):
            yield item
            continue
        responses = tuple(_zeros(text) for text in item.responses)
        prompt = tuple(zero for message in item.prompt for zero in _zeros(message.content))
        longest = max(map(len, responses), default=0)
        room = min(max_prompt_length or len(prompt), max_length - longest if max_length else len(prompt))
        yield TokenizedComparison(prompt[:room], responses) if room > 0 else Dropped(item.row, TOO_LONG)


def _zeros(text: str) -> tuple[int, ...]:
    return (0,) * -(-len(text) // CHARACTERS_PER_TOKEN)
