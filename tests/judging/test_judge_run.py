"""Judging as a whole: orders, the cache, resuming after a kill, what a file belongs to, and the dry run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import fake_judge
import pytest
from endpoint_judgements import judged, responses, right, settings
from fake_judge import FakeJudge
from rich.console import Console

from preflab.core import terminal
from preflab.core.output import unfinished
from preflab.core.records import Judgement, Message, Pair, UserError, Winner
from preflab.core.rundir import append_jsonl
from preflab.data.answers import AnswerRow
from preflab.judging import human
from preflab.judging.cache import ReplyCache
from preflab.judging.command import JudgeResult, _chosen_for, judge_responses
from preflab.judging.estimate import Cost
from preflab.judging.kinds import parse_judge, spec_of
from preflab.judging.language import framed
from preflab.judging.parse import Reply, read_reply
from preflab.judging.run import judge as run_judge
from preflab.judging.run import plan
from preflab.judging.settings import JudgeSettings
from preflab.judging.verdicts import read_journal, read_verdicts
from preflab.stats.judgements import combine
from preflab.stats.study import Judge


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    with fake_judge.serving(monkeypatch) as found:
        yield found


# ---- what there is to judge ------------------------------------------------------------------------------------------


def pairs(count: int) -> list[Pair]:
    return [Pair(f"{n}/0", (Message("user", f"q{n}"),), f"good {n}", f"bad {n}") for n in range(count)]


def planned(given: list[Pair], orders: Any = "both", seed: int = 0, earlier: tuple[Judgement, ...] = ()) -> Any:
    cache = ReplyCache({"model": "m"})
    return plan(given, cache, framed("Q", orders, "text", seed), earlier=earlier)


def in_words(reply: Reply) -> tuple[Winner, float | None]:
    return read_reply(reply, "text")


def test_a_random_order_is_seeded_and_belongs_to_the_sample() -> None:
    orders = dict(planned(pairs(60), "random").wanted)
    assert orders == dict(planned(pairs(60)[::-1], "random").wanted)
    assert orders != dict(planned(pairs(60), "random", seed=1).wanted)
    assert 15 < list(orders.values()).count("model_first") < 45
    assert len(planned(pairs(60)).wanted) == 120


def test_errors_are_tried_again_and_verdicts_are_not() -> None:
    earlier = (Judgement("0/0", "win", "model_first"), Judgement("0/0", "error", "opponent_first", reason="r"))
    work = planned(pairs(1), earlier=earlier)
    assert list(work.settled.values()) == [earlier[0]]
    assert list(work.waiting.values()) == [(("0/0", "opponent_first"),)]


def test_identical_responses_tie_without_being_asked_about() -> None:
    same = [Pair("1/0", (Message("user", "q"),), "the same", "the same")]
    work = planned(same)
    assert not work.waiting
    assert {judgement.outcome for judgement in work.settled.values()} == {"tie"}


class Answering:
    """A judge in this process that always replies the same."""

    identity: Mapping[str, object] = {"model": "m"}  # a constant of the test

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, prompts: Any, read: Any, report: Any) -> None:
        for index, prompt in enumerate(prompts):
            self.asked.append(prompt)
            read(Reply("Verdict: FIRST"))
            report(index, Reply("Verdict: FIRST"))


def test_what_comes_twice_is_asked_once() -> None:
    twice = [*pairs(2), *(Pair(f"{n}/1", pair.prompt, pair.response, pair.opponent) for n, pair in enumerate(pairs(2)))]
    backend, kept = Answering(), []
    found = run_judge(planned(twice), backend, ReplyCache({"model": "m"}), read=in_words, keep=kept.extend)
    assert len(backend.asked) == len(set(backend.asked)) == 4
    assert [(one.sample_id, one.order) for one in found] == list(planned(twice).wanted)
    assert sorted(map(repr, kept)) == sorted(map(repr, found))
    assert {verdict.flipped for verdict in combine(found).values()} == {True}


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache_is_by_content_and_survives_damage(own_cache: Path) -> None:
    cache = ReplyCache({"model": "a/b", "temperature": 0})
    for word in ("one", "two"):
        cache.add(cache.key(word), word, Reply(f"Verdict: {word}", {"A": -1.0}))
    assert cache.path.is_relative_to(own_cache)
    with cache.path.open("ab") as file:
        file.write(b'{"key": "zz", "reply": {"te')  # a kill
    assert ReplyCache({"model": "a/b", "temperature": 0}).get(cache.key("two")) == Reply("Verdict: two", {"A": -1.0})
    cache.add(cache.key("three"), "three", Reply("x"))
    text = cache.path.read_text().replace('"text": "Verdict: one"', '"text": "Verd')  # a damaged line
    cache.path.write_text("not json\n" + text)
    again = ReplyCache({"model": "a/b", "temperature": 0})
    assert [again.get(cache.key(word)) is not None for word in ("one", "two", "three")] == [False, True, True]
    for other in ({"model": "a/b", "temperature": 1}, {"model": "a/b", "temperature": 0, "host": "elsewhere"}):
        assert ReplyCache(other).get(cache.key("two")) is None
        assert ReplyCache(other).key("two") != cache.key("two")


def test_two_caches_can_write_at_once() -> None:
    one, other = ReplyCache({"model": "m"}), ReplyCache({"model": "m"})
    for number in range(20):
        for cache in (one, other):
            cache.add(f"{number} {cache is one}", "prompt", Reply("x" * 5000))
    assert len(ReplyCache({"model": "m"})._replies) == 40


def test_a_cached_reply_that_is_no_verdict_is_asked_for_again(
    judge: FakeJudge, tmp_path: Path, own_cache: Path
) -> None:
    judged(settings(tmp_path, pairs=2))
    (path,) = own_cache.rglob("*.jsonl")
    path.write_text(path.read_text().replace("Verdict: FIRST", "Verdict: PERHAPS"))
    result = judged(settings(tmp_path, pairs=2, output=tmp_path / "again.json"))
    assert judge.calls.total() == 4 + 2
    assert all(one.outcome == right(one.sample_id) for one in result.verdicts.judgements)


# ---- kills and other inputs ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_goes_on_without_asking_again(judge: FakeJudge, tmp_path: Path, own_cache: Path) -> None:
    judge.delay = 0.02
    model, base = responses(tmp_path)
    output = tmp_path / "verdicts.json"
    words = [model, base, "--judge", "openai:fake", "--output", str(output), "--concurrency", "4"]
    environment = {**os.environ, "PREFLAB_CACHE": str(own_cache)}
    process = subprocess.Popen([sys.executable, "-m", "preflab", "judge", *words], env=environment, stderr=-3)
    try:
        while judge.good.total() < 25 and process.poll() is None:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "it was still at work"
    assert not output.exists()
    before = judge.calls.copy()
    kept = read_journal(unfinished(output)).judgements
    assert 20 <= len(kept) <= judge.good.total() < 80
    shutil.rmtree(own_cache)  # what is judged is judged, whatever becomes of the cache
    given = JudgeSettings(responses=model, opponent=base, judge="openai:fake", output=output, concurrency=4)
    result = judged(given)
    assert all(one.outcome == right(one.sample_id) for one in result.verdicts.judgements)
    assert len(result.verdicts.judgements) == 80
    assert set(kept) <= set(result.verdicts.judgements)
    # What was on its way when the process died may be asked again, and nothing else.
    assert sum((judge.calls - before).values()) == 80 - len(kept)
    assert judge.calls.total() <= 80 + 4
    assert not unfinished(output).exists()


def test_a_file_made_from_other_inputs_is_refused(judge: FakeJudge, tmp_path: Path) -> None:
    judged(settings(tmp_path, pairs=2))
    for changes in ({"pairs": 3}, {"question": "summarisation"}, {"judge": "openai:other"}, {"judge_temperature": 0.5}):
        with pytest.raises(UserError, match="made from other inputs"):
            judge_responses(settings(tmp_path, **{"pairs": 2, **changes}))
    assert judge.calls.total() == 4
    judged(settings(tmp_path, pairs=2, concurrency=1, retries=0, timeout=9.0))
    judged(settings(tmp_path, pairs=3, overwrite=True))
    foreign = tmp_path / "notes.json"
    foreign.write_text("{}")
    with pytest.raises(UserError, match="did not make"):
        judge_responses(settings(tmp_path, output=foreign, overwrite=True))
    with pytest.raises(UserError, match=r"must end in \.json"):
        judge_responses(settings(tmp_path, output=tmp_path / "verdicts.jsonl"))


def test_two_processes_do_not_judge_into_one_file(judge: FakeJudge, tmp_path: Path) -> None:
    given = settings(tmp_path, pairs=2)
    lines = "import sys; from pathlib import Path; from preflab.core.output import alone_with\n"
    lines += f"with alone_with(Path({str(given.output)!r})): print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match="another process is at work on this file"):
            judged(given)
        assert not judge.calls
        other.kill()  # which is no reason to refuse
    assert len(judged(given).verdicts.judgements) == 4


# ---- people ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[..., JudgeResult]:
    """Somebody who makes these choices, one after the other, and has then had enough."""

    def work(given: JudgeSettings, *choices: str) -> JudgeResult:
        def decide(address: str) -> None:
            def ask(name: str, **body: Any) -> Any:
                data = json.dumps(body).encode() if name != "state" else None
                request = Request(address + name, data, {"Content-Type": "application/json"})
                with urlopen(request, timeout=5) as answer:
                    return json.load(answer)

            state = ask("state")
            for choice in choices:
                state = ask("judge", sample=state["pair"]["sample"], choice=choice)
            if not state["over"]:
                ask("finish")

        def announce(text: str) -> None:
            (address,) = (word for word in text.split() if word.startswith("http"))
            Thread(target=decide, args=(address,), daemon=True).start()

        monkeypatch.setattr(human, "say", announce)
        return judged(given)

    return work


def test_a_person_can_go_on_another_day(person: Callable[..., JudgeResult], tmp_path: Path) -> None:
    given = settings(tmp_path, pairs=5, judge="human")
    some = person(given, "tie", "skip").verdicts.judgements
    assert [one.outcome for one in some] == ["tie", "error"]
    assert not unfinished(tmp_path / "verdicts.json").exists()
    found = person(given, "first", "first", "first").verdicts.judgements
    assert (found[:2], len(found)) == (some, 5)
    assert person(given).verdicts.judgements == found, "nothing is left to ask"


def test_what_a_person_judged_is_never_discarded(person: Callable[..., JudgeResult], tmp_path: Path) -> None:
    given = settings(tmp_path, pairs=3, judge="human")
    found = person(given, "tie", "skip").verdicts.judgements
    append_jsonl(unfinished(tmp_path / "verdicts.json"), [{"sample_id": "9/0", "verdict": "tie"}])  # of a later kill
    judged(settings(tmp_path, pairs=3, judge="gold", overwrite=True))
    (aside,) = (path for path in tmp_path.glob("verdicts.*Z.json"))
    assert read_verdicts(aside).judgements == found
    assert len(read_journal(unfinished(aside)).judgements) == 1
    unfinished(aside).unlink()
    more = person(settings(tmp_path, pairs=3, judge="human", output=aside), "tie")  # goes on under the other name
    assert len(more.verdicts.judgements) == 3
    judged(settings(tmp_path, pairs=3, judge="gold", overwrite=True))
    assert len(list(tmp_path.glob("verdicts.*Z.json"))) == 1, "what others judged is discarded"


def test_the_address_of_the_page_stays_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "CONSOLE", Console(stderr=True, width=20))
    human._announce("http://127.0.0.1:1234/" + 32 * "x" + "/")
    assert "http://127.0.0.1:1234/" + 32 * "x" + "/" in capsys.readouterr().err


# ---- the dry run -----------------------------------------------------------------------------------------------------


def test_a_dry_run_asks_nothing_and_prices_the_rest(
    judge: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(settings(tmp_path, pairs=3))
    monkeypatch.delenv("OPENAI_API_KEY")
    files = sorted(tmp_path.iterdir())
    found = judge_responses(settings(tmp_path, pairs=10, dry_run=True, output=tmp_path / "new.json"))
    assert isinstance(found, Cost)
    assert (found.judgements, found.cached, found.known, found.calls) == (20, 6, 0, 14)
    assert found.output_tokens == 14 * 512
    assert found.price is None
    sent = sum(len(body["messages"][0]["content"]) for body in judge.bodies)
    assert found.input_tokens == pytest.approx(sent / 6 * 14 / 4, rel=0.02)
    own = judge_responses(settings(tmp_path, pairs=10, dry_run=True, price_input=2.0, price_output=1.0))
    assert isinstance(own, Cost)
    assert own.price == pytest.approx((own.input_tokens * 2 + own.output_tokens) / 1e6)
    assert "$" in str(own)
    assert "4 characters" in str(own)
    named = judge_responses(settings(tmp_path, pairs=10, dry_run=True, judge="openai:gpt-4o"))
    assert isinstance(named, Cost)
    assert named.price is not None
    assert "January 2025" in str(named)
    with pytest.raises(UserError, match="both, or neither"):
        judge_responses(settings(tmp_path, dry_run=True, price_input=2.0))
    assert judge.calls.total() == 6
    assert sorted(tmp_path.iterdir()) == files


# ---- words of the command line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("openai:gpt-4o", Judge("gpt-4o", "openai", "gpt-4o")),
        ("openai:meta/llama:free", Judge("llama-free", "openai", "meta/llama:free")),
        ("openai:org/q@http://h:1/v1", Judge("q", "openai", "org/q@http://h:1/v1")),
        ("big=openai:gpt-4o", Judge("big", "openai", "gpt-4o")),
        ("hf:runs/dpo/model", Judge("dpo", "hf", "runs/dpo/model")),
        ("reward:runs/reward/model", Judge("reward", "reward_model", "runs/reward/model")),
        ("gold", Judge("gold", "gold", "gold")),
        ("me=human", Judge("me", "human", "human")),
    ],
)
def test_judges_are_read_from_words(word: str, found: Judge) -> None:
    assert parse_judge(word) == found
    assert spec_of(found) == word.rpartition("=")[2]


@pytest.mark.parametrize("word", ["gpt-4o", "openai:", "opnai:gpt-4o", "reward", "hf: "])
def test_what_is_no_judge_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="openai:MODEL"):
        parse_judge(word)


def test_models_and_stray_prompts_are_refused(tmp_path: Path) -> None:
    model, base = responses(tmp_path)
    with pytest.raises(UserError, match="preflab generate"):
        judge_responses(JudgeSettings(responses=str(tmp_path), opponent=base, judge="gold"))
    with pytest.raises(UserError, match="prompts: missing"):
        judge_responses(JudgeSettings(responses=model, opponent="chosen", judge="gold"))
    with pytest.raises(UserError, match="only for `chosen`"):
        judge_responses(JudgeSettings(responses=model, opponent=base, judge="gold", prompts=("sandbox:preferences",)))


def test_preferred_responses_are_found_by_their_prompt(judge: FakeJudge, tmp_path: Path) -> None:
    model, _ = responses(tmp_path, 3)
    data = [{"prompt": f"question {n}", "chosen": f"a good choice {n}", "rejected": "no"} for n in (2, 0, 1)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in data))
    output = tmp_path / "chosen.json"
    given: dict[str, Any] = {"responses": model, "opponent": "chosen", "judge": "openai:fake", "output": output}
    result = judged(JudgeSettings(**given, prompts=(str(source),)))
    assert [one.outcome for one in result.verdicts.judgements] == ["tie"] * 2 + ["loss"] * 4
    document = json.loads(output.read_text())
    assert document["win_counts"] == {"model": 0, "chosen": 2, "tie": 1, "error": 0}
    assert document["results"][2]["chosen_response"] == "a good choice 1"
    source.write_text("".join(json.dumps(row) + "\n" for row in data[:2]))
    with pytest.raises(UserError, match="1 of 3 prompts have no preferred response"):
        judged(JudgeSettings(**given, prompts=(str(source),)))
    assert judge.calls.total() == 6


def test_of_several_preferred_responses_to_a_prompt_that_of_the_same_row_counts() -> None:
    def row(number: int, response: str) -> AnswerRow:
        return AnswerRow(number, 0, (Message("user", "q"),), response, None, None, {})

    chosen = [row(1, "first"), row(2, "second"), row(3, "third")]
    found = _chosen_for([row(2, "ours"), row(3, "ours"), row(9, "ours")], chosen)
    assert [answer.response for answer in found] == ["second", "third", "first"]


@pytest.mark.slow
def test_a_judge_behind_an_endpoint_starts_without_torch() -> None:
    lines = "import sys, preflab.judging.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lines], check=False).returncode == 0
