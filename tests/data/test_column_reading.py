"""Which column is the prompt, the system message, a label, a score: read where it is clear, asked where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.detect import choose_format
from preflab.data.layout import renamed_row
from preflab.data.own_format import _WatchedRow
from preflab.data.rows import parse_row

Row = dict[str, Any]

Q, BETTER, WORSE = "How do I boil an egg?", "Put it in boiling water.", "Put it in the microwave."
ASKED = (Message("user", Q),)
SYSTEM = Message("system", "Answer in rhyme only.")
SIDES = {"chosen": BETTER, "rejected": WORSE}


def said(content: str) -> Row:
    return {"role": "assistant", "content": content}


def asked(content: str = Q) -> Row:
    return {"role": "user", "content": content}


def read(*rows: Row, name: str | None = None) -> list[Comparison]:
    _, form = choose_format(name, rows)
    return [parse_row(form, row, number) for number, row in enumerate(rows, 1)]


# The prompt ---------------------------------------------------------------------------------------------------------

ONE_PROMPT: dict[str, Row] = {
    **{name: {name: Q, **SIDES} for name in ("question", "input", "query", "context", "problem", "user", "post")},
    **{
        f"{name} as messages": {name: [asked()], **SIDES} for name in ("messages", "conversation", "context", "history")
    },
    "instruction": {"instruction": Q, **SIDES},
    "messages beside single messages": {"messages": [asked()], "chosen": [said(BETTER)], "rejected": [said(WORSE)]},
    "conversations as ShareGPT has them": {"conversations": [{"from": "human", "value": Q}], **SIDES},
    "beside a null prompt": {"prompt": None, "question": Q, **SIDES},
    "beside a text of unknown name": {"question": Q, "remarks": "some words on this pair", **SIDES},
    "numbered responses": {"prompt": Q, "response_1": WORSE, "response_2": BETTER, "overall_response": 2},
    "PKU's": {"question": Q, "response_0": WORSE, "response_1": BETTER, "better_response_id": 1},
    "a list of responses": {"question": Q, "responses": [BETTER, WORSE]},
    "the prompt itself beside others": {"prompt": Q, "question": "Another?", "context": "Some text.", **SIDES},
    "rendered again": {"prompt": f"User: {Q}", "chosen": [asked(), said(BETTER)], "rejected": [asked(), said(WORSE)]},
}


@pytest.mark.parametrize("row", ONE_PROMPT.values(), ids=ONE_PROMPT)
def test_the_one_column_that_could_be_the_prompt_is_it(row: Row) -> None:
    (made,) = read(row)
    assert made.prompt == ASKED
    assert made.responses == (BETTER, WORSE)


QUESTIONS: dict[str, tuple[Row, str]] = {
    "two of them": ({"question": Q, "context": "An egg.", **SIDES}, "which is the prompt, question or context"),
    "title and post": ({"title": "Eggs again", "post": Q, **SIDES}, "which is the prompt, title or post"),
    "demonstrations": ({"messages": [asked()], "question": Q, **SIDES}, "which is the prompt, question or messages"),
    "an unknown name": ({"ask": Q, **SIDES}, r"is ask the prompt of chosen and rejected\? .* --columns prompt=ask"),
    "a transcript": ({"question": f"\n\nHuman: {Q}\n\nAssistant:", **SIDES}, "is question the prompt"),
    "two answers": ({"question": Q, "answer": BETTER, "solution": WORSE}, "which is the response, answer or solution"),
    "two questions": ({"question": Q, "passage": WORSE, "answer": BETTER}, "which is the prompt, question or passage"),
}


@pytest.mark.parametrize(("row", "question"), QUESTIONS.values(), ids=QUESTIONS)
def test_where_several_could_be_it_the_user_is_asked(row: Row, question: str) -> None:
    with pytest.raises(UserError, match=question):
        choose_format(None, [row] * 3)


def test_the_guess_is_made_on_request() -> None:
    row = {"ask": Q, "chosen": "Put it in water.", "rejected": "Put it in the oven."}
    (made,) = read(row, name="trl-implicit")
    assert made.prompt == (Message("user", "Put it in"),)


@pytest.mark.parametrize(
    "others",
    [
        {"id": 7, "source": "a forum for cooks"},
        {"chosen_model": "a very good model", "reason": "it is true, the other is not"},
        {"topic": "cooking"},
        {"system": "Answer in rhyme only."},
    ],
)
def test_what_is_about_the_pair_does_not_forbid_the_guess(others: Row) -> None:
    row = {"chosen": "Put it in water.", "rejected": "Put it in the oven.", **others}
    (made,) = read(row)
    assert made.prompt[-1] == Message("user", "Put it in")


def test_a_prompt_that_comes_late_forbids_the_guess_too() -> None:
    rows = [{"chosen": "Put it in water.", "rejected": "Put it in the oven."}] * 120
    _, form = choose_format(None, rows)
    with pytest.raises(RowError, match="`question` could be the prompt") as caught:
        parse_row(form, {**rows[0], "question": Q})
    assert caught.value.reason == "prompt not clear"


WHOLE = {"chosen": [asked(), said(BETTER)], "rejected": [asked(), said(WORSE)]}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why is the sky blue?", **WHOLE},
        {"prompt": [asked("Why is the sky blue?")], **WHOLE},
        {"chosen": [asked(), said(BETTER)], "rejected": [asked("And a fish?"), said(WORSE)]},
        {"prompt": "Why?", "chosen": f"\n\nHuman: {Q}\n\nAssistant: a", "rejected": f"\n\nHuman: {Q}\n\nAssistant: b"},
    ],
)
def test_a_prompt_that_contradicts_the_conversations_is_an_error(row: Row) -> None:
    with pytest.raises(RowError) as caught:
        read(row)
    assert caught.value.reason == "prompts differ"


@pytest.mark.parametrize("others", [{"question": Q}, {"messages": [asked(), said(BETTER)]}, {"context": "A kitchen."}])
def test_whole_conversations_have_their_prompt(others: Row) -> None:
    (made,) = read({**others, **WHOLE})
    assert (made.prompt, made.responses) == (ASKED, (BETTER, WORSE))


ONE_RESPONSE: dict[str, Row] = {
    "question and answer": {"question": Q, "answer": BETTER},
    "input and output": {"input": Q, "output": BETTER},
    "instruction and response": {"instruction": Q, "response": BETTER},
    "prompt and generated_text": {"prompt": Q, "generated_text": BETTER},
    "messages and completion": {"messages": [asked()], "completion": BETTER},
    "empty input": {"instruction": Q, "input": "", "output": BETTER},
    "empty instruction": {"instruction": "", "input": Q, "output": BETTER},
    "blank instruction": {"instruction": " ", "input": f" {Q}\n", "output": BETTER},
    "no instruction": {"instruction": None, "input": Q, "output": BETTER},
    "empty context": {"instruction": Q, "context": "", "response": BETTER, "category": "open_qa"},
}


@pytest.mark.parametrize("row", ONE_RESPONSE.values(), ids=ONE_RESPONSE)
def test_one_prompt_and_one_response(row: Row) -> None:
    (made,) = read(row)
    assert (made.prompt, made.responses) == (ASKED, (BETTER,))


def test_dolly_has_its_input_under_another_name() -> None:
    (made,) = read({"instruction": Q, "context": "It is raw.", "response": BETTER})
    assert made.prompt == (Message("user", f"{Q}\nIt is raw."),)
    with pytest.raises(RowError, match="two inputs"):
        read({"instruction": Q, "context": "It is raw.", "input": "It is old.", "output": BETTER})


def test_a_short_answer_under_another_name_stays_in_meta() -> None:
    (made,) = read({"prompt": Q, "answer": "42 minutes", "id": 1})
    assert made.meta == {"answer": "42 minutes", "id": 1}


# System -------------------------------------------------------------------------------------------------------------

EVERY_LAYOUT: dict[str, Row] = {
    "HOMEWORK": {"question": Q, "response_1": BETTER, "response_2": WORSE, "overall_response": 1},
    "pku-better": {"prompt": Q, "response_0": BETTER, "response_1": WORSE, "better_response_id": 0},
    "hh": {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {BETTER}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {WORSE}"},
    "shp": {"history": Q, "human_ref_A": BETTER, "human_ref_B": WORSE, "labels": 1},
    "trl": {"prompt": Q, **SIDES},
    "trl (other name)": {"question": Q, **SIDES},
    "trl (chat)": {"prompt": [asked()], "chosen": [said(BETTER)], "rejected": [said(WORSE)]},
    "trl-implicit": WHOLE,
    "ultrafeedback": {"prompt": Q, **WHOLE},
    "ranked": {"prompt": Q, "responses": [BETTER, WORSE]},
    "alpaca-ranking": {"instruction": Q, **SIDES},
    "alpaca-ranking-list": {"instruction": Q, "output": [BETTER, WORSE]},
    "messages": {"messages": [asked(), said(BETTER)]},
    "sharegpt": {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": BETTER}]},
    "prompt-response": {"prompt": Q, "response": BETTER},
    "prompt-completion": {"prompt": Q, "completion": BETTER},
    "trl-unpaired": {"prompt": Q, "completion": BETTER, "label": True},
    "alpaca": {"instruction": Q, "output": BETTER},
    "prompts": {"prompt": Q},
    "stack-exchange": {"question": Q, "answers": [{"text": "a", "pm_score": 1}, {"text": "b", "pm_score": 2}]},
}


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_system_column_is_honoured_in_every_layout(layout: str, column: str) -> None:
    row = {column: SYSTEM.content, **EVERY_LAYOUT[layout]}
    name, form = choose_format(None, [row])
    assert name == layout.split(" (")[0]
    made = parse_row(form, row)
    assert made.prompt == (SYSTEM, *ASKED)
    assert column not in made.meta
    assert parse_row(form, {**row, column: ""}).prompt == ASKED
    assert parse_row(form, {**row, column: None}).prompt == ASKED


def test_the_same_system_message_twice_is_one_and_two_are_an_error() -> None:
    row = {"messages": [{"role": "system", "content": f"{SYSTEM.content}\n"}, asked(), said(BETTER)]}
    (made,) = read({**row, "system": SYSTEM.content, "system_prompt": SYSTEM.content})
    assert [message.role for message in made.prompt] == ["system", "user"]
    for other in ({"system": "Be brief."}, {"system": SYSTEM.content, "system_prompt": "Be brief."}):
        with pytest.raises(RowError, match=r"Be brief") as caught:
            read({**row, **other})
        assert caught.value.reason == "two system messages"
    with pytest.raises(RowError, match="`system` is 3, not text"):
        read({**row, "system": 3})


# Labels -------------------------------------------------------------------------------------------------------------

ONE_RESPONSE_LAYOUTS = ("messages", "sharegpt", "prompt-response", "prompt-completion", "alpaca")


@pytest.mark.parametrize("layout", ONE_RESPONSE_LAYOUTS)
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("label", (True, False, None)),
        ("kto_tag", (1, 0, None)),
        ("label", ("true", "False", "")),
        ("labels", (1.0, 0.0, float("nan"))),
        ("is_desirable", ("1", "0", None)),
        ("thumbs_up", ("yes", "no", None)),
        ("label", ("good", "bad", None)),
        ("label", (1, -1, None)),
    ],
)
def test_a_label_makes_unpaired_data_of_any_layout(layout: str, column: str, values: tuple[object, ...]) -> None:
    rows = [{**EVERY_LAYOUT[layout], column: value} for value in values]
    _, form = choose_format(None, rows)
    assert form.kind == "unpaired"
    made = read(*rows)
    assert [comparison.label for comparison in made] == [True, False, None]
    assert all(column not in comparison.meta for comparison in made)


@pytest.mark.parametrize("layout", ONE_RESPONSE_LAYOUTS)
def test_a_category_is_no_label(layout: str) -> None:
    made = read(*({**EVERY_LAYOUT[layout], "label": label} for label in ("math", "code")))
    assert [(comparison.label, comparison.meta["label"]) for comparison in made] == [(None, "math"), (None, "code")]


@pytest.mark.parametrize(("values", "shown"), [((0, 1, 2), "2 beside 0"), ((1, 0.7), "0.7 beside 1")])
def test_numbers_that_are_not_all_truth_values_are_asked_about(values: tuple[float, ...], shown: str) -> None:
    rows = [{**EVERY_LAYOUT["messages"], "label": value} for value in values]
    with pytest.raises(UserError, match=f"does label say which responses were wanted.* holds {shown}"):
        choose_format(None, rows)


def test_a_late_value_that_is_no_truth_value_is_no_label() -> None:
    _, form = choose_format(None, [{**EVERY_LAYOUT["alpaca"], "kto_tag": True}] * 3)
    with pytest.raises(RowError, match="`kto_tag` is 'perhaps'") as caught:
        parse_row(form, {**EVERY_LAYOUT["alpaca"], "kto_tag": "perhaps"})
    assert caught.value.reason == "no label"


def test_a_label_beside_a_ranking_is_meta() -> None:
    (made,) = read({"prompt": Q, **SIDES, "label": True})
    assert (made.label, made.meta) == (None, {"label": True})


# Scores -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["scores", "score", "rewards", "ratings", "rating"])
@pytest.mark.parametrize("texts", ["responses", "output"])
def test_scores_rank_a_list_of_responses(column: str, texts: str) -> None:
    prompt = {"prompt": Q} if texts == "responses" else {"instruction": Q}
    (made,) = read({**prompt, texts: ["middle", "worst", "best", "as bad"], column: [2, 1, 3.5, 1.0]})
    assert made.responses == ("best", "middle", "worst")
    assert made.scores == (3.5, 2, 1)
    assert made.meta["tied_responses_left_out"] == 1


def test_a_rank_of_one_is_best() -> None:
    (made,) = read({"prompt": Q, "responses": ["b", "a", "c"], "rank": [2, 1, 3], "scores": [5, 9, 1]})
    assert (made.responses, made.scores) == (("a", "b", "c"), (9, 5, 1))
    (made,) = read({"prompt": Q, "responses": ["b", "a", "c"], "rank": [2, 1, 3]})
    assert (made.responses, made.scores) == (("a", "b", "c"), (-1, -2, -3))


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"scores": [1]}, "scores do not fit"),
        ({"scores": [1, None]}, "scores do not fit"),
        ({"scores": [1, 1]}, "no preference"),
        ({"scores": [1, 2], "rank": [1, 2]}, "scores disagree"),
    ],
)
def test_scores_that_rank_nothing(others: Row, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        read({"prompt": Q, "responses": ["a", "b"], **others})
    assert caught.value.reason == reason


def test_what_is_no_list_of_scores_leaves_the_order() -> None:
    (made,) = read({"prompt": Q, "responses": ["a", "b"], "scores": [], "rating": 5, "rank": None})
    assert (made.responses, made.scores) == (("a", "b"), ())


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("score_chosen", "score_rejected"),
        ("chosen_score", "rejected_score"),
        ("chosen-rating", "rejected-rating"),
        ("chosen_avg_rating", "rejected_avg_rating"),
        ("reward_chosen", "reward_rejected"),
        ("chosenScore", "rejectedScore"),
    ],
)
def test_scores_of_a_pair(better: str, worse: str) -> None:
    (made,) = read({"prompt": Q, **SIDES, better: "3.5", worse: 4})
    assert (made.responses, made.scores) == ((BETTER, WORSE), (3.5, 4))
    (made,) = read({"prompt": Q, **SIDES, better: None, worse: 4}, {"prompt": Q, **SIDES, better: 2, worse: 4})[:1]
    assert made.scores == ()


def test_ranks_and_scores_of_numbered_responses() -> None:
    row = {"question": Q, "response_1": WORSE, "response_2": BETTER, "overall_response": 2}
    assert read({**row, "score_1": 1, "score_2": 5})[0].scores == (5, 1)
    assert read({**row, "response_1_rating": 1, "response_2_rating": 5})[0].scores == (5, 1)
    assert read({**row, "rank_1": 2, "rank_2": 1})[0].scores == (-1, -2)
    shp = {"history": Q, "human_ref_A": WORSE, "human_ref_B": BETTER, "labels": 0, "score_A": 3, "score_B": 8}
    assert read(shp)[0].scores == (8, 3)


def test_ultrafeedback_says_where_its_two_scores_disagree() -> None:
    answers = [
        {"response": text, "overall_score": a, "fine-grained_score": b} for text, a, b in (("x", 9, 1), ("y", 8, 5))
    ]
    (made,) = read({"instruction": Q, "completions": answers})
    assert made.responses == ("x", "y")
    assert made.meta["scores_disagree"] == "overall_score and fine-grained_score"


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
def test_a_format_names_every_column_that_it_reads(layout: str) -> None:
    row = EVERY_LAYOUT[layout]
    _, form = choose_format(None, [row])
    touched: set[str] = set()
    form.parse(_WatchedRow(renamed_row(form.renamed, row), touched))
    assert touched & set(row) <= {*form.columns, *form.optional, *form.renamed.values()}
