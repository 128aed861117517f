"""Chat templates of models that think: which tokens are trained, which rows are refused and with what way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import thinking_templates
import tiny_tokenizers
from transformers import AutoTokenizer

from preflab.core.records import Comparison, Message, RowError, UserError
from preflab.data.rendering import CLOSED, NOT_RENDERED, OPENED
from preflab.data.templates import CHAT_TEMPLATES, apply_named_template, apply_template_values, template_values
from preflab.data.thinking import Spoken
from preflab.data.tokenize import ChatTemplate

QUESTION = (Message("user", "What is two plus two?"),)
PLAIN = Comparison(QUESTION, ("four",))
REASONED = Comparison(QUESTION, ("four",), reasoning=("I know",))
TAGGED = Comparison(QUESTION, ("<think>\nI know\n</think>\n\nfour",))
THOUGHT = "I· know·\n·</think>·\n\n·four·<|im_end|>"


def template_with(name: str, **values: Any) -> ChatTemplate:
    tokenizer = thinking_templates.tokenizer_with(name)
    apply_template_values(tokenizer, values)
    return ChatTemplate(tokenizer)


def trained(template: ChatTemplate, comparison: Comparison) -> str:
    """The trained tokens, or the reason why there are none."""
    try:
        row = template.encode(comparison)
    except RowError as error:
        return error.reason
    # What is trained continues what a model is given to answer.
    assert list(row.prompt_ids) == template.prompt_ids(comparison.prompt)
    return "·".join(token.text for token in template.explain(row) if token.trained)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values", "plain", "reasoned"),
    [
        ("free", {}, "<think>·\n\n·</think>·\n\n·four·<|im_end|>", f"<think>·\n·{THOUGHT}"),
        ("free", {"enable_thinking": False}, "four·<|im_end|>", CLOSED),
        ("opens", {}, OPENED, THOUGHT),
        ("opens", {"enable_thinking": False}, "four·<|im_end|>", CLOSED),
        ("closes", {}, "four·<|im_end|>", CLOSED),
        ("closes", {"enable_thinking": True}, OPENED, THOUGHT),
        ("strips", {}, OPENED, NOT_RENDERED),
        ("plain", {}, "four·<|im_end|>", NOT_RENDERED),
    ],
)
def test_what_is_trained_continues_the_generation_prompt(
    name: str, values: dict[str, Any], plain: str, reasoned: str
) -> None:
    template = template_with(name, **values)
    assert trained(template, PLAIN) == plain
    assert trained(template, REASONED) == reasoned
    if name == "plain":  # text like any other
        assert trained(template, TAGGED).startswith("<think>")
    else:
        assert trained(template, TAGGED) == reasoned


@pytest.mark.parametrize(
    ("name", "values", "row", "way_out"),
    [
        ("opens", {}, PLAIN, "--chat-template-kwargs enable_thinking=false"),
        ("closes", {}, REASONED, "--chat-template-kwargs enable_thinking=true"),
        ("closes", {"enable_thinking": True}, PLAIN, "--chat-template-kwargs enable_thinking=false"),
        ("strips", {}, PLAIN, "--chat-template chatml"),
    ],
)
def test_a_row_that_cannot_be_trained_is_told_the_way_out(
    name: str, values: dict[str, Any], row: Comparison, way_out: str
) -> None:
    with pytest.raises(RowError) as caught:
        template_with(name, **values).encode(row)
    assert way_out in caught.value.detail


def test_channels_are_trained_and_read() -> None:
    template = template_with("channels")
    assert template.rendering.reasoning_field in ("reasoning_content", "thinking")  # as this transformers names it
    row = template.encode(REASONED)
    said = template.read(row.response_ids[0])
    assert said == Spoken("four", "I know")
    assert trained(template, TAGGED) == trained(template, REASONED)
    assert template.read(template.encode(PLAIN).response_ids[0]) == Spoken("four")
    begin_of_answer = len(row.response_ids[0]) - 2
    for length in range(2, begin_of_answer - 8):  # of which eight tokens name the final channel
        said = template.read(row.response_ids[0][:length])
        assert (said.response, said.finished) == ("", False)


@pytest.mark.parametrize("name", ["free", "opens", "closes"])
def test_what_a_model_thinks_is_read_apart(name: str) -> None:
    template = template_with(name)

    def read(text: str) -> Spoken:
        return template.read(template._token_ids([text])[0])

    if template.rendering.opens_thought:
        assert read("I know\n</think>\n\nfour<|im_end|>") == Spoken("four", "I know")
        assert read("I know") == Spoken("", "I know", finished=False)
        assert read("") == Spoken("", "", finished=False)
    else:
        assert read("four<|im_end|>") == Spoken("four")
        assert read("<think>\nI know") == Spoken("", "I know", finished=False)
    assert read("<think>\nI know\n</think>\n\nfour<|im_end|>") == Spoken("four", "I know")


def test_the_reasoning_of_earlier_turns_reaches_the_template() -> None:
    tokenizer = thinking_templates.tokenizer_with("free")
    tokenizer.chat_template = tokenizer.chat_template.replace(" and loop.last", "")
    template = ChatTemplate(tokenizer)
    history = (*QUESTION, Message("assistant", "four", "I know"), Message("user", "Hi"))
    shown = "".join(token.text for token in template.explain(template.encode(Comparison(history, ("Hello",)))))
    assert "<think>\nI know\n</think>\n\nfour" in shown


# ---- values for the template's switches ------------------------------------------------------------------------------


def test_values_are_saved_with_the_tokenizer_and_part_of_the_fingerprint(tmp_path: Path) -> None:
    template = template_with("opens", enable_thinking=False)
    template.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert template_values(loaded.chat_template)[0] == {"enable_thinking": "false"}
    assert ChatTemplate(loaded).encode(PLAIN) == template.encode(PLAIN)
    assert ChatTemplate(loaded).fingerprint == template.fingerprint
    assert template.fingerprint != template_with("opens").fingerprint
    # Other programs, which know nothing of preflab, render alike.
    chat = [{"role": "user", "content": "Hi"}]
    assert loaded.apply_chat_template(chat, tokenize=False, add_generation_prompt=True).endswith("</think>\n\n")
    asked = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
    assert loaded.apply_chat_template(chat, **asked).endswith("<think>\n")


def test_another_value_than_the_saved_one_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = thinking_templates.tokenizer_with("opens")
    apply_template_values(tokenizer, {"enable_thinking": False})
    apply_template_values(tokenizer, {"enable_thinking": False})
    assert capsys.readouterr().err == ""
    apply_template_values(tokenizer, {"enable_thinking": True})
    assert "was made with enable_thinking=false" in " ".join(capsys.readouterr().err.split())
    assert ChatTemplate(tokenizer).rendering.opens_thought
    assert tokenizer.chat_template.count("is defined %}{%- set enable_thinking") == 1


@pytest.mark.parametrize(
    "value", [True, False, None, 0, 1.5, "high", 'a "quoted" %} text', "ü 😀", ["a", None], {"b": {"c": True}}]
)
def test_any_json_value_reaches_the_template(value: Any) -> None:
    tokenizer = thinking_templates.tokenizer_with("plain")
    tokenizer.chat_template = "{{ effort | tojson }}|" + tokenizer.chat_template
    expected = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, effort=value)
    apply_template_values(tokenizer, {"effort": value})
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enable_thinkin": False}, "does not mention enable_thinkin.*did you mean enable_thinking"),
        ({"effort": "high"}, "does not mention effort.*it asks for enable_thinking"),
        ({"messages": []}, "messages cannot be set"),
        ({"eos_token": "x"}, "eos_token cannot be set"),
    ],
)
def test_values_that_would_change_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        template_with("opens", **values)


# ---- templates by name -----------------------------------------------------------------------------------------------


def test_a_list_of_templates_without_a_default_asks_which() -> None:
    tokenizer = tiny_tokenizers.qwen()
    own = {"rag": CHAT_TEMPLATES["human-assistant"], "tool_use": thinking_templates.TEMPLATES["plain"]}
    tokenizer.chat_template = dict(own)
    with pytest.raises(UserError, match=r"rag, tool_use.*none that is called default.*--chat-template rag"):
        apply_named_template(tokenizer, None)
    with pytest.raises(UserError, match="unknown chat template 'rags': choose one of rag, tool_use, chatml"):
        apply_named_template(tokenizer, "rags")
    apply_named_template(tokenizer, "tool_use")
    assert tokenizer.chat_template == own["tool_use"]
    assert trained(ChatTemplate(tokenizer), PLAIN) == "four·<|im_end|>"


def test_a_list_of_templates_with_a_default_needs_no_name() -> None:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = {"default": thinking_templates.TEMPLATES["opens"], "other": CHAT_TEMPLATES["chatml"]}
    apply_named_template(tokenizer, None)
    apply_template_values(tokenizer, {"enable_thinking": False})
    assert trained(ChatTemplate(tokenizer), PLAIN) == "four·<|im_end|>"


# ---- the templates themselves, as TRL ships them ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "rows"),
    [
        ("qwen3", {}, (PLAIN, REASONED, TAGGED)),
        ("qwen3_5_think", {}, (REASONED, TAGGED)),
        ("qwen3_5_think", {"enable_thinking": False}, (PLAIN,)),
        ("qwen3_5_nothink", {}, (PLAIN,)),
        ("qwen3_5_nothink", {"enable_thinking": True}, (REASONED, TAGGED)),
        ("qwen3_6", {"enable_thinking": False}, (PLAIN,)),
        ("nemotron_3_nano", {"enable_thinking": False}, (PLAIN,)),
        ("nemotron_3_nano", {}, (REASONED, TAGGED)),
        ("gptoss", {"reasoning_effort": "high"}, (PLAIN, REASONED, TAGGED)),
        ("glm4moe", {}, (PLAIN, REASONED, TAGGED)),
        ("qwen2_5", {}, (PLAIN, TAGGED)),
    ],
)
def test_rows_that_a_shipped_template_can_train(
    name: str, values: dict[str, Any], rows: tuple[Comparison, ...]
) -> None:
    tokenizer = tiny_tokenizers.qwen()
    try:
        tokenizer.chat_template = tiny_tokenizers.shipped_template(name)
    except FileNotFoundError:
        pytest.skip(f"this TRL does not ship {name}")
    apply_template_values(tokenizer, values)
    template = ChatTemplate(tokenizer)
    for row in (PLAIN, REASONED, TAGGED):
        if row not in rows:
            with pytest.raises(RowError):
                template.encode(row)
            continue
        encoded = template.encode(row)
        assert template.read(encoded.response_ids[0][:-1]) == Spoken("four", "" if row is PLAIN else "I know")
        assert list(encoded.prompt_ids) == template.prompt_ids(QUESTION)


# ---- templates that do not come to an end ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(10**12) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "does not come to an end"),
        ("{{ 10**(10**10) }}", "does not come to an end"),
        ("{% generation %}{{ 2**(2**40) }}{%- endgeneration -%}", "does not come to an end"),
        ("{{ 'a' * 10**10 }}", "more than 1 GiB of memory"),
        ("{{ 'a' | center(10**10) }}", "more than 1 GiB of memory"),
        ("{{ 'a' * 3*10**7 }}", "millions of characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}", "recursion"),
        ("{% for %}", "Expected an expression"),
        ("{{ messages[7].content }}", "fails on a plain exchange"),
        ("\ud800", "half a surrogate pair"),
        ("", "must begin what it renders"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_a_message(template: str, message: str) -> None:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=message):
        ChatTemplate(tokenizer)
