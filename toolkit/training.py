"""Train in compiled epochs: the data lies on the device, and an epoch is one compiled call.

`fit` is `model.fit` for data in memory: the same arguments and the same numbers, sooner,
because `model.fit` spends most of its time around the arithmetic and not in it. `fit_many` trains many models
at once, and `cross_validate` stands on it.
"""

import concurrent.futures
import contextlib
import hashlib
import inspect
import io
import itertools
import json
import math
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import scipy.sparse
import tensorflow as tf
from keras.src.utils.rng_utils import get_random_seed  # Keras sets its seed in public, but tells it nowhere
from tensorflow.python.ops.parallel_for import pfor

Rows = npt.NDArray[np.int64]
Logs = dict[str, Any]

CALL_SECONDS = 0.3  # what one compiled call may take: the progress bar and Ctrl-C wait no longer
XLA_STEPS = 1500  # fewer steps than this in all do not earn back the time that XLA needs to compile them
RESIDENT_BYTES: int | None = (
    None  # more data than this is fed in blocks; None: half of the device's free memory
)
VALIDATION_ROWS = 1024  # stacked models validate on batches of so many rows: the means are the same
CHECKPOINT_SECONDS = 10.0  # a run with a checkpoint folder writes no more often than this
SHARED_BYTES = 1_000_000  # smaller arrays are copied: it costs nothing
JOINED_BYTES = 4_000_000  # what `together` trains as one has no more data than this
THREAD_STEPS = (
    100_000  # so many steps, each model's counted, pay for the tracing of a stack for one more core
)
MANY_EPOCHS = 50  # more epochs than this share one progress bar


def fit(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = 32,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    jit: bool | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
) -> keras.callbacks.History:
    """Train like `model.fit`, with one compiled call an epoch.

    Arguments and result are those of `model.fit`; with `shuffle=False` the weights and the History are
    `model.fit`'s too, to float32 rounding.

    Args:
        model: Compiled model; its own `train_step` and `test_step` run.
        x: Array, SciPy sparse matrix, or list, tuple or dict of such; rows first, any numeric dtype.
        y: Targets, likewise.
        batch_size: Rows a step, in training and in validation.
        epochs: Epoch at which to stop.
        verbose: 0 silent, 1 bar, 2 a line an epoch; "auto" is 1 on a terminal and 2 elsewhere.
        callbacks: Callbacks that act at epochs. One that needs every batch is refused.
        validation_split: Fraction of the rows, taken from the end, to validate on.
        validation_data: `(x, y)` or `(x, y, sample_weight)` to validate on instead.
        shuffle: Draw a new order each epoch, from Keras's seed (`keras.utils.set_random_seed`) and the number
            of the epoch: two calls with one seed see the rows in the same order.
        class_weight: Weight of each class, by number.
        sample_weight: Weight of each row, shape `(n,)`, or one array per output.
        initial_epoch: Epoch at which to start.
        jit: Use XLA: True, False, or "auto" (where it pays).
        checkpoint: Folder in which to keep the state of the run. Where it holds some, of a run that was
            killed, the run goes on from there, and ends with the numbers that it would have had.

    Returns:
        The History, with Python floats.

    Raises:
        ValueError: Input that cannot be right, before any training: the message names the first place.
            Or a checkpoint of another model, of other data or settings: the message names what differs.
        TypeError: A dataset or generator, or a callback that needs every batch.
        FloatingPointError: Weights are no longer finite after an epoch.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("sgd", loss="mse")
    >>> history = fit(model, [[0, 1], [1, 0]], [1.0, 1.0], epochs=2, verbose=0)
    >>> [round(loss, 4) for loss in history.history["loss"]]
    [1.0, 0.9409]
    """
    _check_model(model)
    table = _table(x, y, sample_weight)
    validation = None
    if validation_data is not None:
        validation_x, validation_y, validation_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
        validation = _table(validation_x, validation_y, validation_weight, prefix="validation ")
    elif validation_split:
        kept = math.floor(len(table) * (1.0 - validation_split))
        if not 0 < kept < len(table):
            raise ValueError(
                f"`validation_split` must leave rows on both sides. Received: {validation_split}"
            )
        table, validation = table.take(slice(kept)), table.take(slice(kept, None))
    for part in (table, validation):
        if part is not None:
            _check_targets(model, part)
    if class_weight is not None:  # for training alone
        table = _weighted(table, class_weight)
    settings = _Settings(epochs, initial_epoch, shuffle, _seed(), jit)
    rows = np.arange(len(table)), np.arange(0 if validation is None else len(validation))
    member = _Member(0, "the model", model, *rows, _check_callbacks(callbacks), settings)
    (history,) = _train(
        _Request([member], table, validation, _check_batch_size(batch_size), verbose, checkpoint)
    )
    return history


def fit_many(
    models: Sequence[keras.Model],
    x: Any,
    y: Any,
    splits: Sequence[tuple[Any, Any]],
    *,
    names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    shuffle: bool = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    jit: bool | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[keras.callbacks.History]:
    """Train many models at once, each on its own rows of one copy of the data.

    For k-fold cross-validation, many seeds, a grid of learning rates. Each model gets the numbers that `fit`
    alone gives it on its rows, to float32 rounding. Models of one architecture are trained as one, their
    weights stacked, where that is exact; the others run one after another.

    Args:
        models: Compiled models.
        x: Array, SciPy sparse matrix, or list, tuple or dict of such, for all models.
        y: Targets, likewise.
        splits: For each model the numbers of its training rows and of its validation rows (None: none).
        names: What to call the models in messages; "model 1", "model 2", ... by default.
        batch_size: Rows a step.
        epochs: Epoch at which to stop.
        verbose: As in `fit`; the metrics shown are means over the models.
        callbacks: A function from a model's position in `models` to its list of callbacks, or one list a
            model: no two models can share a callback.
        shuffle: Draw a new order each epoch; every model from the same seed and epoch, as `fit` would.
        class_weight: Weight of each class, by number, in training.
        sample_weight: Weight of each row, in training and validation.
        initial_epoch: Epoch at which to start.
        jit: Use XLA: True, False, or "auto" (where it pays).
        checkpoint: Folder in which to keep the state of the run, as in `fit`.

    Returns:
        A History a model.

    Raises:
        ValueError: Input that cannot be right, before any training, or splits that are not row numbers of x.
        TypeError: A dataset or generator, or a callback that needs every batch or is shared.
        FloatingPointError: A model's weights are no longer finite after an epoch.

    >>> x, y = np.eye(4), np.ones(4)
    >>> models = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]) for _ in range(2)]
    >>> for model in models:
    ...     model.compile("sgd", loss="mse")
    >>> histories = fit_many(models, x, y, [([0, 1], [2, 3]), ([2, 3], [0, 1])], epochs=2, verbose=0)
    >>> [sorted(history.history) for history in histories]
    [['loss', 'val_loss'], ['loss', 'val_loss']]
    """
    table = _table(x, y, sample_weight)
    batch_size = _check_batch_size(batch_size)
    for model in models:
        _check_model(model)
        _check_targets(model, table)
    splits = _check_splits(splits, len(models), len(table))
    checked_callbacks = _check_many_callbacks(callbacks, len(models))
    settings = _Settings(epochs, initial_epoch, shuffle, _seed(), jit)
    chosen_names = [f"model {i + 1}" for i in range(len(models))] if names is None else list(names)
    if len(chosen_names) != len(models):
        raise ValueError(f"`names` must have one for each of the {len(models)} models. Received: {names!r}")
    members = [
        _Member(i, chosen_names[i], model, *splits[i], checked_callbacks[i], settings)
        for i, model in enumerate(models)
    ]
    weighted = table if class_weight is None else _weighted(table, class_weight)
    return _train(_Request(members, weighted, table, batch_size, verbose, checkpoint, many=True))


def cross_validate(
    build_model: Callable[[Any], keras.Model],
    x: Any,
    y: Any,
    *,
    folds: int = 4,
    repeats: int = 1,
    seed: int = 0,
    stratify: Any = None,
    groups: Any = None,
    batch_size: int | None = 32,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    shuffle: bool = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    jit: bool | str = "auto",
    monitor: str = "val_loss",
    folder: str | os.PathLike[str] | None = None,
) -> "CrossValidation":
    """Train a fresh model on each fold, all of them at once, and keep every epoch's curve.

    Args:
        build_model: Makes a compiled model from the training rows of x (so that it can scale by these alone).
            Keras's seed is `seed` plus the number of the fold when it is called, and `seed` in training.
        x: Array, SciPy sparse matrix, or list, tuple or dict of such.
        y: Targets, likewise.
        folds: Parts that the rows are cut into, as by `toolkit.kfold`.
        repeats: How often to cut them anew, with the seeds `seed`, `seed + 1`, ...
        seed: Seed of everything.
        stratify: Labels, shape `(n,)`, whose shares are to be the same in all folds.
        groups: Group numbers, shape `(n,)`; no group is on both sides.
        batch_size: As in `fit`, like all arguments that are not named here.
        epochs: As in `fit`.
        verbose: As in `fit`.
        callbacks: As in `fit_many`.
        shuffle: As in `fit`.
        class_weight: As in `fit_many`.
        sample_weight: As in `fit_many`.
        jit: As in `fit`.
        monitor: What is lowest in the best epoch.
        folder: Where to keep the state of the run, like `checkpoint` in `fit`.

    Returns:
        The curves, and what they say.

    Raises:
        ValueError: As `fit`.

    >>> def build_model(x_train):
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> result = cross_validate(build_model, np.eye(2).repeat(4, axis=0), np.ones(8), epochs=3, verbose=0)
    >>> result.curves["val_loss"].shape
    (4, 3)
    >>> result.best_epoch
    3
    """
    table = _table(x, y, sample_weight)
    splits = _check_splits(
        list(_folds(len(table), folds, repeats, seed, stratify, groups)), folds * repeats, len(table)
    )
    checked_callbacks = _check_many_callbacks(callbacks, len(splits))
    settings = _Settings(epochs, 0, shuffle, seed, jit)

    def build(i: int) -> keras.Model:
        keras.utils.set_random_seed(seed + i)
        model = build_model(_take(x, splits[i][0]))
        _check_model(model)
        _check_targets(model, table)
        return model

    members = [
        _Member(i, f"fold {i + 1}", build(i), *split, checked_callbacks[i], settings)
        for i, split in enumerate(splits)
    ]
    keras.utils.set_random_seed(seed)
    weighted = table if class_weight is None else _weighted(table, class_weight)
    request = _Request(members, weighted, table, _check_batch_size(batch_size), verbose, folder, many=True)
    histories = _train(request)
    return CrossValidation(tuple(history.history for history in histories), monitor)


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """What `cross_validate` has found.

    Attributes:
        histories: The history of each fold: for each metric its value at each epoch.
        monitor: The metric that chooses the best epoch, by its lowest mean.

    >>> CrossValidation(({"val_loss": [2.0, 1.0, 4.0]}, {"val_loss": [3.0, 2.0, 2.0]}))
    2 folds, best epoch 2 of 3 by val_loss:
      val_loss  1.5000 +- 0.5000
    """

    histories: tuple[dict[str, list[float]], ...]
    monitor: str = "val_loss"

    @property
    def curves(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric all curves, shape `(folds, epochs)`; NaN after a fold's last epoch."""
        epochs = max(len(history[self.monitor]) for history in self.histories)
        return {
            name: np.array(
                [history[name] + [np.nan] * (epochs - len(history[name])) for history in self.histories]
            )
            for name in self.histories[0]
        }

    @property
    def mean(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric its mean over the folds, shape `(epochs,)`."""
        return {name: np.nanmean(curve, axis=0) for name, curve in self.curves.items()}

    @property
    def std(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric its standard deviation over the folds, shape `(epochs,)`."""
        return {name: np.nanstd(curve, axis=0) for name, curve in self.curves.items()}

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, with the lowest mean; among those that all folds have reached."""
        reached = min(len(history[self.monitor]) for history in self.histories)
        return int(self.mean[self.monitor][:reached].argmin()) + 1

    @property
    def scores(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric its values in the best epoch, shape `(folds,)`: a lowest point flatters."""
        return {name: curve[:, self.best_epoch - 1] for name, curve in self.curves.items()}

    def __repr__(self) -> str:
        epochs = len(self.mean[self.monitor])
        lines = [f"{len(self.histories)} folds, best epoch {self.best_epoch} of {epochs} by {self.monitor}:"]
        width = max(map(len, self.scores))
        lines += [
            f"  {name:{width}}  {_number(score.mean())} +- {_number(score.std())}"
            for name, score in self.scores.items()
        ]
        return "\n".join(lines)

    def plot(self, metric: str = "loss") -> Any:
        """Draw the mean curves of a metric, in training and validation, in a band of one standard deviation.

        Args:
            metric: Name of the metric, without "val_".

        Returns:
            A matplotlib Figure, which needs no display.

        Raises:
            ValueError: There is no such metric.
        """
        from matplotlib.figure import Figure  # not everybody who trains draws

        names = {"training": metric, "validation": f"val_{metric}"}
        if metric not in self.mean:
            raise ValueError(f"`metric` must be one of {sorted(self.mean)}. Received: {metric!r}")
        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        axes = figure.subplots()
        for label, name in names.items():
            if name in self.mean:
                mean, std = self.mean[name], self.std[name]
                epochs = np.arange(1, len(mean) + 1)
                axes.plot(epochs, mean, label=label)
                axes.fill_between(epochs, mean - std, mean + std, alpha=0.2)
        axes.axvline(self.best_epoch, color="grey", linestyle=":", label=f"best epoch, {self.best_epoch}")
        axes.set(title=f"{metric}, {len(self.histories)} folds", xlabel="epoch", ylabel=metric)
        axes.legend()
        return figure


@dataclass(frozen=True)
class _Settings:
    epochs: int
    initial_epoch: int
    shuffle: bool
    seed: int
    jit: bool | str

    def __post_init__(self) -> None:
        for name in ("epochs", "initial_epoch"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 0:
                raise ValueError(f"`{name}` must be a whole number, 0 or more. Received: {value!r}")
        if self.jit not in (True, False, "auto"):
            raise ValueError(f"`jit` must be True, False or 'auto'. Received: {self.jit!r}")

    def use_xla(self, model: keras.Model, table: "_Table", steps: int) -> bool:
        """Say whether XLA pays for so many steps an epoch."""
        if self.jit == "auto":
            return _use_xla(model, table, steps * (self.epochs - self.initial_epoch))
        return bool(self.jit)


@dataclass(frozen=True, eq=False)
class _Table:
    """Arrays with one row an example, checked, in the dtypes in which Keras would feed them."""

    structure: Any  # x, (x, y) or (x, y, sample_weight), as `train_step` receives them
    leaves: list[Any]  # the arrays and CSR matrices of the structure, in its order

    def __len__(self) -> int:
        return int(self.leaves[0].shape[0])

    @property
    def nbytes(self) -> int:
        return sum(sum(part.nbytes for part in _parts(leaf)) for leaf in self.leaves)

    @property
    def sparse(self) -> bool:
        return any(scipy.sparse.issparse(leaf) for leaf in self.leaves)

    def take(self, rows: Any) -> "_Table":
        leaves = [leaf[rows] for leaf in self.leaves]
        return _Table(keras.tree.pack_sequence_as(self.structure, leaves), leaves)

    def signature(self) -> list[tuple[tf.TensorSpec, ...]]:
        return [
            tuple(tf.TensorSpec((None, *part.shape[1:]), _tensor_dtype(part)) for part in _parts(leaf))
            for leaf in self.leaves
        ]

    def cut(
        self, tensors: Sequence[tuple[tf.Tensor, ...]], indices: tf.Tensor, in_order: bool = False
    ) -> list[tuple[tf.Tensor, ...]]:
        """Take rows, inside a graph: tensors as `_upload` makes them, indices of shape `(batch_size,)`.

        Indices that are `in_order`, each one more than the one before, spare a copy.
        """
        take = _slice if in_order else tf.gather
        return [
            _cut_sparse(parts, indices, in_order)
            if scipy.sparse.issparse(leaf)
            else (take(parts[0], indices),)
            for leaf, parts in zip(self.leaves, tensors, strict=True)
        ]

    def cut_signature(self) -> list[tuple[tf.TensorSpec, ...]]:
        coordinates = tf.TensorSpec((None, 2), tf.int64)
        return [
            (coordinates, parts[0]) if scipy.sparse.issparse(leaf) else parts
            for leaf, parts in zip(self.leaves, self.signature(), strict=True)
        ]

    def pack(self, batch: Sequence[tuple[tf.Tensor, ...]], size: Any) -> Any:
        """Make of what `cut` gave the structure that Keras itself would feed."""
        leaves = [
            tf.SparseTensor(*parts, (size, leaf.shape[1])) if scipy.sparse.issparse(leaf) else parts[0]
            for leaf, parts in zip(self.leaves, batch, strict=True)
        ]
        return keras.tree.pack_sequence_as(self.structure, leaves)

    def first_row(self) -> Any:
        """Return a batch of one row."""
        return self.pack(self.cut(_upload(self.take([0]).leaves), tf.constant([0])), 1)


def _upload(leaves: list[Any]) -> list[tuple[tf.Tensor, ...]]:
    return [tuple(map(_to_device, _parts(leaf))) for leaf in leaves]


def _to_device(part: npt.NDArray[Any]) -> tf.Tensor:
    """Make a tensor, without a copy where TensorFlow can compute on the array's own memory."""
    fit_to_share = (
        part.nbytes >= SHARED_BYTES
        and part.ctypes.data % 64 == 0  # or TensorFlow would end the process
        and part.dtype.kind in "iuf"
        and part.flags.c_contiguous
        and part.flags.writeable
        and not tf.config.list_logical_devices("GPU")
    )
    if fit_to_share:
        return tf.experimental.dlpack.from_dlpack(part.__dlpack__())
    return tf.convert_to_tensor(part)


def _parts(leaf: Any) -> tuple[npt.NDArray[Any], ...]:
    return (leaf.data, leaf.indices, leaf.indptr) if scipy.sparse.issparse(leaf) else (leaf,)


def _tensor_dtype(array: npt.NDArray[Any]) -> Any:
    return tf.string if array.dtype.kind in "OUS" else array.dtype


def _slice(tensor: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    start, size = [indices[0], *[0] * (tensor.shape.rank - 1)], tf.shape(indices, tf.int64)[0]
    return tf.slice(tensor, start, [size, *tensor.shape[1:]])


def _cut_sparse(
    csr: tuple[tf.Tensor, ...], indices: tf.Tensor, in_order: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut rows out of a CSR matrix: co-ordinates and values of a SparseTensor."""
    values, columns, row_splits = csr
    if in_order:
        first, last = row_splits[indices[0]], row_splits[indices[-1] + 1]
        values, columns = values[first:last], columns[first:last]
        ends = tf.cast(tf.gather(row_splits, indices + 1) - first, tf.int64)
    else:
        positions = tf.ragged.range(tf.gather(row_splits, indices), tf.gather(row_splits, indices + 1))
        values, columns = tf.gather(values, positions.flat_values), tf.gather(columns, positions.flat_values)
        ends = tf.cast(positions.row_splits[1:], tf.int64)
    # The number of rows that have ended: sooner than positions.value_rowids(), which goes through a mask.
    ended = tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(ends), ends, ends[-1] + 1))[:-1]
    return tf.stack([ended, tf.cast(columns, tf.int64)], axis=1), values


def _table(x: Any, y: Any, sample_weight: Any, prefix: str = "") -> _Table:
    """Check the arrays and pack them as `model.fit` does."""
    x, y, sample_weight = (
        None if value is None else _convert(prefix + name, value)
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))
    )
    if x is None or not keras.tree.flatten(x):
        raise ValueError(f"`{prefix}x` must be an array, or hold some. Received: {x}")
    if sample_weight is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(sample_weight):
        sample_weight = keras.tree.map_structure(lambda _: sample_weight, y)
    structure = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    table = _Table(structure, keras.tree.flatten(structure))
    for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        for leaf in keras.tree.flatten(value) if value is not None else []:
            if leaf.shape[0] != len(table):
                raise ValueError(
                    f"`{prefix}{name}` must have as many rows as x, n={len(table)}. Received: {leaf.shape[0]}"
                )
    if not len(table):
        raise ValueError(f"`{prefix}x` must have at least one row. Received: none")
    return table


def _convert(name: str, value: Any) -> Any:
    """Return the arrays of a structure as NumPy or CSR, floats in Keras's float type, all of them finite."""
    if isinstance(value, dict):
        return {key: _convert(f"{name}[{key!r}]", item) for key, item in value.items()}
    if _is_list_of_arrays(value):
        return tuple(_convert(f"{name}[{i}]", item) for i, item in enumerate(value))
    if scipy.sparse.issparse(value):
        leaf = value.tocsr()
    elif isinstance(value, list | tuple) or hasattr(value, "__array__"):
        try:
            leaf = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"`{name}` must have rows of equal length. Received: {error}") from error
    else:
        raise TypeError(
            f"`{name}` must be an array, a SciPy sparse matrix, or a list or dict of such; "
            f"use model.fit for datasets and generators. Received: {type(value).__name__}"
        )
    if leaf.dtype == object and all(isinstance(item, str) for item in leaf.flat):
        leaf = leaf.astype(str)
    if leaf.dtype.kind not in "biufUS" or not leaf.ndim:
        raise ValueError(
            f"`{name}` must be an array of numbers. Received: shape {leaf.shape}, dtype {leaf.dtype}"
        )
    if leaf.dtype.kind == "f":
        if leaf.dtype != keras.config.floatx():
            with np.errstate(over="ignore"):  # what overflows is refused as infinite
                leaf = leaf.astype(keras.config.floatx())
        _check_finite(name, leaf)
    return leaf


def _is_list_of_arrays(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(len(getattr(item, "shape", ())) for item in value)


def _check_finite(name: str, leaf: Any) -> None:
    numbers = leaf.data if scipy.sparse.issparse(leaf) else leaf
    rows = max(
        1, 4_000_000 * len(numbers) // max(1, numbers.size)
    )  # a mask of all of x could fill the memory
    for start in range(0, len(numbers), rows):
        finite = np.isfinite(numbers[start : start + rows])
        if not finite.all():
            place = np.argwhere(~finite)[0] + [start, *[0] * (numbers.ndim - 1)]
            received = numbers[tuple(place)]
            if scipy.sparse.issparse(leaf):
                place = [np.searchsorted(leaf.indptr, place[0], side="right") - 1, leaf.indices[place[0]]]
            columns = ", ".join(str(index) for index in place[1:])
            where = f"row {place[0]}" + (f", column {columns}" if columns else "")
            raise ValueError(f"`{name}` must be finite. Received: {received} in {where}")


def _class_weights(y: Any, class_weight: dict[int, float]) -> npt.NDArray[Any]:
    """Translate to a weight a row, as `model.fit` does."""
    if y is None or keras.tree.is_nested(y):
        raise ValueError(
            "`class_weight` must go with a single array of labels. Received: none or several outputs"
        )
    if not isinstance(class_weight, dict):
        raise ValueError(f"`class_weight` must be a dict of class to weight. Received: {class_weight!r}")
    for key, weight in class_weight.items():
        if isinstance(key, str) or key != int(key):
            raise ValueError(f"`class_weight` must have whole numbers as keys. Received: {key!r}")
        if not math.isfinite(weight):
            raise ValueError(f"`class_weight` must be finite. Received: {weight} for class {key}")
    classes = y.argmax(axis=-1) if y.ndim > 1 and y.shape[-1] != 1 else y.reshape(len(y), -1)[:, 0]
    classes = np.round(classes).astype(np.int64)
    weights = np.ones(len(y), keras.config.floatx())
    for key, weight in class_weight.items():
        weights[classes == key] = weight
    return weights


class _Feed:
    """A table on the device: the whole of it where it fits, else block after block."""

    def __init__(self, table: _Table, batch_size: int, uploaded: dict[int, tuple[tf.Tensor, ...]]) -> None:
        self.table = table
        self.batch_size = batch_size
        self.resident: list[tuple[tf.Tensor, ...]] | None = None
        budget = _free_bytes() // 2 if RESIDENT_BYTES is None else RESIDENT_BYTES
        if table.nbytes <= budget or all(id(leaf) in uploaded for leaf in table.leaves):
            for leaf in table.leaves:
                if id(leaf) not in uploaded:
                    (uploaded[id(leaf)],) = _upload([leaf])
            self.resident = [uploaded[id(leaf)] for leaf in table.leaves]
        else:
            self.block_steps = max(1, budget * len(table) // (4 * table.nbytes * batch_size))
            _warn(
                f"The data, {table.nbytes:,} bytes, does not fit the device's budget of {budget:,}: "
                f"it is fed in blocks of {self.block_steps * batch_size} rows."
            )

    def release(self) -> None:
        """Free the device's memory now; traced functions refer to the feed and would keep it for a while."""
        self.resident = None

    def blocks(self, rows: Rows) -> Iterator[tuple[list[tuple[tf.Tensor, ...]], tf.Tensor, int]]:
        """Yield tensors, batches of row numbers in them, shape `(steps, size)`, and how many to take."""
        steps = len(rows) // self.batch_size
        block_steps = steps if self.resident else min(steps, self.block_steps)
        for start in range(0, steps, max(1, block_steps)):
            stop = min(start + block_steps, steps)
            yield self._block(
                rows[start * self.batch_size : stop * self.batch_size], block_steps, self.batch_size
            )
        rest = rows[steps * self.batch_size :]
        if len(rest):
            yield self._block(rest, 1, len(rest))

    def _block(self, rows: Rows, steps: int, size: int) -> tuple[list[tuple[tf.Tensor, ...]], tf.Tensor, int]:
        count = len(rows) // size
        if self.resident:
            return self.resident, tf.convert_to_tensor(rows.reshape(steps, size)), count
        padded = np.resize(rows, steps * size)  # a short last block must not be compiled anew
        return (
            _upload(self.table.take(padded).leaves),
            tf.convert_to_tensor(np.arange(steps * size).reshape(steps, size)),
            count,
        )


def _free_bytes() -> int:
    """Return the free memory of the device that TensorFlow computes on."""
    if tf.config.list_logical_devices("GPU"):
        from tensorflow.python.client import device_lib  # the only place that tells a GPU's memory

        limit = max(
            device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU"
        )
        return int(limit - tf.config.experimental.get_memory_info("GPU:0")["current"])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Steps:
    """Many steps in one compiled call."""

    def __init__(
        self, step: Callable[[Any], Any], feed: _Feed, jit: Callable[[int], bool], rows: int, in_order: bool
    ) -> None:
        self.step = tf.function(  # of any batch size: the uneven last batch is not traced again
            lambda batch, size: step(feed.table.pack(batch, size)),
            input_signature=[feed.table.cut_signature(), tf.TensorSpec((), tf.int64)],
            autograph=False,
        )
        self.feed = feed
        self.jit = jit
        self.in_order = in_order
        self.count = math.ceil(rows / feed.batch_size)
        self.functions: dict[int, Any] = {}  # by the size of the batch
        self.plain: Any = None  # the graph without XLA, which takes batches of any size
        self.chunk = 1

    def __call__(self, rows: Rows, progress: Callable[[int, Any], None]) -> Any:
        """Take the rows in batches and return the last logs; progress hears of the steps done so far."""
        logs: Any = {}
        done = 0
        for tensors, order, count in self.feed.blocks(rows):
            size = order.shape[1]
            start = 0
            while start < count:
                stop = min(start + self.chunk, count)
                started = time.perf_counter()
                logs = self._call(size, count, tensors, order, tf.constant(start), tf.constant(stop))
                keras.tree.map_structure(np.asarray, logs)  # waits for the device
                if size == self.feed.batch_size:
                    pace = CALL_SECONDS / (time.perf_counter() - started)
                    self.chunk = max(1, min(int(self.chunk * 64), int((stop - start) * pace)))
                done += stop - start
                start = stop
                progress(done, logs)
        return logs

    def _call(self, size: int, steps: int, *arguments: Any) -> Any:
        if size in self.functions:
            return self.functions[size](*arguments)
        if not self.jit(steps):
            self.plain = self.plain or self._compile(jit=False)
            self.functions[size] = self.plain
            return self.plain(*arguments)
        self.functions[size] = self._compile(jit=True)
        try:
            return self.functions[size](*arguments)
        except tf.errors.OpError as error:  # XLA compiles before it computes: the model is as it was
            _warn_no_xla(error)
            self.jit = lambda _: False
            del self.functions[size]
            return self._call(size, steps, *arguments)

    def _compile(self, jit: bool) -> Any:
        def run(tensors: Any, order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> Any:
            logs = self.step.get_concrete_function().structured_outputs
            empty = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), logs)
            size = tf.shape(order, tf.int64)[1]

            def cut(i: tf.Tensor) -> Any:
                return self.feed.table.cut(tensors, order[i], self.in_order)

            if jit:  # XLA takes one thing after the other
                return tf.while_loop(
                    lambda i, _: i < stop, lambda i, _: (i + 1, self.step(cut(i), size)), (start, empty)
                )[1]
            # The next batch is cut while the step is taken: neither waits for the other.
            return tf.while_loop(
                lambda i, _, batch: i < stop,
                lambda i, _, batch: (i + 1, self.step(batch, size), cut(tf.minimum(i + 1, stop - 1))),
                (start, empty, cut(start)),
            )[1]

        number = tf.TensorSpec((), tf.int32)
        order = tf.TensorSpec((None, None), tf.int64)
        # A concrete function spares the look-up of a trace at each call.
        function = tf.function(run, autograph=False, jit_compile=jit)
        return function.get_concrete_function(self.feed.table.signature(), order, number, number)


def _warn_no_xla(error: tf.errors.OpError) -> None:
    reason = str(error.message).strip().splitlines()[0][:200]
    _warn(f"XLA cannot compile this model, so the plain graph runs: {reason}")


def _warn(message: str) -> None:
    """Warn of the line, outside this module, that asked for the training."""
    files = [frame.filename for frame in inspect.stack(0)]
    level = next((i for i, file in enumerate(files, 1) if file != __file__), 1)
    warnings.warn(message, stacklevel=level)


class _Job:
    """The training of one model on rows of a feed."""

    def __init__(
        self,
        member: "_Member",
        training: _Feed,
        validation: _Feed,
        checkpoint: "_Checkpoint | None",
    ) -> None:
        self.member = member
        self.checkpoint = checkpoint
        model = member.model

        def use_xla(steps: int) -> bool:
            return member.settings.use_xla(model, training.table, steps)

        plain = (
            type(model).train_step is keras.Model.train_step
            and type(model).compute_loss is keras.Model.compute_loss
        )
        if plain and model.built and model.trainable_variables:
            _build(model, training.table)
        rows, validation_rows = member.rows, member.validation_rows
        in_order = np.array_equal(validation_rows, np.arange(len(validation_rows)))
        self.train = _Steps(model.train_step, training, use_xla, len(rows), in_order=False)
        self.test = _Steps(model.test_step, validation, use_xla, len(validation_rows), in_order)
        self.finite: Any = None

    def run(self, progress: "_Progress") -> keras.callbacks.History:
        member, settings, model = self.member, self.member.settings, self.member.model
        callbacks = _callback_list(member, progress, self.train.count)
        model.stop_training = False
        progress.start(member.name)
        logs: Logs = {}
        if self.checkpoint is None:
            callbacks.on_train_begin()
            first = model._initial_epoch or settings.initial_epoch  # BackupAndRestore sets it
        else:
            first = self.checkpoint.begin({member: callbacks}, progress)
            if model.stop_training:  # before the run was killed
                first = settings.epochs
        for epoch in range(first, settings.epochs):
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            progress.begin(epoch, self.train.count)
            logs = _epoch_logs(model, self.train(_order(member.rows, settings, epoch), progress.step))
            _end_batches(member.callbacks, self.train.count - 1, logs)
            if len(member.validation_rows):
                callbacks.on_test_begin()
                model.reset_metrics()
                test_logs = _epoch_logs(model, self.test(member.validation_rows, progress.wait))
                callbacks.on_test_end(test_logs)
                logs |= {f"val_{name}": value for name, value in test_logs.items()}
            if self.finite is None:  # the first epoch has built the model
                finite = tf.function(lambda: _all_finite(model.weights), autograph=False)
                self.finite = finite.get_concrete_function()
            if not model.stop_training and not self.finite():
                raise FloatingPointError(_non_finite(member.name, epoch))
            callbacks.on_epoch_end(epoch, logs)
            progress.end(logs)
            if self.checkpoint is not None and self.checkpoint.due(epoch, model.stop_training):
                self.checkpoint.save(epoch)
            if model.stop_training:
                break
        progress.close()
        _finalize(model)
        callbacks.on_train_end(logs)
        return model.history


def _callback_list(
    member: "_Member", progress: "_Progress", steps: int
) -> keras.callbacks.CallbackList | keras.callbacks.History:
    if not member.callbacks:  # the list costs more time than a short epoch
        member.model.history = keras.callbacks.History()
        member.model.history.set_model(member.model)
        return member.model.history
    return keras.callbacks.CallbackList(
        member.callbacks,
        add_history=True,
        model=member.model,
        verbose=progress.verbose,
        epochs=member.settings.epochs,
        steps=steps,
    )


def _finalize(model: keras.Model) -> None:
    """Let a moving average overwrite the weights, as `model.fit` does when it ends."""
    if isinstance(model.optimizer, keras.optimizers.Optimizer):
        model.optimizer.finalize_variable_values(model.trainable_weights)


def _order(rows: Rows, settings: _Settings, epoch: int) -> Rows:
    """Order rows of shape `(..., n)`: the same order for all that have n rows."""
    if not settings.shuffle:
        return rows
    return rows[..., np.random.default_rng([settings.seed, epoch]).permutation(rows.shape[-1])]


def _seed() -> int:
    seed = get_random_seed()
    return random.randint(1, 10**9) if seed is None else int(seed)  # as Keras draws its default seeds


def _all_finite(weights: list[Any]) -> tf.Tensor:
    floats = [
        tf.convert_to_tensor(weight) for weight in weights if keras.backend.is_float_dtype(weight.dtype)
    ]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(weight)) for weight in floats])


def _non_finite(name: str, epoch: int) -> str:
    return (
        f"The weights of {name} must stay finite. Received: NaN or infinity after epoch {epoch + 1} "
        "(a smaller learning rate, or clipnorm, often helps)"
    )


def _epoch_logs(model: keras.Model, logs: Any) -> Logs:
    """Prefer the metrics to the last step's logs, as `model.fit` does, where both have the same names."""
    metrics = model.get_metrics_result()
    chosen = metrics if isinstance(logs, dict) and set(logs) == set(metrics) else logs
    return _to_floats(chosen)


def _to_floats(logs: Any) -> Logs:
    return {
        name: float(value) if np.size(value) == 1 else np.asarray(value)
        for name, value in sorted(logs.items())
    }


def _use_xla(model: keras.Model, table: _Table, steps: int) -> bool:
    """Say whether XLA pays, by the model and the number of steps: by timings, runs would not repeat."""
    layers = list(model._flatten_layers())
    strings = any(_parts(leaf)[0].dtype.kind in "US" for leaf in table.leaves)
    if table.sparse or strings:
        return False
    if not all(layer.supports_jit for layer in layers):
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    kinds = {cls.__name__ for layer in layers for cls in type(layer).__mro__}
    slow = any("Conv" in kind for kind in kinds)  # XLA's convolutions are, on a CPU
    return not slow and steps >= (XLA_STEPS // 4 if "RNN" in kinds else XLA_STEPS)  # a recurrent step is many


@dataclass(eq=False)
class _Request:
    """What `fit` or `fit_many` is to do, all of it checked."""

    members: list["_Member"]
    training: _Table
    validation: _Table | None
    batch_size: int
    verbose: str | int
    checkpoint: str | os.PathLike[str] | None
    many: bool = False  # models on rows of one table: a checkpoint folder a group

    def run(self) -> list[keras.callbacks.History]:
        """Train the models in groups of equal ones."""
        uploaded: dict[int, tuple[tf.Tensor, ...]] = {}  # what both tables hold lies on the device once
        training = _Feed(self.training, self.batch_size, uploaded)
        validation = training
        if self.validation not in (None, self.training):
            validation = _Feed(self.validation, self.batch_size, uploaded)
        groups: dict[Any, list[_Member]] = {}
        stackable = len(self.members) > 1 and bool(training.resident) and not self.training.sparse
        for member in self.members:
            alike = _fingerprint(member.model) if stackable else None
            steps = math.ceil(len(member.rows) / self.batch_size)
            key = member.index if alike is None else (alike, steps, len(member.validation_rows) > 0)
            groups.setdefault(key, []).append(member)
        progress = _Progress(self.verbose, _epochs(self.members), jobs=len(groups))
        try:
            for members in groups.values():
                try:
                    if len(members) == 1:
                        raise _CannotStackError
                    _run_stacked(members, (training, validation), progress, self._keeper("models", members))
                except _CannotStackError:
                    for member in members:
                        _Job(member, training, validation, self._keeper("model", [member])).run(progress)
        finally:
            training.release()
            validation.release()
        return [member.model.history for member in self.members]

    def _keeper(self, kind: str, members: list["_Member"]) -> "_Checkpoint | None":
        if self.checkpoint is None:
            return None
        folder = Path(self.checkpoint)
        tables: dict[str, _Table | None] = {"": self.training}
        if self.many:
            folder /= f"{kind}-{members[0].index + 1}"
        else:
            tables["validation "] = self.validation
        return _Checkpoint(folder, members, tables, self.batch_size)


_here = threading.local()  # in a thread of `together`: its `_Visitor`


def _train(request: _Request) -> list[keras.callbacks.History]:
    visitor: _Visitor | None = getattr(_here, "visitor", None)
    if visitor is None:
        return request.run()
    visitor.ask(request)
    return [member.model.history for member in request.members]


class _Visitor(threading.Thread):
    """A function in a thread of its own, which goes on only when it has the turn."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.request: _Request | None = None  # what it waits for
        self.ended = False
        self.error: BaseException | None = None  # what it hears in answer, and what it ended with
        self.world = _world()

    def run(self) -> None:
        _here.visitor = self
        self.go.acquire()
        try:
            if self.error is None:  # no Ctrl-C before it has begun
                self.work()
        except BaseException as error:
            self.error = error
        self.ended = True
        self.back.release()

    def ask(self, request: _Request) -> None:
        """Wait, in its thread, until the request is fulfilled."""
        if self.error is None:
            self.request = request
            self.back.release()
            self.go.acquire()
            self.request = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def turn(self) -> None:
        """Let it go on until it trains or ends; Ctrl-C meanwhile waits for that."""
        outside = _world()
        _restore(self.world)
        interrupt = None
        self.go.release()
        try:
            self.back.acquire()
        except KeyboardInterrupt as error:
            interrupt = self.error = error
            self.back.acquire()
        self.world = _world()
        _restore(outside)
        if interrupt is not None:
            raise interrupt


def _world() -> tuple[Any, ...]:
    """Return what a thread shares with the others but must have for itself; Keras keeps its own a thread."""
    return sys.stdout, random.getstate(), np.random.get_state()  # noqa: NPY002 (what Keras seeds)


def _restore(world: tuple[Any, ...]) -> None:
    sys.stdout = world[0]
    random.setstate(world[1])
    np.random.set_state(world[2])  # noqa: NPY002


def together(works: Sequence[Callable[[], object]]) -> None:
    """Call functions in turns, and train at once what they ask `fit` and `fit_many` to train.

    For many seeds of one study. Each function goes on alone until it trains; when all have come so far, what
    has the same data and settings (but for seed and epochs) is trained as by one `fit_many`, without
    checkpoints; what differs, or has much data, one after another. Each has its own `sys.stdout` and state of
    Python's, NumPy's and Keras's random numbers, so that it gets, to float32 rounding, what it gets alone.

    Args:
        works: Functions without arguments.

    Raises:
        BaseException: The first that one of them has raised, when all have ended. Ctrl-C reaches all of them
            where they train.

    >>> def work():
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    ...     model.compile("sgd", loss="mse")
    ...     history = fit(model, [[0, 1], [1, 0]], [1.0, 1.0], epochs=2, verbose=0)
    ...     print([round(loss, 4) for loss in history.history["loss"]])
    >>> together([work, work])
    [1.0, 0.9409]
    [1.0, 0.9409]
    """
    visitors = waiting = [_Visitor(work) for work in works]
    for visitor in visitors:
        visitor.start()
    while waiting:
        try:
            for visitor in waiting:
                visitor.turn()
            waiting = [visitor for visitor in visitors if not visitor.ended]
            for alike in _alike(waiting):
                try:
                    _joined([visitor.request for visitor in alike if visitor.request is not None]).run()
                except Exception as error:
                    for visitor in alike:
                        visitor.error = error
        except KeyboardInterrupt as error:
            waiting = [visitor for visitor in visitors if not visitor.ended]
            for visitor in waiting:
                visitor.error = error
    for visitor in visitors:
        visitor.join()
    for visitor in visitors:
        if visitor.error is not None:
            raise visitor.error


def _alike(visitors: list[_Visitor]) -> list[list[_Visitor]]:
    """Group those whose requests can be one."""
    groups: dict[Any, list[_Visitor]] = {}
    for visitor in visitors:
        request = visitor.request
        assert request is not None  # it waits
        tables = [table for table in (request.training, request.validation) if table is not None]
        key: Any = visitor
        if sum(table.nbytes for table in tables) <= JOINED_BYTES:
            parts = [part for table in tables for leaf in table.leaves for part in _parts(leaf)]
            structures = [keras.tree.map_structure(lambda _: None, table.structure) for table in tables]
            settings = replace(request.members[0].settings, seed=0, epochs=0)
            key = _digest(parts), repr(structures), request.batch_size, request.many, settings
        groups.setdefault(key, []).append(visitor)
    return list(groups.values())


def _joined(requests: list[_Request]) -> _Request:
    if len(requests) == 1:
        return requests[0]
    members = [member for request in requests for member in request.members]
    members = [replace(member, index=i) for i, member in enumerate(members)]
    return replace(requests[0], members=members, checkpoint=None)


def _epochs(members: list["_Member"]) -> int:
    """Return the epoch at which the last of them stops."""
    return max(member.settings.epochs for member in members)


def _weighted(table: _Table, class_weight: dict[int, float]) -> _Table:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(table.structure)
    if sample_weight is not None:
        raise ValueError("`class_weight` must be None where `sample_weight` is given. Received: both")
    structure = (x, y, _class_weights(y, class_weight))
    return _Table(structure, keras.tree.flatten(structure))


def _folds(
    n: int, folds: int, repeats: int, seed: int, stratify: Any, groups: Any
) -> Iterator[tuple[Rows, Rows]]:
    from sklearn import model_selection  # half a second, and `fit` does without

    if not 2 <= folds <= n:
        raise ValueError(f"`folds` must be between 2 and n={n}. Received: folds={folds}")
    kind = ("Stratified" if stratify is not None else "") + ("Group" if groups is not None else "") + "KFold"
    for repeat in range(repeats):
        splitter = getattr(model_selection, kind)(folds, shuffle=True, random_state=seed + repeat)
        yield from splitter.split(np.zeros(n), stratify, groups)


def _take(x: Any, rows: Rows) -> Any:
    """Take rows of arrays as they were passed: a model may scale by them in float64."""
    if isinstance(x, dict):
        return {key: _take(item, rows) for key, item in x.items()}
    if _is_list_of_arrays(x):
        return [_take(item, rows) for item in x]
    return x.tocsr()[rows] if scipy.sparse.issparse(x) else np.asarray(x)[rows]


class _CannotStackError(Exception):
    """These models must be trained one by one."""


@dataclass(eq=False)
class _Member:
    """A model and what it is trained on."""

    index: int
    name: str
    model: keras.Model
    rows: Rows
    validation_rows: Rows  # empty: no validation
    callbacks: list[keras.callbacks.Callback]
    settings: _Settings


def _run_stacked(
    group: list[_Member],
    feeds: tuple[_Feed, _Feed],
    progress: "_Progress",
    checkpoint: "_Checkpoint | None",
) -> None:
    stacked, active = group, list(group)
    if checkpoint is not None:
        stacked, active = checkpoint.stacked()
    stack = _Stacks(stacked, feeds) if active else None
    steps = math.ceil(len(group[0].rows) / feeds[0].batch_size)
    lists = {member: _callback_list(member, progress, steps) for member in group}
    for member in group:
        member.model.stop_training = False
    if checkpoint is None:
        first = group[0].settings.initial_epoch
        for callbacks in lists.values():
            callbacks.on_train_begin()
    else:
        first = checkpoint.begin(lists, progress)
    last: dict[_Member, Logs] = {}

    def finish(member: _Member) -> None:
        _finalize(member.model)
        lists[member].on_train_end(last.get(member, {}))

    for member in group:
        if member not in active:
            finish(member)
    if stack is None:
        return
    try:
        for epoch in range(first, _epochs(group)):
            for member in active:
                lists[member].on_epoch_begin(epoch)
            progress.begin(epoch, steps)
            if stack.writes:
                stack.load()
            logs, test_logs, finite = stack.epoch(epoch, progress)
            if stack.reads:
                stack.store(active)
            for member in active:
                i = stack.members.index(member)
                last[member] = {name: float(values[i]) for name, values in logs.items()}
                _end_batches(member.callbacks, steps - 1, last[member])
                if test_logs:
                    member_logs = {name: float(values[i]) for name, values in test_logs.items()}
                    lists[member].on_test_begin()
                    lists[member].on_test_end(member_logs)
                    last[member] |= {f"val_{name}": value for name, value in member_logs.items()}
                if not member.model.stop_training and not finite[i]:
                    raise FloatingPointError(_non_finite(member.name, epoch))
                lists[member].on_epoch_end(epoch, last[member])
            progress.end(
                {name: float(np.mean([last[member][name] for member in active])) for name in last[active[0]]}
            )
            stopped = [
                member
                for member in active
                if member.model.stop_training or epoch + 1 >= member.settings.epochs
            ]
            due = checkpoint is not None and checkpoint.due(epoch, len(stopped) == len(active))
            if due or stopped:
                stack.store(active if due else stopped)
            active = [member for member in active if member not in stopped]
            if active and 2 * len(active) <= len(
                stack.members
            ):  # the stopped ones cost, but so does compiling
                stack.store(active)
                stack = _Stacks(active, feeds)
            if checkpoint is not None and due:
                checkpoint.save(epoch, [member.index for member in stack.members])
            for member in stopped:
                finish(member)
            if not active:
                break
    finally:
        stack.store(active)
    for member in active:
        finish(member)
    progress.close()


class _Checkpoint:
    """A folder with the state of a run after an epoch, from which it goes on bit for bit.

    A file holds the sha256 of what follows in it: arrays in NumPy's npz format, the first of them a JSON text
    that refers to the others. The two newest files are kept.
    """

    def __init__(
        self,
        folder: Path,
        members: list["_Member"],
        tables: dict[str, "_Table | None"],
        batch_size: int,
    ) -> None:
        self.folder = folder
        self.members = members
        self.newest: Path | None = None
        self.written = time.perf_counter()
        for member in members:
            _check_resumable(member, tables[""])
        settings = members[0].settings
        run = {"batch_size": str(batch_size)}
        run |= {name: str(getattr(settings, name)) for name in ("initial_epoch", "shuffle", "seed", "jit")}
        for prefix, table in tables.items():
            parts = keras.utils.unpack_x_y_sample_weight(None if table is None else table.structure)
            for name, part in zip(("x", "y", "sample_weight"), parts, strict=True):
                leaves = (
                    [array for leaf in keras.tree.flatten(part) for array in _parts(leaf)]
                    if part is not None
                    else []
                )
                run[prefix + name] = _digest(leaves)
        run["splits"] = _digest(
            [rows for member in members for rows in (member.rows, member.validation_rows)]
        )
        run["model"] = _digest([_description(member.model, whole=True) for member in members])
        run["callbacks"] = _digest(
            [
                f"{type(callback).__name__} {_state_of(callback, settings=True)}"
                for member in members
                for callback in member.callbacks
            ]
        )
        run |= {"keras": keras.__version__, "tensorflow": tf.__version__}
        self.run = run
        self.state = self._load(unseeded=get_random_seed() is None)
        for member in members:
            member.settings = replace(settings, seed=int(self.run["seed"]))
        for member in members if self.state else []:
            for variable, value in zip(_variables(member.model), self._of(member)["variables"], strict=True):
                variable.assign(value.view(variable.numpy().dtype))  # NumPy knows no bfloat16

    def _of(self, member: "_Member") -> dict[str, Any]:
        kept: dict[str, Any] = (self.state or {})["members"][str(member.index)]
        return kept

    def _load(self, unseeded: bool) -> dict[str, Any] | None:
        paths = sorted(self.folder.glob("epoch-*.state"), reverse=True)
        for path in paths:
            content = path.read_bytes()
            if hashlib.sha256(content[32:]).digest() != content[:32]:
                then = "the one before it is used" if path != paths[-1] else "the run starts anew"
                _warn(f"The checkpoint {path} is damaged: {then}.")
                continue
            with np.load(io.BytesIO(content[32:])) as arrays:
                state: dict[str, Any] = _unpack(json.loads(arrays["state"].tobytes()), arrays)
            if unseeded:  # then any seed will do, and it must be the one of the run
                self.run["seed"] = state["run"]["seed"]
            for name, wanted in state["run"].items():
                if self.run[name] != wanted:
                    raise ValueError(
                        f"`{name}` must be as in the checkpoint {path}, {wanted}. Received: {self.run[name]}"
                    )
            self.newest = path
            return state
        return None

    def stacked(self) -> tuple[list["_Member"], list["_Member"]]:
        """Return the members that were stacked and those that were still trained.

        A model that had stopped has its final weights and is kept from harm: another stands in for it.
        """
        if self.state is None:
            return self.members, list(self.members)
        active = [member for member in self.members if not self._of(member)["stopped"]]
        at = {member.index: member for member in self.members}
        chosen = [at[index] for index in self.state["stacked"]]
        return [
            member if member in active else replace(member, model=active[0].model)
            for member in (chosen if active else [])
        ], active

    def begin(self, lists: "dict[_Member, keras.callbacks.CallbackList]", progress: "_Progress") -> int:
        """Let the callbacks begin, or go on where they were; return the first epoch."""
        first = int(self.run["initial_epoch"]) if self.state is None else self.state["epoch"] + 1
        for member, callbacks in lists.items():
            for callback in member.callbacks if self.state else []:
                if isinstance(callback, keras.callbacks.CSVLogger):
                    _cut_log(callback, first)
            callbacks.on_train_begin()
            if self.state is not None:
                kept = self._of(member)
                member.model.history.history, member.model.history.epoch = kept["history"], kept["epochs"]
                member.model.stop_training = kept["stopped"]
                for callback, values in zip(member.callbacks, kept["callbacks"], strict=False):
                    vars(callback).update(values)
        if self.state is None:
            self.save(first - 1)
        elif progress.verbose:
            print(f"Resumed after epoch {first} from {self.folder}.")
        self.state = None  # frees the memory
        return first

    def due(self, epoch: int, stopped: bool) -> bool:
        """Say whether to save now: not so often that it costs much, and at the end."""
        last = stopped or epoch + 1 == _epochs(self.members)
        return last or time.perf_counter() - self.written >= CHECKPOINT_SECONDS

    def save(self, epoch: int, stacked: list[int] | None = None) -> None:
        """Write the state after an epoch: the file appears whole or not at all."""
        # Before the first epoch callbacks may have nothing to keep.
        begun = epoch >= self.members[0].settings.initial_epoch
        state = {
            "run": self.run,
            "epoch": epoch,
            "stacked": stacked or [member.index for member in self.members],
            "members": {
                str(member.index): {
                    "variables": [variable.numpy() for variable in _variables(member.model)],
                    "history": member.model.history.history,
                    "epochs": member.model.history.epoch,
                    "stopped": member.model.stop_training,
                    "callbacks": [_state_of(callback) for callback in member.callbacks if begun],
                }
                for member in self.members
            },
        }
        arrays: dict[str, npt.NDArray[Any]] = {}
        text = json.dumps(_pack(state, arrays)).encode()
        arrays["state"] = np.frombuffer(text, np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes an array for allow_pickle
        path = self.folder / f"epoch-{epoch + 1:06}.state"
        unfinished = self.folder / "unfinished"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(hashlib.sha256(buffer.getbuffer()).digest())
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            for old in set(self.folder.glob("epoch-*.state")) - {path, self.newest}:
                old.unlink()
        except OSError as error:  # hours of training are worth more than this file
            _warn(f"The checkpoint {path} could not be written: {error.strerror}.")
            with contextlib.suppress(OSError):
                unfinished.unlink()
            return
        self.newest = path
        self.written = time.perf_counter()


def _check_resumable(member: "_Member", table: "_Table | None") -> None:
    """Build what is not built yet, and refuse what could not be resumed exactly."""
    model = member.model
    others = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not model.optimizer
    ]
    if others:
        raise ValueError(f"`checkpoint` must be None for a model with a second optimizer. Received: {others}")
    if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in member.callbacks):
        raise ValueError("`checkpoint` must be None beside BackupAndRestore. Received: both")
    if not model.built and table is not None:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(table.structure)
        row = _Table(x, keras.tree.flatten(x)).first_row()
        model(row, training=False)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _variables(model: keras.Model) -> list[Any]:
    """Return all that training changes, the states of random generators included."""
    return [*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables]


def _state_of(callback: keras.callbacks.Callback, settings: bool = False) -> dict[str, Any]:
    """Return a callback's settings, or else its counters, best values and weights.

    Objects and functions stay out: a callback that was made anew has its own.
    """
    if isinstance(callback, keras.callbacks.CSVLogger):
        return {}  # it goes on with its file
    arguments = set(inspect.signature(type(callback).__init__).parameters)
    # Keras's own may change the sign of an argument when they begin, and would do it again.
    lasting = arguments if type(callback).__module__.startswith("keras.") else set()

    def kept(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(kept, value))
        if isinstance(value, dict):
            return all(isinstance(key, str) and kept(item) for key, item in value.items())
        return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)

    return {
        name: value
        for name, value in vars(callback).items()
        if name != "params" and kept(value) and (name in arguments if settings else name not in lasting)
    }


def _pack(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Make a value fit for JSON: arrays go into `arrays`, a reference stays."""
    if isinstance(value, np.ndarray | np.generic):
        key = f"array {len(arrays)}"
        arrays[key] = np.asarray(value)
        return [key]
    if isinstance(value, list | tuple):
        return ["list", *(_pack(item, arrays) for item in value)]
    if isinstance(value, dict):
        return {key: _pack(item, arrays) for key, item in value.items()}
    return value


def _unpack(value: Any, arrays: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value[1:]] if value[0] == "list" else arrays[value[0]]
    if isinstance(value, dict):
        return {key: _unpack(item, arrays) for key, item in value.items()}
    return value


def _cut_log(logger: keras.callbacks.CSVLogger, epochs: int) -> None:
    """Cut off the epochs that come again, and let the logger append to the rest."""
    with contextlib.suppress(FileNotFoundError):
        path = Path(logger.filename)
        header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        path.write_text(
            header + "".join(line for line in lines if int(line.split(logger.sep)[0]) < epochs),
            encoding="utf-8",
        )
    logger.append = True


def _digest(items: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        described = item if isinstance(item, str) else f"{item.shape} {item.dtype}"
        digest.update(described.encode())
        if not isinstance(item, str):
            content = item.astype(str) if item.dtype == object else item
            digest.update(np.ascontiguousarray(content).view(np.uint8).data)
    return f"sha256 {digest.hexdigest()[:16]}"


class _Batches:
    """The batches of many models in step: full ones, then the rest, where sizes may differ.

    Attributes:
        full: Steps in which every model has a full batch.
        rest: Number of the step, size of its batches and mask of the models that have such a batch.
    """

    def __init__(self, rows: list[Rows], batch_size: int, settings: list[_Settings]) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.steps = math.ceil(max(map(len, rows)) / batch_size)
        self.full = min(map(len, rows)) // batch_size
        sizes = {
            step: [min(max(len(each) - step * batch_size, 0), batch_size) for each in rows]
            for step in range(self.full, self.steps)
        }
        self.rest = [
            (step, size, np.equal(of_step, size))
            for step, of_step in sizes.items()
            for size in sorted({*of_step} - {0})
        ]
        # Those that have as many rows and one seed see them in the same order.
        alike: dict[Any, list[int]] = {}
        for i, each in enumerate(rows):
            alike.setdefault((len(each), settings[i]), []).append(i)
        self.groups = [
            (group, settings[group[0]], np.stack([rows[i] for i in group])) for group in alike.values()
        ]

    def order(self, epoch: int) -> tuple[Rows, list[Rows]]:
        """Return row numbers, shape `(full, models, batch_size)`, and each rest's, `(models, size)`."""
        size = self.batch_size
        full = np.empty((self.full, len(self.rows), size), np.int64)
        rest = [np.zeros((len(self.rows), size), np.int64) for _, size, _ in self.rest]
        for group, settings, stacked in self.groups:
            rows = _order(stacked, settings, epoch)
            full[:, group] = (
                rows[:, : self.full * size].reshape(len(group), self.full, size).transpose(1, 0, 2)
            )
            for (step, rest_size, mask), target in zip(self.rest, rest, strict=True):
                if mask[group[0]]:
                    target[group] = rows[:, step * size : step * size + rest_size]
        return full, rest


class _Stack:
    """Equal models trained as one: each weight is stacked to shape `(models, size)`, for one optimizer.

    Two axes, whatever the shape of the weight, so that a column of learning rates fits every weight. The
    forward pass is the first model's, vectorized over the models.
    """

    def __init__(self, members: list[_Member], training: "_Feed", validation: "_Feed") -> None:
        self.members = members
        self.feeds = training, validation
        self.template = members[0].model
        settings = [member.settings for member in members]
        self.training = _Batches([member.rows for member in members], training.batch_size, settings)
        self.validation = None
        if len(members[0].validation_rows):
            rows = [member.validation_rows for member in members]
            # Losses and metrics that are means are the same over larger batches, to rounding.
            size = max(training.batch_size, VALIDATION_ROWS)
            self.validation = _Batches(rows, size, [replace(each, shuffle=False) for each in settings])
        if len(self.training.rest) + (len(self.validation.rest) if self.validation else 0) > 6:
            raise _CannotStackError  # each size of a batch is compiled
        callbacks = [callback for member in members for callback in member.callbacks]
        if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks):
            raise _CannotStackError  # it decides where a model starts
        self.reads = not all(_is_blind(callback) for callback in callbacks)
        self.writes = not all(_is_blind(callback) or type(callback) in _READERS for callback in callbacks)
        self.interrupted = False
        self.steps_per_call = 1
        test_order: tuple[Rows, list[Rows]] = np.zeros(0, np.int64), []
        if self.validation:
            test_order = self.validation.order(0)
        self._test_order = _to_tensors(test_order)

        table = training.table
        y_pred = _build(self.template, table)
        for member in members[1:]:
            if member.callbacks:  # they may look for the metrics
                _build(member.model, table, y_pred)
            elif not member.model.optimizer.built:
                member.model.optimizer.build(member.model.trainable_variables)
        count = len(members)
        self.shapes = [variable.shape for variable in self.template.trainable_variables]
        self.weights = [
            keras.Variable(np.stack(column).reshape(count, -1), name=f"stacked_{i}")
            for i, column in enumerate(self._columns(lambda model: model.trainable_variables))
        ]
        self.state = [
            tf.Variable(np.stack(column))
            for column in self._columns(lambda model: model.non_trainable_variables)
        ]
        self.constants = [
            tf.stack(column) for column in zip(*(_constants(member.model) for member in members), strict=True)
        ]
        self._stack_optimizer()
        initial = [tf.convert_to_tensor(variable) for variable in self.template.metrics_variables]
        self.empty_metrics = [tf.stack([value] * count) for value in initial]
        self._compile(settings[0].use_xla(self.template, table, self.training.steps))

    def _columns(self, variables: Callable[[keras.Model], list[Any]]) -> Iterator[list[npt.NDArray[Any]]]:
        return map(
            list,
            zip(
                *([variable.numpy() for variable in variables(member.model)] for member in self.members),
                strict=True,
            ),
        )

    def _stack_optimizer(self) -> None:
        optimizers = [member.model.optimizer for member in self.members]
        self.optimizer = type(optimizers[0]).from_config(optimizers[0].get_config())
        self.rates = None
        if isinstance(optimizers[0].get_config()["learning_rate"], float):
            self.rates = tf.Variable(
                np.stack([[float(optimizer.learning_rate)] for optimizer in optimizers]), dtype=tf.float32
            )
            self.optimizer.learning_rate = lambda: tf.convert_to_tensor(self.rates)
        self.optimizer.build(self.weights)
        self.slots = []  # a stacked variable of the optimizer, and that of each model
        self.counters = []  # likewise, but equal in all models
        for variable, column in zip(
            self.optimizer.variables, zip(*map(_slots, optimizers), strict=True), strict=True
        ):
            values = [slot.numpy() for slot in column]
            if variable.shape == (len(values), values[0].size):
                variable.assign(np.stack(values).reshape(variable.shape))
                self.slots.append((variable, column))
            elif all(np.array_equal(value, values[0]) for value in values):
                variable.assign(values[0])
                self.counters.append((variable, column))
            else:
                raise _CannotStackError

    def load(self) -> None:
        """Take what callbacks have changed in the models."""
        for stacked, column in self._pairs():
            stacked.assign(np.stack([variable.numpy() for variable in column]).reshape(stacked.shape))
        if self.rates is not None:
            self.rates.assign([[float(member.model.optimizer.learning_rate)] for member in self.members])

    def store(self, members: list[_Member]) -> None:
        """Give the members their weights."""
        chosen = [i for i, member in enumerate(self.members) if member in members]
        for stacked, column in self._pairs():
            values = stacked.numpy()
            for i in chosen:
                column[i].assign(values[i].reshape(column[i].shape))
        for counter, column in self.counters:
            for i in chosen:
                column[i].assign(counter)

    def _pairs(self) -> list[tuple[Any, tuple[Any, ...]]]:
        """Return each stacked variable with that of each model."""
        models = [member.model for member in self.members]
        weights = zip(
            self.weights, zip(*(model.trainable_variables for model in models), strict=True), strict=True
        )
        state = zip(
            self.state, zip(*(model.non_trainable_variables for model in models), strict=True), strict=True
        )
        return [*weights, *state, *self.slots]

    def _compile(self, jit: bool) -> None:
        template, settings = self.template, self.members[0].settings
        training, validation = self.feeds
        count = len(self.members)

        variables = [
            *template.trainable_variables,
            *template.non_trainable_variables,
            *template.metrics_variables,
        ]

        def forward(arguments: Any, structure: Any, size: int, is_training: bool) -> Any:
            """Take one model's step, up to the update of its weights, as `train_step` does."""
            weights, state, constants, metrics, leaves = arguments
            mapping = zip(variables, [*weights, *state, *metrics], strict=True)
            with (
                tf.GradientTape(watch_accessed_variables=False) as tape,
                _with_constants(template, constants),
                keras.StatelessScope(mapping) as scope,
            ):
                tape.watch(weights)
                data = keras.tree.pack_sequence_as(structure, leaves)
                x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
                y_pred = template(x, training=is_training)
                loss = template.compute_loss(x, y, y_pred, sample_weight, training=is_training)
                template.metrics[0].update_state(loss, sample_weight=size)  # the tracker of the loss
                template.compute_metrics(x, y, y_pred, sample_weight)
                loss = self.optimizer.scale_loss(loss)
                state = [scope.get_current_value(variable) for variable in template.non_trainable_variables]
                metrics = [scope.get_current_value(variable) for variable in template.metrics_variables]
            if not is_training:
                return metrics
            gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)]
            return gradients, state, metrics

        def vectorized(feed: _Feed, indices: tf.Tensor, metrics: Any, is_training: bool) -> Any:
            leaves = [tf.gather(*parts, indices) for parts in feed.resident or []]
            pairs = zip(self.weights, self.shapes, strict=True)
            weights = [tf.reshape(variable, (count, *shape)) for variable, shape in pairs]
            state = [tf.convert_to_tensor(variable) for variable in self.state]
            return tf.vectorized_map(
                lambda arguments: forward(arguments, feed.table.structure, indices.shape[1], is_training),
                (weights, state, self.constants, metrics, leaves),
                fallback_to_while_loop=False,
            )

        def train_step(indices: tf.Tensor, metrics: Any) -> Any:
            gradients, state, metrics = vectorized(training, indices, metrics, is_training=True)
            flat = [tf.reshape(gradient, (count, -1)) for gradient in gradients]
            self.optimizer.apply_gradients(zip(flat, self.weights, strict=True))
            for variable, value in zip(self.state, state, strict=True):
                variable.assign(value)
            return metrics

        def test_step(indices: tf.Tensor, metrics: Any) -> Any:
            return vectorized(validation, indices, metrics, is_training=False)

        def rest_of(
            batches: _Batches, rest: Any, step: Any, metrics: Any, changed: list[Any], counters: list[Any]
        ) -> Any:
            """Take the steps in which not all models have the same number of rows, by those that have it."""
            for i, (indices, (number, size, mask)) in enumerate(zip(rest, batches.rest, strict=True)):
                before = [tf.identity(variable) for variable in changed]
                counted = [tf.identity(counter) for counter in counters]
                indices = tf.ensure_shape(indices, (count, size))
                after = step(indices, metrics)
                if mask.all():
                    metrics = after
                    continue
                metrics = [_where(mask, new, old) for new, old in zip(after, metrics, strict=True)]
                for variable, old in zip(changed, before, strict=True):
                    variable.assign(_where(mask, variable, old))
                if (
                    i + 1 < len(batches.rest) and batches.rest[i + 1][0] == number
                ):  # the same step, for others
                    for counter, old in zip(counters, counted, strict=True):
                        counter.assign(old)
            return metrics

        def loop(step: Any, order: tf.Tensor, start: Any, stop: Any, metrics: Any) -> Any:
            return tf.while_loop(
                lambda i, _: i < stop, lambda i, metrics: (i + 1, step(order[i], metrics)), (start, metrics)
            )[1]

        def results(metrics: Any) -> Any:
            def of_model(values: Any) -> Any:
                with keras.StatelessScope(zip(template.metrics_variables, values, strict=True)):
                    return template.get_metrics_result()

            return tf.vectorized_map(of_model, metrics, fallback_to_while_loop=False)

        def train(order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor, metrics: Any) -> Any:
            return loop(train_step, order, start, stop, metrics)

        def finish(rest: Any, test_order: Any, test_rest: Any, metrics: Any) -> Any:
            changed = [*self.weights, *self.state, *(slot for slot, _ in self.slots)]
            metrics = rest_of(
                self.training, rest, train_step, metrics, changed, [counter for counter, _ in self.counters]
            )
            logs = results(metrics)
            test_logs = {}
            if self.validation is not None:
                metrics = self.empty_metrics
                if self.validation.full:
                    metrics = loop(
                        test_step, test_order, tf.constant(0), tf.constant(self.validation.full), metrics
                    )
                test_logs = results(rest_of(self.validation, test_rest, test_step, metrics, [], []))
            floats = [
                value for value in [*self.weights, *self.state] if keras.backend.is_float_dtype(value.dtype)
            ]
            finite = [
                tf.reduce_all(tf.reshape(tf.math.is_finite(value), (count, -1)), axis=1) for value in floats
            ]
            return logs, test_logs, tf.reduce_all(finite, axis=0)

        def compiled(function: Any, jit: bool, *signature: Any) -> Any:
            return tf.function(function, autograph=False, jit_compile=jit).get_concrete_function(*signature)

        order, rest = self._order(0)
        number = tf.constant(0)
        try:
            if self.training.full:
                self._train = compiled(train, jit, order, number, number, self.empty_metrics)
            self._finish = compiled(
                finish,
                jit and settings.use_xla(template, training.table, 1),
                rest,
                *self._test_order,
                self.empty_metrics,
            )
        except (NotImplementedError, TypeError, ValueError) as error:
            raise _CannotStackError from error  # an op that cannot be vectorized, or what `fit` will show
        self.jit = jit

    def _order(self, epoch: int) -> Any:
        return _to_tensors(self.training.order(epoch))

    def epoch(self, epoch: int, progress: Callable[[int, Any], None]) -> tuple[Logs, Logs, Any]:
        """Train and validate; return the logs, with one value a model, and which models are finite."""
        order, rest = self._order(epoch)
        metrics = self.empty_metrics
        done = 0
        while done < self.training.full and not self.interrupted:
            stop = min(done + self.steps_per_call, self.training.full)
            started = time.perf_counter()
            metrics = self._call("_train", order, tf.constant(done), tf.constant(stop), metrics)
            metrics[0].numpy()  # waits for the device
            pace = CALL_SECONDS / (time.perf_counter() - started)
            self.steps_per_call = max(1, min(self.steps_per_call * 64, int((stop - done) * pace)))
            done = stop
            progress(done, {})
        logs, test_logs, finite = self._call("_finish", rest, *self._test_order, metrics)
        return _to_arrays(logs), _to_arrays(test_logs), finite.numpy()

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self, name)(*arguments)
        except tf.errors.OpError as error:  # XLA compiles before it computes: the weights are as they were
            if not self.jit:
                raise
            _warn_no_xla(error)
            self._compile(jit=False)
            return getattr(self, name)(*arguments)


class _Stacks:
    """Stacks side by side, each in a thread: XLA leaves steps as small as these to a single core."""

    def __init__(self, members: list[_Member], feeds: tuple[_Feed, _Feed]) -> None:
        self.members = members
        first, settings = members[0], members[0].settings
        steps = math.ceil(len(first.rows) / feeds[0].batch_size)
        threads = 1
        if settings.use_xla(first.model, feeds[0].table, steps) and not tf.config.list_logical_devices("GPU"):
            every_step = len(members) * steps * (settings.epochs - settings.initial_epoch)
            # What a thread saves grows with the steps; what it costs is its tracing.
            threads = min(_cores(), len(members), round(math.sqrt(every_step / THREAD_STEPS)))
        bounds = np.linspace(0, len(members), max(1, threads) + 1).astype(int).tolist()
        self.stacks = [_Stack(members[start:stop], *feeds) for start, stop in itertools.pairwise(bounds)]
        self.reads = any(stack.reads for stack in self.stacks)
        self.writes = any(stack.writes for stack in self.stacks)

    def load(self) -> None:
        for stack in self.stacks:
            stack.load()

    def store(self, members: list[_Member]) -> None:
        for stack in self.stacks:
            stack.store([member for member in stack.members if member in members])

    def epoch(self, epoch: int, progress: "_Progress") -> tuple[Logs, Logs, Any]:
        """Train and validate all; return the logs, with one value a model, and which models are finite."""
        first, *others = self.stacks
        if not others:
            return first.epoch(epoch, progress.step)
        with concurrent.futures.ThreadPoolExecutor(len(others)) as pool:
            futures = [pool.submit(stack.epoch, epoch, lambda *_: None) for stack in others]
            try:
                results = [first.epoch(epoch, progress.step), *(future.result() for future in futures)]
            except BaseException:  # Ctrl-C comes to this thread alone
                for stack in others:
                    stack.interrupted = True
                raise
        logs, test_logs, finite = zip(*results, strict=True)
        return _concatenated(logs), _concatenated(test_logs), np.concatenate(finite)


def _concatenated(logs: Sequence[Logs]) -> Logs:
    return {name: np.concatenate([each[name] for each in logs]) for name in logs[0]}


def _cores() -> int:
    """Return how many cores TensorFlow may use."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tf.config.threading.get_intra_op_parallelism_threads() or own


def _is_blind(callback: keras.callbacks.Callback) -> bool:
    """Say whether a callback looks at the logs alone."""
    if type(callback) is keras.callbacks.EarlyStopping:
        return not callback.restore_best_weights
    return type(callback) in (
        keras.callbacks.CSVLogger,
        keras.callbacks.History,
        keras.callbacks.TerminateOnNaN,
    )


_READERS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
)  # that change no weight in between


def _to_tensors(order: tuple[Rows, list[Rows]]) -> tuple[tf.Tensor, list[tf.Tensor]]:
    return tf.convert_to_tensor(order[0]), [tf.convert_to_tensor(rest) for rest in order[1]]


def _to_arrays(logs: Any) -> Logs:
    return {name: np.asarray(value) for name, value in sorted(logs.items())}


def _where(mask: npt.NDArray[np.bool_], new: Any, old: Any) -> tf.Tensor:
    new = tf.convert_to_tensor(new)
    return tf.where(mask.reshape(-1, *[1] * (new.shape.rank - 1)), new, old)


def _slots(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    return [variable for variable in optimizer.variables if variable is not optimizer.learning_rate]


def _build(model: keras.Model, table: _Table, y_pred: Any = None) -> Any:
    """Create what Keras makes when it sees the first batch: in a trace, it would cost a second trace.

    Returns the prediction for one row, which serves for equal models too.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(table.first_row())
    y_pred = model(x, training=False) if y_pred is None else y_pred
    model.compute_loss(x, y, y_pred, sample_weight, training=False)
    model.compute_metrics(x, y, y_pred, sample_weight)
    model.reset_metrics()
    return y_pred


def _normalizations(model: keras.Model) -> list[keras.layers.Normalization]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Normalization)]


def _constants(model: keras.Model) -> list[tf.Tensor]:
    """Return what a Normalization layer knows and keeps in no variable."""
    return [constant for layer in _normalizations(model) for constant in (layer.mean, layer.variance)]


@contextlib.contextmanager
def _with_constants(model: keras.Model, constants: list[tf.Tensor]) -> Iterator[None]:
    layers, own = _normalizations(model), _constants(model)
    try:
        for layer, mean, variance in zip(layers, constants[::2], constants[1::2], strict=True):
            layer.mean, layer.variance = mean, variance
        yield
    finally:
        for layer, mean, variance in zip(layers, own[::2], own[1::2], strict=True):
            layer.mean, layer.variance = mean, variance


def _vectorize_bitcast(pfor_input: Any) -> Any:
    """Convert what `vectorized_map` cannot, and the accuracy of class numbers needs."""
    return pfor.wrap(tf.bitcast(pfor_input.stacked_input(0), pfor_input.get_attr("type")), True)


def _vectorize_random(pfor_input: Any) -> Any:
    """Draw for one model after the other, from the seed of each: so the numbers are those of `fit` alone."""
    operation = pfor_input.op
    models = next(value.t.shape[0] for value in pfor_input.inputs if value.is_stacked)
    columns = [
        tf.unstack(value.t, models) if value.is_stacked else [value.t] * models for value in pfor_input.inputs
    ]
    inputs = [argument.name for argument in operation.op_def.input_arg]
    attributes = {
        a.name: pfor_input.get_attr(a.name) for a in operation.op_def.attr if a.name in ("dtype", "alg")
    }
    draw = getattr(tf.raw_ops, operation.type)
    drawn = [draw(**dict(zip(inputs, row, strict=True)), **attributes) for row in zip(*columns, strict=True)]
    if len(operation.outputs) == 1:
        return pfor.wrap(tf.stack(drawn), True)
    return [pfor.wrap(tf.stack(column), True) for column in zip(*drawn, strict=True)]


for _name, _converter in {
    "Bitcast": _vectorize_bitcast,
    "StatelessRandomGetKeyCounter": _vectorize_random,
    "StatelessRandomUniformV2": _vectorize_random,
    "StatelessRandomNormalV2": _vectorize_random,
}.items():
    with contextlib.suppress(AssertionError):  # of a TensorFlow that has come to vectorize it by itself
        pfor.RegisterPFor(_name)(_converter)


_ELEMENTWISE = [
    getattr(keras.optimizers, name)
    for name in ("SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion")
]


def _fingerprint(model: keras.Model) -> str | None:
    """Describe what must be equal for models to be trained as one; None for a model that must go alone.

    Weights, learning rates, seeds and the statistics of Normalization may differ.
    """
    optimizer = model.optimizer
    layers = list(model._flatten_layers())
    alone = (
        not model.built
        or type(optimizer) not in _ELEMENTWISE
        or any((optimizer.clipnorm, optimizer.global_clipnorm, optimizer.gradient_accumulation_steps))
        or any("exclude_from_weight_decay" in name for name in vars(optimizer))
        or any(variable.constraint is not None for variable in model.trainable_variables)
        or not all(type(layer).__module__.startswith("keras.src.") for layer in layers)
        or any(_keeps_state_elsewhere(layer) for layer in layers)
    )
    if alone:
        return None
    trainable = [variable.trainable for variable in model.variables]
    text = type(model).__name__ + _description(model) + repr(trainable)
    # Two functions or classes of one name may differ, and a sum depends on the size of the batches.
    foreign = ('"class_name": "function"', '"registered_name": "', "__lambda__", '"reduction": "sum"')
    return None if any(mark in text for mark in foreign) else text


def _description(model: keras.Model, whole: bool = False) -> str:
    """Describe the architecture and what it was compiled with, without the names of the layers.

    Without `whole`, learning rates and the statistics of Normalization stay out.
    """
    names = {layer.name: f"#{i}" for i, layer in enumerate(model._flatten_layers())}
    config: list[Any] = [[list(variable.shape) for variable in model.variables]]
    with warnings.catch_warnings(action="ignore"):  # of functions that could not be loaded again
        with contextlib.suppress(NotImplementedError):  # a class of the user's
            config.append(model.get_config())
        config.append(model.get_compile_config())
    return json.dumps(
        _anonymous(config, names, whole), sort_keys=True, default=lambda item: type(item).__name__
    )


def _keeps_state_elsewhere(layer: keras.Layer) -> bool:
    module = type(layer).__module__
    normalization = type(layer) in (keras.layers.Normalization, keras.layers.Rescaling)
    return (
        layer.activity_regularizer is not None
        or isinstance(layer, keras.layers.Lambda)
        or (module.startswith("keras.src.layers.preprocessing.") and not normalization)
    )


def _anonymous(config: Any, names: dict[str, str], whole: bool) -> Any:
    if isinstance(config, dict):
        free = {"name", "seed", "shared_object_id"}
        if not whole:
            free |= {"mean", "variance"} if "invert" in config else set()
            free |= {"learning_rate"} if isinstance(config.get("learning_rate"), float) else set()
        return {
            key: _anonymous(value, names, whole)
            for key, value in config.items()
            if key not in free and not key.endswith("_initializer")
        }
    if isinstance(config, list | tuple):
        return [_anonymous(item, names, whole) for item in config]
    return names.get(config, config) if isinstance(config, str) else config


def _check_model(model: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(f"The Keras backend must be tensorflow. Received: {keras.backend.backend()}")
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(
            "`model` must be a compiled keras.Model: call model.compile first. Received: an uncompiled one"
        )
    if model.run_eagerly:
        raise ValueError("`model` must be compiled with run_eagerly=False, or use model.fit. Received: True")
    if model.distribute_strategy is not tf.distribute.get_strategy() or tf.distribute.has_strategy():
        raise ValueError(
            "`model` must live on one device; use model.fit under a distribution strategy. "
            f"Received: {type(model.distribute_strategy).__name__}"
        )


def _check_batch_size(batch_size: int | None) -> int:
    if batch_size is None:
        return 32
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number, at least 1. Received: {batch_size!r}")
    return int(batch_size)


def _check_targets(model: keras.Model, table: _Table) -> None:
    """Refuse strings for numbers, and labels that do not go with the loss: TensorFlow may train on them."""
    x, y, _ = keras.utils.unpack_x_y_sample_weight(table.structure)
    inputs = getattr(model, "inputs", None) or []
    if inputs and all(each.dtype != "string" for each in inputs):
        for leaf in keras.tree.flatten(x):
            if leaf.dtype.kind in "US":
                raise ValueError(
                    f"`x` must hold numbers, as the model's inputs do. Received: strings, {leaf.flat[0]!r}"
                )
    if y is None or type(model).train_step is not keras.Model.train_step:
        return
    if getattr(model, "outputs", None):
        shapes = [tuple(output.shape) for output in model.outputs]
    else:  # a subclass tells its output by making one
        row = _Table(x, keras.tree.flatten(x)).first_row()
        y_pred = model(row, training=False)
        shapes = [tuple(output.shape) for output in keras.tree.flatten(y_pred)]
    names = list(getattr(model, "output_names", None) or range(len(shapes)))
    targets, losses = (_by_output(value, names) for value in (y, model.loss))
    for name, shape in zip(names, shapes, strict=True):
        if isinstance(targets.get(name), np.ndarray):
            label = "y" if len(names) == 1 else f"y[{name!r}]"
            _check_target(label, targets[name], shape, losses.get(name))


def _by_output(value: Any, names: list[Any]) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    values = value if isinstance(value, list | tuple) else [value]
    return dict(zip(names, values, strict=False))


def _check_target(name: str, y: npt.NDArray[Any], shape: tuple[int | None, ...], loss: Any) -> None:
    kind = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    kind = kind.lower().replace("_", "")
    classes = shape[-1]
    one_hot = y.ndim == len(shape) and y.shape[-1] == classes
    if kind == "categoricalcrossentropy" and not one_hot:
        raise ValueError(
            f"`{name}` must be one-hot, {classes} columns, for categorical_crossentropy; numbers go with "
            f"sparse_categorical_crossentropy. Received: shape {y.shape}"
        )
    if kind == "sparsecategoricalcrossentropy":
        if one_hot and classes != 1:
            raise ValueError(
                f"`{name}` must be class numbers for sparse_categorical_crossentropy; one-hot rows go with "
                f"categorical_crossentropy. Received: shape {y.shape}"
            )
        ignored = getattr(loss, "ignore_class", None)
        _check_range(
            name, y, (y >= 0) & (y < classes) | (y == ignored), f"classes from 0 to {(classes or 1) - 1}"
        )
    if kind == "binarycrossentropy":
        _check_range(name, y, (y >= 0) & (y <= 1), "labels from 0 to 1")


def _check_range(name: str, y: npt.NDArray[Any], right: npt.NDArray[np.bool_], wanted: str) -> None:
    if not right.all():
        place = np.argwhere(~right)[0]
        columns = ", ".join(map(str, place[1:]))
        where = f"row {place[0]}" + (f", column {columns}" if columns else "")
        raise ValueError(f"`{name}` must be {wanted}. Received: {y[tuple(place)]} in {where}")


_BATCH_HOOKS = [f"on_{phase}batch_{end}" for phase in ("", "train_", "test_") for end in ("begin", "end")]


def _check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    checked = keras.tree.flatten(callbacks) if callbacks else []
    for callback in checked:
        name = type(callback).__name__
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"`callbacks` must be keras.callbacks.Callback objects. Received: {name}")
        for hook in _BATCH_HOOKS:
            if not _acts_at_epochs(callback, hook):
                raise TypeError(
                    "`callbacks` must act at epochs, as all batches are one call; "
                    f"use model.fit for one that needs every batch. Received: {name}, which has {hook}"
                )
    return list(checked)


def _acts_at_epochs(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Say whether a callback leaves the hook alone, or is Keras's own and can do without."""
    if hook in vars(callback):
        return False
    owner = next(cls for cls in type(callback).__mro__ if hook in vars(cls))
    if owner in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq == "epoch")
    if owner is keras.callbacks.TensorBoard:
        return bool(callback.update_freq == "epoch" and not callback._should_trace)
    return owner in (keras.callbacks.Callback, keras.callbacks.ProgbarLogger, keras.callbacks.TerminateOnNaN)


def _check_many_callbacks(callbacks: Any, count: int) -> list[list[keras.callbacks.Callback]]:
    if callbacks is None:
        return [[] for _ in range(count)]
    if callable(callbacks):
        callbacks = [callbacks(i) for i in range(count)]
    if (
        not isinstance(callbacks, list | tuple)
        or len(callbacks) != count
        or isinstance(callbacks[0], keras.callbacks.Callback)
    ):
        raise TypeError(
            "`callbacks` must be a function from a model's position to its list of callbacks, "
            f"or one list for each of the {count} models. Received: {callbacks!r}"
        )
    checked = [_check_callbacks(each) for each in callbacks]
    everything = [id(callback) for each in checked for callback in each]
    if len(set(everything)) < len(everything):
        raise TypeError("`callbacks` must differ from model to model. Received: one callback for several")
    return checked


def _check_splits(splits: Sequence[tuple[Any, Any]], count: int, n: int) -> list[tuple[Rows, Rows]]:
    splits = list(splits)
    if len(splits) != count:
        raise ValueError(
            f"`splits` must have one pair for each of the {count} models. Received: {len(splits)}"
        )
    checked = []
    for i, (rows, validation_rows) in enumerate(splits):
        pair = np.asarray(rows), np.asarray([] if validation_rows is None else validation_rows)
        for part in pair:
            wrong = part.ndim != 1 or (
                part.size and (part.dtype.kind not in "iu" or part.min() < 0 or part.max() >= n)
            )
            if wrong or not pair[0].size:
                raise ValueError(
                    f"`splits[{i}]` must be row numbers below n={n}, some to train on. Received: {part!r}"
                )
        checked.append((pair[0].astype(np.int64), pair[1].astype(np.int64)))
    return checked


def _end_batches(callbacks: list[keras.callbacks.Callback], batch: int, logs: Logs) -> None:
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.TerminateOnNaN):
            callback.on_batch_end(batch, logs)


class _Progress:
    """Keras's bar on a terminal, a line an epoch elsewhere; one bar for all epochs where there are many."""

    def __init__(self, verbose: str | int, epochs: int, jobs: int = 1) -> None:
        terminal = sys.stdout.isatty() or "ipykernel" in sys.modules
        self.verbose = int(verbose) if verbose != "auto" else 1 if terminal else 2
        self.epochs = epochs
        self.every = math.ceil(epochs * jobs / 20) if verbose == "auto" and epochs * jobs > MANY_EPOCHS else 1
        self.jobs = jobs
        self.one_bar = epochs > MANY_EPOCHS
        self.bar: Any = None

    def start(self, name: str) -> None:
        if self.verbose and self.jobs > 1:
            print(name[:1].upper() + name[1:])

    def begin(self, epoch: int, steps: int) -> None:
        self.epoch = epoch
        self.steps = steps
        self.started = time.perf_counter()
        if self.verbose == 1 and self.bar is None:
            if self.one_bar:
                self.bar = keras.utils.Progbar(self.epochs, stateless_metrics=[], unit_name="epoch")
            else:
                print(f"Epoch {epoch + 1}/{self.epochs}")
                self.bar = keras.utils.Progbar(steps, stateless_metrics=[])

    def step(self, done: int, logs: Any) -> None:
        if self.verbose == 1:
            position = self.epoch + done / self.steps if self.one_bar else done
            self.bar.update(position, list(_to_floats(logs).items()), finalize=False)

    def wait(self, done: int, logs: Any) -> None:
        """Hear of a validation step: the bar shows training."""

    def end(self, logs: Logs) -> None:
        if self.verbose == 1:
            position = self.epoch + 1 if self.one_bar else self.steps
            self.bar.update(position, list(logs.items()), finalize=not self.one_bar)
            self.bar = self.bar if self.one_bar else None
        if self.verbose == 2 and ((self.epoch + 1) % self.every == 0 or self.epoch == 0):
            seconds = time.perf_counter() - self.started
            shown = "".join(f" - {name}: {_number(value)}" for name, value in logs.items())
            print(f"Epoch {self.epoch + 1}/{self.epochs} - {seconds:.1f}s{shown}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            print()
            self.bar = None


def _number(value: Any) -> str:
    return f"{value:.4f}" if abs(np.mean(value)) > 1e-3 else f"{value:.4e}"
