"""What a run tells while it trains: metrics.jsonl, trackers, and a progress bar with the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from accelerate import Accelerator

from preflab.core.durable import METRICS, read_metrics
from preflab.core.rundir import append_jsonl, sync, write_jsonl
from preflab.core.terminal import printable, progress_bar

SHOWN = ("loss", "accuracy", "rewards/accuracies", "eval_loss", "eval_accuracy", "eval_rewards/accuracies")


class Journal:
    """Lines of metrics, in the order of the steps. Reopened at a step, it forgets what was written after that step.

    Only the main process writes and shows anything.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, *, name: str, steps: int, first: int) -> None:
        self._path = folder / METRICS
        self._accelerator = accelerator
        self._main = accelerator.is_main_process
        if self._main and self._path.exists():
            write_jsonl(self._path, [row for row in read_metrics(folder) if first > 0 and row["step"] <= first])
        self._bar = progress_bar(disable=not self._main)
        self._task = self._bar.add_task(name, total=steps, completed=first, shown="")
        self._shown: dict[str, float] = {}

    def __enter__(self) -> Journal:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Add a line for this step, and tell the trackers."""
        if self._main:
            append_jsonl(self._path, [{"step": step, **metrics}])
        self._tell_trackers(step, metrics)
        self._shown |= {name: value for name, value in metrics.items() if name in SHOWN}
        self._bar.update(self._task, shown="  ".join(f"{name} {value:.3f}" for name, value in self._shown.items()))

    def _tell_trackers(self, step: int, metrics: dict[str, float]) -> None:
        """One that fails is told of and left alone from then on: it is not worth the training."""
        if not self._main:
            return
        for tracker in [*self._accelerator.trackers]:
            try:
                tracker.log(metrics, step=step)
            except Exception as error:  # whatever its own library raises
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                self.say(
                    f"warning: {tracker.name} failed at step {step} ({reason}), and is told nothing more; {METRICS} "
                    "goes on"
                )
                self._accelerator.trackers.remove(tracker)

    def sync(self) -> None:
        """Wait until all lines have reached the disk: no checkpoint may outlive the lines before it."""
        if self._main and self._path.exists():
            sync(self._path)

    @contextmanager
    def side_task(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """A second bar for work between steps; gives the function that moves it on."""
        task = self._bar.add_task(name, total=total, shown="")
        yield lambda count: self._bar.advance(task, count)
        self._bar.remove_task(task)

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        if self._main:
            self._bar.console.print(printable(text), markup=False, highlight=False)
