"""Training on preferences by any objective of the table, from any policy; where the objective has a reference, it is
that policy as it was at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from accelerate import Accelerator
from torch import nn

from preflab.core.durable import read_metrics
from preflab.core.output import alone
from preflab.data.batches import Indices
from preflab.data.cache import TokenizedDataset
from preflab.data.comparisons import Need
from preflab.model.in_memory import InMemory
from preflab.model.responses import ResponseLogps, collator
from preflab.training.fit import Fit, evaluation_plan, first_epoch, fit
from preflab.training.losses import loss_of, needs_reference, own_code, statistics_of
from preflab.training.model import save_trained
from preflab.training.preference_settings import PreferenceSettings
from preflab.training.prepare import prepare
from preflab.training.push import push_at_evaluations
from preflab.training.reference import check_reference, reference_logps
from preflab.training.rows import LabelledRows, MismatchedRows, RankedRows
from preflab.training.stage import TrainResult, announce, finish_training
from preflab.training.statistics import find_statistics, need_several_rows, statistics_batches
from preflab.training.steps import label_step, pair_step


@alone("output_dir", "stage.json")
def train_preferences(settings: PreferenceSettings, fit: Fit = fit, held: InMemory | None = None) -> TrainResult:
    """Train by the objective that the settings are of (`settings_of("dpo")`, …).

    The reference's log-probabilities are computed once, before the first step, and cached; where no term of the
    objective reads them, none are computed.
    """
    name, line = settings.objective, settings.line
    on_labels = line.data == "labels"
    need: Need = "labels" if on_labels else "rankings"
    # Before the folder is claimed, which else would be another run's once a mistake in the settings is mended.
    loss, statistics = loss_of(settings), statistics_of(settings)
    need_several_rows(settings, statistics)
    start = prepare(settings, f"train {name}", task="policy", need=need, inputs=own_code(settings), held=held)
    if isinstance(start, TrainResult):
        return start
    accelerator, module = start.accelerator, ResponseLogps(start.model)
    mismatched = any(statistic.mismatched for statistic in statistics.values())
    make = partial(_rows, LabelledRows if on_labels else RankedRows, settings, module.share_prefix, mismatched)
    training = make(start.splits.training)
    held_out = make(start.splits.held_out) if start.splits.held_out else None
    _warn_of_one_label(accelerator, training)

    def on_start(prepared: nn.Module) -> None:
        for rows, batches in _first_batches(accelerator, training, held_out, settings):
            rows.reference = reference_logps(accelerator, prepared, rows, batches, start.fingerprint)
            check_reference(accelerator, prepared, rows, batches)

    trained = fit(
        accelerator,
        module,
        training,
        held_out,
        partial(label_step if on_labels else pair_step, objective=loss),
        settings,
        name=name,
        statistics=partial(find_statistics, accelerator, settings, statistics),
        on_start=on_start if needs_reference(settings) else None,
        publish=push_at_evaluations(accelerator, start.template, settings),
    )
    if not line.lowers_chosen and (warning := falling_chosen(read_metrics(settings.output_dir))):
        announce(accelerator, f"{warning} {_against_falling(settings)}")
    final = save_trained(accelerator, trained.module, start.template, settings.output_dir, held)
    return finish_training(accelerator, settings, start, final, step=trained.step)


def _rows(
    kind: type[RankedRows],
    settings: PreferenceSettings,
    share_prefix: bool,
    mismatched: bool,
    dataset: TokenizedDataset,
) -> RankedRows:
    collate = collator(share_prefix)
    limits = {"max_length": settings.max_length, "seed": settings.seed}
    return kind(dataset, collate, MismatchedRows(dataset, collate, **limits) if mismatched else None)


def _warn_of_one_label(accelerator: Accelerator, training: RankedRows) -> None:
    wanted = training.known.wanted
    if wanted is not None and len(kinds := set(wanted.tolist())) < 2:
        kind = "wanted" if True in kinds else "unwanted"
        announce(accelerator, f"warning: all {len(wanted):,} responses to train on are {kind}")


def _first_batches(
    accelerator: Accelerator, training: RankedRows, held_out: RankedRows | None, settings: PreferenceSettings
) -> Iterator[tuple[RankedRows, list[Indices]]]:
    """All rows of which a reference is needed, with the batches in which the policy meets each of them first."""
    steps = first_epoch(accelerator, training, settings)
    yield training, [batch for step in steps for batch in step.micro_batches]
    if others := training.mismatched:
        yield others, [batch for step in steps for batch in statistics_batches(others, step.rows, settings)]
    if held_out:
        yield held_out, evaluation_plan(held_out, settings)
        if others := held_out.mismatched:
            yield others, statistics_batches(others, np.arange(len(others.dataset)), settings)


def falling_chosen(rows: list[dict[str, float]]) -> str | None:
    """A warning where the log-probability of chosen responses fell while the loss looked good (Pal et al., 2024).

    On the held-out responses, where there are any; else against the reference on the same responses, because each
    step's line is about other rows. A fall of less than 1 nat and 2 % goes without one.
    """
    held_out = [row["eval_logps/chosen"] for row in rows if row.get("eval_logps/chosen") is not None]
    names = ("logps/chosen", "logps/chosen_change")
    known = [row for row in rows if all(row.get(name) is not None for name in names)]
    if len(held_out) > 1:
        side, before, now = "eval_", held_out[0], held_out[-1]
    elif known:
        side, now = "", known[-1]["logps/chosen"]
        before = now - known[-1]["logps/chosen_change"]
    else:
        return None
    if before - now <= max(1.0, 0.02 * abs(before)):
        return None
    return (
        f"warning: {side}logps/chosen fell from {before:.1f} to {now:.1f}. The model now finds the preferred responses "
        "less likely than before training; the loss still falls when the rejected ones fall faster, and probability "
        "moves to responses that nobody rated."
    )


def _against_falling(settings: PreferenceSettings) -> str:
    """What the user of this objective can do about it."""
    fields = type(settings).model_fields
    terms = {"sft_weight": "an SFT term (sft_weight 1)", "mix": "an SFT term (mix sft?weight=1)"}
    term = [text for name, text in terms.items() if name in fields][:1]
    return f"What holds against it: {', '.join([*term, 'a larger beta', 'a lower learning_rate'])}"
