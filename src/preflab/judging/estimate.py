"""What judging would take, before anything is asked: judgements, tokens and, where prices are known, money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from preflab.judging.run import Work

PRICES: Mapping[str, tuple[float, float]] = {
    "gpt-4o": (2.50, 10.00),
    "gpt-4o-mini": (0.15, 0.60),
}
"""US dollars per million tokens of input and of output, as OpenAI listed them in January 2025."""
PRICES_FROM = "list prices of January 2025"

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Cost:
    """What there is to do. `output_tokens` is the most that the replies can have; `price` is in US dollars, at most.

    Attributes:
        judgements: that the file will have.
        known: of these, made before, or a tie of identical responses.
        cached: of these, read from the cache.
        calls: what is left to ask for.
        input_tokens: of all calls; `counted` says how they were counted.
        price: None where prices are not known; `price_from` says where they are from.
    """

    judgements: int
    known: int
    cached: int
    calls: int
    input_tokens: int
    output_tokens: int
    counted: str
    price: float | None = None
    price_from: str = ""

    def __str__(self) -> str:
        lines = [
            f"judgements     {self.judgements}",
            f"  known        {self.known} (judged before, or the two responses are the same)",
            f"  from cache   {self.cached}",
            f"  to ask for   {self.calls}",
            f"input tokens   {self.input_tokens} ({self.counted})",
            f"output tokens  {self.output_tokens} at most",
        ]
        if self.price is not None:
            lines.append(f"price          ${self.price:.2f} at most ({self.price_from}); calls that fail can add to it")
        return "\n".join([*lines, "nothing was asked (dry run)"])


def estimate_cost(
    work: Work,
    *,
    max_tokens: int,
    prices: tuple[float, float] | None,
    price_from: str,
    count: Callable[[str], int | None],
) -> Cost:
    """The cost of what is waiting; where `count` does not know, tokens are guessed from the length of the prompts.

    prices: US dollars per million tokens of input and of output.
    """
    prompts = list(work.waiting)
    known_tokens = [tokens for prompt in prompts if (tokens := count(prompt)) is not None]
    if len(known_tokens) == len(prompts):
        tokens, counted = sum(known_tokens), "counted with the judge's tokenizer"
    else:
        characters = sum(map(len, prompts))
        tokens, counted = -(-characters // CHARACTERS_PER_TOKEN), f"guessed: {CHARACTERS_PER_TOKEN} characters each"
    output = max_tokens * len(prompts)
    price = (tokens * prices[0] + output * prices[1]) / 1e6 if prices else None
    known = len(work.settled) - work.cached
    return Cost(
        len(work.wanted), known, work.cached, len(prompts), tokens, output, counted, price, price_from if prices else ""
    )
