"""Responses to prompts: sampled so that neither the batch, nor an interruption, nor the model's own files have a say.

`transformers` runs the model; which token is taken is decided here. Each response has its own stream of random numbers,
from the seed, the prompt's row and the sample's number, so it does not depend on the responses beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from preflab.core.records import Comparison, Completion, Message, RowError, UserError
from preflab.data.tokenize import ChatTemplate, Dropped
from preflab.model.responses import Model, check_positions, position_limit, usual_attention
from preflab.model.tokenizers import check_ids


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and its token ids; `row` and `meta` are those of its source."""

    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    row: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. The penalty comes first, then temperature, top-k and top-p.

    temperature:        the logits are divided by it; 0 takes the likeliest token
    top_p:              only the likeliest tokens that hold this share of the probability
    top_k:              only this many likeliest tokens; 0: all
    repetition_penalty: for tokens of the prompt and of the response so far, positive logits are divided by it and
                        negative ones multiplied (Keskar et al., 2019)
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    seed: int = 42


def encode_prompts(
    items: Iterable[Comparison | Dropped], template: ChatTemplate, *, max_prompt_length: int | None = None
) -> tuple[list[Prompt], list[Dropped]]:
    """Prompts of rows of any kind as token ids, and the rows without a usable prompt."""
    prompts: list[Prompt] = []
    dropped: list[Dropped] = []
    for item in items:
        if isinstance(item, Dropped):
            dropped.append(item)
            continue
        try:
            ids = template.prompt_ids(item.prompt, max_prompt_length=max_prompt_length)
            prompts.append(Prompt(item.prompt, tuple(ids), item.row, item.meta))
        except RowError as error:
            dropped.append(Dropped(item.row, error.reason, error.detail))
    return prompts, dropped


def generate(
    model: Model,
    template: ChatTemplate,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    num_return_sequences: int = 1,
    batch_size: int = 16,
    finished: Collection[tuple[int, int]] = (),
) -> Iterator[list[Completion]]:
    """Responses batch by batch, those to the longest prompts first, each until it ends its turn or hits the token cap.

    Args:
        model: a policy, in evaluation mode, on the device to use.
        template: renders training, generation and scoring alike; gives the ids that end a response.
        prompts: as from `encode_prompts`.
        sampling: see there; nothing is taken from the model's own generation settings.
        num_return_sequences: responses to each prompt, numbered from 0.
        batch_size: responses generated at once; changes nothing but rounding.
        finished: (row, sample) of responses that are not wanted again. A batch that is partly finished comes whole, so
            that going on after an interruption computes what would have been computed without it.

    Raises:
        UserError: settings that contradict each other, prompts and cap beyond the model's positions, NaN logits.
    """
    if num_return_sequences > 1 and not sampling.temperature:
        raise UserError(f"{num_return_sequences} responses per prompt would all be the same at temperature 0; raise it")
    _check_prompts(model, template, prompts, sampling.max_new_tokens)
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].ids))
    wanted = iter([(prompts[index], sample) for index in longest_first for sample in range(num_return_sequences)])
    while batch := list(islice(wanted, batch_size)):
        if not all((prompt.row, sample) in finished for prompt, sample in batch):
            yield _respond(model, template, batch, sampling)


def _respond(
    model: Model, template: ChatTemplate, batch: Sequence[tuple[Prompt, int]], sampling: Sampling
) -> list[Completion]:
    streams = [_random_numbers(sampling, prompt.row, sample) for prompt, sample in batch]
    found = generate_ids(model, [prompt.ids for prompt, _ in batch], np.stack(streams), template.stop_ids, sampling)
    return [
        Completion(
            prompt=prompt.messages,
            response=said.response,
            sample=sample,
            tokens=len(ids),
            finish=finish,
            row=prompt.row,
            meta=prompt.meta,
            ids=tuple(ids),
            reasoning=said.reasoning,
        )
        for (prompt, sample), (ids, finish) in zip(batch, found, strict=True)
        for said in (template.read(ids),)
    ]


def generate_ids(
    model: Model,
    prompts: Sequence[Sequence[int]],
    random_numbers: np.ndarray[Any, np.dtype[np.float64]],
    stop_ids: Sequence[int],
    sampling: Sampling,
) -> list[tuple[list[int], Literal["eos", "length"]]]:
    """Token ids that continue each of B prompts, without the one that ended it, and why it ended.

    random_numbers: [B, max_new_tokens] in [0, 1); the n-th decides the n-th token.
    """
    inner = usual_attention(model)
    width = max(map(len, prompts))
    padding = torch.tensor([width - len(ids) for ids in prompts])
    ids = torch.tensor([[stop_ids[0]] * (width - len(ids)) + list(ids) for ids in prompts])
    chooser = TokenChooser(sampling, torch.from_numpy(random_numbers), padding)
    # The model's own settings are set aside, because transformers falls back to them for whatever is not said here.
    own, inner.generation_config = inner.generation_config, _settings()
    try:
        sequences = _generate(
            inner,
            input_ids=ids.to(inner.device),
            attention_mask=(torch.arange(width) >= padding[:, None]).long().to(inner.device),
            logits_processor=LogitsProcessorList([chooser]),
            generation_config=_settings(
                do_sample=False,  # the chooser leaves one token only
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=list(stop_ids),
                pad_token_id=stop_ids[0],
                use_cache=True,
            ),
        )
    finally:
        inner.generation_config = own
    return [_until_stop(tokens, stop_ids) for tokens in sequences[:, width:].tolist()]


def _settings(**chosen: Any) -> GenerationConfig:
    return GenerationConfig(**chosen)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _generate(model: PreTrainedModel, **inputs: Any) -> Tensor:
    sequences: Tensor = model.generate(**inputs)  # type: ignore[operator]
    return sequences


def _until_stop(tokens: list[int], stop_ids: Sequence[int]) -> tuple[list[int], Literal["eos", "length"]]:
    for place, token in enumerate(tokens):
        if token in stop_ids:
            return tokens[:place], "eos"
    return tokens, "length"


class TokenChooser(LogitsProcessor):
    """Leaves one token of each sequence a finite score: the likeliest, or the one that its random number points to.

    The number is looked up in the cumulative distribution over the vocabulary (inverse transform sampling), so one
    number decides a token, and a difference in rounding moves the choice only for a number that lies right at a border.
    """

    def __init__(self, sampling: Sampling, random_numbers: Tensor, padding: Tensor) -> None:
        """random_numbers: [B, N]; padding: [B] tokens in front of each prompt."""
        self.sampling = sampling
        self.random_numbers = random_numbers
        self.padding = padding
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, T] ids so far, [B, V] logits -> [B, V]"""
        if scores.isnan().any():
            raise UserError("the model's logits are not numbers (NaN); --dtype float32 is the safest precision")
        if self.sampling.repetition_penalty != 1.0:
            scores = self._penalise(input_ids, scores)
        token = self._draw(scores) if self.sampling.temperature else scores.argmax(dim=-1, keepdim=True)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)

    def _penalise(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        # Padding must not be penalised: it may share its id with the token that ends a response. So its places name the
        # last token again, which is there for all sequences.
        real = place >= self.padding.to(input_ids.device)[:, None]
        used = torch.where(real, input_ids, input_ids[:, -1:])
        known, penalty = scores.gather(1, used), self.sampling.repetition_penalty
        return scores.scatter(1, used, torch.where(known < 0, known * penalty, known / penalty))

    def _draw(self, scores: Tensor) -> Tensor:
        # In double precision, except where a device has none.
        scores = scores.to(torch.float32 if scores.device.type == "mps" else torch.float64) / self.sampling.temperature
        if 0 < self.sampling.top_k < scores.shape[1]:
            least = scores.topk(self.sampling.top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        probabilities = scores.softmax(dim=-1)
        if self.sampling.top_p < 1:
            ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(dim=-1) - ordered
            kept = ordered.masked_fill(before >= self.sampling.top_p, 0.0)
            probabilities = torch.zeros_like(kept).scatter(1, places, kept)
        cumulative = probabilities.cumsum(dim=-1)
        number = self.random_numbers[:, self.step, None].to(cumulative)
        token = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)
        return token.clamp(max=scores.shape[1] - 1)


def _random_numbers(sampling: Sampling, row: int, sample: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[max_new_tokens], the same for a higher cap as far as they go."""
    return np.random.default_rng((sampling.seed, row, sample)).random(sampling.max_new_tokens)


def _check_prompts(model: Model, template: ChatTemplate, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    check_ids(model, max(template.terminator_id, 0), "the end of a response")
    for prompt in prompts:
        check_ids(model, max(prompt.ids, default=0), f"row {prompt.row}")
    longest = max((len(prompt.ids) for prompt in prompts), default=0)
    room = (position_limit(model) or 0) - longest
    advice = f"set max_new_tokens to {room} or less, or " if room > 0 else ""
    check_positions(
        model,
        longest + max_new_tokens,
        f"{advice}lower max_prompt_length (the longest prompt has {longest} tokens, max_new_tokens is "
        f"{max_new_tokens})",
    )
