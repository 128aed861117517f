"""The commands that can be stages of an experiment."""

from __future__ import annotations

from collections.abc import Mapping

from preflab.experiments.plan import StageKind
from preflab.recipes import output
from preflab.recipes.frontier_settings import FrontierSettings
from preflab.recipes.judging_settings import JudgeSettings
from preflab.recipes.preference_settings import PREFERENCE_SETTINGS
from preflab.recipes.settings import (
    NOT_IN_RESULT,
    GenerateSettings,
    LoraSettings,
    MergeSettings,
    RewardSettings,
    SandboxSettings,
    ScoreSettings,
    SFTSettings,
    TrainSettings,
)
from preflab.recipes.study_settings import CompareSettings, GridSettings

_ROWS = frozenset(output.NOT_IN_RESULT)


def _training(settings: type[TrainSettings], run: str) -> StageKind:
    return StageKind(settings, run, "output_dir", product=_model_of, harmless=frozenset(NOT_IN_RESULT))


def _model_of(settings: LoraSettings) -> str:
    """The model to go on with, in a training's folder."""
    return "merged_model" if settings.lora else "model"


def _rows(settings: type[GenerateSettings | ScoreSettings | JudgeSettings], run: str, file: str) -> StageKind:
    return StageKind(settings, run, "output", file, product=lambda _: file, harmless=_ROWS)


STAGES: Mapping[str, StageKind] = {
    "sandbox": StageKind(
        SandboxSettings, "preflab.recipes.sandbox:write_sandbox", "output_dir", product=lambda _: "model"
    ),
    "train sft": _training(SFTSettings, "preflab.recipes.sft:train_sft"),
    "train reward": _training(RewardSettings, "preflab.recipes.reward:train_reward"),
    **{
        f"train {name}": _training(settings, "preflab.recipes.preferences:train_preferences")
        for name, settings in PREFERENCE_SETTINGS.items()
    },
    "merge": StageKind(MergeSettings, "preflab.recipes.merge:merge_adapter", "output_dir"),
    "generate": _rows(GenerateSettings, "preflab.recipes.generate:generate_responses", "responses.jsonl"),
    "score": _rows(ScoreSettings, "preflab.recipes.score:score_responses", "scores.jsonl"),
    "judge": _rows(JudgeSettings, "preflab.recipes.judge:judge_responses", "verdicts.json"),
    "compare": StageKind(
        CompareSettings,
        "preflab.recipes.compare:compare_models",
        "out",
        proof="study.json",
        harmless=_ROWS,
        extends=frozenset({"models", "reward_model", "judge", "title"}),
    ),
    "grid": StageKind(
        GridSettings,
        "preflab.recipes.grid:run_grid",
        "out",
        proof="grid.json",
        harmless=_ROWS,
        extends=frozenset({"models", "judge", "temperatures"}),
    ),
    "frontier": StageKind(
        FrontierSettings,
        "preflab.recipes.frontier:measure_frontier",
        "out",
        proof="frontier.json",
        harmless=_ROWS,
        extends=frozenset({"models"}),
    ),
}
"""Command -> how it is a stage. Settings that add to a study let it go on: what it has is kept."""
