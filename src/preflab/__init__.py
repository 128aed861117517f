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
    from preflab.judge.command import judge_responses as judge_responses
    from preflab.judge.settings import JudgeSettings as JudgeSettings
    from preflab.judge.settings import WinrateSettings as WinrateSettings
    from preflab.judge.winrate import compute_winrate as compute_winrate
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
    from preflab.train.merge import merge_adapter as merge_adapter
    from preflab.train.preference_settings import APODownSettings as APODownSettings
    from preflab.train.preference_settings import APOZeroSettings as APOZeroSettings
    from preflab.train.preference_settings import CPOSettings as CPOSettings
    from preflab.train.preference_settings import DPOSettings as DPOSettings
    from preflab.train.preference_settings import EXOSettings as EXOSettings
    from preflab.train.preference_settings import HingeSettings as HingeSettings
    from preflab.train.preference_settings import IPOSettings as IPOSettings
    from preflab.train.preference_settings import KTOSettings as KTOSettings
    from preflab.train.preference_settings import LNDPOSettings as LNDPOSettings
    from preflab.train.preference_settings import NCASettings as NCASettings
    from preflab.train.preference_settings import ORPOSettings as ORPOSettings
    from preflab.train.preference_settings import PsiPOSettings as PsiPOSettings
    from preflab.train.preference_settings import RDPOSettings as RDPOSettings
    from preflab.train.preference_settings import RobustDPOSettings as RobustDPOSettings
    from preflab.train.preference_settings import SimPOSettings as SimPOSettings
    from preflab.train.preference_settings import SPPOSettings as SPPOSettings
    from preflab.train.preference_settings import settings_of as settings_of
    from preflab.train.preferences import train_preferences as train_preferences
    from preflab.train.reward import train_reward as train_reward
    from preflab.train.settings import MergeSettings as MergeSettings
    from preflab.train.settings import RewardSettings as RewardSettings
    from preflab.train.settings import SFTSettings as SFTSettings
    from preflab.train.sft import train_sft as train_sft

__version__ = "0.1.0"

# Each name is imported when it is first asked for: `import preflab` alone loads neither torch nor transformers.
_EXPORTS = {
    "APODownSettings": "preflab.train.preference_settings",
    "APOZeroSettings": "preflab.train.preference_settings",
    "CPOSettings": "preflab.train.preference_settings",
    "CompareSettings": "preflab.studies.compare.settings",
    "DPOSettings": "preflab.train.preference_settings",
    "DisagreementError": "preflab.core.records",
    "EXOSettings": "preflab.train.preference_settings",
    "FrontierSettings": "preflab.studies.frontier.settings",
    "GenerateSettings": "preflab.sample.settings",
    "GridSettings": "preflab.studies.grid.settings",
    "HingeSettings": "preflab.train.preference_settings",
    "IPOSettings": "preflab.train.preference_settings",
    "InspectSettings": "preflab.data.settings",
    "JudgeSettings": "preflab.judge.settings",
    "KTOSettings": "preflab.train.preference_settings",
    "LNDPOSettings": "preflab.train.preference_settings",
    "MergeSettings": "preflab.train.settings",
    "NCASettings": "preflab.train.preference_settings",
    "ORPOSettings": "preflab.train.preference_settings",
    "PsiPOSettings": "preflab.train.preference_settings",
    "QuickstartSettings": "preflab.experiment.settings",
    "RDPOSettings": "preflab.train.preference_settings",
    "ReportSettings": "preflab.experiment.settings",
    "RewardSettings": "preflab.train.settings",
    "RobustDPOSettings": "preflab.train.preference_settings",
    "RunSettings": "preflab.experiment.settings",
    "SFTSettings": "preflab.train.settings",
    "SPPOSettings": "preflab.train.preference_settings",
    "SandboxSettings": "preflab.sandbox.settings",
    "ScoreSettings": "preflab.sample.settings",
    "SimPOSettings": "preflab.train.preference_settings",
    "UserError": "preflab.core.records",
    "WinrateSettings": "preflab.judge.settings",
    "build_report": "preflab.experiment.report",
    "compare_models": "preflab.studies.compare.command",
    "compute_winrate": "preflab.judge.winrate",
    "generate_responses": "preflab.sample.generate",
    "inspect_data": "preflab.data.command",
    "judge_responses": "preflab.judge.command",
    "measure_frontier": "preflab.studies.frontier.command",
    "merge_adapter": "preflab.train.merge",
    "run_experiment": "preflab.experiment.run",
    "run_grid": "preflab.studies.grid.command",
    "run_quickstart": "preflab.experiment.quickstart",
    "score_responses": "preflab.sample.score",
    "settings_of": "preflab.train.preference_settings",
    "train_preferences": "preflab.train.preferences",
    "train_reward": "preflab.train.reward",
    "train_sft": "preflab.train.sft",
    "write_sandbox": "preflab.sandbox.command",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'preflab' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
