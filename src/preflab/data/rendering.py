"""Messages to text by a tokenizer's chat template, and what that template is seen to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from preflab.core.records import Message, RowError, UserError
from preflab.data.template_guard import refuse_endless
from preflab.data.thinking import TAGS, find_reasoning, spoken

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "Preflabprobe"
_THOUGHT = "Preflabthought"
_QUESTION = Message("user", "Hello")

# Some templates (Llama 3.1, Mistral Small) write today's date into the prompt. Tokens that change overnight would make
# every cache stale and no run repeatable, so templates are told this date, the one Llama's own falls back to.
_DATE = {"%d": "26", "%-d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%y": "24", "%Y": "2024"} | {
    **{"%A": "Friday", "%a": "Fri", "%H": "12", "%M": "00", "%S": "00", "%j": "208"}
}
_FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{text}')" for code, text in _DATE.items())
    + " }}{% endmacro %}"
)

SWITCHES = ("enable_thinking", "thinking")
"""What templates call the value that turns thinking on or off."""
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""What templates call the reasoning of a message, the usual name first."""

OPENED = "the response does not continue the thought that the prompt opens"
CLOSED = "the response begins a thought, and the prompt closes it"
NOT_RENDERED = "reasoning is not rendered by the chat template"
NOT_A_PREFIX = "the prompt is not a prefix"


class Rendering:
    """A tokenizer's chat template: messages to text.

    Attributes:
        name: of the tokenizer, for messages.
        template: the template's text.
        lead: what it renders between the generation prompt and the assistant's text; None where a plain response does
            not continue the generation prompt.
        tail: what it renders after the assistant's text.
        opens_thought: whether its generation prompt ends within a thought.
        closes_thought: whether its generation prompt holds a thought that is over, so that the model answers at once.
        reasoning_field: the field of a message from which it renders reasoning, None where it renders none.
        reads_tags: whether it renders a thought within the text (`<think>…</think>` in front) as it does that field.
        tags: what stands before and behind a thought, the template's own tags among them.

    Raises:
        UserError: the template cannot render one exchange, or does not come to an end.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self.name = name
        self._tokenizer = tokenizer
        template = str(tokenizer.get_chat_template())
        refuse_endless(template, name)
        self.template = _FIXED_DATE + template if "strftime_now" in template else template
        self.reasoning_field: str | None = None
        prompt, whole = self._exchange()
        thought = find_reasoning(_from_last_tag(prompt.rpartition(_QUESTION.content)[2]))
        self.opens_thought = not thought.finished
        self.closes_thought = thought.finished and bool(thought.thoughts)
        before, probe, self.tail = whole.rpartition(PROBE)
        self.lead = before[len(prompt) :] if before.startswith(prompt) else None
        if not probe or (self.lead is None and not self.opens_thought):
            raise UserError(
                f"{name}: what the chat template renders with a generation prompt must begin what it renders with"
                f" a response, but it renders {prompt!r} and {whole!r}"
            )
        self.reads_tags, self.tags = True, TAGS
        self._probe_reasoning()

    def _exchange(self) -> tuple[str, str]:
        """A question with its generation prompt, and with its answer."""
        try:
            return (
                self.render([_QUESTION], open_turn=True),
                self.render([_QUESTION, Message("assistant", PROBE)]),
            )
        except RowError as error:
            raise UserError(f"{self.name}: the chat template fails on a plain exchange: {error.detail}") from error

    def _probe_reasoning(self) -> None:
        """Find out where reasoning is rendered from, and the tags around it, the template's own among them."""
        prompt = self.render([_QUESTION], open_turn=True)
        tagged = Message("assistant", f"<think>\n{_THOUGHT}\n</think>\n\n{PROBE}")
        for field in _REASONING_FIELDS:
            try:
                whole = self.render([_QUESTION, Message("assistant", PROBE, _THOUGHT)], reasoning_field=field)
                within = self.render([_QUESTION, tagged])
            except RowError:
                continue
            before, found, rest = whole.partition(_THOUGHT)
            if found and PROBE in rest:
                self.reasoning_field = field
                self.reads_tags = _unspaced(within) == _unspaced(whole)
                closing = rest.rpartition(PROBE)[0].strip()
                opening = before[len(prompt) :].strip() if before.startswith(prompt) else ""
                if opening and closing:
                    self.tags = {**TAGS, opening: closing}
                return

    def turn(self, response: str, reasoning: str = "") -> Message:
        """A response as the assistant's turn; a thought within its text is its reasoning where the template would
        render it as text.
        """
        split = find_reasoning(response)
        if split.thoughts and split.finished and not reasoning and self.reasoning_field and not self.reads_tags:
            found = spoken(response, split)
            return Message("assistant", found.response, found.reasoning)
        return Message("assistant", response, reasoning)

    def render(
        self,
        messages: Sequence[Message],
        *,
        open_turn: bool = False,
        reasoning_field: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation; with `open_turn`, up to where the assistant is to speak. Raises RowError."""
        field = reasoning_field or self.reasoning_field
        chat = [
            {"role": message.role, "content": message.content}
            | ({field: message.reasoning} if field and message.reasoning else {})
            for message in messages
        ]
        try:
            text = self._tokenizer.apply_chat_template(
                chat,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=open_turn,
                **(values or {}),
            )
            assert isinstance(text, str)
            text.encode()
        except UnicodeEncodeError as error:
            raise RowError("not valid Unicode", f"half a surrogate pair, {error.object[error.start]!a}") from error
        except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TemplateError) as error:
            raise _refusal(error, messages) from error
        except (TypeError, ValueError) as error:
            raise _refusal(error, messages) from error
        return text

    def refusal_of(self, *, thinks: bool, found: str) -> RowError:
        """Why a conversation that does not continue its generation prompt cannot be trained, and the way out."""
        if self.opens_thought or (self.closes_thought and thinks):
            return RowError(OPENED if self.opens_thought else CLOSED, f"{found}; {self._way_out(thinks)}")
        return RowError(NOT_A_PREFIX, found)

    def _way_out(self, thinks: bool) -> str:
        turn = Message("assistant", PROBE, _THOUGHT if thinks else "")
        for name in filter(self.template.__contains__, SWITCHES):
            for value in (False, True):
                try:
                    prompt = self.render([_QUESTION], open_turn=True, values={name: value})
                    whole = self.render([_QUESTION, turn], values={name: value})
                except RowError:
                    continue
                # A line break at the end of a prompt may become one token with what follows it.
                if prompt == self.render([_QUESTION], open_turn=True):  # which would change nothing
                    continue
                if whole.startswith(prompt) and not re.match(r"\s", whole[len(prompt) :]):
                    what = "with" if thinks else "without"
                    return (
                        f"the template's own {name} renders turns {what} reasoning so that they can be trained: "
                        f"--chat-template-kwargs {name}={json.dumps(value)}"
                    )
        return "the template has no switch that would help: choose another one, such as --chat-template chatml"


def _unspaced(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _from_last_tag(text: str) -> str:
    """`text` from the last opening tag of a thought on; empty where there is none."""
    return text[max((text.rfind(tag) for tag in TAGS if tag in text), default=len(text)) :]


def _refusal(error: Exception, messages: Sequence[Message]) -> RowError:
    # A template is a program: on messages it does not expect it fails in its own ways.
    roles = ", ".join(message.role for message in messages)
    return RowError("refused by the chat template", f"{error or type(error).__name__} (roles: {roles})")
