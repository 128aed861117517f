"""THE table of the kinds of judges: how the command line names them, and the module of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """A line of the table.

    Attributes:
        module: has the `KIND`; it is loaded when a judge of this kind is named, as some load torch.
        judges: as what studies know its judges (`preflab.stats.study.JUDGE_KINDS`).
        source: what stands behind the prefix and a colon; empty where the prefix is the whole word.
        is_path: whether that can be a file or a folder.
        note: for the help.
    """

    module: str
    judges: tuple[str, ...]
    source: str = ""
    is_path: bool = False
    note: str = ""


KINDS: Mapping[str, Listed] = {
    "openai": Listed("preflab.judging.endpoint", ("openai",), "MODEL", note="or openai:MODEL@URL"),
    "hf": Listed("preflab.judging.local", ("hf",), "MODEL", is_path=True),
    "reward": Listed("preflab.judging.scorer", ("reward_model", "scorer"), "SCORER", is_path=True),
    "gold": Listed("preflab.judging.scorer", ("gold",), note="the sandbox's own"),
    "human": Listed("preflab.judging.human", ("human",), note="you, in a browser"),
}
"""What stands in front of a judge's source on the command line -> its kind."""

OWN = Listed("preflab.judging.function", ("function",), is_path=True)
"""A user's own judge, without a prefix: `file.py:function`, or the name of an installed package's."""


def forms() -> str:
    """How judges are named on the command line, for help and messages."""
    written = [
        f"{prefix}{listed.source and ':' + listed.source}{f' ({listed.note})' if listed.note else ''}"
        for prefix, listed in KINDS.items()
    ]
    return f"{', '.join(written)} or file.py:function"
