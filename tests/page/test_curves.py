"""Training curves show what the rows say, and nothing besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflab.page.curves import curves, draw_curves

pytestmark = pytest.mark.slow

ROWS = [
    {"step": 0, "eval_loss": 0.7, "eval_logps/chosen": -10.0, "eval_logps/rejected": -11.0},
    {"step": 1, "loss": 0.7, "logps/chosen": -10.0, "logps/rejected": -11.0, "learning_rate": 0.1, "grad_norm": 2.0},
    {"step": 2, "loss": 0.6, "logps/chosen": -9.0, "logps/rejected": -13.0, "learning_rate": 0.2, "grad_norm": 1.0},
]


def test_each_metric_is_a_line_in_its_panel() -> None:
    figure = curves(ROWS)
    assert figure is not None
    shown = {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert set(shown) == {"loss", "log-probabilities of responses", "learning rate", "gradient norm"}
    lines = {str(line.get_label()): line for line in shown["log-probabilities of responses"].get_lines()}
    assert set(lines) == {"logps/chosen", "logps/rejected", "eval_logps/chosen", "eval_logps/rejected"}
    assert list(lines["logps/rejected"].get_ydata()) == [-11.0, -13.0]
    assert list(lines["eval_logps/chosen"].get_xdata()) == [0]


def test_a_run_without_metrics_has_no_picture(tmp_path: Path) -> None:
    draw_curves([{"step": 1}], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
    draw_curves(ROWS, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
