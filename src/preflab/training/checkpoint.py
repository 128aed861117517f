"""Checkpoints: all that a run needs to go on as if it had never stopped.

Each appears whole or not at all, with the SHA-256 of its files; one that is not as it was written is passed over. The
newest and the best are kept. Where weights are sharded (FSDP, DeepSpeed), Accelerate writes and reads them in its own
way, which can run code: such checkpoints are signed, and only those that this user's preflab wrote are read.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from preflab.core.durable import check_files, digests, put_in_place
from preflab.core.records import UserError
from preflab.core.rundir import default_cache_dir, differences, fingerprint, read_json, to_json, write_json
from preflab.core.terminal import say
from preflab.training.state import Trainable, read_state, write_state

STATE = "state.json"
FORMAT = 2
"""Of `state.json`. The first format, of preflab 0.1, held pickles, and is not read any more."""


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

    def __init__(
        self, folder: Path, accelerator: Accelerator, trainable: Trainable, *, keep: int, plan: Mapping[str, object]
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.plan = plan
        self._accelerator = accelerator
        self._trainable = trainable
        self._sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        if self._sharded:
            accelerator.register_for_checkpointing(trainable.scheduler)

    def latest(self) -> Path | None:
        """The newest checkpoint that is as it was written; of those passed over, the person is told.

        Raises UserError where there are checkpoints, and none that can be gone on with.
        """
        found: list[str | None] = [None, None]
        if self._accelerator.is_main_process:
            found = list(self._newest_good())
        # All processes go the same way.
        if self._accelerator.num_processes > 1:
            broadcast_object_list(found)
        path, trouble = found
        if trouble:
            raise UserError(trouble)
        return Path(path) if path else None

    def describe_latest(self) -> str:
        """A sentence for messages on why a run stopped."""
        if not (found := self._all()):
            return "There is no checkpoint yet"
        return f"The last good checkpoint is {found[-1]}"

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
        with self._told_if_full(unfinished):
            if self._sharded:
                self._accelerator.save_state(str(unfinished), safe_serialization=True)
            else:
                write_state(self._accelerator, self._trainable, unfinished)
            self._accelerator.wait_for_everyone()
            if main:
                write_json(unfinished / STATE, self._described(progress, unfinished))
                put_in_place(unfinished, target)
                self._remove_old(progress)
        self._accelerator.wait_for_everyone()
        return target

    def load(self, checkpoint: Path) -> Progress:
        """Put weights, optimizer, schedule and random states back.

        Raises UserError where the checkpoint cannot be read, or was made under another plan.
        """
        with _readable(checkpoint):
            state = _read_state_file(checkpoint)
            check_files(checkpoint, state["files"])  # the best one may be older than the newest, which was looked at
        if found := differences(state["plan"], dict(self.plan)):
            raise UserError(
                f"{checkpoint}: was made under another plan, in which steps hold other rows or round differently: "
                f"{'; '.join(found)}. Go on with as many processes and on such a device as there, or overwrite the run"
            )
        if found := differences(state["machine"], self._machine()):
            say(
                f"going on from {checkpoint.name} on what is not the same machine ({'; '.join(found)}): results can "
                "differ in their last digits from those of a run that was never stopped"
            )
        with _readable(checkpoint):
            if self._sharded:
                self._check_signature(state)
                # Frozen weights are not in the file: they are in the model already. (DeepSpeed knows no such option.)
                deepspeed = self._accelerator.distributed_type == DistributedType.DEEPSPEED
                self._accelerator.load_state(str(checkpoint), **({} if deepspeed else {"strict": False}))
            else:
                read_state(self._accelerator, self._trainable, checkpoint)
        return Progress(**state["progress"])

    def _newest_good(self) -> tuple[str | None, str | None]:
        """A path to go on from, or what to say where there is none to be trusted."""
        reasons = []
        for path in reversed(self._all()):
            try:
                check_files(path, _read_state_file(path)["files"])
            except UserError as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                say(f"{reason}; training goes on from the checkpoint before it, {path.name}")
            return str(path), None
        if not reasons:
            return None, None
        advice = f"remove {self.folder} to train from the beginning"
        return None, f"{reasons[0]}. There is no other checkpoint to go on from; {advice}"

    def _described(self, progress: Progress, folder: Path) -> dict[str, Any]:
        said = {
            "format": FORMAT,
            "progress": asdict(progress),
            "plan": dict(self.plan),
            "machine": self._machine(),
            "files": digests(folder),
        }
        return {**said, "digest": fingerprint(said), **({"signature": _signature(said)} if self._sharded else {})}

    def _machine(self) -> dict[str, object]:
        """What decides in which order sums are taken, and so their last digits."""
        device = self._accelerator.device
        if device.type == "cpu":
            facts: dict[str, object] = {
                "threads": torch.get_num_threads(),
                "kernels": torch.backends.cpu.get_cpu_capability(),
            }
        else:
            named = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
            facts = {"device": named}
        return {"torch": torch.__version__, **facts, "processes": int(self._accelerator.num_processes)}

    def _check_signature(self, state: Mapping[str, Any]) -> None:
        said = {name: value for name, value in state.items() if name not in ("digest", "signature")}
        if not hmac.compare_digest(str(state.get("signature")), _signature(said)):
            raise UserError(
                "a checkpoint of sharded training is read only where it was written by you (reading somebody else's "
                "could run their code), and it does not bear the signature of your key in "
                f"{_key_file()}; go on with the cache folder that the run had, or overwrite the run"
            )

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if (path / STATE).is_file())

    def _remove_old(self, progress: Progress) -> None:
        for old in self._all()[: -self.keep]:
            if progress.best_step is None or old != self.of_step(progress.best_step):
                old.rename(self.folder / f".{old.name}.tmp")  # a kill must not leave half a checkpoint that looks whole
        for unfinished in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)

    @contextmanager
    def _told_if_full(self, unfinished: Path) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError, SafetensorError) as error:
            # torch and safetensors report a full disk as errors of their own.
            shutil.rmtree(unfinished, ignore_errors=True)
            raise UserError(
                f"could not write a checkpoint to {self.folder} ({str(error).splitlines()[0]}); is the disk full? "
                f"{self.describe_latest()}. Once there is room, the same command goes on"
            ) from error


def _read_state_file(checkpoint: Path) -> dict[str, Any]:
    """What `state.json` says, checked. Raises UserError where it is not what was written."""
    path = checkpoint / STATE
    state = read_json(path)
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(
            f"{path}: was written by preflab 0.1, whose checkpoints hold pickles, or by something else; finish the run "
            "with the preflab that began it, or overwrite the run"
        )
    if state["format"] != FORMAT:
        raise UserError(f"{path}: has format {state['format']!r}, and this preflab reads {FORMAT}")
    said = {name: value for name, value in state.items() if name not in ("digest", "signature")}
    if state.get("digest") != fingerprint(said):
        raise UserError(f"{path}: is not as it was written (its digest is another one), so it is damaged")
    if not _is_state(said) or said["progress"]["step"] != int(checkpoint.name.partition("-")[2]):
        raise UserError(f"{path}: does not describe the state of training at {checkpoint.name}")
    return state


def _is_state(said: Mapping[str, Any]) -> bool:
    progress, others = said.get("progress"), [said.get(name) for name in ("plan", "machine", "files")]
    if not isinstance(progress, dict) or not all(isinstance(other, dict) for other in others):
        return False
    whole = [progress.get(name) for name in ("step", "tokens", "evaluations_since_best")]
    best, value = progress.get("best_step"), progress.get("best_value")
    known = progress.keys() == asdict(Progress()).keys()
    counts = all(type(number) is int and number >= 0 for number in whole)
    return known and counts and type(best) in (int, type(None)) and isinstance(value, (int, float, type(None)))


@contextmanager
def _readable(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"the checkpoint {checkpoint} cannot be read: {error}") from error
    except Exception as error:  # half a file can be anything to those who read it
        raise UserError(
            f"the checkpoint {checkpoint} cannot be read ({error!r}); remove that folder to go on from the one "
            "before it"
        ) from error


# ---- signatures of sharded checkpoints -----------------------------------------------------------------------------


def _key_file() -> Path:
    return default_cache_dir() / "checkpoints.key"


def _signature(said: Mapping[str, Any]) -> str:
    """By a key that only this user can read; made when it is first needed."""
    path = _key_file()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, whole = mkstemp(dir=path.parent)  # for this user only
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(whole, path)
        except FileExistsError:  # another run was first, and its key holds for both
            pass
        except OSError:  # a file system without links
            Path(whole).replace(path)
        Path(whole).unlink(missing_ok=True)
    text = json.dumps(json.loads(to_json(said)), sort_keys=True)
    return hmac.new(path.read_bytes(), text.encode(), "sha256").hexdigest()
