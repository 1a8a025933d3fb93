"""The output layer, loss and metric that a target needs: the rule behind every recipe's last layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit._checks import refuse_non_finite


@dataclass(frozen=True)
class Head:
    """What `head` chose.

    Attributes:
        units: Width of the output layer.
        activation: Its activation, or None for a linear one.
        loss: Name of the loss for `compile`.
        metric: Name of the metric for `compile`.
        reason: Why, in a sentence.

    >>> choice = head([15.2, 42.3, 50.0])
    >>> choice.units, choice.activation, choice.loss, choice.metric
    (1, None, 'mse', 'mae')
    """

    units: int
    activation: str | None
    loss: str
    metric: str
    reason: str

    def layer(self) -> Any:
        """Return the output layer, `keras.layers.Dense(units, activation)`."""
        import keras

        return keras.layers.Dense(self.units, activation=self.activation)

    def __str__(self) -> str:
        activation = self.activation or "linear"
        return f"Dense({self.units}, {activation}), loss {self.loss}, metric {self.metric}: {self.reason}"


def head(y: npt.ArrayLike, *, outliers: bool = False) -> Head:
    """Choose the output layer, the loss and the metric for the targets y, and say why.

    Args:
        y: Targets of n training rows: integers or bools, one-hot or multi-label rows of 0 and 1, or floats.
        outliers: A continuous target has outliers: Huber loss instead of the squared error, which one
            distant row would rule. The metric is the mean absolute error either way.

    Raises:
        ValueError: y is empty, not finite, has one value only, or labels that do not count from 0.

    Source: Chollet, Deep Learning with Python, chapter 4, table 4.1 ("last-layer activation and loss").

    >>> head([0, 1, 1, 0]).loss
    'binary_crossentropy'
    >>> print(head([3, 0, 2, 1]))
    Dense(4, softmax), loss sparse_categorical_crossentropy, metric accuracy: integer labels of 4 classes.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "biuf" or y.ndim not in (1, 2) or y.size == 0:
        raise ValueError(
            "`y` must hold numbers, one or one row for each sample (sklearn.preprocessing.LabelEncoder turns "
            f"names into them). Received: shape {y.shape}, dtype {y.dtype}"
        )
    refuse_non_finite("y", y)
    values = np.unique(y)
    if len(values) == 1:
        raise ValueError(f"`y` must have at least two different values. Received: {values[0]} in every row.")
    zeros_and_ones = np.array_equal(values, [0, 1])
    if zeros_and_ones and y.ndim == 1:
        return Head(1, "sigmoid", "binary_crossentropy", "accuracy", "two values, 0 and 1.")
    if zeros_and_ones and (y.sum(axis=1) == 1).all():
        reason = f"one-hot rows of {y.shape[1]} classes."
        return Head(y.shape[1], "softmax", "categorical_crossentropy", "accuracy", reason)
    if zeros_and_ones:
        reason = f"{y.shape[1]} yes-or-no answers a row, which do not exclude each other."
        return Head(y.shape[1], "sigmoid", "binary_crossentropy", "binary_accuracy", reason)
    if y.ndim == 1 and len(values) == 2:
        raise ValueError(
            f"`y` has two values, so they must be 0 and 1. Received: {values[0]} and {values[1]}"
        )
    if y.ndim == 2 or y.dtype.kind == "f":
        loss, reason = "mse", "a quantity: any number may come out, so nothing squashes it."
        if outliers:
            loss = "huber"
            reason = "a quantity with outliers, which Huber's loss counts by their distance, not its square."
        return Head(y[0].size, None, loss, "mae", reason)
    if not np.array_equal(values, np.arange(len(values))):
        raise ValueError(
            "`y` holds integers, so they must be class labels 0, 1, 2, … with none left out (pass floats if "
            f"it is a quantity). Received: {len(values)} values from {values[0]} to {values[-1]}"
        )
    reason = f"integer labels of {len(values)} classes."
    return Head(len(values), "softmax", "sparse_categorical_crossentropy", "accuracy", reason)
