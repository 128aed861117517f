"""The quickstart at a twentieth of its size: what it writes, and that it goes on where it was stopped.

Whether models get better is seen at full size only (`make quickstart`).
"""

from __future__ import annotations

import math

import pytest

from preflab.recipes import quickstart
from preflab.recipes.settings import QuickstartSettings
from preflab.rundir import read_json, read_jsonl


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> quickstart.QuickstartResult:
    with pytest.MonkeyPatch.context() as patch:
        sizes = {"DEMONSTRATIONS": 64, "PREFERENCES": 64, "EVAL_ROWS": 40, "PROMPTS": 12}
        for name, size in sizes.items():
            patch.setattr(quickstart, name, size)
        patch.setenv("PREFLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        settings = QuickstartSettings(output_dir=tmp_path_factory.mktemp("runs") / "quickstart")
        first = quickstart.run_quickstart(settings)
        weights = [path.stat().st_mtime_ns for path in sorted(first.output_dir.glob("*/model/model.safetensors"))]
        again = quickstart.run_quickstart(settings)
        assert weights == [
            path.stat().st_mtime_ns for path in sorted(first.output_dir.glob("*/model/model.safetensors"))
        ], "finished stages are not run again"
        assert len(weights) == 4
        assert {**first.summary, "seconds": 0} == {**again.summary, "seconds": 0}
        return first


def test_the_summary_has_the_figures_and_they_follow_from_the_rows(run: quickstart.QuickstartResult) -> None:
    summary = read_json(run.output_dir / "summary.json")
    reward, dpo = summary["reward_model"], summary["dpo"]
    results = read_json(run.output_dir / "reward" / "reward_model_eval_results.json")
    met = sum(row["score_chosen"] > row["score_rejected"] for row in results) / len(results)
    assert reward["accuracy"] == pytest.approx(met)
    assert 0.5 < reward["bayes_accuracy"] <= 1
    assert dpo["loss_first"] == pytest.approx(math.log(2), abs=1e-4)
    assert set(dpo) >= {"reward_accuracy", "kl"}
    for name, figures in summary["gold_reward"].items():
        rewards = [row["gold_reward"] for row in read_json(run.output_dir / "gold" / f"{name}.json")]
        assert figures["mean"] == pytest.approx(sum(rewards) / len(rewards))
        assert figures["ci95"][0] <= figures["mean"] <= figures["ci95"][1]
        assert len(list(read_jsonl(run.output_dir / "responses" / f"{name}.jsonl"))) == figures["n"] == 12
    assert summary["seconds"] > 0


def test_an_interval_is_that_of_a_mean() -> None:
    figures = quickstart.mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 1.96 * math.sqrt(5 / 3) / 2
    assert (figures["mean"], figures["ci95"], figures["n"]) == (2.5, pytest.approx([2.5 - half, 2.5 + half]), 4)
