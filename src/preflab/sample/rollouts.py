"""What a policy samples, and what is known of each response: its KL from the reference, a reward model's score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import nn

from preflab.core.records import Comparison, Completion, TokenizedComparison
from preflab.data.tokenize import ChatTemplate
from preflab.model.responses import Model, ResponseDivergences, ResponseRewards, check_positions, collator
from preflab.model.tokenizers import check_ids
from preflab.sample.sampling import Prompt, Sampling, generate

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]
"""A prompt and a response to it."""


def sample_responses(
    policy: Model,
    template: ChatTemplate,
    prompts: Sequence[Prompt],
    *,
    samples: int,
    cap: int,
    seed: int,
    batch_size: int,
) -> list[Completion]:
    """`samples` responses to each prompt, ordered by row and sample, from the policy's own distribution: temperature 1,
    the whole vocabulary. KL is of the distribution that was sampled, so nothing else will do here.
    """
    found = generate(
        policy,
        template,
        prompts,
        Sampling(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_new_tokens=cap, seed=seed),
        num_return_sequences=samples,
        batch_size=batch_size,
    )
    completions = [completion for done in found for completion in done]
    return sorted(completions, key=lambda completion: (completion.row, completion.sample))


def divergences(
    policy: Model,
    reference: Model,
    template: ChatTemplate,
    prompts: Sequence[Prompt],
    responses: Sequence[Completion],
    *,
    batch_size: int,
) -> list[float]:
    """KL(policy ‖ reference) along each response (see `ResponseDivergences`), on the very tokens that were sampled.

    responses: in the order of `sample_responses`.
    """
    ids = {prompt.row: prompt.ids for prompt in prompts}
    pairs = [(ids[completion.row], _sampled_ids(completion, template)) for completion in responses]
    module = ResponseDivergences(policy, reference)
    return _values(module, pairs, share_prefix=module.share_prefix, batch_size=batch_size)


def proxy_rewards(
    module: ResponseRewards, template: ChatTemplate, responses: Sequence[Completion], *, batch_size: int
) -> list[float | None]:
    """A reward model's score of each response by its text, as `preflab score` has it; `template` is the reward model's.

    None where it cannot read the response: an empty one, say.
    """
    distinct = dict.fromkeys((completion.prompt, completion.response) for completion in responses)
    encoded = template.encode_many(Comparison(prompt, (response,)) for prompt, response in distinct)
    pairs = {
        key: (row.prompt_ids, row.response_ids[0])
        for key, row in zip(distinct, encoded, strict=True)
        if isinstance(row, TokenizedComparison)
    }
    for ids in pairs.values():
        check_ids(module.model, max(*ids[0], *ids[1]), "a response")
    longest = max((len(prompt) + len(response) for prompt, response in pairs.values()), default=0)
    check_positions(module.model, longest, "for the reward model, lower max_prompt_length or max_new_tokens")
    values = _values(module, list(pairs.values()), share_prefix=module.share_prefix, batch_size=batch_size)
    score_of = dict(zip(pairs, values, strict=True))
    return [score_of.get((completion.prompt, completion.response)) for completion in responses]


def _sampled_ids(completion: Completion, template: ChatTemplate) -> tuple[int, ...]:
    """With the place where the response ended, which was sampled too; what stands there does not matter to KL."""
    return (*completion.ids, template.terminator_id) if completion.finish == "eos" else completion.ids


def _values(module: nn.Module, pairs: Sequence[Pair], *, share_prefix: bool, batch_size: int) -> list[float]:
    """What a module says of each response, in their order; at most `batch_size` responses at once, those of a prompt
    together, so that it is read once for all of them.
    """
    collate, device = collator(share_prefix), next(module.parameters()).device
    by_prompt: dict[Ids, list[int]] = {}
    for place, (prompt, _) in enumerate(pairs):
        by_prompt.setdefault(prompt, []).append(place)
    longest_first = sorted(by_prompt, key=len, reverse=True)
    order = [place for prompt in longest_first for place in by_prompt[prompt]]
    found: dict[int, float] = {}
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            rows = [
                TokenizedComparison(prompt, tuple(pairs[place][1] for place in own))
                for prompt, own in groupby(places, key=lambda place: pairs[place][0])
            ]
            found |= zip(places, module(collate(rows).to(device)).tolist(), strict=True)
    return [found[place] for place in range(len(pairs))]
