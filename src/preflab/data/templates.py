"""Named chat templates for models that come without one."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from preflab.core.records import UserError
from preflab.core.terminal import say

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

    A name is one of the tokenizer's own list of templates, where it brings a list, or one of `CHAT_TEMPLATES`. It wins
    over a template that the tokenizer brings, since the user asked for it; None keeps the tokenizer's own.
    Where the tokenizer puts BOS before plain text (Llama, Gemma, Mistral), its model was trained to expect one, so a
    template of `CHAT_TEMPLATES` renders it, once.

    Raises:
        UserError: the name is unknown, or none is given for a tokenizer without a template, or without a default one.
    """
    brought = tokenizer.chat_template
    own: Mapping[str, str] = brought if isinstance(brought, dict) else {}
    if name is None:
        if not brought:
            raise UserError(no_template_message(tokenizer))
        if own and "default" not in own:
            raise UserError(
                f"{_name(tokenizer)} has the chat templates {', '.join(own)}, and none that is called default: choose "
                f"one of them, as in --chat-template {next(iter(own))}"
            )
    elif name in own:
        tokenizer.chat_template = own[name]
    elif name in CHAT_TEMPLATES:
        tokenizer.chat_template = ("{{ bos_token }}" if _puts_bos_first(tokenizer) else "") + CHAT_TEMPLATES[name]
    else:
        raise UserError(
            f"unknown chat template {name!r}: choose one of {', '.join(dict.fromkeys((*own, *CHAT_TEMPLATES)))}"
        )


# ---- values that a template is told (chat_template_kwargs) ---------------------------------------------------------

_DEFAULT = re.compile(r"\{%- if not (\w+) is defined %\}\{%- set \1 = (.*?) %\}\{%- endif %\}\n")
_NOT_TO_BE_SET = {
    *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "conversation", "message"),
    *("strftime_now", "raise_exception", "namespace", "loop", "content", "role"),
}
"""Names that mean something else in every template."""


def apply_template_values(tokenizer: PreTrainedTokenizerBase, values: Mapping[str, Any]) -> None:
    """Have the chat template of `tokenizer` take `values` for its variables (`enable_thinking`, say).

    They become defaults in the template's own text: so they are saved with the tokenizer, and every program asks a
    model with what it was trained with. Says so where a model was trained with another value.

    Raises:
        UserError: the template does not mention a name, or the name is not one to be set.
    """
    if not values:
        return
    template = str(tokenizer.get_chat_template())
    earlier, body = template_values(template)
    for name, value in values.items():
        if name in _NOT_TO_BE_SET or name in tokenizer.special_tokens_map:
            raise UserError(f"chat_template_kwargs: {name} cannot be set: every rendering gives it its own value")
        if not re.search(rf"\b{re.escape(name)}\b", body):
            known = sorted({*re.findall(r"(?<![\w.])([A-Za-z_]\w*) is (?:not )?defined", body)} - _NOT_TO_BE_SET)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it asks for {', '.join(known)}" if known else ""
            raise UserError(
                f"chat_template_kwargs: the chat template of {_name(tokenizer)} does not mention {name}, so that would "
                f"change nothing{hint}"
            )
        if earlier.get(name, literal := _literal(value)) != literal:
            say(
                f"{_name(tokenizer)}: its chat template was made with {name}={earlier[name]}, and is used here with "
                f"{name}={literal}"
            )
    merged = earlier | {name: _literal(value) for name, value in values.items()}
    # The line break goes with the tag before it, as transformers sets Jinja up.
    defaults = (
        f"{{%- if not {name} is defined %}}{{%- set {name} = {value} %}}{{%- endif %}}\n"
        for name, value in merged.items()
    )
    tokenizer.chat_template = "".join(defaults) + body


def template_values(template: str) -> tuple[dict[str, str], str]:
    """The values that `apply_template_values` wrote in front of a template, as Jinja has them, and the template."""
    found: dict[str, str] = {}
    end = 0
    while match := _DEFAULT.match(template, end):
        found[match[1]], end = match[2], match.end()
    return found, template[end:]


def _literal(value: Any) -> str:
    """A value from JSON as Jinja writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(name)}: {_literal(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


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
    return f"{_name(tokenizer)} has no chat template: choose one of {', '.join(CHAT_TEMPLATES)}"


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.name_or_path or "the tokenizer"


def _puts_bos_first(tokenizer: PreTrainedTokenizerBase) -> bool:
    # Its behaviour is asked, since `add_bos_token` is absent, or untrue, where the post-processor adds the token.
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
