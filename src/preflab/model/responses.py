"""What a model says of responses: their log-probabilities (a policy) or their rewards (a reward model), R of a batch at
once.

Both are modules, so that Accelerate can wrap them for several processes; both run the backbone on a batch in prefix
layout and read only the hidden states that matter. Making one sets the model's attention to the tree's;
`usual_attention` sets it back for generation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from preflab.core.records import TokenizedComparison, UserError
from preflab.model.logps import Head, response_sums, token_divergences, token_logps
from preflab.model.prefix import ATTENTION, PrefixBatch, Tree, prefix_batch, separate_batch

Model = PreTrainedModel | PeftModel
Collate = Callable[[Sequence[TokenizedComparison]], PrefixBatch]

log = logging.getLogger(__name__)

PROBE = TokenizedComparison(prompt_ids=(3, 5, 7, 2), response_ids=((4, 6, 9), (8, 3), (5, 5, 7, 1)))
"""Small ids that every vocabulary has; the responses differ in their first token and length."""


class ResponseLogps(nn.Module):
    """log π(response | prompt): the sum over the response's tokens, its terminator included."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        check_head(model)
        self.model = model
        self.share_prefix = shares_prefix(model)

    def forward(self, batch: PrefixBatch) -> Tensor:
        """[R] float32"""
        hidden = _hidden_states(self.model, batch, self.share_prefix)[batch.predictors]
        return response_sums(token_logps(hidden, output_head(self.model), batch.targets), batch)


class ResponseRewards(nn.Module):
    """The reward head on the hidden state of each response's last token, with the head's own float32."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.share_prefix = shares_prefix(model)

    def forward(self, batch: PrefixBatch) -> Tensor:
        """[R] float32"""
        ends = _hidden_states(self.model, batch, self.share_prefix)[batch.ends]
        with torch.autocast(ends.device.type, enabled=False):
            return self._score(ends)

    def _score(self, ends: Tensor) -> Tensor:
        # Called as a module, so that PEFT's trainable copy of the head is the one that runs.
        # Its weight is that copy's too; its first parameter would be the frozen original's.
        head = transformers_model(self.model).get_submodule("score")
        weight = head.weight
        assert isinstance(weight, Tensor)
        scores: Tensor = head(ends.to(weight.dtype))
        return scores[:, 0].float()


class ResponseDivergences(nn.Module):
    """KL(policy ‖ reference) along each response, in nats.

    It is the sum, over the places of the response's tokens, of the divergence between the two distributions of the next
    token there. Its mean over responses that the policy sampled (at temperature 1 from the whole vocabulary) is an
    unbiased estimate of the divergence between the two distributions of responses (the chain rule of KL; Amini et al.,
    2025), of lower variance than the mean of log π − log π_ref, and never negative. A response that was cut off at a
    token cap counts as far as it goes: the estimate is then of responses under that cap.
    """

    def __init__(self, policy: Model, reference: Model) -> None:
        super().__init__()
        for model in (policy, reference):
            check_head(model)
        if len(output_head(policy).weight) != len(output_head(reference).weight):
            raise UserError("policy and reference have vocabularies of different sizes: there is no KL between them")
        self.policy, self.reference = policy, reference
        shared = [shares_prefix(model) for model in (policy, reference)]
        self.share_prefix = all(shared)
        if not self.share_prefix:
            for model in (policy, reference):
                usual_attention(model)

    def forward(self, batch: PrefixBatch) -> Tensor:
        """[R] float32"""
        ours, theirs = (
            _hidden_states(model, batch, self.share_prefix)[batch.predictors] for model in (self.policy, self.reference)
        )
        divergences = token_divergences(ours, output_head(self.policy), theirs, output_head(self.reference))
        return response_sums(divergences, batch)


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """The model of transformers inside a PEFT wrapper, or the model itself."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def output_head(model: nn.Module) -> Head:
    """The output head of a causal language model, with what its architecture does to the logits."""
    inner = transformers_model(model)
    linear: nn.Module | None = inner.get_output_embeddings()  # type: ignore[no-untyped-call]
    config = inner.config.get_text_config()
    if type(linear) is not nn.Linear:
        raise UserError(
            f"the output head is a {type(linear).__name__}; preflab trains models whose head is a plain linear layer"
        )
    scale = 1.0
    if getattr(config, "logit_scale", None):
        scale = float(config.logit_scale)
    elif getattr(config, "logits_scaling", None):
        scale = 1.0 / float(config.logits_scaling)
    return Head(linear.weight, linear.bias, scale, getattr(config, "final_logit_softcapping", None))


def collator(share_prefix: bool) -> Collate:
    return prefix_batch if share_prefix else separate_batch


def shares_prefix(model: nn.Module) -> bool:
    """Try the model out: true where tree attention gives the hidden states of separate sequences, so that prompts can
    be shared.

    False for recurrent and hybrid layers, attention that does not go through transformers' interface, and sliding
    windows that it does not hear of; a warning says so. Leaves the model's attention set to the implementation that
    fits the answer. What is true on one device and in one precision need not be so in another: try out what will run.
    """
    inner = usual_attention(model)
    with torch.no_grad(), _Evaluating(model):
        device = next(model.parameters()).device
        expected = _hidden_states(model, apart := separate_batch([PROBE]).to(device), False)[apart.predictors]
        try:
            inner.set_attn_implementation(ATTENTION)
            found = _hidden_states(model, shared := prefix_batch([PROBE]).to(device), True)[shared.predictors]
        except (RuntimeError, TypeError, ValueError, AssertionError, LookupError, AttributeError) as error:
            agrees, reason = False, f"{type(error).__name__}: {error}"
        else:
            # Half precision rounds differently in the two layouts; a token that sees what it should not is off by far
            # more.
            tolerance = 1e-3 if expected.dtype.itemsize >= 4 else 5e-2
            agrees = bool((found - expected).abs().max() <= tolerance * expected.abs().max())
            agrees = agrees and _knows_windows(inner.config.get_text_config(), shared.tree)
            reason = "its layers see more of a sequence than they should, or less"
    if not agrees:
        log.warning("%s computes each response apart, about half as fast (%s)", type(inner).__name__, reason)
        usual_attention(model)
    return agrees


def _knows_windows(config: PreTrainedConfig, tree: Tree) -> bool:
    """Whether attention asked for the window of the configuration: one wider than the probe alters no value."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds <= {"full_attention", "sliding_attention"}:
        return False
    return window is None or window in tree.windows or (bool(kinds) and "sliding_attention" not in kinds)


def usual_attention(model: nn.Module) -> PreTrainedModel:
    """Undo the tree's attention, for generation and plain forward passes."""
    inner = transformers_model(model)
    if inner.config._attn_implementation == ATTENTION:
        inner.set_attn_implementation("sdpa" if inner._supports_sdpa else "eager")
    return inner


def position_limit(model: nn.Module) -> int | None:
    """Tokens in the longest sequence that the model was made for, if its configuration says so."""
    limit: int | None = getattr(transformers_model(model).config.get_text_config(), "max_position_embeddings", None)
    return limit


def check_positions(model: nn.Module, longest: int, what_to_set: str) -> None:
    """Refuse sequences of up to `longest` tokens where that is beyond the model's positions: learned ones crash there,
    the others go on without a word to where the model was never trained.

    `what_to_set` ends the message of the UserError: "lower max_length to 1024", say.
    """
    limit = position_limit(model)
    if limit is not None and longest > limit:
        raise UserError(
            f"{longest} tokens is the most, but the model was made for {limit} tokens in all: {what_to_set}"
        )


def check_head(model: nn.Module) -> None:
    """Refuse a causal model whose logits are not those of `output_head`: its log-probabilities would be wrong."""
    inner = usual_attention(model)
    ids = torch.tensor([PROBE.prompt_ids], device=next(model.parameters()).device)
    with torch.no_grad(), _Evaluating(model):
        expected = inner(input_ids=ids, use_cache=False).logits[0]
        found = output_head(model).logits(_backbone(inner)(input_ids=ids, use_cache=False).last_hidden_state[0])
    tolerance = 1e-3 if inner.dtype.itemsize >= 4 else 5e-2
    expected = expected.to(found.dtype)
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())):
        raise UserError(
            f"{type(inner).__name__} changes its logits in a way that preflab does not know: after head, scale and "
            f"soft-cap they differ by up to {float((found - expected).abs().max()):.3g}, so its log-probabilities "
            "would be wrong"
        )


def _hidden_states(model: nn.Module, batch: PrefixBatch, share_prefix: bool) -> Tensor:
    """Last hidden states of the batch's tokens, [T, d]."""
    backbone = _backbone(transformers_model(model))
    if share_prefix:
        assert transformers_model(model).config._attn_implementation == ATTENTION, "usual attention would mix responses"
        inputs: dict[str, Any] = {"tree": batch.tree, "position_ids": batch.position_ids[None]}
        shared: Tensor = backbone(input_ids=batch.input_ids[None], use_cache=False, **inputs).last_hidden_state
        return shared[0]
    tree = batch.tree
    ids = torch.zeros_like(tree.positions).flatten().index_copy(0, tree.slots, batch.input_ids).view_as(tree.positions)
    states: Tensor = backbone(
        input_ids=ids, attention_mask=(tree.segments >= 0).long(), use_cache=False
    ).last_hidden_state
    return states.flatten(0, 1)[tree.slots]


def _backbone(model: PreTrainedModel) -> nn.Module:
    backbone = model.base_model
    assert backbone is not model, f"{type(model).__name__} has no backbone apart from its head"
    return backbone


class _Evaluating:
    """Switches a module to evaluation mode and back."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.training = self.module.training
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        self.module.train(self.training)
