"""The commands as functions, on paths and on objects in memory.

Every function takes what its command takes, by the names of the command line's options, and returns what the command
made: an object that shows itself in a few lines, with `to_pandas()` and, where there is something to draw, `figure()`.
Data may be a path, a hub id or `sandbox:…`, rows (a list of dicts, a pandas DataFrame, a `datasets.Dataset`), a result
of `generate` or `score`, or a list of these. A model may be a path, a hub id, a training's result, or a model of
transformers with its tokenizer. Mistakes are `preflab.UserError`s, in the words of the command line.

Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from preflab.core.records import UserError

if TYPE_CHECKING:
    from preflab.core.config import Settings
    from preflab.data.command import InspectResult
    from preflab.judging.command import JudgeResult
    from preflab.judging.estimate import Cost
    from preflab.judging.winrate import WinrateResult
    from preflab.model.in_memory import InMemory
    from preflab.sample.generate import GenerateResult
    from preflab.sample.score import ScoreResult
    from preflab.studies.compare.report import ReportResult
    from preflab.training.stage import TrainResult

    SettingsT = TypeVar("SettingsT", bound=Settings)
    ResultT = TypeVar("ResultT")


def train(
    objective: str,
    *,
    model: Any = None,
    tokenizer: Any = None,
    train_data: Any = None,
    eval_data: Any = None,
    **settings: Any,
) -> TrainResult:
    """Train a model: `preflab train OBJECTIVE`.

    A model in memory is trained itself, as by transformers' Trainer: afterwards it has the trained weights (with
    `lora=True`, an adapter on it). The run's folder (`output_dir`) is written all the same. It is claimed for the
    weights' hash, the rows and the settings; called again with the same ones, it is not trained again: the model is
    given the weights that the finished run has left. A model that was trained by an earlier call is another start.

    Args:
        objective: `sft`, `reward`, or an objective on preferences by its name (`dpo`, `simpo`, `kto`, …).
        model: the model to start from; for `reward`, in memory, one of transformers' …ForSequenceClassification.
        tokenizer: of a model in memory.
        train_data: what is trained on.
        eval_data: what is held out.
        **settings: as on the command line: `beta`, `learning_rate`, `output_dir`, …

    Raises UserError for settings, data or a model that cannot be used.
    """
    kind, run = _training(objective)
    held, values = _with_model("model", model, tokenizer, settings)
    values |= {**_data("train_data", train_data), **_data("eval_data", eval_data)}
    return _lending(held, run, _settings(kind, values))


def _training(objective: str) -> tuple[type[Settings], Callable[..., TrainResult]]:
    """The settings class of an objective, and what trains by it."""
    from preflab.training.preference_settings import settings_of
    from preflab.training.preferences import train_preferences
    from preflab.training.reward import train_reward
    from preflab.training.settings import RewardSettings, SFTSettings
    from preflab.training.sft import train_sft

    if objective == "sft":
        return SFTSettings, train_sft
    if objective == "reward":
        return RewardSettings, train_reward
    try:
        return settings_of(objective), train_preferences
    except UserError:
        if near := difflib.get_close_matches(objective, ("sft", "reward"), n=1):
            raise UserError(f"objective: found {objective!r}; did you mean {near[0]}?") from None
        raise


def generate(model: Any, prompts: Any, *, tokenizer: Any = None, **settings: Any) -> GenerateResult:
    """Let a model respond to prompts: `preflab generate`. Prompts are data; of preference data, its prompts."""
    from preflab.sample.generate import generate_responses
    from preflab.sample.settings import GenerateSettings

    held, values = _with_model("model", model, tokenizer, settings)
    made = _settings(GenerateSettings, values | _data("prompts", prompts))
    return _lending(held, generate_responses, made)


def score(data: Any, reward_model: Any, *, tokenizer: Any = None, **settings: Any) -> ScoreResult:
    """Score preference data, or responses, with a reward model: `preflab score`."""
    from preflab.sample.score import score_responses
    from preflab.sample.settings import ScoreSettings

    held, values = _with_model("reward_model", reward_model, tokenizer, settings)
    made = _settings(ScoreSettings, values | _data("data", data))
    return _lending(held, score_responses, made)


def judge(
    responses: Any, opponent: Any, *, judge: Any = None, tokenizer: Any = None, prompts: Any = None, **settings: Any
) -> JudgeResult | Cost:
    """Let a judge compare two sets of responses to the same prompts, or one with the `"chosen"` of the `prompts`:
    `preflab judge`. The judge is named as on the command line, or is a model in memory: a reward model, which scores,
    or a language model, which is asked.
    """
    from preflab.judging.command import judge_responses
    from preflab.judging.settings import JudgeSettings

    words = {"responses": _word(responses, "responses"), "opponent": _word(opponent, "opponent")}
    held, values = _with_model("judge", judge, tokenizer, settings)
    if held:
        values["judge"] = f"in_memory={'reward' if hasattr(held.model, 'score') else 'hf'}:{held}"
    made = _settings(JudgeSettings, {**values, **words, **_data("prompts", prompts)})
    return _lending(held, judge_responses, made)


def compare(models: Any, *, prompts: Any = None, tokenizer: Any = None, **settings: Any) -> ReportResult:
    """Compare models, or responses: `preflab compare`.

    Args:
        models: the baseline, then those that should be better: a list, or a dict by name, of models and responses.
        tokenizer: of the models in memory.
        prompts: what they answer; by default the prompts of the first responses.
        **settings: as on the command line: `judge`, `reward_model`, `out`, …
    """
    from preflab.model.in_memory import as_it_was
    from preflab.studies.compare.command import compare_models
    from preflab.studies.compare.settings import CompareSettings

    words, held = _participants(models, tokenizer)
    made = _settings(CompareSettings, {**settings, "models": words, **_data("prompts", prompts)})
    with ExitStack() as stack:
        for each in held.values():
            stack.enter_context(as_it_was(each))
        return compare_models(made, held)


def inspect(data: Any, **settings: Any) -> InspectResult:
    """What is in data: format, counts, what would be dropped and why: `preflab data inspect`."""
    from preflab.data.command import inspect_data
    from preflab.data.settings import InspectSettings

    return inspect_data(_settings(InspectSettings, {**settings, **_data("source", data, "data")}))


def grid(models: Any, *, prompts: Any = None, **settings: Any) -> Any:
    """Judge models, or training checkpoints, at several temperatures: `preflab grid`."""
    from preflab.studies.grid.command import run_grid
    from preflab.studies.grid.settings import GridSettings

    values = {**settings, "models": _participants(models, None)[0], **_data("prompts", prompts)}
    return run_grid(_settings(GridSettings, values))


def frontier(models: Any, *, prompts: Any = None, **settings: Any) -> Any:
    """Measure policies against their KL from the reference: `preflab frontier`."""
    from preflab.studies.frontier.command import measure_frontier
    from preflab.studies.frontier.settings import FrontierSettings

    values = {**settings, "models": _participants(models, None)[0], **_data("prompts", prompts)}
    return measure_frontier(_settings(FrontierSettings, values))


def winrate(*files: str | Path, **settings: Any) -> WinrateResult:
    """Win rates from the rows of verdict files: `preflab winrate`."""
    from preflab.judging.settings import WinrateSettings
    from preflab.judging.winrate import compute_winrate

    return compute_winrate(_settings(WinrateSettings, {**settings, "files": files}))


def report(folder: str | Path) -> Any:
    """Tables, figures and the report of a study or experiment again, from its rows: `preflab report`."""
    from preflab.experiment.report import build_report
    from preflab.experiment.settings import ReportSettings

    return build_report(_settings(ReportSettings, {"folder": folder}))


def run(experiment: str | Path, *assignments: str, **settings: Any) -> Any:
    """Run an experiment's file as far as it is not done: `preflab run`."""
    from preflab.experiment.run import run_experiment
    from preflab.experiment.settings import RunSettings

    return run_experiment(_settings(RunSettings, {**settings, "experiment": experiment, "assignments": assignments}))


def merge(adapter: str | Path, output_dir: str | Path, **settings: Any) -> Any:
    """Merge an adapter's folder into its model: `preflab merge`."""
    from preflab.training.merge import merge_adapter
    from preflab.training.settings import MergeSettings

    return merge_adapter(_settings(MergeSettings, {**settings, "adapter": adapter, "output_dir": output_dir}))


def write_sandbox(output_dir: str | Path, **settings: Any) -> Any:
    """Write the embedded sandbox to a folder, preference files and an untrained tiny model: `preflab sandbox`."""
    from preflab.sandbox.command import write_sandbox
    from preflab.sandbox.settings import SandboxSettings

    return write_sandbox(_settings(SandboxSettings, {**settings, "output_dir": output_dir}))


# ---- from arguments to settings --------------------------------------------------------------------------------------


def _settings(kind: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Raises UserError that names each setting that cannot be used, what was found and what would be right."""
    from preflab.core.config import validated

    return validated(kind, {name: value for name, value in values.items() if value is not None}, lambda name: name)


def _data(setting: str, given: Any, name: str | None = None) -> dict[str, tuple[str, ...]]:
    """A setting of data, as source specs; nothing where nothing is given. `name` is what the caller calls it."""
    from preflab.data.in_memory import sources_of

    if given is None:
        return {}
    several = isinstance(given, (list, tuple))
    return {setting: sources_of([_place(item) for item in given] if several else _place(given), name or setting)}


def _place(given: Any) -> Any:
    """The file of a result's rows, the model of a training's result; anything else as it is."""
    from preflab.core.results import Result

    if not isinstance(given, Result):
        return given
    return getattr(given, "output", None) or getattr(given, "model", given)


def _with_model(
    setting: str, given: Any, tokenizer: Any, settings: Mapping[str, Any]
) -> tuple[InMemory | None, dict[str, Any]]:
    """The model that is given in memory, if it is, and the settings with what stands for it in them."""
    given = _place(given)
    if given is None or isinstance(given, (str, Path)):
        if tokenizer is not None:
            raise UserError(f"tokenizer: only for a model in memory; {given or 'a path'} brings its own")
        return None, {**settings, setting: given and str(given)}
    from preflab.model.in_memory import in_memory

    for name in ("dtype", "revision", "trust_remote_code"):
        if name in settings:
            raise UserError(f"{name}: says how a model is loaded, and the {setting} is in memory already")
    held = in_memory(given, tokenizer, setting)
    return held, {**settings, setting: str(held)}


def _lending(held: InMemory | None, run: Callable[..., ResultT], settings: Settings) -> ResultT:
    """Run a command with the model in memory, and leave that in the mode and with the attention that it came with."""
    from preflab.model.in_memory import as_it_was

    with as_it_was(held):
        return run(settings, held=held)


def _word(given: Any, name: str) -> str:
    """Responses as a word of the command line: a path as it is, or rows in memory under a name."""
    from preflab.data.in_memory import source_of_rows

    place = _place(given)
    return str(place) if isinstance(place, (str, Path)) else f"{name}={source_of_rows(place, name)}"


def _participants(models: Any, tokenizer: Any) -> tuple[tuple[str, ...], dict[str, InMemory]]:
    """Models and responses as words of the command line, and by name the models that are in memory. Those that are
    given by a dict have its names; of a list, those in memory are called by their place: model1, model2, …
    """
    from preflab.judging.players import check_name
    from preflab.model.in_memory import in_memory

    if isinstance(models, (str, Path)) or not isinstance(models, (Mapping, Sequence)):
        raise UserError(f"models: found {type(models).__name__}; a list, or a dict by name, of models is needed")
    words: list[str] = []
    held: dict[str, InMemory] = {}
    names = models if isinstance(models, Mapping) else [f"model{at}" for at in range(1, len(models) + 1)]
    for name, given in zip(names, models.values() if isinstance(models, Mapping) else models, strict=True):
        place = _place(given)
        if hasattr(place, "state_dict"):
            held[name] = in_memory(place, tokenizer, f"models: {name}")
            words.append(f"{name}={held[name]}")
        elif isinstance(models, Mapping) and isinstance(place, (str, Path)):
            words.append(f"{check_name(str(name))}={place}")
        else:
            words.append(_word(place, check_name(str(name))))
    return tuple(words), held
