"""The notebooks: what is stored is what they show, and they run, also with another model, file or grid in their one
cell.

Each is run by one test only, because a run takes up to half a minute.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
import tiny_runs
from nbformat import NotebookNode
from tiny_models import tiny_model

import preflab
from preflab.core.rundir import read_json, read_jsonl, write_jsonl
from preflab.sandbox.tiny import build_tokenizer
from preflab.sandbox.world import World, preference_rows
from preflab.studies.grid.command import run_grid
from preflab.studies.grid.rows import read_grid
from preflab.studies.grid.settings import GridSettings

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = ("text_to_text_dpo", "reading_a_grid")
LARGEST = 600_000  # bytes

_spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
assert _spec is not None
assert _spec.loader is not None
execute: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)


def stored(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: NotebookNode) -> list[list[tuple[str, ...]]]:
    """Of each code cell, what kinds of outputs it shows."""
    return [
        [(output.output_type, *sorted(output.get("data", {}))) for output in execute.shown(cell.outputs)]
        for cell in code(notebook)
    ]


def with_settings(notebook: NotebookNode, **changed: Any) -> NotebookNode:
    """The notebook with other values in its one cell of settings."""
    (cell,) = (cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", ()))
    known = set(re.findall(r"\b[A-Z_]+\b(?=[^\n]* = )", cell.source))
    assert changed.keys() <= known, f"the settings are {known}"
    cell.source = "\n".join([cell.source, *(f"{name} = {value!r}" for name, value in changed.items())])
    return notebook


def printed(notebook: NotebookNode, cell_id: str) -> str:
    (cell,) = (cell for cell in code(notebook) if cell.id == cell_id)
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def assert_no_warnings(notebook: NotebookNode) -> None:
    """tqdm's hint at widgets aside, which comes with transformers and is nobody's fault."""
    told = "".join(output.text for cell in code(notebook) for output in cell.outputs if output.get("name") == "stderr")
    assert [line for line in told.splitlines() if re.search(r"\w+Warning:", line) and "IProgress" not in line] == []


# ---- what is stored ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_stored_ran_from_top_to_bottom(name: str) -> None:
    notebook = stored(name)
    assert notebook.metadata.preflab.sources == execute.fingerprint(notebook), "changed since it ran: make notebooks"
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    for cell in code(notebook):
        assert cell.outputs == execute.shown(cell.outputs)
        assert all(output.output_type != "error" for output in cell.outputs)
        if re.search(r"^(print|table|display|Image|Markdown)\(", cell.source, flags=re.MULTILINE):
            assert cell.outputs, cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_stored_is_no_machines_own(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(
        r"/(?:home|root|Users|tmp|work|var|usr|opt|mnt)/|[A-Z]:\\\\\w|0x[0-9a-f]{6,}", without_pictures
    )
    assert not re.search(r"\w+Warning\b|\\u001b", without_pictures)
    assert all(set(cell.metadata) <= {"tags"} for cell in stored(name).cells), "no times of execution"


def test_outputs_are_stored_without_progress_and_addresses_and_a_place_of_the_machine_is_refused(
    tmp_path: Path,
) -> None:
    new = nbformat.v4.new_output
    outputs = [
        new("stream", name="stdout", text="a "),
        new("stream", name="stderr", text="90 %"),
        new("stream", name="stdout", text="b"),
        new("display_data", data={"text/plain": "<Table at 0x7f12ab>"}),
    ]
    cell = nbformat.v4.new_code_cell("show()", outputs=outputs, execution_count=1, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    execute.store(notebook, tmp_path / "a.ipynb", places=("/somewhere",))
    (read,) = nbformat.read(tmp_path / "a.ipynb", as_version=4).cells
    assert [output.get("text") or output.data["text/plain"] for output in read.outputs] == ["a b", "<Table>"]
    cell.outputs[0].text = "in /somewhere/else"
    with pytest.raises(ValueError, match="names a place of this machine: /somewhere"):
        execute.store(notebook, tmp_path / "b.ipynb", places=("/somewhere",))
    assert not (tmp_path / "b.ipynb").exists()


# ---- text_to_text_dpo ----------------------------------------------------------------------------------------------


def test_text_to_text_dpo_runs_as_it_is_stored(tmp_path: Path) -> None:
    ran = execute.run(stored("text_to_text_dpo"), tmp_path)
    assert kinds(ran) == kinds(stored("text_to_text_dpo"))
    assert_no_warnings(ran)
    folder = tmp_path / "text_to_text_dpo"
    history = read_json(folder / "dpo" / "training_history.json")
    check_history(history, steps=100)
    check_comparison(folder / "comparison")
    # 200 pairs are enough here for the held-out pairs, and the answers, to show it.
    assert history[-1]["eval_loss"] < math.log(2) - 0.02
    assert history[-1]["eval_rewards/accuracies"] > 0.6
    results = read_json(folder / "comparison" / "analysis" / "model_comparison_results.json")
    (contest,) = results["analysis"]["contests"]
    assert contest["difference"]["low"] > 0
    (cell,) = (cell for cell in code(ran) if cell.id == "results")
    shown = re.findall(r"<td>(.*?)</td>", cell.outputs[0].data["text/html"])
    assert shown[:3] == ["gold", "dpo", "base"]
    assert f"{contest['win_rate']['value']:.6f}" in shown


def test_text_to_text_dpo_uses_public_names_only() -> None:
    source = "\n".join(cell.source for cell in code(stored("text_to_text_dpo")))
    assert "from preflab" not in source
    assert {name for name in re.findall(r"preflab\.(\w+)", source) if not hasattr(preflab.api, name)} == set()
    assert "preflab.train(" in source


def check_history(history: list[dict[str, float]], *, steps: int) -> None:
    """Lines as a training of the library writes them: from ln 2 on, and rewards that fit together."""
    own, held_out = ([row for row in history if name in row] for name in ("loss", "eval_loss"))
    assert [row["step"] for row in own] == [1, *range(10, steps + 1, 10)]
    assert [row["step"] for row in held_out] == list(range(0, steps + 1, 20))
    for row in history:
        side = "eval_" if "eval_loss" in row else ""
        margin = row[f"{side}rewards/chosen"] - row[f"{side}rewards/rejected"]
        assert row[f"{side}rewards/margins"] == pytest.approx(margin, abs=1e-5)
        # −log σ is convex, so the mean loss is no less than the loss of the mean margin.
        assert row[f"{side}loss"] >= math.log1p(math.exp(-margin)) - 1e-5
    for first in (own[0]["loss"], held_out[0]["eval_loss"]):
        assert first == pytest.approx(math.log(2), abs=1e-4)
    # On the same pairs, a change of reward is beta times the change of log-probability.
    for name in ("chosen", "rejected"):
        change = held_out[-1][f"eval_logps/{name}"] - held_out[0][f"eval_logps/{name}"]
        assert held_out[-1][f"eval_rewards/{name}"] == pytest.approx(0.1 * change, abs=1e-3)


def check_comparison(folder: Path) -> None:
    """The figures follow from the scores beside them."""
    results = read_json(folder / "analysis" / "model_comparison_results.json")
    scores = {
        name: {row["row"]: row["score"] for row in read_jsonl(folder / "scores" / "gold" / f"{name}.jsonl")}
        for name in ("base", "dpo")
    }
    assert (results["model"], results["baseline"], results["scorer"]) == ("dpo", "base", "gold")
    differences = [scores["dpo"][row] - score for row, score in scores["base"].items()]
    points = [1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in differences]
    for name, own in scores.items():
        assert results[f"{name}_score_mean"] == pytest.approx(sum(own.values()) / len(own))
    assert results["score_diff_mean"] == pytest.approx(sum(differences) / len(differences))
    assert results["win_rate"] == pytest.approx(sum(points) / len(points))


def test_its_one_cell_takes_another_model_and_file(tmp_path: Path) -> None:
    """A random model of another architecture, and a file of pairs without a judge; of an odd number, so that the last
    batch of an epoch holds one pair.
    """
    tokenizer = build_tokenizer()
    tiny_model("gemma3_text", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    write_jsonl(tmp_path / "pairs.jsonl", list(preference_rows(World(), rows=31, split="train", style="TRL")))
    own = {"MODEL": "mine", "PAIRS": "pairs.jsonl", "HELD_OUT": 10, "JUDGE": ()}
    notebook = with_settings(stored("text_to_text_dpo"), **own, STEPS=20, MAX_NEW_TOKENS=8, OUTPUT="out")
    ran = execute.run(notebook, tmp_path)
    assert printed(ran, "make-model").startswith("Gemma3ForCausalLM: ")
    assert_no_warnings(ran)
    check_history(read_json(tmp_path / "out" / "dpo" / "training_history.json"), steps=20)
    results = read_json(tmp_path / "out" / "comparison" / "analysis" / "model_comparison_results.json")
    assert [figures["name"] for figures in results["analysis"]["models"]] == ["base", "dpo"]
    assert results["analysis"]["contests"] == []
    assert not (tmp_path / "out" / "sandbox").exists(), "the sandbox's model is not made where another one is named"


# ---- reading_a_grid ------------------------------------------------------------------------------------------------


def check_grid_files(folder: Path, grid: Path, figures: Mapping[str, bool]) -> None:
    """Table and figures of exactly the cells of the grid."""
    cells = read_grid(grid)
    lines = (folder / "winrates.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(cells) + 1
    for line, cell in zip(lines[1:], cells, strict=True):
        assert cell.win_rate is not None
        assert repr(cell.win_rate.value)[:8] in line
    assert (folder / "winrates.tex").read_text(encoding="utf-8").count(r"\\") == len(cells) + 1
    assert (folder / "winrates.md").read_text(encoding="utf-8").count("\n") == len(cells) + 2
    assert {name: (folder / name).exists() for name in figures} == figures


def test_reading_a_grid_runs_as_it_is_stored(tmp_path: Path) -> None:
    ran = execute.run(stored("reading_a_grid"), tmp_path)
    assert kinds(ran) == kinds(stored("reading_a_grid"))
    assert_no_warnings(ran)
    folder = tmp_path / "reading_a_grid"
    check_grid_files(folder, folder / "grid", {"winrate_vs_temperature.png": True, "winrate_vs_step.png": True})
    cells = {(cell.model, cell.step, cell.temperature): cell.win_rate for cell in read_grid(folder / "grid")}
    assert len(cells) == 16
    null = cells["sft", None, 1.0]
    assert null is not None
    assert null.low < 0.5 < null.high, "a model against itself"
    assert "no difference can be shown" in printed(ran, "compare-cells")


def test_its_one_cell_takes_another_grid(tmp_path: Path) -> None:
    """Of one model at two temperatures: there is no step to draw against, and no third cell to compare with."""
    model = tiny_runs.write_model(tmp_path / "mine")
    run_grid(
        GridSettings(
            models=(str(model),),
            temperatures=(0.5, 1.0),
            prompts=("sandbox:preferences?rows=8&split=test",),
            judge=("gold",),
            max_new_tokens=8,
            dtype="float32",
            out=tmp_path / "grid",
        )
    )
    ran = execute.run(with_settings(stored("reading_a_grid"), GRID="grid", OUTPUT="out"), tmp_path)
    assert_no_warnings(ran)
    check_grid_files(
        tmp_path / "out", tmp_path / "grid", {"winrate_vs_temperature.png": True, "winrate_vs_step.png": False}
    )
    assert "no winrate_vs_step.png" in printed(ran, "draw")
    assert printed(ran, "compare-cells").count("points") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("winrate_vs_temperature.png", "winrates.csv", "winrates.md", "winrates.tex")
    ], "no model is trained for a grid that is there"
