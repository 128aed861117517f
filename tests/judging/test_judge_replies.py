"""What an endpoint may send, where it may be, and its key: nothing of it ends the judge or leaks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_judge
import pytest
from endpoint_judgements import judged, settings
from fake_judge import FakeJudge

from preflab.core.records import UserError
from preflab.judging.completion import read_completion
from preflab.judging.endpoint import Endpoint, _Calls, api_key, split_source
from preflab.judging.parse import Reply


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    with fake_judge.serving(monkeypatch) as found:
        yield found


def completion(content: Any = "x", **choice: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, **choice}]}).encode()


def candidates(*found: Any) -> dict[str, Any]:
    return {"content": [{"token": "A", "logprob": -1, "top_logprobs": list(found)}]}


# ---- completions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (completion("Verdict: TIE", finish_reason="length"), Reply("Verdict: TIE", cut=True)),
        (completion("half \ud83d\nVerdict: TIE"), Reply("half \ufffd\nVerdict: TIE")),
        (completion("whole \U0001f600"), Reply("whole \U0001f600")),
        (
            completion([{"type": "text", "text": "Ver"}, {"type": "image"}, {"text": "dict: TIE"}]),
            Reply("Verdict: TIE"),
        ),
        (b'{"choices": [{"message": {"refusal": "no"}, "logprobs": {"tokens": []}}]}', Reply("no")),
        (completion("A", logprobs=candidates({"token": "A", "logprob": -1})), Reply("A", {"A": -1.0})),
        (completion("A", logprobs=candidates({"token": "B", "logprob": -math.inf})), Reply("A", {"B": -math.inf})),
        (completion("A", logprobs={"content": [{"top_logprobs": None}]}), Reply("A", {})),
    ],
)
def test_a_completion_is_read(body: bytes, reply: Reply) -> None:
    assert read_completion(body) == reply


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"null", b"[1]", b'"x"', b'{"error": {"message": "overloaded"}}', b"[" * 100_000),
        *(json.dumps({"choices": value}).encode() for value in (None, [], "abc", {"a": 1}, [None], [{}])),
        *(json.dumps({"choices": [{"message": value}]}).encode() for value in (None, "hi", [])),
        *(completion(content) for content in (5, True, {"a": 1}, ["x"], [{"text": 5}])),
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        *(completion(logprobs=value) for value in ("x", 5, {"content": "x"}, {"content": [None]})),
        completion(logprobs={"content": [{"top_logprobs": "x"}]}),
        *(completion(logprobs=candidates(value)) for value in (None, {}, {"token": "A"}, {"token": 5, "logprob": -1})),
        *(
            completion(logprobs=candidates({"token": "A", "logprob": value}))
            for value in (None, "x", 1e6, 3, math.nan, math.inf, True)
        ),
    ],
)
def test_what_is_no_completion_is_an_error_and_nothing_else(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_completion(body)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"choices": "abc"}', "<html>"])
def test_a_malformed_reply_is_retried_and_named(judge: FakeJudge, tmp_path: Path, body: str) -> None:
    judge.body = body
    result = judged(settings(tmp_path, pairs=2, retries=1))
    assert {(one.outcome, one.reason.partition(";")[0]) for one in result.verdicts.judgements} == {
        ("error", "the reply is not a chat completion")
    }
    assert set(judge.calls.values()) == {2}


def test_half_a_surrogate_pair_in_a_reply_does_no_harm(judge: FakeJudge, tmp_path: Path) -> None:
    judge.body = completion("half \ud83d\nVerdict: FIRST").decode()
    result = judged(settings(tmp_path, pairs=1))
    assert [one.outcome for one in result.verdicts.judgements] == ["win", "loss"]


# ---- where it is -----------------------------------------------------------------------------------------------------


def test_a_redirect_is_not_followed(judge: FakeJudge, tmp_path: Path) -> None:
    """The prompts, and the key, would go to whom the user did not name."""
    judge.status, judge.location = 307, f"{judge.url}/elsewhere"
    with pytest.raises(UserError, match=r"HTTP 307: redirects to http://127\.0\.0\.1:\d+/v1/elsewhere, which is not"):
        judged(settings(tmp_path, concurrency=1))
    assert judge.calls.total() == 1


def test_a_judge_can_have_an_endpoint_of_its_own(
    judge: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    result = judged(settings(tmp_path, pairs=2, judge=f"openai:org/fake@{judge.url}"))
    assert {one.outcome for one in result.verdicts.judgements} == {"win", "loss"}
    assert {body["model"] for body in judge.bodies} == {"org/fake"}
    metadata = result.verdicts.metadata
    assert (metadata["judge"], metadata["judge_name"]) == (f"openai:org/fake@{judge.url}", "fake")
    assert metadata["judge_parameters"]["endpoint"] == judge.url.removeprefix("http://")


def test_a_model_may_have_an_at_sign_in_its_name() -> None:
    assert split_source("m@v2") == ("m@v2", None)
    assert split_source("m@v2@https://h/v1") == ("m@v2", "https://h/v1")


@pytest.mark.parametrize("url", ["http://me:secret@127.0.0.1/v1", "http://secret:port/v1", "http://"])
def test_an_endpoint_of_its_own_has_to_be_a_plain_address(judge: FakeJudge, tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="openai:fake@…: ") as caught:
        judged(settings(tmp_path, judge=f"openai:fake@{url}"))
    assert "secret" not in str(caught.value)
    assert not judge.calls


# ---- its key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["secret key", "secret\nkey", "secret\x00", "secr\u00e9t", "\u201csecret\u201d"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    with pytest.raises(UserError, match="OPENAI_API_KEY: holds white space") as caught:
        api_key("m")
    assert "secr" not in str(caught.value)


def test_a_line_break_after_the_key_is_no_part_of_it(
    judge: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " secret\n")
    judged(settings(tmp_path, pairs=1))
    assert {body["authorization"] for body in judge.bodies} == {"Bearer secret"}
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        api_key("m")


ENDPOINT = Endpoint("m", None, 9, first_token=False, concurrency=1, requests_per_minute=None, timeout=1, retries=0)


@pytest.mark.parametrize("key", ["secret" * 80, "se\\cret", "secret'\"\\"])
def test_an_endpoint_that_repeats_the_key_gives_no_part_of_it_away(
    judge: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    judge.status = 400
    result = judged(settings(tmp_path, pairs=2))
    assert all("[redacted]" in one.reason and "cret" not in one.reason for one in result.verdicts.judgements)
    calls = _Calls(ENDPOINT, key, lambda _: None, lambda *_: None)
    for quoted in (repr(f"Bearer {key}"), json.dumps(f"Bearer {key}")):
        assert calls._without_key(quoted)[1:-1] == "Bearer [redacted]"
