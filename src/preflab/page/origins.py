"""The section that says which models, data and settings there were, as the runs themselves tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preflab.core.origins import AsRun, Origin, Run
from preflab.core.rundir import to_json
from preflab.page.cells import Cell, Table
from preflab.stats.study import Study
from preflab.stats.wording import NOTHING, listed

TITLE = "Models and data as run"
UNKNOWN = "not known"
LONGEST = 160  # characters of a path or a value
MOST_VALUES = 12  # of a list
_HEAD = (
    "Model",
    "Made by",
    "Started from",
    "Trained on",
    "Held out",
    "Settings that differ from the defaults",
)
_NOTE = (
    "Read off the runs’ own folders. What no run tells is “not known”; no description that came with a file is "
    "repeated here."
)


def as_run_tables(found: AsRun) -> tuple[Table, ...]:
    """Of a study: the prompts, then every model and every judge that is one, with the trainings that made it; nothing
    where an earlier version made the study.
    """
    rows = [row for name, origin in found.models.items() for row in _rows(name, origin)]
    rows += [row for name, origin in found.judges.items() if origin.runs for row in _rows(name, origin, "judge")]
    tables = [Table("Models", _HEAD, tuple(rows), _NOTE)] if rows else []
    if found.prompts:
        tables.insert(0, _prompts(found))
    return tuple(tables)


def overlap_remarks(study: Study) -> tuple[str, ...]:
    """Whose held-out figures are partly of what was trained on."""
    return tuple(
        f"{name}: {found['prompts']:,} of {found['held_out_prompts']:,} held-out prompts, and {found['rows']:,} of "
        f"{found['held_out_rows']:,} held-out rows, were trained on as well; held-out figures of this training say "
        "less about new prompts."
        for name, found in study.overlaps.items()
        if found.get("prompts") or found.get("rows")
    )


def runs_table(runs: Mapping[str, Run], *, folded: bool) -> Table | None:
    """Of an experiment: its trainings, by name of their stage; none where none of them tells."""
    rows = tuple(_row(Cell(name), run) for name, run in runs.items())
    return Table(TITLE, ("Stage", *_HEAD[1:]), rows, _NOTE, folded=folded) if rows else None


def _prompts(found: AsRun) -> Table:
    prompts = found.prompts
    asked = _count(prompts.get("asked"))
    if prompts.get("drawn"):
        asked += f", drawn with seed {_all(prompts.get('seed'))}"
    head = ("From", "Prompts", *(f"Also trained on: {name}" for name in (*found.models, *found.judges)))
    leaks = [_leak(origin) for origin in (*found.models.values(), *found.judges.values())]
    return Table("Prompts", head, ((Cell(_all(prompts.get("sources")) or UNKNOWN), Cell(asked), *leaks),))


def _leak(origin: Origin) -> Cell:
    if origin.leak is None:
        return Cell(UNKNOWN)
    leak = origin.leak
    unknown = f"of {leak.unknown} of its trainings the prompts are not known" if leak.unknown else ""
    return Cell(f"{leak.prompts:,} of {leak.of:,}", unknown or "not counting what the first model had read")


def _rows(name: str, origin: Origin, what: str = "") -> Iterator[tuple[Cell, ...]]:
    said = [what, f"sampled in {origin.dtype}" if origin.dtype else ""]
    first = Cell(name, " · ".join(filter(None, said)))
    if origin.kind in ("chosen", "rejected"):
        yield _short(first, f"the {origin.kind} responses of the prompts’ data")
    elif not origin.runs:
        by = (
            f"responses written by {_brief(origin.written_by)}"
            if origin.written_by
            else f"a file of responses; by whom is {UNKNOWN}"
        )
        yield _short(first, by if origin.kind == "file" else UNKNOWN, _brief(origin.source))
    for number, run in enumerate(origin.runs):
        yield _row(Cell(f"{name}, before that") if number else first, run)


def _short(name: Cell, made_by: str, place: str = "") -> tuple[Cell, ...]:
    return (name, Cell(made_by, place), *[Cell(NOTHING)] * (len(_HEAD) - 2))


def _row(name: Cell, run: Run) -> tuple[Cell, ...]:
    if run.command is None:
        commit = _part(run.told, "model").get("commit")
        place = f"{_brief(run.folder)}{f' at commit {commit}' if commit else ''}"
        return _short(name, f"{UNKNOWN}: no training of preflab lies beside it", place)
    steps = "" if run.step is None else f"{_count(run.step)} step{'s' * (run.step != 1)}"
    model, data = _part(run.told, "model"), _part(run.told, "data")
    dtype = f"weights in {model['dtype']}, arithmetic {_arithmetic(model)}" if model.get("dtype") else ""
    return (
        name,
        Cell(run.command, " · ".join(filter(None, (steps, dtype, _brief(run.folder))))),
        _start(run, model),
        _data(data.get("training")),
        _data(data["held_out"], otherwise="nothing") if "held_out" in data else Cell(UNKNOWN),
        Cell(_settings(run.told.get("settings"))),
    )


def _arithmetic(model: Mapping[str, Any]) -> str:
    found = str(model.get("arithmetic") or UNKNOWN)
    return "too" if found == "as the weights" else f"in {found}"


def _start(run: Run, model: Mapping[str, Any]) -> Cell:
    start = model.get("from") or run.start
    if not start:
        return Cell(UNKNOWN)
    if model.get("beside"):
        return Cell(_brief(start), "a local folder")
    asked = f"revision {model['revision']}" if model.get("revision") else ""
    commit = f"commit {model['commit']}" if model.get("commit") else f"commit {UNKNOWN}"
    return Cell(_brief(start), ", ".join(filter(None, (asked, commit))) if model else "")


def _data(found: Any, otherwise: str = UNKNOWN) -> Cell:
    """Sources, rows and prompts of them, and what was dropped of them."""
    if not isinstance(found, Mapping):
        return Cell(otherwise)
    split = found.get("split")
    source = _all(found.get("sources")) or (f"{split} of the training prompts" if split else UNKNOWN)
    parts = [f"{_count(found.get('rows'))} rows", f"{_count(found.get('prompts'))} prompts"]
    if dropped := _part(found, "dropped"):
        parts.append(f"dropped rows: {listed([f'{_count(count)} {reason}' for reason, count in dropped.items()])}")
    return Cell(source, " · ".join(parts))


def _settings(changed: Any) -> str:
    if not isinstance(changed, Mapping):
        return UNKNOWN
    return "\n".join(f"{name}: {_all(value)}" for name, value in changed.items()) or "none"


def _part(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, Mapping) else {}


def _count(value: object) -> str:
    return f"{value:,}" if type(value) is int else UNKNOWN


def _all(value: object) -> str:
    """A value in words; of a long list the first ones, and how many more there are."""
    if isinstance(value, (list, tuple)):
        more = [f"and {len(value) - MOST_VALUES} more"] if len(value) > MOST_VALUES else []
        return ", ".join([*map(_all, value[:MOST_VALUES]), *more])
    return "" if value is None else _brief(value if isinstance(value, str) else to_json(value))


def _brief(value: object) -> str:
    """A long text with its two ends."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
