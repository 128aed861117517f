"""Rows that are refused, and those that are cut to the length that is allowed."""

from __future__ import annotations

import pytest
import tiny_tokenizers
from dialogues import DIALOGUE, FAMILIES, RESPONSES, SYSTEM, comparison, pythia_with_template
from tokenizers import normalizers

from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.templates import CHAT_TEMPLATES
from preflab.data.tokenize import ChatTemplate, Dropped

# ---- rows that are refused -------------------------------------------------------------------------------------------


def refusal(template: ChatTemplate, row: Comparison, **limits: int) -> RowError:
    """The error of a row, which the batched way must report just so."""
    with pytest.raises(RowError) as caught:
        template.encode(row, **limits)
    (dropped,) = template.encode_many([row], **limits)
    assert dropped == Dropped(row.row, caught.value.reason, caught.value.detail)
    assert str(dropped).startswith(f"row {row.row}: {caught.value.reason}")
    return caught.value


def test_response_that_merges_with_the_prompt_is_refused_with_both_tokenisations() -> None:
    error = refusal(ChatTemplate(tiny_tokenizers.qwen()), comparison(responses=("\nHi", "No")))
    assert error.reason == "the prompt is not a prefix"
    assert r"'<|im_start|>', 'assistant', '\n'] alone" in error.detail
    assert r"'<|im_start|>', 'assistant', '\n\n', 'Hi', '<|im_end|>'] with its response" in error.detail


def test_template_that_rewrites_the_prompt_is_refused_with_both_texts() -> None:
    tokenizer = tiny_tokenizers.qwen()
    # The probe, which is shorter, passes.
    tokenizer.chat_template = "{% if messages | length == 4 %}late{% endif %}" + CHAT_TEMPLATES["chatml"]
    error = refusal(ChatTemplate(tokenizer), Comparison(DIALOGUE, RESPONSES, 3))
    assert error.reason == "the prompt is not a prefix"
    assert r"'<|im_start|>user\nHello" in error.detail
    assert "'late<|im_start|>user" in error.detail


@pytest.mark.parametrize("where", ["response", "prompt"])
@pytest.mark.parametrize(
    ("family", "mark"),
    [("qwen2.5", "<|im_end|>"), ("gemma3", "<bos>"), ("mistral", "[INST]"), ("pythia", "<|endoftext|>")],
)
def test_control_tokens_in_a_row_s_own_text_are_refused(family: str, mark: str, where: str) -> None:
    template = ChatTemplate(FAMILIES[family]())
    text = f"I know {mark} not"
    row = (
        comparison(family, responses=(text, "Hi"))
        if where == "response"
        else Comparison((Message("user", text),), RESPONSES)
    )
    error = refusal(template, row)
    assert error.reason == "control token in the text"
    assert mark in error.detail
    if where == "prompt":
        with pytest.raises(RowError, match="control token in the text"):
            template.prompt_ids(row.prompt)


def test_text_like_a_control_token_is_no_control_token() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    assert template.encode(comparison(responses=("<|im_stop|> and <think> and [INST]", "Hi")))


def test_roles_that_the_template_refuses_give_its_own_message() -> None:
    template = ChatTemplate(tiny_tokenizers.mistral())
    twice = Comparison((Message("user", "Hello"), Message("user", "there")), RESPONSES)
    for row in (twice, Comparison((SYSTEM, *DIALOGUE), RESPONSES)):
        error = refusal(template, row)
        assert error.reason == "refused by the chat template"
        assert "Conversation roles must alternate" in error.detail


def test_a_template_s_own_mistake_is_the_row_s_error_not_a_traceback() -> None:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = CHAT_TEMPLATES["chatml"] + "{% if messages | length == 3 %}{{ 1 + 'x' }}{% endif %}"
    assert refusal(ChatTemplate(tokenizer), Comparison(DIALOGUE, RESPONSES)).reason == "refused by the chat template"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nothing", ["", "  \n"])
def test_empty_responses_are_refused(family: str, nothing: str) -> None:
    template = ChatTemplate(FAMILIES[family]())
    assert refusal(template, comparison(family, responses=("Hi", nothing))).reason == "empty response"


def test_response_of_which_the_tokenizer_leaves_nothing_is_empty() -> None:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")  # a space of no width
    assert refusal(ChatTemplate(tokenizer), comparison(responses=("\u200b", "Hi"))).reason == "empty response"


def test_turn_that_ends_unlike_others_is_refused() -> None:
    tokenizer = tiny_tokenizers.qwen()
    end = "{{ '<|endoftext|>' if m.content == 'odd' else '<|im_end|>' }}"
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}" + end + "{% endfor %}"
    error = refusal(ChatTemplate(tokenizer), comparison(responses=("Hi", "odd")))
    assert error.reason == "refused by the chat template"
    assert "<|endoftext|>" in error.detail


def test_thinking_without_an_answer_is_an_empty_response_only_if_the_thinking_is() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen("qwen3"))
    assert refusal(template, comparison(responses=("", "Hi"))).reason == "empty response"
    assert template.encode(comparison(responses=("<think>\nI know\n</think>\n\nTwo", "Hi")))


def test_empty_prompt_and_broken_unicode_are_refused() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    assert refusal(template, Comparison((), RESPONSES)).reason == "empty prompt"
    assert refusal(template, comparison(responses=("Hi \ud83d", "No"))).reason == "not valid Unicode"


def test_responses_that_are_the_same_tokens_are_refused() -> None:
    template = ChatTemplate(pythia_with_template())
    assert refusal(template, comparison(responses=("Hi", "Hi "))).reason == "identical responses"
    assert refusal(template, comparison(responses=("Hi", "No", "Hi"))).reason == "identical responses"


def test_one_response_or_many() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    both = template.encode(comparison())
    assert template.encode(comparison(responses=RESPONSES[:1])).response_ids == both.response_ids[:1]
    assert len(template.encode(comparison(responses=(*RESPONSES, "Hello"))).response_ids) == 3


# ---- length ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("responses", [RESPONSES, RESPONSES[::-1]])
def test_prompt_loses_its_oldest_tokens_until_the_longest_response_fits(responses: tuple[str, ...]) -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    whole = template.encode(comparison(responses=responses))
    cut = template.encode(comparison(responses=responses), max_length=20)
    assert max(len(ids) for ids in whole.response_ids) == 7
    assert cut.response_ids == whole.response_ids
    assert cut.prompt_ids == whole.prompt_ids[-13:]


def test_cut_prompt_keeps_its_bos() -> None:
    template = ChatTemplate(tiny_tokenizers.gemma3())
    whole = template.encode(comparison("gemma3"))
    cut = template.encode(comparison("gemma3"), max_prompt_length=5)
    assert cut.prompt_ids == (whole.prompt_ids[0], *whole.prompt_ids[-4:])
    assert cut.response_ids == whole.response_ids
    assert template.prompt_ids(comparison("gemma3").prompt, max_prompt_length=5) == list(cut.prompt_ids)


def test_the_stricter_of_both_limits_holds() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    assert len(template.encode(comparison(), max_length=30, max_prompt_length=9).prompt_ids) == 9
    assert len(template.encode(comparison(), max_length=12, max_prompt_length=9).prompt_ids) == 5


def test_limits_that_a_row_just_meets_change_nothing() -> None:
    template = ChatTemplate(tiny_tokenizers.gemma3())
    whole = template.encode(comparison("gemma3"))
    exact = len(whole.prompt_ids)
    assert template.encode(comparison("gemma3"), max_length=exact + 7, max_prompt_length=exact) == whole


@pytest.mark.parametrize(("family", "least"), [("qwen2.5", 8), ("gemma3", 9)])
def test_row_without_room_for_one_prompt_token_is_too_long(family: str, least: int) -> None:
    template = ChatTemplate(FAMILIES[family]())
    assert len(template.encode(comparison(family), max_length=least).prompt_ids) == least - 7
    assert refusal(template, comparison(family), max_length=least - 1).reason == "too long"


def test_too_long_raises_with_the_row_if_asked() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    rows = [Dropped(1, "too short"), comparison(row=2, responses=("", "Hi")), comparison(row=3)]
    with pytest.raises(UserError, match=r"row 3: too long.*7 tokens.*max_length 7.*on_too_long"):
        list(template.encode_many(rows, max_length=7, on_too_long="raise"))
