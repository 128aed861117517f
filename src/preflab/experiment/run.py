"""An experiment from its file to its report: every stage in its turn, as far as it is not done."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflab.core.config import resolved
from preflab.core.discard import discard, discard_damaged, is_damaged
from preflab.core.file_format import with_format
from preflab.core.output import alone_with
from preflab.core.records import DisagreementError, UserError
from preflab.core.redaction import redact
from preflab.core.results import Result
from preflab.core.rundir import fingerprint, read_json, write_json, write_manifest
from preflab.core.terminal import say
from preflab.core.yaml_files import dump_yaml
from preflab.experiment.inputs import KnownFiles, Standing, State, inputs_of, made_by, several, standing
from preflab.experiment.outlook import Outlook, look_ahead, short
from preflab.experiment.plan import Plan, PlannedStage, read_plan
from preflab.experiment.settings import RunSettings
from preflab.stats.wording import heading


@dataclass(frozen=True, repr=False)
class RunResult(Result):
    """An experiment all of whose stages are done; `ran` are those that this run did."""

    report: Path
    stages: int
    ran: tuple[str, ...]

    def __str__(self) -> str:
        before = self.stages - len(self.ran)
        return f"{self.stages} stages: {len(self.ran)} done now, {before} before\nreport: {self.report}"


def run_experiment(settings: RunSettings) -> RunResult | Outlook:
    """Run what is not done of an experiment, and write its report.

    Beside the stages' folders there lie experiment.json (what the report tells), experiment.yaml (the file with all
    overrides, to run again), manifest.json, and inputs.json (what each stage was made from).

    Raises UserError before anything runs, where the file is wrong or stages were made from other inputs (with
    `overwrite` these are made anew); at the end, where stages failed: what follows them waits, and the same command
    tries them again.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "an experiment is run by one process: start `preflab run` without a launcher. A training that needs "
            "several can be run by itself, with its stage's folder as output_dir; its stage then finds its work done"
        )
    plan = read_plan(settings.experiment, settings.assignments)
    if settings.dry_run:
        head = heading(plan.title, plan.name, settings.assignments)
        return look_ahead(head, plan, _Ledger(plan).standings(), measure=settings.measure)
    with alone_with(plan.output_dir / "experiment.json"):
        return _run(plan, settings)


def _run(plan: Plan, settings: RunSettings) -> RunResult:
    ledger = _Ledger(plan)
    standings = ledger.standings()
    if not settings.overwrite:
        _refuse_changed(plan, standings)
    harmed = {
        stage.name for stage in plan.stages if settings.overwrite and _is_study(stage) and discard_damaged(stage.folder)
    }
    done = {name for name, found in standings.items() if found.state == "done"} - harmed
    progress = _Progress(plan, done)
    report = plan.output_dir / "report.html"
    if not progress.waiting() and progress.is_told() and _is_newer(report, progress.path):
        return RunResult(report, len(plan.stages), ())
    _describe(plan, settings)
    progress.write()
    with _memory_released(progress.waiting()) as release:
        for stage in plan.stages:
            found = ledger.standing(stage)  # anew: what it follows may have been made anew just now
            if found.state == "done" and stage.name not in harmed:
                continue
            if blocked := [name for name in stage.after if progress.status[name] in ("failed", "waiting")]:
                progress.note(stage, "waiting", reason=f"needs {several(blocked)}, which is not done")
                continue
            if found.state == "changed" and not settings.overwrite:
                progress.note(stage, "failed", reason=f"{'; '.join(found.lines)}; --overwrite makes it anew")
                continue
            # A training whose model is gone would call itself finished; a study gathers again what it has.
            if found.state == "changed" or (settings.overwrite and not _is_study(stage) and _is_harmed(stage, found)):
                discard(stage.folder)
            ledger.begin(stage, found.state)
            _run_stage(stage, progress, ledger)
            release()
    return _report(plan, progress)


def _is_study(stage: PlannedStage) -> bool:
    return bool(stage.kind.head)


def _is_harmed(stage: PlannedStage, found: Standing) -> bool:
    """Whether what a stage has made is gone, or is not as it was made, while the stage's folder calls it finished."""
    if found.state == "unfinished" and stage.folder.exists():
        return is_damaged(stage.folder, stage.folder / stage.kind.product_of(stage.settings))
    return found.state == "gone"


def _report(plan: Plan, progress: _Progress) -> RunResult:
    """Write the report; say what failed, and which figures on disk contradict their own rows."""
    from preflab.experiment.report import report_experiment  # here, because it takes seconds to load

    report = plan.output_dir / "report.html"
    try:
        report_experiment(plan.output_dir)
    except DisagreementError as error:
        progress.disagreement = error
        progress.write()  # so that the next run says it again
    progress.raise_failures(report)
    return RunResult(report, len(plan.stages), tuple(progress.ran))


def _is_newer(path: Path, other: Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def _refuse_changed(plan: Plan, standings: Mapping[str, Standing]) -> None:
    """Raise UserError where stages were made from other inputs, which names those that others merely follow as few."""
    changed = {name: found for name, found in standings.items() if found.state == "changed"}
    following = [name for name, found in changed.items() if not found.own and changed.keys() & set(found.followed)]
    reasons = {name: "\n".join(found.lines) for name, found in changed.items() if name not in following}
    if changed:
        follow = [f"  and {several(following)}, which follow" + ("s" if len(following) == 1 else "")]
        listed = "\n".join([*_by_reason(reasons), *(follow if following else [])])
        raise UserError(
            f"{plan.output_dir}: {len(changed)} stages were made from other inputs:\n{listed}\n"
            "nothing was run. Choose another output_dir, restore these inputs, or --overwrite: it discards these "
            "stages, runs them anew, and keeps all others"
        )


def _by_reason(reasons: Mapping[str, str]) -> list[str]:
    """A paragraph for each reason, with the stages that have it in front."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [
        f"  {several(group)}: " + "\n    ".join(short(line) for line in reason.splitlines())
        for reason, group in names.items()
    ]


def _describe(plan: Plan, settings: RunSettings) -> None:
    """Write down what is run, so that it can be run again."""
    dump_yaml(redact(dict(plan.document)), plan.output_dir / "experiment.yaml")
    seed = next((stage.settings.seed for stage in plan.stages if hasattr(stage.settings, "seed")), 0)
    write_manifest(plan.output_dir, command="run", settings=resolved(settings), seed=seed, data={})


def _run_stage(stage: PlannedStage, progress: _Progress, ledger: _Ledger) -> None:
    progress.note(stage, "running")
    started = time.monotonic()
    try:
        result = stage.kind.function()(stage.settings)
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        progress.note(stage, "failed", seconds=time.monotonic() - started, reason=reason)
    else:
        ledger.end(stage)
        progress.note(stage, "done", seconds=time.monotonic() - started)
        say(str(result))


@contextmanager
def _memory_released(stages: Sequence[PlannedStage]) -> Iterator[Callable[[], None]]:
    """Gives what to call after a stage: it lets go of the models that the stage loaded, which are parts of cycles.

    Modules stay for good. They are loaded before the first stage and left out then: to go through their million objects
    takes a quarter of a second each time.
    """

    def release() -> None:
        gc.collect()
        if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
            torch.cuda.empty_cache()

    for stage in stages:
        stage.kind.function()
    gc.collect()
    gc.freeze()
    try:
        yield release
    finally:
        gc.unfreeze()


# ---- what is kept on disk ------------------------------------------------------------------------------------------


class _Ledger:
    """inputs.json: of each stage what it was made from, whether it ended, and the digest of what it made; and the
    digests of files read on the way.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.path = plan, plan.output_dir / "inputs.json"
        found = _read_ledger(self.path) if self.path.exists() else {"stages": {}, "files": {}}
        self.stages: dict[str, dict[str, Any]] = found["stages"]
        self.files: KnownFiles = found["files"]
        self.now = inputs_of(plan, self.files)
        self.made = {stage.name: made_by(stage, self.files) for stage in plan.stages}

    def standings(self) -> dict[str, Standing]:
        return {stage.name: self.standing(stage) for stage in self.plan.stages}

    def standing(self, stage: PlannedStage) -> Standing:
        return standing(stage, self.now[stage.name], self.stages.get(stage.name), self.made)

    def begin(self, stage: PlannedStage, state: State) -> None:
        """Take note before the first file is written. What is gone on with keeps its inputs until it ends."""
        record = self._record(stage) if state in ("new", "changed") else self.stages[stage.name]
        self._keep(stage, {**record, "done": False})

    def end(self, stage: PlannedStage) -> None:
        self.made[stage.name] = made = made_by(stage, self.files)
        self._keep(stage, {**self._record(stage), "made": made, "done": True})

    def _record(self, stage: PlannedStage) -> dict[str, Any]:
        return {"inputs": self.now[stage.name], "from": {name: self.made[name] for name in stage.after}}

    def _keep(self, stage: PlannedStage, record: dict[str, Any]) -> None:
        self.stages[stage.name] = record
        kept = {"stages": self.stages, "files": self.files}
        write_json(self.path, {**kept, "digest": fingerprint(kept)})


def _read_ledger(path: Path) -> dict[str, Any]:
    """What inputs.json says. Raises UserError where it is not as it was written."""
    found = read_json(path)
    kept = {name: found.get(name) for name in ("stages", "files")} if isinstance(found, dict) else {}
    if not kept or found.get("digest") != fingerprint(kept):
        raise UserError(
            f"{path}: is not as it was written, so it is damaged; remove it, and the stages find by their own folders "
            "what is done"
        )
    return kept


def _told_before(path: Path) -> dict[str, Any]:
    """What an earlier run has written for its report; nothing where it is damaged, for it is written anew."""
    with suppress(UserError, KeyError, TypeError):
        found: dict[str, Any] = read_json(path)
        entries = {entry["name"]: entry["seconds"] for entry in found["stages"]}
        if all(isinstance(took, (int, float, type(None))) for took in entries.values()):
            return found
    return {"stages": []}


class _Progress:
    """experiment.json, rewritten whenever something of it changes; it is what the report reads."""

    def __init__(self, plan: Plan, done: set[str]) -> None:
        self.plan, self.path = plan, plan.output_dir / "experiment.json"
        self.before = _told_before(self.path)
        took = {entry["name"]: entry["seconds"] for entry in self.before["stages"]}
        self.status = {stage.name: "skipped" if stage.name in done else "waiting" for stage in plan.stages}
        self.seconds: dict[str, float | None] = {name: took.get(name) for name in done}
        self.reasons: dict[str, str] = {}
        self.disagreement: DisagreementError | None = None
        self.ran: list[str] = []

    def waiting(self) -> list[PlannedStage]:
        return [stage for stage in self.plan.stages if self.status[stage.name] == "waiting"]

    def is_told(self) -> bool:
        """Whether the file tells of this very plan, but for when its stages were run, and of no contradiction."""
        told, now = ([{**e, "status": 0, "seconds": 0} for e in text["stages"]] for text in (self.before, self._text()))
        head = all(self.before.get(name) == self._text()[name] for name in ("title", "description"))
        return head and told == now and "disagreement" not in self.before

    def note(self, stage: PlannedStage, status: str, *, seconds: float | None = None, reason: str = "") -> None:
        """Write down, and say, how a stage is getting on."""
        self.status[stage.name], self.seconds[stage.name] = status, seconds
        if reason:
            self.reasons[stage.name] = reason
        self.ran += [stage.name] if status == "done" else []
        self.write()
        place = f"[{self.plan.stages.index(stage) + 1}/{len(self.plan.stages)}] {stage.name}"
        took = "" if seconds is None else f" after {seconds:.0f} s"
        say(f"{place} ({stage.command}): {status}{took}" + (f": {reason}" if reason else ""))

    def write(self) -> None:
        write_json(self.path, with_format(self._text()))

    def _text(self) -> dict[str, Any]:
        plan = self.plan
        head = {"name": plan.name, "title": plan.title, "description": plan.description}
        if self.disagreement:
            head["disagreement"] = str(self.disagreement)
        return {**head, "stages": [self._entry(stage) for stage in plan.stages]}

    def _entry(self, stage: PlannedStage) -> dict[str, Any]:
        return {
            "name": stage.name,
            "group": stage.group,
            "command": stage.command,
            "folder": str(stage.folder.relative_to(self.plan.output_dir)),
            "variant": dict(stage.variant),
            "after": list(stage.after),
            "status": self.status[stage.name],
            "seconds": self.seconds.get(stage.name),
            "reason": self.reasons.get(stage.name),
        }

    def raise_failures(self, report: Path) -> None:
        """Raise UserError where stages failed, DisagreementError where stored figures contradict their own rows."""
        failed = {name: self.reasons[name] for name, status in self.status.items() if status == "failed"}
        lines = [str(self.disagreement)] if self.disagreement else []
        if failed:
            waiting = sum(status == "waiting" for status in self.status.values())
            lines += [
                f"{len(failed)} of {len(self.status)} stages failed, and {waiting} wait for them:",
                *_by_reason(failed),
                f"what is done is kept, and the same command goes on; report of the others: {report}",
            ]
        if self.disagreement:
            raise DisagreementError("\n".join(lines), shown=self.disagreement.shown) from self.disagreement
        if lines:
            raise UserError("\n".join(lines))
