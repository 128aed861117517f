"""Rewards of responses: of preference data, with the accuracy that follows, or of responses that a model wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from preflab.data.batches import plan_evaluation
from preflab.data.cache import TokenizedDataset, tokenized
from preflab.data.comparisons import NamedFormat, choose_formats, read_comparisons
from preflab.data.sources import Source, open_sources, sample_rows
from preflab.data.tokenize import ChatTemplate, Dropped
from preflab.figures.study_figures import draw_pairs
from preflab.model.load import load_model, pick_dtype
from preflab.model.responses import Model, ResponseRewards, check_positions, collator
from preflab.recipes.data import count_by_reason, template_of
from preflab.recipes.output import alone, beside, explaining_memory, finish_output, open_output
from preflab.recipes.settings import ScoreSettings
from preflab.recipes.stage import fingerprint_weights, make_accelerator
from preflab.records import Comparison, UserError
from preflab.rundir import read_json, read_jsonl, write_json
from preflab.score import Row, not_scored, score_rows, scores_of, summarize
from preflab.terminal import progress_bar
from preflab.train.loop import response_values
from preflab.train.rows import RankedRows


@dataclass(frozen=True)
class ScoreResult:
    """A finished file of scores, and figures over it."""

    output: Path
    summary: Mapping[str, Any]

    def __str__(self) -> str:
        shown = [f"  {name:20} {value:.4g}" for name, value in self.summary.items() if isinstance(value, (int, float))]
        lost = [f"  not scored, {reason}: {rows['count']}" for reason, rows in self.summary["dropped"].items()]
        return "\n".join([*shown, *lost, f"scores: {self.output}"])


@alone("output")
def score_responses(settings: ScoreSettings) -> ScoreResult:
    """Score every response of the data with a reward model; the lines are described at `preflab.score.score_rows`."""
    accelerator = make_accelerator()
    template = template_of(
        settings.reward_model, settings.chat_template, task="reward", trust_remote_code=settings.trust_remote_code
    )
    source, formats = _open(settings)
    dataset = _tokenize(source, formats, template, settings)
    dtype = pick_dtype(settings.dtype, accelerator.device, frozen=True)
    model = load_model(settings.reward_model, "reward", dtype=dtype, trust_remote_code=settings.trust_remote_code)
    check_positions(model, dataset.longest, f"lower max_length (now {settings.max_length})")
    fingerprints = {"reward_model": fingerprint_weights(model), "data": dataset.fingerprint}
    with accelerator.main_process_first():
        overwrite = settings.overwrite and accelerator.is_main_process
        state = open_output(settings.output, "score", settings, fingerprints, seed=settings.seed, overwrite=overwrite)
    if state != "done" or not beside(settings.output, "summary.json").exists():
        values = rewards(accelerator, model, dataset, batch_size=settings.batch_size)
        if accelerator.is_main_process:
            finish_output(settings.output, score_rows(_responses(source, formats), dataset, values))
            dropped = _not_scored(source, formats, dataset, template, settings)
            summary = {**summarize(read_jsonl(settings.output)), "dropped": count_by_reason(dropped)}
            write_json(beside(settings.output, "summary.json"), summary)
            _draw_histograms(source, settings.output)
        accelerator.wait_for_everyone()
    return load_scores(settings.output)


def _draw_histograms(source: Source, output: Path) -> None:
    """Of pairs, NAME.delta_hist.png and NAME.score_hist.png beside the rows; where there are several sources (a train
    split and a test split, say), one is set against the other.
    """
    parts: dict[str, list[Row]] = {}
    for row in read_jsonl(output):
        best, *others = scores_of(row)
        if others:
            name = source.parts[source.part_of(row["row"])].name if source.parts else ""
            parts.setdefault(name, []).append({"score_chosen": best, "score_rejected": others[-1]})
    draw_pairs(parts, delta=beside(output, "delta_hist.png"), scores=beside(output, "score_hist.png"))


def load_scores(output: Path) -> ScoreResult:
    """A finished file of scores. Raises UserError where the summary beside it does not follow from its rows."""
    path = beside(output, "summary.json")
    summary = read_json(path)
    figures = summarize(read_jsonl(output))
    if wrong := [name for name, value in figures.items() if summary.get(name) != value]:
        raise UserError(f"{path}: {', '.join(wrong)} does not follow from the rows of {output.name}")
    return ScoreResult(output, summary)


def rewards(
    accelerator: Accelerator, model: Model, dataset: TokenizedDataset, *, batch_size: int
) -> NDArray[np.float64]:
    """[R] the reward of every response, in the order of `dataset.response_offsets`; batches are sorted by length."""
    module = ResponseRewards(model.to(accelerator.device))
    rows = RankedRows(dataset, collator(module.share_prefix))
    plan = plan_evaluation(rows.lengths, batch_size=batch_size, max_tokens=None)
    with progress_bar(disable=not accelerator.is_main_process) as bar:
        share = -(-len(dataset) // accelerator.num_processes)
        task = bar.add_task("rows", total=share, shown="")
        with explaining_memory(batch_size):
            return response_values(accelerator, module, rows, plan, advance=lambda count: bar.advance(task, count))


def _open(settings: ScoreSettings) -> tuple[Source, Sequence[NamedFormat]]:
    source = open_sources(settings.data)
    if settings.max_samples:
        source = sample_rows(source, settings.max_samples, settings.seed)
    return source, choose_formats(source, settings.format)


def _responses(source: Source, formats: Sequence[NamedFormat]) -> Iterator[Comparison | Dropped]:
    for item in read_comparisons(source, formats):
        if isinstance(item, Comparison) and not item.responses:
            yield Dropped(item.row, "no response", "the row is a prompt alone")
        else:
            yield item


def _tokenize(
    source: Source, formats: Sequence[NamedFormat], template: ChatTemplate, settings: ScoreSettings
) -> TokenizedDataset:
    names = " ".join(f"{name} {form.fingerprint}" for name, form in formats)
    dataset = tokenized(
        _responses(source, formats),
        template,
        data_fingerprint=f"{source.fingerprint()} {names} responses",
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
