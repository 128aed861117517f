"""How varied texts are: distinct n-grams, repetition within a text."""

from __future__ import annotations

from collections.abc import Sequence

REPEATED_RUN = 4  # words


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order; none where there are fewer words."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams / n-grams over all texts (each a list of words), after Li et al. (2016), in [0, 1].

    It falls as text grows, because common words come again: compare models on the same prompts only, and where one
    writes longer answers, expect it to be lower for that alone. Texts with no n-gram at all give 0.
    """
    grams = [gram for tokens in texts for gram in ngrams(tokens, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(tokens: Sequence[str]) -> float:
    """Share of a text's four-word runs that stood in it before, in [0, 1); 0 for a text of fewer words."""
    runs = ngrams(tokens, REPEATED_RUN)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
