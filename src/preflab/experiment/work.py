"""What a stage makes a device do, and how long that takes: forward and backward passes, decoding, reading and writing.

Time is the sum of: operations over the measured speed of a product of the model's own shape; numbers moved over the
measured bandwidth, for all that is no product (norms, gates, softmax, the optimizer); and a constant for each layer of
each pass, which is all there is to a model as small as the sandbox's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from preflab.experiment.sizes import ModelSize
from preflab.experiment.speed import Machine
from preflab.model.logps import CHUNK_BYTES

EFFICIENCY = 0.7
"""Of the speed of a lone product, what is left in a model, whose products wait for attention and for each other."""

LAYER_SECONDS = 4e-4  # that the parts of a layer take to be started in a forward pass; three times that to train
PASS_SECONDS = 1e-3  # the same of what stands around the layers
STAGE_SECONDS = 2.0  # to open a stage: data, tokens, figures
WEIGHTS_PER_SECOND = 1e8  # parameters that are read, hashed, and written: about 0.4 GB/s
ADAM_BYTES = 40  # moved for each trained parameter in an optimizer step: weight, gradient, two moments, clipping
STATE_BYTES = 16  # kept for each trained parameter: weight, gradient, two moments in float32
SAMPLING_BYTES = 80  # moved for each word of the vocabulary and each sequence when a token is chosen
NUMBER_BYTES = 4


@dataclass(frozen=True)
class Need:
    """What a stage needs; None is what cannot be known, and a note says why.

    Attributes:
        tokens: that go through a model forwards and backwards, or are generated, or scored.
        seconds: by this computer's own speed.
        memory: bytes at the peak.
        calls: of an endpoint.
        notes: how it was found, and what it takes for granted.
    """

    tokens: float | None
    seconds: float | None
    memory: int | None
    calls: int = 0
    notes: tuple[str, ...] = ()

    def __add__(self, other: Need) -> Need:
        """Both, one after the other: what is unknown of one is unknown of both."""
        memories = (self.memory, other.memory)
        return Need(
            tokens=None if self.tokens is None or other.tokens is None else self.tokens + other.tokens,
            seconds=None if self.seconds is None or other.seconds is None else self.seconds + other.seconds,
            memory=None if None in memories else max(filter(None, memories), default=0),
            calls=self.calls + other.calls,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )


@dataclass(frozen=True)
class Tokens:
    """Tokens that go through a model: `scored` of them meet the output head, in `passes` passes."""

    total: float
    scored: float
    passes: float

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.total + other.total, self.scored + other.scored, self.passes + other.passes)


def forward_seconds(size: ModelSize, tokens: Tokens, machine: Machine) -> float:
    """2 operations for each parameter that a token meets."""
    return _passes_seconds(size, tokens, machine, body=2, head=2, moved=1)


def training_seconds(
    size: ModelSize, tokens: Tokens, steps: int, machine: Machine, *, trained: int, checkpointing: bool
) -> float:
    """6 operations for each parameter, 4 where the base is frozen; of the head 2 more, as its logits are computed
    again; 2 more where all activations are.
    """
    frozen = trained < size.total
    body = (4 if frozen else 6) + (2 if checkpointing else 0)
    passes = _passes_seconds(size, tokens, machine, body=body, head=6 if frozen else 8, moved=3)
    return passes + steps * trained * ADAM_BYTES / machine.bandwidth()


def _passes_seconds(size: ModelSize, tokens: Tokens, machine: Machine, *, body: int, head: int, moved: int) -> float:
    if not tokens.total:
        return 0.0
    speed = EFFICIENCY * machine.flops(tokens.total / tokens.passes, size.hidden, size.intermediate)
    operations = body * size.body * tokens.total + head * size.head * tokens.scored
    numbers = 2 * size.activations() * tokens.total + 2 * size.vocabulary * tokens.scored
    starts = moved * tokens.passes * (PASS_SECONDS + LAYER_SECONDS * size.layers)
    return operations / speed + moved * numbers * NUMBER_BYTES / machine.bandwidth() + starts


def decoding_seconds(
    size: ModelSize, machine: Machine, *, sequences: float, prompt: float, new: float, batch: int
) -> float:
    """Sequences of `new` tokens, `batch` at once. For each token all weights are read, or multiplied, whichever takes
    longer; so is what is kept of the tokens before.
    """
    at_once = min(batch, sequences)
    batches = math.ceil(sequences / batch)
    weights = (size.body + size.head) * machine.number_bytes
    speed = EFFICIENCY * machine.flops(at_once, size.hidden, size.intermediate)
    products = 2 * (size.body + size.head) * at_once / speed
    kept = at_once * (prompt + new / 2) * size.kept * machine.number_bytes
    chosen = at_once * size.vocabulary * SAMPLING_BYTES
    # A copy reads and writes; weights are only read.
    moved = (kept + chosen) / machine.bandwidth() + max(products, weights / (2 * machine.bandwidth()))
    token = moved + PASS_SECONDS + LAYER_SECONDS * size.layers
    prompts = forward_seconds(size, Tokens(sequences * prompt, sequences, batches), machine)
    return prompts + batches * new * token


def loading_seconds(size: ModelSize, *, times: float = 1) -> float:
    return times * size.total / WEIGHTS_PER_SECOND


def training_bytes(size: ModelSize, *, tokens: float, trained: int, checkpointing: bool, frozen_bytes: int) -> int:
    """Weights, gradients, moments, activations of the largest pass, and a chunk of logits with its gradient."""
    frozen = size.total * frozen_bytes if trained < size.total else 0
    per_layer = size.activations() / size.layers
    kept = per_layer + size.layers * size.hidden if checkpointing else size.activations()
    logits = 3 * min(CHUNK_BYTES, tokens * size.vocabulary * NUMBER_BYTES)
    return int(frozen + trained * STATE_BYTES + tokens * kept * NUMBER_BYTES + logits)


def forward_bytes(size: ModelSize, machine: Machine, *, tokens: float, sequences: float = 0) -> int:
    """Weights, what is kept of the tokens, and, where `sequences` are sampled, their probabilities in float64."""
    kept = tokens * (size.kept + 2 * (4 * size.hidden + 2 * size.intermediate)) * machine.number_bytes
    return int(size.total * machine.number_bytes + kept + 3 * sequences * size.vocabulary * 8)
