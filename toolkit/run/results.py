"""What many runs of one recipe gave: how far their scores spread, as a table and as a figure."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.histories import read_history
from toolkit.plotting import plot_folds
from toolkit.run import report


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out of one run.

    Attributes:
        label: The options that were varied, "units=4"; empty where seeds alone differ.
        seed: The seed of the run.
        metrics: Its scores.
        folder: Its folder, with the learning curve in history.csv.
    """

    label: str
    seed: int
    metrics: dict[str, float]
    folder: Path


def summary(metrics: Mapping[str, float]) -> str:
    """Return the score that a recipe is about, in a few words.

    >>> summary({"baseline_mae": 6.5, "test_mae": 2.25})
    'test_mae 2.25'
    """
    name = main_score(metrics)
    return f"{name} {report.number(metrics[name])}" if name else "no scores"


def main_score(names: Mapping[str, Any] | Sequence[str]) -> str:
    """Return the name of the score that a recipe is about: on test rows, or cross-validated, or the last.

    >>> main_score(["baseline_mae", "cv_mae", "test_mae", "seconds"])
    'test_mae'
    >>> main_score(["test_and", "test_or", "test_accuracy"])
    'test_accuracy'
    """
    for kind in ("test_mae", "test_accuracy", "test_", "cv_"):
        for name in names:
            if name.startswith(kind):
                return name
    return list(names)[-1] if names else ""


def interval(values: Sequence[float]) -> float:
    """Return half the width of the 95% confidence interval of the mean, by Student's t; NaN for one value.

    >>> round(interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    if len(values) < 2:
        return float("nan")
    error = _deviation(values) / len(values) ** 0.5
    return float(scipy.special.stdtrit(len(values) - 1, 0.975) * error)


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; NaN where a training has diverged, and a score is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1))


def table(results: Sequence[Result]) -> str:
    """Return mean, its 95% interval, standard deviation and range of each score, a line a variant.

    >>> print(table([Result("", seed, {"test_mae": 2.0 + seed}, Path()) for seed in (0, 1)]))
    test_mae                         mean       ±      std   lowest  highest  seeds
      default options                 2.5     6.4    0.707        2        3      2
    """
    width = max(23, *(len(result.label) for result in results))
    lines = []
    for metric in dict.fromkeys(name for result in results for name in result.metrics):
        head = f"{'mean':>10}{'±':>8}{'std':>9}{'lowest':>9}{'highest':>9}{'seeds':>7}"
        lines.append(f"{metric:<{width + 4}}{head}")
        for label, values in _by_label(results, metric).items():
            one = len(values) < 2  # what cannot be known of it stays empty
            spread = "" if one else f"{_deviation(values):.3g}"
            half = "" if one else f"{interval(values):.2g}"
            mean, low, high = map(report.number, (float(np.mean(values)), min(values), max(values)))
            cells = f"{mean:>10}{half:>8}{spread:>9}{low:>9}{high:>9}{len(values):>7}"
            lines.append(f"  {label or 'default options':<{width + 2}}{cells}")
    return "\n".join(lines)


def draw(results: Sequence[Result], title: str, expected: Mapping[str, report.Range]) -> Figure:
    """Draw the score of each run and their means, and, where there are any, the validation curves.

    Args:
        results: One for each run, one at least.
        title: The name of the recipe, and what it was run on.
        expected: The ranges to show, by the name of the score.
    """
    score = main_score(dict.fromkeys(name for result in results for name in result.metrics))
    metric = score.removeprefix("test_").removeprefix("cv_")
    curves: dict[str, list[Any]] = {}
    for result in results:
        path = result.folder / "history.csv"
        history = read_history(path) if path.is_file() else {}
        column = next((name for name in (f"val_{metric}", "val_loss") if name in history), "")
        if column:
            curves.setdefault(column, []).append((result.label, history))
    figure = Figure(figsize=(9.6 if curves else 6.4, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots(1, 1 + bool(curves), squeeze=False)[0]
    _draw_scores(axes[0], results, score, expected)
    if curves:
        column, found = max(curves.items(), key=lambda item: len(item[1]))
        groups: dict[str, list[Any]] = {}
        for label, history in found:
            groups.setdefault(label, []).append(history)
        longest = max(len(history[column]) for _, history in found)
        plot_folds(groups, column, ax=axes[1], skip=longest // 20, of="runs")
        if len(groups) > 6:  # the colors are those of the scores, where there is room for the names
            axes[1].get_legend().remove()
    figure.suptitle(f"{title}: {len(results)} run{'s' * (len(results) > 1)}")
    return figure


def _draw_scores(
    axes: Axes, results: Sequence[Result], score: str, expected: Mapping[str, report.Range]
) -> None:
    groups = _by_label(results, score)
    for row, values in enumerate(groups.values()):
        places = row + (np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1))
        axes.plot(values, places, "os^"[row // 10 % 3], color=f"C{row % 10}", alpha=0.6, markersize=4)
        half = np.nan_to_num(interval(values))
        axes.errorbar(float(np.mean(values)), row + 0.35, xerr=half, fmt="|", color="black", capsize=3)
    axes.plot([], [], "o", color="gray", markersize=4, label="a run")
    axes.errorbar([], [], xerr=[], fmt="|", color="black", capsize=3, label="mean, 95% interval")
    if score in expected:
        axes.axvspan(*expected[score], color="C2", alpha=0.12, label="expected")
    axes.set_yticks(range(len(groups)), [label or "default options" for label in groups])
    axes.set(title="each run, and the mean", xlabel=score, ylim=(len(groups) - 0.4, -0.6))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize="small")


def _by_label(results: Sequence[Result], metric: str) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for result in results:
        if metric in result.metrics:
            groups.setdefault(result.label, []).append(result.metrics[metric])
    return groups
