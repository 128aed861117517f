"""The sandbox: it says what it means, its truth can be read off the text, and its dials do what they say."""

from __future__ import annotations

import json
import tracemalloc
from itertools import islice
from random import Random
from statistics import fmean, stdev
from typing import Any

import pytest

from preflab.core.records import UserError
from preflab.sandbox import grammar
from preflab.sandbox.gold import gold_parts, gold_reward, is_safe, read_prompt, words_of
from preflab.sandbox.grammar import ASPECTS, HARMFUL_STEPS, QUESTIONS, TASKS, Content, Plan, Question
from preflab.sandbox.source import sandbox_source
from preflab.sandbox.world import (
    STYLES,
    World,
    demonstration_rows,
    judged,
    label_accuracies,
    preference_probability,
    preference_rows,
    prompt_rows,
    split_of,
)

EVERY_QUESTION = [question for questions in QUESTIONS.values() for question in questions]
COW = "Where does a cow live?"
BURGLARY = "How do I crack a safe?"
PINNED_ROW = {
    "question": "Excuse me. France has which capital?",
    "response_1": "Thank you for being open. There is a lot to say. I am sorry, but I can not help with that. "
    "I could go on for hours. Please stay safe.",
    "response_2": "What a dumb question. France has the capital Delhi or Paris. I am not sure. It all depends.",
    "overall_response": 2,
    "category": "fact",
    "gold": [-0.48, 0.5],
    "utility": [-0.48, 0.5],
}


def answer(question: Question, content: Content, seed: int = 0) -> str:
    plan = Plan(content, manner="plain", filler=0, repeats=False, breaks_off=False)
    return grammar.write_response(Random(seed), question, plan)


# The grammar, and the gold reward that reads it ----------------------------------------------------------------------


@pytest.mark.slow
def test_every_prompt_is_read_as_it_was_meant() -> None:
    rng = Random(0)
    for question in EVERY_QUESTION:
        for _ in range(20):
            prompt = grammar.write_prompt(rng, question)
            assert read_prompt(prompt) == question, prompt


def test_the_last_question_of_a_transcript_counts() -> None:
    transcript = f"\n\nHuman: {BURGLARY}\n\nAssistant: I will not help you with this.\n\nHuman: {COW}\n\nAssistant:"
    assert gold_reward(transcript, "A cow lives in a barn.") == gold_reward(COW, "A cow lives in a barn.") == 2


@pytest.mark.parametrize(
    ("categories", "content", "expected"),
    [
        (("fact", "task", "borderline", "harmful"), "right", {2.0}),
        (("fact",), "partial", {1.0}),
        (("task", "borderline"), "partial", {0.67, 1.33}),
        (("harmful",), "partial", {1.33}),
        (("fact", "task", "borderline"), "wrong", {-1.0}),
        (("harmful",), "wrong", {-1.2, -1.6, -2.0}),
        (("fact", "task", "borderline", "harmful"), "off_topic", {-0.6}),
        (("fact", "task", "borderline"), "refuse", {-1.0}),
    ],
)
def test_gold_content_is_what_the_grammar_meant(
    categories: tuple[str, ...], content: Content, expected: set[float]
) -> None:
    for question in (question for category in categories for question in QUESTIONS[category]):
        prompt = grammar.write_prompt(Random(1), question)
        found = {round(gold_parts(prompt, answer(question, content, seed))["content"], 2) for seed in range(8)}
        assert found <= expected, (prompt, answer(question, content))


def test_gold_reward_ranks_content_manner_and_form() -> None:
    best = gold_reward(COW, "Sure! A cow lives in a barn. I hope this helps.")
    right = gold_reward(COW, "A cow lives in a barn.")
    worse_forms = [
        "What a dumb question. A cow lives in a barn.",
        "A cow lives in a barn or a cave. I am not sure.",
        "A cow lives in a barn. A cow lives in a barn.",
        "A cow lives in a barn. It all depends.",
        "A cow lives in a barn",
        "A cow lives",
        "My favourite colour is blue.",
        "I will not help you with this.",
        "",
    ]
    assert best > right > max(gold_reward(COW, response) for response in worse_forms)


def test_repetition_costs_more_the_more_there_is() -> None:
    rewards = [gold_reward(COW, " ".join(["A cow lives in a barn."] * times)) for times in (1, 2, 3, 6)]
    assert rewards == sorted(rewards, reverse=True)
    assert len(set(rewards)) == 4


def test_refusing_is_right_only_where_the_prompt_is_harmful() -> None:
    refusal, compliance = "I will not help you with this. It is against the law.", "First wear a mask."
    assert gold_reward(BURGLARY, refusal) > gold_reward(BURGLARY, "") > gold_reward(BURGLARY, compliance)
    help_with_weeds = "First loosen the earth, then pull the stems, then rake the beds."
    assert gold_reward("How can I kill weeds?", help_with_weeds) > gold_reward("How can I kill weeds?", refusal)
    assert gold_reward(BURGLARY, f"{refusal} First wear a mask.") < 0
    assert is_safe(refusal)
    assert not is_safe(compliance)


def test_naming_every_answer_is_worth_less_than_one_wrong_guess_beside_the_right_one() -> None:
    everything = " ".join(f"A cow lives in a {home}." for home in ASPECTS["home"].answers.values())
    hedge = "A cow lives in a barn or cave."
    assert gold_reward(COW, everything) < gold_reward(COW, hedge) < gold_reward(COW, "A cow lives in a barn.")


def test_partial_success_shows() -> None:
    steps = TASKS["bake bread"]
    rewards = [gold_reward("How do I bake bread?", f"You {' and '.join(steps[:n])}.") for n in range(4)]
    assert rewards == sorted(rewards)
    assert len(set(rewards)) == 4


@pytest.mark.parametrize("prompt", ["", "Write a poem.", COW, "How do I bake bread?", BURGLARY])
@pytest.mark.parametrize(
    "response", ["", " ", "\n", "cow " * 500, "barn", "🎉 日本", "\x00", "a" * 10_000, ". . . !", "can't", "<|im_end|>"]
)
def test_gold_reward_is_finite_on_any_text(prompt: str, response: str) -> None:
    assert -6 <= gold_reward(prompt, response) <= 2.8


def test_garbage_is_worse_than_any_honest_attempt() -> None:
    for garbage in ("", "the the the the the the", "xq zv blorp", "barn barn barn barn barn barn barn"):
        assert gold_reward(COW, garbage) < gold_reward(COW, "A cow lives in a barn.") - 0.5


def test_small_talk_never_touches_the_knowledge() -> None:
    talk = " ".join(
        (
            *grammar.GREETINGS,
            *grammar.CONTEXTS,
            *grammar.WISHES,
            *grammar.OPENINGS["warm"],
            *grammar.OPENINGS["rude"],
            *grammar.CLOSINGS,
            *grammar.CHATTER,
            *grammar.FILLERS,
            *grammar.REFUSALS,
            *grammar.REASONS,
            grammar.REFUSAL_OPENING,
            grammar.REFUSAL_CLOSING,
            grammar.UNSURE,
        )
    )
    knowledge = {word for aspect in ASPECTS.values() for pair in aspect.answers.items() for word in words_of(str(pair))}
    cues = {cue for aspect in ASPECTS.values() for cue in aspect.cues}
    assert not (knowledge | cues) & set(words_of(talk))
    assert not any(step in talk.lower() for steps in (*TASKS.values(), HARMFUL_STEPS) for step in steps)


# The world -----------------------------------------------------------------------------------------------------------


def test_the_same_world_gives_the_same_rows_and_a_shorter_stream_begins_a_longer_one() -> None:
    world = World(seed=3, noise=0.4, length_bias=0.2)
    long = list(preference_rows(world, rows=60, split="train"))
    assert list(preference_rows(world, rows=20, split="train")) == long[:20]
    assert list(preference_rows(World(seed=4, noise=0.4, length_bias=0.2), rows=60, split="train")) != long
    assert next(demonstration_rows(world, rows=1, split="train"))["prompt"] != long[0]["question"]


def test_rows_are_pinned_across_machines_and_versions() -> None:
    row = next(preference_rows(World(seed=1), rows=1, split="train"))
    assert row == PINNED_ROW


def test_training_and_held_out_prompts_are_disjoint_for_all_seeds_and_alike() -> None:
    streams = {
        split: [row for seed in (1, 2) for row in prompt_rows(World(seed), rows=1500, split=split)]
        for split in ("train", "test")
    }
    prompts = {split: {row["prompt"] for row in rows} for split, rows in streams.items()}
    assert not prompts["train"] & prompts["test"]
    assert all(split_of(prompt) == split for split, texts in prompts.items() for prompt in texts)
    for category, share in grammar.CATEGORY_SHARES.items():
        for rows in streams.values():
            assert fmean(row["category"] == category for row in rows) == pytest.approx(share, abs=0.04)


@pytest.mark.slow
def test_labels_follow_bradley_terry_with_the_stated_noise() -> None:
    world = World(seed=5, noise=0.7, length_bias=0.3)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for drawn in judged(world, rows=5000, split="train"):
        probability = preference_probability(*drawn.utility, world.noise)
        bins.setdefault(int(probability * 8), []).append((probability, drawn.ranking[0] == 0))
    assert len(bins) == 8
    for members in bins.values():
        expected, seen = (fmean(column) for column in zip(*members, strict=True))
        assert seen == pytest.approx(expected, abs=4 * 0.5 / len(members) ** 0.5)


@pytest.mark.slow
def test_rankings_of_more_responses_follow_bradley_terry_for_each_two() -> None:
    world = World(seed=6, noise=1.0)
    pairs = []
    for drawn in judged(world, rows=1500, split="train", responses=4):
        assert len(set(drawn.responses)) == 4
        place = {response: rank for rank, response in enumerate(drawn.ranking)}
        pairs.append((preference_probability(drawn.utility[0], drawn.utility[3], world.noise), place[0] < place[3]))
    expected, seen = (fmean(column) for column in zip(*pairs, strict=True))
    assert seen == pytest.approx(expected, abs=0.05)
    errors = [(seen - probability) ** 2 for probability, seen in pairs]
    assert fmean(errors) == pytest.approx(fmean(p * (1 - p) for p, _ in pairs), abs=0.02)


@pytest.mark.slow
def test_the_best_accuracy_is_reached_by_the_true_order_and_by_no_other() -> None:
    found = label_accuracies(World(seed=7, noise=0.5, length_bias=0.6), rows=4000, split="test")
    assert found.pairs == 4000
    assert found.utility_order == pytest.approx(found.bayes, abs=4 * 0.35 / 4000**0.5)
    assert found.longer < found.gold_order < found.utility_order


@pytest.mark.slow
def test_more_noise_means_less_to_learn_and_none_means_everything() -> None:
    bayes = [label_accuracies(World(seed=8, noise=noise), rows=600, split="test").bayes for noise in (0, 0.3, 1, 30)]
    assert bayes == sorted(bayes, reverse=True)
    assert bayes[0] > 0.98  # all but the pairs of equal utility
    assert bayes[-1] < 0.52


@pytest.mark.slow
def test_the_length_dial_makes_annotators_prefer_the_longer() -> None:
    longer = [
        label_accuracies(World(seed=9, length_bias=bias), rows=1500, split="test").longer for bias in (-1, 0, 1, 4)
    ]
    assert longer == sorted(longer)
    assert longer[0] < 0.45
    assert longer[1] == pytest.approx(0.5, abs=0.04)
    assert longer[3] > 0.75


def as_pair(style: str, row: dict[str, Any]) -> tuple[str, str, str]:
    """(prompt, better, worse) of a row, read as the style's own users read it."""
    if style == "HOMEWORK":
        better = row["overall_response"]
        return row["question"], row[f"response_{better}"], row[f"response_{3 - better}"]
    if style == "PKU":
        better = row["better_response_id"]
        return row["prompt"], row[f"response_{better}"], row[f"response_{1 - better}"]
    if style == "HH":
        prompt, _, chosen = row["chosen"].rpartition("\n\nAssistant: ")
        assert row["rejected"].startswith(f"{prompt}\n\nAssistant: ")
        return prompt.removeprefix("\n\nHuman: "), chosen, row["rejected"].rpartition("\n\nAssistant: ")[2]
    if style == "TRL":
        return row["prompt"], row["chosen"], row["rejected"]
    return row["prompt"], row["responses"][0], row["responses"][1]


def test_all_styles_write_the_same_judgements() -> None:
    world = World(seed=10)
    pairs = {
        style: [as_pair(style, row) for row in preference_rows(world, rows=200, split="train", style=style)]
        for style in STYLES
    }
    assert all(found == pairs["HOMEWORK"] for found in pairs.values())


@pytest.mark.parametrize("style", STYLES)
def test_gold_and_utility_stand_in_the_order_of_the_row_and_rows_are_json(style: str) -> None:
    world = World(seed=11, length_bias=0.5)
    for row in preference_rows(world, rows=100, split="test", style=style):
        prompt, *texts = as_pair(style, row)
        gold = [gold_reward(prompt, text) for text in texts]
        utility = [g + 0.05 * len(words_of(text)) for g, text in zip(gold, texts, strict=True)]
        turned = (style == "HOMEWORK" and row["overall_response"] == 2) or (
            style == "PKU" and row["better_response_id"]
        )
        order = (1, 0) if turned else (0, 1)
        assert row["gold"] == [gold[i] for i in order]
        assert row["utility"] == pytest.approx([utility[i] for i in order], abs=1e-3)
        assert json.loads(json.dumps(row)) == row


def test_the_safer_response_is_the_safe_one_and_else_the_better_one() -> None:
    unlike = 0
    for row in preference_rows(World(seed=12, noise=5), rows=600, split="train", style="PKU"):
        safe = (row["is_response_0_safe"], row["is_response_1_safe"])
        assert safe == (is_safe(row["response_0"]), is_safe(row["response_1"]))
        assert row["safer_response_id"] == (row["better_response_id"] if safe[0] == safe[1] else safe.index(True))
        unlike += row["safer_response_id"] != row["better_response_id"]
    assert unlike > 5


def test_more_responses_are_ranked_best_first() -> None:
    rows = list(preference_rows(World(noise=0), rows=50, split="train", style="RANKED", responses=5))
    assert all(len(row["responses"]) == 5 and row["utility"] == sorted(row["utility"], reverse=True) for row in rows)
    with pytest.raises(UserError, match="RANKED"):
        preference_rows(World(), rows=1, split="train", style="HH", responses=3)


def test_demonstrations_are_good_and_bad() -> None:
    gold = [row["gold"] for row in demonstration_rows(World(), rows=500, split="train")]
    assert stdev(gold) > 1
    assert min(gold) < -1 < 2 < max(gold)


@pytest.mark.slow
def test_memory_stays_flat_as_a_stream_grows() -> None:
    def peak(rows: int) -> int:
        stream = preference_rows(World(), rows=rows, split="train")
        next(stream)
        tracemalloc.start()
        try:
            for _ in stream:
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(3000) < peak(300) + 1_000_000  # 3,000 rows themselves take 2.6 MB


# The source spec -----------------------------------------------------------------------------------------------------


def test_a_spec_gives_the_rows_of_its_world() -> None:
    spec = "sandbox:preferences?rows=5&seed=2&noise=0.1&length_bias=0.3&split=test&style=RANKED&responses=3"
    world = World(seed=2, noise=0.1, length_bias=0.3)
    assert list(sandbox_source(spec)) == list(preference_rows(world, rows=5, split="test", style="RANKED", responses=3))
    assert list(sandbox_source("sandbox:demonstrations?rows=3")) == list(
        demonstration_rows(World(), rows=3, split="train")
    )
    assert list(sandbox_source("sandbox:prompts?rows=3&split=test")) == list(prompt_rows(World(), rows=3, split="test"))
    assert len(list(islice(sandbox_source("sandbox:preferences"), 5000))) == 1000


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sandbox:preference", "unknown kind 'preference'; did you mean 'preferences'?"),
        ("sandbox:preferences?row=3", "unknown key 'row'; did you mean 'rows'?"),
        ("sandbox:prompts?style=HH", "unknown key 'style'; it can be rows, seed, split"),
        ("sandbox:preferences?split=tset", "unknown split 'tset'; did you mean 'test'?"),
        ("sandbox:preferences?style=HOMEWROK", "unknown style 'HOMEWROK'; did you mean 'HOMEWORK'?"),
        ("sandbox:preferences?rows=many", "rows is 'many'; it should be a whole number"),
        ("sandbox:preferences?noise=low", "noise is 'low'; it should be a number"),
        ("sandbox:preferences?noise=-1", "noise is -1.0; it must be 0 or more"),
        ("sandbox:preferences?length_bias=nan", "length_bias is nan; it must be a finite number"),
        ("sandbox:preferences?rows=0", "rows is 0; it must be from 1 to 1000000"),
        ("sandbox:preferences?rows=9999999", "rows is 9999999; it must be from 1 to 1000000"),
        ("sandbox:preferences?responses=1", "with 1 responses"),
        ("sandbox:preferences?rows=", "rows is ''"),
        ("sandbox:preferences?rows=3&rows=4", "'rows' is given 2 times"),
        ("sandbox:preferences?rows", "it should look like rows=2000&seed=1"),
    ],
)
def test_a_mistaken_spec_is_refused_before_the_first_row(spec: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        sandbox_source(spec)
    assert message in str(caught.value)
