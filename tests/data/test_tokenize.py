"""The tokenisation contract: what is rendered, what of it is trained, and which rows are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import tiny_tokenizers
from dialogues import DIALOGUE, FAMILIES, RESPONSES, comparison, pythia_with_template
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from preflab.core.records import Comparison, Message, TokenizedComparison, UserError
from preflab.data.templates import CHAT_TEMPLATES, apply_named_template
from preflab.data.tokenize import ChatTemplate, Dropped

# Tokens are set apart by "·"; those before "=>" are the prompt, those after it are trained.
GOLDEN = {
    "qwen2.5": (
        "<|im_start|>·system·\n·Be· brief·.·<|im_end|>·\n·<|im_start|>·user·\n·Hello· there·<|im_end|>·\n·"
        "<|im_start|>·assistant·\n·Hi·!· How· can· I· help·?·<|im_end|>·\n·"
        "<|im_start|>·user·\n·What· is· two· plus· two·?·<|im_end|>·\n·<|im_start|>·assistant·\n"
        "=>Two· plus· two· is· four·.·<|im_end|>=>I· do· not· know·.·<|im_end|>"
    ),
    "llama3": (
        "<|begin_of_text|>·<|start_header_id|>·system·<|end_header_id|>·\n\n·Be· brief·.·<|eot_id|>·"
        "<|start_header_id|>·user·<|end_header_id|>·\n\n·Hello· there·<|eot_id|>·"
        "<|start_header_id|>·assistant·<|end_header_id|>·\n\n·Hi·!· How· can· I· help·?·<|eot_id|>·"
        "<|start_header_id|>·user·<|end_header_id|>·\n\n·What· is· two· plus· two·?·<|eot_id|>·"
        "<|start_header_id|>·assistant·<|end_header_id|>·\n\n"
        "=>Two· plus· two· is· four·.·<|eot_id|>=>I· do· not· know·.·<|eot_id|>"
    ),
    "gemma3": (
        "<bos>·<start_of_turn>·user·\n·Be· brief·.·\n\n·Hello· there·<end_of_turn>·\n·"
        "<start_of_turn>·model·\n·Hi·!· How· can· I· help·?·<end_of_turn>·\n·"
        "<start_of_turn>·user·\n·What· is· two· plus· two·?·<end_of_turn>·\n·<start_of_turn>·model·\n"
        "=>Two· plus· two· is· four·.·<end_of_turn>=>I· do· not· know·.·<end_of_turn>"
    ),
    "mistral": (
        "<s>·[INST]· Hello· there·[/INST]· Hi·!· How· can· I· help·?·</s>·"
        "[INST]· What· is· two· plus· two·?·[/INST]"
        "=> Two· plus· two· is· four·.·</s>=> I· do· not· know·.·</s>"
    ),
    "pythia": (
        "Be· brief·.·\n·\n·Human·:· Hello· there·\n·\n·Assistant·:· Hi·!· How· can· I· help·?·"
        "\n·\n·Human·:· What· is· two· plus· two·?·\n·\n·Assistant·:"
        "=> Two· plus· two· is· four·.·<|endoftext|>=> I· do· not· know·.·<|endoftext|>"
    ),
}


def shown(template: ChatTemplate, row: TokenizedComparison) -> str:
    prompt = [token.text for token in template.explain(row) if not token.trained]
    sides = [template.explain(row, side) for side in range(len(row.response_ids))]
    return "=>".join("·".join(texts) for texts in (prompt, *([t.text for t in side if t.trained] for side in sides)))


# ---- golden rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_row_token_by_token(family: str) -> None:
    tokenizer = FAMILIES[family]()
    template = ChatTemplate(tokenizer)
    row = template.encode(comparison(family))
    assert shown(template, row) == GOLDEN[family]
    assert row.row == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_the_tokenizer_s_own_chat_template_up_to_the_terminator(family: str) -> None:
    tokenizer = FAMILIES[family]()
    template = ChatTemplate(tokenizer)
    given = comparison(family)
    row = template.encode(given)
    messages = [{"role": message.role, "content": message.content} for message in given.prompt]
    for response, ids in zip(given.responses, row.response_ids, strict=True):
        chat = [*messages, {"role": "assistant", "content": response}]
        rendered = tokenizer.apply_chat_template(chat, return_dict=False)
        end = len(row.prompt_ids) + len(ids)
        assert rendered[:end] == [*row.prompt_ids, *ids]
        assert tokenizer.decode(rendered[end:]).strip() == ""
    assert template.prompt_ids(given.prompt) == list(row.prompt_ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_terminator_is_trained_and_it_stops_generation(family: str) -> None:
    template = ChatTemplate(FAMILIES[family]())
    for ids in template.encode(comparison(family)).response_ids:
        assert ids[-1] == template.terminator_id
        assert ids.count(template.terminator_id) == 1
    assert template.stop_ids[0] == template.terminator_id
    assert template.tokenizer.eos_token_id in template.stop_ids


@pytest.mark.parametrize("family", FAMILIES)
def test_decode_gives_back_the_response(family: str) -> None:
    template = ChatTemplate(FAMILIES[family]())
    row = template.encode(comparison(family))
    assert tuple(template.decode(ids) for ids in row.response_ids) == RESPONSES
    assert template.decode(row.response_ids[0][:-1]) == RESPONSES[0]


def test_terminator_that_is_also_the_pad_token_is_trained() -> None:
    template = ChatTemplate(pythia_with_template())
    assert template.tokenizer.pad_token_id == template.terminator_id
    assert template.encode(comparison()).response_ids[0][-1] == template.tokenizer.pad_token_id


# ---- BOS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama3", "gemma3", "mistral"])
@pytest.mark.parametrize("name", [None, *CHAT_TEMPLATES])
def test_bos_is_rendered_once_for_models_that_need_it(family: str, name: str | None) -> None:
    tokenizer = FAMILIES[family]()
    apply_named_template(tokenizer, name)
    template = ChatTemplate(tokenizer)
    row = template.encode(comparison(family))
    assert (*row.prompt_ids, *row.response_ids[0]).count(tokenizer.bos_token_id) == 1
    assert row.prompt_ids[0] == tokenizer.bos_token_id


def test_named_template_renders_no_bos_for_a_model_trained_without() -> None:
    template = ChatTemplate(pythia_with_template())
    assert template.tokenizer.bos_token_id is not None
    assert template.tokenizer.bos_token_id not in template.encode(comparison()).prompt_ids


def test_missing_bos_is_not_spelled_none() -> None:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = "{{ bos_token }}" + CHAT_TEMPLATES["chatml"]
    template = ChatTemplate(tokenizer)
    assert tokenizer.bos_token is None
    assert shown(template, template.encode(comparison())) == GOLDEN["qwen2.5"]


# ---- named templates and terminators ---------------------------------------------------------------------------------


def test_named_chatml_equals_the_family_s_own_where_the_marks_are_tokens() -> None:
    tokenizer = tiny_tokenizers.qwen()
    apply_named_template(tokenizer, "chatml")
    template = ChatTemplate(tokenizer)
    assert shown(template, template.encode(comparison())) == GOLDEN["qwen2.5"]


def test_chatml_without_its_marks_ends_in_eos() -> None:
    tokenizer = tiny_tokenizers.pythia()
    apply_named_template(tokenizer, "chatml")
    template = ChatTemplate(tokenizer)
    row = template.encode(Comparison((Message("user", "Hello"),), RESPONSES))
    prompt, response, _ = shown(template, row).split("=>")
    assert prompt.replace("·", "") == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert response == "Two· plus· two· is· four·.·<|endoftext|>"
    assert template.decode(row.response_ids[0]) == RESPONSES[0]


def test_human_assistant_trims_around_turns() -> None:
    template = ChatTemplate(pythia_with_template())
    padded = Comparison((Message("user", " Hello \n"),), (" Hi!\n\n", "\n I do not know. "))
    plain = Comparison((Message("user", "Hello"),), ("Hi!", "I do not know."))
    assert template.encode(padded) == template.encode(plain)


def test_named_template_is_saved_with_the_tokenizer(tmp_path) -> None:
    tokenizer = tiny_tokenizers.pythia()
    apply_named_template(tokenizer, "human-assistant")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    apply_named_template(loaded, None)
    assert ChatTemplate(loaded).encode(comparison()) == ChatTemplate(tokenizer).encode(comparison())
    assert ChatTemplate(loaded).fingerprint == ChatTemplate(AutoTokenizer.from_pretrained(tmp_path)).fingerprint


def test_a_name_wins_over_the_tokenizer_s_template_and_none_keeps_it() -> None:
    tokenizer = tiny_tokenizers.qwen()
    own = tokenizer.chat_template
    apply_named_template(tokenizer, None)
    assert tokenizer.chat_template == own
    apply_named_template(tokenizer, "human-assistant")
    assert tokenizer.chat_template == CHAT_TEMPLATES["human-assistant"]


def test_no_template_and_no_name_lists_the_names() -> None:
    tokenizer = tiny_tokenizers.pythia()
    for attempt in (lambda: apply_named_template(tokenizer, None), lambda: ChatTemplate(tokenizer)):
        with pytest.raises(UserError, match=r"no chat template.*chatml, human-assistant"):
            attempt()
    with pytest.raises(UserError, match=r"'chatlm'.*chatml, human-assistant"):
        apply_named_template(tokenizer, "chatlm")


def test_eos_is_added_where_the_template_ends_no_turn() -> None:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
    template = ChatTemplate(tokenizer)
    row = template.encode(comparison())
    assert shown(template, row).split("=>")[1] == " Two· plus· two· is· four·.·<|im_end|>"


def test_nothing_that_could_end_a_turn_is_refused() -> None:
    tokenizer = pythia_with_template()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"nothing would end a response.*eos_token"):
        ChatTemplate(tokenizer)


def test_added_white_space_tokens_are_no_terminator() -> None:
    tokenizer = tiny_tokenizers.gemma3()  # "\n\n" is an added token, as in the real one
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant:{% endif %}"
    template = ChatTemplate(tokenizer)
    assert template.terminator_id == tokenizer.eos_token_id


def test_qwen3_s_empty_thinking_is_trained_and_not_decoded() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen("qwen3"))
    row = template.encode(comparison())
    prompt, response, _ = shown(template, row).split("=>")
    assert prompt.endswith("<|im_start|>·assistant·\n")
    assert "think" not in prompt
    assert response == "<think>·\n\n·</think>·\n\n·Two· plus· two· is· four·.·<|im_end|>"
    assert template.decode(row.response_ids[0]) == RESPONSES[0]


def test_template_with_the_date_renders_the_same_every_day() -> None:
    tokenizer = tiny_tokenizers.qwen()
    dated = "{{ '<|im_start|>system\n' + strftime_now('%d %b %Y') + '|' + strftime_now('%Y-%m-%d') + '<|im_end|>\n' }}"
    tokenizer.chat_template = dated + CHAT_TEMPLATES["chatml"]
    template = ChatTemplate(tokenizer)
    assert "26 Jul 2024|2024-07-26" in tokenizer.decode(template.prompt_ids(DIALOGUE))


def test_template_that_cannot_render_an_exchange_is_refused_at_once() -> None:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = "{{ raise_exception('only tools are served') }}"
    with pytest.raises(UserError, match="only tools are served"):
        ChatTemplate(tokenizer)
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="must begin what it renders with a response"):
        ChatTemplate(tokenizer)


def test_slow_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="fast tokenizer"):
        ChatTemplate(SimpleNamespace(is_fast=False, name_or_path="old"))


# ---- many rows, foreign settings, fingerprint ------------------------------------------------------------------------


@pytest.mark.slow
def test_many_rows_are_encoded_as_one_by_one_in_order_and_lazily() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    rows: list[Comparison | Dropped] = [
        comparison(row=n, responses=(f"Hi {n}", f"No {n}" if n % 5 else "")) if n % 7 else Dropped(n, "unreadable")
        for n in range(1, 601)
    ]
    taken = []

    def source():
        for row in rows:
            taken.append(row)
            yield row

    results = template.encode_many(source(), max_length=25)
    first = next(results)
    assert len(taken) < 300
    for given, result in zip(rows, [first, *results], strict=True):
        if isinstance(given, Dropped):
            assert result is given
        elif given.responses[1]:
            assert result == template.encode(given, max_length=25)
        else:
            assert isinstance(result, Dropped)
            assert (result.row, result.reason) == (given.row, "empty response")


def test_truncation_and_padding_left_in_the_tokenizer_do_not_leak() -> None:
    tokenizer = tiny_tokenizers.qwen()
    template = ChatTemplate(tokenizer)
    expected, fingerprint = template.encode(comparison()), template.fingerprint
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=100)
    tokenizer.backend_tokenizer.encode_special_tokens = True
    assert template.encode(comparison()) == expected
    again = ChatTemplate(tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(4)
    assert again.fingerprint == fingerprint


def test_fingerprint_tells_vocabulary_template_and_special_tokens_apart() -> None:
    def changed(change: Callable[[PreTrainedTokenizerFast], object]) -> str:
        tokenizer = tiny_tokenizers.qwen()
        change(tokenizer)
        return ChatTemplate(tokenizer).fingerprint

    prints = [
        changed(lambda _: None),
        changed(lambda tokenizer: tokenizer.add_tokens(["brief."])),
        changed(lambda tokenizer: apply_named_template(tokenizer, "chatml")),
        changed(lambda tokenizer: setattr(tokenizer, "eos_token", "<|endoftext|>")),
    ]
    assert len(set(prints)) == len(prints)
    assert changed(lambda _: None) == prints[0]


def test_explain_shows_pieces_of_a_character() -> None:
    template = ChatTemplate(tiny_tokenizers.qwen())
    row = template.encode(comparison(responses=("é", "Hi")))
    assert [token.text for token in template.explain(row) if token.trained] == ["Ã", "©", "<|im_end|>"]
    assert [token.id for token in template.explain(row)] == [*row.prompt_ids, *row.response_ids[0]]
