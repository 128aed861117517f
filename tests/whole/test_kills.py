"""Every command that writes, killed (by SIGKILL) at random moments and started again: the same bytes at the end.

`make kills` runs it, some minutes; the moments are seeded, but where they fall depends on how fast the machine is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from no_pictures import draw_nothing
from tiny_runs import LORA, run, write_model

from preflab.experiment.run import run_experiment
from preflab.experiment.settings import RunSettings
from preflab.judging.command import judge_responses
from preflab.judging.settings import JudgeSettings
from preflab.sample.generate import generate_responses
from preflab.sample.score import score_responses
from preflab.sample.settings import GenerateSettings, ScoreSettings
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.grid.command import run_grid
from preflab.studies.grid.settings import GridSettings
from preflab.training.merge import merge_adapter
from preflab.training.settings import MergeSettings

pytestmark = [
    pytest.mark.kills,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
]

KILLS = 10
"""Of each command."""
PAIRS, PROMPTS = "sandbox:preferences?rows=6&seed=1", "sandbox:prompts?rows=8&seed=1"
SHORT: dict[str, Any] = {"max_new_tokens": 12, "batch_size": 2}
EXPERIMENT = """
output_dir: {out}
stages:
  sft:
    run: train sft
    model: {root}/tiny
    train_data: "{pairs}"
    max_steps: 3
    save_steps: 1
    report_to: none
  answers:
    run: generate
    model: ${{sft}}
    prompts: "{prompts}"
    max_new_tokens: 12
    batch_size: 2
  scores:
    run: score
    data: ${{answers}}
    reward_model: {root}/reward/model
"""


def commands(root: Path) -> dict[str, Callable[[Path], object]]:
    """Command -> what does all of it into a folder."""
    tiny, reward = str(root / "tiny"), str(root / "reward" / "model")
    answers = [str(root / name / "r.jsonl") for name in ("generate", "opponent")]

    def experiment(out: Path) -> object:
        file = out.with_name(f"{out.name}.yaml")
        file.write_text(EXPERIMENT.format(out=out, root=root, pairs=PAIRS, prompts=PROMPTS))
        return run_experiment(RunSettings(experiment=file))

    def judge(out: Path) -> object:
        judge = f"openai:fake@{os.environ['FAKE_JUDGE']}"
        os.environ["PREFLAB_CACHE"] = str(out / "cache")  # else the first run's replies would be the answers
        given = JudgeSettings(
            responses=answers[0], opponent=answers[1], judge=judge, output=out / "v.json", concurrency=2
        )
        return judge_responses(given)

    def study(out: Path) -> dict[str, Any]:
        return {"prompts": (PAIRS,), "judge": ("gold",), "out": out, **SHORT}

    return {
        "sft": lambda out: run("sft", tiny, out, save_steps=1),
        "reward": lambda out: run("reward", tiny, out, save_steps=1),
        "dpo": lambda out: run("dpo", tiny, out, save_steps=1, **{**LORA, "lora_dropout": 0.2}),
        "kto": lambda out: run("kto", tiny, out, save_steps=1),
        "generate": lambda out: generate_responses(
            GenerateSettings(model=tiny, prompts=(PROMPTS,), output=out / "r.jsonl", temperature=1.0, **SHORT)
        ),
        "score": lambda out: score_responses(
            ScoreSettings(data=(answers[0],), reward_model=reward, output=out / "s.jsonl", batch_size=2)
        ),
        "merge": lambda out: (
            (out / "model.safetensors").exists()
            or merge_adapter(MergeSettings(adapter=root / "dpo" / "adapter", output_dir=out))
        ),
        "judge": judge,
        "compare": lambda out: compare_models(
            CompareSettings(models=(f"a={tiny}", f"b={root / 'sft'}"), reward_model=(f"rm={reward}",), **study(out))
        ),
        "grid": lambda out: run_grid(
            GridSettings(models=(f"a={tiny}",), opponent="chosen", temperatures=(0.0, 1.0), **study(out))
        ),
        "run": experiment,
    }


NAMES = tuple(commands(Path()))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything ran: one process imports preflab once, and each run is a fork of it."""
    folder = tmp_path_factory.mktemp("kills")
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PREFLAB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_ends_with_the_same_bytes(name: str, root: Path) -> None:
    report = json.loads((root / f"{name}.report.json").read_text())
    assert report["killed"] == KILLS, report
    assert report["failed"] == [], report
    expected = products(root / name)
    assert expected
    for trial in range(report["trials"]):
        found = products(root / f"{name}-{trial}")
        assert found.keys() == expected.keys()
        for file, content in expected.items():
            assert found[file] == content, f"{file} of trial {trial} differs"


def products(folder: Path) -> dict[str, bytes]:
    """What a command has made, without checkpoints, which need not all be kept, and without dates."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "checkpoints" in name or "cache" in name:
            continue
        if path.suffix in (".safetensors", ".jsonl"):
            found[name] = path.read_bytes()
        elif path.name in ("v.json", "gold.json") or path.parent.name == "gold":
            value = json.loads(path.read_text())
            if isinstance(value, dict) and "metadata" in value:
                value["metadata"].pop("finished", None)
                found[name] = json.dumps(value, sort_keys=True).encode()
    return found


# ---- the process that forks ----------------------------------------------------------------------------------------


def fork(action: Callable[[], object]) -> int:
    """The process id of a child that does this, and is told nothing of its parent's end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def wait(child: int, seconds: float | None = None) -> int:
    """Its exit status; where it takes longer than so many seconds, it is killed."""
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve_judge(write_end: int) -> None:
    import fake_judge

    with pytest.MonkeyPatch.context() as patch, fake_judge.serving(patch) as judge:
        judge.delay = 0.05
        os.write(write_end, judge.url.encode())
        signal.pause()


def run_all(root: Path) -> None:
    read_end, write_end = os.pipe()
    judge = fork(lambda: serve_judge(write_end))
    os.environ["FAKE_JUDGE"], os.environ["OPENAI_API_KEY"] = os.read(read_end, 200).decode(), "key-of-this-account"
    draw_nothing(pytest.MonkeyPatch(), "preflab.sample.score.draw_pairs")  # they take longest, and are not compared
    try:
        assert wait(fork(lambda: write_model(root / "tiny"))) == 0
        all_commands = commands(root)
        other = GenerateSettings(
            model=str(root / "tiny"),
            prompts=(PROMPTS,),
            output=root / "opponent" / "r.jsonl",
            temperature=1.0,
            seed=3,
            **SHORT,
        )
        assert wait(fork(lambda: generate_responses(other))) == 0
        for name, command in all_commands.items():
            started = time.monotonic()
            assert wait(fork(lambda: command(root / name))) == 0, name  # noqa: B023 (called at once)
            report = kill_often(command, root / name, time.monotonic() - started)
            (root / f"{name}.report.json").write_text(json.dumps(report))
    finally:
        os.kill(judge, signal.SIGKILL)
        os.waitpid(judge, 0)


def kill_often(command: Callable[[Path], object], whole: Path, seconds: float) -> dict[str, Any]:
    """Start it, kill it once or twice, let it end; anew, until it was killed often enough."""
    moments = random.Random(whole.name)
    killed, trials, failed = 0, 0, []
    while killed < KILLS and trials < 3 * KILLS:
        folder = whole.with_name(f"{whole.name}-{trials}")
        for _ in range(min(2, KILLS - killed)):
            status = wait(fork(lambda: command(folder)), seconds * moments.uniform(0.02, 0.98))  # noqa: B023
            killed += status == -signal.SIGKILL
            failed += [f"trial {trials}: {status}"] if status not in (0, -signal.SIGKILL) else []
        status = wait(fork(lambda: command(folder)))  # noqa: B023 (called at once)
        failed += [f"trial {trials}, left alone: {status}"] if status else []
        trials += 1
    return {"killed": killed, "trials": trials, "failed": failed, "seconds": round(seconds, 2)}


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
