"""A person as the judge: a page on this computer shows a prompt and two responses, and keeps each verdict at once.

Nobody else gets in: the server listens on the loopback interface alone, its address holds a secret, and requests under
another host's name are refused (a site could point its name here). Which response is the model's never leaves it.
"""

from __future__ import annotations

import json
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from preflab.core.config import Settings
from preflab.core.records import Judgement, Order, Pair, UserError, Winner, messages_to_json, outcome_of
from preflab.core.rundir import append_jsonl, write_jsonl
from preflab.core.terminal import say
from preflab.judging.orders import IDENTICAL, draw_order
from preflab.judging.protocol import JudgeRequest, Kind
from preflab.judging.verdict_rows import OpponentWord, verdict_row
from preflab.judging.verdicts import read_journal
from preflab.stats.study import Judge

SKIPPED = "skipped by the person who judged"
"""Reason of an error: the sample has no verdict, and is neither a loss nor a tie."""

_CHOICES: Mapping[str, Winner | None] = {"first": "first", "second": "second", "tie": "tie", "skip": None}
"""What the page can say of a pair: whom the person prefers, or nothing."""
_RECENT = 20
_LONGEST_BODY = 10_000
_ASSETS: Mapping[str, tuple[str, str]] = {
    "": ("human.html", "text/html; charset=utf-8"),
    "human.css": ("human.css", "text/css; charset=utf-8"),
    "human.js": ("human.js", "text/javascript; charset=utf-8"),
}
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def judge_by_hand(
    pairs: Sequence[Pair],
    journal: Path,
    *,
    opponent_word: OpponentWord,
    seed: int,
    port: int = 0,
    announce: Callable[[str], None],
) -> tuple[Judgement, ...]:
    """Let a person judge; returns when all pairs are judged, or when the person says that this is enough.

    Each sample is judged once, the two responses in an order drawn from `seed` and its id. A verdict is in the journal
    before the next pair is shown, so any end is without loss, and the same call goes on where it was. A skipped sample
    is an error with the reason `SKIPPED`; one that was not reached has no judgement. Nobody is asked about two
    responses with the same text: that is a tie.

    Args:
        pairs: what to judge, in this order; the ids differ.
        journal: file of the rows judged so far (its rows are those of a verdict file).
        port: where to listen; 0 takes a free one.
        announce: gets the address of the page.

    Raises UserError where the journal is about other samples or texts, or the port is taken.
    """
    assert len({pair.sample_id for pair in pairs}) == len(pairs), "sample ids differ"
    sitting = Sitting(pairs, journal, opponent_word, seed)
    if not sitting.over.is_set():
        token = secrets.token_urlsafe(24)
        try:
            server = _Server(port, sitting, token)
        except OSError as error:
            raise UserError(f"port {port}: cannot be used: {(error.strerror or str(error)).lower()}") from error
        with server:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            announce(f"http://127.0.0.1:{server.server_port}/{token}/")
            try:
                while not sitting.answered.wait(0.2):  # in steps, so that Ctrl-C is heard on every system
                    pass
            finally:
                server.shutdown()
    return tuple(sitting.all_judgements())


def _is_same(pair: Pair) -> bool:
    return pair.response == pair.opponent


class Sitting:
    """What has been judged and what comes next. Browsers ask from several threads, and perhaps from several tabs."""

    def __init__(self, pairs: Sequence[Pair], journal: Path, opponent_word: OpponentWord, seed: int) -> None:
        earlier = read_journal(journal)
        self.judgements = list(earlier.judgements)
        self.over, self.answered = Event(), Event()  # nothing more to judge; and the browser knows it
        self._pairs, self._journal, self._opponent_word, self._seed = pairs, journal, opponent_word, seed
        self._by_id = {pair.sample_id: pair for pair in pairs}
        self._lock = Lock()
        self._began = time.monotonic()
        self._seconds: list[float] = []
        for sample_id in (judgement.sample_id for judgement in earlier.judgements):
            if sample_id not in self._by_id or earlier.pairs.get(sample_id) != self._by_id[sample_id]:
                raise UserError(f"{journal}: sample {sample_id} is about other texts than now; judge into another file")
        self._end_if_all_judged()

    def all_judgements(self) -> list[Judgement]:
        """The person's, and a tie for each pair with the same text twice."""
        judged = {judgement.sample_id for judgement in self.judgements}
        same = [pair.sample_id for pair in self._pairs if _is_same(pair) and pair.sample_id not in judged]
        return [*self.judgements, *(Judgement(sample_id, "tie", text=IDENTICAL) for sample_id in same)]

    def state(self) -> dict[str, Any]:
        """What the page shows. Nothing in it tells the model's response from its opponent's."""
        with self._lock:
            pair, done, left = self._next(), len(self.judgements), len(self._waiting())
            return {
                "done": done,
                "left": left,
                "skipped": sum(each.outcome == "error" for each in self.judgements),
                "seconds_left": statistics.median(self._seconds) * left if self._seconds else None,
                "over": self.over.is_set(),
                "pair": None if self.over.is_set() or pair is None else self._shown(pair),
            }

    def judge(self, sample: str, choice: str) -> bool:
        """Keep a verdict; False where it is not this sample's turn (another tab was first).

        Raises KeyError for a choice that there is not.
        """
        winner = _CHOICES[choice]
        with self._lock:
            pair = self._next()
            if self.over.is_set() or pair is None or pair.sample_id != sample:
                return False
            order = self._order(pair)
            judgement = (
                Judgement(pair.sample_id, outcome_of(winner, order), order)
                if winner
                else Judgement(pair.sample_id, "error", order, reason=SKIPPED)
            )
            append_jsonl(self._journal, [self._row(judgement)])
            self.judgements.append(judgement)
            self._took_time()
            self._end_if_all_judged()
            return True

    def undo(self, done: int) -> bool:
        """Take back the last of `done` verdicts; False where there are not that many, or others by now."""
        with self._lock:
            if self.over.is_set() or not self.judgements or len(self.judgements) != done:
                return False
            write_jsonl(self._journal, [self._row(judgement) for judgement in self.judgements[:-1]])
            self.judgements.pop()
            self._took_time()
            return True

    def finish(self) -> bool:
        """End before all is judged; False where nothing is judged yet."""
        with self._lock:
            if self.judgements:
                self.over.set()
            return bool(self.judgements)

    def _next(self) -> Pair | None:
        return next(iter(self._waiting()), None)

    def _waiting(self) -> list[Pair]:
        """What is to be shown yet."""
        judged = {judgement.sample_id for judgement in self.judgements}
        return [pair for pair in self._pairs if pair.sample_id not in judged and not _is_same(pair)]

    def _order(self, pair: Pair) -> Order:
        return draw_order(self._seed, pair.sample_id)

    def _shown(self, pair: Pair) -> dict[str, Any]:
        both = (pair.response, pair.opponent)
        first, second = both if self._order(pair) == "model_first" else both[::-1]
        shown = {"prompt": messages_to_json(pair.prompt), "first": first, "second": second}
        return {"sample": pair.sample_id, **shown}

    def _row(self, judgement: Judgement) -> dict[str, Any]:
        return verdict_row(judgement, self._by_id[judgement.sample_id], self._opponent_word)

    def _took_time(self) -> None:
        now = time.monotonic()
        self._seconds = [*self._seconds, now - self._began][-_RECENT:]
        self._began = now

    def _end_if_all_judged(self) -> None:
        if self._next() is None:
            self.over.set()


# ---- the server ----------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """Serves one sitting on the loopback interface, to those who know its token."""

    def __init__(self, port: int, sitting: Sitting, token: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.sitting, self.token = sitting, token


_ACTIONS: Mapping[str, Callable[[Sitting, Mapping[str, Any]], bool]] = {
    "judge": lambda sitting, body: sitting.judge(body["sample"], body["choice"]),
    "undo": lambda sitting, body: sitting.undo(_count(body["done"])),
    "finish": lambda sitting, _: sitting.finish(),
}


def _count(value: object) -> int:
    """A number of verdicts; JSON's `true` is none, though Python takes it for 1."""
    if type(value) is not int:
        raise ValueError
    return value


class _Handler(BaseHTTPRequestHandler):
    """Answers requests to `/TOKEN/…`: the page's files, the state, and what the person does."""

    server: _Server
    server_version = "preflab"

    def do_GET(self) -> None:
        name = self._name()
        if name is None:
            return
        if name == "state":
            self._answer_state(200)
        elif name in _ASSETS:
            file, kind = _ASSETS[name]
            self._answer(200, resources.files("preflab.judging").joinpath(file).read_bytes(), kind)
        else:
            self._answer(404, b"there is no such page")

    def do_POST(self) -> None:
        name = self._name()
        if name is None:
            return
        if name not in _ACTIONS:
            self._answer(404, b"there is no such page")
            return
        try:
            self._answer_state(200 if _ACTIONS[name](self.server.sitting, self._body()) else 409)
        except (KeyError, ValueError, TypeError, RecursionError):
            self._answer(400, b"not a request of the page")
        except OSError as error:
            self._answer(500, f"the verdict cannot be kept: {error.strerror or error}".encode())
        finally:
            if self.server.sitting.over.is_set():
                self.server.sitting.answered.set()

    def _name(self) -> str | None:
        """What is asked for; None where the request was refused."""
        port = self.connection.getsockname()[1]
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self._answer(403, b"this page is served under 127.0.0.1 only")
            return None
        _, given, name = (*self.path.partition("?")[0].split("/", 2), "", "")[:3]
        if not secrets.compare_digest(given.encode(), self.server.token.encode()):
            self._answer(403, b"open the address that the terminal shows, with all of its letters")
            return None
        return name

    def _body(self) -> Mapping[str, Any]:
        length = int(self.headers.get("Content-Length", 0))
        # A type that a form on another site cannot send.
        if self.headers.get("Content-Type") != "application/json" or not 0 <= length <= _LONGEST_BODY:
            raise ValueError
        body = json.loads(self.rfile.read(length))
        if not isinstance(body, dict):
            raise ValueError
        return body

    def _answer_state(self, status: int) -> None:
        self._answer(status, json.dumps(self.server.sitting.state()).encode(), "application/json")

    def _answer(self, status: int, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Nothing: the terminal is for the person."""


# ---- as a judge ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HumanJudge:
    """A person, at a page on this computer, who may stop before all is judged and go on another day."""

    judge: Judge
    seed: int

    @property
    def settings(self) -> Settings:
        return Settings()

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"seed": self.seed}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    def judgements(self, request: JudgeRequest) -> Sequence[Judgement]:
        word = request.opponent_word
        if request.earlier and not request.journal.exists():  # of a file that was finished before all was judged
            by_id = {pair.sample_id: pair for pair in request.pairs}
            judged = [(found, by_id[found.sample_id]) for found in request.earlier]
            asked = [(found, pair) for found, pair in judged if pair.response != pair.opponent]
            write_jsonl(request.journal, [verdict_row(found, pair, word) for found, pair in asked])
        return judge_by_hand(request.pairs, request.journal, opponent_word=word, seed=self.seed, announce=_announce)

    def is_final(self, request: JudgeRequest) -> bool:
        return len(request.earlier) == len(request.pairs)


def _announce(address: str) -> None:
    say(f"open {address} in a browser on this computer to judge")


KIND = Kind(
    read=lambda word, name: Judge(name or word, "human", word),
    make=lambda judge, _, seed: HumanJudge(judge, seed),
)
