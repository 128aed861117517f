"""What a template is told besides messages: the date, and values for its switches, in experiments and studies."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import tiny_tokenizers
from command_line import preflab
from thinking_templates import TEMPLATES
from tiny_models import tiny_model
from transformers.utils import chat_template_utils

from preflab.core.records import Message
from preflab.core.rundir import read_json, read_jsonl
from preflab.data.templates import CHAT_TEMPLATES, template_values
from preflab.data.tokenize import ChatTemplate
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer

pytestmark = pytest.mark.slow

ROWS = [{"prompt": f"Hello {n}", "chosen": "Hi !", "rejected": "What ?"} for n in range(4)]
DATED = "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '.<|im_end|>\n' }}" + CHAT_TEMPLATES["chatml"]


def model_with(folder: Path, template: str) -> Path:
    tokenizer = tiny_tokenizers.qwen()
    tokenizer.chat_template = template
    return save_model(tiny_model("qwen2", vocab_size=len(tokenizer)), tokenizer, folder)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


# ---- the date --------------------------------------------------------------------------------------------------------


def on(day: datetime.date, patch: pytest.MonkeyPatch) -> None:
    """Let transformers, which gives templates the date, think that it is another day."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
            return cls(day.year, day.month, day.day, 9, tzinfo=tz)

    patch.setattr(chat_template_utils, "datetime", Clock)


DAYS = (datetime.date(2025, 3, 1), datetime.date(2026, 11, 28))


def test_two_days_give_the_same_training(
    rows: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with(tmp_path / "model", DATED)
    chat = [{"role": "user", "content": "Hello"}]
    shown, weights, fingerprints, caches = [], [], [], []
    for number, day in enumerate(DAYS):
        on(day, monkeypatch)
        shown.append(load_tokenizer(str(model)).apply_chat_template(chat, tokenize=False))
        run = tmp_path / f"run-{number}"
        tiny_runs.run("sft", model, run, train_data=(rows,), eval_data=(), max_steps=2)
        weights.append((run / "model" / "model.safetensors").read_bytes())
        fingerprints.append(read_json(run / "stage.json")["fingerprint"])
        caches.append(sorted(path.name for path in own_cache.iterdir() if path.name != "bfloat16.json"))
    assert shown[0] != shown[1], "to transformers alone it is another day"
    assert weights[0] == weights[1]
    assert fingerprints[0] == fingerprints[1]
    assert caches[0] == caches[1], "what was tokenised on the first day is used on the second"


def test_the_same_command_goes_on_another_day(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_with(tmp_path / "model", DATED)
    words = ("--model", model, "--prompts", rows, "--temperature", "0", "--max-new-tokens", "4")
    for day in DAYS:
        on(day, monkeypatch)
        assert preflab("generate", *words, "--output", tmp_path / "answers.jsonl") == 0
        assert preflab("generate", *words, "--output", tmp_path / f"{day}.jsonl") == 0
    first, second = (list(read_jsonl(tmp_path / f"{day}.jsonl")) for day in DAYS)
    assert first == second == list(read_jsonl(tmp_path / "answers.jsonl"))


@pytest.mark.parametrize("name", ["llama3_1", "llama3_2", "gptoss", "cohere2"])
def test_a_shipped_template_is_rendered_alike_every_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizers.llama3()
    try:
        tokenizer.chat_template = tiny_tokenizers.shipped_template(name)
    except FileNotFoundError:
        pytest.skip(f"this TRL does not ship {name}")
    found = []
    for day in DAYS:
        on(day, monkeypatch)
        template = ChatTemplate(tokenizer)
        found.append((template.fingerprint, template.prompt_ids((Message("user", "Hello"),))))
    assert found[0] == found[1]


# ---- switches, in experiments ----------------------------------------------------------------------------------------

EXPERIMENT = """
output_dir: {folder}/out
settings: {{report_to: none, dtype: float32, bf16: false}}
stages:
  sft:
    run: train sft
    model: {folder}/model
    train_data: {rows}
    max_steps: 1
    chat_template_kwargs: {{enable_thinking: false}}
  answers:
    run: generate
    model: ${{sft}}
    prompts: ["{rows}"]
    max_new_tokens: 5
    temperature: 0
    sweep:
      chat_template_kwargs: [{{}}, {{enable_thinking: true}}]
"""


def test_an_experiment_sets_and_sweeps_the_switches(
    rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_with(tmp_path / "model", TEMPLATES["opens"])
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT.format(folder=tmp_path, rows=rows))
    assert preflab("run", file) == 0
    out = tmp_path / "out"
    tokenizer: Any = load_tokenizer(str(out / "sft" / "model"))
    assert template_values(tokenizer.chat_template)[0] == {"enable_thinking": "false"}
    manifests = [read_json(path) for path in sorted(out.glob("answers-*/responses.manifest.json"))]
    assert sorted(json.dumps(each["settings"]["chat_template_kwargs"]) for each in manifests) == [
        '{"enable_thinking": true}',
        "{}",
    ]
    by_value = {
        bool(read_json(path)["settings"]["chat_template_kwargs"]): list(read_jsonl(path.parent / "responses.jsonl"))
        for path in out.glob("answers-*/responses.manifest.json")
    }
    assert all(row["response"] == "" and row["reasoning"] for row in by_value[True]), "the prompt opens a thought"
    assert all(row["response"] and "reasoning" not in row for row in by_value[False]), "as the model was trained"
    said = " ".join(capsys.readouterr().err.split())
    assert "was made with enable_thinking=false, and is used here with enable_thinking=true" in said
    assert preflab("run", file) == 0
    assert "0 done now, 3 before" in " ".join(capsys.readouterr().out.split())
    assert preflab("run", file, "--dry-run", "sft.chat_template_kwargs={enable_thinking: true}") == 0
    assert "needs --overwrite" in capsys.readouterr().out


# ---- switches, in studies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["compare", "grid"])
def test_a_study_of_models_of_which_one_lacks_the_switch(
    command: str, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thinking, plain = model_with(tmp_path / "a", TEMPLATES["opens"]), model_with(tmp_path / "b", TEMPLATES["plain"])
    words = (thinking, plain, "--prompts", rows, "--judge", "gold", "--out", tmp_path / "out", "--max-new-tokens", "4")
    assert preflab(command, *words, "--chat-template-kwargs", "enable_thinking=false") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Error: ") == 1
    assert f"the chat template of {plain} does not mention enable_thinking, so that would change nothing. " in said
    assert f"{thinking} would take it: let each model answer with values of its own (preflab generate)" in said
    assert not (tmp_path / "out").exists()
    assert preflab(command, *words, "--chat-template-kwargs", "enable_thinkin=false") == 2
    assert "let each model" not in capsys.readouterr().err
