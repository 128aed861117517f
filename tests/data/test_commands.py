"""The commands without a room of their own: inspect and sandbox; and the package's public names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_runs
import torch
from tiny_tokenizers import gemma3, llama3, mistral, pythia, qwen

from preflab.core.records import Comparison, Message, UserError
from preflab.data.command import inspect_data
from preflab.data.settings import InspectSettings
from preflab.data.sources import open_source
from preflab.data.templates import apply_named_template
from preflab.data.tokenize import ChatTemplate
from preflab.model.load import load_model
from preflab.model.tokenizers import load_tokenizer
from preflab.sandbox.command import write_sandbox
from preflab.sandbox.settings import SandboxSettings

PREFERENCES = "sandbox:preferences?rows=12"


def test_inspection_is_text_for_people_and_json_for_programs() -> None:
    result = inspect_data(InspectSettings(source=(PREFERENCES,)))
    assert "12, of which 12 can be used" in str(result)
    assert "\x1b" not in str(result)
    text = str(inspect_data(InspectSettings(source=(PREFERENCES,), json_output=True)))
    found = json.loads(text)
    assert (found["rows"], found["usable"], found["formats"]) == (12, 12, ["HOMEWORK"])
    assert text.isascii()  # and so without anything that could move a terminal's cursor


def test_inspection_with_a_model_renders_rows_as_training_sees_them(tmp_path: Path) -> None:
    model = tiny_runs.write_model(tmp_path / "model")
    result = inspect_data(InspectSettings(source=(PREFERENCES,), model=str(model), rows=2, max_prompt_length=8))
    assert len(result.inspection.rendered) == 4
    assert result.inspection.cut_prompts.count == 12
    assert "trained" in str(result)


def test_a_template_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="--model"):
        inspect_data(InspectSettings(source=(PREFERENCES,), chat_template="chatml"))


def test_the_sandbox_as_files_is_the_sandbox_as_a_source(tmp_path: Path) -> None:
    settings = SandboxSettings(output_dir=tmp_path / "box", rows=6, eval_rows=3, seed=4)
    files = write_sandbox(settings).files
    for name, kind in {"HOMEWORK": "preferences?style=HOMEWORK&", "prompts": "prompts?"}.items():
        for split, rows in (("train", 6), ("test", 3)):
            written = [row for _, row in open_source(str(files[f"{name} ({split})"]))]
            assert written == [row for _, row in open_source(f"sandbox:{kind}rows={rows}&split={split}&seed=4")]
    assert load_model(str(files["model"]), "policy", dtype=torch.float32).num_parameters() > 0
    assert load_tokenizer(str(files["model"])).chat_template
    before = {path: path.read_bytes() for path in (tmp_path / "box").rglob("*.jsonl")}
    write_sandbox(settings)
    assert {path: path.read_bytes() for path in (tmp_path / "box").rglob("*.jsonl")} == before
    with pytest.raises(UserError, match="rows: 6 there, 7 now"):
        write_sandbox(settings.model_copy(update={"rows": 7}))


def test_the_sandbox_is_not_written_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="holds files but no run"):
        write_sandbox(SandboxSettings(output_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("family", [qwen, llama3, gemma3, mistral, pythia])
def test_a_reward_models_template_ends_where_training_did(family: object) -> None:
    tokenizer = family()  # type: ignore[operator]
    if tokenizer.chat_template is None:
        apply_named_template(tokenizer, "human-assistant")
    template = ChatTemplate(tokenizer)
    turns = [("user", "Hello"), ("assistant", "Hi !"), ("user", "What is two plus two ?"), ("assistant", "four")]
    row = template.encode(Comparison(tuple(Message(*turn) for turn in turns[:-1]), ("four",)))  # type: ignore[arg-type]
    tokenizer.chat_template = template.ending_at_terminator
    chat = [{"role": role, "content": content} for role, content in turns]
    whole = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    opened = tokenizer.apply_chat_template(chat[:-1], tokenize=True, return_dict=False, add_generation_prompt=True)
    assert whole == [*row.prompt_ids, *row.response_ids[0]]
    assert opened == list(row.prompt_ids)
    again = ChatTemplate(tokenizer)
    assert again.ending_at_terminator == tokenizer.chat_template
    assert again.stop_ids == template.stop_ids
