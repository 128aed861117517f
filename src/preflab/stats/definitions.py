"""Which of the usual definitions our figures have: worded here, once, for help, tables, figures, reports and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

STD = "standard deviation of the population (divided by n)"
STD_SHORT = "std (population)"

TIES_HALF = "mean over prompts of the mean of their samples: a win 1, a tie 1/2, a loss 0; errors are left out"
MEAN_PREFERENCE = (
    "mean over prompts of the mean of their samples: the judge's probability that the model's response is the better "
    "one; errors are left out"
)
"""The win rate of verdicts, and that of preferences (`verdict_from first_token`); two orders are averaged in either."""

ACCURACY = "share of pairs whose preferred response has the higher score, a tie 1/2"

SHORT: Mapping[str, str] = {TIES_HALF: "ties half", MEAN_PREFERENCE: "mean preference"}


def win_rate_head(definitions: Iterable[str]) -> str:
    """ "win rate (ties half)": the heading of a column, or the label of an axis, of win rates so defined."""
    return f"win rate ({' or '.join(dict.fromkeys(SHORT.get(each, each) for each in definitions)) or SHORT[TIES_HALF]})"


def definition_of(figure: str) -> str | None:
    """The definition of a figure by its name in tables (`score_std`, `accuracy`); None where its name says all."""
    name = figure.removeprefix("eval_")
    if name.endswith("_std"):
        return STD
    return ACCURACY if name in ("accuracy", "rewards/accuracies") else None
