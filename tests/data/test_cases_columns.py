"""The cases about columns of known layouts, each with its right value."""

from __future__ import annotations

import pytest
from shared_cases import case

from preflab.core.records import Comparison, Message
from preflab.data.comparisons import Need, choose_formats, fitting, read_comparisons
from preflab.data.inspect import Rows, inspect_source
from preflab.data.remarks import DISAGREEING, INVERTED, TIED
from preflab.data.sources import open_source
from preflab.data.tokenize import Dropped

EGG = Message("user", "How do I boil an egg?")
SYSTEM = Message("system", "Answer in rhyme only.")
RIGHT, WRONG = "Put it in boiling water for eight minutes.", "Put it in the microwave."


def comparisons(name: str) -> list[Comparison]:
    source = open_source(str(case(name)))
    found = list(read_comparisons(source, choose_formats(source)))
    assert not [item for item in found if isinstance(item, Dropped)]
    return [item for item in found if isinstance(item, Comparison)]


@pytest.mark.parametrize(
    ("file", "system"),
    [
        ("02-orca-question", True),
        ("02b-orca-input", True),
        ("02c-question-only", False),
        ("02d-query", False),
        ("02e-context", False),
    ],
)
def test_01_the_prompt_is_the_question(file: str, system: bool) -> None:
    first, *others = comparisons(f"01-question-column-ignored/{file}.jsonl")
    assert first.prompt == ((SYSTEM, EGG) if system else (EGG,))
    assert first.responses == (RIGHT, WRONG)
    assert [other.prompt[-1].content for other in others] == [
        "Name a river in Spain.",
        "What is seven times six?",
        "Why is the sky blue?",
    ]


@pytest.mark.parametrize(
    "file", ["03-messages-label", "03b-prompt-response-label", "03c-alpaca-kto_tag", "03d-sharegpt-label"]
)
@pytest.mark.parametrize(("need", "used"), [("labels", 8), ("demonstrations", 4)])
def test_02_labels_make_unpaired_data(file: str, need: Need, used: int) -> None:
    rows = comparisons(f"02-label-beside-demonstrations/{file}.jsonl")
    assert sorted(row.label is True for row in rows) == [False] * 4 + [True] * 4
    found = list(fitting(rows, need, ratio=None, seed=0, side=None))
    assert sum(isinstance(item, Comparison) for item in found) == used
    reasons = [item.reason for item in found if isinstance(item, Dropped)]
    assert reasons == ["unwanted response"] * (8 - used)


@pytest.mark.parametrize(
    "file",
    [
        *("01-system-column", "01b-system_prompt-column", "01c-system-messages", "01d-system-implicit"),
        *("01e-system-chatmessages", "01f-system-prompt-completion", "01g-system-kto"),
    ],
)
def test_05_the_prompt_begins_with_the_system_message(file: str) -> None:
    rows = comparisons(f"05-system-column-ignored/{file}.jsonl")
    assert rows[0].prompt == (SYSTEM, EGG)
    assert rows[0].responses[0] == RIGHT
    assert all(row.prompt[0] == SYSTEM and len(row.prompt) == 2 for row in rows)


@pytest.mark.parametrize("file", ["09-responses-scores", "09c-alpaca-output-list-scores", "09d-responses-rank"])
def test_06_responses_are_ranked_by_their_scores(file: str) -> None:
    rows = comparisons(f"06-responses-ranked-against-their-own-scores/{file}.jsonl")
    assert rows[0].responses == (RIGHT, WRONG)
    assert [row.responses[0].split()[0] for row in rows] == ["Put", "The", "Seven", "Because"]
    assert all(row.scores[0] > row.scores[1] for row in rows)


@pytest.mark.parametrize("file", ["08-score-ties", "08b-rating-ties"])
def test_12_pairs_have_their_scores(file: str) -> None:
    rows = comparisons(f"12-pairs-tied-or-inverted-by-their-own-scores/{file}.jsonl")
    margins = [row.scores[0] - row.scores[1] for row in rows]
    assert [(margin > 0) - (margin < 0) for margin in margins] == [1, 0, -1, 0]

    found = inspect_source(open_source(str(case(f"12-pairs-tied-or-inverted-by-their-own-scores/{file}.jsonl"))))
    assert found.remarks == {TIED: Rows(2, (2, 4)), INVERTED: Rows(1, (3,))}


def test_12_two_scores_that_disagree_are_noted() -> None:
    path = case("12-pairs-tied-or-inverted-by-their-own-scores/31-ultrafeedback-raw-ten.jsonl")
    assert inspect_source(open_source(str(path))).remarks == {DISAGREEING: Rows(1, (1,))}


def test_22_an_empty_instruction_leaves_the_input() -> None:
    rows = comparisons("22-empty-instruction/24-alpaca-empty-instruction.jsonl")
    assert rows[0].prompt == (EGG,)
    assert all(row.prompt[-1].content == row.prompt[-1].content.strip() for row in rows)
