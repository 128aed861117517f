"""The sandbox world: streams of prompts, demonstrations and noisily labelled preferences whose truth is known.

Annotators see a utility u, the gold reward plus `length_bias` for every ten words, and choose by Bradley-Terry:
P(a over b) = sigmoid((u_a - u_b) / noise). So the best accuracy that any reward model can reach on their labels is
known. Every stream is a function of its world, split and kind alone; a shorter one is the beginning of a longer one. A
prompt's own text decides the split it belongs to, so training and held-out prompts are disjoint for all seeds, and
alike in everything else.
"""

from __future__ import annotations

import difflib
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any, Literal

from preflab.core.records import UserError
from preflab.sandbox.gold import gold_reward, is_safe, words_of
from preflab.sandbox.grammar import Question, draw_plan, draw_question, write_prompt, write_response

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
MOST_ROWS = 1_000_000  # the grammar has fewer things to say
HELD_OUT_PART = 5  # one prompt in five is held out
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """Who labels, and how: `noise` is the Bradley-Terry temperature (0 = always the higher utility), `length_bias` the
    utility that annotators see in every ten words."""

    seed: int = 0
    noise: float = 0.5
    length_bias: float = 0.0

    def __post_init__(self) -> None:
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise UserError(f"sandbox: noise is {self.noise}; it must be 0 or more")
        if not math.isfinite(self.length_bias):
            raise UserError(f"sandbox: length_bias is {self.length_bias}; it must be a finite number")


@dataclass(frozen=True, slots=True)
class Judged:
    """Responses to a prompt in the order in which annotators saw them, and their ranking: indices, best first."""

    category: str
    prompt: str
    responses: tuple[str, ...]
    gold: tuple[float, ...]
    utility: tuple[float, ...]
    ranking: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelAccuracies:
    """How often the labels of `pairs` pairs are met: by the best possible scorer on average (`bayes`), and on these
    very labels by the order of the utilities, of the gold rewards, and by "the longer one wins" (ties count half)."""

    bayes: float
    utility_order: float
    gold_order: float
    longer: float
    pairs: int


def preference_probability(utility_a: float, utility_b: float, noise: float) -> float:
    """P(a is preferred to b), by Bradley and Terry (1952)."""
    if noise == 0 or utility_a == utility_b:
        return 0.5 + 0.5 * ((utility_a > utility_b) - (utility_a < utility_b))
    return 0.5 + 0.5 * math.tanh((utility_a - utility_b) / noise / 2)


def judged(world: World, *, rows: int, split: Split, responses: int = 2) -> Iterator[Judged]:
    """`rows` prompts, each with `responses` different responses that the world's annotators ranked.

    Rankings follow Plackett-Luce, which is Bradley-Terry for each two of them.
    """
    rng = _stream(world, "preferences", split)
    for _ in range(rows):
        question, prompt = _draw_prompt(rng, split)
        texts: dict[str, None] = {}  # a dict, because a set would forget the order
        while len(texts) < responses:
            texts[write_response(rng, question, draw_plan(rng, question))] = None
        gold = tuple(gold_reward(prompt, text) for text in texts)
        utility = tuple(
            round(reward + world.length_bias * len(words_of(text)) / 10, 4)
            for reward, text in zip(gold, texts, strict=True)
        )
        ranking = _rank(rng, utility, world.noise)
        yield Judged(question.category, prompt, tuple(texts), gold, utility, ranking)


def preference_rows(
    world: World, *, rows: int, split: Split, style: str = "HOMEWORK", responses: int = 2
) -> Iterator[Row]:
    """Preference rows written in one of `STYLES`; all styles write the same judgements.

    Each row also has `category`, and `gold` and `utility` in the order in which its own style lists the responses.
    """
    write = STYLES[known(style, STYLES, "style")]
    if responses < 2 or (responses > 2 and style != "RANKED"):
        raise UserError(f"sandbox: style {style} with {responses} responses; two, or three and more with style RANKED")
    return (write(drawn) for drawn in judged(world, rows=rows, split=split, responses=responses))


def demonstration_rows(world: World, *, rows: int, split: Split) -> Iterator[Row]:
    """Prompts with one response of any quality, good and bad alike: what the base model learns its language from."""
    rng = _stream(world, "demonstrations", split)
    for _ in range(rows):
        question, prompt = _draw_prompt(rng, split)
        completion = write_response(rng, question, draw_plan(rng, question))
        yield {
            "prompt": prompt,
            "completion": completion,
            "category": question.category,
            "gold": gold_reward(prompt, completion),
        }


def prompt_rows(world: World, *, rows: int, split: Split) -> Iterator[Row]:
    """Prompts alone, to generate from."""
    rng = _stream(world, "prompts", split)
    for _ in range(rows):
        question, prompt = _draw_prompt(rng, split)
        yield {"prompt": prompt, "category": question.category}


def label_accuracies(world: World, *, rows: int, split: Split) -> LabelAccuracies:
    """What can be reached on the labels of `preference_rows` with the same arguments."""
    bayes = by_utility = by_gold = by_length = 0.0
    pairs = 0
    for drawn in judged(world, rows=rows, split=split):
        for better, worse in combinations(drawn.ranking, 2):
            lengths = [len(words_of(text)) for text in drawn.responses]
            probability = preference_probability(drawn.utility[better], drawn.utility[worse], world.noise)
            bayes += max(probability, 1 - probability)
            by_utility += preference_probability(drawn.utility[better], drawn.utility[worse], 0)
            by_gold += preference_probability(drawn.gold[better], drawn.gold[worse], 0)
            by_length += preference_probability(lengths[better], lengths[worse], 0)
            pairs += 1
    if not pairs:
        raise UserError("sandbox: no rows to take an accuracy of")
    return LabelAccuracies(bayes / pairs, by_utility / pairs, by_gold / pairs, by_length / pairs, pairs)


def _stream(world: World, kind: str, split: Split) -> Random:
    return Random(f"{kind} {known(split, SPLITS, 'split')} {world.seed}")


def _draw_prompt(rng: Random, split: Split) -> tuple[Question, str]:
    while True:
        question = draw_question(rng)
        prompt = write_prompt(rng, question)
        if split_of(prompt) == split:
            return question, prompt


def split_of(prompt: str) -> Split:
    return "test" if zlib.crc32(prompt.encode()) % HELD_OUT_PART == 0 else "train"


def _rank(rng: Random, utility: Iterable[float], noise: float) -> tuple[int, ...]:
    """A ranking drawn from Plackett-Luce by Gumbel noise on the utilities (Yellott 1977); without noise, equal ones are
    ranked by chance."""
    keys = [(value - noise * math.log(rng.expovariate(1.0) or 1e-300), rng.random()) for value in utility]
    return tuple(sorted(range(len(keys)), key=keys.__getitem__, reverse=True))


def known(name: str, names: Iterable[str], what: str) -> str:
    """The name itself where it is one of `names`; else an error that suggests the nearest."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "it can be " + ", ".join(names)
    raise UserError(f"sandbox: unknown {what} {name!r}; {hint}")


def _extras(drawn: Judged, order: Iterable[int]) -> Row:
    order = tuple(order)
    return {
        "category": drawn.category,
        "gold": [drawn.gold[i] for i in order],
        "utility": [drawn.utility[i] for i in order],
    }


def _homework(drawn: Judged) -> Row:
    first, second = drawn.responses
    row = {
        "question": drawn.prompt,
        "response_1": first,
        "response_2": second,
        "overall_response": drawn.ranking[0] + 1,
    }
    return row | _extras(drawn, (0, 1))


def _pku(drawn: Judged) -> Row:
    first, second = drawn.responses
    better = drawn.ranking[0]
    safe = [is_safe(text) for text in drawn.responses]
    row = {
        "prompt": drawn.prompt,
        "response_0": first,
        "response_1": second,
        "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1],
        "better_response_id": better,
        "safer_response_id": better if safe[0] == safe[1] else safe.index(True),
    }
    return row | _extras(drawn, (0, 1))


def _hh(drawn: Judged) -> Row:
    chosen, rejected = (f"\n\nHuman: {drawn.prompt}\n\nAssistant: {drawn.responses[index]}" for index in drawn.ranking)
    return {"chosen": chosen, "rejected": rejected} | _extras(drawn, drawn.ranking)


def _trl(drawn: Judged) -> Row:
    chosen, rejected = (drawn.responses[index] for index in drawn.ranking)
    return {"prompt": drawn.prompt, "chosen": chosen, "rejected": rejected} | _extras(drawn, drawn.ranking)


def _ranked(drawn: Judged) -> Row:
    """Best first."""
    responses = [drawn.responses[index] for index in drawn.ranking]
    return {"prompt": drawn.prompt, "responses": responses} | _extras(drawn, drawn.ranking)


STYLES: dict[str, Callable[[Judged], Row]] = {
    "HOMEWORK": _homework,
    "PKU": _pku,
    "HH": _hh,
    "TRL": _trl,
    "RANKED": _ranked,
}
