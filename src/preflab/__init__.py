"""preflab: from a file of human preferences to an aligned language model, and to the evidence that it got better."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preflab.recipes.compare import compare_models as compare_models
    from preflab.recipes.frontier import measure_frontier as measure_frontier
    from preflab.recipes.frontier_settings import FrontierSettings as FrontierSettings
    from preflab.recipes.generate import generate_responses as generate_responses
    from preflab.recipes.grid import run_grid as run_grid
    from preflab.recipes.inspect import inspect_data as inspect_data
    from preflab.recipes.judge import judge_responses as judge_responses
    from preflab.recipes.judging_settings import JudgeSettings as JudgeSettings
    from preflab.recipes.merge import merge_adapter as merge_adapter
    from preflab.recipes.preference_settings import APODownSettings as APODownSettings
    from preflab.recipes.preference_settings import APOZeroSettings as APOZeroSettings
    from preflab.recipes.preference_settings import CPOSettings as CPOSettings
    from preflab.recipes.preference_settings import DPOSettings as DPOSettings
    from preflab.recipes.preference_settings import EXOSettings as EXOSettings
    from preflab.recipes.preference_settings import HingeSettings as HingeSettings
    from preflab.recipes.preference_settings import IPOSettings as IPOSettings
    from preflab.recipes.preference_settings import KTOSettings as KTOSettings
    from preflab.recipes.preference_settings import LNDPOSettings as LNDPOSettings
    from preflab.recipes.preference_settings import NCASettings as NCASettings
    from preflab.recipes.preference_settings import ORPOSettings as ORPOSettings
    from preflab.recipes.preference_settings import PsiPOSettings as PsiPOSettings
    from preflab.recipes.preference_settings import RDPOSettings as RDPOSettings
    from preflab.recipes.preference_settings import RobustDPOSettings as RobustDPOSettings
    from preflab.recipes.preference_settings import SimPOSettings as SimPOSettings
    from preflab.recipes.preference_settings import SPPOSettings as SPPOSettings
    from preflab.recipes.preference_settings import settings_of as settings_of
    from preflab.recipes.preferences import train_preferences as train_preferences
    from preflab.recipes.quickstart import run_quickstart as run_quickstart
    from preflab.recipes.report import build_report as build_report
    from preflab.recipes.reward import train_reward as train_reward
    from preflab.recipes.run import run_experiment as run_experiment
    from preflab.recipes.sandbox import write_sandbox as write_sandbox
    from preflab.recipes.score import score_responses as score_responses
    from preflab.recipes.settings import GenerateSettings as GenerateSettings
    from preflab.recipes.settings import InspectSettings as InspectSettings
    from preflab.recipes.settings import MergeSettings as MergeSettings
    from preflab.recipes.settings import QuickstartSettings as QuickstartSettings
    from preflab.recipes.settings import RewardSettings as RewardSettings
    from preflab.recipes.settings import RunSettings as RunSettings
    from preflab.recipes.settings import SandboxSettings as SandboxSettings
    from preflab.recipes.settings import ScoreSettings as ScoreSettings
    from preflab.recipes.settings import SFTSettings as SFTSettings
    from preflab.recipes.settings import WinrateSettings as WinrateSettings
    from preflab.recipes.sft import train_sft as train_sft
    from preflab.recipes.study_settings import CompareSettings as CompareSettings
    from preflab.recipes.study_settings import GridSettings as GridSettings
    from preflab.recipes.study_settings import ReportSettings as ReportSettings
    from preflab.recipes.winrate import compute_winrate as compute_winrate
    from preflab.records import DisagreementError as DisagreementError
    from preflab.records import UserError as UserError

__version__ = "0.1.0"

# Each name is imported when it is first asked for: `import preflab` alone loads neither torch nor transformers.
_EXPORTS = {
    "APODownSettings": "preflab.recipes.preference_settings",
    "APOZeroSettings": "preflab.recipes.preference_settings",
    "CPOSettings": "preflab.recipes.preference_settings",
    "CompareSettings": "preflab.recipes.study_settings",
    "DPOSettings": "preflab.recipes.preference_settings",
    "DisagreementError": "preflab.records",
    "EXOSettings": "preflab.recipes.preference_settings",
    "FrontierSettings": "preflab.recipes.frontier_settings",
    "GenerateSettings": "preflab.recipes.settings",
    "GridSettings": "preflab.recipes.study_settings",
    "HingeSettings": "preflab.recipes.preference_settings",
    "IPOSettings": "preflab.recipes.preference_settings",
    "InspectSettings": "preflab.recipes.settings",
    "JudgeSettings": "preflab.recipes.judging_settings",
    "KTOSettings": "preflab.recipes.preference_settings",
    "LNDPOSettings": "preflab.recipes.preference_settings",
    "MergeSettings": "preflab.recipes.settings",
    "NCASettings": "preflab.recipes.preference_settings",
    "ORPOSettings": "preflab.recipes.preference_settings",
    "PsiPOSettings": "preflab.recipes.preference_settings",
    "QuickstartSettings": "preflab.recipes.settings",
    "RDPOSettings": "preflab.recipes.preference_settings",
    "ReportSettings": "preflab.recipes.study_settings",
    "RewardSettings": "preflab.recipes.settings",
    "RobustDPOSettings": "preflab.recipes.preference_settings",
    "RunSettings": "preflab.recipes.settings",
    "SFTSettings": "preflab.recipes.settings",
    "SPPOSettings": "preflab.recipes.preference_settings",
    "SandboxSettings": "preflab.recipes.settings",
    "ScoreSettings": "preflab.recipes.settings",
    "SimPOSettings": "preflab.recipes.preference_settings",
    "UserError": "preflab.records",
    "WinrateSettings": "preflab.recipes.settings",
    "build_report": "preflab.recipes.report",
    "compare_models": "preflab.recipes.compare",
    "compute_winrate": "preflab.recipes.winrate",
    "generate_responses": "preflab.recipes.generate",
    "inspect_data": "preflab.recipes.inspect",
    "judge_responses": "preflab.recipes.judge",
    "measure_frontier": "preflab.recipes.frontier",
    "merge_adapter": "preflab.recipes.merge",
    "run_experiment": "preflab.recipes.run",
    "run_grid": "preflab.recipes.grid",
    "run_quickstart": "preflab.recipes.quickstart",
    "score_responses": "preflab.recipes.score",
    "settings_of": "preflab.recipes.preference_settings",
    "train_preferences": "preflab.recipes.preferences",
    "train_reward": "preflab.recipes.reward",
    "train_sft": "preflab.recipes.sft",
    "write_sandbox": "preflab.recipes.sandbox",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'preflab' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
