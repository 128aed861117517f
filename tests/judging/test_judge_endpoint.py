"""A judge behind an endpoint: whatever the endpoint does, every judgement is made once, or named as an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_judge
import pytest
from endpoint_judgements import PAIRS, judged, right, settings
from fake_judge import FakeJudge

from preflab import cli
from preflab.core.output import unfinished
from preflab.core.records import UserError
from preflab.judging import endpoint
from preflab.judging.endpoint import Endpoint, _retry_after
from preflab.judging.parse import Failure, Reply, read_reply
from preflab.judging.verdicts import read_verdicts
from preflab.stats.judgements import combine


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    with fake_judge.serving(monkeypatch) as found:
        yield found


def test_a_good_endpoint_is_asked_once_for_each_pair_and_order(judge: FakeJudge, tmp_path: Path) -> None:
    patient = settings(tmp_path, timeout=60)  # on a busy machine an answer can take longer than the usual 0.3 s
    result = judged(patient)
    assert sorted(judge.calls.values()) == [1] * 2 * PAIRS
    found = result.verdicts.judgements
    assert {(one.sample_id, one.order) for one in found} == {
        (f"{row}/0", order) for row in range(1, PAIRS + 1) for order in ("model_first", "opponent_first")
    }
    assert all(one.outcome == right(one.sample_id) for one in found)
    assert all("Verdict: " in one.text for one in found)
    document = json.loads((tmp_path / "verdicts.json").read_text())
    assert document["win_counts"] == {"model": 14, "baseline": 13, "tie": 13, "error": 0}
    assert document["metadata"]["judge"] == "openai:fake"
    parameters = document["metadata"]["judge_parameters"]
    assert parameters["temperature"] == 0
    assert parameters["endpoint"] == judge.url.removeprefix("http://")
    body = judge.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("fake", 0, 512)
    # A second run finds the file finished; another file is filled from the cache.
    judged(patient)
    again = judged(settings(tmp_path, timeout=60, output=tmp_path / "again.json"))
    assert again.verdicts.judgements == found
    assert judge.calls.total() == 2 * PAIRS


@pytest.mark.slow
def test_every_judgement_of_a_faulty_endpoint_is_made_or_named_as_an_error(judge: FakeJudge, tmp_path: Path) -> None:
    # On a busy machine a good reply takes its time too, and one that came too late would be asked for again.
    judge.faulty, judge.silence = 0.3, 6.0
    given = settings(tmp_path, retries=2, concurrency=16, timeout=3.0)
    result = judged(given)
    assert set(judge.faults) == {"", *fake_judge.FAULTS}, "each fault has been met"
    found = result.verdicts.judgements
    assert len(found) == 2 * PAIRS
    assert len({(one.sample_id, one.order) for one in found}) == 2 * PAIRS
    errors = [one for one in found if one.outcome == "error"]
    assert 0 < len(errors) < PAIRS, "some failed for good, and most were retried"
    assert all(one.reason for one in errors)
    assert all(one.outcome == right(one.sample_id) for one in found if one.outcome != "error")
    # A prompt that was judged was not asked for again; one that failed was tried as often as is right.
    assert max(judge.good.values()) == 1
    assert len(judge.good) >= 2 * PAIRS - len(errors)
    assert max(judge.calls.values()) == 3
    samples = combine(found)
    assert {sample for sample, verdict in samples.items() if verdict.outcome == "error"} == {
        one.sample_id for one in errors
    }
    assert not unfinished(tmp_path / "verdicts.json").exists()
    # The same command asks for what failed, and for nothing else.
    before, judge.faulty = judge.calls.total(), 0.0
    whole = judged(given)
    assert judge.calls.total() - before == len(errors)
    assert all(one.outcome == right(one.sample_id) for one in whole.verdicts.judgements)
    assert read_verdicts(tmp_path / "verdicts.json").judgements == whole.verdicts.judgements


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in fake_judge.FAULTS if fault != "closed"])
def test_a_failure_is_named_retried_and_not_cached(
    judge: FakeJudge, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # On a busy machine, a call that is not to be late may be.
    timeout = 0.3 if fault in ("time-out", "trickle") else 30.0
    with monkeypatch.context() as patch:
        patch.setattr(judge, "fault", lambda *_: fault)
        result = judged(settings(tmp_path, pairs=2, retries=3, timeout=timeout))
    assert {one.outcome for one in result.verdicts.judgements} == {"error"}
    assert all(one.reason for one in result.verdicts.judgements)
    paid = fault in ("no verdict", "contradiction", "empty")
    assert set(judge.calls.values()) == {endpoint.UNREADABLE_TRIES if paid else 4}
    assert [bool(one.text) for one in result.verdicts.judgements] == [paid and fault != "empty"] * 4
    assert not list(own_cache.rglob("*.jsonl"))
    result = judged(settings(tmp_path, pairs=2, timeout=30.0))
    assert all(one.outcome == right(one.sample_id) for one in result.verdicts.judgements)


@pytest.mark.parametrize(("status", "calls"), [(401, 1), (404, 1), (400, 20), (503, 20)])
def test_an_endpoint_that_refuses_everything_stops_early(
    judge: FakeJudge, tmp_path: Path, status: int, calls: int
) -> None:
    judge.status = status
    with pytest.raises(UserError, match=f"HTTP {status}") as caught:
        judged(settings(tmp_path, retries=0, concurrency=1))
    assert judge.calls.total() == calls
    assert "key-of-this-account" not in str(caught.value)
    assert "check OPENAI_BASE_URL" in str(caught.value)


def test_an_account_without_money_stops_early(judge: FakeJudge, tmp_path: Path) -> None:
    judge.status, judge.code = 429, "insufficient_quota"
    with pytest.raises(UserError, match="HTTP 429"):
        judged(settings(tmp_path, concurrency=1))
    assert judge.calls.total() == 1


def test_a_refusal_of_one_prompt_is_not_retried(judge: FakeJudge, tmp_path: Path) -> None:
    judge.status = 400
    result = judged(settings(tmp_path, pairs=3, retries=5))
    assert {one.outcome for one in result.verdicts.judgements} == {"error"}
    assert set(judge.calls.values()) == {1}
    assert "key-of-this-account" not in (tmp_path / "verdicts.json").read_text()


def test_an_endpoint_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1: the connection failed"):
        judged(settings(tmp_path, retries=0))


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"OPENAI_API_KEY is not set.*server of your own"):
        judged(settings(tmp_path))


def endpoint_at(url: str, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    options: dict[str, Any] = {"temperature": None, "max_tokens": 9, "first_token": False, "concurrency": 1}
    return Endpoint("m", **options, requests_per_minute=None, timeout=1, retries=0).identity["endpoint"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1?api_key=abcdef", "http://127.0.0.1:9/v1#abcdef"])
def test_a_key_in_an_address_is_refused_and_written_nowhere(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": "Who?", "response": name}) + "\n")
    words = ["judge", *(str(tmp_path / f"{name}.jsonl") for name in ("one", "two")), "--judge", f"openai:m@{address}"]
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--output", str(tmp_path / "verdicts.json")])
    assert caught.value.code == 2
    assert "cannot be sent; keys go into OPENAI_API_KEY" in (said := capsys.readouterr().err)
    assert "abcdef" not in said
    assert not any(b"abcdef" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_deployments_behind_one_host_are_told_apart_and_secrets_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ["https://name:secret@host.example/a/v1/", "https://host.example/b/v1", "http://host.example:80/"]
    assert [endpoint_at(url, monkeypatch) for url in urls] == [
        "host.example/a/v1",
        "host.example/b/v1",
        "host.example:80",
    ]
    assert endpoint_at("", monkeypatch) == "api.openai.com/v1"
    broken = ("http://host:port/v1", "http://host:99999/v1", "http://[::1", "http://host/v1\n", " ", "file:///secret")
    for url in ("name:secret@host.example/v1", "localhost:8000/v1", "http://", *broken):
        with pytest.raises(UserError, match="OPENAI_BASE_URL: is not an address") as caught:
            endpoint_at(url, monkeypatch)
        assert "secret" not in str(caught.value)


def ask(prompts: list[str], **changes: Any) -> dict[int, Reply | Failure]:
    options: dict[str, Any] = {"temperature": None, "max_tokens": 9, "first_token": False, "concurrency": 4}
    options |= {"requests_per_minute": None, "timeout": 5.0, "retries": 2, **changes}
    found: dict[int, Reply | Failure] = {}
    Endpoint("fake", **options).ask(prompts, lambda reply: read_reply(reply, "text"), found.__setitem__)
    return found


FRAMED = [
    f"every line that holds the mark m\n--- m submission ---\ngood {n}\n--- m submission ---\nx" for n in range(8)
]


def test_calls_are_paced_and_few_at_once(judge: FakeJudge) -> None:
    judge.delay = 0.05
    assert len(ask(FRAMED, concurrency=3)) == len(FRAMED)
    assert judge.most_under_way == 3
    judge.times.clear()
    ask(FRAMED, requests_per_minute=1200)
    gaps = [later - earlier for earlier, later in zip(judge.times, judge.times[1:], strict=False)]
    assert sum(gaps) > 0.9 * 7 * 0.05
    assert "temperature" not in judge.bodies[0]


def test_retry_after_is_heeded_by_all_workers(judge: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    judge.retry_after = "0.4"
    monkeypatch.setattr(judge, "fault", lambda prompt, attempt: "429" if not attempt and prompt == FRAMED[0] else None)
    found = ask(FRAMED, concurrency=1)
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert judge.times[1] - judge.times[0] > 0.39


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("", 0), ("7", 7), ("0.5", 0.5), ("soon", 0), ("99999", endpoint.LONGEST_ORDERED_WAIT), ("-3", 0)),
        *(("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Fri, 01 Jan 2100 00:00:00 GMT", endpoint.LONGEST_ORDERED_WAIT)),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float) -> None:
    assert _retry_after({"retry-after": header}) == seconds


def test_first_token_probabilities_make_a_preference(judge: FakeJudge, tmp_path: Path) -> None:
    # Always 0.6 for A and 0.2 for B, whatever it is shown: a judge who goes by place, which both orders cancel out.
    judge.logprobs = {"A": -0.6931471805599453, " A": -2.302585092994046, "B": -1.6094379124341003, "C": -3.0}
    result = judged(settings(tmp_path, pairs=4, verdict_from="first_token"))
    found = result.verdicts.judgements
    assert [round(one.preference or 0, 6) for one in found] == [0.75, 0.25] * 4
    assert [one.outcome for one in found] == ["win", "loss"] * 4
    assert {(verdict.outcome, verdict.flipped) for verdict in combine(found).values()} == {("tie", True)}
    body = judge.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)
    assert "Verdict:" not in body["messages"][0]["content"]
    judge.logprobs = None
    result = judged(settings(tmp_path, pairs=1, verdict_from="first_token", output=tmp_path / "n.json", overwrite=True))
    assert result.verdicts.judgements[0].outcome == "win", "cached"


def test_without_log_probabilities_there_is_no_preference(judge: FakeJudge, tmp_path: Path) -> None:
    result = judged(settings(tmp_path, pairs=1, verdict_from="first_token"))
    assert all("no log-probabilities" in one.reason for one in result.verdicts.judgements)
    judge.logprobs = {"The": -0.1}
    result = judged(settings(tmp_path, pairs=1, verdict_from="first_token"))
    assert all("neither A nor B" in one.reason for one in result.verdicts.judgements)


@pytest.mark.usefixtures("judge")
def test_it_can_be_used_where_an_event_loop_runs_already() -> None:
    async def cell() -> dict[int, Reply | Failure]:
        return ask(FRAMED[:2])

    assert len(asyncio.run(cell())) == 2
