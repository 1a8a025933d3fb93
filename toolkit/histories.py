"""Learning curves: read from objects or files, put together in an array, their mean and deviation."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Curves: TypeAlias = npt.NDArray[np.float64]


def read_history(history: Any) -> dict[str, Any]:
    """Return the curves of a training, by the name of the metric, a value an epoch.

    Args:
        history: A `keras.callbacks.History`, a dict of lists, a pandas DataFrame with a row an epoch, or the
            path of a CSV (as `CSVLogger` writes it) or JSON file.

    Returns:
        For each metric its values in order. In a CSV file and in a DataFrame, NaN stands where an epoch had
        no validation, and a column that holds nothing else is left out.

    Raises:
        ValueError: It is none of these, or the file holds no such thing.

    >>> read_history({"loss": [0.9, 0.5]})
    {'loss': [0.9, 0.5]}
    """
    wanted = "a History, a dict of lists, a DataFrame, or the path of a .csv or .json file"
    if isinstance(history, str | Path):
        try:
            curves = _read_file(Path(history))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"`history` must be {wanted}. Received: {str(history)!r} ({error})") from error
    elif hasattr(history, "iloc") and hasattr(history, "columns"):  # pandas, without importing it
        curves = _without_empty({str(name): history[name].tolist() for name in history.columns})
    else:
        curves = getattr(history, "history", history)
    if not isinstance(curves, Mapping):
        raise ValueError(f"`history` must be {wanted}. Received: {history!r:.80}")
    return dict(curves)


def together(curves: Sequence[Any]) -> Curves:
    """Return curves as the rows of one array, NaN after the end of each.

    Args:
        curves: One at least, each with a value an epoch: a number, or an array of one shape.

    Returns:
        Array of shape `(curves, epochs)`, or `(curves, epochs, ...)`.

    >>> together([[3.0, 2.0], [4.0]])
    array([[ 3.,  2.],
           [ 4., nan]])
    """
    rows = np.full((len(curves), max(map(len, curves)), *np.shape(curves[0])[1:]), np.nan)
    for row, curve in zip(rows, curves, strict=True):
        row[: len(curve)] = curve
    return rows


def mean_and_deviation(curves: Curves) -> tuple[Curves, Curves]:
    """Return mean and standard deviation of each epoch, over the curves that have reached it.

    >>> mean_and_deviation(together([[3.0, 2.0], [4.0]]))
    (array([3.5, 2. ]), array([0.5, 0. ]))
    """
    numbers = np.ma.masked_invalid(curves)  # unlike NumPy's nanmean it does not warn of an epoch without any
    return np.ma.filled(numbers.mean(axis=0), np.nan), np.ma.filled(numbers.std(axis=0), np.nan)


def _read_file(path: Path) -> Any:
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"its name ends in {path.suffix!r}")
    with path.open(newline="", encoding="utf-8") as file:
        if path.suffix == ".json":
            return json.load(file)
        rows = list(csv.DictReader(file))
    columns = [name for name in (rows[0] if rows else []) if name is not None]
    return _without_empty({name: [_cell(row[name]) for row in rows] for name in columns})


def _cell(text: str | None) -> Any:
    """Read a cell of a CSV file: NaN where there was no validation, the text where it is no number."""
    if text in (None, "", "NA"):
        return np.nan
    try:
        return float(text)
    except ValueError:
        return text


def _without_empty(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {
        name: values
        for name, values in columns.items()
        if not all(isinstance(value, float) and np.isnan(value) for value in values)
    }
