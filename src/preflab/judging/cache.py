"""Raw replies of judges on disk, by the content of what was asked: asked once, read as often as wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflab.core.records import UserError
from preflab.core.rundir import append_jsonl, default_cache_dir, fingerprint
from preflab.judging.parse import Reply


class ReplyCache:
    """The replies of one judge under one set of parameters: a file of JSON lines that processes may share.

    Only replies that hold a verdict are to be put in: a failure must be tried again, not remembered.
    """

    def __init__(self, identity: Mapping[str, object], folder: Path | None = None) -> None:
        """identity: all that decides a reply besides the prompt: the model, where it runs, its parameters."""
        self._identity = dict(identity)
        name = re.sub(r"[^\w.-]+", "-", str(identity.get("model", "judge"))).strip("-.")[-60:]
        folder = (folder or default_cache_dir()) / "judge"
        self.path = folder / f"{name}-{fingerprint(self._identity)}.jsonl"
        self._lock = FileLock(self.path.with_suffix(".lock"))
        self._replies = self._read()

    def key(self, prompt: str) -> str:
        return fingerprint({"identity": self._identity, "prompt": prompt})

    def get(self, key: str) -> Reply | None:
        return self._replies.get(key)

    def add(self, key: str, prompt: str, reply: Reply) -> None:
        """Keep a reply; it is on disk when this returns."""
        self._replies[key] = reply
        row = {"key": key, "prompt": prompt, "reply": reply}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                append_jsonl(self.path, [row])
        except OSError as error:
            raise UserError(
                f"cannot keep replies in {self.path.parent}: {error.strerror or error}; free some space there, or set "
                "PREFLAB_CACHE to a folder that can be written"
            ) from error

    def _read(self) -> dict[str, Reply]:
        """What is there. A line that is no reply (cut short by a kill, or damaged) is one reply less, and no more."""
        replies: dict[str, Reply] = {}
        if self.path.exists():
            with self.path.open("rb") as file:
                for line in file:
                    if entry := _entry(line):
                        replies[entry[0]] = entry[1]
        return replies


def _entry(line: bytes) -> tuple[str, Reply] | None:
    try:
        row: dict[str, Any] = json.loads(line)
        return str(row["key"]), Reply(**row["reply"])
    except (ValueError, LookupError, TypeError):
        return None
