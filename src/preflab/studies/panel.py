"""Who judges a study, and whether everybody who takes part is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from preflab.core.config import named
from preflab.core.records import UserError
from preflab.core.terminal import say
from preflab.data.templates import apply_named_template, apply_template_values, template_values
from preflab.judging.kinds import kind_of, parse_judge
from preflab.judging.players import check_name
from preflab.model.tokenizers import load_tokenizer
from preflab.stats.study import JUDGE_KINDS, Judge
from preflab.studies.settings import StudySettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN_SCORES = "score"
"""The scorer that stands for scores which all given files of responses bring with them."""
RESERVED = (OWN_SCORES, "responses")


def read_judges(words: Sequence[str], reward_models: Sequence[str] = ()) -> tuple[Judge, ...]:
    """Judges from the words of the command line, by rank; reward models may be given without `reward:` in front."""
    rewards = [f"{name}=reward:{source}" if name else f"reward:{source}" for name, source in map(named, reward_models)]
    judges = [parse_judge(word) for word in (*rewards, *words)]
    names = [check_name(judge.name, reserved=RESERVED) for judge in judges]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two judges are called {', '.join(twice)}; put names in front, as in mine=gold")
    return tuple(sorted(judges, key=lambda judge: JUDGE_KINDS[judge.kind].rank))


def try_out(models: Sequence[str], judges: Sequence[Judge], settings: StudySettings) -> None:
    """Have a wrong name, a template that cannot be used or a missing key come out now, and not after hours of
    generating; and say where models will be asked in different ways.
    """
    asked = {source: _tokenizer(source, settings) for source in models}
    _apply_values(asked, settings.chat_template_kwargs)
    for judge in judges:
        kind_of(judge).check(judge, settings)
    told = {source: template_values(str(tokenizer.get_chat_template()))[0] for source, tokenizer in asked.items()}
    if len({tuple(values.items()) for values in told.values()}) > 1:
        each = "; ".join(
            f"{source} with {', '.join(f'{name}={value}' for name, value in values.items()) or 'its defaults'}"
            for source, values in told.items()
        )
        say(
            f"the models' chat templates are used with different values (chat_template_kwargs makes them alike): {each}"
        )


def _tokenizer(source: str, settings: StudySettings) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(source, trust_remote_code=settings.trust_remote_code)
    apply_named_template(tokenizer, settings.chat_template)
    return tokenizer


def _apply_values(asked: Mapping[str, PreTrainedTokenizerBase], values: Mapping[str, Any]) -> None:
    """The same values for all templates. Raises UserError with a way out where only some have such a switch."""
    refused: dict[str, UserError] = {}
    for source, tokenizer in asked.items():
        try:
            apply_template_values(tokenizer, values)
        except UserError as error:
            refused[source] = error
    if not refused:
        return
    others = [source for source in asked if source not in refused]
    way_out = (
        f". {', '.join(others)} would take it: let each model answer with values of its own (preflab generate) and "
        "compare the files of responses"
    )
    raise UserError(f"{next(iter(refused.values()))}{way_out if others else ''}")
