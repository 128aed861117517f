"""The cases of models that think: the files themselves, through the command line, with small models of their kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_judge
import pytest
import tiny_tokenizers
from command_line import preflab
from fake_judge import FakeJudge
from shared_cases import case
from thinking_templates import CHANNEL_MARKS
from tiny_models import tiny_model

from preflab.core.rundir import read_json, read_jsonl
from preflab.data.templates import CHAT_TEMPLATES
from preflab.model.save import save_model

pytestmark = pytest.mark.slow

WORDS = ("--max-steps", "1", "--report-to", "none", "--max-length", "1024", "--max-prompt-length", "768", "--no-bf16")


def model_with(folder: Path, template: str) -> str:
    """A small model whose tokenizer brings a template that TRL ships."""
    tokenizer = tiny_tokenizers.qwen()
    try:
        tokenizer.chat_template = tiny_tokenizers.shipped_template(template)
    except FileNotFoundError:
        pytest.skip(f"this TRL does not ship {template}")
    if template == "gptoss":
        marks = ["<|im_start|>", *CHANNEL_MARKS, "<|constrain|>", "<|call|>"]
        tokenizer.add_special_tokens({"extra_special_tokens": marks})
    # gpt-oss has a long system message of its own.
    model = tiny_model("qwen2", vocab_size=len(tokenizer), max_position_embeddings=1024)
    save_model(model, tokenizer, folder)
    return str(folder)


class Said:
    """What a command printed, without the line breaks of a terminal."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self) -> str:
        out, err = self._capsys.readouterr()
        return " ".join((out + err).split())


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


# ---- 03: reasoning in a field of its own -----------------------------------------------------------------------------

FIELDS = ("05-reasoning_content", "05b-dpo-reasoning_content", "05c-thinking")
RIGHT = "<think>\nEggs need about eight minutes.\n</think>\n\nPut it in boiling water for eight minutes.<|im_end|>"
WRONG = "<think>\nHm.\n</think>\n\nPut it in the microwave.<|im_end|>"


def trained(rendered: Any) -> list[str]:
    """The trained text of each response of the first row."""
    return ["".join(token["text"] for token in response["tokens"] if token["trained"]) for response in rendered]


@pytest.mark.parametrize("name", FIELDS)
def test_03_the_field_reaches_the_template(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = model_with(tmp_path / "model", "qwen3"), case(f"03-reasoning-fields-dropped/{name}.jsonl")
    assert preflab("data", "inspect", data, "--model", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["usable"]) == (4, 4)
    assert trained(found["rendered"]) == ([RIGHT, WRONG] if "dpo" in name else [RIGHT])
    kind = "dpo" if "dpo" in name else "sft"
    words = ("--train-data", data, "--model", model, "--output-dir", tmp_path / "run", *WORDS)
    assert preflab("train", kind, *words) == 0
    assert "training rows: 4 used, 0 dropped" in capsys.readouterr().err


@pytest.mark.parametrize("name", FIELDS)
def test_03_a_template_without_reasoning_counts_the_rows(name: str, tmp_path: Path, said: Said) -> None:
    model, data = model_with(tmp_path / "model", "qwen2_5"), case(f"03-reasoning-fields-dropped/{name}.jsonl")
    words = ("--train-data", data, "--model", model, "--output-dir", tmp_path / "run", *WORDS)
    assert preflab("train", "dpo" if "dpo" in name else "sft", *words) == 2
    assert "reasoning is not rendered by the chat template" in said()


# ---- 10: what was thought and what was answered ----------------------------------------------------------------------

THOUGHT, ANSWER = "Let me look that up.", "The Ebro."


@pytest.fixture(scope="module", params=["gptoss", "qwen3_5_think"])
def answering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that was trained to think THOUGHT and answer ANSWER, whatever it is asked."""
    folder = tmp_path_factory.mktemp("answering")
    model = model_with(folder / "model", request.param)
    prompts = [row["prompt"] for row in read_jsonl(case("10-gpt-oss-channels-in-the-response/00-plain.jsonl"))]
    turn = {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT}
    chats = [{"messages": [{"role": "user", "content": prompt}, turn]} for prompt in prompts]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    steps = ("--max-steps", "60", "--learning-rate", "2e-2", "--lr-scheduler-type", "constant", "--save-strategy", "no")
    words = ("--model", model, "--train-data", folder / "rows.jsonl", "--output-dir", folder / "run", *WORDS[2:])
    assert preflab("train", "sft", *words, *steps) == 0
    return str(folder / "run" / "model")


@pytest.fixture
def answers(answering: str, tmp_path: Path) -> Path:
    data = case("10-gpt-oss-channels-in-the-response/00-plain.jsonl")
    output = tmp_path / "answers.jsonl"
    words = ("--model", answering, "--prompts", data, "--temperature", "0", "--max-new-tokens", "80")
    assert preflab("generate", *words, "--output", output) == 0
    return output


def test_10_a_model_s_answer_is_apart_from_its_thoughts(answers: Path) -> None:
    rows = list(read_jsonl(answers))
    assert [(row["response"], row["reasoning"], row["finish"]) for row in rows] == [(ANSWER, THOUGHT, "eos")] * 4
    summary = read_json(answers.with_suffix(".summary.json"))
    assert (summary["empty"], summary["foreign_turn"], summary["hit_cap"]) == (0, 0, 0)


def test_10_a_thought_that_is_cut_leaves_no_answer(answering: str, tmp_path: Path, said: Said) -> None:
    data = case("10-gpt-oss-channels-in-the-response/00-plain.jsonl")
    words = ("--model", answering, "--prompts", data, "--temperature", "0", "--max-new-tokens", "16")
    assert preflab("generate", *words, "--output", tmp_path / "answers.jsonl") == 0
    rows = list(read_jsonl(tmp_path / "answers.jsonl"))
    assert {(row["response"], row["finish"]) for row in rows} == {("", "length")}
    assert all(THOUGHT.startswith(row.get("reasoning", "")) for row in rows)
    assert "100.0% of the responses are empty, because their reasoning did not come to an end" in said()


def other_answers(path: Path, response: str = "No good answer.") -> Path:
    prompts = [row["prompt"] for row in read_jsonl(case("10-gpt-oss-channels-in-the-response/00-plain.jsonl"))]
    rows = [{"row": number, "prompt": prompt, "response": response} for number, prompt in enumerate(prompts, 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# As the file of the issue had it, and as other programs write what a model made.
WRITTEN = {
    "bare channels": f"analysis{THOUGHT}assistantfinal{ANSWER}",
    "channels": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}",
    "tags": f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}",
    "the closing tag": f"{THOUGHT}\n</think>\n\n{ANSWER}",
}


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    with fake_judge.serving(monkeypatch) as found:
        yield found


def check_what_is_judged(judge: FakeJudge, responses: Path, folder: Path) -> None:
    words = (responses, other_answers(folder / "other.jsonl"), "--judge", "openai:fake", "--timeout", "60")
    assert preflab("judge", *words, "--output", folder / "verdicts.json") == 0
    assert {text for prompt in judge.calls for text in fake_judge.submissions(prompt)} == {ANSWER, "No good answer."}
    assert not any(THOUGHT in prompt for prompt in judge.calls)
    assert read_json(folder / "verdicts.json")["win_counts"]["baseline"] == 4, "which the judge likes"


def test_10_a_judge_is_shown_the_answer_alone(judge: FakeJudge, answers: Path, tmp_path: Path) -> None:
    check_what_is_judged(judge, answers, tmp_path)


@pytest.mark.parametrize("kind", WRITTEN)
def test_10_a_file_of_such_responses_is_read_alike(judge: FakeJudge, tmp_path: Path, kind: str) -> None:
    check_what_is_judged(judge, other_answers(tmp_path / "answers.jsonl", WRITTEN[kind]), tmp_path)


@pytest.mark.parametrize("kind", ["bare channels", "channels"])
def test_10_lengths_and_report_are_of_the_answer_alone(tmp_path: Path, kind: str) -> None:
    mine, other = other_answers(tmp_path / "mine.jsonl", WRITTEN[kind]), other_answers(tmp_path / "other.jsonl", ANSWER)
    assert preflab("compare", f"base={other}", f"mine={mine}", "--judge", "gold", "--out", tmp_path / "compare") == 0
    kept = list(read_jsonl(tmp_path / "compare" / "responses" / "mine.jsonl"))
    assert [(row["response"], row["reasoning"]) for row in kept] == [(ANSWER, THOUGHT)] * 4
    found = read_json(tmp_path / "compare" / "analysis" / "model_comparison_results.json")["analysis"]
    for model in found["models"]:
        assert (model["words"]["value"], model["characters"]["value"]) == (2, len(ANSWER))
        assert model["shares"]["foreign_turn"]["value"] == 0
    assert [found["contests"][0][outcome] for outcome in ("wins", "ties", "losses", "errors")] == [0, 4, 0, 0]


@pytest.fixture(scope="module")
def rewarding(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rewarding")
    data = case("11-thinking-templates-unusable/00-plain.jsonl")
    words = ("--model", model_with(folder / "model", "qwen2_5"), "--train-data", data, "--output-dir", folder / "run")
    assert preflab("train", "reward", *words, *WORDS) == 0
    return str(folder / "run" / "model")


@pytest.mark.parametrize("kind", WRITTEN)
def test_10_a_reward_model_scores_the_answer_alone(kind: str, rewarding: str, tmp_path: Path) -> None:
    found = []
    for name, response in (("mine", WRITTEN[kind]), ("plain", ANSWER)):
        data, output = other_answers(tmp_path / f"{name}.jsonl", response), tmp_path / f"{name}.scores.jsonl"
        assert preflab("score", data, "--reward-model", rewarding, "--output", output) == 0
        found.append([row["score"] for row in read_jsonl(output)])
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


# ---- 11: templates that open or close a thought ----------------------------------------------------------------------

OPEN = "the response does not continue the thought that the prompt opens"
CLOSED = "the response begins a thought, and the prompt closes it"
LOST = "reasoning is not rendered by the chat template"


@pytest.mark.parametrize(
    ("template", "kind", "file", "reason", "way_out"),
    [
        ("qwen3_5_think", "dpo", "00-plain", OPEN, "--chat-template-kwargs enable_thinking=false"),
        ("qwen3_6", "sft", "00-plain", OPEN, "--chat-template-kwargs enable_thinking=false"),
        ("nemotron_3_nano", "reward", "00-plain", OPEN, "--chat-template-kwargs enable_thinking=false"),
        ("qwen3_5_nothink", "dpo", "05d-think-inline", CLOSED, "--chat-template-kwargs enable_thinking=true"),
        ("deepseekv3", "dpo", "00-plain", OPEN, "--chat-template chatml"),
        ("deepseek_r1_distill", "sft", "00-plain", OPEN, "--chat-template chatml"),
        ("deepseekv3", "dpo", "05d-think-inline", LOST, "--chat-template chatml"),
        ("qwen3_5_think", "sft", "05d-think-inline", None, None),
        ("qwen3_6", "reward", "05d-think-inline", None, None),
        ("nemotron_3_nano", "dpo", "05d-think-inline", None, None),
        ("qwen3_5_nothink", "dpo", "00-plain", None, None),
    ],
)
def test_11_a_thinking_template_trains_or_tells_the_way_out(
    template: str, kind: str, file: str, reason: str | None, way_out: str | None, tmp_path: Path, said: Said
) -> None:
    model, data = model_with(tmp_path / "model", template), case(f"11-thinking-templates-unusable/{file}.jsonl")
    words = ("--model", model, "--train-data", data, "--output-dir", tmp_path / "run", *WORDS)
    if reason is None:
        assert preflab("train", kind, *words) == 0
        assert "training rows: 4 used, 0 dropped" in said()
        return
    assert way_out is not None
    assert preflab("train", kind, *words) == 2
    told = said()
    assert reason in told
    if reason != LOST:
        assert way_out in told
    assert not (tmp_path / "run" / "model").exists()
    assert preflab("train", kind, *words, *way_out.split()) == 0
    assert "training rows: 4 used, 0 dropped" in said()


@pytest.mark.parametrize(
    ("template", "values", "file", "expected"),
    [
        ("qwen3_5_think", "enable_thinking=false", "00-plain", "The Ebro is a river in Spain.<|im_end|>"),
        ("qwen3_5_nothink", None, "00-plain", "The Ebro is a river in Spain.<|im_end|>"),
        (
            "qwen3_5_think",
            None,
            "05d-think-inline",
            "Ebro, Tagus, Duero.\n</think>\n\nThe Ebro is a river in Spain.<|im_end|>",
        ),
    ],
)
def test_11_what_is_trained_continues_the_prompt(
    template: str, values: str | None, file: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = model_with(tmp_path / "model", template), case(f"11-thinking-templates-unusable/{file}.jsonl")
    kwargs = ("--chat-template-kwargs", values) if values else ()
    assert preflab("data", "inspect", data, "--model", model, "--json", "--rows", "2", *kwargs) == 0
    found = json.loads(capsys.readouterr().out)
    assert trained(found["rendered"])[2] == expected
    prompt = "".join(token["text"] for token in found["rendered"][2]["tokens"] if not token["trained"])
    assert prompt.endswith("<|im_start|>assistant\n<think>\n" + ("" if "inline" in file else "\n</think>\n\n"))


# ---- 24: a verdict within a judge's thinking -------------------------------------------------------------------------

REPLY = "<think>\nThe first is longer.\nVerdict: FIRST\n</think>\n\nThe second one answers.\nVerdict: SECOND"


def reply(content: str | None, finish: str = "stop", **fields: Any) -> str:
    message = {"role": "assistant", "content": content, **fields}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


@pytest.mark.parametrize(
    ("body", "counts", "reason"),
    [
        (reply(REPLY), {"model": 0, "baseline": 0, "tie": 4, "error": 0}, None),
        (reply(REPLY.partition("</think>")[0]), None, "the reply ends within the judge's thinking"),
        (reply("", "length"), None, "cut off at the token cap (judge_max_tokens)"),
        (reply(None, "length", reasoning_content="Verdict: FIRST"), None, "cut off at the token cap"),
        (reply(None, reasoning_content="Verdict: FIRST"), None, "the reply is empty"),
    ],
)
def test_24_what_a_judge_thinks_is_not_its_verdict(
    judge: FakeJudge, body: str, counts: dict[str, int] | None, reason: str | None, tmp_path: Path
) -> None:
    judge.body = body
    mine, other = other_answers(tmp_path / "mine.jsonl", ANSWER), other_answers(tmp_path / "other.jsonl")
    output = tmp_path / "verdicts.json"
    words = (mine, other, "--judge", "openai:fake", "--output", output, "--timeout", "60", "--retries", "0")
    assert preflab("judge", *words) == (0 if counts else 1), "where no judgement has a verdict, nothing can be told"
    document = read_json(output)
    assert document["win_counts"] == (counts or {"model": 0, "baseline": 0, "tie": 0, "error": 4})
    rows = document["results"]
    if counts:  # SECOND in both orders: each time whoever stands second
        assert {(row["presentation_order"], row["verdict"]) for row in rows} == {
            ("model_first", "baseline"),
            ("baseline_first", "model"),
        }
    else:
        assert {row["verdict"] for row in rows} == {"error"}
        assert all(str(reason) in row["error"] for row in rows)


# ---- 26: several templates, and none by default ----------------------------------------------------------------------

NAMED = {"rag": CHAT_TEMPLATES["human-assistant"], "tool_use": CHAT_TEMPLATES["chatml"]}


def model_with_list(folder: Path) -> str:
    """With the templates as a list within tokenizer_config.json, as older folders have it."""
    model_with(folder, "qwen2_5")
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    named = [{"name": name, "template": template} for name, template in NAMED.items()]
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": named}))
    return str(folder)


@pytest.mark.parametrize("command", ["generate", "train", "inspect", "compare"])
def test_26_named_templates_are_listed_and_can_be_chosen(command: str, tmp_path: Path, said: Said) -> None:
    data = case("26-named-templates-without-default/00-plain.jsonl")
    model = model_with_list(tmp_path / "model")
    words: dict[str, tuple[object, ...]] = {
        "generate": ("generate", "--model", model, "--prompts", data, "--output", tmp_path / "r.jsonl"),
        "train": ("train", "dpo", "--model", model, "--train-data", data, "--output-dir", tmp_path / "run", *WORDS),
        "inspect": ("data", "inspect", data, "--model", model),
        "compare": ("compare", model, f"b={model}", "--prompts", data, "--judge", "gold", "--out", tmp_path / "c"),
    }
    few = ("--max-new-tokens", "4") if command in ("generate", "compare") else ()
    assert preflab(*words[command], *few) == 2
    told = said()
    assert "has the chat templates rag, tool_use, and none that is called default: choose one of them" in told
    assert "--chat-template rag" in told
    assert "defect" not in told
    if command == "compare":
        return
    assert preflab(*words[command], *few, "--chat-template", "tool_use") == 0
