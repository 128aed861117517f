"""Small chat templates of the shapes that models which think come with, and a tokenizer for them."""

from __future__ import annotations

import tiny_tokenizers
from transformers import PreTrainedTokenizerFast

_TURNS = (
    "{%- for message in messages %}"
    "{%- set text = message.content %}{%- set thought = message.reasoning_content or '' %}"
    "{%- if not thought and '</think>' in text %}"
    "{%- set thought = text.split('</think>')[0].split('<think>')[-1] | trim %}"
    "{%- set text = text.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' and loop.last %}"
    "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- text + '<|im_end|>\\n' }}{%- endfor %}"
)
_START = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
_CLOSED = "{{- '<think>\\n\\n</think>\\n\\n' }}"
_OPENED = "{{- '<think>\\n' }}"

TEMPLATES = {
    # Qwen 3: the model opens the thought itself.
    "free": _TURNS
    + _START
    + "{%- if enable_thinking is defined and enable_thinking is false %}"
    + _CLOSED
    + "{%- endif %}{%- endif %}",
    # Qwen 3.5 and 3.6: the generation prompt opens it, unless told otherwise.
    "opens": _TURNS
    + _START
    + "{%- if enable_thinking is defined and enable_thinking is false %}"
    + _CLOSED
    + "{%- else %}"
    + _OPENED
    + "{%- endif %}{%- endif %}",
    # Qwen 3.5, the small ones: the generation prompt closes it, unless told otherwise.
    "closes": _TURNS
    + _START
    + "{%- if enable_thinking is defined and enable_thinking is true %}"
    + _OPENED
    + "{%- else %}"
    + _CLOSED
    + "{%- endif %}{%- endif %}",
    # DeepSeek-R1: opened by the prompt, and cut out of what is rendered.
    "strips": (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
        "{%- if message.role == 'assistant' %}{{- message.content.split('</think>')[-1] + '<|im_end|>' }}"
        "{%- else %}{{- message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
        + _START
        + _OPENED
        + "{%- endif %}"
    ),
    # gpt-oss: channels, and the reasoning in a field of another name.
    "channels": (
        "{%- for message in messages %}{%- if message.role != 'assistant' %}"
        "{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{%- else %}"
        "{%- if message.thinking and loop.last %}"
        "{{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}{%- endif %}"
        "{{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}"
        "{{- '<|return|>' if loop.last else '<|end|>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"
    ),
    # No thought at all.
    "plain": (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{%- endfor %}" + _START + "{%- endif %}"
    ),
}
CHANNEL_MARKS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]


def tokenizer_with(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of Qwen's kind with one of the templates; the channels' marks are special tokens of it."""
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = TEMPLATES[name]
    if name == "channels":
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", *CHANNEL_MARKS]})
    return tokenizer
