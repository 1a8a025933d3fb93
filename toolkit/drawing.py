"""Figures that lessons need: a model's graph, a classifier's regions, steps, costs, a spread.

Learning curves are drawn by `toolkit.plotting`. Here too no window opens and no global state changes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_LIGHT = ListedColormap(["#fdd0a2", "#c6dbef"])  # behind points in C1 (orange) and C0 (blue)


def mark_epoch(ax: Axes, epoch: int, label: str = "chosen") -> None:
    """Mark the epoch that a learning curve led to by a dotted line, named in the legend.

    Args:
        ax: Axes with epochs along x, as `toolkit.plot_history` returns them.
        epoch: Number of the epoch; the first one is 1.
        label: What is special about it.

    >>> import toolkit
    >>> ax = toolkit.plot_history({"loss": [0.9, 0.5, 0.3], "val_loss": [0.8, 0.6, 0.7]})
    >>> mark_epoch(ax, 2, "lowest validation loss")
    >>> ax.get_lines()[-1].get_label()
    'lowest validation loss: epoch 2'
    """
    ax.axvline(epoch, color="gray", linestyle="dotted", label=f"{label}: epoch {epoch}")
    ax.legend()


def draw_steps(curves: Mapping[str, Sequence[float]]) -> Axes:
    """Draw curves with a value a step, on a logarithmic axis, in a new figure.

    A curve that would hide an earlier one, because it is the same to the eye, is dashed.

    Args:
        curves: The values of each curve by its name, all above 0.

    Returns:
        The axes, whose figure is reached by `.figure`.

    >>> ax = draw_steps({"plain": [2.0, 1.0], "clever": [2.0, 0.5], "the same": [2.0, 0.5]})
    >>> [line.get_linestyle() for line in ax.get_lines()]
    ['-', '-', '--']
    """
    axes = Figure(figsize=(6.4, 4.0), layout="constrained").subplots()
    drawn: list[Sequence[float]] = []
    for name, curve in curves.items():
        hides = any(len(curve) == len(other) and np.allclose(curve, other, rtol=0.001) for other in drawn)
        axes.semilogy(range(1, len(curve) + 1), curve, "--" if hides else "-", label=name)
        drawn.append(curve)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.legend()
    return axes


def draw_spread(scores: Mapping[str, npt.ArrayLike], of: str = "run") -> Axes:
    """Draw how far scores spread, in a new figure: a row for each name, a point a score, and their mean.

    Args:
        scores: The scores by their name, each of shape `(n,)`.
        of: What a point stands for, in the singular.

    Returns:
        The axes, whose figure is reached by `.figure`.

    >>> ax = draw_spread({"small": [0.5, 0.7], "large": [0.8, 0.9]}, of="draw")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['small', 'large']
    """
    axes = Figure(figsize=(6.4, 4.0), layout="constrained").subplots()
    for row, values in enumerate(map(np.asarray, scores.values())):
        axes.plot(values, np.full(len(values), row), "o", color="C0", alpha=0.4)
        axes.plot(values.mean(), row, "|", color="C3", markersize=24, markeredgewidth=2)
    axes.set(ylim=(len(scores) - 0.4, -0.6))
    axes.set_yticks(range(len(scores)), scores)
    names = [f"one {of}", f"mean of the {of}s"]
    axes.figure.legend(axes.get_lines()[:2], names, loc="outside lower center", ncols=2, markerscale=0.5)
    return axes


def draw_costs(
    cases: Sequence[tuple[int, int]],
    times: Sequence[Sequence[float]],
    names: Sequence[str],
    ax: Axes | None = None,
    *,
    data: str = "",
) -> Axes:
    """Draw the seconds of a step against the size of a net, a line for each way and number of rows.

    Args:
        cases: Rows a step and hidden units of each case.
        times: For each case, the seconds of a step in each way.
        names: What to call the ways.
        ax: Axes to draw into; None makes a new figure, reached by `.figure`.
        data: Name of the data, for the title.

    Returns:
        The axes, logarithmic in both directions.

    >>> ax = draw_costs([(200, 16), (200, 128)], [(0.001, 0.006), (0.002, 0.006)], ["alone", "2 workers"])
    >>> [line.get_label() for line in ax.get_lines()]
    ['200 rows a step, alone', '200 rows a step, 2 workers']
    """
    ax = ax or Figure(figsize=(6.4, 4.8), dpi=100, layout="constrained").subplots()
    for color, rows in enumerate(dict.fromkeys(rows for rows, _ in cases)):
        chosen = [number for number, case in enumerate(cases) if case[0] == rows]
        units = [cases[number][1] for number in chosen]
        for way, name in enumerate(names):
            seconds = [times[number][way] for number in chosen]
            style = ("o-", "s--", "^:")[way % 3]
            ax.plot(units, seconds, style, color=f"C{color}", label=f"{rows} rows a step, {name}")
    ax.set(title=f"{data}: what a step costs" if data else "What a step costs")
    ax.set(xlabel="hidden units", ylabel="seconds a step")
    ax.set(xscale="log", yscale="log")
    ax.legend()
    return ax


def draw_graph(model: Any, ax: Axes | None = None) -> Axes:
    """Draw the layers of a functional model as boxes, each below those that feed it.

    Every tensor that goes from one layer to another is an arrow of its own, so a layer that is called twice
    has the arrows of both calls, and its box says how often it is called.

    Args:
        model: A `keras.Model(inputs, outputs)`.
        ax: Axes to draw into; None makes a new figure, reached by `.figure`.

    Returns:
        The axes.

    Raises:
        ValueError: The model has no graph, because it is a Sequential or a subclassed one.

    >>> import keras
    >>> inputs = keras.Input(shape=(4,), name="house")
    >>> ax = draw_graph(keras.Model(inputs, keras.layers.Dense(1, name="price")(inputs)))
    >>> [box.get_text() for box in ax.texts if box.get_text()]
    ['house', 'price']
    """
    layers = model.get_config().get("layers", [])
    if not all("inbound_nodes" in layer for layer in layers) or not layers:
        raise ValueError(f"`model` must be a functional model. Received: {type(model).__name__}")
    calls = {layer["name"]: max(1, len(layer["inbound_nodes"])) for layer in layers}
    arrows = Counter((feed, layer["name"]) for layer in layers for feed in _feeds(layer["inbound_nodes"]))

    place = _places(calls, arrows)
    levels = 1 + max(level for _, level in place.values())

    axes = ax or Figure(figsize=(6.4, 1 + 0.8 * levels), layout="constrained").subplots()
    boxes = {}
    for name, (x, y) in place.items():
        text = name if calls[name] == 1 else f"{name} (called {calls[name]} times)"
        style = {"boxstyle": "round,pad=0.4", "facecolor": "lightblue"}
        boxes[name] = axes.text(x, y, text, ha="center", va="center", bbox=style).get_bbox_patch()
    for (feed, fed), count in arrows.items():
        ends: dict[str, Any] = {"patchA": boxes[feed], "patchB": boxes[fed], "shrinkA": 0, "shrinkB": 0}
        for bend in _bends(count, _is_blocked(place, feed, fed)):
            arrow = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "color": "black"} | ends
            axes.annotate("", place[fed], place[feed], arrowprops=arrow)
    axes.set(xlim=(0, 1), ylim=(levels - 0.5, -0.5), title=f"The graph of {model.name}")
    axes.set_axis_off()
    return axes


def draw_regions(
    ax: Axes, plane: npt.ArrayLike, answers: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike
) -> None:
    """Color a plane by what a classifier of two classes answers there, and draw points by what is true.

    Args:
        ax: Axes to draw into.
        plane: Points of a square grid, row by row from the bottom, shape `(side * side, 2)`: `square`.
        answers: The answer at each of them, 0 or 1 (or bool), shape `(side * side,)`.
        x: Points, shape `(n, 2)`.
        y: What is true of each, 0 or 1 (or bool), shape `(n,)`. 0 is an orange cross, 1 a blue dot.

    Raises:
        ValueError: The answers are not one for each point of the plane.

    >>> ax = Figure().subplots()
    >>> plane = square(0, 1, side=3)
    >>> draw_regions(ax, plane, plane.sum(axis=1) > 1, [[0, 0], [1, 1]], [0, 1])
    >>> ax.get_legend_handles_labels()[1]
    ['0', '1']
    """
    points, x, y = np.asarray(plane), np.asarray(x), np.asarray(y).astype(bool)
    side = round(len(points) ** 0.5)
    if side * side != len(points) or np.shape(answers) != (len(points),):
        raise ValueError(
            "`answers` must hold one answer for each point of a square `plane`. "
            f"Received: shapes {np.shape(answers)} and {points.shape}"
        )
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    image = np.asarray(answers).reshape(side, side)
    ax.imshow(image, _LIGHT, vmin=0, vmax=1, origin="lower", extent=(left, right, bottom, top))
    ax.plot(*x[~y].T, "x", color="C1", markersize=4, label="0")
    ax.plot(*x[y].T, "o", color="C0", markersize=2.5, label="1")


def square(low: float, high: float, side: int = 200) -> npt.NDArray[np.float64]:
    """Return the points of a square grid from `low` to `high`, row by row from the bottom.

    Args:
        low: First coordinate of both axes.
        high: Last coordinate of both axes.
        side: Points in a row, and rows.

    Returns:
        Points, shape `(side * side, 2)`.

    >>> square(0, 1, side=2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    coordinates = np.linspace(low, high, side)
    return np.stack(np.meshgrid(coordinates, coordinates), axis=-1).reshape(-1, 2)


def _feeds(part: Any) -> list[str]:
    """Return the names of the layers whose outputs occur in part of a config, one for each tensor."""
    if isinstance(part, dict):
        if "keras_history" in part:
            return [part["keras_history"][0]]
        part = list(part.values())
    if isinstance(part, list | tuple):
        return [name for each in part for name in _feeds(each)]
    return []


def _places(names: Iterable[str], arrows: Iterable[tuple[str, str]]) -> dict[str, tuple[float, int]]:
    """Return where each layer's box stands: x from 0 to 1, and its depth, one below the last of its feeds."""
    depth: dict[str, int] = {}
    for name in names:  # Keras lists a layer after those that feed it
        feeds = [depth[feed] for feed, fed in arrows if fed == name and feed in depth]
        depth[name] = 1 + max(feeds, default=-1)
    width = Counter(depth.values())
    filled: Counter[int] = Counter()
    place = {}
    for name, level in depth.items():
        filled[level] += 1
        place[name] = (filled[level] / (width[level] + 1), level)
    return place


def _is_blocked(place: dict[str, tuple[float, int]], feed: str, fed: str) -> bool:
    """Tell whether another box stands on the straight line between two boxes."""
    (x, top), (end, bottom) = place[feed], place[fed]
    return any(
        top < level < bottom and abs(middle - (x + (end - x) * (level - top) / (bottom - top))) < 0.15
        for middle, level in place.values()
    )


def _bends(count: int, blocked: bool) -> list[float]:
    """Return how far each of the arrows between two boxes bends to a side: not at all if there is one."""
    if blocked:
        return [0.5 + 0.2 * number for number in range(count)]
    return [0.3 * (2 * number - count + 1) for number in range(count)]
