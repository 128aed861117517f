"""Judges in this process: a local model, a reward model and the gold reward; and a local model behind a real server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from endpoint_judgements import judged
from safetensors.torch import save_file

from preflab.core.records import UserError
from preflab.core.rundir import read_jsonl
from preflab.data.tokenize import ChatTemplate
from preflab.judging.command import JudgeResult, judge_responses
from preflab.judging.estimate import Cost
from preflab.judging.local import LocalJudge
from preflab.judging.parse import Failure, Reply
from preflab.judging.settings import JudgeSettings
from preflab.model.load import load_model
from preflab.model.tokenizers import load_tokenizer
from preflab.sample.score import score_responses
from preflab.sample.settings import ScoreSettings
from preflab.sandbox.gold import gold_reward
from preflab.sandbox.source import sandbox_source

PAIRS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sandbox's model, with room for a judge's prompt (its positions are rotary, so it only has to be told)."""
    folder = tiny_runs.write_model(tmp_path_factory.mktemp("judge") / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


@pytest.fixture(scope="module")
def reward_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.run("reward", model, tmp_path_factory.mktemp("judge") / "reward", max_steps=1).model


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    rows = list(sandbox_source(f"sandbox:preferences?rows={PAIRS}&style=TRL"))
    for name in ("chosen", "rejected"):
        lines = [json.dumps({"prompt": row["prompt"], "response": row[name]}) + "\n" for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return str(tmp_path / "chosen.jsonl"), str(tmp_path / "rejected.jsonl")


def judge_with(judge: str, files: tuple[str, str], tmp_path: Path, **changes: Any) -> JudgeResult | Cost:
    given: dict[str, Any] = {"output": tmp_path / "verdicts.json", "judge_max_tokens": 8, **changes}
    return judge_responses(JudgeSettings(responses=files[0], opponent=files[1], judge=judge, **given))


def test_a_model_that_cannot_judge_ends_in_named_errors(model: Path, files: tuple[str, str], tmp_path: Path) -> None:
    result = judge_with(f"hf:{model}", files, tmp_path)
    assert isinstance(result, JudgeResult)
    found = result.verdicts.judgements
    assert len(found) == 2 * PAIRS
    assert {one.outcome for one in found} == {"error"}
    assert all("token cap" in one.reason or "no verdict" in one.reason or "empty" in one.reason for one in found)
    assert any(one.text for one in found)
    assert "error" in str(result)


def test_first_token_probabilities_of_a_local_model(model: Path, files: tuple[str, str], tmp_path: Path) -> None:
    result = judge_with(f"hf:{model}", files, tmp_path, verdict_from="first_token", concurrency=3)
    assert isinstance(result, JudgeResult)
    found = result.verdicts.judgements
    assert {one.outcome for one in found} <= {"win", "loss"}
    assert all(one.preference is not None and 0 < one.preference < 1 for one in found)
    assert len({one.preference for one in found}) > PAIRS
    # By hand: the whole softmax after one prompt alone, over every token that reads A or B.
    loaded, plain = (load_model(str(model), "policy", dtype=torch.float32).eval() for _ in range(2))
    template = ChatTemplate(load_tokenizer(str(model)))
    local = LocalJudge(loaded, template, {}, temperature=0, max_tokens=1, first_token=True, batch_size=2, seed=0)
    replies: dict[int, Reply | Failure] = {}
    prompts = ["What is it?", "A much longer prompt than the other one."]
    local.ask(prompts, lambda _: None, replies.__setitem__)
    for index, prompt in enumerate(prompts):
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        with torch.no_grad():
            logits = plain(input_ids=template.tokenizer(text, return_tensors="pt").input_ids).logits[0, -1]
        expected: dict[str, float] = {}
        for token, probability in enumerate(logits.softmax(-1).tolist()):
            word = template.tokenizer.decode([token])
            if word.strip() in ("A", "B"):
                expected[word] = expected.get(word, 0.0) + probability
        reply = replies[index]
        assert isinstance(reply, Reply)
        assert reply.first_token is not None
        assert {word: pytest.approx(p, rel=1e-4) for word, p in expected.items()} == {
            word: torch.tensor(logp).exp().item() for word, logp in reply.first_token.items()
        }
        assert reply.text.strip() in ("A", "B")


def test_a_prompt_that_a_local_model_cannot_hold_is_an_error(
    model: Path, files: tuple[str, str], tmp_path: Path
) -> None:
    for name, text in (("chosen", "word " * 5000), ("rejected", "so <|im_end|> it ends")):
        path = tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[name == "rejected"]["response"] = text
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = judge_with(f"hf:{model}", files, tmp_path, verdict_from="first_token")
    assert isinstance(result, JudgeResult)
    reasons = [one.reason for one in result.verdicts.judgements]
    assert all("4096 is the most" in reason for reason in reasons[:2])
    assert all("control token" in reason for reason in reasons[2:4])
    assert not any(reasons[4:])
    estimate = judge_with(f"hf:{model}", files, tmp_path, dry_run=True, output=tmp_path / "new.json")
    assert isinstance(estimate, Cost)
    assert "judge's tokenizer" in estimate.counted
    assert estimate.input_tokens > 0


def test_a_reward_model_prefers_the_higher_score(reward_model: Path, files: tuple[str, str], tmp_path: Path) -> None:
    path = Path(files[0])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["response"] = ""
    rows[2]["response"] = json.loads(Path(files[1]).read_text().splitlines()[2])["response"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = judge_with(f"reward:{reward_model}", files, tmp_path)
    assert isinstance(result, JudgeResult)
    found = result.verdicts.judgements
    assert [one.order for one in found] == [None] * PAIRS
    assert found[1].outcome == "error"
    assert "the model's response could not be scored (empty response" in found[1].reason
    assert found[2].outcome == "tie"
    for one in (found[0], *found[3:]):
        ours, theirs = (float(word) for word in one.text.replace(",", "").split() if word.lstrip("-")[0].isdigit())
        assert one.outcome == ("win" if ours > theirs else "loss")
    # Nothing of asking a language model bears on a scorer; the weights do.
    judge_with(f"reward:{reward_model}", files, tmp_path, orders="random")
    assert json.loads((tmp_path / "verdicts.json").read_text())["metadata"]["judge_parameters"]["weights"]


def test_a_reward_model_judges_by_the_scores_that_scoring_gives(
    reward_model: Path, files: tuple[str, str], tmp_path: Path
) -> None:
    limits = {"max_length": 60, "max_prompt_length": 4}  # which cut every prompt
    scores = []
    for name, data in zip(("ours", "theirs"), files, strict=True):
        output = tmp_path / "scores" / f"{name}.jsonl"
        score_responses(ScoreSettings(data=(data,), reward_model=str(reward_model), output=output, **limits))
        scores.append([row["score"] for row in read_jsonl(output)])
    result = judge_with(f"reward:{reward_model}", files, tmp_path, **limits)
    assert isinstance(result, JudgeResult)
    texts = [one.text for one in result.verdicts.judgements]
    assert texts == [f"score of the model {a:g}, of the opponent {b:g}" for a, b in zip(*scores, strict=True)]
    with pytest.raises(UserError, match="made from other inputs"):
        judge_with(f"reward:{reward_model}", files, tmp_path)
    short = {"max_length": 4, "max_prompt_length": 3, "output": tmp_path / "short.json"}
    result = judge_with(f"reward:{reward_model}", files, tmp_path, **short)
    assert isinstance(result, JudgeResult)
    assert {one.outcome for one in result.verdicts.judgements} == {"error"}
    assert "too long" in result.verdicts.judgements[0].reason


def test_gold_prefers_the_higher_gold_reward(files: tuple[str, str], tmp_path: Path) -> None:
    first, second = (Path(path).read_text().splitlines(keepends=True) for path in files)
    Path(files[0]).write_text("".join([second[0], *first[1:]]))
    Path(files[1]).write_text("".join([first[0], *second[1:]]))
    result = judge_with("gold", files, tmp_path)
    assert isinstance(result, JudgeResult)
    both = [[json.loads(line) for line in Path(path).read_text().splitlines()] for path in files]
    for one, ours, theirs in zip(result.verdicts.judgements, *both, strict=True):
        margin = gold_reward(ours["prompt"], ours["response"]) - gold_reward(theirs["prompt"], theirs["response"])
        assert one.outcome == ("win" if margin > 0 else "loss" if margin < 0 else "tie")
    assert {one.outcome for one in result.verdicts.judgements} >= {"win", "loss"}


# ---- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tiny model behind `transformers serve`, on the loopback interface. All its logits are equal, so it replies with
    the first token of its vocabulary, over and over.
    """
    model = tiny_runs.write_model(tmp_path / "model")
    weights = tiny_runs.weights(model)
    save_file(weights | {"model.norm.weight": 0 * weights["model.norm.weight"]}, model / "model.safetensors")
    pytest.importorskip("fastapi", reason="transformers serve needs it")
    pytest.importorskip("uvicorn", reason="transformers serve needs it")
    serve = pytest.importorskip("transformers.cli.serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve.Serve(force_model=str(model), host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    try:
        until = time.monotonic() + 30
        while not server.server.started and time.monotonic() < until:
            time.sleep(0.02)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        yield str(model)
    finally:
        server.kill_server()


@pytest.mark.slow
def test_a_model_served_by_transformers_is_asked(served: str, files: tuple[str, str], tmp_path: Path) -> None:
    given = JudgeSettings(
        responses=files[0],
        opponent=files[1],
        judge=f"openai:{served}",
        output=tmp_path / "verdicts.json",
        judge_max_tokens=8,
        orders="random",
        retries=0,
    )
    found = judged(given).verdicts.judgements
    assert len(found) == PAIRS
    # It cannot judge, but it did reply.
    assert {(one.outcome, one.text, one.reason) for one in found} == {
        ("error", "!" * 8, "the reply was cut off at the token cap before its verdict")
    }
