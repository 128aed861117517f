"""What goes wrong elsewhere without a word, one test for each, by whole training runs."""

from __future__ import annotations

import errno
import json
import math
import shutil
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from machines import needs_bf16
from safetensors.torch import load_file
from tiny_runs import LORA, arguments, history, run, settings, weights
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from preflab.cli import main
from preflab.core.durable import read_metrics
from preflab.core.records import UserError
from preflab.data.splits import load_splits, load_template
from preflab.model.load import load_model
from preflab.model.prefix import PrefixBatch, prefix_batch
from preflab.model.responses import ResponseLogps, ResponseRewards
from preflab.objectives import OBJECTIVES, Loss, Objective, PairLogps, dpo
from preflab.training import checkpoint, preferences
from preflab.training.preference_settings import settings_of
from preflab.training.preferences import falling_chosen

pytestmark = pytest.mark.slow

LN_2 = math.log(2)
TABLE: Any = OBJECTIVES


# ---- 8, 9, 16: reward models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_9_the_reward_head_is_trained_and_saved(lora: bool, sft_root: Path, tmp_path: Path) -> None:
    result = run("reward", sft_root / "tiny", tmp_path / "run", lora=lora, learning_rate=1e-2)
    torch.manual_seed(0)
    fresh = run("reward", sft_root / "tiny", tmp_path / "untrained", lora=lora, learning_rate=1e-12, max_steps=1)
    before, after = weights(fresh.model)["score.weight"], weights(result.model)["score.weight"]
    assert float((after - before).abs().max()) > 1e-3, "the head was frozen"
    if lora:
        adapter = weights(tmp_path / "run" / "adapter")
        (head,) = [tensor for name, tensor in adapter.items() if "score" in name]
        torch.testing.assert_close(head, after)


@pytest.mark.parametrize("pad", ["own", "eos"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_8_9_a_saved_reward_model_gives_the_scores_of_its_last_evaluation(
    lora: bool, pad: str, sft_root: Path, tmp_path: Path
) -> None:
    """By transformers alone, padded on either side: it pools the last token, also where a tokenizer pads with EOS."""
    start = sft_root / "tiny"
    if pad == "eos":
        start = shutil.copytree(start, tmp_path / "tiny")
        tokenizer = AutoTokenizer.from_pretrained(start)
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(start)
    result = run("reward", start, tmp_path / "run", lora=lora, learning_rate=1e-2)
    rows = json.loads((tmp_path / "run" / "reward_model_eval_results.json").read_text())
    expected = torch.tensor([row[name] for row in rows for name in ("score_chosen", "score_rejected")])
    assert float(expected.std()) > 1e-2
    chosen = settings("reward", start, tmp_path)
    held_out = load_splits(chosen, load_template(chosen), need="rankings", seed=0).held_out
    assert held_out is not None
    whole = [list(row.prompt_ids + response) for row in held_out for response in row.response_ids]
    model = AutoModelForSequenceClassification.from_pretrained(result.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.model)
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    for side in ("right", "left"):
        padded = tokenizer.pad({"input_ids": whole}, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            found = model(**padded).logits[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    again = ResponseRewards(load_model(str(result.model), "reward", dtype=torch.float32)).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(prefix_batch(list(held_out))), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_16_float16_is_refused(kind: str, sft_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"float16 overflows.*bfloat16 or float32"):
        run(kind, sft_root / "tiny", tmp_path / "run", dtype="float16")


# ---- 15, 17: runs that cannot go on --------------------------------------------------------------------------------


def test_15_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(
    sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    @wraps(dpo)
    def poisoned(pairs: PairLogps, **options: float) -> Loss:
        loss = dpo(pairs, **options)
        calls.append(1)
        return Loss(loss.per_example * float("nan"), loss.values) if len(calls) == 5 else loss  # first it is tried out

    monkeypatch.setitem(TABLE, "dpo", Objective(poisoned))
    good = tmp_path / "run" / "checkpoints" / "step-00000002"
    with pytest.raises(UserError, match=rf"step 4: the loss is nan.*The last good checkpoint is {good}"):
        run("dpo", sft_root / "tiny", tmp_path / "run", eval_data=())
    assert history(tmp_path / "run", "loss")[-1] > 0, "no line claims that the loss was 0"
    assert len(history(tmp_path / "run", "loss")) == 3
    monkeypatch.setitem(TABLE, "dpo", Objective(dpo))
    run("dpo", sft_root / "tiny", tmp_path / "run", eval_data=())
    run("dpo", sft_root / "tiny", tmp_path / "unharmed", eval_data=())
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "unharmed"), "the checkpoint was good"


def test_15_before_the_first_checkpoint_it_says_that_there_is_none(
    sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @wraps(dpo)
    def broken(pairs: PairLogps, **_: float) -> Loss:
        return Loss(pairs.chosen * (float("inf") if len(pairs.chosen) == 4 else 1.0), {})

    monkeypatch.setitem(TABLE, "dpo", Objective(broken))
    with pytest.raises(UserError, match=r"step 1: the loss is -?inf.*There is no checkpoint yet"):
        run("dpo", sft_root / "tiny", tmp_path / "run", eval_data=())


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_17_out_of_memory_says_what_to_change(
    kind: str, sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ResponseRewards if kind == "reward" else ResponseLogps

    def full(_self: object, _batch: PrefixBatch) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAnd much more")

    monkeypatch.setattr(module, "forward", full)
    with pytest.raises(UserError) as caught:
        run(kind, sft_root / "tiny", tmp_path / "run")
    message = str(caught.value)
    assert "Tried to allocate 2.00 GiB" in message
    assert "per_device_train_batch_size (now 4)" in message
    assert all(
        name in message for name in ("gradient_accumulation_steps", "max_length", "gradient_checkpointing", "lora")
    )
    assert "per_device_eval_batch_size (now 5)" in message, "under which evaluation and reference run"


def test_17_the_longest_rows_are_tried_first(sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = ResponseRewards.forward

    def watched(self: ResponseRewards, batch: PrefixBatch) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(batch.input_ids))
        return original(self, batch)

    monkeypatch.setattr(ResponseRewards, "forward", watched)
    run("reward", sft_root / "tiny", tmp_path / "run", max_steps=-1, eval_data=())
    assert len(sizes) == 5
    assert sizes[0] == max(sizes) > min(sizes)


def test_a_full_disk_keeps_the_earlier_checkpoint(
    sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, calls = checkpoint.write_state, []

    def full(accelerator: Any, trainable: Any, folder: Path) -> None:
        calls.append(1)
        if len(calls) == 2:
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(accelerator, trainable, folder)

    words = arguments("dpo", sft_root / "tiny", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_state", full)
        with pytest.raises(SystemExit) as end:
            main(words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "is the disk full?" in said
    assert f"The last good checkpoint is {tmp_path / 'run' / 'checkpoints' / 'step-00000002'}" in said.replace(
        "\n", " "
    )
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    run("dpo", sft_root / "tiny", tmp_path / "run")
    run("dpo", sft_root / "tiny", tmp_path / "roomy")
    first, second = (tmp_path / name / "model" / "model.safetensors" for name in ("run", "roomy"))
    assert first.read_bytes() == second.read_bytes()


def test_a_full_disk_at_the_end_keeps_all_checkpoints(
    sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("preflab.training.model.save_model", full)
        with pytest.raises(SystemExit) as end:
            main(arguments("sft", sft_root / "tiny", tmp_path / "run"))
    assert end.value.code == 2
    assert "the disk seems full" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()
    assert run("sft", sft_root / "tiny", tmp_path / "run").model.exists()


# ---- 18: chosen responses grow unlikely ----------------------------------------------------------------------------


def lines(side: str, *changes: float) -> list[dict[str, float]]:
    """Metrics of a run whose chosen responses had −100 under the reference; on training data, of other rows each."""
    return [
        {
            "step": i,
            f"{side}logps/chosen": -100 + change - (0 if side else 50 * i),
            f"{side}logps/chosen_change": change,
            f"{side}loss": 0.5,
        }
        for i, change in enumerate(changes)
    ]


@pytest.mark.parametrize(("side", "fall"), [("", "from -200.0 to -215.0"), ("eval_", "from -100.0 to -115.0")])
def test_18_falling_chosen_log_probabilities_are_noticed(side: str, fall: str) -> None:
    warning = falling_chosen(lines(side, 0.0, -4.0, -15.0))
    assert warning is not None
    assert f"{side}logps/chosen fell {fall}" in warning


@pytest.mark.parametrize("side", ["", "eval_"])
@pytest.mark.parametrize("changes", [(0.0, 0.0, 0.0), (0.0, 5.0, 15.0), (0.0, -0.5, -1.5), (0.0, -20.0, 1.0)])
def test_18_no_warning_where_they_do_not_fall(side: str, changes: tuple[float, ...]) -> None:
    assert falling_chosen(lines(side, *changes)) is None
    assert falling_chosen([]) is None


def test_18_without_a_reference_held_out_rows_tell() -> None:
    rows = [{"step": i, "eval_logps/chosen": -100.0 - 20 * i} for i in range(2)]
    assert "eval_logps/chosen fell" in str(falling_chosen(rows))
    assert falling_chosen([{"step": 1, "logps/chosen": -20.0}, {"step": 2, "logps/chosen": -200.0}]) is None


def test_18_a_run_warns_and_an_sft_term_holds_against_it(
    sft_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"learning_rate": 2e-2, "max_steps": 20, "beta": 0.05, "warmup_ratio": 0.0, "eval_steps": 50}
    run("dpo", sft_root / "sft" / "merged_model", tmp_path / "dpo", **changes)
    fell = history(tmp_path / "dpo", "eval_logps/chosen")
    assert ("warning: eval_logps/chosen fell" in capsys.readouterr().err) == (fell[0] - fell[-1] > 3)
    run("dpo", sft_root / "sft" / "merged_model", tmp_path / "with-sft", sft_weight=2.0, **changes)
    held = history(tmp_path / "with-sft", "eval_logps/chosen")
    assert held[-1] > fell[-1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_18_the_advice_names_only_settings_that_the_objective_has(name: str) -> None:
    kind = settings_of(name)
    advice = preferences._against_falling(kind(model="m", train_data=("d",)))
    named = {setting for setting in ("sft_weight", "mix", "beta", "learning_rate") if setting in advice}
    assert {"beta", "learning_rate"} <= named <= set(kind.model_fields)


def test_18_an_objective_that_means_to_push_chosen_responses_down_is_not_warned_of(
    sft_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences, "falling_chosen", lambda _: "warning: it fell.")
    run("apo_down", sft_root / "tiny", tmp_path / "down", max_steps=1)
    assert "it fell" not in capsys.readouterr().err
    run("apo_zero", sft_root / "tiny", tmp_path / "zero", max_steps=1)
    assert "it fell. What holds against it: an SFT term (mix sft?weight=1)" in " ".join(capsys.readouterr().err.split())


# ---- 22: evaluation that would be ignored --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_22_an_unknown_metric_stops_the_run_before_it_trains(kind: str, sft_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metric_for_best_model: there is no 'eval_acuracy'.*eval_loss"):
        run(kind, sft_root / "tiny", tmp_path / "run", metric_for_best_model="eval_acuracy")
    assert read_metrics(tmp_path / "run") == []


@pytest.mark.parametrize("change", [{"load_best_model_at_end": True}, {"early_stopping_patience": 2}])
def test_22_the_best_model_without_rows_to_tell_it_by_is_refused(
    change: dict[str, Any], sft_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"need held-out rows: give eval_data or train_split_ratio"):
        run("dpo", sft_root / "tiny", tmp_path / "run", eval_data=(), **change)
    with pytest.raises(ValueError, match=r"needs .*eval_strategy"):
        settings("dpo", sft_root / "tiny", tmp_path / "run", eval_strategy="no", **change)


# ---- 30: any device ------------------------------------------------------------------------------------------------


def test_30_the_cpu_trains_in_float32_unless_it_is_told_otherwise(
    sft_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or is faster in bfloat16, which tests/model/test_precision.py is about."""
    needs_bf16()
    monkeypatch.setattr("preflab.training.stage.has_bf16", lambda _: False)
    run("dpo", sft_root / "tiny", tmp_path / "default", max_steps=3, bf16=None)
    run("dpo", sft_root / "tiny", tmp_path / "float32", max_steps=3, bf16=False)
    run("dpo", sft_root / "tiny", tmp_path / "bfloat16", max_steps=3, bf16=True)
    exact = history(tmp_path / "float32", "eval_loss")
    assert history(tmp_path / "default", "eval_loss") == exact
    half = history(tmp_path / "bfloat16", "eval_loss")
    assert half != exact
    assert half == pytest.approx(exact, abs=0.05)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16" / "model").dtype == torch.float32


def test_a_checkpoint_of_lora_holds_all_that_is_trained(sft_root: Path, tmp_path: Path) -> None:
    run("reward", sft_root / "tiny", tmp_path / "run", **LORA)
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000004" / "model.safetensors")
    assert any("score" in name for name in saved)
    assert any("lora_B" in name for name in saved)


def test_defaults_are_those_of_the_dpo_paper() -> None:
    given = settings_of("dpo")(model="m", train_data=("d",))
    assert (given.beta, given.label_smoothing, given.sft_weight) == (0.1, 0.0, 0.0)


@pytest.mark.parametrize("asked", [{"lora_r": 4}, {"lora_alpha": 8, "lora_dropout": 0.5}])
def test_an_adapter_that_is_trained_on_keeps_its_shape(asked: dict[str, Any], sft_root: Path, tmp_path: Path) -> None:
    """What was asked for is not ignored without a word, though it be the shape that it has."""
    with pytest.raises(UserError, match=rf"{', '.join(sorted(asked))}: .*is an adapter.*Leave these settings out"):
        run("dpo", sft_root / "sft" / "adapter", tmp_path / "run", lora=True, **asked)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_rows_beyond_the_models_positions_are_refused(kind: str, sft_root: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(sft_root / "tiny", short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8}))
    with pytest.raises(UserError, match=r"made for 8 tokens in all: lower max_length"):
        run(kind, short, tmp_path / "run")


def test_a_reward_model_is_no_policy(sft_root: Path, tmp_path: Path) -> None:
    result = run("reward", sft_root / "tiny", tmp_path / "reward")
    with pytest.raises(UserError, match="is a reward model, not a language model"):
        run("dpo", result.model, tmp_path / "dpo")


def test_a_finished_run_whose_model_is_gone_says_so(sft_root: Path, tmp_path: Path) -> None:
    result = run("sft", sft_root / "tiny", tmp_path / "run")
    (result.model / "model.safetensors").unlink()
    with pytest.raises(UserError, match="its model is gone"):
        run("sft", sft_root / "tiny", tmp_path / "run")


def test_an_output_folder_that_is_a_file_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(SystemExit) as end:
        main(["sandbox", str(taken / "inside")])
    assert end.value.code == 2
    assert "taken" in capsys.readouterr().err
    assert taken.read_text() == "mine"
