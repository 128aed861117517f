"""The quickstart at a twentieth of its size: what it writes, and that it goes on where it was stopped.

Whether models get better is seen at full size only (`make quickstart`).
"""

from __future__ import annotations

import math

import pytest
from no_pictures import draw_nothing

from preflab.core.rundir import read_json, read_jsonl
from preflab.quickstart.command import QuickstartResult, run_quickstart
from preflab.quickstart.settings import QuickstartSettings
from preflab.studies.compare.rows import read_study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> QuickstartResult:
    with pytest.MonkeyPatch.context() as patch:
        sizes = ("demonstrations=64", "preferences=64", "held_out=40", "prompts=12")
        draw_nothing(patch)
        patch.setenv("PREFLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        settings = QuickstartSettings(output_dir=tmp_path_factory.mktemp("runs") / "quickstart")
        first = run_quickstart(settings, *sizes)
        weights = [path.stat().st_mtime_ns for path in sorted(first.output_dir.glob("*/model/model.safetensors"))]
        again = run_quickstart(settings, *sizes)
        assert weights == [
            path.stat().st_mtime_ns for path in sorted(first.output_dir.glob("*/model/model.safetensors"))
        ], "finished stages are not run again"
        assert len(weights) == 5, "world, base, sft, reward, dpo"
        assert {**first.summary, "seconds": 0} == {**again.summary, "seconds": 0}
        return first


def test_the_summary_has_the_figures_and_they_follow_from_the_rows(run: QuickstartResult) -> None:
    summary = read_json(run.output_dir / "summary.json")
    reward, dpo = summary["reward_model"], summary["dpo"]
    results = read_json(run.output_dir / "reward" / "reward_model_eval_results.json")
    met = sum(row["score_chosen"] > row["score_rejected"] for row in results) / len(results)
    assert reward["accuracy"] == pytest.approx(met)
    assert 0.5 < reward["bayes_accuracy"] <= 1
    assert dpo["loss_first"] == pytest.approx(math.log(2), abs=1e-4)
    assert set(dpo) >= {"reward_accuracy", "kl"}
    for name, figures in summary["gold_reward"].items():
        rewards = [row["score"] for row in read_jsonl(run.output_dir / "compare" / "scores" / "gold" / f"{name}.jsonl")]
        assert figures["value"] == pytest.approx(sum(rewards) / len(rewards))
        assert figures["low"] <= figures["value"] <= figures["high"]
        assert len(rewards) == figures["n"] == 12
    assert summary["seconds"] > 0


def test_it_ends_with_a_report_on_base_sft_and_dpo(run: QuickstartResult) -> None:
    study = read_study(run.output_dir / "compare")
    assert [model.name for model in study.models] == ["base", "sft", "dpo"]
    assert [judge.kind for judge in study.judges] == ["gold", "reward_model"]
    assert all(study.training.values()), "the curves of all three are in the report"
    for page in ("report.html", "compare/report.html"):
        assert "Did it get better?" in (run.output_dir / page).read_text(encoding="utf-8")
        assert f"  {page} " in str(run)
