"""Chunked log-probabilities against log_softmax and autograd, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from preflab.core.records import TokenizedComparison
from preflab.model import logps
from preflab.model.logps import Head, response_sums, token_logps
from preflab.model.prefix import prefix_batch

ROWS, WIDTH, VOCABULARY = 11, 6, 17
HEADS = {
    "plain": {},
    "scaled": {"scale": 0.25},
    "capped": {"softcap": 2.0},
    "scaled and capped": {"scale": 1.5, "softcap": 3.0},
}


@pytest.fixture(params=[1, 3, 100], ids=lambda rows: f"chunks of {rows}")
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one row, of three (the last one is smaller), and one chunk for all."""
    monkeypatch.setattr(logps, "CHUNK_BYTES", request.param * 4 * VOCABULARY)


def inputs(dtype: torch.dtype, *, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """hidden, weight, bias, targets; the logits spread over about ±8."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return (1.8 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()

    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    return random(ROWS, WIDTH), random(VOCABULARY, WIDTH), random(VOCABULARY) if bias else None, targets


def textbook(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = logits * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    return logits.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_log_softmax(options: dict[str, float], bias: bool) -> None:
    hidden, weight, offset, targets = inputs(torch.float64, bias=bias)
    wanted = [tensor for tensor in (hidden, weight, offset) if tensor is not None]
    head = Head(weight, offset, **options)
    upstream = torch.linspace(-1.0, 2.0, ROWS, dtype=torch.float64)
    found, expected = token_logps(hidden, head, targets), textbook(hidden, head, targets)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((found * upstream).sum(), wanted)
    theirs = torch.autograd.grad((expected * upstream).sum(), wanted)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_gradcheck(options: dict[str, float]) -> None:
    hidden, weight, offset, targets = inputs(torch.float64)
    assert offset is not None
    assert torch.autograd.gradcheck(
        lambda h, w, b: token_logps(h, Head(w, b, **options), targets), (hidden, weight, offset)
    )


@pytest.mark.usefixtures("_chunks")
def test_bfloat16_is_as_near_as_its_rounding_allows() -> None:
    hidden, weight, offset, targets = inputs(torch.bfloat16)
    assert offset is not None
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight, offset)]
    found = token_logps(hidden, Head(weight, offset), targets)
    expected = textbook(exact[0], Head(exact[1], exact[2]), targets)
    assert found.dtype == torch.float32
    # The logits of target and normaliser are each rounded to 8 bits.
    largest = float((exact[0] @ exact[1].T + exact[2]).detach().abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2 * 2**-8 * largest)
    ours = torch.autograd.grad(found.sum(), (hidden, weight, offset))
    theirs = torch.autograd.grad(expected.sum(), exact)
    for own, other in zip(ours, theirs, strict=True):
        assert own.dtype == torch.bfloat16
        assert float((own.double() - other).norm() / other.norm()) < 3e-2


@pytest.mark.usefixtures("_chunks")
def test_autocast_takes_the_same_logits_backwards_as_forwards() -> None:
    """Σ over the vocabulary of the logits' gradient is zero, unless the softmax was normalised with other logits."""
    hidden, weight, offset, targets = inputs(torch.float32)
    assert offset is not None
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logps(hidden, Head(weight, offset), targets)
    assert found.dtype == torch.float32
    assert found.detach().ne(textbook(hidden, Head(weight, offset), targets)).any(), "autocast did not take part"
    grads = torch.autograd.grad(found.sum(), (hidden, weight, offset))
    assert [grad.dtype for grad in grads] == [torch.float32] * 3
    assert abs(float(grads[2].sum())) < 1e-5 * ROWS


def test_only_what_needs_a_gradient_gets_one() -> None:
    hidden, weight, offset, targets = inputs(torch.float32)
    assert offset is not None
    frozen = Head(weight.detach(), offset.detach())
    token_logps(hidden, frozen, targets).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None
    adapted = hidden.detach()
    token_logps(adapted, Head(weight, offset), targets).sum().backward()
    assert weight.grad is not None
    assert adapted.grad is None


def test_large_logits_stay_finite() -> None:
    hidden, weight, offset, targets = inputs(torch.float32)
    found = token_logps(hidden * 1e4, Head(weight, offset), targets)
    assert found.isfinite().all()
    assert torch.autograd.grad(found.sum(), hidden)[0].isfinite().all()


def test_logits_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = Head.logits

    def watched(self: Head, hidden: Tensor) -> Tensor:
        logits = original(self, hidden)
        sizes.append(logits.numel() * 4)
        return logits

    monkeypatch.setattr(Head, "logits", watched)
    monkeypatch.setattr(logps, "CHUNK_BYTES", 200)
    hidden, weight, offset, targets = inputs(torch.float32)
    token_logps(hidden, Head(weight, offset), targets).sum().backward()
    assert max(sizes) <= 200
    assert len(sizes) == 2 * -(-ROWS // 2), "17 · 4 bytes a row: two rows a chunk, forwards and backwards"


def test_the_weight_changes_its_precision_once_in_each_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Head.logits

    def watched(self: Head, hidden: Tensor) -> Tensor:
        seen.append(self.weight)
        return original(self, hidden)

    monkeypatch.setattr(Head, "logits", watched)
    monkeypatch.setattr(logps, "CHUNK_BYTES", 4 * VOCABULARY)
    hidden, weight, offset, targets = inputs(torch.float32)
    found = token_logps(hidden.bfloat16(), Head(weight, offset), targets)
    assert len(seen) == ROWS
    assert len({id(tensor) for tensor in seen}) == 1
    assert seen[0].dtype == torch.bfloat16
    found.sum().backward()
    assert len(seen) == 2 * ROWS
    assert len({id(tensor) for tensor in seen[ROWS:]}) == 1
    assert seen[-1].dtype == torch.bfloat16
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_a_second_derivative_is_refused() -> None:
    hidden, weight, offset, targets = inputs(torch.float64)
    found = token_logps(hidden, Head(weight, offset), targets)
    (first,) = torch.autograd.grad(found.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_sums_over_responses() -> None:
    batch = prefix_batch(
        [TokenizedComparison((1,), ((2, 3), (4,))), TokenizedComparison((1, 1), ((5,), (6, 7, 8)))],
    )
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], requires_grad=True)
    sums = response_sums(values, batch)
    assert sums.tolist() == [3.0, 4.0, 8.0, 112.0]
    (sums * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 1, 2, 3, 4, 4, 4]
