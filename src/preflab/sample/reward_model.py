"""The scores of a reward model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from preflab.core.output import explaining_memory
from preflab.core.records import Comparison, RowError, UserError
from preflab.core.rundir import fingerprint
from preflab.core.terminal import progress_bar
from preflab.core.ties import Precision
from preflab.data.batches import plan_evaluation
from preflab.data.cache import TokenizedDataset, tokenized
from preflab.data.fields import excerpt
from preflab.data.splits import check_rows, template_of
from preflab.data.tokenize import ChatTemplate
from preflab.model.in_memory import InMemory
from preflab.model.load import load_model
from preflab.model.precision import pick_dtype
from preflab.model.responses import Model, ResponseRewards, check_positions, collator
from preflab.model.settings import Dtype
from preflab.training.loop import response_values
from preflab.training.rows import RankedRows
from preflab.training.stage import fingerprint_weights, make_accelerator


@dataclass(frozen=True)
class RewardModel:
    """A reward model, loaded, that scores single responses as `preflab score` does. Lengths are in tokens."""

    name: str
    model: Model
    template: ChatTemplate
    accelerator: Accelerator
    precision: Precision
    max_length: int
    max_prompt_length: int
    batch_size: int

    @property
    def parameters(self) -> dict[str, Any]:
        """All that decides its scores besides the texts."""
        return {
            "weights": fingerprint_weights(self.model),
            "template": self.template.fingerprint,
            "max_length": self.max_length,
            "max_prompt_length": self.max_prompt_length,
        }

    def scores(self, comparisons: Sequence[Comparison]) -> dict[int, float | str]:
        """Comparisons with one response each -> by their row the score, or why there is none."""
        dataset = tokenized(
            comparisons,
            self.template,
            data_fingerprint=f"{fingerprint(comparisons)} judged",
            max_length=self.max_length,
            max_prompt_length=self.max_prompt_length,
        )
        check_rows(self.model, dataset)
        check_positions(self.model, dataset.longest, f"lower max_length (now {self.max_length})")
        values: Sequence[float] = []
        if len(dataset):
            values = rewards(self.accelerator, self.model, dataset, batch_size=self.batch_size).tolist()
        numbers = dataset.rows.tolist()
        texts = {item.row: item.responses[0] for item in comparisons}
        check_rewards(self.name, values, lambda place: f"the response {excerpt(texts[numbers[place]])}")
        found: dict[int, float | str] = dict(zip(numbers, values, strict=True))
        for item in comparisons:
            if item.row not in found:
                found[item.row] = self._why_not(item)
        return found

    def _why_not(self, comparison: Comparison) -> str:
        """Why a response could not be tokenised; asked again, because a tokenised dataset counts reasons, not whose."""
        try:
            self.template.encode(comparison, max_length=self.max_length, max_prompt_length=self.max_prompt_length)
        except RowError as error:
            return str(error)
        raise AssertionError("a response that can be tokenised has a score")


def load_reward_model(
    name: str,
    *,
    chat_template: str | None,
    chat_template_kwargs: Mapping[str, Any],
    dtype: Dtype,
    trust_remote_code: bool,
    max_length: int,
    max_prompt_length: int,
    batch_size: int,
    held: InMemory | None = None,
) -> RewardModel:
    """A reward model by its folder or hub id, or the one that is `held` in memory; the other arguments as the settings
    of scoring have them.
    """
    accelerator = make_accelerator()
    trust = trust_remote_code
    template = template_of(name, chat_template, chat_template_kwargs, task="reward", trust_remote_code=trust, held=held)
    weights = held.dtype if held else pick_dtype(dtype, accelerator.device, frozen=True)
    model = held.model if held else load_model(name, "reward", dtype=weights, trust_remote_code=trust)
    lengths = {"max_length": max_length, "max_prompt_length": max_prompt_length}
    return RewardModel(name, model, template, accelerator, precision_of(weights), **lengths, batch_size=batch_size)


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
