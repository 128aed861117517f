"""The cases of a study as the case browser reads them: one JSON value, compressed into the page.

Nothing is left out: every prompt, response, score and judgement is there, and what is chosen, sorted and searched is
worked out by the page itself.
"""

from __future__ import annotations

import base64
import gzip
from collections import defaultdict
from typing import Any

from preflab.core.records import SampleVerdict
from preflab.core.rundir import to_json
from preflab.core.ties import ROUNDING
from preflab.stats.study import Answer, Case, Judge, Study


def pack_cases(study: Study) -> str:
    """`case_data` as JSON, gzipped, in base64 (which has no character that HTML would read as its own).

    The same study gives the same text.
    """
    # Half a surrogate pair has no UTF-8 form; written as a backslash escape it is a character of JSON.
    text = to_json(case_data(study)).encode("utf-8", "backslashreplace")
    return base64.b64encode(gzip.compress(text, compresslevel=9, mtime=0)).decode("ascii")


def case_data(study: Study) -> dict[str, Any]:
    """What data.js expects: models and judges in the order of the study (the baseline first), and the cases."""
    return {
        "title": study.title,
        "models": [player.name for player in study.models],
        "judges": [_judge(judge) for judge in study.judges],
        "cases": [_case(case) for case in study.cases],
    }


def _judge(judge: Judge) -> dict[str, Any]:
    """A judge; of a scorer also what share of the larger score (at least `size`) of a difference is rounding."""
    explained = 0.0 if judge.precision is None else ROUNDING[judge.precision]
    return {"name": judge.name, "scorer": judge.is_scorer, "rounding": explained, "size": judge.size}


def _case(case: Case) -> dict[str, Any]:
    verdicts: defaultdict[str, dict[str, Any]] = defaultdict(dict)  # judge -> model -> verdict against the baseline
    for (judge, model), verdict in case.verdicts.items():
        verdicts[judge][model] = _verdict(verdict)
    return {
        "row": case.row,
        "sample": case.sample,
        "subset": case.subset,
        "prompt": [{"role": message.role, "content": message.content} for message in case.prompt],
        "answers": {model: _answer(answer) for model, answer in case.answers.items()},
        "verdicts": verdicts,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text,
        "words": answer.words,
        "tokens": answer.tokens,
        "capped": answer.capped,
        "scores": answer.scores,
    }


def _verdict(verdict: SampleVerdict) -> dict[str, Any]:
    judgements = [
        {
            "outcome": judgement.outcome,
            "order": judgement.order,
            "preference": judgement.preference,
            "text": judgement.text,
            "reason": judgement.reason,
        }
        for judgement in verdict.judgements
    ]
    return {
        "outcome": verdict.outcome,
        "points": verdict.points,
        "flipped": verdict.flipped,
        "judgements": judgements,
    }
