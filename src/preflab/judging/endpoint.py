"""A judge behind an OpenAI-compatible endpoint: many calls at once, paced, each retried until it gives a verdict."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from tenacity import AsyncRetrying, RetryCallState, wait_exponential, wait_random

from preflab.core.records import UserError
from preflab.core.redaction import redact
from preflab.judging.completion import read_completion, whole_text
from preflab.judging.language import AskedJudge, language_judge, reply_cap
from preflab.judging.parse import Failure, Reply, UnusableReplyError
from preflab.judging.players import short_name
from preflab.judging.protocol import Kind
from preflab.judging.run import LOST_IN_A_ROW
from preflab.judging.settings import AskingSettings, JudgingSettings, narrowed
from preflab.stats.study import Judge

OPENAI = "https://api.openai.com/v1"
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; doubled from retry to retry, plus up to a second at random
LONGEST_ORDERED_WAIT = 600.0  # seconds that an endpoint can make us wait with Retry-After
UNREADABLE_TRIES = 2  # a reply without a verdict is paid for, so one more is asked for, and not five
_AGAIN = {408, 409, 425, 429}
_SHOWN = 300  # characters of an endpoint's own message
_LONGEST_BODY = 1 << 24  # bytes; the log-probabilities of a long reply take some of them
_OLD_CAP, _NEW_CAP = "max_tokens", "max_completion_tokens"

# How endpoints say that a parameter, and no prompt, is at fault, and what can be done about each.
_REFUSED = re.compile(
    "support|not allowed|not permitted|unknown|unrecogni[sz]ed|unexpected|must be|at most|greater than|deprecated", re.I
)
_WAYS_OUT = {
    "temperature": "leave the temperature to the endpoint (judge_temperature none)",
    "top_logprobs": "do without log-probabilities (verdict_from text)",
    "logprobs": "do without log-probabilities (verdict_from text)",
    _NEW_CAP: "set judge_max_tokens to what the endpoint takes",
    _OLD_CAP: "set judge_max_tokens to what the endpoint takes",
}


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint; its key comes from OPENAI_API_KEY.

    Attributes:
        source: the model as the endpoint calls it, with `@` and where the endpoint is unless OPENAI_BASE_URL says so.
        temperature: None leaves it to the endpoint (some models refuse any).
        max_tokens: cap of a reply.
        first_token: ask for the log-probabilities of the first token.
        concurrency: calls under way at once.
        requests_per_minute: calls begun in a minute, at most.
        timeout: seconds until a call without a reply is given up.
        retries: how often a failed call is repeated.
    """

    source: str
    temperature: float | None
    max_tokens: int
    first_token: bool
    concurrency: int
    requests_per_minute: float | None
    timeout: float
    retries: int

    @property
    def identity(self) -> Mapping[str, object]:
        """All that decides a reply besides the prompt."""
        return {"model": split_source(self.source)[0], "endpoint": _place(self.source), **self._parameters()}

    def ask(
        self,
        prompts: Sequence[str],
        read: Callable[[Reply], object],
        report: Callable[[int, Reply | Failure], None],
    ) -> None:
        """Ask for a reply to each prompt, and report each under its index as soon as it is there, in any order.

        `read` raises UnusableReplyError for a reply without a verdict, which is asked for again; what fails for good is
        reported as a Failure. Raises UserError where the key is missing, or the endpoint is taken to be unusable.
        """
        if not prompts:
            return
        _run(_Calls(self, api_key(self.source), read, report).work(prompts))

    def count_tokens(self, prompt: str) -> None:
        """Only the endpoint could say."""

    def _parameters(self) -> dict[str, Any]:
        # OpenAI's newer models know the cap under the newer name alone, most other servers under the older one.
        cap = _NEW_CAP if _place(self.source).startswith(f"{urlsplit(OPENAI).hostname}/") else _OLD_CAP
        temperature = {} if self.temperature is None else {"temperature": self.temperature}
        log_probs = {"logprobs": True, "top_logprobs": 20} if self.first_token else {}
        return {cap: self.max_tokens, **temperature, **log_probs}


class _TroubleError(Exception):
    """A call that gave no verdict. `tries`: how often, in all, it is to be made before that is final."""

    def __init__(
        self, reason: str, *, tries: int = 1, reply: Reply | None = None, fatal: bool = False, way_out: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason, self.tries, self.reply = reason, tries, reply
        self.fatal = fatal  # with a wrong key or name every other call would fail alike
        self.way_out = way_out


class _TooLongError(openai.OpenAIError):
    """The body of a response has no end in sight."""


async def _read_within_bounds(response: Any) -> None:
    """Read the body of a response, an error's too, which otherwise would be read whole, whatever its length."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _LONGEST_BODY:
            raise _TooLongError(f"the reply is longer than {_LONGEST_BODY >> 20} MiB, and was not read to its end")
    response._content = bytes(body)  # as `response.aread` leaves it


class _Calls:
    """The calls of one `ask`: several workers take prompts from one iterator."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        read: Callable[[Reply], object],
        report: Callable[[int, Reply | Failure], None],
    ) -> None:
        self._endpoint, self._key, self._read, self._report = endpoint, key, read, report
        self._parameters = endpoint._parameters()
        self._slot = 0.0  # when the next call may begin
        self._answered = False
        self._lost = 0

    async def work(self, prompts: Sequence[str]) -> None:
        settings, waiting = self._endpoint, iter(enumerate(prompts))
        # Prompts and key go to the address that the user gave, and to no other.
        http = DefaultAsyncHttpxClient(follow_redirects=False, event_hooks={"response": [_read_within_bounds]})
        options: dict[str, Any] = {"max_retries": 0, "timeout": settings.timeout, "http_client": http}
        async with AsyncOpenAI(api_key=self._key, base_url=_address(settings.source), **options) as client:
            workers = [asyncio.create_task(self._worker(client, waiting)) for _ in range(settings.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()

    async def _worker(self, client: AsyncOpenAI, waiting: Iterator[tuple[int, str]]) -> None:
        for index, prompt in waiting:
            retrying = AsyncRetrying(retry=_is_worth_a_retry, wait=_pause)
            try:
                reply: Reply = await retrying(self._call, client, prompt)
            except _TroubleError as trouble:
                self._count(trouble)
                text = trouble.reply.text if trouble.reply else ""
                self._report(index, Failure(self._without_key(trouble.reason), text))
            else:
                self._report(index, reply)

    async def _call(self, client: AsyncOpenAI, prompt: str) -> Reply:
        """One call. Raises _TroubleError where it gives no verdict."""
        settings, tries, parameters = self._endpoint, self._endpoint.retries + 1, self._parameters
        await self._take_turn()
        # The raw response, because the client checks nothing of what it makes of one.
        call = client.chat.completions.with_raw_response.create(
            model=split_source(settings.source)[0],
            messages=[{"role": "user", "content": whole_text(prompt)}],
            **parameters,
        )
        try:
            # The client's own time-out is about silence; this one also ends a reply that trickles in.
            response = await asyncio.wait_for(call, settings.timeout)
        except (openai.APITimeoutError, asyncio.TimeoutError):
            raise _TroubleError(f"no reply within {settings.timeout:g} seconds", tries=tries) from None
        except (openai.APIConnectionError, _TooLongError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, _TooLongError):
                raise _TroubleError(str(cause), fatal=True) from None
            raise _TroubleError(f"the connection failed: {cause}", tries=tries, fatal=True) from None
        except openai.APIStatusError as error:
            if self._renames_cap(error, parameters):
                return await self._call(client, prompt)
            raise self._refusal(error) from None
        try:
            reply = read_completion(response.content)
        except ValueError:
            where = "does the endpoint's address end in /v1?"
            raise _TroubleError(f"the reply is not a chat completion; {where}", tries=tries) from None
        self._answered, self._lost = True, 0
        try:
            self._read(reply)
        except UnusableReplyError as error:
            raise _TroubleError(str(error), tries=min(tries, UNREADABLE_TRIES), reply=reply) from None
        return reply

    def _renames_cap(self, error: openai.APIStatusError, sent: Mapping[str, Any]) -> bool:
        """Whether the endpoint knows the cap of a reply under its newer name alone, which is used from now on."""
        if _OLD_CAP not in sent or error.status_code not in (400, 422) or _NEW_CAP not in error.message:
            return False
        if not _REFUSED.search(error.message):
            return False
        self._parameters = {_NEW_CAP if name == _OLD_CAP else name: value for name, value in sent.items()}
        return True

    def _refusal(self, error: openai.APIStatusError) -> _TroubleError:
        # A key that is cut would not be recognised any more.
        reason = f"HTTP {error.status_code}: {self._without_key(error.message)[:_SHOWN]}"
        if error.response.is_redirect:
            to = self._without_key(error.response.headers.get("location", "elsewhere"))[:_SHOWN]
            return _TroubleError(f"HTTP {error.status_code}: redirects to {to}, which is not followed", fatal=True)
        refused = next((name for name in self._parameters if self._is_about(error, name)), None)
        way_out = _WAYS_OUT[refused] if refused else ""
        if error.code == "insufficient_quota" or refused or error.status_code in (401, 403, 404):
            return _TroubleError(reason, fatal=True, way_out=way_out)
        if error.status_code < 500 and error.status_code not in _AGAIN:
            return _TroubleError(reason)
        # All calls wait, not only the one that was told to.
        self._slot = max(self._slot, time.monotonic() + _retry_after(error.response.headers))
        return _TroubleError(reason, tries=self._endpoint.retries + 1)

    @staticmethod
    def _is_about(error: openai.APIStatusError, parameter: str) -> bool:
        """Whether a parameter is refused, which it then is with every prompt."""
        named = error.param == parameter or re.search(rf"\b{parameter}\b", error.message)
        return error.status_code in (400, 403, 422) and bool(named and _REFUSED.search(error.message))

    async def _take_turn(self) -> None:
        """Wait until the next call may begin."""
        begin = max(time.monotonic(), self._slot)
        if self._endpoint.requests_per_minute:
            self._slot = begin + 60 / self._endpoint.requests_per_minute
        await asyncio.sleep(begin - time.monotonic())

    def _count(self, trouble: _TroubleError) -> None:
        """Give up where it is plain that the other calls would fail alike."""
        if trouble.reply:  # the endpoint works; the judge does not say what was asked
            return
        self._lost += 1
        if (trouble.fatal and not self._answered) or self._lost >= LOST_IN_A_ROW:
            many = f" ({self._lost} times in a row)" if self._lost > 1 else ""
            model, place = split_source(self._endpoint.source)[0], _place(self._endpoint.source)
            raise UserError(
                f"openai:{model} at {place}: {self._without_key(trouble.reason)}{many}\n"
                f"{trouble.way_out or 'check OPENAI_BASE_URL, OPENAI_API_KEY and the name of the model'}; what has "
                "been judged is kept, and the same command goes on from there"
            )

    def _without_key(self, text: str) -> str:
        for form in (self._key, repr(self._key)[1:-1], json.dumps(self._key)[1:-1]):
            text = text.replace(form, "[redacted]")
        return str(redact(text))


def split_source(source: str) -> tuple[str, str | None]:
    """`qwen@http://127.0.0.1:8000/v1` -> the model, and where it is; None leaves that to OPENAI_BASE_URL."""
    found = re.fullmatch(r"(.+?)@(https?://.*)", source, re.DOTALL)
    return (found[1], found[2]) if found else (source, None)


def api_key(source: str) -> str:
    """The key of the endpoint. Raises UserError where the environment has none that can be sent."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise UserError(
            f"openai:{split_source(source)[0]}: OPENAI_API_KEY is not set: put the key of {_place(source)} in this "
            "environment variable. For a server of your own, set OPENAI_BASE_URL (such as http://127.0.0.1:8000/v1) "
            "and any word as key"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise UserError(
            "OPENAI_API_KEY: holds white space, control characters or letters beyond ASCII, which no key has; copy the "
            "key into it once more"
        )
    return key


def _address(source: str) -> str:
    """Where the endpoint is. Raises UserError for what is no address."""
    model, given = split_source(source)
    address = given or os.environ.get("OPENAI_BASE_URL") or OPENAI
    name = "OPENAI_BASE_URL" if given is None else f"openai:{model}@…"
    try:
        url = urlsplit(address)  # which drops line breaks, so these are looked for in the text
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0 and re.fullmatch("[!-~]+", address)
    except ValueError:  # such as a port that is no number
        usable = False
    if not usable:
        raise UserError(f"{name}: is not an address; write one such as http://127.0.0.1:8000/v1")
    if given and url.username is not None:
        raise UserError(f"{name}: holds a user's name, and this would be written to files; leave it out")
    if url.query or url.fragment:
        # Paths are put behind an address, so a query within it would reach no server; and it may hold a key.
        raise UserError(f"{name}: has something behind a ? or #, which cannot be sent; keys go into OPENAI_API_KEY")
    return address


def _place(source: str) -> str:
    """Host, port and path of the endpoint, which tell one deployment from another; never a password or a query."""
    url = urlsplit(_address(source))
    return f"{url.hostname}{f':{url.port}' if url.port else ''}{url.path.rstrip('/')}"


def _is_worth_a_retry(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, _TroubleError) and state.attempt_number < error.tries


def _pause(state: RetryCallState) -> float:
    return wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)(state) + wait_random(0, FIRST_WAIT)(state)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that an endpoint asks us to wait: a number, or a date; 0 where it does not say."""
    text = headers.get("retry-after", "")
    try:
        seconds = (
            float(text) if text.replace(".", "").isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_ORDERED_WAIT)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, also within a notebook, whose own event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


# ---- as a judge ------------------------------------------------------------------------------------------------------


def read_endpoint(source: str, name: str | None) -> Judge:
    return Judge(name or short_name(split_source(source)[0]), "openai", source)


def make_endpoint(judge: Judge, settings: JudgingSettings, seed: int) -> AskedJudge:
    """A model behind an OpenAI-compatible endpoint, as a judge."""
    endpoint = Endpoint(
        judge.source,
        temperature=settings.judge_temperature,
        max_tokens=reply_cap(settings),
        first_token=settings.verdict_from == "first_token",
        concurrency=settings.concurrency,
        requests_per_minute=settings.requests_per_minute,
        timeout=settings.timeout,
        retries=settings.retries,
    )
    return language_judge(judge, narrowed(settings, AskingSettings), seed, endpoint)


def check_endpoint(judge: Judge, _: JudgingSettings) -> None:
    """Raise UserError where the endpoint has no key."""
    api_key(judge.source)


KIND = Kind(read_endpoint, make_endpoint, check_endpoint, is_asked=True, is_paid=True)
