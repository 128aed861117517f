"""Checkpoints: all that a run needs to go on as if it had never stopped.

Accelerate writes weights, optimizer, schedule and random states (in its own way under FSDP and DeepSpeed); this module
makes each checkpoint appear whole or not at all, keeps only what is trained of the weights, and keeps the newest and
the best.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator, DistributedType
from safetensors import SafetensorError
from torch import nn

from preflab.records import UserError
from preflab.rundir import differences, read_json, write_json

STATE = "state.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: optimizer steps taken, tokens trained on, and the best evaluation so far."""

    step: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_value: float | None = None
    evaluations_since_best: int = 0

    def evaluated(self, value: float, *, greater_is_better: bool) -> Progress:
        """After an evaluation at this step with `value` of the metric that counts."""
        best = self.best_value
        if not math.isnan(value) and (best is None or (value > best if greater_is_better else value < best)):
            return replace(self, best_step=self.step, best_value=value, evaluations_since_best=0)
        return replace(self, evaluations_since_best=self.evaluations_since_best + 1)


class Checkpoints:
    """The checkpoints of one run, `step-00000100` and so on in a folder.

    `plan` is what the meaning of a step depends on besides settings and data; a run with another one cannot go on.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, *, keep: int, plan: Mapping[str, object]) -> None:
        self.folder = folder
        self.keep = keep
        self.plan = plan
        self._accelerator = accelerator
        accelerator.register_save_state_pre_hook(_keep_trained_weights)

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        found = self._all()
        return found[-1] if found else None

    def describe_latest(self) -> str:
        """A sentence for messages on why a run stopped."""
        latest = self.latest()
        if not latest:
            return "There is no checkpoint yet"
        return f"The last good checkpoint is {latest}"

    def of_step(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def save(self, progress: Progress) -> Path:
        """Write a checkpoint of the prepared model, optimizer and schedule, then remove those that are no longer
        wanted.
        """
        target = self.of_step(progress.step)
        unfinished = self.folder / f".{target.name}.tmp"
        main = self._accelerator.is_main_process
        if main:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self._accelerator.wait_for_everyone()
        try:
            self._accelerator.save_state(str(unfinished), safe_serialization=True)
        except (RuntimeError, OSError, SafetensorError) as error:
            # torch and safetensors report a full disk as errors of their own.
            shutil.rmtree(unfinished, ignore_errors=True)
            raise UserError(
                f"could not write a checkpoint to {self.folder} ({str(error).splitlines()[0]}); is the disk full? "
                f"{self.describe_latest()}. Once there is room, the same command goes on"
            ) from error
        self._accelerator.wait_for_everyone()
        if main:
            write_json(unfinished / STATE, {"progress": asdict(progress), "plan": self.plan})
            shutil.rmtree(target, ignore_errors=True)
            unfinished.rename(target)
            self._remove_old(progress)
        self._accelerator.wait_for_everyone()
        return target

    def load(self, checkpoint: Path) -> Progress:
        """Put weights, optimizer, schedule and random states back.

        Raises UserError where the checkpoint cannot be read, or was made under another plan.
        """
        with _readable(checkpoint):
            state = read_json(checkpoint / STATE)
            progress, plan = Progress(**state["progress"]), dict(state["plan"])
        if found := differences(plan, self.plan):
            raise UserError(
                f"{checkpoint}: was made under another plan, in which steps hold other rows or round differently: "
                f"{'; '.join(found)}. Go on with as many processes and on such a device as there, or overwrite the run"
            )
        with _readable(checkpoint):
            # Frozen weights are not in the file: they are in the model already. (DeepSpeed knows no such option.)
            deepspeed = self._accelerator.distributed_type == DistributedType.DEEPSPEED
            self._accelerator.load_state(str(checkpoint), **({} if deepspeed else {"strict": False}))
        return progress

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if (path / STATE).is_file())

    def _remove_old(self, progress: Progress) -> None:
        for old in self._all()[: -self.keep]:
            if progress.best_step is None or old != self.of_step(progress.best_step):
                old.rename(self.folder / f".{old.name}.tmp")  # a kill must not leave half a checkpoint that looks whole
        for unfinished in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _readable(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # half a file can be anything to those who read it
        raise UserError(
            f"the checkpoint {checkpoint} cannot be read ({error!r}); remove that folder to go on from the one "
            "before it"
        ) from error


def _keep_trained_weights(models: list[nn.Module], weights: list[dict[str, Any]], _folder: str) -> None:
    """Leave a frozen base model out of the checkpoint. (Under FSDP the list is empty: its checkpoints are written by
    then.)
    """
    for model, state in zip(models, weights, strict=False):
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name in [name for name in state if name not in trained]:
            del state[name]
