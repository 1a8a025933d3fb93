"""Learning curves and cross-validation bands, drawn without a display.

Figures are made by matplotlib's object interface, so no window opens, no global state changes, and it works
alike in a script, a test and a notebook.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_SHORT = {"acc": "accuracy", "mean_absolute_error": "mae", "mean_squared_error": "mse"}


def plot_history(
    history: Any,
    metric: str = "loss",
    *,
    ax: Axes | None = None,
    smooth: float = 0.0,
    log: bool = False,
    skip: int = 0,
) -> Axes:
    """Draw a metric over the epochs: training as points, validation as a line, as the books do.

    Args:
        history: A `keras.callbacks.History`, a dict of lists, a path to a CSV (as `CSVLogger` writes it) or
            JSON file; or a dict of names to any of these, to compare them.
        metric: "loss", "accuracy", "mae", …; "acc" finds "accuracy" and the reverse.
        ax: Axes to draw into; None makes a new figure, reached by `.figure`.
        smooth: Weight of the past in an exponential moving average, in [0, 1); 0 draws the plain numbers.
        log: Logarithmic vertical axis.
        skip: Leave out this many first epochs; the numbering stays.

    Returns:
        The axes; save with `.figure.savefig(path)`.

    Raises:
        ValueError: The metric is not there, or no epoch is left.

    >>> ax = plot_history({"loss": [0.9, 0.5], "val_loss": [0.8, 0.7]})
    >>> [line.get_label() for line in ax.get_lines()]
    ['training', 'validation']
    """
    runs = history if _is_named(history) else {"": history}
    axes = ax or _new_axes()
    for number, (name, run) in enumerate(runs.items()):
        curves, color = read_history(run), f"C{number}"
        key = _find(curves, metric)
        for column, part, style in ((key, "training", "o"), (f"val_{key}", "validation", "-")):
            if column in curves:
                values = _moving_average(curves[column], smooth)[skip:]
                label = f"{name} {part}".strip()
                axes.plot(_epochs(values, skip), values, style, color=color, markersize=4, label=label)
    _label(axes, metric, log, f"{_long(metric).capitalize()} over the epochs")
    return axes


def plot_folds(
    histories: Sequence[Any] | Mapping[str, Sequence[Any]],
    metric: str = "loss",
    *,
    ax: Axes | None = None,
    smooth: float = 0.0,
    log: bool = False,
    skip: int = 0,
    of: str = "folds",
) -> Axes:
    """Draw the validation curves of k folds: their mean, a band of one standard deviation, the best epoch.

    Takes the arguments of `plot_history`, but for `histories`: one history a fold, with validation results;
    or a dict of names to such lists, whose means and bands are compared. Folds that stopped early count as
    far as they go. `smooth` is applied to each; the best epoch is that of the drawn mean. `of` says what the
    histories are, in the plural.

    Returns:
        The axes; save with `.figure.savefig(path)`.

    Raises:
        ValueError: As `plot_history`, or there is no fold.

    >>> ax = plot_folds([{"val_mae": [3.0, 2.0, 2.5]}, {"val_mae": [4.0, 2.0, 3.0]}], "mae")
    >>> ax.get_legend_handles_labels()[1][-1]
    'lowest mean: 2 at epoch 2'
    """
    groups = histories if isinstance(histories, Mapping) else {"": histories}
    if not groups or not all(groups.values()):
        raise ValueError("`histories` must hold at least one history. Received: none")
    rising = any(word in metric for word in ("acc", "auc", "precision", "recall", "r2", "f1"))
    axes = ax or _new_axes()
    for number, (name, group) in enumerate(groups.items()):
        folds = []
        for history in group:
            curves = read_history(history)
            folds.append(_moving_average(curves[_find(curves, metric, "val_")], smooth)[skip:])
        table = np.full((len(folds), max(map(len, folds))), np.nan)
        for row, fold in zip(table, folds, strict=True):
            row[: len(fold)] = fold
        epochs = _epochs(table[0], skip)
        mean, deviation = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
        alone, color = len(groups) == 1, f"C{number % 10}"
        if alone:
            axes.plot(epochs, table.T, color=color, alpha=0.25, linewidth=0.8)
        if len(folds) > 1:
            label = "± 1 std. dev." if alone else None
            band = (mean - deviation, mean + deviation)
            axes.fill_between(epochs, *band, color=color, alpha=0.2 if alone else 0.1, label=label)
        style = ("-", "--", ":")[number // 10 % 3]
        label = name or (f"mean of {len(folds)} {of}" if len(folds) > 1 else "validation")
        axes.plot(epochs, mean, style, color=color, label=label)
        if alone:
            best = int(mean.argmax() if rising else mean.argmin())
            label = f"{'highest' if rising else 'lowest'} mean: {mean[best]:.3g} at epoch {epochs[best]}"
            axes.plot(epochs[best], mean[best], "o", color="C3", label=label)
    count = sum(map(len, groups.values()))
    _label(axes, metric, log, f"Validation {_long(metric)}" + (f" of {count} {of}" if count > 1 else ""))
    return axes


def _new_axes() -> Axes:
    return Figure(figsize=(6.4, 4.0), dpi=100, layout="constrained").subplots()


def _label(axes: Axes, metric: str, log: bool, title: str) -> None:
    axes.set(title=title, xlabel="epoch", ylabel=_long(metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        axes.set_yscale("log")
    axes.legend()


def _long(metric: str) -> str:
    name = metric.removeprefix("val_")
    return {"mae": "mean absolute error", "mse": "mean squared error"}.get(name, _SHORT.get(name, name))


def _is_named(history: Any) -> bool:
    """Tell {"small": history, "large": history} from {"loss": [0.9, 0.5]}."""
    return isinstance(history, Mapping) and not all(
        isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) for value in history.values()
    )


def read_history(history: Any) -> Mapping[str, Any]:
    """Return the curves of a History, a dict, or a CSV or JSON file, as a dict of lists.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(history, str | Path):
        path = Path(history)
        with path.open(newline="", encoding="utf-8") as file:
            if path.suffix == ".json":
                history = json.load(file)
            elif path.suffix == ".csv":
                rows = list(csv.DictReader(file))
                columns = list(rows[0]) if rows else []
                # CSVLogger writes NA, and leaves it at that, where there was no validation.
                columns = [name for name in columns if any(row[name] not in ("NA", "") for row in rows)]
                history = {
                    name: [float("nan" if row[name] in ("NA", "") else row[name]) for row in rows]
                    for name in columns
                }
            else:
                raise ValueError(f"`history` must be a .csv or .json file. Received: {str(path)!r}")
    curves = getattr(history, "history", history)
    if not isinstance(curves, Mapping):
        raise ValueError(f"`history` must be a History, a dict or a file name. Received: {history!r:.80}")
    return curves


def _find(curves: Mapping[str, Any], metric: str, prefix: str = "") -> str:
    """Return the column of the metric under any of its names."""
    if isinstance(metric, str):
        name = metric.removeprefix("val_")
        prefix = prefix or metric.removesuffix(name)
        metric = prefix + name
        for other in (name, _SHORT.get(name, name), *(key for key in _SHORT if _SHORT[key] == name)):
            if prefix + other in curves:
                return prefix + other
    raise ValueError(f"`metric` must be one of {', '.join(curves)}. Received: {metric!r}")


def _epochs(values: npt.NDArray[Any], skip: int) -> npt.NDArray[Any]:
    if len(values) == 0:
        raise ValueError(f"`skip` must leave an epoch. Received: skip={skip}, {skip} epochs or fewer")
    return np.arange(skip + 1, skip + 1 + len(values))


def _moving_average(values: Any, weight: float) -> npt.NDArray[Any]:
    """Average each value with those before it, each one epoch older counting `weight` times as much."""
    if not 0 <= weight < 1:
        raise ValueError(f"`smooth` must be at least 0 and below 1. Received: {weight}")
    total = norm = 0.0
    averages = []
    for value in np.asarray(values, dtype=float):
        if np.isnan(value):  # an epoch without validation: a gap, which must not swallow the later ones
            averages.append(value)
            continue
        total, norm = weight * total + value, weight * norm + 1.0
        averages.append(total / norm)
    return np.array(averages)
