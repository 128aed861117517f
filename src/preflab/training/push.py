"""A finished run's model, pushed to the Hugging Face hub. The access token comes from the environment alone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from huggingface_hub import HfApi
from torch import nn

from preflab.core.durable import read_object
from preflab.core.records import UserError
from preflab.core.rundir import utc_now, write_json
from preflab.core.terminal import say
from preflab.data.tokenize import ChatTemplate
from preflab.training.model import save_trained
from preflab.training.settings import TrainSettings

Publish = Callable[[nn.Module, Mapping[str, float]], None]
"""Given the module as Accelerate prepared it and the metrics of an evaluation, by every process."""

TOKEN = "HF_TOKEN"  # the variable's name
PUSHED = "pushed.json"


def check_push(repository: str) -> None:
    """Refuse, before hours are spent on training, what could not be pushed afterwards."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise UserError(f"push_to_hub: found {repository!r}; a repository is named owner/name")
    _token(repository)


def push(folder: Path, model: Path, metrics: Mapping[str, float], repository: str) -> None:
    """Push the `model` of the finished run in `folder` with its metrics in the commit message, unless that was done.

    A repository that is not there yet is made, private. Raises UserError where the hub refuses or is out of reach; the
    run itself stays finished, and the same command tries again.
    """
    record = folder / PUSHED
    if record.exists() and read_object(record).get("repository") == repository:
        return
    try:
        commit = _upload(model, metrics, repository)
    except NotPushedError as error:
        raise UserError(
            f"the run is finished and its model lies in {model}, but {error}\n"
            "The same command tries again, and trains nothing anew"
        ) from error
    write_json(record, {"repository": repository, "commit": commit, "time": utc_now()})


def push_at_evaluations(accelerator: Accelerator, template: ChatTemplate, settings: TrainSettings) -> Publish | None:
    """What pushes the model as it is at an evaluation, None where that is not wanted.

    A push that fails is told and ends nothing: training goes on, and the final model is pushed at the end.
    """
    repository = settings.push_to_hub
    if repository is None or settings.hub_strategy == "end":
        return None

    def publish(module: nn.Module, metrics: Mapping[str, float]) -> None:
        folder = settings.output_dir / "pushing"
        with torch.random.fork_rng():  # training draws its dropout as if nothing had been loaded and merged
            model = save_trained(accelerator, module, template, folder)
        if accelerator.is_main_process:
            try:
                _upload(model, metrics, repository)
            except NotPushedError as error:
                say(f"warning: step {metrics['step']:.0f}: {error}; training goes on")
            shutil.rmtree(folder)
        accelerator.wait_for_everyone()

    return publish


class NotPushedError(Exception):
    """What kept a model from the hub, in words."""


def _upload(model: Path, metrics: Mapping[str, float], repository: str) -> str:
    """The new commit's id."""
    api = HfApi(token=_token(repository))
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=model, commit_message=commit_message(metrics))
    except Exception as error:  # the hub's client raises what its HTTP library does, and that has changed before
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NotPushedError(f"it could not be pushed to {repository}: {reason}") from error
    return str(commit.oid)


def commit_message(metrics: Mapping[str, float]) -> str:
    """The last evaluation's figures where there are any, else the training's."""
    held_out = {name: value for name, value in metrics.items() if name.startswith("eval_")}
    shown = held_out or {name: value for name, value in metrics.items() if name not in ("step", "epoch")}
    figures = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"preflab, step {metrics.get('step', 0):.0f}: {figures}"


def _token(repository: str) -> str:
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(
            f"push_to_hub {repository}: the environment variable {TOKEN} is not set; put an access token in it"
        )
    return token
