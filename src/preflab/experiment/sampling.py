"""What it takes to let models respond, and to have the responses scored and judged.

How long a response will be nobody knows before; every one is taken to reach the token cap, so this is the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from preflab.core.config import source_of
from preflab.data.answers import format_of_prompts, is_answer_file
from preflab.experiment.amounts import Wanted
from preflab.experiment.lookup import Lookup, Notes, UnknownError
from preflab.experiment.plan import PlannedStage
from preflab.experiment.speed import sampling_machine
from preflab.experiment.training import checkpoints_of
from preflab.experiment.work import (
    Need,
    Tokens,
    decoding_seconds,
    forward_bytes,
    forward_seconds,
    loading_seconds,
)
from preflab.model.files import at_revision
from preflab.model.snapshots import snapshots_of

FRAME = 230  # tokens of a judge's prompt around the conversation and the two responses
CALL_SECONDS = 2.0  # that a call to an endpoint is taken to last
NOTHING = Need(0, 0.0, 0)
TO_THE_CAP = "responses up to the token cap"


@dataclass(frozen=True)
class Asked:
    """Prompts, their mean length in tokens, and the length that a response is taken to have."""

    prompts: int
    prompt: float
    response: float


def generation_need(stage: PlannedStage, lookup: Lookup) -> Need:
    """Of `generate`."""
    settings: Any = stage.settings
    model = at_revision(settings.model, settings.revision)
    asked = _asked(settings, model, lookup)
    return _responses(model, settings, asked, settings.num_return_sequences, lookup)


def scoring_need(stage: PlannedStage, lookup: Lookup) -> Need:
    """Of `score`."""
    settings: Any = stage.settings
    model = at_revision(settings.reward_model, settings.revision)
    made = _answers(settings.data, lookup)
    if made:
        return reduce(add, (_scores(model, settings, asked, 1, lookup) for asked in made))
    template = lookup.template(model, settings.chat_template, settings.chat_template_kwargs)
    limits = {"max_length": settings.max_length, "max_prompt_length": settings.max_prompt_length}
    amount = lookup.amount(settings.data, settings.format, template, wanted=Wanted(columns=settings.columns), **limits)
    rows = min(amount.rows, settings.max_samples or amount.rows)
    asked = Asked(rows, amount.prompt, amount.responses)
    return _scores(model, settings, asked, 1, lookup) + Need(0, 0.0, 0, notes=(amount.counted,))


def comparison_need(stage: PlannedStage, lookup: Lookup) -> Need:
    """Of `compare`: every model responds, reward models score everybody, judges compare the others with the first."""
    settings: Any = stage.settings
    sources = [source_of(word) for word in settings.models]
    models = [source for source in sources if source not in ("chosen", "rejected") and not is_answer_file(source)]
    asked = _asked(settings, models[0] if models else None, lookup, given=sources)
    samples = settings.num_return_sequences
    needs = [_responses(model, settings, asked, samples, lookup) for model in models]
    scorers = [source_of(word) for word in settings.reward_model]
    scorers += [source_of(word).removeprefix("reward:") for word in settings.judge if "reward:" in word]
    needs += [_scores(model, settings, asked, samples * len(sources), lookup) for model in scorers]
    pairs = asked.prompts * samples * (len(sources) - 1)
    needs += [_judging(word, settings, asked, pairs, lookup) for word in settings.judge if "reward:" not in word]
    return reduce(add, needs, NOTHING)


def grid_need(stage: PlannedStage, lookup: Lookup) -> Need:
    """Of `grid`: every model, or checkpoint, responds at every temperature, and is judged each time."""
    settings: Any = stage.settings
    needs = [NOTHING]
    for word in settings.models:
        source = source_of(word)
        is_run = Path(source).name == "checkpoints"
        count, model = _checkpoints(Path(source), lookup) if is_run else (1, source)
        asked = _asked(settings, model, lookup, given=[settings.opponent])
        for temperature in dict.fromkeys(settings.temperatures):
            samples = count * (settings.num_return_sequences if temperature else 1)
            needs.append(_responses(model, settings, asked, samples, lookup))
            pairs = asked.prompts * samples
            needs += [_judging(judge, settings, asked, pairs, lookup) for judge in settings.judge]
    return reduce(add, needs)


def frontier_need(stage: PlannedStage, lookup: Lookup) -> Need:
    """Of `frontier`: policies and the reference respond; both models read the policies' responses for the KL, and the
    reward model reads all.
    """
    settings: Any = stage.settings
    asked = _asked(settings, settings.reference, lookup)
    samples = settings.num_return_sequences
    needs = [_responses(settings.reference, settings, asked, max(settings.best_of_n, default=1), lookup)]
    for word in settings.models:
        needs.append(_responses(source_of(word), settings, asked, samples, lookup))
        needs += [_read(model, settings, asked, samples, lookup) for model in (source_of(word), settings.reference)]
    responses = samples * len(settings.models) + max(settings.best_of_n, default=1)
    return reduce(add, needs) + _scores(settings.reward_model, settings, asked, responses, lookup)


def judging_need(stage: PlannedStage, lookup: Lookup) -> Need:
    """Of `judge`."""
    settings: Any = stage.settings
    made = _answers([settings.responses], lookup)
    asked = made[0] if made else _asked(settings, None, lookup, given=[settings.responses])
    return _judging(settings.judge, settings, asked, asked.prompts, lookup)


def _checkpoints(folder: Path, lookup: Lookup) -> tuple[int, str]:
    """How many checkpoints a run has, or will have, and the model whose size they have."""
    stage = lookup.maker(str(folder))
    if stage is not None and stage.command.startswith("train "):
        return checkpoints_of(stage, lookup), str(stage.folder)
    found = snapshots_of(folder)
    if not found:
        raise UnknownError(f"{folder} holds no checkpoint yet")
    return len(found), str(found[-1])


# ---- who is asked what ---------------------------------------------------------------------------------------------


def _asked(settings: Any, model: str | None, lookup: Lookup, *, given: Iterable[str] = ()) -> Asked:
    """The prompts of the settings, or of the first file of responses, counted with the model's tokenizer."""
    files = [source for source in given if is_answer_file(source)]
    if not settings.prompts and (made := _answers(files[:1], lookup)):
        return made[0]
    template = None
    if model is not None:
        named = getattr(settings, "chat_template", None)
        template = lookup.template(model, named, getattr(settings, "chat_template_kwargs", None))
    longest = getattr(settings, "max_prompt_length", None)
    amount = lookup.amount(
        settings.prompts or files[:1],
        format_of_prompts(settings.format, files),
        template,
        max_prompt_length=longest,
        wanted=Wanted(columns=settings.columns),
    )
    rows = min(amount.rows, getattr(settings, "max_samples", None) or amount.rows)
    return Asked(rows, amount.prompt, getattr(settings, "max_new_tokens", amount.best))


def _answers(files: Sequence[str], lookup: Lookup) -> list[Asked]:
    """Files of responses that stages have yet to generate; empty as soon as one is there, or is another stage's."""
    found = []
    for file in files:
        stage = lookup.maker(file)
        if Path(file).exists() or stage is None or stage.command != "generate":
            return []
        settings: Any = stage.settings
        asked = _asked(settings, at_revision(settings.model, settings.revision), lookup)
        found.append(Asked(asked.prompts * settings.num_return_sequences, asked.prompt, asked.response))
    return found


# ---- what one model does -------------------------------------------------------------------------------------------


def _responses(model: str, settings: Any, asked: Asked, samples: int, lookup: Lookup) -> Need:
    """A model responds to every prompt `samples` times."""
    sequences, batch = asked.prompts * samples, settings.batch_size
    notes = Notes()
    notes.add(TO_THE_CAP)
    size = notes.unless_unknown(lambda: lookup.size(model))
    if size is None:
        return Need(sequences * asked.response, None, None, notes=notes.texts)
    machine = sampling_machine(settings.dtype)
    seconds = decoding_seconds(size, machine, sequences=sequences, prompt=asked.prompt, new=asked.response, batch=batch)
    at_once = min(batch, sequences)
    memory = forward_bytes(size, machine, tokens=at_once * (asked.prompt + asked.response), sequences=at_once)
    return Need(sequences * asked.response, seconds + loading_seconds(size, times=2), memory, notes=notes.texts)


def _read(model: str, settings: Any, asked: Asked, samples: int, lookup: Lookup, *, head: bool = True) -> Need:
    """A model reads every prompt and `samples` responses to it."""
    notes = Notes()
    rows = asked.prompts * samples
    total = rows * (asked.prompt + asked.response)
    size = notes.unless_unknown(lambda: lookup.size(model))
    if size is None:
        return Need(total, None, None, notes=notes.texts)
    machine = sampling_machine(settings.dtype)
    scored = rows * asked.response if head else 0
    seconds = forward_seconds(size, Tokens(total, scored, max(1, rows / settings.batch_size)), machine)
    at_once = min(settings.batch_size, rows) * (asked.prompt + asked.response)
    return Need(total, seconds, forward_bytes(size, machine, tokens=at_once), notes=notes.texts)


def _scores(model: str, settings: Any, asked: Asked, samples: int, lookup: Lookup) -> Need:
    """A reward model reads them."""
    return _read(model, settings, asked, samples, lookup, head=False)


def _judging(word: str, settings: Any, asked: Asked, pairs: int, lookup: Lookup) -> Need:
    """A judge compares so many pairs."""
    kind, _, model = source_of(word).partition(":")
    if kind == "gold":
        return NOTHING
    if kind == "human":
        return Need(0, None, 0, notes=(f"a person judges {pairs:,} pairs",))
    if kind == "reward":
        return _scores(model, settings, Asked(pairs, asked.prompt, asked.response), 2, lookup)
    questions = pairs * (2 if settings.orders == "both" else 1)
    prompt = FRAME + asked.prompt + 2 * asked.response
    written = 1 if settings.verdict_from == "first_token" else settings.judge_max_tokens
    if kind == "openai":
        most = settings.requests_per_minute or float("inf")
        per_second = min(settings.concurrency / CALL_SECONDS, most / 60)
        note = f"calls of {CALL_SECONDS:g} s, {settings.concurrency} at once"
        return Need(questions * (prompt + written), questions / per_second, 0, questions, (note,))
    notes = Notes()
    notes.add(TO_THE_CAP)
    size = notes.unless_unknown(lambda: lookup.size(model))
    if size is None:
        return Need(questions * (prompt + written), None, None, notes=notes.texts)
    machine = sampling_machine(settings.dtype)
    seconds = decoding_seconds(
        size, machine, sequences=questions, prompt=prompt, new=written, batch=settings.concurrency
    )
    memory = forward_bytes(
        size, machine, tokens=settings.concurrency * (prompt + written), sequences=settings.concurrency
    )
    return Need(questions * (prompt + written), seconds + loading_seconds(size), memory, notes=notes.texts)
