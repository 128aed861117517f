"""Thousands of broken inputs, continued: what commands leave behind and read again (runs, checkpoints, caches, rows of
responses, scores and verdicts), prompts, adapters and reward models. Each ends in a message, or in the very bytes that
whole files give.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_stages
import pytest
import tiny_runs
from fuzz_blocks import ROWS, Capture, blocks, independent, seeds
from mutations import as_json, as_lines, call, complaint, damage, spoiled
from no_pictures import draw_nothing
from safetensors.torch import save_file
from tiny_runs import cut_off

from preflab import cli

pytestmark = pytest.mark.fuzz

SHORT: dict[str, Any] = {"max_steps": 3, "save_steps": 1, "eval_steps": 3, "save_total_limit": 2}
PROMPTS = "sandbox:prompts?rows=4&seed=1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a reward model and an adapter; a training that is done, and one that was stopped; responses, scores and
    verdicts.
    """
    folder = tmp_path_factory.mktemp("made")
    tiny = tiny_runs.write_model(folder / "tiny")
    tiny_runs.run("reward", tiny, folder / "reward", max_steps=2, save_strategy="no")
    tiny_runs.run("sft", tiny, folder / "lora", **tiny_runs.LORA, max_steps=2, save_strategy="no")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLAB_CACHE", str(folder / "cache"))
        tiny_runs.run("dpo", tiny, folder / "done", **SHORT)
        cut_off(patch, "dpo", tiny, folder / "stopped", **SHORT)
    return folder


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all the rest."""
    monkeypatch.setattr("preflab.training.stage.draw_curves", lambda *_: None)
    monkeypatch.setattr("preflab.sample.score.draw_pairs", lambda *_, **__: None)


def files_of(folder: Path) -> list[Path]:
    """To choose from; those of numbers more often, for damage to them is the hardest to notice."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    files = sorted(path for path in found if path.suffix not in (".lock", ".png"))
    return files + 4 * [path for path in files if path.suffix in (".safetensors", ".npy", ".bin")]


# ---- runs, checkpoints, caches ----


@blocks(75)
@pytest.mark.parametrize("state", ["stopped", "done"])
def test_runs(state: str, first: int, made: Path, tmp_path: Path, capsys: Capture) -> None:
    expected = tiny_runs.weights_file(made / "done" / "model").read_bytes()
    for seed, chance in seeds(first, f"runs {state}"):
        shutil.copytree(made / state, folder := tmp_path / "run")
        damage(path := folder / chance.choice(files_of(folder)), chance)
        again = {"overwrite": True} if chance.random() < 0.3 else {}
        ended = call(capsys, *tiny_runs.arguments("dpo", made / "tiny", folder, **SHORT, **again))
        where = f"seed {seed}, {path.relative_to(folder)}{', overwritten' if again else ''}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0:
            assert tiny_runs.weights_file(folder / "model").read_bytes() == expected, where
        shutil.rmtree(folder)


@blocks(50)
def test_caches(first: int, made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens, of the reference's log-probabilities: what is damaged is made again."""
    expected = tiny_runs.weights_file(made / "done" / "model").read_bytes()
    monkeypatch.setenv("PREFLAB_CACHE", str(tmp_path / "cache"))
    for seed, chance in seeds(first, "caches"):
        shutil.copytree(made / "cache", tmp_path / "cache")
        damage(path := tmp_path / "cache" / chance.choice(files_of(tmp_path / "cache")), chance)
        ended = call(capsys, *tiny_runs.arguments("dpo", made / "tiny", tmp_path / "run", **SHORT))
        where = f"seed {seed}, {path.relative_to(tmp_path)}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0:
            assert tiny_runs.weights_file(tmp_path / "run" / "model").read_bytes() == expected, where
            shutil.rmtree(tmp_path / "run")
        shutil.rmtree(tmp_path / "cache")


@blocks(100)
def test_experiments_that_are_gone_on_with(
    first: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `preflab run` keeps for itself beside its stages' folders is damaged."""
    fake_stages.install(monkeypatch, tmp_path)
    fake_stages.write()
    fake_stages.start()
    shutil.copytree("out", "whole")
    products = sorted(path.relative_to("whole") for path in Path("whole").glob("*/*") if path.is_file())
    for seed, chance in seeds(first, "experiments that are gone on with"):
        shutil.rmtree("out")
        shutil.copytree("whole", "out")
        path = Path("out") / chance.choice(("inputs.json", "experiment.json", "experiment.yaml", "manifest.json"))
        damage(path, chance)
        if chance.random() < 0.3:
            shutil.rmtree("out/second")  # so that there is something to do
        again = ("--overwrite",) if chance.random() < 0.3 else ()
        ended = call(capsys, "run", "experiment.yaml", *again)
        assert complaint(ended) is None, f"seed {seed}, {path.name}: {complaint(ended)}"
        if ended.code == 0:
            assert set(fake_stages.statuses().values()) <= {"done", "skipped"}, f"seed {seed}, {path.name}"
            for name in products:
                assert (Path("out") / name).read_bytes() == (Path("whole") / name).read_bytes(), f"seed {seed}: {name}"


# ---- files of rows ----


def rows_commands(made: Path, out: Path) -> dict[str, tuple[tuple[str, ...], Path]]:
    """Command -> its words, and the file that it makes."""
    generate = ("generate", "--model", str(made / "tiny"), "--prompts", PROMPTS, "--max-new-tokens", "4")
    score = ("score", str(out / "r.jsonl"), "--reward-model", str(made / "reward" / "model"))
    judge = ("judge", str(out / "r.jsonl"), str(out / "other.jsonl"), "--judge", f"reward:{made / 'reward' / 'model'}")
    return {
        "generate": ((*generate, "--output", str(out / "r.jsonl")), out / "r.jsonl"),
        "opponent": ((*generate, "--seed", "2", "--output", str(out / "other.jsonl")), out / "other.jsonl"),
        "score": ((*score, "--output", str(out / "s.jsonl")), out / "s.jsonl"),
        "judge": ((*judge, "--output", str(out / "v.json")), out / "v.json"),
    }


@pytest.fixture
def rows(made: Path, tmp_path: Path, capsys: Capture) -> Path:
    """Responses of two seeds, scores and verdicts: whole, in `whole`, and generating stopped half-way, in `half`."""
    for words, _ in rows_commands(made, tmp_path / "whole").values():
        ended = call(capsys, *words)
        assert ended.code == 0, ended.err
    shutil.copytree(tmp_path / "whole", half := tmp_path / "half")
    (half / "r.jsonl").rename(half / "r.unfinished.jsonl")
    return tmp_path


def rows_in(path: Path) -> Any:
    """Without the dates of a verdict file."""
    return json.loads(path.read_bytes())["results"] if path.suffix == ".json" else path.read_bytes()


@blocks(100)
def test_rows_that_are_gone_on_with(first: int, made: Path, rows: Path, capsys: Capture) -> None:
    """The same commands again, where one of the files that they made is damaged."""
    for seed, chance in seeds(first, "rows that are gone on with"):
        shutil.copytree(rows / chance.choice(("whole", "half")), out := rows / "out")
        damage(path := out / chance.choice(files_of(out)), chance)
        name = chance.choice(("generate", "score", "judge"))
        words, output = rows_commands(made, out)[name]
        again = ("--overwrite",) if chance.random() < 0.2 else ()
        ended = call(capsys, *words, *again)
        where = f"seed {seed}, {name} {' '.join(again)} with {path.name}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0 and (name == "generate" or path.name not in ("r.jsonl", "other.jsonl")):
            assert rows_in(output) == rows_in(rows / "whole" / output.name), where
        shutil.rmtree(out)


@blocks(75)
def test_responses(first: int, made: Path, tmp_path: Path, capsys: Capture) -> None:
    """Files of responses that somebody else wrote, before a judge and a reward model."""
    one, other = ([{"prompt": f"{n}?", "response": f"{n} {name}.", "id": n} for n in range(4)] for name in ("a", "b"))
    (tmp_path / "other.jsonl").write_bytes(as_lines(other))
    reward = str(made / "reward" / "model")
    for seed, chance in seeds(first, "responses"):
        suffix = chance.choice((".jsonl", ".json"))
        path, output = tmp_path / f"one{suffix}", tmp_path / f"out{seed}"
        path.write_bytes(as_lines(one) if suffix == ".jsonl" else as_json({"metadata": {}, "results": one}))
        path.write_bytes(spoiled(path, chance))
        name, words = chance.choice((
            ("judge", (str(path), str(tmp_path / "other.jsonl"), "--judge", f"reward:{reward}")),
            ("score", (str(path), "--reward-model", reward)),
        ))  # fmt: skip
        output = tmp_path / f"{seed}{'.json' if name == 'judge' else '.jsonl'}"
        ended = call(capsys, name, *words, "--output", str(output))
        where = f"seed {seed}, {name}: {path.read_bytes()[:300]!r}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0:
            assert independent(path.read_bytes(), suffix) is not None, f"{where}: read, but it is not JSON"


def study_commands(made: Path, out: Path) -> dict[str, tuple[str, ...]]:
    """Command -> its words; each into a folder of its name."""
    model, reward, pairs = (str(made / "tiny"), str(made / "reward" / "model"), "sandbox:preferences?rows=3&seed=1")
    short = ("--prompts", pairs, "--max-new-tokens", "4", "--batch-size", "8")
    return {
        "compare": ("compare", "chosen", f"a={model}", "--judge", "gold", "--out", str(out / "compare"), *short),
        "grid": ("grid", f"a={model}", "--judge", "gold", "--temperatures", "0", "--out", str(out / "grid"), *short),
        "frontier": (
            *("frontier", f"a={made / 'done'}", "--reference", model, "--reward-model", reward),
            *("--best-of-n", "2", "--out", str(out / "frontier"), *short),
        ),
    }


@pytest.fixture(scope="module")
def studies(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        for words in study_commands(made, folder).values():
            with pytest.raises(SystemExit) as caught:
                cli.main(words)
            assert not caught.value.code
    return folder


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    draw_nothing(patch)
    patch.setattr("preflab.page.style.as_svg", lambda *_, **__: "<svg></svg>")


@blocks(75)
def test_studies_that_are_gone_on_with(
    first: int, made: Path, studies: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command again, where one of the files that it made is damaged."""
    without_pictures(monkeypatch)
    for seed, chance in seeds(first, "studies that are gone on with"):
        kind = chance.choice(("compare", "grid", "frontier"))
        shutil.copytree(studies / kind, folder := tmp_path / kind)
        damage(
            path := folder / chance.choice([name for name in files_of(folder) if "analysis" not in name.parts]), chance
        )
        again = ("--overwrite",) if chance.random() < 0.2 else ()
        ended = call(capsys, *study_commands(made, tmp_path)[kind], *again)
        where = f"seed {seed}, {path.relative_to(tmp_path)} {' '.join(again)}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0:
            for whole in (studies / kind).rglob("*.jsonl"):
                name = whole.relative_to(studies / kind)
                assert (folder / name).read_bytes() == whole.read_bytes(), f"{where}: {name}"
        shutil.rmtree(folder)


# ---- prompts and columns ----


@blocks(50)
def test_prompts(first: int, made: Path, tmp_path: Path, capsys: Capture) -> None:
    for seed, chance in seeds(first, "prompts"):
        given: Any = [{"prompt": f"Question {n}?", "id": n} for n in range(3)] if seed % 2 else [ROWS[seed % 6]] * 3
        suffix = chance.choice((".jsonl", ".json", ".csv"))
        path, output = tmp_path / f"p{suffix}", tmp_path / f"{seed}.jsonl"
        if suffix == ".csv":
            path.write_bytes(b'prompt,id\n"How, then?",1\nWhy?,2\n"Who ""is"" it?",3\n')
        else:
            path.write_bytes(as_lines(given) if suffix == ".jsonl" else as_json(given))
        path.write_bytes(spoiled(path, chance))
        words = ("--model", str(made / "tiny"), "--prompts", str(path), "--max-new-tokens", "2")
        ended = call(capsys, "generate", *words, "--output", str(output))
        where = f"seed {seed}: {path.read_bytes()[:300]!r}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0 and suffix != ".csv":
            found = independent(path.read_bytes(), suffix)
            assert found is not None, f"{where}: read, but it is not JSON"
            assert len(output.read_bytes().splitlines()) <= len(found), where


@blocks(100)
def test_columns(first: int, tmp_path: Path, capsys: Capture) -> None:
    asked = [{"user_query": "How?", "gen_text": "So.", "other": "Not so.", "n": 1}, {"user_query": "Who?", "x": {}}]
    (path := tmp_path / "rows.jsonl").write_bytes(as_lines(asked))
    whole = ("prompt=user_query", "response=gen_text", "chosen=gen_text", "rejected=other", "score=n")
    parts = (
        "=",
        ",",
        "=,",
        "prompt=prompt",
        "user_query=prompt",
        "=x",
        "x=",
        "prompt=x.y",
        "prompt=x[0]",
        "\ud800",
        "é=\x1b",
    )
    for seed, chance in seeds(first, "columns"):
        words = [*chance.sample(whole, 2), *chance.choices(parts, k=chance.randint(0, 2))]
        chance.shuffle(words)
        word = chance.choice((",", ",,", " ", ";", "=")).join(words)
        ended = call(capsys, "data", "inspect", str(path), "--json", "--columns", word)
        assert complaint(ended) is None, f"seed {seed}, {word!r}: {complaint(ended)}"


# ---- models by their commands ----


@blocks(75)
def test_adapters_that_are_merged(first: int, made: Path, tmp_path: Path, capsys: Capture) -> None:
    """A model of them is made of whole files; the configuration may say something else where it is somebody's hand."""
    call(capsys, "merge", str(made / "lora" / "adapter"), str(tmp_path / "whole"))
    expected = tiny_runs.weights_file(tmp_path / "whole").read_bytes()
    for seed, chance in seeds(first, "adapters that are merged"):
        shutil.copytree(made / "lora" / "adapter", adapter := tmp_path / "adapter")
        path = adapter / chance.choice(("adapter_config.json", "adapter_model.safetensors", "checksums.json"))
        damage(path, chance)
        ended = call(capsys, "merge", str(adapter), str(tmp_path / "merged"))
        where = f"seed {seed}, {path.name}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0 and path.suffix == ".safetensors":
            assert tiny_runs.weights_file(tmp_path / "merged").read_bytes() == expected, where
        shutil.rmtree(adapter)
        shutil.rmtree(tmp_path / "merged", ignore_errors=True)


@blocks(50)
def test_adapters_whose_files_are_of_two(first: int, made: Path, tmp_path: Path, capsys: Capture) -> None:
    """Weights and configuration are whole, and do not fit: none of it is filled up at random, or left out."""
    for seed, chance in seeds(first, "adapters whose files are of two"):
        shutil.copytree(made / "lora" / "adapter", adapter := tmp_path / "adapter")
        (adapter / "checksums.json").unlink()
        weights, path = tiny_runs.weights(adapter), adapter / "adapter_config.json"
        config = json.loads(path.read_text())
        name = chance.choice(sorted(weights))
        way = chance.choice(
            ("lacks", "has more", "other shape", "fewer layers", "fewer targets", "other rank", "more targets")
        )
        if way == "lacks":
            del weights[name]
        elif way == "has more":
            weights[name.replace("layers.0", f"layers.{chance.randint(1, 9)}")] = weights[name].clone()
        elif way == "other shape":
            weights[name] = weights[name][:-1].clone()
        elif way == "fewer layers":
            config["layers_to_transform"] = [chance.randint(1, 5)]
        elif way == "other rank":
            config["r"] = chance.choice((1, 2, 3, 8))
        else:
            linear = sorted(config["target_modules"])
            config["target_modules"] = linear[:-1] if way == "fewer targets" else [*linear, "lm_head"]
        path.write_text(json.dumps(config))
        save_file(weights, adapter / "adapter_model.safetensors")
        ended = call(capsys, "merge", str(adapter), str(tmp_path / "merged"))
        where = f"seed {seed}, {way}, {name}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        assert ended.code == 2, f"{where}: merged"
        shutil.rmtree(adapter)


@blocks(75)
@pytest.mark.parametrize("by", ["preflab", "somebody else"])
def test_reward_models(by: str, first: int, made: Path, tmp_path: Path, capsys: Capture) -> None:
    """Damaged ones that preflab wrote give the scores of whole ones, or none; all give finite scores."""
    given = [{"prompt": f"{n}?", "response": f"It is {n}."} for n in range(3)]
    (data := tmp_path / "r.jsonl").write_bytes(as_lines(given))
    scoring: Callable[[Path, str], tuple[str, ...]] = lambda model, name: (  # noqa: E731
        *("score", str(data), "--reward-model", str(model), "--output", str(tmp_path / f"{name}.jsonl")),
    )
    call(capsys, *scoring(made / "reward" / "model", "whole"))
    expected = (tmp_path / "whole.jsonl").read_bytes()
    for seed, chance in seeds(first, f"reward models by {by}"):
        shutil.copytree(made / "reward" / "model", model := tmp_path / "model")
        if by != "preflab":
            (model / "checksums.json").unlink()
        damage(path := model / chance.choice(files_of(model)), chance)
        ended = call(capsys, *scoring(model, str(seed)))
        where = f"seed {seed}, {path.name}"
        assert complaint(ended) is None, f"{where}: {complaint(ended)}"
        if ended.code == 0:
            found = (tmp_path / f"{seed}.jsonl").read_bytes()
            assert all(type(json.loads(line)["score"]) is float for line in found.splitlines()), where
            if by == "preflab" and path.suffix == ".safetensors":
                assert found == expected, where
        shutil.rmtree(model)
