"""Many runs of one recipe side by side: how far their scores spread, as a table and as a figure."""

import csv
import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out of one run.

    Attributes:
        label: The options that were varied, "units=4"; empty where seeds alone differ.
        seed: The seed of the run.
        metrics: Its scores.
        verdict: "inside", "outside" or "not judged".
        seconds: How long it took.
        folder: Its folder, with the learning curve in history.csv.
    """

    label: str
    seed: int
    metrics: dict[str, float]
    verdict: str
    seconds: float
    folder: Path


def table(results: Sequence[Result]) -> str:
    """Return mean, standard deviation and range of each score, a line a variant.

    >>> print(table([Result("", seed, {"test_mae": 2.0 + seed}, "inside", 1.0, Path()) for seed in (0, 1)]))
    test_mae                            mean       std    lowest   highest  seeds
      default options                    2.5     0.707         2         3      2
    """
    lines = []
    for metric in dict.fromkeys(name for result in results for name in result.metrics):
        lines.append(f"{metric:<30}{'mean':>10}{'std':>10}{'lowest':>10}{'highest':>10}{'seeds':>7}")
        for label, values in _by_label(results, metric).items():
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells = f"{statistics.mean(values):>10.4g}{spread:>10.3g}{min(values):>10.4g}{max(values):>10.4g}"
            lines.append(f"  {label or 'default options':<28}{cells}{len(values):>7}")
    return "\n".join(lines)


def draw(results: Sequence[Result], title: str) -> Figure:
    """Draw the score of each run beside its variant, and the mean learning curves in their bands."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    score = next((name for name in metrics if name.startswith(("test_", "cv_"))), metrics[-1])
    figure = Figure(figsize=(9.6, 4.0), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (label, values) in enumerate(_by_label(results, score).items()):
        left.plot([number] * len(values), values, "o", color=f"C{number}", alpha=0.4)
        left.plot(number, statistics.mean(values), "_", color="black", markersize=24)
        curves, name = _curves([result.folder for result in results if result.label == label])
        if curves.size:
            mean, deviation = np.nanmean(curves, axis=0), np.nanstd(curves, axis=0)
            epochs = np.arange(1, len(mean) + 1)
            right.plot(epochs, mean, color=f"C{number}", label=label or f"mean of {len(curves)} runs")
            right.fill_between(epochs, mean - deviation, mean + deviation, color=f"C{number}", alpha=0.2)
            right.set(ylabel=name)
    labels = list(_by_label(results, score))
    left.set_xticks(range(len(labels)), [label or "default options" for label in labels], rotation=20)
    left.set(title=f"{title}: {score} of each run, and the mean", ylabel=score)
    left.margins(x=0.2)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(title="Learning curves: mean ± 1 std. dev.", xlabel="epoch")
    if right.has_data():
        right.legend()
    else:
        right.set_axis_off()
    return figure


def _by_label(results: Sequence[Result], metric: str) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for result in results:
        if metric in result.metrics:
            groups.setdefault(result.label, []).append(result.metrics[metric])
    return groups


def _curves(folders: Sequence[Path]) -> tuple[np.ndarray, str]:
    """Return the loss of each run, shape `(runs, epochs)` with NaN after its last, and the loss's name."""
    found = []
    name = ""
    for path in (folder / "history.csv" for folder in folders):
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            # CSVLogger writes NA where there was no validation.
            name = "val_loss" if rows and rows[0].get("val_loss", "NA") != "NA" else "loss"
            found.append([float(row[name]) for row in rows])
    curves = np.full((len(found), max(map(len, found), default=0)), np.nan)
    for curve, values in zip(curves, found, strict=True):
        curve[: len(values)] = values
    return curves, name
