"""Merging: the merged model is the adapter's model, or nothing is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from accelerate import Accelerator
from peft import LoraModel
from safetensors.torch import load_file

from preflab.core.records import UserError
from preflab.data.splits import load_template
from preflab.model.adapters import adapter_task
from preflab.model.load import load_model
from preflab.model.prefix import prefix_batch
from preflab.model.responses import PROBE, ResponseLogps, ResponseRewards
from preflab.model.save import save_model
from preflab.model.tokenizers import load_tokenizer
from preflab.training.merge import merge_adapter
from preflab.training.model import load_trainable, save_trained
from preflab.training.settings import MergeSettings

IDS = torch.tensor([[7, 300, 12, 45, 260, 99, 5, 18]])


@pytest.fixture(scope="module", params=["policy", "reward"])
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a policy, and one of a reward model."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_runs.write_model(folder / "base")
    settings = tiny_runs.settings("reward" if request.param == "reward" else "sft", base, folder, lora=True)
    template = load_template(settings)
    torch.manual_seed(0)
    model = load_trainable(settings, request.param, template, torch.device("cpu"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return save_model(model, template.tokenizer, folder / "adapter")


def logits(folder: Path, task: Any) -> torch.Tensor:
    model = load_model(str(folder), task, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_the_merged_model_answers_as_the_adapters_does(adapter: Path, tmp_path: Path) -> None:
    result = merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path / "merged"))
    task = adapter_task(str(adapter))
    expected = logits(adapter, task)
    assert torch.allclose(logits(result.model, task), expected, atol=1e-4)
    assert result.difference < 1e-4
    plain = load_model(str(adapter.parent / "base"), task, dtype=torch.float32, fresh_head=True).eval()
    with torch.no_grad():
        assert not torch.allclose(plain(input_ids=IDS).logits, expected, atol=1e-2)  # the adapter does something
    assert not (result.model / "adapter_config.json").exists()
    saved, own = (load_tokenizer(str(path)) for path in (result.model, adapter))
    assert saved.chat_template == own.chat_template
    model = load_model(str(result.model), task, dtype=torch.float32)
    if task == "reward":
        assert model.config.pad_token_id == saved.pad_token_id
    else:
        assert saved.eos_token_id in model.generation_config.eos_token_id


@pytest.mark.slow
def test_the_merged_model_of_a_run_keeps_changes_that_bfloat16_would_round_away(adapter: Path, tmp_path: Path) -> None:
    """LoRA's frozen weights are bfloat16 on a GPU; merged into them, an adapter of small changes would be gone."""
    task = adapter_task(str(adapter))
    settings = tiny_runs.settings(
        "reward" if task == "reward" else "sft", adapter, tmp_path, lora=True, dtype="bfloat16"
    )
    template = load_template(settings)
    model = load_trainable(settings, task, template, torch.device("cpu"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(1e-2)
    kind = ResponseRewards if task == "reward" else ResponseLogps
    trained = kind(model).eval()
    final = save_trained(Accelerator(cpu=True), trained, template, tmp_path)
    assert {tensor.dtype for tensor in load_file(final / "model.safetensors").values()} == {torch.float32}
    expected = logits(tmp_path / "adapter", task)
    torch.testing.assert_close(logits(final, task), expected, rtol=1e-5, atol=1e-5)
    plain = load_model(str(adapter.parent / "base"), task, dtype=torch.float32, fresh_head=True)
    changes = [
        (own - plain.state_dict()[name]).abs().max()
        for name, own in load_model(str(final), task, dtype=torch.float32).state_dict().items()
        if "q_proj.weight" in name
    ]
    assert 0 < float(max(changes)) < 1e-2  # small, but there
    merged = kind(load_model(str(final), task, dtype=torch.float32)).eval()
    with torch.no_grad():
        batch = prefix_batch([PROBE])
        own = kind(trained.model.float())  # without the rounding of activations
        torch.testing.assert_close(merged(batch), own(batch), rtol=2e-3, atol=2e-3)


def test_all_weights_go_on_from_base_and_adapter_merged_in_float32(adapter: Path, tmp_path: Path) -> None:
    task = adapter_task(str(adapter))
    kind = "reward" if task == "reward" else "sft"
    exact, rounded = (
        load_trainable(settings, task, load_template(settings), torch.device("cpu"))
        for settings in (tiny_runs.settings(kind, adapter, tmp_path, dtype=dtype) for dtype in ("float32", "bfloat16"))
    )
    for name, tensor in exact.state_dict().items():
        assert torch.equal(rounded.state_dict()[name], tensor.bfloat16()), name


def test_a_merge_that_changes_the_model_is_refused(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(self: LoraModel, **options: Any) -> Any:
        merged = merge(self, **options)
        with torch.no_grad():
            for weight in merged.parameters():
                weight.mul_(1.01)
        return merged

    merge = LoraModel.merge_and_unload
    monkeypatch.setattr(LoraModel, "merge_and_unload", spoiled)
    with pytest.raises(UserError, match=r"merging changed the outputs by .* more than the tolerance 0.001"):
        merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path / "merged"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="something already"):
        merge_adapter(MergeSettings(adapter=adapter, output_dir=tmp_path))
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_only_an_adapter_can_be_merged(adapter: Path, tmp_path: Path) -> None:
    base = adapter.parent / "base"
    with pytest.raises(UserError, match="not the folder of an adapter"):
        merge_adapter(MergeSettings(adapter=base, output_dir=tmp_path / "merged"))
