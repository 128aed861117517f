"""What a policy samples, and what is known of each response: its KL from the reference, a reward model's score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import nn

from preflab.data.batches import plan_evaluation
from preflab.data.tokenize import ChatTemplate
from preflab.generate import Prompt, Sampling, generate
from preflab.model.responses import Model, ResponseDivergences, ResponseRewards, check_positions, collator
from preflab.records import Comparison, Completion, RowError, TokenizedComparison


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
    rows = [
        TokenizedComparison(ids[row], tuple(_sampled_ids(completion, template) for completion in of_prompt), row)
        for row, of_prompt in groupby(responses, key=lambda completion: completion.row)
    ]
    module = ResponseDivergences(policy, reference)
    return _values(module, rows, share_prefix=module.share_prefix, batch_size=batch_size)


def proxy_rewards(
    module: ResponseRewards, template: ChatTemplate, responses: Sequence[Completion], *, batch_size: int
) -> list[float | None]:
    """A reward model's score of each response by its text, as `preflab score` has it; `template` is the reward model's.

    None where it cannot read the response: an empty one, say.
    """
    distinct = dict.fromkeys((completion.prompt, completion.response) for completion in responses)
    rows = {key: row for key in distinct if (row := _encoded(template, Comparison(key[0], (key[1],)))) is not None}
    longest = max((len(row.prompt_ids) + len(row.response_ids[0]) for row in rows.values()), default=0)
    check_positions(module.model, longest, "for the reward model, lower max_prompt_length or max_new_tokens")
    values = _values(module, list(rows.values()), share_prefix=module.share_prefix, batch_size=batch_size)
    score_of = dict(zip(rows, values, strict=True))
    return [score_of.get((completion.prompt, completion.response)) for completion in responses]


def _sampled_ids(completion: Completion, template: ChatTemplate) -> tuple[int, ...]:
    """With the place where the response ended, which was sampled too; what stands there does not matter to KL."""
    return (*completion.ids, template.terminator_id) if completion.finish == "eos" else completion.ids


def _encoded(template: ChatTemplate, comparison: Comparison) -> TokenizedComparison | None:
    try:
        return template.encode(comparison)
    except RowError:
        return None


def _values(
    module: nn.Module, rows: Sequence[TokenizedComparison], *, share_prefix: bool, batch_size: int
) -> list[float]:
    """What a module says of all responses of the rows, in their order."""
    collate, device = collator(share_prefix), next(module.parameters()).device
    lengths = np.array([len(row.prompt_ids) + sum(map(len, row.response_ids)) for row in rows], np.int64)
    found: dict[int, list[float]] = {}
    with torch.no_grad():
        for indices in plan_evaluation(lengths, batch_size=batch_size, max_tokens=None) if len(rows) else ():
            values = iter(module(collate([rows[i] for i in indices]).to(device)).tolist())
            found |= {int(i): [next(values) for _ in rows[i].response_ids] for i in indices}
    return [value for i in range(len(rows)) for value in found[i]]
