"""Endpoints that refuse a parameter, send without end, or send what the judge thought beside what it said."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fake_judge
import pytest
from endpoint_judgements import PAIRS, judged, right, settings
from fake_judge import FakeJudge

from preflab.core.records import UserError
from preflab.judging.completion import read_completion
from preflab.judging.parse import Reply, UnusableReplyError, read_reply


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    with fake_judge.serving(monkeypatch) as found:
        yield found


# ---- parameters ------------------------------------------------------------------------------------------------------

# As OpenAI and Azure say it, and in the words of other servers, which name no parameter beside the message.
CAP = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
)


def refusing(name: str, message: str, *, plain: bool = False, value: object = None) -> Any:
    details = {} if plain else {"type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}

    def refuse(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return {"message": message, **details} if name in body and value in (None, body[name]) else None

    return refuse


@pytest.mark.parametrize("plain", [False, True])
def test_case_24_the_cap_goes_by_the_name_that_the_endpoint_knows(
    judge: FakeJudge, tmp_path: Path, plain: bool
) -> None:
    judge.refuse = refusing("max_tokens", CAP, plain=plain)
    result = judged(settings(tmp_path, retries=0, judge_max_tokens=77, timeout=30.0))
    assert all(one.outcome == right(one.sample_id) for one in result.verdicts.judgements)
    taken = [body for body in judge.bodies if "max_tokens" not in body]
    assert {body["max_completion_tokens"] for body in taken} == {77}
    assert {body["temperature"] for body in taken} == {0}
    assert len(taken) == 2 * PAIRS
    assert len(judge.bodies) - len(taken) <= 8, "only the calls that were under way at once were refused"


def test_case_24_an_endpoint_that_wants_neither_name_stops_early(judge: FakeJudge, tmp_path: Path) -> None:
    judge.refuse = lambda _: {"message": CAP}
    with pytest.raises(UserError, match="set judge_max_tokens to what the endpoint takes"):
        judged(settings(tmp_path, timeout=30.0, concurrency=1))
    assert len(judge.bodies) == 2


@pytest.mark.parametrize(
    ("refuse", "changes", "way_out"),
    [
        (refusing("temperature", TEMPERATURE, value=0), {}, "judge_temperature none"),
        (refusing("temperature", "`temperature` is deprecated for this model.", plain=True), {}, "judge_temperature"),
        (refusing("logprobs", "logprobs is not supported with this model", plain=True), {}, "verdict_from text"),
        (refusing("top_logprobs", "top_logprobs must be between 0 and 5", plain=True), {}, "verdict_from text"),
        (refusing("max_tokens", "max_tokens: must be at least 1024"), {}, "set judge_max_tokens"),
    ],
)
def test_a_parameter_that_is_refused_is_told_at_once_with_the_way_out(
    judge: FakeJudge, tmp_path: Path, refuse: Any, changes: dict[str, Any], way_out: str
) -> None:
    judge.refuse = refuse
    asked = {"verdict_from": "first_token"} if "verdict" in way_out else {}
    with pytest.raises(UserError, match=r"openai:fake at 127\.0\.0\.1:\d+/v1: HTTP 400: ") as caught:
        judged(settings(tmp_path, pairs=3, timeout=30.0, concurrency=1, **asked, **changes))
    assert way_out in str(caught.value)
    assert "OPENAI_API_KEY" not in str(caught.value), "the key has nothing to do with it"
    assert len(judge.bodies) == 1
    if "temperature" in way_out:
        result = judged(settings(tmp_path, pairs=3, timeout=30.0, judge_temperature=None))
        assert all(one.outcome == right(one.sample_id) for one in result.verdicts.judgements)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "'max_tokens' or 'max_completion_tokens' is too large: 512. The model's maximum context length is 1024.",
        "The prompt was filtered: it speaks of temperature.",
    ],
)
def test_a_refusal_of_one_prompt_costs_that_prompt_alone(judge: FakeJudge, tmp_path: Path, message: str) -> None:
    judge.refuse = lambda body: {"message": message} if "question 1\n" in body["messages"][0]["content"] else None
    result = judged(settings(tmp_path, pairs=3, timeout=30.0, concurrency=1))
    outcomes = {one.sample_id: one.outcome for one in result.verdicts.judgements}
    assert outcomes == {"1/0": "win", "2/0": "error", "3/0": "tie"}
    assert len(judge.bodies) == 6
    assert {body["max_tokens"] for body in judge.bodies} == {512}


# ---- bodies without end ----------------------------------------------------------------------------------------------

PIECES = {"text": b'{"choices": [' + b" " * 65536, "compressed": gzip.compress(bytes(1 << 25))}


@pytest.mark.parametrize("status", [None, 400, 500])
@pytest.mark.parametrize("kind", PIECES)
def test_a_reply_without_end_is_not_read_to_it(judge: FakeJudge, tmp_path: Path, kind: str, status: int | None) -> None:
    judge.endless, judge.status = PIECES[kind], status
    with pytest.raises(UserError, match="the reply is longer than 16 MiB, and was not read to its end"):
        judged(settings(tmp_path, concurrency=1, retries=3, timeout=60.0))
    assert judge.calls.total() == 1


def test_a_reply_without_end_among_others_is_one_error(judge: FakeJudge, tmp_path: Path) -> None:
    def flood(body: Mapping[str, Any]) -> None:
        judge.endless = PIECES["text"] if "question 4\n" in body["messages"][0]["content"] else None

    judge.refuse = flood
    result = judged(settings(tmp_path, pairs=6, concurrency=1, timeout=60.0))
    for one in result.verdicts.judgements:
        lost = one.sample_id == "5/0"
        assert one.outcome == ("error" if lost else right(one.sample_id))
        assert one.reason == ("the reply is longer than 16 MiB, and was not read to its end" if lost else "")


def test_a_reply_that_trickles_without_end_ends_with_its_time(judge: FakeJudge, tmp_path: Path) -> None:
    judge.endless, judge.pause = b" ", 0.05
    with pytest.raises(UserError, match=r"no reply within 0\.3 seconds"):
        judged(settings(tmp_path, retries=0))


# ---- what the judge thought ------------------------------------------------------------------------------------------


def message(content: Any, *, logprobs: Mapping[str, float] | None = None, finish: str = "stop", **others: Any) -> str:
    tops = [{"token": token, "logprob": value} for token, value in (logprobs or {}).items()]
    probabilities = {"logprobs": {"content": [{"top_logprobs": tops}]}} if logprobs else {}
    choice = {"message": {"role": "assistant", "content": content, **others}, "finish_reason": finish, **probabilities}
    return json.dumps({"choices": [choice]})


THOUGHT = "A is better. [[A]]\nVerdict: FIRST"
FIELDS: list[dict[str, Any]] = [
    {"reasoning_content": THOUGHT},
    {"reasoning": THOUGHT},
    {"thinking": THOUGHT},
    {"reasoning_details": [{"type": "reasoning.text", "text": THOUGHT}]},
    {"provider_specific_fields": {"reasoning_content": THOUGHT}},
]
PARTS: list[Any] = [
    {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
    {"type": "thinking", "thinking": THOUGHT},
    {"type": "reasoning", "text": THOUGHT},
]


@pytest.mark.parametrize("content", [None, "", []])
@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: next(iter(fields)))
def test_reasoning_beside_a_reply_is_no_verdict(fields: dict[str, Any], content: Any) -> None:
    reply = read_completion(message(content, **fields).encode())
    assert reply == Reply("")
    with pytest.raises(UnusableReplyError, match="the reply is empty"):
        read_reply(reply, "text")
    reply = read_completion(message(content, finish="length", **fields).encode())
    with pytest.raises(UnusableReplyError, match="cut off at the token cap"):
        read_reply(reply, "text")
    said = "Verdict: SECOND" if content is None else [{"type": "text", "text": "Verdict: SECOND"}]
    assert read_reply(read_completion(message(said, **fields).encode()), "text") == ("second", None)


@pytest.mark.parametrize("part", PARTS)
def test_parts_that_hold_reasoning_are_no_verdict(part: Any) -> None:
    assert read_completion(message([part]).encode()) == Reply("")
    said = [part, {"type": "text", "text": "Verdict: SECOND"}]
    assert read_reply(read_completion(message(said).encode()), "text") == ("second", None)


@pytest.mark.parametrize("fields", FIELDS[:2], ids=lambda fields: next(iter(fields)))
def test_the_first_token_of_the_thinking_is_no_preference(fields: dict[str, Any]) -> None:
    reply = read_completion(message("A", logprobs={"A": -0.1, "B": -3.0}, **fields).encode())
    with pytest.raises(UnusableReplyError, match="no log-probabilities of an answer"):
        read_reply(reply, "first_token")
    assert read_completion(message("A", logprobs={"A": -0.1}, reasoning=None).encode()).first_token == {"A": -0.1}


def test_a_judge_that_only_thinks_counts_as_errors(judge: FakeJudge, tmp_path: Path) -> None:
    judge.body = message(None, reasoning_content=THOUGHT)
    result = judged(settings(tmp_path, pairs=3, timeout=30.0))
    document = json.loads((tmp_path / "verdicts.json").read_text())
    assert document["win_counts"] == {"model": 0, "baseline": 0, "tie": 0, "error": 3}
    assert {one.reason for one in result.verdicts.judgements} == {"the reply is empty"}
