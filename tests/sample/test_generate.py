"""Generation: the batch, an interruption and the model's own settings have no say in what comes out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model
from tiny_tokenizers import qwen
from transformers import GenerationConfig, LogitsProcessor

import preflab.sample.sampling
from preflab.core.records import Message, UserError
from preflab.core.rundir import read_json, read_jsonl
from preflab.data.detect import detect_format
from preflab.data.sources import open_source
from preflab.data.tokenize import ChatTemplate
from preflab.sample.generate import generate_responses
from preflab.sample.sampling import Prompt, Sampling, TokenChooser, generate, generate_ids
from preflab.sample.settings import GenerateSettings
from preflab.stats.degenerate import foreign_turn, runaway_repetition

STOP = 3
PROMPTS = [[5, 9, 11], [7] * 12 + [21, 33], [40, 41, 42, 43, 44, 45], [99]]
GREEDY = Sampling(temperature=0, max_new_tokens=12)


def continued(model: Any, prompts: list[list[int]], sampling: Sampling, stop: int = STOP) -> list[Any]:
    numbers = [np.random.default_rng((sampling.seed, len(p))).random(sampling.max_new_tokens) for p in prompts]
    return generate_ids(model, prompts, np.stack(numbers), [stop], sampling)


def by_hand(model: Any, prompt: list[int], tokens: int) -> list[int]:
    """Greedy tokens from whole forward passes, without a cache, padding or transformers' generation."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == STOP:
                break
    return [token for token in ids[len(prompt) :] if token != STOP]


# ---- one batch and another ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batched_greedy_output_is_that_of_each_prompt_alone(architecture: str) -> None:
    model = tiny_model(architecture)
    together = continued(model, PROMPTS, GREEDY)
    assert [ids for ids, _ in together] == [by_hand(model, prompt, 12) for prompt in PROMPTS]
    assert len({tuple(ids) for ids, _ in together}) > 1


def test_samples_do_not_depend_on_the_batch() -> None:
    model = tiny_model("qwen2")
    sampling = Sampling(temperature=0.8, top_p=0.95, top_k=50, repetition_penalty=1.2, max_new_tokens=12)
    together = continued(model, PROMPTS, sampling)
    assert together == [continued(model, [prompt], sampling)[0] for prompt in PROMPTS]
    assert together != continued(model, PROMPTS, Sampling(max_new_tokens=12, seed=43))


def test_a_repetition_penalty_does_not_reach_the_padding() -> None:
    # Where padding has the terminator's id, a penalised padding would keep short prompts' responses from ending.
    logits = torch.full((2, 8), -1.0)
    logits[:, STOP] = 2.0
    logits[:, 5] = 1.5
    ids = torch.tensor([[STOP, STOP, 6], [STOP, 6, 6]])
    chooser = TokenChooser(Sampling(temperature=0, repetition_penalty=2.0), torch.zeros(2, 1), torch.tensor([2, 0]))
    # The second sequence holds a real terminator, so there the penalty counts.
    assert chooser(ids, logits).argmax(-1).tolist() == [STOP, 5]


# ---- sampling settings ----------------------------------------------------------------------------------------------


def test_the_models_own_generation_settings_have_no_say() -> None:
    model = tiny_model("llama")
    plain = continued(model, PROMPTS, GREEDY), continued(model, PROMPTS, Sampling(max_new_tokens=12))
    settings = {"do_sample": True, "temperature": 0.1, "top_k": 2, "top_p": 0.1, "repetition_penalty": 5.0}
    own = GenerationConfig(
        **settings, no_repeat_ngram_size=1, suppress_tokens=list(range(64)), min_new_tokens=9, eos_token_id=7
    )
    model.generation_config = own
    assert (continued(model, PROMPTS, GREEDY), continued(model, PROMPTS, Sampling(max_new_tokens=12))) == plain
    assert model.generation_config is own


def drawn(logits: list[float], sampling: Sampling, count: int = 4000) -> np.ndarray[Any, Any]:
    """The frequencies of tokens over evenly spread random numbers."""
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    chooser = TokenChooser(sampling, numbers[:, None], torch.zeros(count, dtype=torch.long))
    scores: LogitsProcessor = chooser(torch.zeros(count, 1, dtype=torch.long), torch.tensor([logits] * count))
    return np.bincount(scores.argmax(-1).numpy(), minlength=len(logits)) / count


LOGITS = [math.log(p) for p in (0.1, 0.4, 0.05, 0.3, 0.15)]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.1, 0.4, 0.05, 0.3, 0.15]),
        (Sampling(temperature=0), [0, 1, 0, 0, 0]),
        (Sampling(temperature=0.5), [p * p / 0.285 for p in (0.1, 0.4, 0.05, 0.3, 0.15)]),
        (Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_p=0.6), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_p=0.01), [0, 1, 0, 0, 0]),
        (Sampling(top_k=99), [0.1, 0.4, 0.05, 0.3, 0.15]),
    ],
)
def test_tokens_are_drawn_as_the_settings_say(sampling: Sampling, expected: list[float]) -> None:
    assert drawn(LOGITS, sampling) == pytest.approx(np.array(expected), abs=1e-3)


def test_without_top_k_the_whole_vocabulary_is_open() -> None:
    # transformers' own default would keep 50 tokens.
    assert np.count_nonzero(drawn([0.0] * 128, Sampling())) == 128


def test_logits_that_are_not_numbers_are_an_error() -> None:
    chooser = TokenChooser(Sampling(), torch.zeros(1, 1), torch.zeros(1))
    with pytest.raises(UserError, match="NaN"):
        chooser(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[0.0, float("nan")]]))


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_a_response_ends_at_a_stop_id_or_at_the_cap() -> None:
    model = tiny_model("qwen2")
    longer = continued(model, PROMPTS, GREEDY)
    ids, _ = longer[0]
    stop = next(token for place, token in enumerate(ids) if place and token not in ids[:place])
    cut = generate_ids(model, PROMPTS, np.zeros((len(PROMPTS), 12)), [stop, 1], GREEDY)
    assert cut[0] == (ids[: ids.index(stop)], "eos")
    assert any(finish == "length" and len(ids) == 12 for ids, finish in longer)


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(qwen())


@pytest.fixture(scope="module")
def big_enough(template: ChatTemplate) -> Any:
    return tiny_model("qwen2", vocab_size=len(template.tokenizer))


def asked(template: ChatTemplate, *texts: str) -> list[Prompt]:
    messages = [(Message("user", text),) for text in texts]
    return [Prompt(m, tuple(template.prompt_ids(m)), row) for row, m in enumerate(messages, start=1)]


def test_completions_say_what_was_generated(template: ChatTemplate, big_enough: Any) -> None:
    prompts = asked(template, "Hello", "What is two plus two ? I do not know")
    sampling = Sampling(max_new_tokens=6)
    batches = list(generate(big_enough, template, prompts, sampling, num_return_sequences=2, batch_size=3))
    assert [len(batch) for batch in batches] == [3, 1]
    found = [(c.row, c.sample) for batch in batches for c in batch]
    assert found == [(2, 0), (2, 1), (1, 0), (1, 1)]  # the longest prompt first
    first, second = batches[0][:2]
    assert first.prompt == prompts[1].messages
    assert first.response != second.response
    assert {c.tokens for batch in batches for c in batch if c.finish == "length"} == {6}


def test_a_terminator_is_in_neither_text_nor_count(
    template: ChatTemplate, big_enough: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = template.tokenizer("Hello there", add_special_tokens=False)["input_ids"]
    whole = torch.tensor([[9, *hello, template.terminator_id, 0, 0]])
    monkeypatch.setattr(preflab.sample.sampling, "_generate", lambda *_args, **_inputs: whole)
    prompt = Prompt((Message("user", "Hi"),), (9,), 1)
    ((completion,),) = generate(big_enough, template, [prompt], Sampling(max_new_tokens=9))
    assert (completion.response, completion.tokens, completion.finish) == ("Hello there", len(hello), "eos")


def test_contradictions_are_refused_before_any_work(template: ChatTemplate, big_enough: Any) -> None:
    prompts = asked(template, "Hello")
    with pytest.raises(UserError, match="all be the same at temperature 0"):
        next(generate(big_enough, template, prompts, GREEDY, num_return_sequences=2))
    with pytest.raises(UserError, match=r"made for 256 tokens in all: set max_new_tokens to \d+ or less"):
        next(generate(big_enough, template, prompts, Sampling(max_new_tokens=256)))


# ---- the file -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(big_enough: Any, template: ChatTemplate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    big_enough.save_pretrained(path)
    template.tokenizer.save_pretrained(path)
    return path


def settings_of(folder: Path, output: Path, **others: Any) -> GenerateSettings:
    texts = ["Hello", "Hi there", "What is two plus two ?", "I do not know", "How can I help ?", "Be brief ."]
    data = output.parent / "pairs.jsonl"
    data.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": text, "chosen": "four", "rejected": "Hi", "topic": text[:2]} for text in texts]
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "", "chosen": "a", "rejected": "b"}]))
    options = {"max_new_tokens": 5, "batch_size": 4, "num_return_sequences": 2, **others}
    return GenerateSettings(model=str(folder), prompts=(str(data),), output=output, **options)


def test_the_file_has_a_line_for_each_sample_in_the_order_of_the_rows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = generate_responses(settings_of(folder, tmp_path / "out" / "r.jsonl"))
    assert "columns: prompt, chosen, rejected; kept as meta: topic\n" in capsys.readouterr().err
    rows = list(read_jsonl(result.output))
    assert [(row["row"], row["sample"]) for row in rows] == [(row, sample) for row in range(1, 7) for sample in (0, 1)]
    assert list(rows[0]) == ["row", "sample", "prompt", "response", "tokens", "finish", "meta"]
    assert rows[2]["prompt"] == [{"role": "user", "content": "Hi there"}]
    assert rows[2]["meta"] == {"topic": "Hi"}
    assert result.summary["dropped"] == {
        "empty prompt": {"count": 1, "rows": [7], "example": "there is nothing to respond to"}
    }
    assert read_json(tmp_path / "out" / "r.summary.json") == {"format": 1, **result.summary}
    assert result.summary["hit_cap"] == sum(row["finish"] == "length" for row in rows) / 12
    assert read_json(tmp_path / "out" / "r.manifest.json")["settings"]["top_k"] == 0
    # What generation writes, the other commands read, the prompt's turns included.
    source = open_source(str(result.output))
    assert detect_format(row for _, row in source) == "prompt-response"


class Killed(BaseException):
    pass


def test_an_interrupted_run_goes_on_to_the_same_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate_responses(settings_of(folder, tmp_path / "a" / "r.jsonl")).output.read_text()
    output = tmp_path / "b" / "r.jsonl"
    batches = 0

    def counting(*arguments: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise Killed
        return respond(*arguments)

    respond = preflab.sample.sampling._respond
    monkeypatch.setattr(preflab.sample.sampling, "_respond", counting)
    with pytest.raises(Killed):
        generate_responses(settings_of(folder, output))
    assert not output.exists()
    part = output.with_name("r.unfinished.jsonl")
    lines = part.read_text().splitlines(keepends=True)
    assert len(lines) == 8
    part.write_text("".join(lines[:6]) + lines[6][:30])  # a kill in the midst of a write: the batch is made anew
    generate_responses(settings_of(folder, output))
    assert output.read_text() == whole
    assert batches == 3 + 2
    assert not part.exists()
    generate_responses(settings_of(folder, output))
    assert batches == 5


def test_a_file_belongs_to_its_settings_model_and_data(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.jsonl"
    generate_responses(settings_of(folder, output))
    with pytest.raises(UserError, match=r"settings.temperature: 1.0 there, 0.5 now"):
        generate_responses(settings_of(folder, output, temperature=0.5))
    before = output.read_text()
    generate_responses(settings_of(folder, output, batch_size=5))
    assert output.read_text() == before
    generate_responses(settings_of(folder, output, temperature=0.5, overwrite=True))
    assert output.read_text() != before
    other = tmp_path / "mine.jsonl"
    other.write_text("{}\n")
    with pytest.raises(UserError, match="did not make"):
        generate_responses(settings_of(folder, other, overwrite=True))
    assert other.read_text() == "{}\n"


def test_a_summary_that_disagrees_with_the_rows_is_an_error(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.jsonl"
    generate_responses(settings_of(folder, output))
    summary = tmp_path / "r.summary.json"
    summary.write_text(summary.read_text().replace('"responses": 12', '"responses": 13'))
    with pytest.raises(UserError, match="disagrees with the rows"):
        generate_responses(settings_of(folder, output))


# ---- degenerate text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "It is a fine day. " + "and so on " * 12,
        "!" * 400,
        "我不知道。" * 20,
        " ".join(f"{n} we went home and we ate and we slept and we went home again" for n in range(8)),
        "Yes. " + "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 3,
    ],
)
def test_runaway_repetition_is_found(text: str) -> None:
    assert runaway_repetition(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No, no, no, no! Never.",
        "| a | b |\n|---|---|\n| 1 | 2 |\n" + "-" * 80,
        "1. Wash the rice. 2. Boil the water. 3. Add the rice to the water. 4. Wait for twelve minutes. 5. Serve.",
        " ".join(f"word{n}" for n in range(500)),
    ],
)
def test_ordinary_text_is_not_called_runaway(text: str) -> None:
    assert runaway_repetition(text) is None


def test_a_tail_of_another_speaker_is_found_where_it_begins() -> None:
    answer = "Paris is the capital."
    for tail in ("\n\nHuman: And of Spain?", "\nUser: thanks", "<|im_start|>user\nHi", "\n### Instruction: Go on"):
        assert answer + "\n" == (answer + tail)[: foreign_turn(answer + tail)].rstrip() + "\n"
    assert foreign_turn("A human: that is what I am. The user said: no.") is None
    assert foreign_turn(answer) is None
