"""`preflab frontier`: KL is the divergence of what was sampled, policies are told apart by their runs, nothing is
sampled twice.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_runs
import torch
from no_pictures import draw_nothing
from transformers import Qwen2Config, Qwen2ForCausalLM

from preflab.core.records import Completion, Message, TokenizedComparison, UserError
from preflab.core.rundir import read_json, read_jsonl, write_jsonl
from preflab.judging.players import read_entries
from preflab.model.prefix import PrefixBatch, prefix_batch
from preflab.model.responses import ResponseDivergences
from preflab.sample import rollouts
from preflab.sample.rollouts import divergences
from preflab.sample.sampling import Prompt
from preflab.sandbox.gold import gold_reward
from preflab.studies.frontier import command as frontier
from preflab.studies.frontier.command import measure_frontier
from preflab.studies.frontier.rows import read_frontier
from preflab.studies.frontier.settings import FrontierSettings

pytestmark = pytest.mark.slow

PROMPTS = "sandbox:prompts?rows=12&split=test&seed=3"
VOCABULARY, STOP, CAP = 10, 2, 3
PROMPT = (3, 5, 7)


def tiny(seed: int) -> Qwen2ForCausalLM:
    """A model so small that all its responses can be listed."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.6,
    )
    return Qwen2ForCausalLM(config).eval()


def logps(model: Qwen2ForCausalLM, responses: torch.Tensor) -> torch.Tensor:
    """[R, T, V] of the next token at each place of R responses of T tokens, by a plain forward pass."""
    ids = torch.cat([torch.tensor([PROMPT]).expand(len(responses), -1), responses], dim=1)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, len(PROMPT) - 1 : -1]
    return logits.double().log_softmax(-1)


def all_responses() -> list[tuple[int, ...]]:
    """Up to the first stop token, or to the cap; the shortest first."""
    found = {
        tuple(tokens[: tokens.index(STOP) + 1]) if STOP in tokens else tokens
        for tokens in product(range(VOCABULARY), repeat=CAP)
    }
    return sorted(found, key=lambda response: (len(response), response))


def test_the_estimate_of_kl_has_the_exact_divergence_as_its_mean() -> None:
    """Σ_y π(y)·estimate(y) over all responses is Σ_y π(y)·log(π(y)/π_ref(y)): unbiased, not only in many samples."""
    policy, reference, everything = tiny(0), tiny(1), all_responses()
    exact, weights, by_hand = 0.0, [], []
    for length in range(1, CAP + 1):
        chosen = torch.tensor([response for response in everything if len(response) == length])
        ours, theirs = logps(policy, chosen), logps(reference, chosen)
        sums = [side.gather(2, chosen[:, :, None]).sum((1, 2)) for side in (ours, theirs)]
        weights += sums[0].exp().tolist()
        exact += float((sums[0].exp() * (sums[0] - sums[1])).sum())
        by_hand += (ours.exp() * (ours - theirs)).sum((1, 2)).tolist()
    assert sum(weights) == pytest.approx(1.0), "these are all responses"
    with torch.no_grad():
        batch = prefix_batch([TokenizedComparison(PROMPT, tuple(everything))])
        found = ResponseDivergences(policy, reference)(batch).tolist()
    assert found == pytest.approx(by_hand, rel=1e-4, abs=1e-5)
    assert sum(weight * kl for weight, kl in zip(weights, found, strict=True)) == pytest.approx(exact, rel=1e-4)
    assert exact > 0.1


def test_of_a_model_itself_there_is_no_divergence_and_never_a_negative_one() -> None:
    everything = prefix_batch([TokenizedComparison(PROMPT, tuple(all_responses()))])
    assert ResponseDivergences(tiny(0), tiny(0))(everything).abs().max() < 1e-6
    assert ResponseDivergences(tiny(0), tiny(1))(everything).min() > 0


def test_vocabularies_of_different_sizes_are_refused() -> None:
    other = tiny(1)
    other.resize_token_embeddings(VOCABULARY + 4)
    with pytest.raises(UserError, match="vocabularies of different sizes"):
        ResponseDivergences(tiny(0), other)


def test_kl_is_of_the_sampled_tokens_and_of_the_end_where_it_was_sampled() -> None:
    policy, reference, ids = tiny(0), tiny(1), (4, 6)
    template: Any = SimpleNamespace(terminator_id=STOP)
    message = (Message("user", "How?"),)
    ended = Completion(message, "…", 0, len(ids), "eos", row=1, ids=ids)
    cut = replace(ended, sample=1, finish="length")
    other = replace(ended, row=2, ids=(9,))  # to a longer prompt, which is computed first
    prompts = [Prompt(message, PROMPT, row=1), Prompt(message, (*PROMPT, 8), row=2)]
    ours, theirs = (logps(model, torch.tensor([[*ids, STOP]]))[0] for model in (policy, reference))
    at_each_place = (ours.exp() * (ours - theirs)).sum(-1)
    found = divergences(policy, reference, template, prompts, [ended, cut, other], batch_size=1)
    assert found[:2] == pytest.approx([float(at_each_place.sum()), float(at_each_place[:2].sum())], rel=1e-4)
    assert found[2] not in found[:2]


def test_a_prompt_is_read_once_for_its_responses_and_no_more_than_batch_size_at_once() -> None:
    """16,000 responses to 250 prompts, one by one, would read every prompt 64 times; all at once, fill the memory."""
    read: list[tuple[int, int]] = []

    class LastTokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch: PrefixBatch) -> torch.Tensor:
            read.append((len(batch.ends), len(batch.input_ids)))
            return batch.input_ids[batch.ends].float()

    long = (*PROMPT, 8)
    pairs = [(PROMPT, (4, 6)), (long, (5,)), (PROMPT, (9,)), (long, (7,)), (PROMPT, (3,))]
    assert rollouts._values(LastTokens(), pairs, share_prefix=True, batch_size=4) == [6, 5, 9, 7, 3]
    assert read == [(4, len(long) + 2 + len(PROMPT) + 3), (1, len(PROMPT) + 1)]


# ---- the command ----


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference, a reward model, and policies of two objectives, strengths and seeds."""
    root = tmp_path_factory.mktemp("runs")
    base = tiny_runs.write_model(root / "base")
    common: dict[str, Any] = {"max_steps": 3, "learning_rate": 1e-2, "eval_strategy": "no", "save_strategy": "no"}
    tiny_runs.run("sft", base, root / "sft", **common)
    tiny_runs.run("reward", base, root / "reward", **common)
    for beta, seed in ((0.1, 0), (0.1, 1), (0.5, 0)):
        # The folders' names say nothing, or the wrong thing.
        tiny_runs.run("dpo", root / "sft" / "model", root / f"ipo-{beta}-{seed}", beta=beta, seed=seed, **common)
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer to draw than these runs take."""
    draw_nothing(monkeypatch)


def settings(runs: Path, out: Path, **changes: Any) -> FrontierSettings:
    values: dict[str, Any] = {
        "models": tuple(str(runs / name) for name in ("ipo-0.1-0", "ipo-0.1-1", "ipo-0.5-0")),
        "reference": str(runs / "sft"),
        "reward_model": str(runs / "reward"),
        "prompts": (PROMPTS,),
        "best_of_n": (2, 4),
        "num_return_sequences": 2,
        "max_new_tokens": 8,
        "batch_size": 32,
        "out": out,
    }
    return FrontierSettings(**values | changes)


def test_policies_are_measured_and_told_apart_by_their_runs(runs: Path, tmp_path: Path) -> None:
    result = measure_frontier(settings(runs, tmp_path / "f"))
    found = read_frontier(tmp_path / "f")
    assert [(p.name, p.objective, dict(p.settings), p.seed) for p in found.policies] == [
        ("ipo-0.1-0", "dpo", {"beta": 0.1}, 0),
        ("ipo-0.1-1", "dpo", {"beta": 0.1}, 1),
        ("ipo-0.5-0", "dpo", {"beta": 0.5}, 0),
    ]
    assert all((policy.measures.kl > 0).all() for policy in found.policies)
    assert [best.n for best in found.best_of] == [1, 2, 4]
    written = {path.name for path in (tmp_path / "f" / "analysis").iterdir()}
    assert written == {"frontier.png", "overoptimisation.png", "frontier.md", "frontier.csv"}
    assert str(result).endswith(f"figures: {tmp_path / 'f' / 'analysis'}")
    prompts = {row["row"]: row["prompt"][-1]["content"] for row in read_jsonl(tmp_path / "f" / "prompts.jsonl")}
    rows = list(read_jsonl(tmp_path / "f" / "responses" / "ipo-0.1-0.jsonl"))
    assert len(rows) == 2 * len(prompts)
    assert all(row["gold"] == gold_reward(prompts[row["row"]], row["response"]) for row in rows)


def told_apart(runs: Path, *names: str) -> list[tuple[dict[str, Any], int]]:
    found = frontier._trained(read_entries([str(runs / name) for name in names]))
    return [(policy["settings"], policy["seed"]) for policy in found]


def test_strengths_are_told_apart_where_each_has_another_seed(runs: Path) -> None:
    assert told_apart(runs, "ipo-0.1-1", "ipo-0.5-0") == [({"beta": 0.1}, 1), ({"beta": 0.5}, 0)]


def test_policies_of_other_start_models_are_no_seeds_of_one(runs: Path) -> None:
    common: dict[str, Any] = {"max_steps": 3, "learning_rate": 1e-2, "eval_strategy": "no", "save_strategy": "no"}
    if not (runs / "from-base").exists():
        tiny_runs.run("dpo", runs / "base", runs / "from-base", beta=0.1, seed=1, **common)
    starts = [settings["model"] for settings, _ in told_apart(runs, "ipo-0.1-0", "from-base")]
    assert starts == [str(runs / "sft" / "model"), str(runs / "base")]


def test_policies_that_do_not_differ_are_refused_before_anything_is_sampled(runs: Path, tmp_path: Path) -> None:
    models = tuple(f"{name}={runs / 'ipo-0.1-0'}" for name in ("one", "other"))
    with pytest.raises(UserError, match="one and other were trained alike: dpo with equal settings and seed 0"):
        measure_frontier(settings(runs, tmp_path / "f", models=models))
    assert not (tmp_path / "f").exists()


@pytest.mark.usefixtures("undrawn")
def test_what_is_done_is_not_sampled_again_and_a_policy_can_be_added(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sampled = tmp_path / "f", []
    original = frontier._sample
    monkeypatch.setattr(frontier, "_sample", lambda *given: sampled.append(given[1]) or original(*given))
    first = settings(runs, out, models=(str(runs / "ipo-0.1-0"),))
    measure_frontier(first)
    before = read_json(out / "frontier.json")
    assert len(sampled) == 2  # the reference and the policy
    with monkeypatch.context() as patch:
        patch.setattr(frontier, "load_model", lambda name, *_, **__: pytest.fail(f"{name} was loaded for nothing"))
        measure_frontier(first)
    assert len(sampled) == 2
    measure_frontier(settings(runs, out, models=(str(runs / "ipo-0.1-0"), str(runs / "ipo-0.5-0"))))
    assert len(sampled) == 3
    after = read_json(out / "frontier.json")
    assert after["best_of_n"] == before["best_of_n"]
    assert after["policies"][0]["kl"] == before["policies"][0]["kl"]


@pytest.mark.usefixtures("undrawn")
def test_what_an_interruption_left_out_is_made_up_for(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_frontier(settings(runs, tmp_path / "whole"))
    original = frontier.divergences

    def stop_at_the_second(policy: Any, *given: Any, **named: Any) -> list[float]:
        if (tmp_path / "f" / "responses" / "ipo-0.1-0.jsonl").exists():
            raise KeyboardInterrupt
        return original(policy, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(frontier, "divergences", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            measure_frontier(settings(runs, tmp_path / "f"))
    assert not (tmp_path / "f" / "frontier.json").exists()
    measure_frontier(settings(runs, tmp_path / "f"))
    assert read_json(tmp_path / "f" / "frontier.json") == read_json(tmp_path / "whole" / "frontier.json")


@pytest.mark.usefixtures("undrawn")
def test_prompts_that_are_not_the_sandboxs_have_no_gold(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"Tell me about {thing}."} for thing in ("rivers", "the sea")])
    result = measure_frontier(settings(runs, tmp_path / "f", prompts=(str(tmp_path / "prompts.jsonl"),)))
    assert "no gold reward" in capsys.readouterr().err
    assert not result.frontier.has_gold
    assert all(row["gold"] is None for row in read_jsonl(tmp_path / "f" / "reference.jsonl"))
    assert read_json(tmp_path / "f" / "frontier.json")["policies"][0]["gold"] is None


@pytest.mark.usefixtures("undrawn")
def test_functions_can_be_the_truth_and_the_proxy(runs: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"Tell me about {thing}."} for thing in ("rivers", "the sea")])
    mine = tmp_path / "mine.py"
    text = "def vowels(prompts, responses):\n    return [sum(map(text.count, 'aeiou')) for text in responses]\n"
    mine.write_text(text)
    given = {"prompts": (str(tmp_path / "prompts.jsonl"),), "reward_model": "length", "gold": f"{mine}:vowels"}
    result = measure_frontier(settings(runs, tmp_path / "f", **given))
    assert result.frontier.has_gold
    rows = [row for path in ("reference", "responses/ipo-0.1-0") for row in read_jsonl(tmp_path / f"f/{path}.jsonl")]
    for row in rows:
        assert row["gold"] == sum(map(row["response"].count, "aeiou"))
        assert row["proxy"] == len(row["response"].split())
    assert read_json(tmp_path / "f" / "frontier.json")["gold"] == f"{mine}:vowels"
    mine.write_text(text.replace("aeiou", "ae"))
    with pytest.raises(UserError, match=r"data\.gold: "):
        measure_frontier(settings(runs, tmp_path / "f", **given))
    mine.write_text("def vowels(prompts, responses):\n    return [float('nan') for _ in responses]\n")
    with pytest.raises(UserError, match=r"gold: .*mine\.py:vowels gives no finite score to the response "):
        measure_frontier(settings(runs, tmp_path / "g", **given))


@pytest.mark.usefixtures("undrawn")
def test_other_prompts_settings_or_models_are_refused(runs: Path, tmp_path: Path) -> None:
    measure_frontier(settings(runs, tmp_path / "f"))
    for changes, message in (
        ({"prompts": ("sandbox:prompts?rows=5",)}, "frontier of other prompts"),
        ({"max_new_tokens": 9}, "max_new_tokens: 8 there, 9 now"),
        ({"reward_model": str(runs / "other")}, "reward_model"),
    ):
        if "reward_model" in changes:
            tiny_runs.run("reward", runs / "base", runs / "other", max_steps=1, seed=5, eval_strategy="no")
        with pytest.raises(UserError, match=message):
            measure_frontier(settings(runs, tmp_path / "f", **changes))


@pytest.mark.usefixtures("undrawn")
def test_a_policy_that_was_trained_anew_is_not_taken_for_the_one_that_was_measured(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "ipo-0.1-0", tmp_path / "dpo")
    given = settings(runs, tmp_path / "f", models=(str(copy),))
    measure_frontier(given)
    shutil.copytree(runs / "ipo-0.5-0" / "model", copy / "model", dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"data\.policy: "):
        measure_frontier(given)
    with pytest.raises(UserError, match=r"data\.reference: "):
        measure_frontier(given.model_copy(update={"dtype": "bfloat16"}))


def test_files_of_responses_are_no_policies(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples from models"):
        measure_frontier(settings(runs, tmp_path / "f", models=("chosen",)))


@pytest.mark.usefixtures("undrawn")
def test_prompts_that_policies_and_models_beside_them_were_trained_on_are_told(runs: Path, tmp_path: Path) -> None:
    result = measure_frontier(settings(runs, tmp_path / "f", prompts=(f"{tiny_runs.TRAIN}[:12]",)))
    asked = read_json(tmp_path / "f" / "frontier.json")["trained_on"]
    assert asked.keys() == {"ipo-0.1-0", "ipo-0.1-1", "ipo-0.5-0", "the reference", "the reward model"}
    assert all(leak["prompts"] == leak["of"] > 0 for leak in asked.values())
    assert "the reward model was trained on all" in str(result).splitlines()[0]


@pytest.mark.usefixtures("undrawn")
def test_a_policy_without_a_finite_kl_is_refused_and_nothing_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "divergences", lambda *parts, **_: [float("nan")] + [0.1] * (len(parts[4]) - 1))
    with pytest.raises(UserError, match=r"ipo-0\.1-0/model: 1 of 24 responses have no finite KL from the reference"):
        measure_frontier(settings(runs, tmp_path / "f"))
    assert not (tmp_path / "f" / "responses" / "ipo-0.1-0.jsonl").exists()
