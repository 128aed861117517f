"""Who judges a study, and whether everybody who takes part is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from preflab.analysis.study import Judge, JudgeKind
from preflab.config import named
from preflab.judge.endpoint import api_key
from preflab.model.tokenizers import load_tokenizer
from preflab.recipes.judge import parse_judge
from preflab.recipes.players import check_name
from preflab.records import UserError

OWN_SCORES = "score"
"""The scorer that stands for scores which all given files of responses bring with them."""
RESERVED = (OWN_SCORES, "responses")

RANK: Mapping[JudgeKind, int] = {"human": 0, "gold": 0, "openai": 1, "hf": 1, "reward_model": 2}
"""Whose word comes first in a report: people and the truth, then language models, then reward models, at which models
may have been trained to please.
"""


def read_judges(words: Sequence[str], reward_models: Sequence[str] = ()) -> tuple[Judge, ...]:
    """Judges from the words of the command line, by rank; reward models may be given without `reward:` in front."""
    rewards = [f"{name}=reward:{source}" if name else f"reward:{source}" for name, source in map(named, reward_models)]
    judges = [parse_judge(word) for word in (*rewards, *words)]
    names = [check_name(judge.name, reserved=RESERVED) for judge in judges]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two judges are called {', '.join(twice)}; put names in front, as in mine=gold")
    return tuple(sorted(judges, key=lambda judge: RANK[judge.kind]))


def try_out(models: Sequence[str], judges: Sequence[Judge], *, trust_remote_code: bool) -> None:
    """Have a wrong name or a missing key come out now, and not after hours of generating."""
    for source in (*models, *(judge.source for judge in judges if judge.kind in ("reward_model", "hf"))):
        load_tokenizer(source, trust_remote_code=trust_remote_code)
    for judge in judges:
        if judge.kind == "openai":
            api_key(judge.source)
