"""Rewards of responses: of preference data, with the accuracy that follows, or of responses that a model wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from preflab.core.durable import read_object
from preflab.core.file_format import with_format, without_format
from preflab.core.output import alone, beside, finish_output, open_output
from preflab.core.records import Comparison, UserError
from preflab.core.results import Result, frame
from preflab.core.rundir import fingerprint, read_jsonl, write_json
from preflab.core.ties import ROUNDING, Precision
from preflab.data.answers import apart
from preflab.data.cache import TokenizedDataset, tokenized
from preflab.data.column_use import ColumnTally, columns_from_json, columns_to_json, tell_columns
from preflab.data.comparisons import NamedFormat, choose_formats, read_comparisons
from preflab.data.sources import Source, open_sources, sample_rows
from preflab.data.splits import check_rows, count_by_reason, tell_notes, template_of
from preflab.data.tokenize import ChatTemplate, Dropped
from preflab.model.in_memory import InMemory
from preflab.model.load import load_model
from preflab.model.precision import pick_dtype
from preflab.model.responses import Model, check_positions
from preflab.rewards.figures import draw_pairs, score_hist
from preflab.rewards.rows import (
    Row,
    Scored,
    accuracies_of,
    extremes,
    not_scored,
    sample_lines,
    score_rows,
    scored,
    scores_of,
    summarize,
)
from preflab.rewards.scorers import Scorer, find_scorer, score_comparisons
from preflab.sample.reward_model import check_rewards, precision_of, rewards
from preflab.sample.settings import ScoreSettings
from preflab.stats.definitions import ACCURACY, STD
from preflab.stats.statistics import draw_resamples, numbered, ratio_estimate, wilson
from preflab.training.stage import fingerprint_weights, make_accelerator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class ScoreResult(Result):
    """A finished file of scores, and figures over it."""

    output: Path
    summary: Mapping[str, Any]

    def to_pandas(self) -> pd.DataFrame:
        """The scores, a row for each row that was scored, with the columns of the file."""
        return frame(read_jsonl(self.output))

    def figure(self) -> Figure | None:
        """Histograms of the scores of chosen and rejected responses; None where the data has no pairs."""
        parts = _pairs(self.output)
        return score_hist(parts) if parts else None

    def __str__(self) -> str:
        shown = [
            f"  {name:20} {value:.4g}{_MEANINGS.get(name, '')}"
            for name, value in self.summary.items()
            if isinstance(value, (int, float))
        ]
        for source, figures in self.summary.get("sources", {}).items():
            named = ", ".join(f"{name} {figures[name]:.4g}" for name in _OF_A_SOURCE if name in figures)
            shown.append(f"  {source}: {named}")
        shown += sample_lines(self.summary.get("samples", {}))
        lost = [f"  not scored, {reason}: {rows['count']}" for reason, rows in self.summary["dropped"].items()]
        return "\n".join([*shown, *lost, f"scores: {self.output}"])


_OF_A_SOURCE = ("rows", "prompts", "accuracy", "reward_mean", "reward_std")
_MEANINGS = {
    "accuracy": f" ({ACCURACY})",
    "accuracy_low": " (95 % interval over prompts)",
    "reward_std": f" ({STD})",
}


@dataclass(frozen=True)
class _Scoring:
    """What is to be scored, and how.

    Attributes:
        made_from: fingerprints of the scorer and of what it scores.
        precision: in which the scores are computed; None: they are exact.
        scores: which rows have scores, the scores [R] of all their responses, and the rows that have none.
    """

    source: Source
    formats: Sequence[NamedFormat]
    made_from: Mapping[str, str]
    precision: Precision | None
    scores: Callable[[], tuple[Scored, NDArray[np.float64], Sequence[Dropped]]]


@alone("output")
def score_responses(settings: ScoreSettings, held: InMemory | None = None, *, tell: bool = True) -> ScoreResult:
    """Score every response of the data with a reward model or a function; see `preflab.rewards.rows.score_rows`.

    `held` is the model, where the settings' name stands for one in memory. `tell` says what the columns are read as; a
    study, which wrote the file itself, does without.
    """
    scorer = None if held else find_scorer(settings.reward_model)
    accelerator = make_accelerator()
    scoring = _by_function(settings, scorer) if scorer else _by_model(settings, accelerator, held, tell=tell)
    source, formats = scoring.source, scoring.formats
    with accelerator.main_process_first():
        overwrite = settings.overwrite and accelerator.is_main_process
        made_from = scoring.made_from
        state = open_output(settings.output, "score", settings, made_from, seed=settings.seed, overwrite=overwrite)
    if state != "done" or not beside(settings.output, "summary.json").exists():
        found, values, dropped = scoring.scores()
        if accelerator.is_main_process:
            source_of = partial(_source_of, source) if source.parts else None
            finish_output(settings.output, score_rows(_responses(source, formats), found, values, source_of))
            summary = {
                **_figures(settings.output, scoring.precision),
                "precision": scoring.precision,
                "definitions": {"accuracy": ACCURACY, "reward_std": STD},
                "samples": extremes(read_jsonl(settings.output)),
                "dropped": count_by_reason(dropped),
            }
            write_json(beside(settings.output, "summary.json"), with_format(summary))
            _draw_histograms(settings.output)
        accelerator.wait_for_everyone()
    return load_scores(settings.output)


def _by_model(settings: ScoreSettings, accelerator: Accelerator, held: InMemory | None, *, tell: bool) -> _Scoring:
    """By a reward model, loaded, of data that is tokenised."""
    name = settings.reward_model
    given: Any = {"trust_remote_code": settings.trust_remote_code, "revision": settings.revision}
    template = template_of(
        name, settings.chat_template, settings.chat_template_kwargs, task="reward", held=held, **given
    )
    source, formats = _open(settings)
    dataset = _tokenize(source, formats, template, settings)
    if tell:
        tell_columns(columns_from_json(dataset.notes.get("columns", ())))
    dtype = held.dtype if held else pick_dtype(settings.dtype, accelerator.device, frozen=True)
    model: Model = held.model if held else load_model(name, "reward", dtype=dtype, **given)
    model = model.eval()
    check_rows(model, dataset)
    check_positions(model, dataset.longest, f"lower max_length (now {settings.max_length})")
    made_from = {"reward_model": fingerprint_weights(model), "data": dataset.fingerprint}

    def scores() -> tuple[Scored, NDArray[np.float64], Sequence[Dropped]]:
        values = rewards(accelerator, model, dataset, batch_size=settings.batch_size)
        check_rewards(settings.reward_model, values, lambda place: f"row {_row_of(dataset, place)}")
        return dataset, values, _not_scored(source, formats, dataset, template, settings)

    return _Scoring(source, formats, made_from, precision_of(dtype), scores)


def _by_function(settings: ScoreSettings, scorer: Scorer) -> _Scoring:
    """By a function, which reads text."""
    if given := [name for name in ("chat_template", "chat_template_kwargs", "revision") if getattr(settings, name)]:
        raise UserError(f"{' and '.join(given)}: only for reward models; {scorer.spec} is a function, and reads text")
    source, formats = _open(settings)
    names = " ".join(f"{name} {form.fingerprint}" for name, form in formats)
    made_from = {"reward_model": scorer.fingerprint, "data": fingerprint(f"{source.fingerprint()} {names} responses")}

    def scores() -> tuple[Scored, NDArray[np.float64], Sequence[Dropped]]:
        columns = ColumnTally(formats)
        found = score_comparisons(scorer, _responses(source, formats, columns), batch_size=settings.batch_size)
        tell_columns(columns.columns(source))
        if not len(found.rows):
            raise _nothing_to_score(source, count_by_reason(found.dropped))
        return found, found.values, found.dropped

    return _Scoring(source, formats, made_from, None, scores)


def _source_of(source: Source, row: int) -> str:
    return source.parts[source.part_of(row)].name


def _pairs(output: Path) -> dict[str, list[Row]]:
    """By source, the scores of the best and the worst response of each row that has several."""
    parts: dict[str, list[Row]] = {}
    for row in read_jsonl(output):
        best, *others = scores_of(row)
        if others:
            parts.setdefault(row.get("source", ""), []).append({"score_chosen": best, "score_rejected": others[-1]})
    return parts


def _draw_histograms(output: Path) -> None:
    """Of pairs, NAME.delta_hist.png and NAME.score_hist.png beside the rows; where there are several sources (a train
    split and a test split, say), one is set against the other.
    """
    draw_pairs(_pairs(output), delta=beside(output, "delta_hist.png"), scores=beside(output, "score_hist.png"))


def load_scores(output: Path) -> ScoreResult:
    """A finished file of scores. Raises UserError where the summary beside it does not follow from its rows."""
    path = beside(output, "summary.json")
    summary = without_format(path, read_object(path))
    precision, dropped = summary.get("precision", "float32"), summary.get("dropped")
    if precision not in (None, *ROUNDING):
        raise UserError(f"{path}: `precision` is {precision!r}; known are {', '.join(ROUNDING)}")
    counted = dropped.values() if isinstance(dropped, dict) else (None,)
    if not all(isinstance(rows, dict) and isinstance(rows.get("count"), int) for rows in counted):
        raise UserError(f"{path}: `dropped` must say of each reason how many rows there were; remove it to score again")
    figures = _figures(output, precision)
    # Earlier versions stated fewer figures, and counted a tie as no success.
    stated = figures.keys() & summary.keys() - (set() if "precision" in summary else {"accuracy"})
    if wrong := [name for name in figures if name in stated and not _agree(summary[name], figures[name])]:
        raise UserError(f"{path}: {', '.join(wrong)} does not follow from the rows of {output.name}")
    kept: dict[str, Any] = {name: summary[name] for name in ("precision", "definitions", "dropped") if name in summary}
    return ScoreResult(output, {**figures, **kept, "samples": extremes(read_jsonl(output))})


def _agree(stated: object, figure: object) -> bool:
    """Equal but for the last digits, which differ from one processor to the next; figures by name, each of them."""
    if isinstance(figure, Mapping):
        if not isinstance(stated, Mapping) or stated.keys() != figure.keys():
            return False
        return all(_agree(stated[name], figure[name]) for name in figure)
    assert isinstance(figure, (int, float))
    return isinstance(stated, (int, float)) and math.isclose(stated, figure, rel_tol=1e-9, abs_tol=1e-12)


def _figures(output: Path, precision: Precision | None) -> dict[str, Any]:
    """`summarize`, and the 95 % interval of the accuracy over prompts (bootstrap of whole prompts)."""
    try:
        figures, found = summarize(read_jsonl(output), precision), scored(read_jsonl(output))
    except (KeyError, TypeError) as error:
        raise UserError(f"{output}: a row is not one of scores ({error!r})") from None
    except UserError as error:
        raise UserError(f"{output}: {error}") from None
    right = list(accuracies_of(found, precision))
    if not right:
        return figures
    prompt_of = numbered(unit for _, unit in right)
    sums = np.bincount(prompt_of, weights=np.array([share for share, _ in right])).astype(np.float64)
    estimate = ratio_estimate(sums, np.bincount(prompt_of).astype(np.float64), draw_resamples(len(sums), seed=0))
    assert estimate is not None
    low, high = wilson(estimate.value, estimate.n) if estimate.low == estimate.high else (estimate.low, estimate.high)
    places = list(figures)
    before = {name: figures[name] for name in places[: places.index("accuracy") + 1]}
    return {**before, "accuracy_low": low, "accuracy_high": high, **figures}


def _row_of(dataset: TokenizedDataset, place: int) -> int:
    return int(dataset.rows[np.searchsorted(dataset.response_offsets, place, side="right") - 1])


def _open(settings: ScoreSettings) -> tuple[Source, Sequence[NamedFormat]]:
    source = open_sources(settings.data, settings.columns)
    tell_notes(source)
    if settings.max_samples:
        source = sample_rows(source, settings.max_samples, settings.seed)
    return source, choose_formats(source, settings.format)


def _responses(
    source: Source, formats: Sequence[NamedFormat], columns: ColumnTally | None = None
) -> Iterator[Comparison | Dropped]:
    """Rankings as in training; of a single response its answer, without what was thought before it."""
    for item in read_comparisons(source, formats, columns):
        if isinstance(item, Dropped) or len(item.responses) > 1:
            yield item
        elif not item.responses:
            yield Dropped(item.row, "no response", "the row is a prompt alone")
        elif (said := apart(item, 0).response).strip():
            yield replace(item, responses=(said,), reasoning=())
        else:
            yield Dropped(item.row, "empty response", "there is nothing but reasoning")


def _tokenize(
    source: Source, formats: Sequence[NamedFormat], template: ChatTemplate, settings: ScoreSettings
) -> TokenizedDataset:
    names = " ".join(f"{name} {form.fingerprint}" for name, form in formats)
    columns = ColumnTally(formats)
    dataset = tokenized(
        _responses(source, formats, columns),
        template,
        data_fingerprint=f"{source.fingerprint()} {names} responses",
        notes=lambda: {"columns": columns_to_json(columns.columns(source))},
        max_length=settings.max_length,
        max_prompt_length=settings.max_prompt_length,
    )
    if not len(dataset):
        raise _nothing_to_score(source, dataset.dropped)
    return dataset


def _nothing_to_score(source: Source, dropped: Mapping[str, Any]) -> UserError:
    found = "\n".join(f"  {reason}: {rows['count']}, such as {rows['example']}" for reason, rows in dropped.items())
    return UserError(f"{source.name}: there is no response that can be scored\n{found}")


def _not_scored(
    source: Source,
    formats: Sequence[NamedFormat],
    dataset: TokenizedDataset,
    template: ChatTemplate,
    settings: ScoreSettings,
) -> list[Dropped]:
    if not dataset.dropped:
        return []
    limits = {"max_length": settings.max_length, "max_prompt_length": settings.max_prompt_length}
    return not_scored(_responses(source, formats), dataset, template, **limits)
