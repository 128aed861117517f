"""The course of a training run from its first step, or its last checkpoint, to its last step: the same for every
objective.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import get_scheduler

from preflab.core.config import resolved
from preflab.core.failures import is_out_of_memory
from preflab.core.records import UserError
from preflab.data.batches import Indices, Plan, Step, plan_evaluation, plan_training, tenth
from preflab.training.checkpoint import Checkpoints, Progress
from preflab.training.journal import Journal
from preflab.training.loop import NotFiniteError, StepReport, precision_in_use, response_values, train
from preflab.training.push import Publish
from preflab.training.rows import RankedRows
from preflab.training.settings import MOST_STEPS, TrainSettings
from preflab.training.state import Trainable
from preflab.training.steps import Responses, StepFn, Totals, add_totals, means

Statistics = Callable[[nn.Module, RankedRows, Indices], Mapping[str, Tensor]]
"""What a step function needs to know of all rows of a step at once, found with the module as prepared."""

MORE_IS_BETTER = ("accuracy", "accuracies", "margin", "margins", "chosen")
"""Last words of the metrics of which more is better; of the others, less is."""


@dataclass(frozen=True)
class Trained:
    """A module as Accelerate prepared it, with the weights of optimizer step `step`."""

    module: nn.Module
    step: int


Fit = Callable[..., Trained]
"""What trains a module: `fit`, or what takes its place, with the same arguments."""


def fit(
    accelerator: Accelerator,
    module: nn.Module,
    training: RankedRows,
    held_out: RankedRows | None,
    step_fn: StepFn,
    settings: TrainSettings,
    *,
    name: str,
    statistics: Statistics = lambda *_: {},
    on_start: Callable[[nn.Module], None] | None = None,
    on_evaluation: Callable[[int, NDArray[np.float64]], None] | None = None,
    publish: Publish | None = None,
) -> Trained:
    """Train `module` in place; what happened lies in the output folder's metrics.

    `on_start` is given the module as prepared for its devices, with the weights that the run started from (also where
    it will go on from a checkpoint). `statistics` is asked for those of each step's rows and of all held-out rows, and
    `step_fn` is given them with the responses. `on_evaluation` is given the step and what the module said of every
    held-out response ([R]); its last call is with the final weights. `publish` is called after every evaluation but
    those before the first step and after the last.
    """
    _need_held_out_rows(settings, held_out)
    plan = plan_steps(training, settings, passes_of(settings, accelerator))
    total = len(plan.steps)
    optimizer = adamw(module, settings, accelerator.device)
    scheduler = get_scheduler(settings.lr_scheduler_type, optimizer, _warmup(settings, total), total)
    _tell_deepspeed(accelerator, settings)
    prepared, optimizer = accelerator.prepare(module, optimizer)
    checkpoints = _checkpoints(accelerator, Trainable(prepared, optimizer, scheduler), settings, total)
    latest = checkpoints.latest()
    if on_start:
        with _explaining(settings, checkpoints):
            on_start(prepared)
    progress = checkpoints.load(latest) if latest else Progress()
    _start_trackers(accelerator, settings)
    with Journal(settings.output_dir, accelerator, name=name, steps=total, first=progress.step) as journal:
        evaluate = _evaluator(accelerator, prepared, held_out, step_fn, statistics, settings, journal, on_evaluation)
        published = partial(publish, prepared) if publish else None
        course = _Course(settings, plan, journal, checkpoints, progress, evaluate, published)
        with _explaining(settings, checkpoints):
            course.begin()
            steps = train(
                accelerator,
                prepared,
                optimizer,
                scheduler,
                training,
                plan.steps,
                step_fn,
                max_grad_norm=settings.max_grad_norm,
                first=progress.step,
                statistics_of=partial(statistics, prepared, training),
            )
            while not course.out_of_patience() and (report := next(steps, None)):
                course.after(report)
            course.end()
    for tracker in accelerator.trackers:  # not `end_training`, after which processes could not wait for one another
        tracker.finish()
    return Trained(prepared, course.progress.step)


def _warmup(settings: TrainSettings, steps: int) -> int:
    """Steps with a rising learning rate."""
    given = settings.warmup_steps
    return math.ceil(settings.warmup_ratio * steps) if given is None else given


def evaluation_plan(rows: RankedRows, settings: TrainSettings) -> list[Indices]:
    size, tokens = settings.per_device_eval_batch_size, settings.max_tokens_per_batch
    return plan_evaluation(rows.lengths, batch_size=size, max_tokens=tokens)


def first_epoch(accelerator: Accelerator, rows: RankedRows, settings: TrainSettings) -> tuple[Step, ...]:
    """The optimizer steps in which training meets each row for the first time, the whole epoch of them: what a run that
    ends within it leaves out too.
    """
    whole = settings.model_copy(update={"num_train_epochs": 1.0, "max_steps": -1})
    return plan_steps(rows, whole, passes_of(settings, accelerator)).steps


def _need_held_out_rows(settings: TrainSettings, held_out: RankedRows | None) -> None:
    if held_out is None and (settings.load_best_model_at_end or settings.early_stopping_patience):
        raise UserError(
            "load_best_model_at_end and early_stopping_patience need held-out rows: give eval_data or train_split_ratio"
        )


def passes_of(settings: TrainSettings, accelerator: Accelerator) -> int:
    """Forward passes of an optimizer step, over all processes."""
    return settings.gradient_accumulation_steps * int(accelerator.num_processes)


def _checkpoints(accelerator: Accelerator, trainable: Trainable, settings: TrainSettings, steps: int) -> Checkpoints:
    plan = {
        "optimizer steps": steps,
        "gradient_accumulation_steps times processes": passes_of(settings, accelerator),
        "mixed_precision": accelerator.mixed_precision,
    }
    folder = settings.output_dir / "checkpoints"
    return Checkpoints(folder, accelerator, trainable, keep=settings.save_total_limit, plan=plan)


def plan_steps(rows: RankedRows, settings: TrainSettings, passes: int) -> Plan:
    return plan_training(
        rows.lengths,
        epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        batch_size=settings.per_device_train_batch_size,
        max_tokens=settings.max_tokens_per_batch,
        passes=passes,
        seed=settings.seed,
        most=MOST_STEPS,
    )


@dataclass
class _Course:
    """What happens between optimizer steps: lines of metrics, evaluations, checkpoints, and whether to stop."""

    settings: TrainSettings
    plan: Plan
    journal: Journal
    checkpoints: Checkpoints
    progress: Progress
    evaluate: Callable[[int], dict[str, float]] | None
    publish: Callable[[Mapping[str, float]], None] | None

    def __post_init__(self) -> None:
        self.pending: list[Totals] = []
        self.eval_steps = self.settings.eval_steps or tenth(len(self.plan.steps))

    def begin(self) -> None:
        """Evaluate before the first step: a yardstick, and every metric's name is known before hours are spent."""
        if self.evaluate and self.progress.step == 0:
            metrics = self.evaluate(self.progress.step)
            wanted = self.settings.metric_for_best_model
            if wanted not in metrics:
                raise UserError(f"metric_for_best_model: there is no {wanted!r}; evaluation gives {', '.join(metrics)}")
            self._write(metrics)

    def after(self, report: StepReport) -> None:
        """Take note of a step."""
        settings, last = self.settings, report.step == len(self.plan.steps)
        self.progress = replace(self.progress, step=report.step, tokens=self.progress.tokens + report.tokens)
        self.pending.append(report.totals)
        saving = not last and self._due(settings.save_strategy, settings.save_steps)
        evaluating = self.evaluate and (last or self._due(settings.eval_strategy, self.eval_steps))
        # A line wherever a checkpoint may be, so that a resumed run writes the lines of one that was never stopped.
        if report.step == 1 or last or saving or evaluating or report.step % settings.logging_steps == 0:
            rates = {"learning_rate": report.learning_rate, "grad_norm": report.grad_norm}
            self._write({**means(add_totals(self.pending)), **rates, "num_tokens": self.progress.tokens})
            self.pending = []
        if self.evaluate and evaluating:
            metrics = self.evaluate(self.progress.step)
            self._write(metrics)
            wanted = settings.metric_for_best_model
            self.progress = self.progress.evaluated(metrics[wanted], greater_is_better=_more_is_better(settings))
            if self.publish and not last:
                self.publish({"step": report.step, **metrics})
            saving = saving or (settings.load_best_model_at_end and self.progress.best_step == report.step)
        if saving:
            self.journal.sync()
            self.checkpoints.save(self.progress)
        self.journal.advance(report.step)

    def end(self) -> None:
        if self.settings.load_best_model_at_end and self.progress.best_step is not None:
            self.journal.say(f"keeping the best checkpoint, of step {self.progress.best_step}")
            last, self.progress = (
                self.progress.step,
                self.checkpoints.load(self.checkpoints.of_step(self.progress.best_step)),
            )
            if self.evaluate and self.progress.step != last:
                self.evaluate(self.progress.step)

    def _write(self, metrics: dict[str, float]) -> None:
        step = self.progress.step
        self.journal.write(step, {"epoch": self.plan.epoch(step), **metrics})

    def _due(self, strategy: str, steps: int) -> bool:
        step = self.progress.step
        return {"no": False, "steps": step % steps == 0, "epoch": step in self.plan.epoch_ends}[strategy]

    def out_of_patience(self) -> bool:
        """Whether to stop early: asked before each step, also before the first of a resumed run."""
        patience = self.settings.early_stopping_patience
        if not patience or self.progress.evaluations_since_best < patience:
            return False
        self.journal.say(f"stopped early: no evaluation since step {self.progress.best_step} was better than that one")
        return True


def _evaluator(
    accelerator: Accelerator,
    module: nn.Module,
    rows: RankedRows | None,
    step_fn: StepFn,
    statistics: Statistics,
    settings: TrainSettings,
    journal: Journal,
    on_evaluation: Callable[[int, NDArray[np.float64]], None] | None,
) -> Callable[[int], dict[str, float]] | None:
    """A function from a step to the metrics over all held-out rows at once, their names beginning with `eval_`."""
    if rows is None or settings.eval_strategy == "no":
        return None

    def evaluate(step: int) -> dict[str, float]:
        with journal.side_task("evaluation", len(rows.dataset)) as advance:
            values = response_values(accelerator, module, rows, evaluation_plan(rows, settings), advance=advance)
        found_of_all = statistics(module, rows, np.arange(len(rows.dataset)))
        precision = precision_in_use(accelerator, module)
        every = Responses(torch.from_numpy(values), rows.token_counts, rows.widths, rows.known, precision, found_of_all)
        totals = step_fn(every).totals
        found = {f"eval_{name}": value for name, value in means(totals).items()}
        _stop_unless_finite(found["eval_loss"], values, rows, step)
        if on_evaluation:
            on_evaluation(step, values)
        return found

    return evaluate


def _stop_unless_finite(loss: float, values: NDArray[np.float64], rows: RankedRows, step: int) -> None:
    """A model whose held-out loss is no number is of no use, and an earlier evaluation does not speak for it."""
    if math.isfinite(loss) and np.isfinite(values).all():
        return
    strange = np.unique(np.searchsorted(rows.offsets, np.flatnonzero(~np.isfinite(values)), side="right") - 1)
    numbers = ", ".join(str(rows.dataset.rows[index]) for index in strange[:8]) + ("…" if len(strange) > 8 else "")
    where = (
        f"the model gives no finite number for the responses of held-out row {numbers}"
        if len(strange)
        else ("the model's own values are finite, so it is the objective's loss that overflows")
    )
    raise NotFiniteError(
        f"step {step}: the loss of the evaluation is {loss}; {where}. A lower learning_rate, or bfloat16 or float32 "
        "instead of float16, is what usually helps"
    )


def _more_is_better(settings: TrainSettings) -> bool:
    if settings.greater_is_better is not None:
        return settings.greater_is_better
    return settings.metric_for_best_model.replace("/", "_").rsplit("_", 1)[-1] in MORE_IS_BETTER


def adamw(module: nn.Module, settings: TrainSettings, device: torch.device) -> torch.optim.Optimizer:
    """AdamW without decay on biases and norms. Fused: the other forms need temporary copies of all weights."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = device.type in ("cpu", "cuda")  # where the parameters will be, once they are prepared
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=fused)


def _tell_deepspeed(accelerator: Accelerator, settings: TrainSettings) -> None:
    """DeepSpeed wants a batch size to make its plans with, and there is no data loader that it could ask."""
    if plugin := getattr(accelerator.state, "deepspeed_plugin", None):
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = settings.per_device_train_batch_size


def _start_trackers(accelerator: Accelerator, settings: TrainSettings) -> None:
    """Under the project that the tracker's own variable names (WANDB_PROJECT, TRACKIO_PROJECT), as a run that is called
    like the output folder. TensorBoard's files lie in `tracking`.
    """
    config = {name: str(value) for name, value in resolved(settings).items()}
    names = [name for name in settings.report_to if name != "none"]
    project = next((value for name in names if (value := os.environ.get(f"{name.upper()}_PROJECT", "").strip())), None)
    online = [name for name in names if name != "tensorboard"]
    try:
        accelerator.init_trackers(
            (project or "preflab") if online else "tracking",
            config=config,
            init_kwargs={name: {"name": settings.output_dir.name} for name in online},
        )
    except Exception as error:  # a tracker raises what its HTTP library does, or errors of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"report_to: {', '.join(names)} could not be started: {reason}; mend that, or choose --report-to none"
        ) from error


@contextmanager
def _explaining(settings: TrainSettings, checkpoints: Checkpoints) -> Iterator[None]:
    """Say what to do about the ways in which training ends early."""
    try:
        yield
    except NotFiniteError as error:
        raise UserError(f"{error}. {checkpoints.describe_latest()}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory ({str(error).splitlines()[0] if str(error) else 'no details'}). What helps, from the "
            f"mildest: a smaller per_device_train_batch_size (now {settings.per_device_train_batch_size}) with as many "
            f"more gradient_accumulation_steps (now {settings.gradient_accumulation_steps}), a smaller "
            f"per_device_eval_batch_size (now {settings.per_device_eval_batch_size}) where evaluation or "
            "reference ran out, a smaller max_tokens_per_batch if one is set, a smaller max_length, "
            "gradient_checkpointing, lora. The longest rows come first: what the first steps survive, later ones very "
            "likely do too"
        ) from error
