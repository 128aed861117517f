"""A judge's verdicts on two sets of responses to the same prompts, written to a file that can be gone on with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preflab.core.config import named
from preflab.core.discard import may_be_a_persons
from preflab.core.origins import trained_on
from preflab.core.output import alone_with, beside, open_output, sealed, unfinished
from preflab.core.records import Message, Pair, UserError
from preflab.core.results import Result, frame
from preflab.core.rundir import fingerprint, utc_now
from preflab.core.terminal import say
from preflab.data.answers import (
    AnswerRow,
    format_of_prompts,
    is_answer_file,
    match_answers,
    read_answers,
    read_side,
)
from preflab.data.column_use import tell_columns
from preflab.data.sources import open_sources
from preflab.judging.estimate import PRICES, PRICES_FROM, Cost, estimate_cost
from preflab.judging.file_figures import file_figures, what_to_know
from preflab.judging.kinds import kind_of, make_judge, parse_judge, spec_of
from preflab.judging.language import AskedJudge, reply_cap
from preflab.judging.orders import IDENTICAL
from preflab.judging.origins import origin_of
from preflab.judging.players import short_name
from preflab.judging.protocol import JudgeRequest, ReadyJudge
from preflab.judging.settings import JudgeSettings
from preflab.judging.verdict_rows import OpponentWord, verdict_row
from preflab.judging.verdicts import VerdictFile, read_journal, read_verdicts, write_verdicts
from preflab.stats.study import Judge
from preflab.stats.wording import p_value

if TYPE_CHECKING:
    import pandas as pd

    from preflab.model.in_memory import InMemory


@dataclass(frozen=True, repr=False)
class JudgeResult(Result):
    """A finished verdict file."""

    verdicts: VerdictFile

    @property
    def failure(self) -> str:
        """Why nothing can be told of these verdicts, where all that was to be judged ended as an error; else empty."""
        judged = [one.outcome == "error" for one in self.verdicts.judgements if one.text != IDENTICAL]
        if not judged or not all(judged):
            return ""
        return (
            f"{self.verdicts.path}: none of {len(judged)} judgements has a verdict, so nothing can be told; the same "
            "command asks for them again"
        )

    def to_pandas(self) -> pd.DataFrame:
        """The judgements, a row for each, with the columns of the verdict file."""
        file = self.verdicts
        return frame(verdict_row(each, file.pairs.get(each.sample_id), file.opponent_word) for each in file.judgements)

    def __str__(self) -> str:
        figures = file_figures(self.verdicts)
        found = figures.contest
        counted = {"win": found.wins, "loss": found.losses, "tie": found.ties, "error": found.errors}
        lines = [f"  {figures.samples} samples of {figures.prompts} prompts, the units of interval and test"]
        lines += [f"  {name:10} {count}" for name, count in counted.items()]
        if rate := found.win_rate:
            lines.append(f"  win rate   {rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}] ({found.definition})")
        if found.p_value is not None:
            lines.append(f"  sign test  p {p_value(found.p_value)} (prompts won against prompts lost)")
        if flips := found.flip_rate:
            lines.append(f"  flip rate  {flips.value:.3f} (the other order, the other winner)")
        reasons = [judgement.reason for judgement in self.verdicts.judgements if judgement.outcome == "error"]
        for reason, count in Counter(reasons).most_common(5):
            lines.append(f"  error: {count} of {len(self.verdicts.judgements)} judgements: {reason}")
        lines += [f"  warning: {line}" for line in what_to_know(self.verdicts)]
        return "\n".join([*lines, f"verdicts: {self.verdicts.path}"])


def judge_responses(settings: JudgeSettings, held: InMemory | None = None) -> JudgeResult | Cost:
    """Let a judge compare a file of responses with another, or with preferred ones; or say what that would take. `held`
    is the judge's model, where its name stands for one in memory.
    """
    judge = parse_judge(settings.judge)
    model, opponent, pairs = _read_pairs(settings)
    output = settings.output or Path("runs/verdicts") / f"{model}-vs-{opponent}.{judge.name}.json"
    if settings.dry_run:
        return _cost(judge, pairs, settings, output, held)
    ready = _ready(judge, settings, held)
    names: dict[str, Any] = {"model": model, "opponent": opponent}
    facts = {"trained_on": _trained_on(judge, settings, model, opponent, pairs)}
    return JudgeResult(judge_pairs_with(ready, pairs, output, **names, overwrite=settings.overwrite, facts=facts))


def _ready(judge: Judge, settings: JudgeSettings, held: InMemory | None) -> ReadyJudge:
    if held is None:
        return make_judge(judge, settings, seed=settings.seed)
    from preflab.judging.local import make_local  # which loads torch
    from preflab.judging.scorer import make_scorer

    return (make_scorer if judge.is_scorer else make_local)(judge, settings, settings.seed, held)


def _trained_on(
    judge: Judge, settings: JudgeSettings, model: str, opponent: str, pairs: Sequence[Pair]
) -> dict[str, dict[str, int] | None]:
    """Of both who wrote the responses, and of a judge that is a model, how many of the prompts they were trained on."""
    prompts = [pair.prompt for pair in pairs]
    files = {model: settings.responses} | ({} if opponent == "chosen" else {opponent: settings.opponent})
    origins = {name: origin_of("file", named(word)[1], prompts) for name, word in files.items()}
    if judge.is_trained:
        origins.setdefault(judge.name, origin_of("judge", judge.source, prompts))
    return trained_on(origins)


def judge_pairs_with(
    ready: ReadyJudge,
    pairs: Sequence[Pair],
    output: Path,
    *,
    model: str,
    opponent: str,
    overwrite: bool,
    facts: Mapping[str, object] | None = None,
) -> VerdictFile:
    """Judge all pairs and write the verdict file; one that is finished is read, an unfinished one is gone on with.

    Judgements of a language model that ended as errors are tried again by the same call.

    Args:
        ready: who judges, from `make_judge`.
        model: name of the one whose responses are judged.
        opponent: name of the one that they are compared with; `chosen` for preferred responses.
        overwrite: discard what was judged before; what a person has judged is kept under another name.
        facts: what else the file's metadata is to say of the model.

    Raises UserError where the file was made from other inputs, or another process is making it.
    """
    opponent_word: OpponentWord = "chosen" if opponent == "chosen" else "baseline"
    inputs = {"judge": spec_of(ready.judge), **ready.parameters, "pairs": fingerprint(pairs)}
    journal = unfinished(output)
    with alone_with(output):
        if overwrite:
            _keep_what_a_person_judged(output)
        options: dict[str, Any] = {"seed": ready.seed, "overwrite": overwrite, "ending": ".json"}
        state = open_output(output, "judge", ready.settings, inputs, **options)
        finished = read_verdicts(output).judgements if state == "done" else ()
        request = JudgeRequest(pairs, (*finished, *read_journal(journal).judgements), journal, opponent_word)
        if state == "done" and not journal.exists() and ready.is_final(request):
            return read_verdicts(output)
        judgements = ready.judgements(request)
        if not judgements:
            raise UserError(f"{output}: nothing was judged, so there is nothing to write")
        metadata = {
            "judge": spec_of(ready.judge),
            "judge_name": ready.judge.name,
            "judge_parameters": {**ready.parameters, **ready.facts},
            "model": model,
            "opponent": opponent,
            **(facts or {}),
            "finished": utc_now(),
        }
        by_id = {pair.sample_id: pair for pair in pairs}
        with sealed(output):
            write_verdicts(output, judgements, metadata=metadata, opponent_word=opponent_word, pairs=by_id)
        journal.unlink(missing_ok=True)
        return read_verdicts(output)


def _keep_what_a_person_judged(output: Path) -> None:
    """Move a person's verdicts, which nobody can make again, to `NAME.TIME.json`, with all that it takes to go on with
    them under that name.
    """
    manifest = beside(output, "manifest.json")
    if not manifest.exists() or not may_be_a_persons(manifest):
        return
    aside = beside(output, f"{utc_now().replace(':', '').replace('-', '')}.json")
    moved = {output: aside, unfinished(output): unfinished(aside), manifest: beside(aside, "manifest.json")}
    judged = output.exists() or unfinished(output).exists()
    for path, new in moved.items():
        if path.exists() and judged:
            path.rename(new)
    if judged:
        say(f"{output}: a person has judged it; kept as {aside}")


# ---- what is judged ------------------------------------------------------------------------------------------------


def _read_pairs(settings: JudgeSettings) -> tuple[str, str, list[Pair]]:
    """Names of the model and of its opponent, and their responses side by side."""
    model, source = _named_file(settings.responses)
    opponent, other = (settings.opponent, "") if settings.opponent == "chosen" else _named_file(settings.opponent)
    files = tuple(filter(None, (source, other)))
    beside = (*files, *settings.prompts)
    read = partial(read_answers, form=settings.format, columns=settings.columns, beside=beside, tell=tell_columns)
    ours = read(source)
    if settings.opponent == "chosen":
        if not settings.prompts:
            raise UserError("prompts: missing; `chosen` needs the preference data whose preferred responses are meant")
        prompts = open_sources(settings.prompts, settings.columns, beside=files)
        theirs = _chosen_for(ours, read_side(prompts, "chosen", format_of_prompts(settings.format, files)))
    else:
        if settings.prompts:
            raise UserError("prompts: only for `chosen`; two files of responses are matched by their own prompts")
        matched = match_answers({settings.responses: ours, settings.opponent: read(other)})
        ours, theirs = tuple(pair[0] for pair in matched), [pair[1] for pair in matched]
    pairs = [
        Pair(f"{row.row}/{row.sample}", row.prompt, row.response, other.response)
        for row, other in zip(ours, theirs, strict=True)
    ]
    return model, opponent, pairs


def _named_file(word: str) -> tuple[str, str]:
    name, source = named(word)
    if not is_answer_file(source):
        raise UserError(
            f"{source}: not a file of responses (.jsonl, .json, .csv, .parquet). Of a model, make one first with "
            f"`preflab generate --model {source} --prompts SOURCE`, or let `preflab compare` do all of it"
        )
    return name or short_name(source), source


def _chosen_for(rows: Sequence[AnswerRow], chosen: Sequence[AnswerRow]) -> list[AnswerRow]:
    """The preferred response to each row's prompt; where a prompt comes several times, that of the same row number."""
    by_prompt: dict[tuple[Message, ...], list[AnswerRow]] = {}
    for row in chosen:
        by_prompt.setdefault(row.prompt, []).append(row)
    if missing := [row for row in rows if row.prompt not in by_prompt]:
        shown = missing[0].prompt[-1].content[:60]
        raise UserError(
            f"prompts: {len(missing)} of {len(rows)} prompts have no preferred response in this data, the "
            f"first of them is row {missing[0].row}: {shown!r}; give the preference data that the prompts come from"
        )
    return [min(by_prompt[row.prompt], key=lambda other: other.row != row.row) for row in rows]


def _cost(judge: Judge, pairs: Sequence[Pair], settings: JudgeSettings, output: Path, held: InMemory | None) -> Cost:
    """What judging would take; nothing is asked, and nothing is written."""
    if not kind_of(judge).is_asked:
        return Cost(len(pairs), 0, 0, len(pairs), 0, 0, "this judge reads no tokens that are paid for")
    ready = _ready(judge, settings, held)
    assert isinstance(ready, AskedJudge), "a judge that is asked"
    earlier = read_verdicts(output).judgements if output.exists() and not settings.overwrite else ()
    work = ready.plan(pairs, [*earlier, *read_journal(unfinished(output)).judgements])
    own = (settings.price_input, settings.price_output)
    if (own[0] is None) != (own[1] is None):
        raise UserError("price_input and price_output: give both, or neither")
    prices = (own[0], own[1]) if own[0] is not None and own[1] is not None else PRICES.get(judge.source)
    price_from = "your prices" if own[0] is not None else PRICES_FROM
    return estimate_cost(
        work,
        max_tokens=reply_cap(settings),
        prices=prices if kind_of(judge).is_paid or own[0] is not None else None,
        price_from=price_from,
        count=ready.backend.count_tokens,
    )
