"""Rows and prompts that two sources share, told by their text: a leak where one of them is held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preflab.core.records import Comparison, Message

Hashes = NDArray[np.int64]


def prompt_hash(prompt: Iterable[Message]) -> int:
    """64 bits, signed, of a prompt's roles and words; how they are spaced does not count, nor do blanks at the ends."""
    return _number(text_hash(part for message in prompt for part in (message.role, _words(message.content))))


def row_hash(comparison: Comparison) -> int:
    """64 bits, signed, of a prompt and its responses, whichever of these was preferred."""
    return _number(text_hash([str(prompt_hash(comparison.prompt)), *sorted(map(_words, comparison.responses))]))


def _words(text: str) -> str:
    return " ".join(text.split())


def text_hash(parts: Iterable[str | bytes]) -> bytes:
    """64 bits of texts and where each ends: among a million different ones, two alike are to be expected once in some
    forty million files.
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True)
class Overlap:
    """How many held-out rows, and how many different held-out prompts, are also trained on, and of how many."""

    rows: int
    prompts: int
    held_out_rows: int
    held_out_prompts: int

    def __str__(self) -> str:
        return (
            f"{self.prompts} of {self.held_out_prompts} held-out prompts, and {self.rows} of {self.held_out_rows} "
            "held-out rows, are also trained on"
        )

    def to_json(self) -> dict[str, int]:
        """The four counts by name."""
        return {
            "rows": self.rows,
            "prompts": self.prompts,
            "held_out_rows": self.held_out_rows,
            "held_out_prompts": self.held_out_prompts,
        }


def overlap(training: tuple[Hashes, Hashes], held_out: tuple[Hashes, Hashes]) -> Overlap:
    """Of two sides, each as the hashes of its rows' prompts and of its rows."""
    prompts = np.unique(held_out[0])
    return Overlap(
        rows=int(np.isin(held_out[1], training[1]).sum()),
        prompts=int(np.isin(prompts, training[0]).sum()),
        held_out_rows=len(held_out[1]),
        held_out_prompts=len(prompts),
    )


@dataclass
class LengthBias:
    """How often the better response of a pair is the longer one, in the unit in which lengths are added."""

    pairs: int = 0
    longer: int = 0

    def add(self, better: int, worse: int) -> None:
        self.pairs += 1
        self.longer += better > worse

    def add_row(self, comparison: Comparison) -> None:
        """The best response of a row and its worst, in characters."""
        if len(comparison.responses) > 1:
            self.add(len(comparison.responses[0]), len(comparison.responses[-1]))

    @property
    def share(self) -> float | None:
        return self.longer / self.pairs if self.pairs else None


def what_drops_did(dropped: int, rows: int, before: LengthBias, after: LengthBias, unit: str) -> str:
    """In words, what leaving out too long rows does to the data; nothing where it does little."""
    share = dropped / rows if rows else 0.0
    turned = 0.0 if before.share is None or after.share is None else abs(before.share - after.share)
    if not dropped or (share < _MANY and turned < _TURNED):
        return ""
    text = f"{dropped} of {rows} rows ({share:.0%}) are left out because they are too long"
    if before.share is not None and after.share is not None:
        text += (
            f"; the preferred response is the longer one (in {unit}) in {before.share:.0%} of pairs before, and in "
            f"{after.share:.0%} of those that are left"
        )
    return text


_MANY, _TURNED = 0.05, 0.05


def json_counts(bias: LengthBias) -> dict[str, Any]:
    """A count as it is kept in a file."""
    return {"pairs": bias.pairs, "longer": bias.longer}
