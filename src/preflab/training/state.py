"""Weights, optimizer, schedule and random states in files that hold numbers and nothing else.

No pickle is written, and none is read: a folder that somebody else sent cannot run code.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from preflab.core.records import UserError
from preflab.core.rundir import read_json, write_json

WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
SCHEDULE = "schedule.json"
NOT_IN_SCHEDULE = {"lr_lambdas"}
"""Functions, which follow from the settings."""


@dataclass(frozen=True)
class Trainable:
    """What training changes. The module is as Accelerate prepared it."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler


def write_state(accelerator: Accelerator, trainable: Trainable, folder: Path) -> None:
    """Write all that is trained of the weights, the optimizer and the schedule (the main process), and this process's
    random states.
    """
    if accelerator.is_main_process:
        save_file(_flat(_weights(accelerator, trainable.module)), folder / WEIGHTS, {"format": "pt"})
        state = trainable.optimizer.state_dict()["state"]
        moments = {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}
        save_file(_flat(moments), folder / OPTIMIZER)
        rates = [group["lr"] for group in trainable.optimizer.param_groups]
        schedule = {
            name: value for name, value in trainable.scheduler.state_dict().items() if name not in NOT_IN_SCHEDULE
        }
        write_json(folder / SCHEDULE, {"learning_rates": rates, "scheduler": schedule})
    write_json(random_states_file(folder, accelerator.process_index), _random_states(accelerator.device))


def read_state(accelerator: Accelerator, trainable: Trainable, folder: Path) -> None:
    """Put back what `write_state` wrote. Raises UserError, or any error of those who read, where that cannot be."""
    weights = _weights(accelerator, trainable.module)
    _check_shapes(folder / WEIGHTS, stored := load_file(folder / WEIGHTS), weights)
    optimizer = trainable.optimizer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in load_file(folder / OPTIMIZER).items():
        index, _, kind = name.partition(".")
        if kind != "step" and value.shape != parameters[int(index)].shape:
            raise UserError(f"{folder / OPTIMIZER}: {name} has the shape {tuple(value.shape)}, which is no parameter's")
        moments.setdefault(int(index), {})[kind] = value
    schedule = read_json(folder / SCHEDULE)
    states = _parsed_states(read_json(random_states_file(folder, accelerator.process_index)))
    # Nothing is changed before all of it was read.
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(stored[name])
    current = optimizer.state_dict()
    for group, rate in zip(current["param_groups"], schedule["learning_rates"], strict=True):
        group["lr"] = float(rate)
    optimizer.load_state_dict({**current, "state": moments})
    trainable.scheduler.load_state_dict({**trainable.scheduler.state_dict(), **schedule["scheduler"]})
    _set_random_states(states, accelerator.device)


def random_states_file(folder: Path, process: int) -> Path:
    return folder / f"random_states_{process}.json"


def _weights(accelerator: Accelerator, module: nn.Module) -> dict[str, nn.Parameter]:
    """A frozen base model is left out: its weights are in the model already."""
    inner = accelerator.unwrap_model(module)
    return {name: parameter for name, parameter in inner.named_parameters() if parameter.requires_grad}


def _flat(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _check_shapes(path: Path, stored: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    if names := stored.keys() ^ weights.keys():
        raise UserError(f"{path}: is not of this model: only one of them has {min(names)}")
    for name, tensor in stored.items():
        if (tensor.shape, tensor.dtype) != (weights[name].shape, weights[name].dtype):
            raise UserError(
                f"{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, in the model {tuple(weights[name].shape)} "
                f"{weights[name].dtype}"
            )


# ---- random states -------------------------------------------------------------------------------------------------


def _random_states(device: torch.device) -> dict[str, Any]:
    """Of Python, NumPy, torch and the device, as JSON has it."""
    _, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [np.asarray(keys).tolist(), place, has_gauss, gauss],
        "torch": _hex(torch.get_rng_state()),
    }
    if device.type != "cpu":
        module = torch.get_device_module(device.type)
        states[device.type] = _hex(module.get_rng_state() if device.type == "mps" else module.get_rng_state(device))
    return states


def _parsed_states(states: Any) -> dict[str, Any]:
    version, numbers, gauss = states["python"]
    keys, place, has_gauss, normal = states["numpy"]
    others = {name: _bytes(text) for name, text in states.items() if name not in ("python", "numpy")}
    return {
        "python": (version, tuple(numbers), gauss),
        "numpy": ("MT19937", np.array(keys, np.uint32), int(place), int(has_gauss), float(normal)),
        **others,
    }


def _set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if device.type in states:
        module = torch.get_device_module(device.type)
        given = (states[device.type],) if device.type == "mps" else (states[device.type], device)
        module.set_rng_state(*given)


def _hex(state: Tensor) -> str:
    return bytes(state.cpu().tolist()).hex()


def _bytes(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
