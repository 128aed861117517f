"""Win rates of verdict files, whoever wrote them: computed from the rows, never taken from what the file states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from preflab.core.records import DisagreementError, Outcome
from preflab.core.results import Result
from preflab.core.rundir import to_json
from preflab.core.terminal import say
from preflab.judging.file_agreement import FileAgreement, file_agreement
from preflab.judging.file_figures import FileFigures, file_figures, what_to_know
from preflab.judging.settings import WinrateSettings
from preflab.judging.verdicts import VerdictFile, read_verdicts
from preflab.stats.definitions import win_rate_head
from preflab.stats.results import Contest, Estimate


@dataclass(frozen=True, repr=False)
class WinrateResult(Result):
    """The figures of each file, how far files agree, and by file what stands against its verdicts. Their text is JSON
    if that was asked for, else a table and the details.
    """

    files: tuple[FileFigures, ...]
    agreements: tuple[FileAgreement, ...] = ()
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    as_json: bool = False

    def __str__(self) -> str:
        if self.as_json:
            found = {"files": self.files, "agreements": self.agreements, "warnings": self.warnings}
            return json.dumps(json.loads(to_json(found)), indent=2)
        details = [_details(each, self.warnings.get(str(each.file), ())) for each in self.files]
        parts = [_table(self.files), *details, *map(_agreement, self.agreements)]
        return "\n\n".join("\n".join(lines) for lines in parts)


def compute_winrate(settings: WinrateSettings) -> WinrateResult:
    """Read all files and compute their figures.

    Raises DisagreementError where stored figures of a file do not follow from its rows; its `shown` has the figures of
    the other files. UserError for a file that cannot be understood.
    """
    files, refused = [], []
    for path in _verdict_files(settings.files):
        try:
            files.append(read_verdicts(path))
        except DisagreementError as error:
            refused.append(str(error))
    found = tuple(file_figures(file, seed=settings.seed) for file in files)
    warnings = {str(file.path): tuple(told) for file in files if (told := what_to_know(file))}
    result = WinrateResult(found, tuple(_agreements(files, settings.seed)), warnings, settings.json_output)
    if refused:
        raise DisagreementError("\n".join(refused), shown=result if found else None)
    return result


def _agreements(files: Sequence[VerdictFile], seed: int) -> Iterator[FileAgreement]:
    """Each two files that are about the same responses; of two files alone also that they are not."""
    for first, second in combinations(files, 2):
        found = file_agreement(first, second, seed=seed)
        if found.matched or len(files) == 2:
            yield found


def _verdict_files(files: Sequence[Path]) -> Sequence[Path]:
    """The files without the manifests that `verdicts/*.json` takes in as well."""
    verdicts = [path for path in files if not path.name.endswith(".manifest.json")]
    if not verdicts or len(verdicts) == len(files):
        return files
    say(f"left out, as they hold no verdicts: {', '.join(str(path) for path in files if path not in verdicts)}")
    return verdicts


# ---- as text -------------------------------------------------------------------------------------------------------

_HEAD = ("file", "judge", "model", "against", "samples", "win", "tie", "loss", "error")


def _table(files: Sequence[FileFigures]) -> list[str]:
    """One line for each file."""
    head = win_rate_head(found.contest.definition for found in files)
    rows: list[tuple[str, ...]] = [(*_HEAD, head, "length-controlled")]
    for found in files:
        contest = found.contest
        numbers = (found.samples, contest.wins, contest.ties, contest.losses, contest.errors)
        rates = (_estimate(contest.win_rate), _estimate(contest.length_controlled))
        rows.append((str(found.file), contest.judge, contest.model, contest.opponent, *map(str, numbers), *rates))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _details(found: FileFigures, warnings: Sequence[str]) -> list[str]:
    contest, has_same = found.contest, found.same_text > 0
    numbers: dict[Outcome, int] = {
        "win": contest.wins,
        "tie": contest.ties,
        "loss": contest.losses,
        "error": contest.errors,
    }
    return [
        f"{found.file}",
        f"  {contest.model} against {contest.opponent}, judged by {contest.judge}: {found.judgements} judgements of "
        f"{found.samples} samples of {found.prompts} prompts"
        + ("; counts are of samples, rates are means over prompts" if found.samples > found.prompts else ""),
        *(f"  {name:<18} {number:>6}  {_estimate(found.rates[name])}" for name, number in numbers.items()),
        *([f"  {'same text':<18} {found.same_text:>6}  samples whose two responses are one text: ties"] * has_same),
        *(f"  {name:<18} {text}" for name, text in _facts(contest).items() if text),
        *(f"  warning: {line}" for line in warnings),
    ]


def _agreement(found: FileAgreement) -> list[str]:
    head = f"{found.first} beside {found.second}"
    matched = f"{found.matched} of {found.samples[0]} and {found.samples[1]} samples with two different responses"
    if found.lacking:
        missing = " and ".join(map(str, found.lacking))
        return [head, f"  cannot be matched: {missing} lacks the texts of prompts and responses"]
    if found.agreement is None:
        why = "no verdict in both" if found.matched else "no two of them are about the same prompt and responses"
        return [head, f"  {matched} match; {why}, so whether the judges agree cannot be told"]
    shown = {
        "same verdict": _with_n(found.agreement.same, "of win, tie and loss"),
        "same winner": _with_n(found.agreement.accuracy, "where both name one") or "- (they never both name one)",
        "Cohen's kappa": _with_n(found.agreement.kappa, "of win, tie and loss, beyond chance")
        or "- (both always say the same one thing)",
    }
    return [
        head,
        f"  {matched} are about the same prompt and responses, and {found.judged} of these have a verdict in both",
        *(f"  {name:<18} {text}" for name, text in shown.items()),
    ]


def _facts(contest: Contest) -> dict[str, str]:
    """Figures in words, by name; empty where there is none."""
    if contest.win_rate is None or contest.wilson is None or contest.p_value is None:
        return {"win rate": "none: no sample has a usable judgement"}
    controlled, note = contest.length_controlled, contest.length_controlled_note
    return {
        "win rate": f"{_estimate(contest.win_rate)} by bootstrap, {_interval(*contest.wilson)} by Wilson",
        "definition": contest.definition,
        "sign test": f"p {_p_value(contest.p_value)}, of prompts won against prompts lost",
        "flip rate": _with_n(contest.flip_rate, "judged in both orders and won by the other side in the other order"),
        "longer response": _with_n(contest.longer, "win rate where the model's response has more words"),
        "shorter response": _with_n(contest.shorter, "win rate where it has fewer words"),
        "same length": _with_n(contest.same_length, "win rate where both have as many words"),
        "length-controlled": _estimate(controlled) if controlled else "none",
        "": note,
    }


def _with_n(estimate: Estimate | None, meaning: str) -> str:
    return f"{_estimate(estimate)} {meaning} (n = {estimate.n} prompts)" if estimate else ""


def _estimate(estimate: Estimate | None) -> str:
    return f"{estimate.value:.3f} {_interval(estimate.low, estimate.high)}" if estimate else "-"


def _interval(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]"


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"
