"""Scoring: one reward for a response, whoever asks, in whatever batch, and from whichever of a run's folders."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from scored_models import FAMILIES, both_scores, policy, reward_settings, scored, some_words, write
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preflab.core.records import Comparison, Message, UserError
from preflab.core.rundir import read_json, read_jsonl
from preflab.data.splits import load_template, template_of
from preflab.model.load import load_model
from preflab.model.save import save_model
from preflab.rewards.rows import summarize
from preflab.sample.score import load_scores, score_responses
from preflab.sample.settings import ScoreSettings
from preflab.training.merge import merge_adapter
from preflab.training.model import load_trainable
from preflab.training.reward import train_reward
from preflab.training.settings import MergeSettings
from preflab.training.steps import Responses, means, reward_step


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    draw = random.Random(0)
    rows = [
        {"prompt": some_words(draw), "chosen": some_words(draw, 20), "rejected": some_words(draw), "topic": n % 3}
        for n in range(7)
    ]
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", *rows)


def reward_model(folder: Path, architecture: str, pairs: str) -> Path:
    """A reward model's folder as training leaves it, without the training."""
    settings = reward_settings(policy(folder / architecture, architecture), pairs, folder)
    template = load_template(settings)
    torch.manual_seed(0)
    model = load_trainable(settings, "reward", template, torch.device("cpu"))
    return save_model(model, template.tokenizer, folder / f"{architecture}-reward", stop_ids=template.stop_ids)


def plain_scores(folder: Path, rows: Iterable[dict[str, Any]], *, padding_side: str = "right") -> np.ndarray[Any, Any]:
    """What transformers alone makes of whole conversations, in one padded batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=padding_side)
    chats = [
        [*row["prompt"], {"role": "assistant", "content": row[side]}] for row in rows for side in ("chosen", "rejected")
    ]
    batch = tokenizer.apply_chat_template(chats, padding=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return output.logits[:, 0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FAMILIES)
def test_plain_transformers_gives_the_same_scores(architecture: str, pairs: str, tmp_path: Path) -> None:
    folder = reward_model(tmp_path, architecture, pairs)
    rows = scored(folder, pairs, tmp_path / "s.jsonl")
    # GPT-2 has absolute positions, and plain transformers counts padding on the left among them.
    for side in ("right",) if architecture == "gpt2" else ("right", "left"):
        assert plain_scores(folder, rows, padding_side=side) == pytest.approx(both_scores(rows), abs=1e-4)
    assert both_scores(rows).std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])  # the latter needs a row for a pad token
def test_an_adapter_and_the_merged_model_score_alike(architecture: str, pairs: str, tmp_path: Path) -> None:
    settings = reward_settings(policy(tmp_path / architecture, architecture), pairs, tmp_path / "run", lora=True)
    merged = train_reward(settings).model
    assert merged.name == "merged_model"
    of_merged = both_scores(scored(merged, pairs, tmp_path / "merged.jsonl"))
    adapter = tmp_path / "run" / "adapter"
    of_adapter = both_scores(scored(adapter, pairs, tmp_path / "adapter.jsonl"))
    assert of_adapter == pytest.approx(of_merged, abs=1e-4)
    again = merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path / "again")).model
    assert plain_scores(again, read_jsonl(tmp_path / "adapter.jsonl")) == pytest.approx(of_merged, abs=1e-4)


@pytest.mark.slow
def test_a_score_does_not_depend_on_the_batch(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reward_model(tmp_path, "gpt_neox", pairs)
    together = both_scores(scored(folder, pairs, tmp_path / "a.jsonl", batch_size=7))
    alone = both_scores(scored(folder, pairs, tmp_path / "b.jsonl", batch_size=1))
    some = both_scores(scored(folder, f"{pairs}[2:5]", tmp_path / "c.jsonl"))
    monkeypatch.setattr("preflab.model.responses.shares_prefix", lambda _: False)
    padded = both_scores(scored(folder, pairs, tmp_path / "d.jsonl", batch_size=7))
    for other in (alone, padded):
        assert other == pytest.approx(together, abs=1e-4)
    assert some == pytest.approx(together[4:10], abs=1e-4)


# ---- training and scoring -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    tiny_runs.run("reward", tiny_runs.write_model(folder / "base"), folder / "run", max_steps=3)
    return folder / "run"


def test_scoring_gives_what_the_last_evaluation_gave(trained: Path, tmp_path: Path) -> None:
    limits = {name: tiny_runs.DEFAULTS[name] for name in ("max_length", "max_prompt_length")}
    rows = scored(trained / "model", tiny_runs.HELD_OUT, tmp_path / "s.jsonl", **limits)
    evaluated = read_json(trained / "reward_model_eval_results.json")
    assert both_scores(rows) == pytest.approx(both_scores(evaluated), abs=1e-4)
    summary = read_json(tmp_path / "s.summary.json")
    for name in ("accuracy", "reward_mean", "reward_std"):
        assert summary[name] == pytest.approx(tiny_runs.history(trained, f"eval_{name}")[-1], abs=1e-4)


def test_figures_follow_the_rules_of_training() -> None:
    values = [2.0, 1.0, 3.0, 0.5, 0.5, 1.0, 0.0, -1.0]
    totals = reward_step(Responses(torch.tensor(values), torch.ones(8), (3, 2, 3))).totals
    rows = [
        {"responses": ["a"] * 3, "scores": values[:3]},
        {"score_chosen": 0.5, "score_rejected": 0.5},
        {"responses": ["a"] * 3, "scores": values[5:]},
    ]
    figures = summarize(rows)
    expected = means(totals)
    assert (figures["rows"], figures["responses"], figures["pairs"]) == (3, 8, 7)
    for name in ("accuracy", "reward_mean", "reward_std"):
        assert figures[name] == pytest.approx(expected[name])
    assert figures["accuracy"] == pytest.approx((1 / 3 + 1 / 2 + 1) / 3), "a tie is half a success"
    assert "accuracy" not in summarize([{"score": 1.0}, {"score": 2.0}])


# ---- rows -----------------------------------------------------------------------------------------------------------

PROMPT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "How can I help?"},
]


def test_a_pair_gives_both_texts_and_scores(trained: Path, pairs: str, tmp_path: Path) -> None:
    first = scored(trained / "model", pairs, tmp_path / "s.jsonl")[0]
    assert list(first) == ["row", "prompt", "chosen", "rejected", "score_chosen", "score_rejected", "meta"]
    given = json.loads(Path(pairs).read_text().splitlines()[0])
    assert (first["row"], first["chosen"], first["rejected"]) == (1, given["chosen"], given["rejected"])
    assert first["prompt"] == [{"role": "user", "content": given["prompt"]}]
    assert first["meta"] == {"topic": 0}


def test_a_ranking_gives_all_its_scores_in_order(trained: Path, tmp_path: Path) -> None:
    texts = ["Hello there.", "Hi!", "Two.", "I do not know."]
    ranking = write(tmp_path / "ranked.jsonl", {"prompt": PROMPT, "responses": texts})
    single = write(tmp_path / "single.jsonl", *({"prompt": PROMPT, "response": text} for text in texts))
    (row,) = scored(trained / "model", ranking, tmp_path / "a.jsonl")
    assert (row["responses"], row["prompt"]) == (texts, PROMPT)
    one_by_one = scored(trained / "model", single, tmp_path / "b.jsonl")
    assert row["scores"] == pytest.approx([line["score"] for line in one_by_one], abs=1e-4)
    assert [(line["row"], line["sample"]) for line in one_by_one] == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_generated_responses_keep_their_places_and_what_is_known_of_them(trained: Path, tmp_path: Path) -> None:
    places = {"row": 40, "sample": 2, "prompt": PROMPT, "response": "Two."}
    line = {**places, "tokens": 3, "finish": "eos", "meta": {"row": 1, "topic": "sums"}}
    data = write(tmp_path / "responses.jsonl", line)
    (row,) = scored(trained / "model", data, tmp_path / "s.jsonl")
    assert {name: row[name] for name in places} == places
    assert list(row) == ["row", "sample", "prompt", "response", "score", "meta"]
    assert row["meta"] == {"tokens": 3, "finish": "eos", "topic": "sums"}


def test_rows_that_cannot_be_scored_are_all_listed(trained: Path, tmp_path: Path) -> None:
    good, empty = {"prompt": "Hi", "response": "Two."}, {"prompt": "Hi", "response": " "}
    long = {"prompt": "Hi", "response": "word " * 300}
    data = write(tmp_path / "r.jsonl", *[empty] * 12, good, long, {"prompt": "Hi", "response": "<|im_end|>"}, good)
    rows = scored(trained / "model", data, tmp_path / "s.jsonl", max_length=100)
    assert [row["row"] for row in rows] == [13, 16]
    dropped = read_json(tmp_path / "s.summary.json")["dropped"]
    found = {reason: (lost["count"], lost["rows"]) for reason, lost in dropped.items()}
    assert found == {
        "empty response": (12, list(range(1, 13))),
        "too long": (1, [14]),
        "control token in the text": (1, [15]),
    }


def test_a_long_prompt_is_cut_as_in_training(trained: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "r.jsonl", {"prompt": "word " * 90 + "What is two plus two?", "response": "Four."})
    (cut,) = scored(trained / "model", data, tmp_path / "a.jsonl", max_prompt_length=12)
    (whole,) = scored(trained / "model", data, tmp_path / "b.jsonl")
    template = template_of(str(trained / "model"), None, task="reward")
    row = Comparison((Message("user", "word " * 90 + "What is two plus two?"),), ("Four.",))
    ids = template.encode(row, max_prompt_length=12)
    model = load_model(str(trained / "model"), "reward", dtype=torch.float32)
    with torch.no_grad():
        expected = float(model(input_ids=torch.tensor([ids.prompt_ids + ids.response_ids[0]])).logits)
    assert len(ids.prompt_ids) == 12
    assert cut["score"] == pytest.approx(expected, abs=1e-4)
    assert cut["score"] != pytest.approx(whole["score"], abs=1e-3)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_a_model_without_a_trained_head_is_refused(pairs: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained reward head"):
        scored(policy(tmp_path / "qwen2", "qwen2"), pairs, tmp_path / "s.jsonl")
    assert not (tmp_path / "s.jsonl").exists()


def test_an_adapter_without_a_trained_head_is_refused(pairs: str, tmp_path: Path) -> None:
    base = policy(tmp_path / "qwen2", "qwen2")
    inner = load_model(str(base), "reward", dtype=torch.float32, fresh_head=True)
    adapted = get_peft_model(inner, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "score" not in name}, path)
    with pytest.raises(UserError, match="no trained reward head"):
        scored(tmp_path / "adapter", pairs, tmp_path / "s.jsonl")


def test_what_the_columns_are_read_as_is_told_each_time(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "p.jsonl", {"question": "a", "chosen": "b", "rejected": "c", "why": "d"})
    for name in ("one", "two"):  # the second has its rows from the cache
        scored(trained / "model", data, tmp_path / f"{name}.jsonl")
        assert "columns: question -> prompt, chosen, rejected; kept as meta: why\n" in capsys.readouterr().err


def test_prompts_alone_cannot_be_scored(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no response that can be scored\n  no response: 2"):
        scored(trained / "model", write(tmp_path / "p.jsonl", {"prompt": "a"}, {"prompt": "b"}), tmp_path / "s.jsonl")


@pytest.mark.slow
def test_scores_of_another_model_are_not_overwritten_unasked(trained: Path, pairs: str, tmp_path: Path) -> None:
    output = tmp_path / "s.jsonl"
    before = both_scores(scored(trained / "model", pairs, output))
    other = reward_model(tmp_path, "qwen2", pairs)
    with pytest.raises(UserError, match="reward_model: "):
        scored(other, pairs, output)
    assert both_scores(scored(trained / "model", pairs, output)) == pytest.approx(before, abs=0)
    assert not np.allclose(both_scores(scored(other, pairs, output, overwrite=True)), before)


def test_a_summary_that_does_not_follow_from_the_rows_is_an_error(trained: Path, pairs: str, tmp_path: Path) -> None:
    scored(trained / "model", pairs, tmp_path / "s.jsonl")
    lines = (tmp_path / "s.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "s.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="rows, prompts, responses, pairs"):
        load_scores(tmp_path / "s.jsonl")


@pytest.mark.slow
def test_rows_of_several_sources_name_their_own(trained: Path, pairs: str, tmp_path: Path) -> None:
    specs = (f"{pairs}[:3]", f"{pairs}[3:]")
    result = score_responses(
        ScoreSettings(data=specs, reward_model=str(trained / "model"), output=tmp_path / "s.jsonl")
    )
    rows = list(read_jsonl(result.output))
    assert [row["source"] for row in rows] == [specs[0]] * 3 + [specs[1]] * (len(rows) - 3)
    assert {name: found["rows"] for name, found in result.summary["sources"].items()} == {
        specs[0]: 3,
        specs[1]: len(rows) - 3,
    }
    alone = score_responses(
        ScoreSettings(data=(pairs,), reward_model=str(trained / "model"), output=tmp_path / "one.jsonl")
    )
    assert "source" not in next(iter(read_jsonl(alone.output)))
    assert "sources" not in alone.summary
