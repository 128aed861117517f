"""What preflab does not read is refused in one sentence before any work: adapters of learnt tokens, weights of few
bits, models of images; and rewards that are no numbers are told, never averaged.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from peft import IA3Config, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from preflab.cli import main
from preflab.core.records import UserError
from preflab.judging.command import judge_responses
from preflab.judging.settings import JudgeSettings
from preflab.sample.score import score_responses
from preflab.sample.settings import ScoreSettings
from preflab.studies.compare.command import compare_models
from preflab.studies.compare.settings import CompareSettings
from preflab.studies.frontier.command import measure_frontier
from preflab.studies.frontier.settings import FrontierSettings
from preflab.training.merge import merge_adapter
from preflab.training.settings import MergeSettings

PROMPTS = "sandbox:prompts?rows=3&seed=1"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.write_model(tmp_path_factory.mktemp("refused") / "tiny")


def with_config(tiny: Path, folder: Path, **changes: Any) -> Path:
    """The model with another configuration, and whole files still."""
    shutil.copytree(tiny, folder)
    (folder / "checksums.json").unlink(missing_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def uses(model: Path, out: Path) -> dict[str, tuple[str, ...]]:
    """Commands that read a policy."""
    return {
        "generate": ("generate", "--model", str(model), "--prompts", PROMPTS, "--output", str(out / "r.jsonl")),
        "train dpo": tuple(tiny_runs.arguments("dpo", model, out / "run")),
        "train reward": tuple(tiny_runs.arguments("reward", model, out / "run")),
    }


def said(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command refuses, after what it says of the columns that it read."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2, error
    (line,) = (each for each in error.strip().splitlines() if not each.startswith("columns: "))
    return line


# ---- adapters ------------------------------------------------------------------------------------------------------

LEARNT_TOKENS = {
    "PROMPT_TUNING": PromptTuningConfig,
    "PREFIX_TUNING": PrefixTuningConfig,
    "P_TUNING": PromptEncoderConfig,
}


@pytest.mark.parametrize("kind", LEARNT_TOKENS)
@pytest.mark.parametrize("command", ["generate", "train dpo", "merge"])
def test_adapters_that_are_learnt_tokens(
    kind: str, command: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LEARNT_TOKENS[kind](task_type="CAUSAL_LM", num_virtual_tokens=4)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(tmp_path / "adapter")
    capsys.readouterr()
    merge = ("merge", str(tmp_path / "adapter"), str(tmp_path / "out" / "merged"))
    words = {**uses(tmp_path / "adapter", tmp_path / "out"), "merge": merge}[command]
    assert f"the adapter is of kind {kind}, learnt tokens beside the prompt's own" in said(words, capsys)
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_changes_weights_otherwise_than_lora_is_merged(tiny: Path, tmp_path: Path) -> None:
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(tmp_path / "adapter")
    result = merge_adapter(MergeSettings(adapter=tmp_path / "adapter", output_dir=tmp_path / "merged"))
    assert result.difference < 1e-4


# ---- precision and kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", None])
@pytest.mark.parametrize("command", ["generate", "train dpo", "train reward"])
def test_weights_of_few_bits(
    method: str | None, command: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said_of_it = {"bits": 4, "group_size": 128, **({"quant_method": method} if method else {"load_in_4bit": True})}
    model = with_config(tiny, tmp_path / "model", quantization_config=said_of_it)
    line = said(uses(model, tmp_path / "out")[command], capsys)
    assert f"{model} is quantised ({method or 'config.json'}" in line
    assert not (tmp_path / "out").exists()


IMAGES = {
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "LlavaForConditionalGeneration": "llava",
    "Mistral3ForConditionalGeneration": "mistral3",
    "MllamaForConditionalGeneration": "mllama",
    "WhisperForConditionalGeneration": "whisper",
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("command", ["generate", "train dpo", "train reward"])
def test_models_of_images_or_sound(
    kind: str, command: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sees = {} if kind.startswith("Whisper") else {"vision_config": {"hidden_size": 8}}
    model = with_config(tiny, tmp_path / "model", architectures=[kind], model_type=IMAGES[kind], **sees)
    line = said(uses(model, tmp_path / "out")[command], capsys)
    assert kind in line
    assert not (tmp_path / "out").exists()


# ---- pickles of others ---------------------------------------------------------------------------------------------


class Malicious:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin"])
def test_weights_in_a_pickle_run_no_code(
    name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("adapter"):
        config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
        get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(tmp_path / "model")
        (tmp_path / "model" / "adapter_model.safetensors").unlink()
    else:
        with_config(tiny, tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").unlink()
    capsys.readouterr()
    for content in (pickle.dumps(Malicious(tmp_path / "ran")), _as_torch(Malicious(tmp_path / "ran"), tmp_path)):
        (tmp_path / "model" / name).write_bytes(content)
        said(uses(tmp_path / "model", tmp_path / "out")["generate"], capsys)
        assert not (tmp_path / "ran").exists()


def _as_torch(value: object, folder: Path) -> bytes:
    torch.save({"weight": value}, folder / "saved")
    return (folder / "saved").read_bytes()


# ---- rewards that are no numbers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[math.nan, math.inf])
def broken_reward(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, of a head that gives no finite number."""
    folder = tmp_path_factory.mktemp("reward")
    tiny_runs.run("reward", tiny, folder / "run", max_steps=1, save_strategy="no", eval_strategy="no")
    (folder / "run" / "model" / "checksums.json").unlink()
    weights = load_file(folder / "run" / "model" / "model.safetensors")
    weights["score.weight"].fill_(request.param)
    save_file(weights, folder / "run" / "model" / "model.safetensors", {"format": "pt"})
    return folder / "run" / "model"


def responses(folder: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        rows = [{"prompt": f"Question {n}?", "response": f"Answer {n} of {name}."} for n in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "one.jsonl", folder / "two.jsonl"


NOT_FINITE = r"rewards are no finite numbers, the first of them (nan|inf|-inf) of (row 1|the response .*Answer)"


def test_rewards_without_a_number_are_not_scored(broken_reward: Path, tmp_path: Path) -> None:
    one, _ = responses(tmp_path)
    settings = ScoreSettings(data=(str(one),), reward_model=str(broken_reward), output=tmp_path / "s.jsonl")
    with pytest.raises(UserError, match=NOT_FINITE):
        score_responses(settings)
    assert not (tmp_path / "s.jsonl").exists()


def test_rewards_without_a_number_judge_nothing(broken_reward: Path, tmp_path: Path) -> None:
    one, two = map(str, responses(tmp_path))
    judge = f"reward:{broken_reward}"
    with pytest.raises(UserError, match=NOT_FINITE):
        judge_responses(JudgeSettings(responses=one, opponent=two, judge=judge, output=tmp_path / "v.json"))
    assert not (tmp_path / "v.json").exists()


def test_rewards_without_a_number_compare_nothing(broken_reward: Path, tmp_path: Path) -> None:
    one, two = map(str, responses(tmp_path))
    with pytest.raises(UserError, match=NOT_FINITE):
        compare_models(CompareSettings(models=(one, two), reward_model=(str(broken_reward),), out=tmp_path / "study"))
    assert not (tmp_path / "study" / "report.html").exists()


def test_rewards_without_a_number_are_no_frontier(tiny: Path, broken_reward: Path, tmp_path: Path) -> None:
    settings = FrontierSettings(
        models=(f"same={tiny}",),
        reference=str(tiny),
        reward_model=str(broken_reward),
        prompts=(PROMPTS,),
        best_of_n=(2,),
        max_new_tokens=4,
        out=tmp_path / "frontier",
    )
    with pytest.raises(UserError, match=r"rewards are no finite numbers, the first of them \S+ of the response"):
        measure_frontier(settings)
    assert not (tmp_path / "frontier" / "frontier.json").exists()
