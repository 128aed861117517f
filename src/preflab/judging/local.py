"""A local model as judge: the same prompts, the same reading of replies, through preflab's own generation."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from preflab.core.records import Message, RowError, TokenizedComparison, UserError
from preflab.data.splits import template_of
from preflab.data.tokenize import ChatTemplate
from preflab.judging.language import AskedJudge, language_judge, reply_cap
from preflab.judging.parse import Failure, Reply, UnusableReplyError
from preflab.judging.players import short_name
from preflab.judging.protocol import Kind
from preflab.judging.questions import read_question
from preflab.judging.settings import AskingSettings, JudgingSettings, narrowed
from preflab.model.in_memory import InMemory
from preflab.model.load import load_model
from preflab.model.precision import pick_dtype
from preflab.model.responses import Model, ResponseLogps, collator, position_limit
from preflab.model.tokenizers import check_ids, load_tokenizer
from preflab.sample.sampling import Sampling, generate_ids
from preflab.stats.study import Judge
from preflab.training.as_run import model_of
from preflab.training.stage import fingerprint_weights, make_accelerator


@dataclass(frozen=True)
class LocalJudge:
    """A language model in this process, in evaluation mode, on the device to use.

    Attributes:
        identity: all that decides a reply besides the prompt; the caller knows the weights' fingerprint.
        temperature: 0 takes the likeliest token.
        max_tokens: cap of a reply.
        first_token: instead of writing a reply, give the probabilities of its first token.
        batch_size: replies at once.
        seed: of sampling.
    """

    model: Model
    template: ChatTemplate
    identity: Mapping[str, object]
    temperature: float
    max_tokens: int
    first_token: bool
    batch_size: int
    seed: int

    def ask(
        self,
        prompts: Sequence[str],
        read: Callable[[Reply], object],
        report: Callable[[int, Reply | Failure], None],
    ) -> None:
        """Reply to each prompt, the longest first, and report each under its index; see `preflab.judging.run.Backend`.

        A prompt that does not fit in the model, or that its template cannot hold, is reported as a Failure: to cut it
        would cut the material that is judged.
        """
        encoded: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            try:
                encoded[index] = self._encode(prompt)
            except RowError as error:
                report(index, Failure(str(error)))
        longest_first = sorted(encoded, key=lambda index: -len(encoded[index]))
        reply = self._first_tokens() if self.first_token else self._write
        for batch in _batches(longest_first, self.batch_size):
            texts = [prompts[index] for index in batch]
            for index, found in zip(batch, reply(texts, [encoded[index] for index in batch]), strict=True):
                try:
                    read(found)
                    report(index, found)
                except UnusableReplyError as error:
                    report(index, Failure(str(error), found.text))

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt; 0 for one that cannot be asked."""
        try:
            return len(self._encode(prompt))
        except RowError:
            return 0

    def _encode(self, prompt: str) -> list[int]:
        ids = self.template.prompt_ids([Message("user", prompt)])
        check_ids(self.model, max(ids, default=0), "the judge's prompt")
        most = (position_limit(self.model) or math.inf) - (0 if self.first_token else self.max_tokens)
        if len(ids) > most:
            raise RowError("too long", f"the judge's prompt has {len(ids)} tokens, and {most} is the most it can have")
        return ids

    def _write(self, texts: Sequence[str], prompts: Sequence[Sequence[int]]) -> list[Reply]:
        sampling = Sampling(temperature=self.temperature, max_new_tokens=self.max_tokens, seed=self.seed)
        # From the prompt's text, so that the batch has no say.
        streams = [np.random.default_rng((self.seed, zlib.crc32(text.encode()))) for text in texts]
        numbers = np.stack([stream.random(self.max_tokens) for stream in streams])
        found = generate_ids(self.model, prompts, numbers, self.template.stop_ids, sampling)
        said = [(self.template.read(ids), finish == "length") for ids, finish in found]
        return [Reply(spoken.response, cut=cut or not spoken.finished) for spoken, cut in said]

    def _first_tokens(self) -> Callable[[Sequence[str], Sequence[Sequence[int]]], list[Reply]]:
        """Log-probabilities of all tokens that read A or B: each is a response of one token to the prompt."""
        module = ResponseLogps(self.model)
        collate = collator(module.share_prefix)
        letters = self._letters()
        responses = tuple((token,) for token in letters)
        device = next(self.model.parameters()).device

        @torch.no_grad()
        def reply(_: Sequence[str], prompts: Sequence[Sequence[int]]) -> list[Reply]:
            batch = collate([TokenizedComparison(tuple(ids), responses) for ids in prompts])
            table = module(batch.to(device)).double().view(len(prompts), len(letters)).tolist()
            return [_first_token(list(letters.values()), row) for row in table]

        return reply

    def _letters(self) -> dict[int, str]:
        """Every token of the vocabulary that reads A or B but for white space, as `Reply.first_token` names it."""
        size = len(self.template.tokenizer)
        texts = ((token, self.template.text([token])) for token in range(size))
        return {token: text for token, text in texts if text.strip() in ("A", "B")}


def _first_token(texts: Sequence[str], logps: Sequence[float]) -> Reply:
    """The reply that begins with the likeliest of these tokens; tokens of the same text count together."""
    found: dict[str, float] = {}
    for text, logp in zip(texts, logps, strict=True):
        found[text] = float(np.logaddexp(found.get(text, -math.inf), logp))
    return Reply(max(found, key=found.__getitem__, default=""), found)


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indices[start : start + size] for start in range(0, len(indices), size))


# ---- as a judge ------------------------------------------------------------------------------------------------------


def read_local(source: str, name: str | None) -> Judge:
    return Judge(name or short_name(source), "hf", model_of(source))


def make_local(judge: Judge, settings: JudgingSettings, seed: int, held: InMemory | None = None) -> AskedJudge:
    """A language model, loaded, or the one that is `held` in memory."""
    read_question(settings.question)  # before a model is loaded
    trust = settings.trust_remote_code
    accelerator = make_accelerator()
    template = template_of(
        judge.source,
        settings.judge_chat_template,
        settings.judge_chat_template_kwargs,
        trust_remote_code=trust,
        held=held,
    )
    if settings.verdict_from == "first_token" and template.rendering.opens_thought:
        raise UserError(
            f"hf:{judge.source}: its chat template opens a thought, so its first token is none of A and B; turn "
            "thinking off (--judge-chat-template-kwargs enable_thinking=false, where the template has that) or use "
            "verdict_from text"
        )
    dtype = pick_dtype(settings.dtype, accelerator.device, frozen=True)
    found = held.model if held else load_model(judge.source, "policy", dtype=dtype, trust_remote_code=trust)
    model = found.to(accelerator.device).eval()
    temperature = settings.judge_temperature or 0.0
    identity = {
        "model": judge.source,
        "weights": fingerprint_weights(model),
        "template": template.fingerprint,
        **template.stops,
        "temperature": temperature,
        "max_tokens": reply_cap(settings),
        "verdict_from": settings.verdict_from,
        **({"sampling_seed": seed} if temperature else {}),
    }
    backend = LocalJudge(
        model,
        template,
        identity,
        temperature=temperature,
        max_tokens=reply_cap(settings),
        first_token=settings.verdict_from == "first_token",
        batch_size=settings.concurrency,
        seed=seed,
    )
    return language_judge(judge, narrowed(settings, AskingSettings), seed, backend)


def check_local(judge: Judge, settings: JudgingSettings) -> None:
    """Raise UserError where there is no model with a tokenizer that can be loaded."""
    load_tokenizer(judge.source, trust_remote_code=settings.trust_remote_code)


KIND = Kind(read_local, make_local, check_local, is_asked=True)
