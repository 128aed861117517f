"""The embedded sandbox as files: what its specs (`sandbox:preferences?…`) give, to look at and to copy from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preflab.core.output import alone
from preflab.core.results import Result
from preflab.core.rundir import finish_stage, open_stage, write_json, write_jsonl
from preflab.sandbox.settings import SandboxSettings
from preflab.sandbox.tiny import build_tiny_model
from preflab.sandbox.world import (
    STYLES,
    Split,
    World,
    demonstration_rows,
    label_accuracies,
    preference_rows,
    prompt_rows,
)


@dataclass(frozen=True, repr=False)
class SandboxResult(Result):
    """The files that were written, by what they hold."""

    output_dir: Path
    files: dict[str, Path]

    def __str__(self) -> str:
        return "\n".join(f"{name:24} {path}" for name, path in self.files.items())


@alone("output_dir", "stage.json")
def write_sandbox(settings: SandboxSettings) -> SandboxResult:
    """Write the same preferences in every style, demonstrations, prompts (each `-train` and `-test`), and the model."""
    folder = settings.output_dir
    open_stage(
        folder, {"command": "sandbox", **settings.model_dump(mode="json", exclude={"output_dir"})}, overwrite=False
    )
    world = World(settings.seed, settings.noise, settings.length_bias)
    sizes: dict[Split, int] = {"train": settings.rows, "test": settings.eval_rows}
    files: dict[str, Path] = {}
    for split, rows in sizes.items():
        streams = {
            **{style: preference_rows(world, rows=rows, split=split, style=style) for style in STYLES},
            "demonstrations": demonstration_rows(world, rows=rows, split=split),
            "prompts": prompt_rows(world, rows=rows, split=split),
        }
        for name, stream in streams.items():
            files[f"{name} ({split})"] = folder / f"{name.lower()}-{split}.jsonl"
            write_jsonl(files[f"{name} ({split})"], stream)
    files["best accuracies (test)"] = folder / "accuracies-test.json"
    write_json(files["best accuracies (test)"], label_accuracies(world, rows=settings.eval_rows, split="test"))
    files["model"] = build_tiny_model(folder / "model", seed=settings.seed)
    finish_stage(folder)
    return SandboxResult(folder, files)
