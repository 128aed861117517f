"""preflab: from a file of human preferences to an aligned language model, and to the evidence that it got better."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preflab.core.records import DisagreementError as DisagreementError
    from preflab.core.records import UserError as UserError
    from preflab.data.command import inspect_data as inspect_data
    from preflab.data.settings import InspectSettings as InspectSettings
    from preflab.experiment.quickstart import run_quickstart as run_quickstart
    from preflab.experiment.report import build_report as build_report
    from preflab.experiment.run import run_experiment as run_experiment
    from preflab.experiment.settings import QuickstartSettings as QuickstartSettings
    from preflab.experiment.settings import ReportSettings as ReportSettings
    from preflab.experiment.settings import RunSettings as RunSettings
    from preflab.judging.command import judge_responses as judge_responses
    from preflab.judging.settings import JudgeSettings as JudgeSettings
    from preflab.judging.settings import WinrateSettings as WinrateSettings
    from preflab.judging.winrate import compute_winrate as compute_winrate
    from preflab.sample.generate import generate_responses as generate_responses
    from preflab.sample.score import score_responses as score_responses
    from preflab.sample.settings import GenerateSettings as GenerateSettings
    from preflab.sample.settings import ScoreSettings as ScoreSettings
    from preflab.sandbox.command import write_sandbox as write_sandbox
    from preflab.sandbox.settings import SandboxSettings as SandboxSettings
    from preflab.studies.compare.command import compare_models as compare_models
    from preflab.studies.compare.settings import CompareSettings as CompareSettings
    from preflab.studies.frontier.command import measure_frontier as measure_frontier
    from preflab.studies.frontier.settings import FrontierSettings as FrontierSettings
    from preflab.studies.grid.command import run_grid as run_grid
    from preflab.studies.grid.settings import GridSettings as GridSettings
    from preflab.training.merge import merge_adapter as merge_adapter
    from preflab.training.preference_settings import APODownSettings as APODownSettings
    from preflab.training.preference_settings import APOZeroSettings as APOZeroSettings
    from preflab.training.preference_settings import CPOSettings as CPOSettings
    from preflab.training.preference_settings import DPOSettings as DPOSettings
    from preflab.training.preference_settings import EXOSettings as EXOSettings
    from preflab.training.preference_settings import HingeSettings as HingeSettings
    from preflab.training.preference_settings import IPOSettings as IPOSettings
    from preflab.training.preference_settings import KTOSettings as KTOSettings
    from preflab.training.preference_settings import LNDPOSettings as LNDPOSettings
    from preflab.training.preference_settings import NCASettings as NCASettings
    from preflab.training.preference_settings import ORPOSettings as ORPOSettings
    from preflab.training.preference_settings import PsiPOSettings as PsiPOSettings
    from preflab.training.preference_settings import RDPOSettings as RDPOSettings
    from preflab.training.preference_settings import RobustDPOSettings as RobustDPOSettings
    from preflab.training.preference_settings import SimPOSettings as SimPOSettings
    from preflab.training.preference_settings import SPPOSettings as SPPOSettings
    from preflab.training.preference_settings import settings_of as settings_of
    from preflab.training.preferences import train_preferences as train_preferences
    from preflab.training.reward import train_reward as train_reward
    from preflab.training.settings import MergeSettings as MergeSettings
    from preflab.training.settings import RewardSettings as RewardSettings
    from preflab.training.settings import SFTSettings as SFTSettings
    from preflab.training.sft import train_sft as train_sft

__version__ = "0.1.0"

# Each name is imported when it is first asked for: `import preflab` alone loads neither torch nor transformers.
_EXPORTS = {
    "APODownSettings": "preflab.training.preference_settings",
    "APOZeroSettings": "preflab.training.preference_settings",
    "CPOSettings": "preflab.training.preference_settings",
    "CompareSettings": "preflab.studies.compare.settings",
    "DPOSettings": "preflab.training.preference_settings",
    "DisagreementError": "preflab.core.records",
    "EXOSettings": "preflab.training.preference_settings",
    "FrontierSettings": "preflab.studies.frontier.settings",
    "GenerateSettings": "preflab.sample.settings",
    "GridSettings": "preflab.studies.grid.settings",
    "HingeSettings": "preflab.training.preference_settings",
    "IPOSettings": "preflab.training.preference_settings",
    "InspectSettings": "preflab.data.settings",
    "JudgeSettings": "preflab.judging.settings",
    "KTOSettings": "preflab.training.preference_settings",
    "LNDPOSettings": "preflab.training.preference_settings",
    "MergeSettings": "preflab.training.settings",
    "NCASettings": "preflab.training.preference_settings",
    "ORPOSettings": "preflab.training.preference_settings",
    "PsiPOSettings": "preflab.training.preference_settings",
    "QuickstartSettings": "preflab.experiment.settings",
    "RDPOSettings": "preflab.training.preference_settings",
    "ReportSettings": "preflab.experiment.settings",
    "RewardSettings": "preflab.training.settings",
    "RobustDPOSettings": "preflab.training.preference_settings",
    "RunSettings": "preflab.experiment.settings",
    "SFTSettings": "preflab.training.settings",
    "SPPOSettings": "preflab.training.preference_settings",
    "SandboxSettings": "preflab.sandbox.settings",
    "ScoreSettings": "preflab.sample.settings",
    "SimPOSettings": "preflab.training.preference_settings",
    "UserError": "preflab.core.records",
    "WinrateSettings": "preflab.judging.settings",
    "build_report": "preflab.experiment.report",
    "compare_models": "preflab.studies.compare.command",
    "compute_winrate": "preflab.judging.winrate",
    "generate_responses": "preflab.sample.generate",
    "inspect_data": "preflab.data.command",
    "judge_responses": "preflab.judging.command",
    "measure_frontier": "preflab.studies.frontier.command",
    "merge_adapter": "preflab.training.merge",
    "run_experiment": "preflab.experiment.run",
    "run_grid": "preflab.studies.grid.command",
    "run_quickstart": "preflab.experiment.quickstart",
    "score_responses": "preflab.sample.score",
    "settings_of": "preflab.training.preference_settings",
    "train_preferences": "preflab.training.preferences",
    "train_reward": "preflab.training.reward",
    "train_sft": "preflab.training.sft",
    "write_sandbox": "preflab.sandbox.command",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'preflab' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
