"""THE table of commands, for the command line and for experiments: what each takes, does and, as a stage, makes.

Everything is named as "module:name" and imported when it is used, so the table can be read without loading a model's
library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from preflab.core.command import Command, StageCommand
from preflab.studies import STUDIES, other_study
from preflab.training.objective_commands import objective_commands, other_objective

COMMANDS: Mapping[str, Command] = {
    "quickstart": Command(
        settings="preflab.quickstart.settings:QuickstartSettings",
        run="preflab.quickstart.command:run_quickstart",
        help="Run the whole chain on the embedded sandbox: SFT, reward model, DPO, gold rewards.",
    ),
    "run": Command(
        settings="preflab.experiment.settings:RunSettings",
        run="preflab.experiment.run:run_experiment",
        help="Run an experiment from one file: every stage as far as it is not done, and one report.",
    ),
    "data inspect": Command(
        settings="preflab.data.settings:InspectSettings",
        run="preflab.data.command:inspect_data",
        help="Show what preference data holds, what would be dropped and why, and rows token by token.",
    ),
    "data formats": Command(
        settings="preflab.data.settings:FormatsSettings",
        run="preflab.data.known_formats:list_formats",
        help="List the formats of preference data that are known by name.",
    ),
    "train sft": StageCommand(
        settings="preflab.training.settings:SFTSettings",
        run="preflab.training.sft:train_sft",
        help="Train a model to write the responses of the data (supervised fine-tuning).",
        config=True,
        product="preflab.training.settings:product_of",
        harmless="preflab.training.settings:NOT_IN_RESULT",
        amount="preflab.training.amount:training_amount",
    ),
    "train reward": StageCommand(
        settings="preflab.training.settings:RewardSettings",
        run="preflab.training.reward:train_reward",
        help="Train a reward model: one score for a response, higher for a preferred one.",
        config=True,
        product="preflab.training.settings:product_of",
        harmless="preflab.training.settings:NOT_IN_RESULT",
        amount="preflab.training.amount:training_amount",
    ),
    **objective_commands(),
    "objectives": Command(
        settings="preflab.training.settings:ObjectivesSettings",
        run="preflab.training.objectives:list_objectives",
        help="List the objectives: formula, what each needs, defaults, and where they come from.",
    ),
    "generate": StageCommand(
        settings="preflab.sample.settings:GenerateSettings",
        run="preflab.sample.generate:generate_responses",
        help="Let a model respond to prompts.",
        config=True,
        place="output",
        file="responses.jsonl",
        product="responses.jsonl",
        harmless="preflab.core.output:NOT_IN_RESULT",
    ),
    "score": StageCommand(
        settings="preflab.sample.settings:ScoreSettings",
        run="preflab.sample.score:score_responses",
        help="Score preference data, or responses, with a reward model.",
        place="output",
        file="scores.jsonl",
        product="scores.jsonl",
        harmless="preflab.core.output:NOT_IN_RESULT",
    ),
    "judge": StageCommand(
        settings="preflab.judging.settings:JudgeSettings",
        run="preflab.judging.command:judge_responses",
        help="Let a judge (a language model, a reward model, a person) compare two files of responses.",
        place="output",
        file="verdicts.json",
        product="verdicts.json",
        harmless="preflab.core.output:NOT_IN_RESULT",
    ),
    "winrate": Command(
        settings="preflab.judging.settings:WinrateSettings",
        run="preflab.judging.winrate:compute_winrate",
        help="Compute win rates from the rows of verdict files, and refuse a file that contradicts its own rows.",
    ),
    **STUDIES,
    "report": Command(
        settings="preflab.experiment.settings:ReportSettings",
        run="preflab.experiment.report:build_report",
        help="Make tables, figures and the report of a study or an experiment again, from its rows.",
    ),
    "merge": StageCommand(
        settings="preflab.training.settings:MergeSettings",
        run="preflab.training.merge:merge_adapter",
        help="Merge an adapter into its model, and check that both answer alike.",
    ),
    "sandbox": StageCommand(
        settings="preflab.sandbox.settings:SandboxSettings",
        run="preflab.sandbox.command:write_sandbox",
        help="Write the embedded sandbox to a folder: preference files and its untrained tiny model.",
        product="model",
    ),
}

GROUPS: Mapping[str, str] = {
    "data": "Look at preference data.",
    "train": "Train a model: sft, reward, or by an objective on preferences (see `preflab objectives`).",
}


def stage_commands(asked: Iterable[str] = ()) -> dict[str, StageCommand]:
    """The commands that can be stages of an experiment; of those asked for, also what is not ours."""
    ours = {name: command for name, command in COMMANDS.items() if isinstance(command, StageCommand)}
    return ours | {name: found for name in asked if name not in ours and (found := other_command(name))}


def other_command(words: str) -> StageCommand | None:
    """A command that is not in the table: a user's study, `file.py:name`, or training by a user's objective, `train
    file.py:name`; or an installed package's.
    """
    return other_objective(words) if words.split(" ")[0] in GROUPS else other_study(words)
