"""The human judge: a page in a real browser, and the server behind it asked directly."""

from __future__ import annotations

import http.client
import json
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from preflab.core.output import unfinished
from preflab.core.records import Judgement, Message, Pair, UserError
from preflab.core.rundir import append_jsonl
from preflab.judging.human import SKIPPED, judge_by_hand
from preflab.judging.verdicts import read_journal

if TYPE_CHECKING:
    from browser import OpenPage

pytest_plugins = ("browser",)

SCRIPT = "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"


def pairs(count: int = 4) -> list[Pair]:
    return [
        Pair(f"{row}/0", (Message("user", f"Question {row}"),), f"model answer {row}", f"opponent answer {row}")
        for row in range(1, count + 1)
    ]


class Sitting:
    """A judge at work in another thread: where its page is, and what it hands back."""

    def __init__(self, journal: Path, given: list[Pair], seed: int = 0) -> None:
        self.journal, self._given, self._seed = journal, given, seed
        self._address: queue.Queue[str | Exception] = queue.Queue()
        self.result: tuple[Judgement, ...] | None = None
        self._thread = Thread(target=self._judge, daemon=True)
        self._thread.start()
        self.url = self._address.get(timeout=5)
        self.host, self.path = self.url.removeprefix("http://").split("/", 1)

    def _judge(self) -> None:
        found = judge_by_hand(
            self._given, self.journal, opponent_word="baseline", seed=self._seed, announce=self._address.put
        )
        self.result = found

    def request(self, method: str, name: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Ask the server as a browser would; the status, and what it answered (the state, where it is one)."""
        return self.raw(method, f"/{self.path}{name}", body, **headers)

    def raw(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, timeout=5)
        content = None if body is None else json.dumps(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, content, {**kind, **{k.replace("_", "-"): v for k, v in headers.items()}})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text) if answer.headers["Content-Type"] == "application/json" else text

    def state(self) -> Any:
        return self.request("GET", "state")[1]

    def judge(self, sample: str, choice: str) -> tuple[int, Any]:
        return self.request("POST", "judge", {"sample": sample, "choice": choice})

    def end(self) -> tuple[Judgement, ...]:
        self._thread.join(timeout=5)
        assert self.result is not None, "the judge has not ended"
        return self.result


@contextmanager
def sitting(folder: Path, given: list[Pair] | None = None, seed: int = 0) -> Iterator[Sitting]:
    found = Sitting(unfinished(folder / "dpo.json"), pairs() if given is None else given, seed)
    try:
        yield found
    finally:
        if found.result is None:
            with suppress(OSError):
                found.request("POST", "finish", {})


def model_is_first(state: Any) -> bool:
    return bool(state["pair"]["first"].startswith("model"))


# ---- the page ----


def test_keys_judge_and_the_last_verdict_ends_it(tmp_path: Path, open_page: OpenPage) -> None:
    """Both keys for each side, tie and skip; the outcome is the model's whichever side it stood on."""
    given = pairs(7)
    keys = ["ArrowLeft", "1", "ArrowRight", "2", " ", "t", "s"]
    expected = []
    with sitting(tmp_path, given) as judge, open_page() as page:
        page.goto(judge.url)
        for number, (pair, key) in enumerate(zip(given, keys, strict=True)):
            page.wait_for_function("n => state && state.done === n", arg=number)
            assert page.inner_text("#progress").startswith(f"{number} done · {7 - number} left")
            assert page.inner_text("#prompt .text") == f"Question {number + 1}"
            left = page.inner_text("#first")
            assert {left, page.inner_text("#second")} == {pair.response, pair.opponent}
            order = "model_first" if left == pair.response else "opponent_first"
            picked = {"ArrowLeft": "first", "1": "first", "ArrowRight": "second", "2": "second"}.get(key)
            won = "win" if (picked == "first") == (order == "model_first") else "loss"
            outcome = {" ": "tie", "t": "tie", "s": "error"}.get(key, won)
            expected.append(Judgement(pair.sample_id, outcome, order, reason=SKIPPED if key == "s" else ""))
            page.keyboard.press(key)
        page.wait_for_selector("#end:not([hidden])")
        assert not page.is_visible("#controls")
        assert judge.end() == tuple(expected)
        assert {judgement.order for judgement in expected} == {"model_first", "opponent_first"}
    assert read_journal(judge.journal).judgements == tuple(expected)


def test_text_of_models_is_shown_and_never_run(tmp_path: Path, open_page: OpenPage) -> None:
    turns = (
        Message("system", SCRIPT),
        Message("user", SCRIPT),
        Message("assistant", "a\nb"),
        Message("user", "?"),
    )
    with sitting(tmp_path, [Pair("1/0", turns, SCRIPT, "  ")]) as judge, open_page() as page:
        page.goto(judge.url)
        page.wait_for_selector("#prompt .turn")
        assert page.locator("#prompt .turn").count() == 4
        assert page.inner_text("#prompt .turn.assistant .text") == "a\nb"
        shown = {page.inner_text("#first"), page.inner_text("#second")}
        assert shown == {SCRIPT, "(an empty response)"}
        assert page.evaluate("[document.images.length, window.broken]") == [0, None]


def test_undo_takes_back_the_last_verdict_and_shows_its_pair_again(tmp_path: Path, open_page: OpenPage) -> None:
    with sitting(tmp_path) as judge, open_page() as page:
        page.goto(judge.url)
        for number, key in enumerate(["1", "2", "u", "Backspace", "u"]):
            page.wait_for_function("() => !busy")
            page.keyboard.press(key)
            page.wait_for_function("() => !busy")
            done = [1, 2, 1, 0, 0][number]
            assert page.inner_text("#prompt .text") == f"Question {done + 1}"
            assert len(read_journal(judge.journal).judgements) == done
        page.keyboard.press("t")
        page.wait_for_function("() => state.done === 1")
        assert [judgement.outcome for judgement in read_journal(judge.journal).judgements] == ["tie"]


def test_a_key_held_down_and_a_used_button_judge_one_pair(tmp_path: Path, open_page: OpenPage) -> None:
    """A repeat is not another verdict, and space after a click on a button means a tie, not the button again."""
    with sitting(tmp_path, pairs(6)) as judge, open_page() as page:
        page.goto(judge.url)
        page.wait_for_selector("#prompt .turn")
        page.keyboard.down("t")
        for _ in range(5):
            page.keyboard.down("t")
        page.keyboard.up("t")
        page.wait_for_function("() => !busy")
        assert judge.state()["done"] == 1
        page.click("[data-choice=first]")
        page.wait_for_function("() => state.done === 2")
        page.keyboard.press("Space")
        page.wait_for_function("() => state.done === 3")
        assert [each.outcome for each in read_journal(judge.journal).judgements][::2] == ["tie", "tie"]
        page.evaluate("for (const key of '12') document.dispatchEvent(new KeyboardEvent('keydown', { key }))")
        page.wait_for_function("() => state.done === 4 && !busy")
        assert page.inner_text("#notice") == ""  # the second key came before the next pair, and asked for nothing
        page.keyboard.press("Control+s")
        page.wait_for_timeout(50)
        assert judge.state()["done"] == 4


def test_finish_ends_early_once_it_is_confirmed(tmp_path: Path, open_page: OpenPage) -> None:
    with sitting(tmp_path) as judge, open_page() as page:
        page.goto(judge.url)
        page.wait_for_selector("#prompt .turn")
        assert page.is_disabled("#finish")
        page.keyboard.press("1")
        page.wait_for_function("() => state.done === 1")
        page.click("#finish")  # a question that is dismissed
        assert judge.state()["over"] is False
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#finish")
        page.wait_for_selector("#end:not([hidden])")
        assert [judgement.sample_id for judgement in judge.end()] == ["1/0"]


def test_a_second_tab_cannot_judge_a_sample_again(tmp_path: Path, open_page: OpenPage) -> None:
    with sitting(tmp_path) as judge, open_page() as page:
        other = page.context.new_page()
        for tab in (page, other):
            tab.goto(judge.url)
            tab.wait_for_selector("#prompt .turn")
        page.keyboard.press("1")
        page.wait_for_function("() => state.done === 1")
        other.keyboard.press("2")
        other.wait_for_function("() => document.getElementById('notice').textContent")
        assert "another tab" in other.inner_text("#notice")
        assert other.inner_text("#prompt .text") == "Question 2"
        assert len(read_journal(judge.journal).judgements) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk(tmp_path: Path, scheme: str, open_page: OpenPage) -> None:
    """Side by side on a desk, below each other on a phone, and no sideways scrolling whatever a response holds."""
    long = [Pair("1/0", pairs(1)[0].prompt, "x" * 3000, "word " * 300)]
    with sitting(tmp_path, long) as judge, open_page(color_scheme=scheme) as page:
        page.goto(judge.url)
        page.wait_for_selector("#prompt .turn")
        for width, beside in ((1280, True), (360, False)):
            page.set_viewport_size({"width": width, "height": 700})
            first, second = (page.locator(f"article:has(#{name})").bounding_box() for name in ("first", "second"))
            assert (first["y"] == second["y"]) is beside
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") is (scheme == "light")


# ---- the server ----


def test_only_who_has_the_address_gets_in(tmp_path: Path) -> None:
    with sitting(tmp_path) as judge:
        token = judge.path.strip("/")
        assert judge.host.startswith("127.0.0.1:")
        assert len(token) >= 32
        assert judge.request("GET", "")[0] == 200
        for path in ("/", "/state", "/wrong/state", f"/{token[:-1]}/state", f"/{token.swapcase()}/", "/%00/"):
            assert judge.raw("GET", path)[0] == 403, path
        assert judge.raw("POST", "/wrong/judge", {"sample": "1/0", "choice": "first"})[0] == 403
        # A site whose name was made to point here, and a form on another site.
        assert judge.request("GET", "state", Host="evil.example")[0] == 403
        assert judge.request("POST", "judge", {"sample": "1/0", "choice": "tie"}, Host="evil.example:80")[0] == 403
        assert judge.request("POST", "judge", {"sample": "1/0", "choice": "tie"}, Content_Type="text/plain")[0] == 400
        assert judge.request("GET", "../human.py")[0] == 404
        assert judge.request("GET", "human.py")[0] == 404
        assert judge.state()["done"] == 0


def test_the_page_may_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    with sitting(tmp_path) as judge:
        connection = http.client.HTTPConnection(judge.host, timeout=5)
        connection.request("GET", f"/{judge.path}")
        headers = connection.getresponse().headers
        connection.close()
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"  # the address holds the secret


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("judge", {}),
        ("judge", []),
        ("judge", {"sample": "1/0", "choice": "win"}),
        ("judge", {"sample": "1/0", "choice": ["first"]}),
        ("undo", {}),
        ("judge", {"sample": "1/0", "choice": "first", "more": "x" * 20_000}),
    ],
)
def test_what_the_page_would_not_send_changes_nothing(tmp_path: Path, name: str, body: Any) -> None:
    with sitting(tmp_path) as judge:
        assert judge.request("POST", name, body)[0] == 400
        assert judge.state()["done"] == 0
        assert judge.judge("1/0", "first")[0] == 200


def test_a_body_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    with sitting(tmp_path) as judge:
        connection = http.client.HTTPConnection(judge.host, timeout=5)
        connection.request("POST", f"/{judge.path}undo", "[" * 9000, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 400
        connection.close()


def test_only_a_number_takes_a_verdict_back(tmp_path: Path) -> None:
    with sitting(tmp_path) as judge:
        judge.judge("1/0", "tie")
        assert [judge.request("POST", "undo", {"done": done})[0] for done in (True, 1.0, "1")] == [400] * 3
        assert judge.state()["done"] == 1


def test_the_state_does_not_tell_which_response_is_the_models(tmp_path: Path) -> None:
    given = [Pair("1/0", (Message("user", "?"),), "aaa", "bbb")]
    states = []
    for name, swapped in (("a", given), ("b", [Pair("1/0", given[0].prompt, "bbb", "aaa")])):
        for seed in range(20):  # until the model's response stands first here, and second there
            with sitting(tmp_path / f"{name}{seed}", swapped, seed) as judge:
                state = judge.state()
            if state["pair"]["first"] == "aaa":
                states.append(state)
                break
    assert states[0] == states[1]


def test_orders_are_random_but_the_same_again(tmp_path: Path) -> None:
    def orders(folder: str, seed: int) -> list[bool]:
        found = []
        with sitting(tmp_path / folder, pairs(40), seed) as judge:
            for pair in pairs(40):
                found.append(model_is_first(judge.state()))
                if pair.sample_id != "40/0":
                    judge.judge(pair.sample_id, "tie")
        return found

    first = orders("a", 0)
    assert 10 < sum(first) < 30
    assert orders("b", 0) == first
    assert orders("c", 1) != first


def test_an_undo_that_comes_late_takes_nothing_back(tmp_path: Path) -> None:
    """Two tabs, or a key pressed twice: what was meant is the verdict that the page showed as the last one."""
    with sitting(tmp_path) as judge:
        assert judge.request("POST", "undo", {"done": 0})[0] == 409
        for sample in ("1/0", "2/0"):
            judge.judge(sample, "tie")
        assert [judge.request("POST", "undo", {"done": 2})[0] for _ in range(2)] == [200, 409]
        assert judge.state()["done"] == 1


def test_a_verdict_that_cannot_be_kept_is_not_counted(tmp_path: Path) -> None:
    with sitting(tmp_path) as judge:
        judge.journal.mkdir()  # nothing can be written there
        assert judge.judge("1/0", "tie") == (500, "the verdict cannot be kept: Is a directory")
        judge.journal.rmdir()
        assert judge.state()["done"] == 0
        assert judge.judge("1/0", "tie")[0] == 200


def test_a_killed_sitting_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = unfinished(tmp_path / "dpo.json")
    killed = Sitting(journal, pairs())  # never ended
    killed.judge("1/0", "first")
    killed.judge("2/0", "skip")
    with journal.open("a") as file:
        file.write('{"sample_id": "3/0", "verd')  # what a kill leaves of a line
    with sitting(tmp_path) as judge:
        state = judge.state()
        assert (state["done"], state["left"], state["skipped"], state["pair"]["sample"]) == (2, 2, 1, "3/0")
        assert state["seconds_left"] is None
        judge.judge("3/0", "tie")
        assert judge.state()["seconds_left"] is not None
        judge.judge("4/0", "tie")
        found = judge.end()
    assert [judgement.sample_id for judgement in found] == ["1/0", "2/0", "3/0", "4/0"]
    assert read_journal(journal).judgements == found


def test_nothing_is_asked_when_all_is_judged(tmp_path: Path) -> None:
    journal = unfinished(tmp_path / "dpo.json")
    with sitting(tmp_path, pairs(1)) as judge:
        judge.judge("1/0", "tie")
        found = judge.end()

    def announce(address: str) -> None:
        raise AssertionError(f"a page was opened at {address}")

    assert judge_by_hand(pairs(1), journal, opponent_word="baseline", seed=0, announce=announce) == found


def test_a_journal_about_other_texts_is_refused(tmp_path: Path) -> None:
    journal = unfinished(tmp_path / "dpo.json")
    with sitting(tmp_path) as judge:
        judge.judge("1/0", "first")
    for given in (pairs()[1:], [Pair("1/0", pairs()[0].prompt, "another answer", "opponent answer 1")]):
        with pytest.raises(UserError, match=r"dpo\.unfinished\.jsonl: sample 1/0 is about other texts"):
            judge_by_hand(given, journal, opponent_word="baseline", seed=0, announce=print)
    append_jsonl(journal, [{"sample_id": "9/9", "verdict": "left"}])
    with pytest.raises(UserError, match="row 2: `verdict` is 'left'"):
        judge_by_hand(pairs(), journal, opponent_word="baseline", seed=0, announce=print)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with sitting(tmp_path) as judge:
        port = int(judge.host.partition(":")[2])
        with pytest.raises(UserError, match=f"port {port}: cannot be used"):
            judge_by_hand(pairs(), tmp_path / "b.jsonl", opponent_word="chosen", seed=0, port=port, announce=print)
