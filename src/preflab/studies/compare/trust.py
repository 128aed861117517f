"""Can the judges be trusted? Sentences for and against it, from the figures of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from preflab.stats.results import Agreement, Contest, Depth, Finding
from preflab.stats.study import Judge
from preflab.stats.wording import FEWEST_PROMPTS, capital, interval, listed, percent, prompts, who

MANY_ERRORS = 0.05
MANY_FLIPS = 0.25
LOW_AGREEMENT = 0.65
TRUTHS = ("gold", "human")
"""Kinds of judges that the others are measured by, the first that a study has."""


def reasons_for_distrust(
    contests: Sequence[Contest],
    agreements: Sequence[Agreement],
    depths: Sequence[Depth],
    judges: Mapping[str, Judge],
) -> Iterator[Finding]:
    """Warnings, the gravest first; `contests` are those against the baseline."""
    for name, judge in judges.items():
        ours = [contest for contest in contests if contest.judge == name]
        yield from _errors(ours, judge)
    for depth in depths:
        yield from _no_better_than_length(depth, judges[depth.scorer])
    for judge, agreement in _with_truth(agreements, judges):
        yield from _low_agreement(judge, agreement, judges)
    for name, judge in judges.items():
        yield from _flips([contest for contest in contests if contest.judge == name], judge)
    for depth in depths:
        if depth.out_of_depth:
            yield Finding(depth.statement, "warning")


def _errors(contests: Sequence[Contest], judge: Judge) -> Iterator[Finding]:
    errors = sum(contest.errors for contest in contests)
    judged = sum(contest.wins + contest.ties + contest.losses for contest in contests)
    if errors and errors >= MANY_ERRORS * (errors + judged):
        share = percent(errors / (errors + judged))
        text = f"{capital(who(judge))} gave no usable verdict on {share} of samples; its figures leave them out."
        yield Finding(text, "warning")


def _no_better_than_length(depth: Depth, judge: Judge) -> Iterator[Finding]:
    accuracy = depth.accuracy
    if accuracy.n < FEWEST_PROMPTS:
        return
    share = f"{percent(accuracy.value)} of preference pairs as people did ({interval(accuracy)})"
    ranks = f"{capital(who(judge))} ranks {share}"
    if accuracy.low <= 0.5:
        yield Finding(f"{ranks}: not clearly more than chance.", "warning")
    elif accuracy.low <= _by_length(depth)[1]:
        rule, reached = _by_length(depth)
        yield Finding(f"{ranks}: not clearly more than “the {rule} one is better” ({percent(reached)}).", "warning")


def _by_length(depth: Depth) -> tuple[str, float]:
    """The better of the two rules that look at length alone, and what it reaches."""
    longer = depth.length_accuracy
    return ("longer", longer) if longer >= 0.5 else ("shorter", 1 - longer)


def _with_truth(agreements: Sequence[Agreement], judges: Mapping[str, Judge]) -> Iterator[tuple[Judge, Agreement]]:
    """Each agreement with the study's truth (gold before human), and the judge that is measured by it."""
    kinds = [kind for kind in TRUTHS if any(judge.kind == kind for judge in judges.values())]
    for agreement in agreements if kinds else ():
        pair = (judges[agreement.first], judges[agreement.second])
        measured = [judge for judge in pair if judge.kind != kinds[0]]
        if len(measured) == 1 and agreement.accuracy and agreement.accuracy.n >= FEWEST_PROMPTS:
            yield measured[0], agreement


def _low_agreement(judge: Judge, agreement: Agreement, judges: Mapping[str, Judge]) -> Iterator[Finding]:
    truth = judges[agreement.second if agreement.first == judge.name else agreement.first]
    accuracy = agreement.accuracy
    if accuracy and (accuracy.value < LOW_AGREEMENT or accuracy.low <= 0.5):
        yield Finding(
            f"{capital(who(judge))} names the same winner as {who(truth)} only {percent(accuracy.value)} of the time "
            f"({interval(accuracy)}; by chance {percent(0.5)}).",
            "warning",
        )


def _flips(contests: Sequence[Contest], judge: Judge) -> Iterator[Finding]:
    rates = [contest.flip_rate for contest in contests if contest.flip_rate]
    if rates and (worst := max(rates, key=lambda rate: rate.value)).value >= MANY_FLIPS:
        yield Finding(
            f"{capital(who(judge))} named the other winner when the two responses changed places, on "
            f"{percent(worst.value)} of {prompts(worst.n)}: it judges the place as well as the response.",
            "warning",
        )


def reasons_for_trust(
    agreements: Sequence[Agreement], depths: Sequence[Depth], judges: Mapping[str, Judge]
) -> Iterator[Finding]:
    """What speaks for the judges, in one sentence; nothing that `reasons_for_distrust` has said otherwise."""
    deeds: dict[str, list[str]] = {}  # by judge
    for depth in depths:
        if depth.accuracy.n >= FEWEST_PROMPTS and not list(_no_better_than_length(depth, judges[depth.scorer])):
            deeds.setdefault(depth.scorer, []).append(
                f"ranks {percent(depth.accuracy.value)} of preference pairs as people did "
                f"({interval(depth.accuracy)}; going by length alone: {percent(_by_length(depth)[1])})"
            )
    for judge, agreement in _with_truth(agreements, judges):
        if agreement.accuracy and not list(_low_agreement(judge, agreement, judges)):
            truth = judges[agreement.second if agreement.first == judge.name else agreement.first]
            share = percent(agreement.accuracy.value)
            deeds.setdefault(judge.name, []).append(
                f"names the same winner as {who(truth)} {share} of the time ({interval(agreement.accuracy)})"
            )
    if deeds:
        said = [f"{who(judges[name])} {listed(done)}" for name, done in deeds.items()]
        yield Finding(f"{capital('; '.join(said))}.", "good")
