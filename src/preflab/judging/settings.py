"""Settings of judging, for every command that lets somebody judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from preflab.core.config import MOST_SEED, Positional, Settings, Values
from preflab.data.columns import COLUMNS_HELP, ColumnNames
from preflab.judging.orders import Orders, VerdictFrom
from preflab.judging.table import forms
from preflab.model.settings import Dtype
from preflab.sample.settings import ScoreSettings
from preflab.stats.definitions import MEAN_PREFERENCE, TIES_HALF

FORMAT_WITH_ANSWERS = (
    "Format of the rows: a name, which is for the prompts, or, where it is one of single responses, for the files of "
    "responses; file.py:function, for both; else detected."
)


class ScoringSettings(Settings):
    """How a reward model scores responses, and how any model is loaded."""

    max_length: int = Field(
        default=2048, ge=2, description="Longest prompt and response together that a reward model scores, in tokens."
    )
    max_prompt_length: int = Field(
        default=1024, ge=1, description=ScoreSettings.model_fields["max_prompt_length"].description
    )
    dtype: Dtype = Field(default="auto", description=ScoreSettings.model_fields["dtype"].description)
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")
    batch_size: int = Field(default=16, ge=1, description="Responses that are generated, or scored, at once.")


class AskingSettings(Settings):
    """How a language model is asked which of two responses is better."""

    question: str = Field(
        default="dialogue",
        description="What the judge is asked: dialogue, summarisation, or a text file with a question of your own.",
    )
    orders: Orders = Field(
        default="both",
        description="both: each pair is judged twice, either response first; random: once, in a seeded random order.",
    )
    verdict_from: VerdictFrom = Field(
        default="text",
        description="text: the judge compares and then says its verdict; first_token: the probabilities of A and B as "
        "its first token make a preference (the endpoint has to give log-probs). The win rate is the "
        f"{TIES_HALF}; with first_token, the {MEAN_PREFERENCE}.",
    )
    judge_temperature: float | None = Field(
        default=0.0, ge=0, description="Sampling temperature of the judge; none: whatever the endpoint takes."
    )
    judge_max_tokens: int = Field(
        default=512, ge=1, description="Token cap of what the judge writes; with verdict_from first_token it is 1."
    )
    judge_chat_template: str | None = Field(
        default=None, description="Named chat template for a local judge, or a reward model, that comes without one."
    )
    judge_chat_template_kwargs: Values = Field(
        default={}, description="Values for the switches of its chat template, such as enable_thinking=false."
    )
    concurrency: int = Field(
        default=8, ge=1, description="Calls to an endpoint at once; of a local judge, replies in one batch."
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Most calls to an endpoint in a minute; by default no limit."
    )
    timeout: float = Field(default=60.0, gt=0, description="Seconds until a call without a reply is given up.")
    retries: int = Field(
        default=5, ge=0, description="How often a failed call is repeated, with longer and longer pauses."
    )


class JudgingSettings(AskingSettings, ScoringSettings):
    """What any judge may need, for every command that lets somebody judge."""


AnySettings = TypeVar("AnySettings", bound=Settings)


def narrowed(settings: JudgingSettings, kind: type[AnySettings]) -> AnySettings:
    """Those of the settings that `kind` has."""
    return kind(**{name: getattr(settings, name) for name in kind.model_fields})


class JudgeSettings(JudgingSettings):
    """Let a judge compare two files of responses to the same prompts."""

    responses: Annotated[str, Positional()] = Field(description="File of responses of the model that is judged.")
    opponent: Annotated[str, Positional()] = Field(
        description="File of responses to compare with, or `chosen`: the preferred responses of the --prompts."
    )
    judge: str = Field(
        description=f"{forms()}; `name=…` in front names it. Of an OpenAI-compatible endpoint, OPENAI_BASE_URL says "
        "where it is, and OPENAI_API_KEY is its key."
    )
    prompts: tuple[str, ...] = Field(default=(), description="For `chosen`: the sources of preference data.")
    format: str | None = Field(default=None, description=FORMAT_WITH_ANSWERS)
    columns: ColumnNames = Field(default=(), description=COLUMNS_HELP)
    seed: int = Field(default=42, ge=0, le=MOST_SEED, description="Seed of random orders.")
    output: Path | None = Field(
        default=None,
        description="Verdict file; an unfinished one is gone on with. By default "
        "runs/verdicts/RESPONSES-vs-OPPONENT.JUDGE.json.",
    )
    overwrite: bool = Field(
        default=False,
        description="Discard what was made before and start anew; what a person has judged is kept under another name.",
    )
    dry_run: bool = Field(default=False, description="Ask nothing: say how many judgements and tokens, and the price.")
    price_input: float | None = Field(
        default=None, ge=0, description="For the dry run: US dollars per million tokens of input."
    )
    price_output: float | None = Field(default=None, ge=0, description="The same of output.")


class WinrateSettings(Settings):
    """Win rates with intervals, computed again from the rows of verdict files."""

    files: Annotated[tuple[Path, ...], Positional()] = Field(
        description="Verdict files: ours, finished or not, of the same layout, or AlpacaEval's annotations.json. The "
        f"win rate of one is the {TIES_HALF}; of verdicts that are probabilities, the {MEAN_PREFERENCE}."
    )
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the bootstrap.")
    json_output: bool = Field(default=False, alias="json", description="Print JSON instead of tables.")
