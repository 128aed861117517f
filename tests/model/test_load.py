"""Models and tokenizers: from wherever they come, and a clear word where they cannot be used."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_gguf import write_gguf
from tiny_models import ARCHITECTURES, tiny_model
from tiny_tokenizers import pythia, qwen
from transformers import AutoModelForCausalLM

from preflab.core.records import UserError
from preflab.data.splits import load_template
from preflab.data.tokenize import ChatTemplate
from preflab.model.adapters import adapter_task, add_lora
from preflab.model.load import load_model
from preflab.model.precision import pick_dtype
from preflab.model.responses import ResponseLogps
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer, pad_apart_from
from preflab.training.model import load_trainable

CPU = torch.device("cpu")
IDS = torch.tensor([[7, 30, 12, 45, 26, 99, 5, 18]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def load(name: Path | str, task: Any = "policy", **options: Any) -> Any:
    return load_model(str(name), task, dtype=torch.float32, **options)


def trainable(kind: str, start: Path, output: Path, *, device: torch.device = CPU, **changes: Any) -> Any:
    settings = tiny_runs.settings(kind, start, output / "run", **changes)
    return load_trainable(settings, "reward" if kind == "reward" else "policy", load_template(settings), device)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with its tokenizer."""
    return tiny_runs.write_model(tmp_path_factory.mktemp("models") / "tiny-policy")


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy's adapter that does something, without a tokenizer of its own."""
    path = tmp_path_factory.mktemp("adapters") / "adapter"
    model = add_lora(load(folder), "policy", r=4, alpha=8, dropout=0.5, targets=())
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(path)
    return path


# ---- where they come from -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gguf_file_gives_the_model_and_tokenizer_it_was_made_from(folder: Path, tmp_path: Path) -> None:
    path = write_gguf(folder, tmp_path / "tiny.gguf")
    model, tokenizer = load(path), load_tokenizer(str(path))
    assert torch.allclose(logits(model), logits(load(folder)), atol=1e-5)
    text = "Hello there, what is two plus two?<|im_end|>"
    own = load_tokenizer(str(folder))
    assert tokenizer(text)["input_ids"] == own(text)["input_ids"]
    assert ChatTemplate(tokenizer).stop_ids == ChatTemplate(own).stop_ids
    # transformers still takes it for a quantised model, which it would not save.
    saved = save_model(model, tokenizer, tmp_path / "saved")
    assert torch.allclose(logits(load(saved)), logits(model), atol=1e-6)
    assert "quantization_config" not in json.loads((saved / "config.json").read_text())


@pytest.mark.slow
def test_an_adapter_of_a_gguf_file_finds_it_again(folder: Path, tmp_path: Path) -> None:
    path = write_gguf(folder, tmp_path / "tiny.gguf")
    adapted = add_lora(load(path), "policy", r=2, alpha=2, dropout=0.0, targets=())
    adapted.save_pretrained(tmp_path / "adapter")
    assert torch.allclose(logits(load(tmp_path / "adapter")), logits(adapted), atol=1e-6)


def test_a_gguf_file_without_its_package_names_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(folder, tmp_path / "tiny.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("transformers.modeling_gguf_pytorch_utils.is_gguf_available", lambda: False)
    with pytest.raises(UserError, match=r"preflab\[gguf\]"):
        load(path)


def test_a_damaged_gguf_file_is_the_users_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(UserError, match=r"broken\.gguf: is not a GGUF file"):
        load(path)


def test_an_adapter_folder_gives_its_base_with_the_adapter_on_top(folder: Path, adapter: Path) -> None:
    model = load(adapter)
    assert isinstance(model, PeftModel)
    assert not torch.allclose(logits(model), logits(load(folder)), atol=1e-2)
    with model.disable_adapter():
        assert torch.allclose(logits(model), logits(load(folder)), atol=1e-6)
    assert any(parameter.requires_grad for parameter in model.parameters())
    assert load_tokenizer(str(adapter)).get_vocab() == load_tokenizer(str(folder)).get_vocab()
    assert adapter_task(str(adapter)) == "policy"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_adapts_every_linear_layer_of_the_backbone(architecture: str) -> None:
    model = add_lora(tiny_model(architecture), "policy", r=2, alpha=2, dropout=0.0, targets=())
    inner = model.get_base_model().base_model
    plain = [
        name
        for name, module in inner.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
        and not hasattr(module, "base_layer")
        and not {"base_layer", "lora_A", "lora_B"} & set(name.split("."))
    ]
    assert plain == []
    assert sum("lora_A" in name for name, _ in inner.named_parameters()) >= 4 * 2


def test_unknown_lora_targets_are_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"lora_target_modules: .*It has .*q_proj"):
        add_lora(tiny_model("qwen2"), "policy", r=2, alpha=2, dropout=0.0, targets=("query_projection",))


# ---- what is not there ----------------------------------------------------------------------------------------------


LOADS = [load, lambda name: load_tokenizer(str(name))]


@pytest.mark.parametrize("load_one", LOADS)
def test_a_missing_folder_is_named_with_the_nearest_that_exists(folder: Path, load_one: Any) -> None:
    with pytest.raises(UserError, match=rf"at .*tiny-polcy; did you mean {folder}\?"):
        load_one(folder.with_name("tiny-polcy"))


@pytest.mark.parametrize("load_one", LOADS)
@pytest.mark.parametrize("name", ["nobody/nothing", "nothing", "runs/none"])
def test_what_is_neither_here_nor_on_a_hub_in_reach_is_told_so_in_one_sentence(name: str, load_one: Any) -> None:
    with pytest.raises(
        UserError, match=rf"^no (model|tokenizer) {name}: there is no such folder .* cannot be reached$"
    ):
        load_one(name)


@pytest.mark.parametrize("load_one", LOADS)
@pytest.mark.parametrize("name", ["./missing", "/tmp/nothing/here", "runs/a/b", "nothing.gguf"])
def test_a_path_that_is_not_there_is_never_asked_of_the_hub(name: str, load_one: Any) -> None:
    with pytest.raises(UserError, match=rf"^no (model|tokenizer) at {name}$"):
        load_one(name)


def test_a_folder_without_a_model_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="could not load the model"):
        load(tmp_path / "empty")


def test_weights_that_lack_layers_are_refused(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    weights = {name: tensor for name, tensor in model.state_dict().items() if "q_proj" not in name}
    del weights["lm_head.weight"]  # tied to the embeddings
    saved = save_model(model, load_tokenizer(str(folder)), tmp_path / "saved", weights=weights)
    with pytest.raises(UserError, match=r"lacks weights of Qwen2ForCausalLM: .*q_proj"):
        load(saved)


def test_an_adapter_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json: not valid JSON"):
        load(tmp_path)
    path.write_text(json.dumps({"task_type": "CAUSAL_LM"}))
    with pytest.raises(UserError, match="does not name its base model"):
        load(tmp_path)
    path.write_text(json.dumps({"task_type": "SEQ_2_SEQ_LM", "base_model_name_or_path": "x"}))
    with pytest.raises(UserError, match="the adapter is for SEQ_2_SEQ_LM"):
        adapter_task(str(tmp_path))


# ---- what does not fit ----------------------------------------------------------------------------------------------


def test_a_reward_head_that_was_never_trained_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no trained reward head \(score.weight is missing\)"):
        load(folder, "reward")
    assert load(folder, "reward", fresh_head=True).score.weight.shape == (1, 32)


def test_an_adapter_serves_only_what_it_was_trained_for(folder: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is an adapter for CAUSAL_LM, not a reward model"):
        load(adapter, "reward")
    with pytest.raises(UserError, match=r"merge it first \(preflab merge"):
        load(adapter, "reward", fresh_head=True)
    inner = load(folder, "reward", fresh_head=True)
    get_peft_model(inner, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is an adapter for SEQ_CLS, not a policy model"):
        load(tmp_path, "policy")


def test_a_slow_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        is_fast = False

    monkeypatch.setattr("preflab.model.tokenizers.AutoTokenizer.from_pretrained", lambda *_args, **_options: Slow())
    with pytest.raises(UserError, match=r"only a slow tokenizer; preflab needs a fast one \(tokenizer.json\)"):
        load_tokenizer(str(tmp_path))


def test_dropout_of_the_base_model_is_off_and_loras_stays(tmp_path: Path) -> None:
    path = tmp_path / "gpt2"
    tiny_model("gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3, vocab_size=379).save_pretrained(path)
    pythia().save_pretrained(path)
    model = load(path).train()
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    adapted = add_lora(load(path), "policy", r=2, alpha=2, dropout=0.25, targets=())
    rates = {module.p for name, module in adapted.named_modules() if "lora_dropout" in name and hasattr(module, "p")}
    assert rates == {0.25}


# ---- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_float16_is_refused_for_training_only(kind: str, lora: bool, folder: Path, tmp_path: Path) -> None:
    """Activations overflow in it too, so that LoRA's frozen weights are no exception."""
    with pytest.raises(UserError, match="float16 overflows in training"):
        trainable(kind, folder, tmp_path, lora=lora, dtype="float16")
    assert pick_dtype("float16", CPU, frozen=True) == torch.float16


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_what_lora_trains_is_float32_on_a_base_in_bfloat16(kind: str, folder: Path, tmp_path: Path) -> None:
    model = trainable(kind, folder, tmp_path, lora=True, dtype="bfloat16")
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    again = load_model(str(tmp_path / "adapter"), "reward" if kind == "reward" else "policy", dtype=torch.bfloat16)
    for adapted in (model, again):
        trained = {name: weight.dtype for name, weight in adapted.named_parameters() if weight.requires_grad}
        assert set(trained.values()) == {torch.float32}
        assert any("score" in name for name in trained) == (kind == "reward")
        assert {weight.dtype for weight in adapted.parameters() if not weight.requires_grad} == {torch.bfloat16}


# ---- where a model is trained ---------------------------------------------------------------------------------------


def test_a_model_to_train_comes_on_its_device(folder: Path, tmp_path: Path) -> None:
    """Attention is tried out before Accelerate moves anything, and should be tried where it will run."""
    model = trainable("sft", folder, tmp_path, device=torch.device("meta"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_a_model_that_will_be_sharded_waits_on_the_cpu(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.modeling_utils.is_fsdp_enabled", lambda: False)
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    model = trainable("sft", folder, tmp_path, device=torch.device("meta"))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("frozen", [True, False])
def test_the_precision_is_chosen_by_the_device(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_dtype("auto", CPU, frozen=frozen) == torch.float32
    assert pick_dtype("bfloat16", CPU, frozen=frozen) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    # Trained weights stay float32: a small learning rate vanishes in bfloat16's rounding.
    on_gpu = torch.bfloat16 if frozen else torch.float32
    assert pick_dtype("auto", torch.device("cuda"), frozen=frozen) == on_gpu


# ---- saving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_is_the_same_in_plain_transformers(architecture: str, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    expected = logits(model)
    ResponseLogps(model)  # sets attention of our own, of which a saved model must know nothing
    saved = save_model(model, pythia(), tmp_path / "saved", stop_ids=(0, 5))
    again = AutoModelForCausalLM.from_pretrained(saved)
    assert torch.allclose(logits(again), expected, atol=1e-5)
    assert again.generation_config.eos_token_id == [0, 5]
    assert "preflab" not in (saved / "config.json").read_text()


def test_a_killed_save_leaves_the_old_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load(folder), load_tokenizer(str(folder))
    saved = save_model(model, tokenizer, tmp_path / "saved")
    before = logits(load(saved))
    with torch.no_grad():
        model.model.norm.weight.mul_(2)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            save_model(model, tokenizer, saved)
    assert torch.equal(logits(load(saved)), before)
    save_model(model, tokenizer, saved)
    assert not torch.equal(logits(load(saved)), before)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_pad_token_is_found_or_made_that_does_not_end_responses() -> None:
    # Qwen has one of its own; Pythia's is its terminator, so it gets a new one, with a row in the embeddings.
    for tokenizer, token, added in ((qwen(), "<|endoftext|>", 0), (pythia(), "<|pad|>", 1)):
        vocabulary = len(tokenizer)
        model = tiny_model("qwen2", task="reward", vocab_size=vocabulary)
        pad_apart_from([tokenizer.eos_token_id], tokenizer, model)
        assert tokenizer.pad_token == token
        assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
        assert model.get_input_embeddings().num_embeddings == vocabulary + added


@pytest.mark.parametrize("task", ["policy", "reward"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_a_configuration_without_sizes_is_not_filled_with_made_up_weights(
    kind: str, task: str, folder: Path, tmp_path: Path
) -> None:
    """The family's usual sizes stand for those that are missing: billions of random numbers, in some families."""
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "checksums.json").unlink(missing_ok=True)
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(
        UserError, match=r"m: config\.json describes a model of [\d,]{11,} parameters \(\w+\), and the w"
    ):
        load(tmp_path / "m", task, fresh_head=task == "reward")
