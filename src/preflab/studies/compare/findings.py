"""The report's first screen in words: what the figures of a study say, most important first.

Every sentence is made from the figures alone and is true in every case: no difference is claimed that an interval does
not show, and what could not be judged is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from preflab.stats.definitions import MEAN_PREFERENCE, SHORT
from preflab.stats.results import Agreement, Contest, Depth, Finding, ModelFigures
from preflab.stats.study import Judge, Study
from preflab.stats.wording import (
    FEWEST_PROMPTS,
    MANY_EMPTY,
    SHARES,
    TONES,
    apart,
    capital,
    interval,
    listed,
    many_empty,
    percent,
    prompts,
    side,
    told_of,
    who,
)
from preflab.studies.compare.trust import reasons_for_distrust, reasons_for_trust

MOST = 7
MOST_MODELS = 3  # that get a sentence of their own

LONGER = 0.1  # of the opponent's length
TIMES = 2  # times the opponent's length, from which on it is put so
RISE = 0.05  # of a share of responses
# Shares of which fewer is better in any case.
DEFECTS = {"hit_cap", "empty", "runaway_repetition", "foreign_turn", "other_task"}
LESS_DISTINCT = 0.1  # of the baseline's distinct word pairs


def findings(
    study: Study,
    models: Sequence[ModelFigures],
    contests: Sequence[Contest],
    agreements: Sequence[Agreement],
    depths: Sequence[Depth],
) -> tuple[Finding, ...]:
    """At most seven sentences for the first screen."""
    judges = {judge.name: judge for judge in study.judges}
    against_baseline = [contest for contest in contests if contest.opponent == study.baseline]
    main = next((judge for judge in study.judges if any(c.win_rate and c.judge == judge.name for c in contests)), None)
    if main is None:
        return (Finding(_nothing_judged(contests), "warning"),)
    figures = {model.name: model for model in models}
    ours = [contest for contest in against_baseline if contest.judge == main.name]
    found = [
        *_empty_responses(models),
        *_trained_on(study),
        *_verdicts(ours, figures, main),
        *_length_explains(ours, main),
        *_other_judges(ours, [c for c in against_baseline if c.judge != main.name], judges),
        *reasons_for_distrust(against_baseline, agreements, depths, judges),
        *_changes(models),
        *_between_models([c for c in contests if c.judge == main.name and c.opponent != study.baseline], main),
        *reasons_for_trust(agreements, depths, judges),
    ]
    return tuple(found[:MOST])


# ---- what is not there ----------------------------------------------------------------------------------------------


def _empty_responses(models: Sequence[ModelFigures]) -> Iterator[Finding]:
    """How many responses say nothing, of every model, where one has many: no verdict is to be read without it."""
    shares = {model.name: share.value for model in models if (share := model.shares.get("empty"))}
    if max(shares.values(), default=0.0) >= MANY_EMPTY:
        yield Finding(f"{capital(many_empty(shares))}. No verdict below holds without that.", "warning")


def _trained_on(study: Study) -> Iterator[Finding]:
    """Who was trained on prompts of the study."""
    origins = {**study.as_run.models, **study.as_run.judges}
    if said := told_of({name: origin.leak for name, origin in origins.items() if origin.leak}):
        yield Finding(f"{said}.", "warning")


# ---- who is better ---------------------------------------------------------------------------------------------------


def _nothing_judged(contests: Sequence[Contest]) -> str:
    errors = sum(contest.errors for contest in contests)
    if errors:
        return f"Nothing can be said about which model is better: all {errors:,} judgements failed."
    return "Nothing can be said about which model is better: no response was scored or judged."


def _verdicts(contests: Sequence[Contest], figures: Mapping[str, ModelFigures], judge: Judge) -> Iterator[Finding]:
    """One sentence for each model against the baseline, the last model first; of many, those with the highest rates."""
    best = sorted(contests, key=lambda contest: -contest.win_rate.value if contest.win_rate else 1)[:MOST_MODELS]
    for contest in (contest for contest in reversed(contests) if contest in best):
        rate = contest.win_rate
        if rate is None:
            yield Finding(f"{capital(who(judge))} gave no usable verdict on {contest.model}.", "warning")
            continue
        preferred = contest.definition == MEAN_PREFERENCE
        ties = f", {SHORT[MEAN_PREFERENCE]}" if preferred else ", ties count half" if contest.ties else ""
        sure = f"win rate {percent(rate.value)} ({interval(rate)}, {prompts(rate.n)}{ties})"
        said = {
            "better": f"{contest.model} is better than {contest.opponent}, says {who(judge)}: {sure}",
            "worse": f"{contest.model} is worse than {contest.opponent}, says {who(judge)}: {sure}",
            "unclear": f"No clear difference between {contest.model} and {contest.opponent}, says {who(judge)}: {sure}",
        }[side(rate)]
        if rate.n < FEWEST_PROMPTS:
            said = f"Too few prompts to tell whether {contest.model} is better than {contest.opponent}: {sure}"
            yield Finding(f"{said}.", "warning")
        else:
            empty = figures[contest.model].shares.get("empty")
            hidden = side(rate) == "better" and empty is not None and empty.value >= MANY_EMPTY
            tone = "warning" if hidden else TONES[side(rate)]  # what it does not answer stands against it
            yield Finding(f"{said}. {_at_equal_lengths(contest, figures)}", tone)


def _at_equal_lengths(contest: Contest, figures: Mapping[str, ModelFigures]) -> str:
    ours, theirs = figures[contest.model].words.value, figures[contest.opponent].words.value
    ratio = ours / theirs if theirs else float("inf")
    if abs(ratio - 1) < LONGER:
        compared = "about as long"
    elif ratio < 1:
        compared = f"{percent(1 - ratio)} shorter"
    else:
        compared = (
            f"{percent(ratio - 1)} longer" if ratio < TIMES else f"{ratio:.1f} times as long" if theirs else "longer"
        )
    lengths = f"Its responses are {compared} ({ours:.0f} words on average against {theirs:.0f})"
    controlled = contest.length_controlled
    if controlled and not contest.length_controlled_note:
        lengths += f"; at equal lengths the win rate would be {percent(controlled.value)} ({interval(controlled)})"
    return f"{lengths}. {contest.length_controlled_note}".rstrip()


def _length_explains(contests: Sequence[Contest], judge: Judge) -> Iterator[Finding]:
    """The models whose result does not stand, or turns round, at equal lengths."""
    told = [c for c in contests if c.length_controlled and not c.length_controlled_note]
    clear = [contest for contest in told if side(contest.win_rate) != "unclear"]
    unclear = [contest.model for contest in clear if side(contest.length_controlled) == "unclear"]
    turned = [
        contest.model
        for contest in clear
        if {side(contest.length_controlled), side(contest.win_rate)} == {"better", "worse"}
    ]
    said = [f"at equal lengths the result of {listed(unclear)} would not be clear"] if unclear else []
    said += [f"at equal lengths the result of {listed(turned)} would be the opposite"] if turned else []
    if said:
        yield Finding(f"Length may explain what {who(judge)} prefers: {listed(said)}.", "warning")


def _other_judges(ours: Sequence[Contest], others: Sequence[Contest], judges: Mapping[str, Judge]) -> Iterator[Finding]:
    """Whether the other judges say of each model what the main judge says, in one sentence."""
    pairs = [
        (contest, other)
        for contest in ours[:MOST_MODELS]
        for other in others
        if contest.win_rate and other.model == contest.model and other.win_rate
    ]
    differing = [(ours, other) for ours, other in pairs if side(ours.win_rate) != side(other.win_rate)]
    if differing:
        opposed = any({side(ours.win_rate), side(other.win_rate)} == {"better", "worse"} for ours, other in differing)
        models = dict.fromkeys(other.model for _, other in differing)
        said = [
            f"of {model}, {listed([_seen(other, judges) for _, other in differing if other.model == model])}"
            for model in models
        ]
        lead = "Judges contradict each other" if opposed else "Other judges are of another mind"
        yield Finding(f"{lead}: {'; '.join(said)}.", "warning")
    elif any(side(contest.win_rate) != "unclear" for contest, _ in pairs):
        names = dict.fromkeys(other.judge for _, other in pairs)
        rates = [
            f"{who(judges[name])} (win rate "
            + listed([f"{percent(c.win_rate.value)} for {c.model}" for _, c in pairs if c.judge == name and c.win_rate])
            + ")"
            for name in names
        ]
        yield Finding(f"{capital(listed(rates))} {'says' if len(names) == 1 else 'say'} the same.", "good")


def _seen(contest: Contest, judges: Mapping[str, Judge]) -> str:
    rate = contest.win_rate
    assert rate is not None
    seen = {"better": "sees it ahead", "worse": "sees it behind", "unclear": "sees no clear difference"}[side(rate)]
    if rate.n < FEWEST_PROMPTS:
        seen = f"judged only {prompts(rate.n)}"
    return f"{who(judges[contest.judge])} {seen} ({percent(rate.value)})"


def _between_models(contests: Sequence[Contest], judge: Judge) -> Iterator[Finding]:
    """The last model against the one before it, where the judge can compare them and there are prompts enough."""
    if not contests or not (rate := contests[-1].win_rate) or rate.n < FEWEST_PROMPTS:
        return
    model, opponent = contests[-1].model, contests[-1].opponent
    said = {
        "better": f"{model} is better than {opponent}",
        "worse": f"{model} is worse than {opponent}",
        "unclear": f"No clear difference between {model} and {opponent}",
    }[side(rate)]
    yield Finding(f"{said}, says {who(judge)}: win rate {percent(rate.value)} ({interval(rate)}).", TONES[side(rate)])


# ---- what it costs ---------------------------------------------------------------------------------------------------


def _changes(models: Sequence[ModelFigures]) -> Iterator[Finding]:
    """What became better in the text of each model, and what became worse, a sentence each; where nothing became worse,
    one that says so.
    """
    base, *others = models
    said = [f"{model.name}: {listed(changes)}" for model in others if (changes := _changes_of(model, base))]
    better = [f"{model.name}: {listed(fewer)}" for model in others if (fewer := _fewer(model, base))]
    if better:
        yield Finding(f"For the better, beside {base.name}: {'; '.join(better)}.", "good")
    if said:
        yield Finding(f"Not for the better, beside {base.name}: {'; '.join(said)}.", "warning")
    elif others and base.prompts >= FEWEST_PROMPTS:
        yield Finding(
            f"The text itself shows no cost: not clearly more repetition, cut-off or empty responses, refusals or "
            f"foreign turns than {base.name}, and no less variety.",
            "good",
        )


def _fewer(model: ModelFigures, base: ModelFigures) -> list[str]:
    """The defects that fewer responses have, in words; of few prompts nothing."""
    if base.prompts < FEWEST_PROMPTS:
        return []
    return [
        f"only {percent(ours.value)} of responses {deed} ({base.name}: {percent(theirs.value)})"
        for name, deed in SHARES.items()
        if name in DEFECTS and (ours := model.shares.get(name)) and (theirs := base.shares.get(name))
        if theirs.value - ours.value >= RISE and apart(ours, theirs)
    ]


def _changes_of(model: ModelFigures, base: ModelFigures) -> list[str]:
    """In words; of few prompts nothing."""
    if base.prompts < FEWEST_PROMPTS:
        return []
    changes = []
    for name, deed in SHARES.items():
        ours, theirs = model.shares.get(name), base.shares.get(name)
        if ours and theirs and ours.value - theirs.value >= RISE and apart(ours, theirs):
            changes.append(f"{percent(ours.value)} of responses {deed} ({base.name}: {percent(theirs.value)})")
    if model.repetition - base.repetition >= RISE:
        changes.append(
            f"{percent(model.repetition)} of a response's four-word runs stood in it before "
            f"({base.name}: {percent(base.repetition)})"
        )
    if model.distinct[2] < (1 - LESS_DISTINCT) * base.distinct[2]:
        longer = ", partly because it writes more" if model.words.value > (1 + LONGER) * base.words.value else ""
        changes.append(
            f"wording is less varied{longer} ({percent(model.distinct[2])} of word pairs are distinct, "
            f"{base.name}: {percent(base.distinct[2])})"
        )
    return changes
