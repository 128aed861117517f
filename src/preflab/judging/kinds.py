"""From the words of the command line to judges, and from judges to their kinds."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

from preflab.core.config import named
from preflab.core.plugins import names_plugin
from preflab.core.records import UserError
from preflab.judging.protocol import Kind, ReadyJudge
from preflab.judging.settings import JudgingSettings
from preflab.judging.table import KINDS, OWN, Listed, forms
from preflab.stats.study import Judge


def parse_judge(word: str) -> Judge:
    """`openai:gpt-4o`, `openai:qwen@http://127.0.0.1:8000/v1`, `hf:runs/judge`, `reward:runs/rm`, `gold`, `human`,
    `mine.py:judge`, each also with `name=` in front. Raises UserError for what is no judge.
    """
    name, spec = named(word)
    prefix, colon, source = spec.partition(":")
    listed = KINDS.get(prefix)
    if listed and bool(listed.source) == bool(colon) == bool(source.strip()):
        return _load(listed).read(source if colon else spec, name)
    if names_plugin(spec, "judges"):
        return _load(OWN).read(spec, name)
    near = get_close_matches(prefix, [*KINDS], n=1)
    hint = f" (did you mean {near[0]}{spec[len(prefix) :]}?)" if near and near[0] != prefix else ""
    raise UserError(f"judge: found {word!r}{hint}; write {forms()}, with `name=` in front to give it a name")


def kind_of(judge: Judge) -> Kind:
    return _load(_listed(judge)[1])


def spec_of(judge: Judge) -> str:
    """The judge as the command line names it, without a name in front."""
    prefix, listed = _listed(judge)
    return f"{prefix}:{judge.source}" if listed.source else judge.source


def make_judge(judge: Judge, settings: JudgingSettings, *, seed: int) -> ReadyJudge:
    """A judge that is ready for `judge_pairs_with`; make it once for all that it is to judge, as this loads its model.

    seed: of the orders of presentation, and of a local judge's sampling.
    """
    return kind_of(judge).make(judge, settings, seed)


def _listed(judge: Judge) -> tuple[str, Listed]:
    lines = [*KINDS.items(), ("", OWN)]
    return next((prefix, listed) for prefix, listed in lines if judge.kind in listed.judges)


def _load(listed: Listed) -> Kind:
    found: Kind = import_module(listed.module).KIND
    return found
