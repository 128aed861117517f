"""Training curves from the lines of metrics.jsonl. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

PANELS: Mapping[str, tuple[str, ...]] = {
    "loss": ("loss", "eval_loss"),
    "accuracy": ("accuracy", "eval_accuracy"),
    "reward accuracy": ("rewards/accuracies", "eval_rewards/accuracies"),
    "implicit rewards": ("rewards/chosen", "rewards/rejected", "eval_rewards/chosen", "eval_rewards/rejected"),
    "margin": ("margin", "eval_margin", "rewards/margins", "eval_rewards/margins"),
    "log-probabilities of responses": ("logps/chosen", "logps/rejected", "eval_logps/chosen", "eval_logps/rejected"),
    "reward, mean": ("reward_mean", "eval_reward_mean"),
    "reward, standard deviation": ("reward_std", "eval_reward_std"),
    "learning rate": ("learning_rate",),
    "gradient norm": ("grad_norm",),
}
"""Title of a panel -> the metrics in it; panels without any are left out."""

# Okabe and Ito's colours, which colour-blind readers can tell apart; the response decides the colour, the data the
# line.
BLUE, VERMILION = "#0072B2", "#D55E00"


def draw_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the figure of `curves`; nothing where no row has a metric that belongs in a panel."""
    if figure := curves(rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def curves(rows: Sequence[Mapping[str, float]]) -> Figure | None:
    """Draw every metric against the optimizer step: solid on training data, dashed with dots on held-out data."""
    names = {name for row in rows for name in row}
    panels = {title: [m for m in metrics if m in names] for title, metrics in PANELS.items()}
    panels = {title: metrics for title, metrics in panels.items() if metrics}
    if not panels:
        return None
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis, (title, metrics) in zip(axes, panels.items(), strict=False):
        for metric in metrics:
            points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
            held_out = metric.startswith("eval_")
            axis.plot(
                *zip(*points, strict=True),
                label=metric,
                color=VERMILION if "rejected" in metric else BLUE,
                linestyle="--" if held_out else "-",
                marker="o" if held_out or len(points) == 1 else None,
                markersize=3,
            )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if len(metrics) > 1:
            axis.legend(fontsize=7)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return figure
