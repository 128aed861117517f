"""Cases through the command line that no other module of cases runs that way, and that no case is without a test."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from model_kinds import adapted, logits, other_kind
from shared_cases import CASES, case
from tiny_models import tiny_model
from tiny_tokenizers import qwen

from preflab import cli
from preflab.core.rundir import read_jsonl
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer

TESTS = Path(__file__).parents[1]
SMALL = ("--max-steps", "1", "--report-to", "none", "--max-length", "256", "--max-prompt-length", "128", "--no-bf16")


def test_every_case_is_in_a_test() -> None:
    if not CASES.exists():
        pytest.skip(f"there are no cases at {CASES}")
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(TESTS.rglob("test_*.py")))
    numbers = {folder.name: folder.name.partition("-")[0] for folder in CASES.iterdir() if folder.is_dir()}
    without = [
        name for name, number in numbers.items() if name not in text and not re.search(rf"def test_{number}_", text)
    ]
    assert not without


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What is said where a command ends with 2, which is one message and no traceback."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    said = capsys.readouterr().err
    assert caught.value.code == 2, said
    assert said.count("Error: ") == 1
    assert "Traceback" not in said
    assert "defect of preflab" not in said
    return " ".join(said.split())


def done(*words: object) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    assert caught.value.code == 0


# ---- 15 --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("deberta", "is a DebertaV2ForSequenceClassification; preflab reads decoders with one score head"),
        ("two labels", "has 2 labels; a reward model has one"),
        ("five labels", "has 5 labels; a reward model has one"),
    ],
)
@pytest.mark.parametrize("command", ["score", "judge", "compare"])
def test_15_other_kinds_of_reward_models(
    kind: str, sentence: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = case("15-reward-models-of-other-kinds/00-plain.jsonl"), other_kind(tmp_path / "model", kind)
    answers = [{"prompt": row["prompt"], "response": row["chosen"]} for row in read_jsonl(data)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    files = (tmp_path / "answers.jsonl", "chosen", "--prompts", data)
    words: dict[str, tuple[object, ...]] = {
        "score": ("score", data, "--reward-model", folder, "--output", tmp_path / "made"),
        "judge": ("judge", *files, "--judge", f"reward:{folder}", "--output", tmp_path / "made"),
        "compare": ("compare", *files, "--reward-model", folder, "--out", tmp_path / "made"),
    }
    assert sentence in refused(capsys, *words[command])
    assert not (tmp_path / "made").is_file()


# ---- 19 --------------------------------------------------------------------------------------------------------------

ADAPTERS: dict[str, dict[str, Any]] = {
    "head saved": {"modules_to_save": ["lm_head"]},
    "both saved": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "head by LoRA": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings by LoRA": {"target_modules": ["q_proj", "embed_tokens"]},
    "tokens added": {"grown": 2, "modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens trained": {"trainable_token_indices": [5, 6]},
}


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_19_an_adapter_of_head_or_embeddings(
    kind: str, tied: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, tokenizer = case("19-adapters-with-embeddings/00-plain.jsonl"), qwen()
    base = tmp_path / "base"
    save_model(tiny_model("qwen2", vocab_size=len(tokenizer), tie_word_embeddings=tied), tokenizer, base)
    adapter = adapted(base, tmp_path / "adapter", **ADAPTERS[kind])
    train = ("train", "dpo", "--train-data", data, "--lora", *SMALL)
    said = refused(capsys, *train, "--model", adapter, "--output-dir", tmp_path / "run")
    assert re.search(r"changes the (output head|embeddings) \(.*\); merge it first \(preflab merge", said)
    done("merge", adapter, tmp_path / "merged")
    torch.testing.assert_close(logits(tmp_path / "merged"), logits(adapter), rtol=1e-4, atol=1e-4)
    assert len(load_tokenizer(str(tmp_path / "merged"))) == len(tokenizer) + ADAPTERS[kind].get("grown", 0)
    done(*train, "--model", tmp_path / "merged", "--output-dir", tmp_path / "run")
    assert "training rows: 4 used, 0 dropped" in capsys.readouterr().err
    short = ("--prompts", data, "--temperature", "0", "--max-new-tokens", "6")
    for model in ("adapter", "merged"):
        done("generate", "--model", tmp_path / model, *short, "--output", tmp_path / f"{model}.jsonl")
    said_by = [[row["response"] for row in read_jsonl(tmp_path / f"{model}.jsonl")] for model in ("adapter", "merged")]
    assert said_by[0] == said_by[1]
    assert len(said_by[0]) == 4


# ---- 21 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
@pytest.mark.parametrize("kind", ["sft", "reward", "dpo", "kto"])
def test_21_a_tracker_without_its_package(
    tracker: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda word, *more: None if word == tracker else original(word, *more)
    )
    data = case("21-report-to-without-the-package/00-plain.jsonl")
    words = ("--model", tmp_path / "none", "--train-data", data, "--output-dir", tmp_path / "run")
    said = refused(capsys, "train", kind, *words, "--report-to", tracker)
    assert f"pip install {tracker}" in said
    assert not (tmp_path / "run").exists()


# ---- 27 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yaml-bool-tag.yaml", "line 1: not valid YAML: 'maybe' cannot be read as !!bool"),
        ("yaml-int-tag.yaml", "line 2: not valid YAML: 'abc' cannot be read as !!int"),
        ("yaml-timestamp.yaml", "line 1: not valid YAML: 'x' cannot be read as !!timestamp"),
        ("yaml-deep.yaml", "line 1: not valid YAML: more than 50 lists and mappings lie within one another"),
        ("yaml-int5000.yaml", "line 1: not valid YAML: a whole number of 4301 digits is too long"),
    ],
)
def test_27_malformed_settings(name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "dpo", case(f"27-malformed/{name}"), "--model", tmp_path, "--output-dir", tmp_path / "run")
    assert f"{name}, {message}" in refused(capsys, *words)


def test_27_a_sample_s_number_of_thousands_of_digits(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "winrate", case("27-malformed/winrate-sample-id.json"))
    assert "`sample_id` ends in a number of 4,301 digits; a row and a sample, such as 12/0, is needed" in said
    assert len(said) < 400
