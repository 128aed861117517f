"""A finished run's model, pushed to the Hugging Face hub. The access token comes from the environment alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi

from preflab.records import UserError
from preflab.rundir import read_json, utc_now, write_json

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
    if record.exists() and read_json(record)["repository"] == repository:
        return
    api = HfApi(token=_token(repository))
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=model, commit_message=commit_message(metrics))
    except Exception as error:  # the hub's client raises what its HTTP library does, and that has changed before
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"the run is finished and its model lies in {model}, but it could not be pushed to {repository}: {reason}\n"
            "The same command tries again, and trains nothing anew"
        ) from error
    write_json(record, {"repository": repository, "commit": str(commit.oid), "time": utc_now()})


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
