"""The commands that can be stages of an experiment."""

from __future__ import annotations

from collections.abc import Mapping

from preflab.core import output
from preflab.experiment.plan import StageKind
from preflab.judging.settings import JudgeSettings
from preflab.model.settings import LoraSettings
from preflab.sample.settings import GenerateSettings, ScoreSettings
from preflab.sandbox.settings import SandboxSettings
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.frontier.settings import FrontierSettings
from preflab.studies.grid.settings import GridSettings
from preflab.training.preference_settings import PREFERENCE_SETTINGS
from preflab.training.settings import NOT_IN_RESULT, MergeSettings, RewardSettings, SFTSettings, TrainSettings

_ROWS = frozenset(output.NOT_IN_RESULT)


def _training(settings: type[TrainSettings], run: str) -> StageKind:
    return StageKind(
        settings,
        run,
        "output_dir",
        product=_model_of,
        harmless=frozenset(NOT_IN_RESULT),
        amount="preflab.training.amount:training_amount",
    )


def _model_of(settings: LoraSettings) -> str:
    """The model to go on with, in a training's folder."""
    return "merged_model" if settings.lora else "model"


def _rows(settings: type[GenerateSettings | ScoreSettings | JudgeSettings], run: str, file: str) -> StageKind:
    return StageKind(settings, run, "output", file, product=lambda _: file, harmless=_ROWS)


STAGES: Mapping[str, StageKind] = {
    "sandbox": StageKind(
        SandboxSettings, "preflab.sandbox.command:write_sandbox", "output_dir", product=lambda _: "model"
    ),
    "train sft": _training(SFTSettings, "preflab.training.sft:train_sft"),
    "train reward": _training(RewardSettings, "preflab.training.reward:train_reward"),
    **{
        f"train {name}": _training(settings, "preflab.training.preferences:train_preferences")
        for name, settings in PREFERENCE_SETTINGS.items()
    },
    "merge": StageKind(MergeSettings, "preflab.training.merge:merge_adapter", "output_dir"),
    "generate": _rows(GenerateSettings, "preflab.sample.generate:generate_responses", "responses.jsonl"),
    "score": _rows(ScoreSettings, "preflab.sample.score:score_responses", "scores.jsonl"),
    "judge": _rows(JudgeSettings, "preflab.judging.command:judge_responses", "verdicts.json"),
    "compare": StageKind(
        CompareSettings,
        "preflab.studies.compare.command:compare_models",
        "out",
        proof="study.json",
        harmless=_ROWS,
        extends=frozenset({"models", "reward_model", "judge", "title"}),
    ),
    "grid": StageKind(
        GridSettings,
        "preflab.studies.grid.command:run_grid",
        "out",
        proof="grid.json",
        harmless=_ROWS,
        extends=frozenset({"models", "judge", "temperatures"}),
    ),
    "frontier": StageKind(
        FrontierSettings,
        "preflab.studies.frontier.command:measure_frontier",
        "out",
        proof="frontier.json",
        harmless=_ROWS,
        extends=frozenset({"models"}),
    ),
}
"""Command -> how it is a stage. Settings that add to a study let it go on: what it has is kept."""
