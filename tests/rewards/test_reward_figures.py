"""Figures of a reward model: of its scores of preference data, before and after training, in one source and another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from tiny_runs import run, write_model

from preflab.core.rundir import read_json
from preflab.page import style
from preflab.rewards.figures import delta_hist, draw_training_of_reward_model, score_hist
from preflab.sample.score import score_responses
from preflab.sample.settings import ScoreSettings

pytestmark = pytest.mark.slow

PICTURES = ("delta_hist.png", "score_hist.png", "score_distribution-beforetrain.png", "score_distribution-new.png")


def axes_of(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}


def counts(axis: Axes) -> list[np.ndarray]:
    return [patch.get_data().values for patch in axis.patches if isinstance(patch, StepPatch)]


def vertical_lines(axis: Axes) -> list[float]:
    """Where `axvline` drew over the whole height."""
    return [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [0, 1]]


def test_preference_data_of_two_sources_are_set_against_each_other() -> None:
    rows = [{"score_chosen": 0.1 * n - 1.0, "score_rejected": 0.05 * n} for n in range(30)]
    parts = {"train.jsonl": rows[:20], "test.jsonl": rows[20:]}
    overlay = axes_of(delta_hist(parts))["Chosen − rejected (30 pairs)"]
    assert [heights.sum() for heights in counts(overlay)] == [pytest.approx(1), pytest.approx(1)]
    assert 0 in vertical_lines(overlay)
    legend = overlay.get_legend()
    assert legend is not None
    above = [100 * np.mean([row["score_chosen"] > row["score_rejected"] for row in part]) for part in parts.values()]
    labels = [text.get_text() for text in legend.get_texts()]
    assert [label.split(" above")[0] for label in labels] == [
        f"{name}: {share:.1f}\u00a0%" for name, share in zip(parts, above, strict=True)
    ]

    train, test = axes_of(score_hist(parts)).values()
    assert train.get_ylim() == test.get_ylim()
    assert [len(heights) for heights in counts(train)] == [len(heights) for heights in counts(test)]
    assert all(heights.sum() == pytest.approx(1) for heights in (*counts(train), *counts(test)))


def test_before_and_after_training_have_the_same_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[str, Figure] = {}
    monkeypatch.setattr(style, "save_png", lambda figure, path: saved.update({path.name: figure}))
    before = [{"score_chosen": 0.1 * n, "score_rejected": 0.1 * n + 0.05} for n in range(5)]
    after = [{"score_chosen": 3.0 + n, "score_rejected": -3.0 - n} for n in range(5)]
    draw_training_of_reward_model(before, after, tmp_path)
    assert set(saved) == {
        *("delta_hist.png", "score_hist.png", "score_distribution-beforetrain.png", "score_distribution-new.png")
    }
    (old,) = saved["score_distribution-beforetrain.png"].axes
    (new,) = saved["score_distribution-new.png"].axes
    assert (old.get_xlim(), old.get_ylim()) == (new.get_xlim(), new.get_ylim())
    assert old.get_title() == "Scores · before training (5 pairs)"


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    run("reward", write_model(folder / "tiny"), folder / "run", draw=True)
    return folder / "run"


def test_training_a_reward_model_leaves_its_figures(reward_model: Path) -> None:
    assert all((reward_model / name).stat().st_size > 5000 for name in PICTURES)


def test_the_figures_are_of_the_rows_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr("preflab.training.reward.draw_training_of_reward_model", lambda *rows: given.update(rows=rows))
        model = write_model(tmp_path / "tiny")
        monkeypatch.setattr("preflab.training.stage.draw_curves", lambda *_: None)
        run("reward", model, tmp_path / "run", draw=True)
    before, after, folder = given["rows"]
    assert folder == tmp_path / "run"
    assert before == read_json(folder / "reward_model_eval_results-beforetrain.json")
    assert after == read_json(folder / "reward_model_eval_results.json")
    assert before != after


def test_a_run_without_evaluation_has_no_histograms(tmp_path: Path) -> None:
    run("reward", write_model(tmp_path / "tiny"), tmp_path / "run", draw=True, eval_data=(), eval_strategy="no")
    assert not any((tmp_path / "run" / name).exists() for name in PICTURES)


def test_scoring_sets_one_source_against_another(
    reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows in (("train", 3), ("test", 2)):
        pairs = [{"prompt": "Hi", "chosen": f"yes {n}", "rejected": "no"} for n in range(rows)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    data = tuple(str(tmp_path / f"{name}.jsonl") for name in ("train", "test"))
    given: dict[str, Any] = {}
    monkeypatch.setattr("preflab.sample.score.draw_pairs", lambda parts, **paths: given.update(parts=parts, **paths))
    output = tmp_path / "scores.jsonl"
    score_responses(ScoreSettings(reward_model=str(reward_model / "model"), data=data, output=output))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    shown = [{name: row[name] for name in ("score_chosen", "score_rejected")} for row in rows]
    assert given["parts"] == {data[0]: shown[:3], data[1]: shown[3:]}
    assert (given["delta"].name, given["scores"].name) == ("scores.delta_hist.png", "scores.score_hist.png")


def test_responses_without_a_rival_have_no_histograms(reward_model: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps({"prompt": "Hi", "response": "Hello!"}) + "\n")
    output = tmp_path / "scores.jsonl"
    data = (str(tmp_path / "answers.jsonl"),)
    score_responses(ScoreSettings(reward_model=str(reward_model / "model"), data=data, output=output))
    assert output.exists()
    assert not list(tmp_path.glob("*.png"))
