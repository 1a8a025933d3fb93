"""Learning curves and bands of cross-validation, without a display; and how a notebook shows a figure.

Figures are made by matplotlib's object interface, so no window opens, no global state changes, and it works
alike in a script, a test and a notebook, which shows the axes that come back as a picture.
"""

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toolkit.histories import mean_and_deviation, read_history, together

_SHORT = {"acc": "accuracy", "mean_absolute_error": "mae", "mean_squared_error": "mse"}
_WORDS = {"acc": "accuracy", "mae": "mean absolute error", "mse": "mean squared error"}
# Parts of the names of Keras's metrics of which more is better; of all others, losses and errors, less is.
_RISING = (
    "acc",
    "auc",
    "precision",
    "recall",
    "score",
    "f1",
    "r2",
    "iou",
    "io_u",
    "similarity",
    "correlation",
)


def plot_history(
    history: Any,
    metric: str = "loss",
    *,
    ax: Axes | None = None,
    title: str | None = None,
    unit: str | None = None,
    smooth: float = 0.0,
    log: bool = False,
    skip: int = 0,
) -> Axes:
    """Draw a metric over the epochs: training as points, validation as a line, as the books do.

    The best epoch of the validation is marked: the lowest, or the highest of an accuracy and its like.

    Args:
        history: What `read_history` takes: a `keras.callbacks.History`, a dict of lists, a pandas DataFrame,
            a CSV or JSON file; or a dict of names to any of these, to compare them.
        metric: "loss", "accuracy", "mae", …; "acc" finds "accuracy" and the reverse.
        ax: Axes to draw into; None makes a new figure, reached by `.figure`, which a notebook shows.
        title: Title; None says which metric it is.
        unit: Unit of the metric, "1,000 dollars", for the vertical axis.
        smooth: Weight of the past in an exponential moving average, in [0, 1); 0 draws the plain numbers.
        log: Logarithmic vertical axis.
        skip: Leave out this many first epochs; the numbering stays.

    Returns:
        The axes; save with `.figure.savefig(path)`.

    Raises:
        ValueError: The history cannot be read, the metric is not there, or no epoch is left.

    >>> ax = plot_history({"loss": [0.9, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.7]})
    >>> [line.get_label() for line in ax.get_lines()]
    ['training', 'validation', 'lowest: 0.6 at epoch 2']
    """
    runs = history if _is_named(history) else {"": history}
    axes = ax or _new_axes()
    for number, (name, run) in enumerate(runs.items()):
        curves, color = read_history(run), f"C{number}"
        key = _find(curves, metric)
        for column, part, style in ((key, "training", "o"), (f"val_{key}", "validation", "-")):
            if column in curves:
                values = _moving_average(_numbers(curves, column), smooth)[skip:]
                epochs = _epochs(values, skip)
                axes.plot(epochs, values, style, color=color, markersize=4, label=f"{name} {part}".strip())
        if f"val_{key}" in curves:
            _mark_best(axes, epochs, values, metric, before=f"{name} ".lstrip())
    _label(axes, metric, unit, log, title or f"{_readable(metric).capitalize()} over the epochs")
    return axes


def plot_folds(
    histories: Any,
    metric: str = "loss",
    *,
    ax: Axes | None = None,
    title: str | None = None,
    unit: str | None = None,
    smooth: float = 0.0,
    log: bool = False,
    skip: int = 0,
    of: str = "folds",
) -> Axes:
    """Draw the validation curves of k folds: their mean, a band of one standard deviation, the best epoch.

    The mean in training stands beside it as points. Folds that stopped early count as far as they go; the
    best epoch is that of the drawn validation mean, among the epochs that all folds have reached.

    Takes the arguments of `plot_history`, but for `histories`: a list with one history a fold, each with
    validation results, or the `CrossValidation` that holds them; or a dict of names to such lists, whose
    means and bands are compared. `smooth` is applied to each fold; `of` says what they are, in the plural.

    Returns:
        The axes; save with `.figure.savefig(path)`.

    Raises:
        ValueError: As `plot_history`, or `histories` is a single history, or there is no fold.

    >>> ax = plot_folds([{"val_mae": [3.0, 2.0, 2.5]}, {"val_mae": [4.0, 2.0, 3.0]}], "mae")
    >>> ax.get_legend_handles_labels()[1][-1]
    'lowest mean: 2 at epoch 2'
    """
    groups = _groups(histories)
    alone = len(groups) == 1
    axes = ax or _new_axes()
    for number, (name, group) in enumerate(groups.items()):
        folds, training = [], []
        for curves in map(read_history, group):
            key = _find(curves, metric, "val_")
            folds.append(_moving_average(_numbers(curves, key), smooth)[skip:])
            if key.removeprefix("val_") in curves:
                training.append(_moving_average(_numbers(curves, key.removeprefix("val_")), smooth)[skip:])
        color = f"C{number % 10}"
        if alone:
            for fold in folds:
                axes.plot(_epochs(fold, skip), fold, color=color, alpha=0.25, linewidth=0.8)
        if alone and training:
            mean, _ = mean_and_deviation(together(training))
            axes.plot(_epochs(mean, skip), mean, "o", color=color, markersize=2, label="training, mean")
        mean, deviation = mean_and_deviation(together(folds))
        epochs = _epochs(mean, skip)
        style = ("-", "--", ":")[number // 10 % 3]  # there are ten colors
        axes.plot(epochs, mean, style, color=color, label=name or f"validation, mean of {len(folds)} {of}")
        if len(folds) > 1:
            label = "± 1 std. dev." if alone else None
            band = (mean - deviation, mean + deviation)
            axes.fill_between(epochs, *band, color=color, alpha=0.2 if alone else 0.1, label=label)
        if alone:
            reached_by_all = mean[: min(map(len, folds))]
            _mark_best(axes, epochs, reached_by_all, metric, after=" mean")
    count = sum(map(len, groups.values()))
    what = _readable(metric).capitalize() if alone else f"Validation {_readable(metric)}"
    _label(axes, metric, unit, log, title or f"{what} of {count} {of}")
    if alone and ax is None:  # inside the axes it would hide a part of the curves
        if legend := axes.get_legend():
            legend.remove()
        entries = axes.get_legend_handles_labels()
        axes.figure.legend(*entries, loc="outside lower center", ncols=2, fontsize="small")
    return axes


def png(drawn: Any) -> bytes:
    """Return a figure, or the figure of some axes, as the bytes of a PNG file.

    >>> png(plot_history({"loss": [0.9, 0.5]}))[1:4]
    b'PNG'
    """
    file = io.BytesIO()
    getattr(drawn, "figure", drawn).savefig(file, format="png")
    return file.getvalue()


def show(drawn: Any) -> None:
    """Show a figure, or the figure of some axes, below the cell of a notebook; do nothing elsewhere."""
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(png(drawn)))


class _ShownAxes(Axes):
    """Axes that a notebook shows as the picture of their figure."""

    def _repr_png_(self) -> bytes:
        return png(self)


class _WholeEpochs(MaxNLocator):
    """Ticks at whole numbers, 1 in place of 0: there is no epoch 0."""

    def __init__(self) -> None:
        super().__init__("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        return sorted({max(float(tick), 1.0) for tick in super().tick_values(vmin, vmax)})


def _new_axes() -> Axes:
    figure = Figure(figsize=(6.4, 4.0), dpi=100, layout="constrained")
    return figure.add_subplot(axes_class=_ShownAxes)


def _label(axes: Axes, metric: str, unit: str | None, log: bool, title: str) -> None:
    axes.set(title=title, xlabel="epoch", ylabel=_readable(metric) + (f" ({unit})" if unit else ""))
    axes.xaxis.set_major_locator(_WholeEpochs())
    if log:
        axes.set_yscale("log")
    axes.legend()


def _mark_best(axes: Axes, epochs: Any, values: Any, metric: str, before: str = "", after: str = "") -> None:
    if not np.isfinite(values).any():
        return
    rising = "loss" not in metric and any(part in metric for part in _RISING)
    best = int(np.nanargmax(values) if rising else np.nanargmin(values))
    what = f"{before}{'highest' if rising else 'lowest'}{after}"
    label = f"{what}: {values[best]:.3g} at epoch {epochs[best]}"
    axes.plot(epochs[best], values[best], "o", color="C3", label=label)


def _readable(metric: str) -> str:
    """Return the name of a metric in words: "price_mae" is "price mean absolute error"."""
    name = metric.removeprefix("val_")
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def _groups(histories: Any) -> Mapping[str, Any]:
    """Return lists of histories by their names; one list alone has an empty one."""
    histories = getattr(histories, "histories", histories)
    groups = histories if _is_named(histories) else {"": histories}
    for group in groups.values():
        if not isinstance(group, Sequence) or isinstance(group, str):
            raise ValueError(
                "`histories` must be a list with one history a fold (plot_history draws a single one), or a "
                f"dict of names to such lists. Received: {group!r:.80}"
            )
        if not group:
            raise ValueError("`histories` must hold at least one history. Received: none")
    return groups


def _is_named(history: Any) -> bool:
    """Tell {"small": history, "large": history} from {"loss": [0.9, 0.5]}."""
    return isinstance(history, Mapping) and not all(map(_is_curve, history.values()))


def _is_curve(value: Any) -> bool:
    """Tell a curve, which holds numbers or arrays, from a history, or a list of them."""
    if isinstance(value, np.ndarray):
        return True
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    first = value[0] if value else 0.0
    is_history = hasattr(first, "history") or hasattr(first, "iloc")
    return not (is_history or isinstance(first, Mapping | str | Path))


def _find(curves: Mapping[str, Any], metric: str, prefix: str = "") -> str:
    """Return the column of the metric under any of its names."""
    if isinstance(metric, str):
        name = metric.removeprefix("val_")
        prefix = prefix or metric.removesuffix(name)
        metric = prefix + name
        for other in (name, _SHORT.get(name, name), *(key for key in _SHORT if _SHORT[key] == name)):
            if prefix + other in curves:
                return prefix + other
    raise ValueError(f"`metric` must be one of {', '.join(map(str, curves))}. Received: {metric!r}")


def _numbers(curves: Mapping[str, Any], column: str) -> npt.NDArray[np.float64]:
    """Return a curve as an array; a metric may give an array an epoch, which has no single curve."""
    try:
        values = np.asarray(curves[column], dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(())
    if values.ndim != 1:
        raise ValueError(f"`{column}` must hold a number an epoch. Received: {curves[column]!r:.80}")
    return values


def _epochs(values: npt.NDArray[Any], skip: int) -> npt.NDArray[Any]:
    if len(values) == 0:
        raise ValueError(f"`skip` must leave an epoch. Received: skip={skip}, {skip} epochs or fewer")
    return np.arange(skip + 1, skip + 1 + len(values))


def _moving_average(values: npt.NDArray[np.float64], weight: float) -> npt.NDArray[np.float64]:
    """Average each value with those before it, each one epoch older counting `weight` times as much."""
    if not 0 <= weight < 1:
        raise ValueError(f"`smooth` must be at least 0 and below 1. Received: {weight}")
    total = norm = 0.0
    averages = []
    for value in values:
        if np.isnan(value):  # an epoch without validation: a gap, which must not swallow the later ones
            averages.append(value)
            continue
        total, norm = weight * total + value, weight * norm + 1.0
        averages.append(total / norm)
    return np.array(averages)
