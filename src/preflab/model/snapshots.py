"""A checkpoint of training as a model: its weights put into the model that the run ended with."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from preflab.core.durable import check_files
from preflab.core.records import UserError
from preflab.core.rundir import read_json
from preflab.model.responses import Model

WEIGHTS = "model.safetensors"


def final_model(checkpoint: str) -> str | None:
    """`runs/dpo/checkpoints/step-00000100` -> the model (or adapter) that the run saved; None for any other name.

    Raises UserError where the run has not saved one yet.
    """
    folder = Path(checkpoint)
    if not ((folder / "state.json").is_file() and folder.parent.name == "checkpoints"):
        return None
    run = folder.parent.parent
    for name in ("adapter", "model"):
        if (run / name / "config.json").is_file() or (run / name / "adapter_config.json").is_file():
            return str(run / name)
    raise UserError(f"{checkpoint}: the run has not ended, so it left no model to put this checkpoint's weights into")


def put_weights(model: Model, checkpoint: str) -> Model:
    """Overwrite a model's weights, or its adapter's, with those of a checkpoint."""
    path = Path(checkpoint) / WEIGHTS
    state = read_json(head) if (head := Path(checkpoint) / "state.json").exists() else {}
    if isinstance(state, dict) and isinstance(files := state.get("files"), dict) and WEIGHTS in files:
        check_files(Path(checkpoint), {WEIGHTS: files[WEIGHTS]})
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); checkpoints of sharded training hold no whole weights"
        ) from error
    # In training, the model stands in a module that gives a number per response.
    weights = {name.removeprefix("model."): tensor for name, tensor in stored.items()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    strange, missing = sorted(weights.keys() - model.state_dict().keys()), sorted(trained - weights.keys())
    if strange or missing:
        what = f"it has {strange[0]}, which the model has not" if strange else f"it lacks {missing[0]}"
        raise UserError(f"{path}: is not of this model; {what}")
    model.load_state_dict(weights, strict=False)  # of a frozen base model, a checkpoint has no weights
    return model


def snapshots_of(folder: Path) -> list[Path]:
    """The whole checkpoints in a run's `checkpoints` folder, in the order of their steps."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def step_of(checkpoint: str) -> int | None:
    """`…/step-00000100` -> 100; None where the name is no checkpoint's."""
    _, mark, step = Path(checkpoint).name.partition("step-")
    return int(step) if mark and step.isdigit() else None
