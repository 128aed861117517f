"""Rewards of responses: of preference data, with the accuracy that follows, or of responses that a model wrote."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from preflab.core.durable import read_object
from preflab.core.output import alone, beside, explaining_memory, finish_output, open_output
from preflab.core.records import Comparison, UserError
from preflab.core.results import Result, frame
from preflab.core.rundir import read_jsonl, write_json
from preflab.core.terminal import progress_bar
from preflab.core.ties import ROUNDING, Precision
from preflab.data.answers import apart
from preflab.data.batches import plan_evaluation
from preflab.data.cache import TokenizedDataset, tokenized
from preflab.data.column_use import ColumnTally, columns_from_json, columns_to_json, tell_columns
from preflab.data.comparisons import NamedFormat, choose_formats, read_comparisons
from preflab.data.sources import Source, open_sources, sample_rows
from preflab.data.splits import check_rows, count_by_reason, tell_notes, template_of
from preflab.data.tokenize import ChatTemplate, Dropped
from preflab.model.in_memory import InMemory
from preflab.model.load import load_model
from preflab.model.precision import pick_dtype
from preflab.model.responses import Model, ResponseRewards, check_positions, collator
from preflab.rewards.figures import draw_pairs, score_hist
from preflab.rewards.rows import (
    Row,
    accuracies_of,
    extremes,
    not_scored,
    sample_lines,
    score_rows,
    scored,
    scores_of,
    summarize,
)
from preflab.sample.settings import ScoreSettings
from preflab.stats.definitions import ACCURACY, STD
from preflab.stats.statistics import draw_resamples, numbered, ratio_estimate, wilson
from preflab.training.loop import response_values
from preflab.training.rows import RankedRows
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


@alone("output")
def score_responses(settings: ScoreSettings, held: InMemory | None = None, *, tell: bool = True) -> ScoreResult:
    """Score every response of the data with a reward model; see `preflab.rewards.rows.score_rows`.

    `held` is the model, where the settings' name stands for one in memory. `tell` says what the columns are read as; a
    study, which wrote the file itself, does without.
    """
    accelerator = make_accelerator()
    template = template_of(
        settings.reward_model,
        settings.chat_template,
        settings.chat_template_kwargs,
        task="reward",
        trust_remote_code=settings.trust_remote_code,
        revision=settings.revision,
        held=held,
    )
    source, formats = _open(settings)
    dataset = _tokenize(source, formats, template, settings)
    if tell:
        tell_columns(columns_from_json(dataset.notes.get("columns", ())))
    dtype = held.dtype if held else pick_dtype(settings.dtype, accelerator.device, frozen=True)
    model: Model
    if held:
        model = held.model
    else:
        model = load_model(
            settings.reward_model,
            "reward",
            dtype=dtype,
            trust_remote_code=settings.trust_remote_code,
            revision=settings.revision,
        )
    model = model.eval()
    check_rows(model, dataset)
    check_positions(model, dataset.longest, f"lower max_length (now {settings.max_length})")
    fingerprints = {"reward_model": fingerprint_weights(model), "data": dataset.fingerprint}
    with accelerator.main_process_first():
        overwrite = settings.overwrite and accelerator.is_main_process
        state = open_output(settings.output, "score", settings, fingerprints, seed=settings.seed, overwrite=overwrite)
    if state != "done" or not beside(settings.output, "summary.json").exists():
        values = rewards(accelerator, model, dataset, batch_size=settings.batch_size)
        check_rewards(settings.reward_model, values, lambda place: f"row {_row_of(dataset, place)}")
        if accelerator.is_main_process:
            source_of = partial(_source_of, source) if source.parts else None
            finish_output(settings.output, score_rows(_responses(source, formats), dataset, values, source_of))
            dropped = _not_scored(source, formats, dataset, template, settings)
            precision = precision_of(dtype)
            summary = {
                **_figures(settings.output, precision),
                "precision": precision,
                "definitions": {"accuracy": ACCURACY, "reward_std": STD},
                "samples": extremes(read_jsonl(settings.output)),
                "dropped": count_by_reason(dropped),
            }
            write_json(beside(settings.output, "summary.json"), summary)
            _draw_histograms(settings.output)
        accelerator.wait_for_everyone()
    return load_scores(settings.output)


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
    summary = read_object(path)
    precision, dropped = summary.get("precision", "float32"), summary.get("dropped")
    if precision not in tuple(ROUNDING):
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


def _figures(output: Path, precision: Precision) -> dict[str, Any]:
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


def precision_of(dtype: torch.dtype) -> Precision:
    """The precision of scores by a model with weights of this type."""
    names: Mapping[torch.dtype, Precision] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    return names.get(dtype, "float32")


def check_rewards(model: str, values: Sequence[float] | NDArray[np.float64], named: Callable[[int], str]) -> None:
    """Raise UserError where a reward is no finite number, before anything is written; `named` says of which response
    it is by its place.
    """
    found = np.asarray(values, np.float64)
    if (bad := np.flatnonzero(~np.isfinite(found))).size:
        raise UserError(
            f"{model}: {bad.size} of {found.size} rewards are no finite numbers, the first of them {found[bad[0]]} of "
            f"{named(int(bad[0]))}. Its weights are damaged, or --dtype is too coarse for it; nothing was written"
        )


def _row_of(dataset: TokenizedDataset, place: int) -> int:
    return int(dataset.rows[np.searchsorted(dataset.response_offsets, place, side="right") - 1])


def rewards(
    accelerator: Accelerator, model: Model, dataset: TokenizedDataset, *, batch_size: int
) -> NDArray[np.float64]:
    """[R] the reward of every response, in the order of `dataset.response_offsets`; batches are sorted by length.

    The same response to the same prompt has the same reward, that of the first: what batches differ in is rounding.
    """
    module = ResponseRewards(model.to(accelerator.device))
    rows = RankedRows(dataset, collator(module.share_prefix))
    plan = plan_evaluation(rows.lengths, batch_size=batch_size, max_tokens=None)
    with progress_bar(disable=not accelerator.is_main_process) as bar:
        share = -(-len(dataset) // accelerator.num_processes)
        task = bar.add_task("rows", total=share, shown="")
        with explaining_memory(batch_size):
            values = response_values(accelerator, module, rows, plan, advance=lambda count: bar.advance(task, count))
    return values[_first_of_the_same(dataset)]


def _first_of_the_same(dataset: TokenizedDataset) -> NDArray[np.int64]:
    """[R] for each response the place of the first one that has the same ids after a prompt of the same ids."""
    first: dict[bytes, int] = {}
    places: list[int] = []
    for row in dataset:
        prompt = np.asarray(row.prompt_ids, dtype=np.int64).tobytes()
        for response in row.response_ids:
            ids = hashlib.sha256(len(prompt).to_bytes(8, "big") + prompt)
            ids.update(np.asarray(response, dtype=np.int64).tobytes())
            places.append(first.setdefault(ids.digest(), len(places)))
    return np.asarray(places, dtype=np.int64)


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
        found = "\n".join(
            f"  {reason}: {rows['count']}, such as {rows['example']}" for reason, rows in dataset.dropped.items()
        )
        raise UserError(f"{source.name}: there is no response that can be scored\n{found}")
    return dataset


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
