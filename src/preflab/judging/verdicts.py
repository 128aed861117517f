"""Verdict files: what a judge said of a model's responses against an opponent's, read, checked and written.

    {"metadata": {"judge": …, "model": …, "opponent": …},
     "win_counts": {"model": 61, OPP: 30, "tie": 8, "error": 1},
     "win_rates": {"model_winrate": 0.61, "OPP_winrate": 0.3, "tie_rate": 0.08, "error_rate": 0.01},
     "win_rate": {"value": 0.656, "prompts": 99, "definition": "mean over prompts of …"},
     "results": [{"sample_id": "12/0", "prompt": …, "model_response": …, "OPP_response": …, "verdict": "model",
                  "presentation_order": "OPP_first", "preference": 0.83, "raw": …, "error": null}, …]}

OPP is "chosen" where the opponent is the preferred response of preference data, else "baseline". There is one row per
judgement; counts and rates are over samples, which may have been judged in both orders, and rates are shares of all
samples. `win_rate` is the one that all commands show, from prompts, and says how ties and preferences count. Stored
counts and rates are never believed: they are computed again from the rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflab.core.durable import read_object
from preflab.core.file_format import with_format, without_format
from preflab.core.records import DisagreementError, Judgement, Message, Outcome, Pair, SampleVerdict, UserError
from preflab.core.redaction import redact
from preflab.core.rundir import read_json, read_jsonl, to_json, write_json
from preflab.judging.stored_figures import stored_figures, unlike_rows
from preflab.judging.verdict_rows import (
    OPPONENT_WORDS,
    OpponentWord,
    alpaca_eval_row,
    is_alpaca_eval,
    judgement_of,
    opponent_words_of,
    pair_of,
    prompt_of,
    verdict_row,
)
from preflab.stats.judgements import combine, counts, definition, mean_points

UNFINISHED = ".unfinished.jsonl"
"""How the name of a file ends that is still being judged."""

_CONTAINERS = ("results", "samples", "per_sample", "annotations", "judgements", "judgments")


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A verdict file as read. `pairs` are by `sample_id`, of samples whose rows have prompt and responses; `prompts`
    too, of those that have a prompt.
    """

    path: Path
    metadata: Mapping[str, Any]
    opponent_word: OpponentWord
    judgements: tuple[Judgement, ...]
    pairs: Mapping[str, Pair]
    prompts: Mapping[str, tuple[Message, ...]]

    @property
    def samples(self) -> dict[str, SampleVerdict]:
        """What is said of each sample, by `sample_id`."""
        return combine(self.judgements, self.pairs)


# ---- judgements to samples -----------------------------------------------------------------------------------------


# ---- writing -------------------------------------------------------------------------------------------------------


def read_journal(path: Path) -> VerdictFile:
    """What has been judged so far, none where there is no journal. A line that a kill cut short is left out, and of two
    judgements of the same sample in the same order the last one counts.

    Raises UserError as `read_verdicts` does for rows that cannot be understood.
    """
    return _file(path, {}, *_parse(path, _journal_rows(path) if path.exists() else []))


def _journal_rows(path: Path) -> list[Any]:
    """The rows of an unfinished file, the last of those about the same sample and order."""
    found: dict[str, Any] = {}
    for number, row in enumerate(list(read_jsonl(path))):
        about = [number] if row.get("sample_id") is None else [row["sample_id"], row.get("presentation_order")]
        found[to_json(about)] = row
    return list(found.values())


def write_verdicts(
    path: Path,
    judgements: Iterable[Judgement],
    *,
    metadata: Mapping[str, Any],
    opponent_word: OpponentWord,
    pairs: Mapping[str, Pair],
) -> None:
    """Write a verdict file, whole or not at all. Counts and rates are computed from the judgements.

    `pairs` are by `sample_id`; secrets in the metadata are blacked out.
    """
    rows = list(judgements)
    assert rows, "a verdict file has at least one judgement"
    samples = combine(rows, pairs)
    found = counts(samples.values())
    rate_of_wins, prompts = mean_points(samples, {sample_id: pair.prompt for sample_id, pair in pairs.items()})
    total = sum(found.values())
    word: Mapping[Outcome, str] = {"win": "model", "loss": opponent_word, "tie": "tie", "error": "error"}
    rate: Mapping[Outcome, str] = {
        "win": "model_winrate",
        "loss": f"{opponent_word}_winrate",
        "tie": "tie_rate",
        "error": "error_rate",
    }
    document = {
        "metadata": redact(dict(metadata)),
        "win_counts": {word[outcome]: count for outcome, count in found.items()},
        "win_rates": {rate[outcome]: count / total for outcome, count in found.items()},
        "win_rate": {"value": rate_of_wins, "prompts": prompts, "definition": definition(rows)},
        "results": [verdict_row(row, pairs.get(row.sample_id), opponent_word) for row in rows],
    }
    write_json(path, with_format(document))


# ---- reading -------------------------------------------------------------------------------------------------------


def read_verdicts(path: Path) -> VerdictFile:
    """Read a verdict file: ours, finished or not, one of the same layout by another tool, rows alone, or AlpacaEval's
    `annotations.json`.

    Raises DisagreementError where stored counts or rates do not follow from the rows, UserError for rows that cannot be
    understood, for two judgements of the same sample in the same order, and for a file without any.
    """
    document, rows = _open(path)
    if not rows:
        raise UserError(f"{path}: there is no judgement in it")
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if isinstance(rows[0], dict) and is_alpaca_eval(rows[0]):
        metadata = {**_alpaca_eval_metadata(path, rows), **metadata}
    judgements, prompts, pairs, words = _parse(path, rows)
    stored = stored_figures(path, document, metadata)
    words |= {word for word in OPPONENT_WORDS if any(figure.is_called(word) for figure in stored)}
    if len(words) > 1:
        raise UserError(f"{path}: the opponent is called both {' and '.join(sorted(words))}; it must be one of them")
    # Over samples, as we count; files of earlier versions also where both responses are the same text; other tools
    # count every judgement.
    tallies = [counts(combine(judgements, pairs).values()), counts(combine(judgements).values()), counts(judgements)]
    complaints = [unlike_rows(stored, tally) for tally in tallies]
    if all(complaints):
        raise DisagreementError(f"{path}: the stored figures do not follow from the file's own rows\n{complaints[0]}")
    _check_win_rate(path, document.get("win_rate"), combine(judgements, pairs), prompts)
    return _file(path, metadata, judgements, prompts, pairs, words)


def _check_win_rate(
    path: Path, stated: Any, samples: Mapping[str, SampleVerdict], prompts: Mapping[str, Sequence[Message]]
) -> None:
    """Raise DisagreementError where a file of ours states another win rate than follows from its rows."""
    if not isinstance(stated, dict) or "definition" not in stated:
        return
    value, n = mean_points(samples, prompts)
    said = stated.get("value")
    same = math.isnan(value) if said is None else isinstance(said, (int, float)) and abs(said - value) <= 1e-9
    if not same or stated.get("prompts") != n:
        raise DisagreementError(
            f"{path}: the stored figures do not follow from the file's own rows\n"
            f"  win_rate: {said} over {stated.get('prompts')} prompts stored, {value:.6g} over {n} from the rows"
        )


def _file(
    path: Path,
    metadata: Mapping[str, Any],
    judgements: tuple[Judgement, ...],
    prompts: Mapping[str, tuple[Message, ...]],
    pairs: Mapping[str, Pair],
    words: Iterable[OpponentWord],
) -> VerdictFile:
    return VerdictFile(path, metadata, next(iter(words), "baseline"), judgements, pairs, prompts)


def _open(path: Path) -> tuple[Mapping[str, Any], list[Any]]:
    """The document around the rows (empty where there is none), and the rows."""
    try:
        if path.name.endswith(UNFINISHED):
            document: Any = {"rows": _journal_rows(path), "metadata": _manifest_metadata(path)}
        elif path.suffix == ".jsonl":
            document = {"rows": list(read_jsonl(path, whole=True))}
        else:
            document = without_format(path, read_json(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    if isinstance(document, list):
        document = {"rows": document}
    if not isinstance(document, dict):
        raise UserError(f"{path}: not a verdict file; an object with a list of `results`, or a list, is expected")
    found = [name for name in ("rows", *_CONTAINERS) if isinstance(document.get(name), list)]
    if len(found) != 1:
        has = f"several ({', '.join(found)})" if found else f"none (it has {', '.join(document) or 'nothing'})"
        raise UserError(f"{path}: one list of judgements is needed, called {', '.join(_CONTAINERS)}; found {has}")
    return document, document[found[0]]


def _manifest_metadata(path: Path) -> dict[str, Any]:
    """Who judges whom in an unfinished file, as far as the manifest beside it says."""
    manifest = path.with_name(path.name.removesuffix(UNFINISHED) + ".manifest.json")
    data = read_object(manifest).get("data") if manifest.exists() else None
    known = data if isinstance(data, dict) else {}
    return {name: known[name] for name in ("judge", "model", "opponent") if name in known}


def _parse(
    path: Path, rows: Sequence[Any]
) -> tuple[tuple[Judgement, ...], dict[str, tuple[Message, ...]], dict[str, Pair], set[OpponentWord]]:
    judgements: dict[tuple[str, str | None], Judgement] = {}
    prompts: dict[str, tuple[Message, ...]] = {}
    pairs: dict[str, Pair] = {}
    words: set[OpponentWord] = set()
    named = any(isinstance(row, dict) and row.get("sample_id") is not None for row in rows)
    for number, row in enumerate(rows, 1):
        try:
            if not isinstance(row, dict):
                raise UserError(f"found {json.dumps(row)[:60]}; an object with named fields is needed")
            if named and row.get("sample_id") is None:
                raise UserError("`sample_id` is missing here, though other rows have one")
            ours = alpaca_eval_row(row) if is_alpaca_eval(row) else row
            judgement = judgement_of(ours, number)
            sample_id, order = key = (judgement.sample_id, judgement.order)
            prompt, shown = prompt_of(ours), pair_of(ours, sample_id)
            if key in judgements:
                how = f"with the order {order}" if order else "without an order of presentation"
                raise UserError(f"sample {sample_id} is judged a second time {how}")
            if (shown and pairs.setdefault(sample_id, shown) != shown) or (
                prompt and prompts.setdefault(sample_id, prompt) != prompt
            ):
                raise UserError(f"sample {sample_id} has other texts than in an earlier row")
            judgements[key] = judgement
            words |= opponent_words_of(ours)
        except UserError as error:
            raise UserError(f"{path}, row {number}: {error}") from None
    return tuple(judgements.values()), prompts, pairs, words


def _alpaca_eval_metadata(path: Path, rows: Sequence[Any]) -> dict[str, str]:
    """Who judged whom, from the columns of AlpacaEval's annotations."""
    found: dict[str, str] = {}
    for column, name in {"annotator": "judge", "generator_2": "model", "generator_1": "opponent"}.items():
        values = sorted({str(row[column]) for row in rows if isinstance(row, dict) and row.get(column) is not None})
        if len(values) > 1 and name != "opponent":
            raise UserError(f"{path}: holds several in `{column}` ({', '.join(values)}); one file is about one {name}")
        if values:
            found[name] = ", ".join(values)
    return found
