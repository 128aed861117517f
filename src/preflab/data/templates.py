"""Named chat templates for models that come without one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from preflab.records import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Both trim the white space around a turn: it carries no meaning, and at the start of a response it would merge with
# the end of the prompt into one token.
CHAT_TEMPLATES: dict[str, str] = {
    "chatml": (
        r"{% for message in messages %}"
        r"{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}"
        r"{% endfor %}"
        r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    # The transcripts of Anthropic's HH data (Bai et al. 2022). The next speaker's name ends an earlier turn, EOS the
    # last. The space after "Assistant:" is the response's, since in most vocabularies it is part of the first word.
    "human-assistant": (
        r"{% for message in messages %}"
        r"{% if message['role'] == 'system' %}{{ message['content'] | trim }}"
        r"{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] | trim }}"
        r"{% else %}{{ '\n\nAssistant: ' + message['content'] | trim }}{% if loop.last %}{{ eos_token }}{% endif %}"
        r"{% endif %}{% endfor %}"
        r"{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
    ),
}


def apply_named_template(tokenizer: PreTrainedTokenizerBase, name: str | None) -> None:
    """Give `tokenizer` the chat template called `name`, so that it is saved with the tokenizer and used everywhere.

    A name wins over a template that the tokenizer brings, since the user asked for it; None keeps the tokenizer's own.
    Where the tokenizer puts BOS before plain text (Llama, Gemma, Mistral), its model was trained to expect one, so the
    named template renders it, once.

    Raises:
        UserError: the name is unknown, or none is given for a tokenizer without a template.
    """
    if name is None:
        if tokenizer.chat_template is None:
            raise UserError(no_template_message(tokenizer))
        return
    if name not in CHAT_TEMPLATES:
        raise UserError(f"unknown chat template {name!r}: choose one of {', '.join(CHAT_TEMPLATES)}")
    tokenizer.chat_template = ("{{ bos_token }}" if _puts_bos_first(tokenizer) else "") + CHAT_TEMPLATES[name]


def end_at_terminator(template: str, tail: str, terminator: str) -> str:
    """`template`, with `terminator` in place of the `tail` that it renders after a last turn of the assistant."""
    if tail == terminator:
        return template
    last = "not add_generation_prompt and messages[-1]['role'] == 'assistant' and rendered.endswith(tail)"
    return (
        f"{{% set rendered %}}{template}{{% endset %}}{{% set tail = {json.dumps(tail)} %}}"
        f"{{% if {last} %}}{{{{ rendered[:rendered | length - tail | length] + {json.dumps(terminator)} }}}}"
        "{% else %}{{ rendered }}{% endif %}"
    )


def no_template_message(tokenizer: PreTrainedTokenizerBase) -> str:
    return (
        f"{tokenizer.name_or_path or 'the tokenizer'} has no chat template: choose one of {', '.join(CHAT_TEMPLATES)}"
    )


def _puts_bos_first(tokenizer: PreTrainedTokenizerBase) -> bool:
    # Its behaviour is asked, since `add_bos_token` is absent, or untrue, where the post-processor adds the token.
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
