"""Responses that share a prompt, against each of them alone in a plain forward pass of transformers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from tiny_models import ARCHITECTURES, WINDOW, tiny_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, FalconMambaConfig, Lfm2Config, MambaConfig, PhimoeConfig, Qwen3NextConfig

from preflab.core.records import TokenizedComparison, UserError
from preflab.model import prefix
from preflab.model.adapters import add_lora
from preflab.model.prefix import ATTENTION, Tree, prefix_batch, separate_batch
from preflab.model.responses import (
    ResponseLogps,
    ResponseRewards,
    check_head,
    check_positions,
    collator,
    shares_prefix,
    transformers_model,
    usual_attention,
)

RELATIVE = 1e-4


def comparison(prompt: int, *responses: int, seed: int) -> TokenizedComparison:
    """Of random ids; a prompt and responses of these lengths. Ids 0 to 2 are the special ones of the tiny models."""
    random = torch.Generator().manual_seed(seed)

    def take(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 128, (count,), generator=random).tolist())

    return TokenizedComparison(take(prompt), tuple(take(length) for length in responses), row=seed)


PAIRS = [comparison(9, 5, 3, seed=1), comparison(13, 1, 7, seed=2), comparison(6, 11, 2, seed=3)]
TRIPLES = [comparison(7, 3, 5, 1, seed=4), comparison(11, 9, 1, 6, seed=5)]
BATCHES = {"pairs": PAIRS, "triples": TRIPLES, "mixed": [TRIPLES[0], PAIRS[1]]}


def logps_alone(model: nn.Module, comparisons: list[TokenizedComparison]) -> Tensor:
    """log π(response | prompt), each response in a forward pass of its own, in textbook form."""
    sums = []
    for row in comparisons:
        for response in row.response_ids:
            ids = torch.tensor([row.prompt_ids + response])
            logps = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(dim=-1)
            sums.append(logps.gather(1, ids[0, 1:, None])[len(row.prompt_ids) - 1 :].sum())
    return torch.stack(sums)


def rewards_alone(model: nn.Module, comparisons: list[TokenizedComparison]) -> Tensor:
    """What transformers' own classification model gives each whole sequence."""
    whole = (torch.tensor([row.prompt_ids + response]) for row in comparisons for response in row.response_ids)
    return torch.stack([model(input_ids=ids, use_cache=False).logits[0, 0] for ids in whole])


def assert_same_gradients(found: nn.Module, expected: nn.Module) -> None:
    ours = {name: parameter.grad for name, parameter in found.named_parameters() if parameter.requires_grad}
    theirs = {name: parameter.grad for name, parameter in expected.named_parameters() if parameter.requires_grad}
    largest = max(float(grad.norm()) for grad in theirs.values() if grad is not None)
    assert largest > 0
    for name, grad in theirs.items():
        assert grad is not None, name
        own = ours[name]
        assert own is not None, f"{name} has no gradient"
        # Some gradients vanish (a bias of keys, say), and have nothing to be relative to.
        assert float((own - grad).norm()) <= RELATIVE * (float(grad.norm()) + 1e-3 * largest), name


def assert_agrees(
    ours: nn.Module, plain: nn.Module, alone: Callable[..., Tensor], comparisons: list[TokenizedComparison]
) -> None:
    """Values and gradients of every parameter, for a sum that weighs the responses differently."""
    assert ours.share_prefix
    expected = alone(plain, comparisons)
    found = ours(prefix_batch(comparisons))
    torch.testing.assert_close(found, expected, rtol=RELATIVE, atol=RELATIVE)
    weights = torch.linspace(-1.0, 2.0, len(expected))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_same_gradients(ours.model, plain)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rows", BATCHES)
def test_shared_prompts_give_the_log_probabilities_of_separate_sequences(architecture: str, rows: str) -> None:
    assert all(len(row.prompt_ids) > WINDOW for row in BATCHES[rows])
    model = tiny_model(architecture)
    assert_agrees(ResponseLogps(copy.deepcopy(model)), model, logps_alone, BATCHES[rows])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rows", ["pairs", "triples"])
def test_shared_prompts_give_the_rewards_of_separate_sequences(architecture: str, rows: str) -> None:
    model = tiny_model(architecture, task="reward")
    assert_agrees(ResponseRewards(copy.deepcopy(model)), model, rewards_alone, BATCHES[rows])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_of_separate_sequences_agrees_too(architecture: str) -> None:
    model = tiny_model(architecture)
    expected = logps_alone(model, TRIPLES)
    module = ResponseLogps(model)
    usual_attention(model)
    module.share_prefix = False
    torch.testing.assert_close(module(separate_batch(TRIPLES)), expected, rtol=RELATIVE, atol=RELATIVE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_checkpointing_changes_nothing(architecture: str) -> None:
    model = tiny_model(architecture)
    ours = ResponseLogps(copy.deepcopy(model))
    ours.model.gradient_checkpointing_enable({"use_reentrant": False})
    ours.train()
    passes = []
    layer = next(module for module in ours.modules() if isinstance(module, nn.ModuleList))[0]
    inside = next(module for module in layer.modules() if type(module).__name__ in ("Linear", "Conv1D"))
    inside.register_forward_hook(lambda *_: passes.append(1))
    assert_agrees(ours, model, logps_alone, PAIRS)
    assert len(passes) == 2, "the layer should be computed twice"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("task", ["policy", "reward"])
def test_lora_agrees(architecture: str, task: str) -> None:
    adapted = add_lora(tiny_model(architecture, task=task), task, r=4, alpha=8, dropout=0.0, targets=())
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at the start, which would hide the adapter
            nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(0))
    plain = copy.deepcopy(adapted)
    alone, kind = (logps_alone, ResponseLogps) if task == "policy" else (rewards_alone, ResponseRewards)
    ours = kind(adapted)
    assert_agrees(ours, plain, alone, PAIRS)
    trained = {name for name, parameter in ours.named_parameters() if parameter.grad is not None}
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    assert any("score" in name for name in trained) == (task == "reward")


def test_rewards_run_in_the_precision_of_the_head_that_is_trained() -> None:
    """PEFT keeps the frozen head of the base model beside it, in bfloat16 here."""
    model = tiny_model("qwen2", task="reward").bfloat16()
    module = ResponseRewards(add_lora(model, "reward", r=4, alpha=8, dropout=0.0, targets=()))
    seen = []
    head = module.model.get_base_model().score
    head.modules_to_save["default"].register_forward_hook(lambda _module, inputs, out: seen.append((inputs[0], out)))
    module(prefix_batch(PAIRS)).sum().backward()
    assert [(given.dtype, out.dtype) for given, out in seen] == [(torch.float32, torch.float32)]
    assert head.modules_to_save["default"].weight.grad.dtype == torch.float32
    exact = usual_attention(copy.deepcopy(module.model).float())
    with torch.no_grad():
        torch.testing.assert_close(
            module(prefix_batch(PAIRS)),
            rewards_alone(exact, PAIRS),
            rtol=5e-2,
            atol=5e-2 * float(seen[0][1].abs().max()),
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_ids_and_company_do_not_matter(architecture: str) -> None:
    """A terminator that is the pad token is a token like any other, and other rows of a batch change nothing."""
    model = tiny_model(architecture)
    rows = [TokenizedComparison(row.prompt_ids, tuple((*r, 0) for r in row.response_ids), row.row) for row in PAIRS]
    expected = logps_alone(model, rows)
    module = ResponseLogps(model)
    together = module(prefix_batch(rows))
    apart = torch.cat([module(prefix_batch([row])) for row in rows])
    torch.testing.assert_close(together, expected, rtol=RELATIVE, atol=RELATIVE)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


RIGHT_MASK = Tree.mask


def sees_other_responses(tree: Tree, window: int | None) -> Tensor:
    """A wrong mask: plain causal attention over the layout."""
    place = torch.arange(tree.segments.shape[1])
    seen = (place[:, None] >= place[None, :]) & (tree.segments[:, None, :] >= 0)
    if window is not None:
        seen = seen & (tree.positions[:, :, None] - tree.positions[:, None, :] < window)
    return (seen | (place[:, None] == place[None, :]))[:, None]


def counts_places(tree: Tree, window: int | None) -> Tensor:
    """A wrong mask: windows by place in the layout, so that later responses see less of the prompt."""
    seen = RIGHT_MASK(tree, None)
    place = torch.arange(tree.segments.shape[1])
    return seen if window is None else seen & (place[:, None] - place[None, :] < window)


def sees_everything(tree: Tree, window: int | None) -> Tensor:
    """A wrong mask: no window at all."""
    assert window is None or window > 0
    return RIGHT_MASK(tree, None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mask_that_shows_responses_to_each_other_is_noticed(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(architecture)
    assert shares_prefix(model)
    monkeypatch.setattr(Tree, "mask", sees_other_responses)
    assert not shares_prefix(model)
    assert model.config._attn_implementation != ATTENTION


@pytest.mark.parametrize("architecture", ["mistral", "gemma3_text"])
@pytest.mark.parametrize("wrong", [counts_places, sees_everything])
def test_a_wrong_sliding_window_is_noticed(
    architecture: str, wrong: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Tree):
        def mask(self, window: int | None) -> Tensor:
            return wrong(self, window)

    model = tiny_model(architecture)
    monkeypatch.setattr(prefix, "Tree", Wrong)
    assert not shares_prefix(model)


def test_positions_that_run_on_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = prefix.prefix_batch

    def running_on(comparisons: list[TokenizedComparison]) -> prefix.PrefixBatch:
        batch = right(comparisons)
        return prefix.replace(batch, position_ids=torch.arange(len(batch.input_ids)))

    monkeypatch.setattr("preflab.model.responses.prefix_batch", running_on)
    assert not shares_prefix(tiny_model("llama"))


@pytest.mark.parametrize("error", [RuntimeError, ValueError, AttributeError, NotImplementedError])
@pytest.mark.parametrize("place", ["setter", "attention"])
def test_a_model_that_cannot_be_tried_out_falls_back_with_a_warning(
    place: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise error("the shapes do not match")

    model = tiny_model("llama")
    if place == "setter":
        monkeypatch.setattr(model, "set_attn_implementation", refusing)
    else:
        monkeypatch.setattr(Tree, "mask", refusing)
    with caplog.at_level(logging.WARNING):
        module = ResponseLogps(model)
    assert module.share_prefix is False
    assert model.config._attn_implementation != ATTENTION
    (record,) = caplog.records
    assert "LlamaForCausalLM computes each response apart, about half as fast" in record.getMessage()
    assert "the shapes do not match" in record.getMessage()


def test_a_model_that_shares_prompts_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert shares_prefix(tiny_model("llama"))
    assert caplog.records == []


RECURRENT = {
    "mamba": lambda: MambaConfig(vocab_size=128, hidden_size=32, state_size=4, num_hidden_layers=2),
    "falcon_mamba": lambda: FalconMambaConfig(vocab_size=128, hidden_size=32, state_size=4, num_hidden_layers=2),
    "lfm2": lambda: Lfm2Config(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        initializer_range=0.25,
    ),
    "qwen3_next": lambda: Qwen3NextConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        layer_types=["linear_attention", "full_attention"],
        initializer_range=0.25,
    ),
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_and_hybrid_models_fall_back_to_separate_sequences(kind: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(RECURRENT[kind]()).eval()
    expected = logps_alone(model, PAIRS)
    module = ResponseLogps(copy.deepcopy(model))
    assert module.share_prefix is False
    found = module(collator(module.share_prefix)(PAIRS))
    torch.testing.assert_close(found, expected, rtol=RELATIVE, atol=RELATIVE)


def test_windows_that_attention_is_not_told_of_are_not_trusted() -> None:
    """Phi-MoE puts its window into the mask alone, and one wider than the probe changes no value of the probe."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
    model = AutoModelForCausalLM.from_config(PhimoeConfig(**sizes, **heads, sliding_window=64)).eval()
    assert not shares_prefix(model)


def test_sequences_beyond_the_models_positions_are_refused() -> None:
    for model in (tiny_model("llama"), add_lora(tiny_model("gpt2"), "policy", r=2, alpha=2, dropout=0.0, targets=())):
        check_positions(model, 256, "unused")
        with pytest.raises(UserError, match=r"257 tokens .* made for 256 tokens in all: lower max_length to 256"):
            check_positions(model, 257, "lower max_length to 256")
    check_positions(AutoModelForCausalLM.from_config(RECURRENT["mamba"]()), 10**9, "unused")  # it has no positions


def test_a_head_that_does_more_than_preflab_knows_is_refused() -> None:
    model = tiny_model("llama")
    check_head(model)
    model.lm_head.register_forward_hook(lambda _module, _args, logits: logits * 1.5)
    with pytest.raises(UserError, match="changes its logits in a way that preflab does not know"):
        ResponseLogps(model)


@pytest.mark.parametrize("setting", [{"final_logit_softcapping": 3.0}])
def test_a_soft_cap_of_the_logits_is_known(setting: dict[str, float]) -> None:
    model = tiny_model("gemma3_text", **setting)
    assert_agrees(ResponseLogps(copy.deepcopy(model)), model, logps_alone, PAIRS)


@pytest.mark.parametrize(("kind", "setting"), [("cohere", {"logit_scale": 0.25}), ("granite", {"logits_scaling": 4.0})])
def test_a_scale_of_the_logits_is_known(kind: str, setting: dict[str, float]) -> None:
    from transformers import AutoConfig

    sizes = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, **sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, **setting
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    assert_agrees(ResponseLogps(copy.deepcopy(model)), model, logps_alone, PAIRS)


def test_generation_gets_the_usual_attention_back() -> None:
    model = tiny_model("qwen2")
    ids = torch.tensor([PAIRS[0].prompt_ids])
    expected = model(input_ids=ids).logits
    ResponseLogps(model)
    assert model.config._attn_implementation == ATTENTION
    torch.testing.assert_close(usual_attention(model)(input_ids=ids).logits, expected)


def test_looking_into_a_peft_model() -> None:
    model = tiny_model("qwen2")
    adapted = add_lora(model, "policy", r=2, alpha=2, dropout=0.0, targets=())
    assert isinstance(adapted, PeftModel)
    assert transformers_model(adapted) is model


def test_no_id_is_taken_for_padding() -> None:
    batch = prefix_batch([TokenizedComparison((0, 0, 0), ((0, 0), (0,)))])
    assert batch.input_ids.tolist() == [0] * 6
    assert batch.targets.tolist() == [0, 0, 0]
    assert batch.token_counts.tolist() == [2, 1]


def test_the_layout_of_a_batch() -> None:
    """Two comparisons: prompt 10 11 with 20 21 and 30; prompt 12 with 40 and 50 51."""
    batch = prefix_batch(
        [
            TokenizedComparison((10, 11), ((20, 21), (30,)), row=7),
            TokenizedComparison((12,), ((40,), (50, 51)), row=9),
        ]
    )
    assert batch.input_ids.tolist() == [10, 11, 20, 21, 30, 12, 40, 50, 51]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2, 0, 1, 1, 2]
    assert batch.predictors.tolist() == [1, 2, 1, 5, 5, 7]
    assert batch.targets.tolist() == [20, 21, 30, 40, 50, 51]
    assert batch.owners.tolist() == [0, 0, 1, 2, 3, 3]
    assert batch.ends.tolist() == [3, 4, 6, 8]
    assert (batch.widths, batch.rows) == ((2, 2), (7, 9))
    assert batch.tree.slots.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert batch.tree.segments.tolist() == [[0, 0, 1, 1, 2], [0, 1, 2, 2, -1]]
    seen = batch.tree.mask(None)[:, 0].int().tolist()
    assert seen[0] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert seen[1] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 0, 1]]
    # A window of two sees the token before, which for the second response's first token is the prompt's last.
    assert batch.tree.mask(2)[0, 0].int().tolist()[4] == [0, 1, 0, 0, 1]
