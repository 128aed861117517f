"""How figures are put into words: percentages, numbers, intervals, lists, names of judges and of what is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from preflab.core.origins import Leak
from preflab.stats.definitions import SHORT
from preflab.stats.results import Estimate
from preflab.stats.study import JUDGE_KINDS, Judge

FEWEST_PROMPTS = 10  # below, intervals mean little and no difference is claimed

NOTHING = "–"  # where there is no figure
UNIT = "\u00a0%"  # with a space that does not break

SHARES: Mapping[str, str] = {
    "hit_cap": "hit the token cap",
    "empty": "are empty",
    "runaway_repetition": "repeat without end",
    "foreign_turn": "speak as someone else",
    "other_task": "go on into another task",
    "refusal": "decline to answer",
}
"""A share of `ModelFigures` -> what those responses do."""


# ---- figures ---------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """A share in a sentence: "71 %", with a decimal where whole percents would make it look like none, half or all."""
    whole = round(share * 100)
    digits = f"{100 * share:.1f}".removesuffix(".0") if whole in (0, 50, 100) else str(whole)
    return digits + UNIT


def exact_percent(share: float | None) -> str:
    """A share in a table or a picture: "71.3 %"."""
    return NOTHING if share is None or share != share else f"{100 * share:.1f}{UNIT}"


def number(value: float | None, *, signed: bool = False) -> str:
    """Three significant digits or two decimals, whichever says more, with a true minus sign."""
    if value is None or value != value:
        return NOTHING
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 3 if 0 < abs(value) < 0.1 else 2
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def setting(value: object) -> str:
    """A setting's value as files and the command line have it: "true", not "True"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def p_value(value: float | None) -> str:
    """ "0.040", "< 0.001"."""
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def span(low: float, high: float, form: Callable[[float], str]) -> str:
    """ "66.0 to 76.0 %": an interval in the form of its figures; a unit that both carry stands once."""
    first, second = form(low), form(high)
    return f"{first.removesuffix(UNIT) if second.endswith(UNIT) else first} to {second}"


def interval(estimate: Estimate) -> str:
    """The interval of a rate in a sentence: "95 % interval 66 to 76 %"."""
    return f"95{UNIT} interval {span(estimate.low, estimate.high, percent)}"


def duration(seconds: float) -> str:
    """Time in the units that matter: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    for size, unit, lower, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        whole, rest = divmod(round(seconds / lower), size // lower)
        if whole:
            return f"{whole:,} {unit}" + (f" {rest} {part}" if rest else "")
    raise AssertionError("a minute or more")


def prompts(n: int) -> str:
    """ "1 prompt", "1,000 prompts"."""
    return "1 prompt" if n == 1 else f"{n:,} prompts"


# ---- language --------------------------------------------------------------------------------------------------------


def listed(parts: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def capital(text: str) -> str:
    """The text with a capital at its start. Not for names of models, which stay as they are."""
    return text[:1].upper() + text[1:]


def who(judge: Judge) -> str:
    """ "the reward model rm-2b", "the judge gpt-4o"; without a name that only repeats the kind: "the gold reward"."""
    kind = JUDGE_KINDS[judge.kind].called or JUDGE_KINDS[judge.kind].words
    spoken = judge.name.lower().replace("_", " ").replace("-", " ")
    plain = spoken in (kind, *kind.split())
    return f"the {kind}" if plain else f"the {kind} {judge.name}"


MANY_EMPTY = 0.05  # of somebody's responses, from which on no verdict is told without it


def many_empty(shares: Mapping[str, float]) -> str:
    """ "many responses are empty: 40 % of dpo's and 0 % of base's", from shares by name."""
    said = [f"{percent(share)} of {name}'s" for name, share in shares.items()]
    return f"many responses are empty: {listed(said)}"


# ---- what may be claimed ---------------------------------------------------------------------------------------------


def side(rate: Estimate | None) -> str:
    """ "better", "worse" or "unclear": on which side of one half the whole interval of a win rate lies."""
    if rate is None or rate.n < FEWEST_PROMPTS or rate.low <= 0.5 <= rate.high:
        return "unclear"
    return "better" if rate.low > 0.5 else "worse"


def apart(first: Estimate, second: Estimate) -> bool:
    """Whether two intervals do not touch."""
    return first.low > second.high or second.low > first.high


def heading(title: str, name: str, assignments: Sequence[str]) -> str:
    """The title of an experiment's file, where that is run as it stands. With other models, data or settings it may
    say what is not done, so the name stands in; a title that is given with the command is as good as the file's.
    """
    changed = {each.partition("=")[0] for each in assignments}
    return title if "title" in changed or changed <= {"output_dir"} else name


def meanings(definitions: Iterable[str]) -> list[str]:
    """Which win rate it is, or which ones they are."""
    found = dict.fromkeys(definitions)
    return [f"win rate{f' ({SHORT[each]})' if len(found) > 1 else ''}: {each}" for each in found]


TONES = {"better": "good", "worse": "bad", "unclear": "neutral"}
TONE_MARKS = {"good": "+", "bad": "-", "warning": "!"}
# ---- prompts that were trained on ------------------------------------------------------------------------------------


def leak_words(name: str, leak: Leak) -> str:
    """ "dpo was trained on 12 of the 40 prompts", where it was on some; "" else."""
    if not leak.prompts:
        return ""
    the = "the only prompt" if leak.of == 1 else f"{leak.prompts:,} of the {leak.of:,} prompts"
    return f"{name} was trained on {'all ' + format(leak.of, ',') + ' prompts' if leak.prompts == leak.of > 1 else the}"


def told_of(leaks: Mapping[str, Leak], listing: Callable[[Sequence[str]], str] = listed) -> str:
    """Who was trained on some of the prompts, and what that means, in a sentence without full stop; "" of nobody."""
    found = [words for name, leak in leaks.items() if (words := leak_words(name, leak))]
    return f"{listing(found)}: verdicts and scores on these say less about new prompts" if found else ""
