"""The command line: a table of commands. What one accepts is read off its settings; what it does is its recipe."""

from __future__ import annotations

import importlib
import io
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

import preflab
from preflab.core.config import Settings
from preflab.core.failures import explain_failure
from preflab.core.options import CONTEXT, Menu, SettingsCommand
from preflab.core.records import DisagreementError, UserError
from preflab.core.terminal import is_main_process, printable, process_index


@dataclass(frozen=True)
class Command:
    """A command: where its settings class and its recipe are ("module:name", imported when the command is used).

    The recipe takes the settings and returns what it made: a `Path`, or an object whose text says what lies where.
    With `config`, the first argument may be a YAML file of settings.
    """

    settings: str
    run: str
    help: str
    config: bool = False


COMMANDS: Mapping[str, Command] = {
    "quickstart": Command(
        settings="preflab.experiment.settings:QuickstartSettings",
        run="preflab.experiment.quickstart:run_quickstart",
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
    "train sft": Command(
        settings="preflab.training.settings:SFTSettings",
        run="preflab.training.sft:train_sft",
        help="Train a model to write the responses of the data (supervised fine-tuning).",
        config=True,
    ),
    "train reward": Command(
        settings="preflab.training.settings:RewardSettings",
        run="preflab.training.reward:train_reward",
        help="Train a reward model: one score for a response, higher for a preferred one.",
        config=True,
    ),
    **{
        f"train {name}": Command(
            settings=f"preflab.training.preference_settings:{settings}",
            run="preflab.training.preferences:train_preferences",
            help=about,
            config=True,
        )
        for name, settings, about in (
            ("dpo", "DPOSettings", "Train a model towards what people preferred (direct preference optimisation)."),
            ("robust_dpo", "RobustDPOSettings", "DPO that a share of flipped labels does not bias."),
            ("ipo", "IPOSettings", "Identity preference optimisation: a squared loss towards a fixed margin."),
            ("hinge", "HingeSettings", "SLiC: a hinge loss on DPO's margin."),
            ("ln_dpo", "LNDPOSettings", "Length-normalised DPO: means over tokens instead of sums."),
            ("r_dpo", "RDPOSettings", "Length-regularised DPO: what a label owes to length is not learnt."),
            ("apo_zero", "APOZeroSettings", "Anchored preference optimisation: chosen up, rejected down."),
            ("apo_down", "APODownSettings", "Anchored preference optimisation: both down, rejected further."),
            ("exo", "EXOSettings", "Efficient exact optimisation: a reverse KL between preferences."),
            ("nca", "NCASettings", "Noise contrastive alignment: the chosen response bounded by itself."),
            ("sppo", "SPPOSettings", "Self-play preference optimisation, one iteration with hard labels."),
            ("psipo", "PsiPOSettings", "ΨPO with a Ψ of your own."),
            ("kto", "KTOSettings", "Kahneman-Tversky optimisation, on single responses with labels, or on pairs."),
            ("simpo", "SimPOSettings", "Simple preference optimisation: no reference, a margin per token."),
            ("cpo", "CPOSettings", "Contrastive preference optimisation: no reference, with an SFT term."),
            ("orpo", "ORPOSettings", "Odds ratio preference optimisation: SFT and preference in one, no reference."),
        )
    },
    "objectives": Command(
        settings="preflab.training.settings:ObjectivesSettings",
        run="preflab.training.objectives:list_objectives",
        help="List the objectives: formula, what each needs, defaults, and where they come from.",
    ),
    "generate": Command(
        settings="preflab.sample.settings:GenerateSettings",
        run="preflab.sample.generate:generate_responses",
        help="Let a model respond to prompts.",
        config=True,
    ),
    "score": Command(
        settings="preflab.sample.settings:ScoreSettings",
        run="preflab.sample.score:score_responses",
        help="Score preference data, or responses, with a reward model.",
    ),
    "judge": Command(
        settings="preflab.judging.settings:JudgeSettings",
        run="preflab.judging.command:judge_responses",
        help="Let a judge (a language model, a reward model, a person) compare two files of responses.",
    ),
    "winrate": Command(
        settings="preflab.judging.settings:WinrateSettings",
        run="preflab.judging.winrate:compute_winrate",
        help="Compute win rates from the rows of verdict files, and refuse a file that contradicts its own rows.",
    ),
    "compare": Command(
        settings="preflab.studies.compare.settings:CompareSettings",
        run="preflab.studies.compare.command:compare_models",
        help="Compare models, or files of responses: generate, score, judge, analyse, report.",
        config=True,
    ),
    "grid": Command(
        settings="preflab.studies.grid.settings:GridSettings",
        run="preflab.studies.grid.command:run_grid",
        help="Judge models, or training checkpoints, at several temperatures.",
        config=True,
    ),
    "frontier": Command(
        settings="preflab.studies.frontier.settings:FrontierSettings",
        run="preflab.studies.frontier.command:measure_frontier",
        help="Measure policies against their KL from the reference: gold reward, a reward model's score, best-of-n.",
        config=True,
    ),
    "report": Command(
        settings="preflab.experiment.settings:ReportSettings",
        run="preflab.experiment.report:build_report",
        help="Make tables, figures and the report of a comparison, grid, frontier or experiment again, from its rows.",
    ),
    "merge": Command(
        settings="preflab.training.settings:MergeSettings",
        run="preflab.training.merge:merge_adapter",
        help="Merge an adapter into its model, and check that both answer alike.",
    ),
    "sandbox": Command(
        settings="preflab.sandbox.settings:SandboxSettings",
        run="preflab.sandbox.command:write_sandbox",
        help="Write the embedded sandbox to a folder: preference files and its untrained tiny model.",
    ),
}

_LONGEST_LINE = 4000

GROUPS: Mapping[str, str] = {
    "data": "Look at preference data.",
    "train": "Train a model: sft, reward, or by an objective on preferences (see `preflab objectives`).",
}


def app(commands: Mapping[str, Command]) -> click.Group:
    """The command line as a click group; "train dpo" is `dpo` in a group `train`."""
    root = Menu("preflab", help=preflab.__doc__, context_settings=CONTEXT)
    click.version_option(preflab.__version__, prog_name="preflab")(root)
    for words, command in commands.items():
        *groups, name = words.split()
        parent: click.Group = root
        for group in groups:
            child = parent.commands.setdefault(group, Menu(group, help=GROUPS.get(group)))
            assert isinstance(child, click.Group), f"{group} is a command and a group at once"
            parent = child
        load: Callable[[], type[Settings]] = partial(_import, command.settings)
        parent.add_command(SettingsCommand(name, command.help, load, partial(_run, command), config=command.config))
    return root


def _import(location: str) -> Any:
    """What "module:name" names."""
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)


def _run(command: Command, settings: Settings) -> None:
    """Run a command's recipe and say what it made."""
    try:
        result = _import(command.run)(settings)
    except Exception as error:
        if isinstance(error, DisagreementError):
            _show(error.shown)
        if isinstance(error, UserError):
            raise
        where = getattr(settings, "output_dir", None) or getattr(settings, "output", None) or "output"
        if said := explain_failure(error, where):
            raise UserError(said) from error
        raise
    _show(result)
    if failure := getattr(result, "failure", ""):  # it wrote what it found, and that is nothing to go on with
        _complain(f"Error: {failure}")
        click.get_current_context().exit(1)


def _show(result: object) -> None:
    """Print what a recipe made, if it is anything."""
    if hasattr(result, "__rich__") and sys.stdout.isatty() and is_main_process():
        from rich.console import Console  # the text of such a result, with colours

        Console().print(result, crop=False)
    elif result is not None and is_main_process():
        click.echo(f"written to {result}" if isinstance(result, Path) else printable(str(result)))


def main(arguments: Sequence[str] | None = None, commands: Mapping[str, Command] = COMMANDS) -> NoReturn:
    """Run the command line. Exit code 2 and a message alone for the user's mistakes, 3 for a file that contradicts its
    own rows, a traceback for our mistakes only.
    """
    sys.exit(_exit_code(arguments, commands))


def _exit_code(arguments: Sequence[str] | None, commands: Mapping[str, Command]) -> int:
    try:
        code: int | None = app(commands).main(arguments, prog_name="preflab", standalone_mode=False)
    except click.Abort:  # what click makes of Ctrl-C
        _complain("stopped; run the same command to resume")
        return 130
    except click.ClickException as error:
        if is_main_process():
            shown = io.StringIO()  # it quotes the words of the command line, which can hold anything
            error.show(shown)
            _complain(shown.getvalue())
        return error.exit_code
    except UserError as error:
        _complain(f"Error: {error}")
        return 3 if isinstance(error, DisagreementError) else 2
    except Exception:
        traceback.print_exc()
        _complain("This is a defect of preflab, not of your input: please report it with the lines above.")
        return 1
    return code or 0


def _complain(message: str) -> None:
    """Print to standard error. Other processes than the main one keep to one line, as it may be about them alone."""
    if not is_main_process():
        message = f"process {process_index()}: {message.splitlines()[0]}"
    click.echo("\n".join(map(_cut, printable(message).splitlines())), err=True)


def _cut(line: str) -> str:
    """A line that a person can read: a row's field, or a column's name, may have any length."""
    if len(line) <= _LONGEST_LINE:
        return line
    half = _LONGEST_LINE // 2
    return f"{line[:half]} … ({len(line) - 2 * half} characters) … {line[-half:]}"
