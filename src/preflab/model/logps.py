"""From hidden states to log-probabilities of response tokens: the one place that shifts, gathers and masks.

The output head is the largest matrix product of a small model and its logits the largest tensor, so it runs on the
hidden states that predict response tokens only, in chunks of bounded memory, and its logits are computed again in the
backward pass instead of kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from preflab.model.prefix import PrefixBatch

CHUNK_BYTES = 256 * 2**20
"""Size of the float32 logits that exist at one time."""


@dataclass(frozen=True)
class Head:
    """An output head: logits = cap(scale · (hidden @ weight.T + bias)), where cap(x) = softcap · tanh(x / softcap) if
    there is one.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, d] -> [n, V] in float32, or float64 if `hidden` is; the matrix product runs in the dtype of `hidden`."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        logits = nn.functional.linear(hidden, self.weight.to(hidden.dtype), bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


def token_logps(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Log-probability of each target under softmax(head(hidden)): hidden [N, d], targets [N] -> [N].

    The result is float32, or float64 where `hidden` is.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        # The backward pass, which autocast does not reach, computes the logits again: they must be the forward's.
        hidden = hidden.to(torch.get_autocast_dtype(device))
    logps: Tensor = _TokenLogps.apply(hidden, head.weight, head.bias, targets, head.scale, head.softcap)  # type: ignore[no-untyped-call]
    return logps


def token_divergences(hidden: Tensor, head: Head, other_hidden: Tensor, other_head: Head) -> Tensor:
    """KL(softmax(head(hidden)) ‖ softmax(other_head(other_hidden))) in nats at each of N places: [N, d] twice -> [N].

    Without gradients; the result is float32, or float64 where the hidden states are.
    """
    found = []
    with torch.no_grad():
        for rows in _chunks(len(hidden), 2 * len(head.weight)):
            ours = head.logits(hidden[rows]).log_softmax(dim=-1)
            theirs = other_head.logits(other_hidden[rows]).log_softmax(dim=-1)
            found.append((ours.exp() * (ours - theirs)).sum(dim=-1))
    return torch.cat(found)


def response_sums(token_values: Tensor, batch: PrefixBatch) -> Tensor:
    """Sum per-token values over each response: [N] -> [R]."""
    return token_values.new_zeros(len(batch.ends)).index_add(0, batch.owners, token_values)


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        # In the products' precision once, not for every chunk again.
        head = Head(weight.to(hidden.dtype), bias, scale, softcap)
        chosen, norm = [], []
        for rows in _chunks(len(hidden), len(weight)):
            logits = head.logits(hidden[rows])
            norm.append(logits.logsumexp(dim=-1))
            chosen.append(logits.gather(1, targets[rows, None])[:, 0])
        log_norm = torch.cat(norm)
        ctx.save_for_backward(hidden, weight, bias, targets, log_norm)
        ctx.scale, ctx.softcap = scale, softcap
        return torch.cat(chosen) - log_norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_norm = ctx.saved_tensors
        head = Head(weight.to(hidden.dtype), bias, ctx.scale, ctx.softcap)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        # Summed over chunks in the weight's own precision, also where the products run in a lower one.
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if needs_bias else None
        for rows in _chunks(len(hidden), len(weight)):
            grad = _grad_logits(head.logits(hidden[rows]), targets[rows], log_norm[rows], grads[0][rows], head)
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0).to(grad_bias.dtype)
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, head.weight, out=grad_hidden[rows])
            if grad_weight is not None and grad_weight.dtype == grad.dtype:
                grad_weight.addmm_(grad.T, hidden[rows])
            elif grad_weight is not None:
                grad_weight += grad.T @ hidden[rows]
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _grad_logits(logits: Tensor, targets: Tensor, log_norm: Tensor, grad: Tensor, head: Head) -> Tensor:
    """Gradient of Σ grad·(logits[target] − log_norm) by the head's raw product, in place: grad·(onehot − softmax), back
    through cap, scale.
    """
    slope = None if head.softcap is None else 1 - (logits / head.softcap).square()
    logits.sub_(log_norm[:, None]).exp_().mul_(-grad[:, None])
    logits.scatter_add_(1, targets[:, None], grad[:, None].to(logits.dtype))
    if slope is not None:
        logits.mul_(slope)
    return logits.mul_(head.scale) if head.scale != 1.0 else logits


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
