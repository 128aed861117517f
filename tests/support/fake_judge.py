"""An OpenAI-compatible endpoint on the loopback interface; its judge likes the word "good", and it can misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest

from preflab.judging import endpoint

FAULTS = ("429", "500", "time-out", "trickle", "cut", "closed", "no verdict", "empty", "contradiction")


class FakeJudge:
    """What the endpoint saw and said.

    Attributes:
        faulty: share of calls that fail, each in one of the ways of FAULTS, decided by the prompt and the attempt.
        status, code: of an error that every call gets.
        delay: seconds until each reply.
        silence: seconds that a reply takes which does not come in time.
        logprobs: of the first token, for every reply; else a text.
        body: what every call gets instead of a completion.
        location: where every call is redirected to, with `status`.
        refuse: the error that is sent with status 400, for a request that gets one.
        endless, pause: send a body without end, in these pieces, with as many seconds between them.
    """

    def __init__(self) -> None:
        self.faulty, self.delay = 0.0, 0.0
        self.silence = 0.6
        self.status: int | None = None
        self.code: str | None = None
        self.logprobs: Mapping[str, float] | None = None
        self.body: str | None = None
        self.location: str | None = None
        self.refuse: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda _: None
        self.endless: bytes | None = None
        self.pause = 0.0
        self.retry_after = "0.02"
        self.calls: Counter[str] = Counter()  # by prompt
        self.good: Counter[str] = Counter()  # replies with a verdict, by prompt
        self.faults: Counter[str] = Counter()
        self.times: list[float] = []
        self.bodies: list[dict[str, Any]] = []
        self.under_way = self.most_under_way = 0
        self.lock = Lock()
        self.url = ""

    def fault(self, prompt: str, attempt: int) -> str | None:
        digest = hashlib.sha256(f"{prompt}{attempt}".encode()).digest()
        return FAULTS[digest[2] % len(FAULTS)] if int.from_bytes(digest[:2], "big") < self.faulty * 65536 else None


def submissions(prompt: str) -> list[str]:
    """What stands in the frame as the two submissions, as a judge who follows the frame reads it."""
    mark = re.search(r"every line that holds the mark (\w+)", prompt)
    assert mark
    parts = re.split(rf"--- {mark[1]} (.*) ---\n", prompt)
    return [text.rstrip("\n") for title, text in zip(parts[1::2], parts[2::2], strict=True) if "submission" in title]


def verdict(prompt: str) -> str:
    first, second = ("good" in text for text in submissions(prompt))
    return "TIE" if first == second else "FIRST" if first else "SECOND"


def _completion(text: str, logprobs: Mapping[str, float] | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    if logprobs is not None:
        tops = [{"token": token, "logprob": value, "bytes": None} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice]}


def _handler(judge: FakeJudge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"]
            with judge.lock:
                attempt = judge.calls[prompt]
                judge.calls[prompt] += 1
                judge.times.append(time.monotonic())
                judge.bodies.append({**body, "authorization": self.headers["Authorization"]})
                judge.under_way += 1
                judge.most_under_way = max(judge.most_under_way, judge.under_way)
            try:
                time.sleep(judge.delay)
                if error := judge.refuse(body):
                    self.send(json.dumps({"error": error}), 400)
                    return
                if judge.endless:
                    self.flood(judge.endless)
                self.answer(prompt, judge.fault(prompt, attempt))
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with judge.lock:
                    judge.under_way -= 1

        def answer(self, prompt: str, fault: str | None) -> None:
            with judge.lock:
                judge.faults[fault or ""] += 1
            if judge.status or fault in ("429", "500"):
                status = judge.status or int(str(fault))
                message = {
                    "error": {"message": f"says {status} to {self.headers['Authorization']}", "code": judge.code}
                }
                return self.send(json.dumps(message), status)
            if judge.body is not None:
                return self.send(judge.body)
            if fault == "time-out":
                time.sleep(judge.silence)
            whole = json.dumps(_completion(f"The one is better.\nVerdict: {verdict(prompt)}", judge.logprobs))
            if fault == "trickle":
                self.send(whole[:10], length=len(whole))
                for character in whole[10:18]:
                    time.sleep(judge.silence / 6)
                    self.wfile.write(character.encode())
                self.close_connection = True
                return None
            if fault == "cut":
                return self.send(whole[: len(whole) // 2])
            if fault == "closed":
                self.send(whole[:40], length=len(whole))
                self.close_connection = True
                return None
            if fault == "contradiction":
                return self.send(json.dumps(_completion("Verdict: FIRST\nor rather\nVerdict: SECOND")))
            if fault in ("no verdict", "empty"):
                return self.send(json.dumps(_completion("I like them both." if fault == "no verdict" else "")))
            if fault is None:
                with judge.lock:
                    judge.good[prompt] += 1
            return self.send(whole)

        def send(self, text: str, status: int = 200, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode()) if length is None else length))
            if judge.location:
                self.send_header("Location", judge.location)
            if status == 429:
                self.send_header("Retry-After", judge.retry_after)
            self.end_headers()
            self.wfile.write(text.encode())

        def flood(self, piece: bytes) -> None:
            """Until the other side hangs up."""
            self.send_response(judge.status or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            if piece.startswith(b"\x1f\x8b"):
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            while True:
                time.sleep(judge.pause)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving(patch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    """The endpoint, with the environment pointing to it, and pauses between retries made short."""
    judge = FakeJudge()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(judge))
    server.daemon_threads = True
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    patch.setenv("OPENAI_BASE_URL", judge.url)
    patch.setenv("OPENAI_API_KEY", "key-of-this-account")
    patch.setattr(endpoint, "FIRST_WAIT", 0.005)
    patch.setattr(endpoint, "LONGEST_WAIT", 0.02)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
