"""THE rule that turns messages into token ids: chat template, BOS, terminator and truncation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from typing import TYPE_CHECKING, Literal, NamedTuple

from preflab.core.records import Comparison, Message, RowError, TokenizedComparison, UserError
from preflab.data.rendering import NOT_RENDERED, Rendering
from preflab.data.templates import end_at_terminator, no_template_message
from preflab.data.thinking import TAGS, Span, Spoken, find_reasoning, spoken

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

OnTooLong = Literal["drop", "raise"]

TOO_LONG = "too long"
_THOUGHT_MARKS = {*TAGS, *TAGS.values()}
_CHUNK = 256  # comparisons tokenised at once: enough to keep all threads busy, few enough to keep memory flat


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that cannot be used. `reason` is a short constant phrase to count by, `detail` shows what was found."""

    row: int
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}" + (f": {self.detail}" if self.detail else "")


class ExplainedToken(NamedTuple):
    """One token of a rendered row. `trained` says whether it is a target of the loss."""

    text: str
    id: int
    trained: bool


class ChatTemplate:
    """A tokenizer with its chat template: one object for training, generation and scoring.

    A response's ids are what the template renders after the generation prompt, up to and including the first control
    token after the assistant's text: the *terminator*. Where the template renders none, the tokenizer's EOS takes the
    place of whatever it renders after the text. Nothing else is added: BOS appears as often as the template renders it.

    With `whole_turn`, for reward models, a response goes on to the end of all that the template renders, as others read
    theirs: at the last token of the rendered conversation, whatever it is, save any `unread_id` at its end, which
    transformers passes over as padding.

    Attributes:
        tokenizer: the tokenizer given; its chat template is read once, here.
        terminator_id: the id that ends every response.

    Raises:
        UserError: the tokenizer has no chat template, the template cannot render one exchange, or nothing ends a turn.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        own_stop_ids: Sequence[int] = (),
        whole_turn: bool = False,
        unread_id: int | None = None,
    ) -> None:
        """`own_stop_ids` are those that the model's files name, besides the template's and the tokenizer's."""
        self.tokenizer = tokenizer
        self.whole_turn = whole_turn
        self._own_stop_ids = tuple(own_stop_ids)
        self.unread_id = unread_id
        self._name = tokenizer.name_or_path or "the tokenizer"
        if not tokenizer.is_fast:
            raise UserError(
                f"{self._name}: a fast tokenizer (tokenizer.json) is needed, not {type(tokenizer).__name__}"
            )
        if tokenizer.chat_template is None:
            raise UserError(no_template_message(tokenizer))
        self.rendering = Rendering(tokenizer, self._name)
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._added = {token_id: token.content for token_id, token in tokenizer.added_tokens_decoder.items()}
        self._lead, self._tail = self.rendering.lead, self.rendering.tail
        self.terminator_id, self._untrained_tail = self._find_terminator()
        special = (token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special)
        self._control_tokens = {
            token_id: self._backend.id_to_token(token_id) or ""
            for token_id in (*special, *tokenizer.all_special_ids, self.terminator_id)
        }

    def _find_terminator(self) -> tuple[int, str]:
        """The terminator's id, and the end of `_tail` that is not trained."""
        for token_id in self._token_ids([self._tail])[0]:
            mark = self._added.get(token_id, "")
            if mark.strip():  # some vocabularies hold runs of white space as added tokens
                return token_id, self._tail.split(mark, 1)[1]
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                f"{self._name}: nothing would end a response: the chat template renders no special token after the"
                f" assistant's text (it renders {self._tail!r}) and the tokenizer has no eos_token; set one of them"
            )
        return self.tokenizer.eos_token_id, self._tail

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end generation: the terminator, then the tokenizer's EOS and the model's own, each once."""
        eos = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys([self.terminator_id, *([] if eos is None else [eos]), *self._own_stop_ids]))

    @property
    def stops(self) -> dict[str, list[int]]:
        """Ids beyond terminator and EOS that end generation, which `fingerprint` does not know of; empty without any.

        Responses are made from these as well as from the tokenizer and its template.
        """
        others = set(self._own_stop_ids) - {self.terminator_id, self.tokenizer.eos_token_id}
        return {"stop_ids": sorted(others)} if others else {}

    @cached_property
    def ending_at_terminator(self) -> str:
        """The chat template, save that a conversation that ends with the assistant's turn ends with its terminator.

        Other tools score a whole rendered conversation at its last token. With this template that is the token that a
        reward model of ours was trained at, not a line break after it. A model that is read there is trained there.
        """
        return str(self.tokenizer.get_chat_template()) if self.whole_turn else self.ending_with("")

    def ending_with(self, mark: str) -> str:
        """The chat template, save that it renders terminator and `mark` at the end of a last turn of the assistant."""
        terminator = "" if self._untrained_tail != self._tail else self.tokenizer.eos_token
        return end_at_terminator(str(self.tokenizer.get_chat_template()), self._untrained_tail, terminator + mark)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that decides the ids: the tokenizer's vocabulary and rules, template, special tokens."""
        specials = {**self.tokenizer.special_tokens_map, "terminator": self.terminator_id}
        if self.whole_turn:
            specials["read"] = f"whole turn but {self.unread_id}"
        parts = (self._clean_backend().to_str(), self.rendering.template, json.dumps(specials, sort_keys=True))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def prompt_ids(self, messages: Sequence[Message], *, max_prompt_length: int | None = None) -> list[int]:
        """Ids of a prompt for a model to answer, cut as in training. Raises RowError."""
        (ids,) = self._token_ids([self.rendering.render(messages, open_turn=True)])
        self._refuse_control_tokens(ids, messages)
        return self._cut_prompt(ids, longest=0, max_length=None, max_prompt_length=max_prompt_length)

    def encode(
        self, comparison: Comparison, *, max_length: int | None = None, max_prompt_length: int | None = None
    ) -> TokenizedComparison:
        """Token ids of a comparison, whose responses all continue the same prompt ids.

        Too long a prompt loses its oldest tokens, except a leading BOS; a response is never cut.

        Args:
            comparison: the row.
            max_length: most tokens of the prompt and any one response together; None for no limit.
            max_prompt_length: most tokens of the prompt, BOS included; None for no limit.

        Raises:
            RowError: the row cannot be used as it stands.
        """
        return self._assemble(comparison, self._token_ids(self._texts(comparison)), max_length, max_prompt_length)

    def encode_many(
        self,
        comparisons: Iterable[Comparison | Dropped],
        *,
        max_length: int | None = None,
        max_prompt_length: int | None = None,
        on_too_long: OnTooLong = "drop",
    ) -> Iterator[TokenizedComparison | Dropped]:
        """`encode` for any number of rows, on all cores, in flat memory and in order. Unusable rows come as Dropped.

        Raises:
            UserError: a row is too long and `on_too_long` is "raise".
        """
        remaining = iter(comparisons)
        while chunk := list(islice(remaining, _CHUNK)):
            for result in self._encode_chunk(chunk, max_length, max_prompt_length):
                if on_too_long == "raise" and isinstance(result, Dropped) and result.reason == TOO_LONG:
                    raise UserError(f"{result}, or set on_too_long to 'drop'")
                yield result

    def explain(self, row: TokenizedComparison, response: int = 0) -> list[ExplainedToken]:
        """The prompt and one response of a row, token by token."""
        prompt = [ExplainedToken(self._token_text(i), i, False) for i in row.prompt_ids]
        return prompt + [ExplainedToken(self._token_text(i), i, True) for i in row.response_ids[response]]

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids as they stand, without control tokens."""
        return self._backend.decode([i for i in ids if i not in self._control_tokens], skip_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a response, trained on or generated: the answer alone, as `read` finds it."""
        return self.read(ids).response

    def read(self, ids: Sequence[int]) -> Spoken:
        """The answer in a response, trained on or generated, and what was thought before it.

        Neither holds control tokens, nor what the template itself puts before a response. A thought that the generation
        prompt opened, or that ends in a channel, is found by these tokens before they are left out.
        """
        text, controls = self._with_control_tokens(ids)
        split = find_reasoning(text, opened=self.rendering.opens_thought, tags=self.rendering.tags)
        if split.is_plain(text):
            return Spoken(self.text(ids).removeprefix(self._decoded_lead))
        return spoken(text, split, controls)

    @cached_property
    def _decoded_lead(self) -> str:
        # Not `_lead` itself: many decoders drop a space at the start.
        return self.text(self._token_ids([self._lead or ""])[0])

    def _with_control_tokens(self, ids: Sequence[int]) -> tuple[str, list[Span]]:
        """The text of ids with the control tokens in it, and where these are."""
        text, spans = "", []
        for is_control, run in groupby(ids, key=self._control_tokens.__contains__):
            if not is_control:
                text += self._backend.decode(list(run), skip_special_tokens=False)
                continue
            for token_id in run:
                spans.append((len(text), len(text) + len(self._control_tokens[token_id])))
                text += self._control_tokens[token_id]
        return text, spans

    def _clean_backend(self) -> Tokenizer:
        # A tokenizer.json can bring truncation and padding of its own, and other callers may leave theirs behind.
        self._backend.no_truncation()
        self._backend.no_padding()
        if self._backend.encode_special_tokens:
            self._backend.encode_special_tokens = False
        return self._backend

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._clean_backend().encode_batch_fast(texts, add_special_tokens=False)]

    def _token_text(self, token_id: int) -> str:
        text = self._backend.decode([token_id], skip_special_tokens=False)
        piece = self._backend.id_to_token(token_id) or ""
        if "\ufffd" in text:  # a part of a character, which has no text of its own
            return piece
        # Decoders in the manner of SentencePiece drop a space at the start.
        return f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text

    def _texts(self, comparison: Comparison) -> list[str]:
        """The prompt as rendered, then each whole conversation up to the end of what is trained."""
        if not comparison.prompt:
            raise RowError("empty prompt", "there is no message to answer")
        prompt = self.rendering.render(comparison.prompt, open_turn=True)
        return [prompt, *(self._whole(comparison, turn, prompt) for turn in self._turns(comparison))]

    def _turns(self, comparison: Comparison) -> Iterator[Message]:
        thoughts = comparison.reasoning or ("",) * len(comparison.responses)
        return map(self.rendering.turn, comparison.responses, thoughts)

    def _whole(self, comparison: Comparison, turn: Message, prompt: str) -> str:
        """A conversation with one of its responses, up to the end of what is trained."""
        whole = self.rendering.render([*comparison.prompt, turn])
        thoughts = _thoughts(turn)
        if lost := [thought for thought in thoughts if thought not in whole]:
            raise RowError(NOT_RENDERED, f"{lost[0][:60]!r} is not in what it makes of the response")
        if not self.whole_turn and not whole.startswith(prompt):
            start = max(0, _first_difference(prompt, whole) - 20)
            found = (
                f"from character {start} on it is {prompt[start : start + 60]!r} alone, but "
                f"{whole[start : start + 60]!r} with its response"
            )
            raise self.rendering.refusal_of(thinks=bool(thoughts), found=found)
        if not whole.endswith(self._tail):
            raise RowError("refused by the chat template", f"the turn ends in {whole[-40:]!r}, not {self._tail!r}")
        said = whole[len(prompt) if whole.startswith(prompt) else 0 : len(whole) - len(self._tail)]
        if not turn.content.strip() or said.strip() in ("", (self._lead or "").strip()):
            raise RowError("empty response", repr(turn.content))
        return whole if self.whole_turn else whole[: len(whole) - len(self._untrained_tail)]

    def _assemble(
        self, comparison: Comparison, ids: list[list[int]], max_length: int | None, max_prompt_length: int | None
    ) -> TokenizedComparison:
        prompt, *wholes = ids
        self._refuse_control_tokens(prompt, comparison.prompt)
        # A terminator that the template renders is among the ids already.
        terminator = [] if self.whole_turn or self._untrained_tail != self._tail else [self.terminator_id]
        if self.whole_turn:  # which is read whole, so that it need not continue its generation prompt
            for whole in wholes:
                while whole and whole[-1] == self.unread_id:
                    whole.pop()
            prompt = prompt[: min((_first_difference(prompt, whole) for whole in wholes), default=len(prompt))]
        responses = []
        for whole, turn in zip(wholes, self._turns(comparison), strict=True):
            self._refuse_control_tokens(whole, [*comparison.prompt, turn])
            if whole[: len(prompt)] != prompt:
                found = self._show_mismatch(prompt, whole)
                raise self.rendering.refusal_of(thinks=bool(_thoughts(turn)), found=found)
            responses.append((*whole[len(prompt) :], *terminator))
        if any(len(response) < (1 if self.whole_turn else 2) for response in responses):
            raise RowError("empty response", "the tokenizer makes nothing of it")
        if len(set(responses)) < len(responses):
            raise RowError("identical responses", repr(comparison.responses[0][:80]))
        longest = max(map(len, responses), default=0)
        prompt = self._cut_prompt(prompt, longest=longest, max_length=max_length, max_prompt_length=max_prompt_length)
        return TokenizedComparison(tuple(prompt), tuple(responses), comparison.row, comparison.label)

    def _encode_chunk(
        self, chunk: Sequence[Comparison | Dropped], max_length: int | None, max_prompt_length: int | None
    ) -> Iterator[TokenizedComparison | Dropped]:
        rendered: list[Comparison | Dropped] = []
        texts: list[str] = []
        for item in chunk:
            try:
                if isinstance(item, Comparison):
                    texts += self._texts(item)
                rendered.append(item)
            except RowError as error:
                rendered.append(Dropped(item.row, error.reason, error.detail))
        ids = iter(self._token_ids(texts))
        for item in rendered:
            if isinstance(item, Dropped):
                yield item
                continue
            own = list(islice(ids, 1 + len(item.responses)))
            try:
                yield self._assemble(item, own, max_length, max_prompt_length)
            except RowError as error:
                yield Dropped(item.row, error.reason, error.detail)

    def _refuse_control_tokens(self, ids: Sequence[int], messages: Sequence[Message]) -> None:
        # The template's own control tokens are among the ids: one is the row's fault if somebody said its text. Tags
        # around a thought are read as what they are.
        for token_id in self._control_tokens.keys() & ids:
            mark = self._control_tokens[token_id]
            if mark in _THOUGHT_MARKS:
                continue
            if any(mark in message.content or mark in message.reasoning for message in messages):
                raise RowError("control token in the text", f"{mark!r} would not be read as text")

    def _cut_prompt(
        self, prompt: list[int], *, longest: int, max_length: int | None, max_prompt_length: int | None
    ) -> list[int]:
        budget = len(prompt)
        if max_prompt_length is not None:
            budget = min(budget, max_prompt_length)
        if max_length is not None:
            budget = min(budget, max_length - longest)
        if budget == len(prompt):
            return prompt
        bos = prompt[:1] if prompt[0] == self.tokenizer.bos_token_id else []
        room = budget - len(bos)
        if room < 1:
            raise RowError(
                TOO_LONG,
                f"the longest response has {longest} tokens, which leaves no room for a prompt within max_length"
                f" {max_length} and max_prompt_length {max_prompt_length}; raise them",
            )
        return bos + prompt[-room:]

    def _show_mismatch(self, prompt: list[int], whole: list[int]) -> str:
        start = max(0, _first_difference(prompt, whole) - 3)
        alone, together = ([self._token_text(i) for i in ids[start : start + 8]] for ids in (prompt, whole))
        return f"from token {start} on it is {alone} alone, but {together} with its response"


def _thoughts(turn: Message) -> list[str]:
    """What was thought before the turn's answer, beside its text or within it."""
    within = (turn.content[start:end] for start, end in find_reasoning(turn.content).thoughts)
    return [thought for text in (turn.reasoning, *within) if (thought := text.strip())]


def _first_difference(left: Sequence[object], right: Sequence[object]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(left), len(right)))
