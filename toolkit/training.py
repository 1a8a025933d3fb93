"""Train in compiled epochs: the data lies on the device, and an epoch is one compiled call.

`fit` is `model.fit` for data in memory: the same arguments and the same numbers, several times sooner, because
`model.fit` spends most of its time around the arithmetic and not in it. `fit_many` trains many models at once.
"""

import math
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import scipy.sparse
import tensorflow as tf
from keras.src.utils.rng_utils import get_random_seed  # Keras sets its seed in public, but tells it nowhere

Rows = npt.NDArray[np.int64]
Logs = dict[str, Any]

CALL_SECONDS = 0.3  # what one compiled call may take: the progress bar and Ctrl-C wait no longer
XLA_STEPS = 1500  # fewer steps than this in all do not earn back the time that XLA needs to compile them
RESIDENT_BYTES: int | None = None  # more data than this is fed in blocks; None: half of the device's free memory
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
) -> keras.callbacks.History:
    """Train like `model.fit`, with one compiled call an epoch.

    Args and result are those of `model.fit`; with `shuffle=False` so are weights and History, to float32 rounding.

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
        shuffle: Draw a new order each epoch, from Keras's seed (`keras.utils.set_random_seed`) and the epoch's
            number: two calls with one seed see the rows in the same order.
        class_weight: Weight of each class, by number.
        sample_weight: Weight of each row, shape `(n,)`, or one array per output.
        initial_epoch: Epoch at which to start.
        jit: Use XLA: True, False, or "auto" (where it pays).

    Returns:
        The History, with Python floats.

    Raises:
        ValueError: Input that cannot be right, before any training: the message names the first place.
        TypeError: A dataset or generator, or a callback that needs every batch.
        FloatingPointError: Weights are no longer finite after an epoch.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("sgd", loss="mse")
    >>> history = fit(model, [[0, 1], [1, 0]], [1.0, 1.0], epochs=2, verbose=0)
    >>> [round(loss, 4) for loss in history.history["loss"]]
    [1.0, 0.9409]
    """
    _check_model(model)
    table = _table(x, y, sample_weight, class_weight)
    rows: Rows = np.arange(len(table))
    validation = None
    if validation_data is not None:
        validation_x, validation_y, validation_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
        validation = _table(validation_x, validation_y, validation_weight, prefix="validation ")
    elif validation_split:
        kept = math.floor(len(table) * (1.0 - validation_split))
        if not 0 < kept < len(table):
            raise ValueError(
                f"`validation_split` must leave rows on both sides of n={len(table)}. Received: {validation_split}"
            )
        table, validation = table.take(slice(kept)), table.take(slice(kept, None))
        rows = rows[:kept]
    for part in (table, validation):
        if part is not None:
            _check_targets(model, part)
    batch_size = _check_batch_size(batch_size)
    job = _Job(
        model,
        _Feed(table, batch_size),
        rows,
        None if validation is None else _Feed(validation, batch_size),
        None if validation is None else np.arange(len(validation)),
        epochs=epochs,
        initial_epoch=initial_epoch,
        shuffle=shuffle,
        seed=_seed(),
        callbacks=_check_callbacks(callbacks),
        jit=jit,
    )
    return job.run(_Progress(verbose, epochs))


# The data


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

    def upload(self) -> list[tuple[tf.Tensor, ...]]:
        return [tuple(tf.convert_to_tensor(part) for part in _parts(leaf)) for leaf in self.leaves]

    def signature(self) -> list[tuple[tf.TensorSpec, ...]]:
        return [
            tuple(tf.TensorSpec((None, *part.shape[1:]), _tensor_dtype(part)) for part in _parts(leaf))
            for leaf in self.leaves
        ]

    def batch(self, tensors: Sequence[tuple[tf.Tensor, ...]], indices: tf.Tensor) -> Any:
        """Gather rows, inside a graph: tensors as `upload` makes them, indices of shape `(batch_size,)`."""
        leaves = [
            _sparse_batch(*parts, indices, leaf.shape[1]) if scipy.sparse.issparse(leaf) else tf.gather(*parts, indices)
            for leaf, parts in zip(self.leaves, tensors, strict=True)
        ]
        return keras.tree.pack_sequence_as(self.structure, leaves)


def _parts(leaf: Any) -> tuple[npt.NDArray[Any], ...]:
    return (leaf.data, leaf.indices, leaf.indptr) if scipy.sparse.issparse(leaf) else (leaf,)


def _tensor_dtype(array: npt.NDArray[Any]) -> Any:
    return tf.string if array.dtype.kind in "OUS" else array.dtype


def _sparse_batch(
    values: tf.Tensor, columns: tf.Tensor, row_splits: tf.Tensor, indices: tf.Tensor, width: int
) -> tf.SparseTensor:
    """Cut rows out of a CSR matrix: the SparseTensor that Keras itself would feed."""
    positions = tf.ragged.range(tf.gather(row_splits, indices), tf.gather(row_splits, indices + 1))
    places = positions.flat_values
    coordinates = [positions.value_rowids(), tf.cast(tf.gather(columns, places), tf.int64)]
    return tf.SparseTensor(tf.stack(coordinates, axis=1), tf.gather(values, places), (tf.shape(indices)[0], width))


def _table(x: Any, y: Any, sample_weight: Any, class_weight: Any = None, prefix: str = "") -> _Table:
    """Check the arrays and pack them as `model.fit` does."""
    x, y, sample_weight = (
        None if value is None else _convert(prefix + name, value)
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))
    )
    if x is None:
        raise ValueError(f"`{prefix}x` must be an array. Received: None")
    if class_weight is not None:
        if sample_weight is not None:
            raise ValueError("`class_weight` must be None where `sample_weight` is given. Received: both")
        sample_weight = _class_weights(y, class_weight)
    if sample_weight is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(sample_weight):
        sample_weight = keras.tree.map_structure(lambda _: sample_weight, y)
    structure = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    table = _Table(structure, keras.tree.flatten(structure))
    for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        for leaf in keras.tree.flatten(value) if value is not None else []:
            if leaf.shape[0] != len(table):
                raise ValueError(
                    f"`{prefix}{name}` must have as many rows as x, n={len(table)}. Received: {leaf.shape[0]} rows"
                )
    if not len(table):
        raise ValueError(f"`{prefix}x` must have at least one row. Received: none")
    return table


def _convert(name: str, value: Any) -> Any:
    """Return the arrays of a structure as NumPy or CSR, floats in Keras's float type, all of them finite."""
    if isinstance(value, dict):
        return {key: _convert(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, list | tuple) and any(len(getattr(item, "shape", ())) for item in value):
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
        raise ValueError(f"`{name}` must be an array of numbers. Received: shape {leaf.shape}, dtype {leaf.dtype}")
    if leaf.dtype.kind == "f":
        if leaf.dtype != keras.config.floatx():
            leaf = leaf.astype(keras.config.floatx())
        _check_finite(name, leaf)
    return leaf


def _check_finite(name: str, leaf: Any) -> None:
    numbers = leaf.data if scipy.sparse.issparse(leaf) else leaf
    rows = max(1, 4_000_000 * len(numbers) // max(1, numbers.size))  # a mask of all of x could fill the memory
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
        raise ValueError("`class_weight` must go with a single array of labels. Received: none or several outputs")
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

    def __init__(self, table: _Table, batch_size: int) -> None:
        self.table = table
        self.batch_size = batch_size
        budget = _free_bytes() // 2 if RESIDENT_BYTES is None else RESIDENT_BYTES
        self.resident = table.upload() if table.nbytes <= budget else None
        if self.resident is None:
            self.block_steps = max(1, budget * len(table) // (4 * table.nbytes * batch_size))
            warnings.warn(
                f"The data, {table.nbytes:,} bytes, does not fit the device's budget of {budget:,}: "
                f"it is fed in blocks of {self.block_steps * batch_size} rows.",
                stacklevel=4,
            )

    def blocks(self, rows: Rows) -> Iterator[tuple[list[tuple[tf.Tensor, ...]], tf.Tensor, int]]:
        """Yield tensors, batches of row numbers in them, shape `(steps, size)`, and how many of these to take."""
        steps = len(rows) // self.batch_size
        block_steps = steps if self.resident else min(steps, self.block_steps)
        for start in range(0, steps, max(1, block_steps)):
            stop = min(start + block_steps, steps)
            yield self._block(rows[start * self.batch_size : stop * self.batch_size], block_steps, self.batch_size)
        rest = rows[steps * self.batch_size :]
        if len(rest):
            yield self._block(rest, 1, len(rest))

    def _block(self, rows: Rows, steps: int, size: int) -> tuple[list[tuple[tf.Tensor, ...]], tf.Tensor, int]:
        count = len(rows) // size
        if self.resident:
            return self.resident, tf.convert_to_tensor(rows.reshape(steps, size)), count
        padded = np.resize(rows, steps * size)  # a short last block must not be compiled anew
        return self.table.take(padded).upload(), tf.convert_to_tensor(np.arange(steps * size).reshape(steps, size)), count


def _free_bytes() -> int:
    """Return the free memory of the device that TensorFlow computes on."""
    if tf.config.list_logical_devices("GPU"):
        from tensorflow.python.client import device_lib  # the only place that tells a GPU's memory

        limit = max(device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU")
        return int(limit - tf.config.experimental.get_memory_info("GPU:0")["current"])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# One model


class _Steps:
    """Many steps in one compiled call."""

    def __init__(self, step: Callable[[Any], Any], feed: _Feed, jit: Callable[[int], bool], rows: int) -> None:
        self.step = tf.function(  # of any batch size: the uneven last batch is not traced again
            lambda tensors, indices: step(feed.table.batch(tensors, indices)),
            input_signature=[feed.table.signature(), tf.TensorSpec((None,), tf.int64)],
            autograph=False,
        )
        self.feed = feed
        self.jit = jit
        self.count = math.ceil(rows / feed.batch_size)
        self.functions: dict[int, Any] = {}
        self.chunk = 1

    def __call__(self, rows: Rows, progress: Callable[[int, Any], None]) -> Any:
        """Take the rows in batches and return the last step's logs; progress hears of the steps done so far."""
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
        jit = self.jit(steps)
        self.functions[size] = self._compile(jit)
        try:
            return self.functions[size](*arguments)
        except tf.errors.OpError as error:  # XLA compiles before it computes: the model is as it was
            if not jit:
                raise
            reason = str(error.message).strip().splitlines()[0]
            warnings.warn(f"XLA cannot compile this model, so the plain graph runs: {reason}", stacklevel=6)
            self.jit = lambda _: False
            self.functions[size] = self._compile(jit=False)
            return self.functions[size](*arguments)

    def _compile(self, jit: bool) -> Any:
        def run(tensors: Any, order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> Any:
            logs = self.step.get_concrete_function().structured_outputs
            empty = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), logs)
            return tf.while_loop(
                lambda i, _: i < stop, lambda i, _: (i + 1, self.step(tensors, order[i])), (start, empty)
            )[1]

        number = tf.TensorSpec((), tf.int32)
        order = tf.TensorSpec((None, None), tf.int64)
        # A concrete function spares the look-up of a trace at each call.
        function = tf.function(run, autograph=False, jit_compile=jit)
        return function.get_concrete_function(self.feed.table.signature(), order, number, number)


class _Job:
    """The training of one model on rows of a feed."""

    def __init__(
        self,
        model: keras.Model,
        feed: _Feed,
        rows: Rows,
        validation_feed: _Feed | None,
        validation_rows: Rows | None,
        *,
        epochs: int,
        initial_epoch: int,
        shuffle: bool,
        seed: int,
        callbacks: list[keras.callbacks.Callback],
        jit: bool | str,
    ) -> None:
        self.model = model
        self.rows = rows
        self.validation_rows = validation_rows
        self.epochs = epochs
        self.initial_epoch = initial_epoch
        self.shuffle = shuffle
        self.seed = seed
        self.callbacks = callbacks

        def use_xla(steps: int) -> bool:
            return _use_xla(model, feed.table, steps * (epochs - initial_epoch)) if jit == "auto" else bool(jit)

        self.train = _Steps(model.train_step, feed, use_xla, len(rows))
        self.test = None
        if validation_feed is not None and validation_rows is not None:
            self.test = _Steps(model.test_step, validation_feed, use_xla, len(validation_rows))
        self.finite = tf.function(lambda: _all_finite(model.weights), autograph=False)

    def run(self, progress: "_Progress") -> keras.callbacks.History:
        model = self.model
        callbacks = keras.callbacks.CallbackList(
            self.callbacks, add_history=True, model=model, verbose=progress.verbose, epochs=self.epochs,
            steps=self.train.count,
        )  # fmt: skip
        model.stop_training = False
        callbacks.on_train_begin()
        logs: Logs = {}
        for epoch in range(model._initial_epoch or self.initial_epoch, self.epochs):  # BackupAndRestore sets it
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            progress.begin(epoch, self.train.count)
            order = _order(self.rows, self.seed, epoch, self.shuffle)
            logs = _epoch_logs(model, self.train(order, progress.step))
            _end_batches(self.callbacks, self.train.count - 1, logs)
            if self.test is not None and self.validation_rows is not None:
                callbacks.on_test_begin()
                model.reset_metrics()
                test_logs = _epoch_logs(model, self.test(self.validation_rows, progress.wait))
                callbacks.on_test_end(test_logs)
                logs |= {f"val_{name}": value for name, value in test_logs.items()}
            if not model.stop_training and not self.finite():
                raise FloatingPointError(_non_finite(epoch))
            callbacks.on_epoch_end(epoch, logs)
            progress.end(logs)
            if model.stop_training:
                break
        progress.close()
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and self.epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs)
        return model.history


def _order(rows: Rows, seed: int, epoch: int, shuffle: bool) -> Rows:
    return np.random.default_rng([seed, epoch]).permutation(rows) if shuffle else rows


def _seed() -> int:
    seed = get_random_seed()
    return random.randint(1, 10**9) if seed is None else int(seed)  # as Keras draws its default seeds


def _all_finite(weights: list[Any]) -> tf.Tensor:
    floats = [tf.convert_to_tensor(weight) for weight in weights if keras.backend.is_float_dtype(weight.dtype)]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(weight)) for weight in floats])


def _non_finite(epoch: int) -> str:
    return (
        f"The weights must stay finite. Received: NaN or infinity after epoch {epoch + 1} "
        "(a smaller learning rate, or clipnorm, often helps)"
    )


def _epoch_logs(model: keras.Model, logs: Any) -> Logs:
    """Prefer the metrics to the last step's logs, as `model.fit` does, where both have the same names."""
    metrics = model.get_metrics_result()
    chosen = metrics if isinstance(logs, dict) and set(logs) == set(metrics) else logs
    return _to_floats(chosen)


def _to_floats(logs: Any) -> Logs:
    return {name: float(value) if np.size(value) == 1 else np.asarray(value) for name, value in sorted(logs.items())}


def _use_xla(model: keras.Model, table: _Table, steps: int) -> bool:
    """Say whether XLA pays: from the model and the number of steps, never from timings, so that runs repeat."""
    layers = list(model._flatten_layers())
    strings = any(_parts(leaf)[0].dtype.kind in "US" for leaf in table.leaves)
    if table.sparse or strings or tf.config.experimental.is_op_determinism_enabled():
        return False
    if not all(layer.supports_jit for layer in layers):
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    return steps >= XLA_STEPS and not any(isinstance(layer, keras.src.layers.convolutional.base_conv.BaseConv) for layer in layers)


# Checks


def _check_model(model: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(f"The Keras backend must be tensorflow. Received: {keras.backend.backend()}")
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError("`model` must be a compiled keras.Model: call model.compile first. Received: an uncompiled one")
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
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
    return int(batch_size)


def _check_targets(model: keras.Model, table: _Table) -> None:
    pass


def _check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    return list(keras.tree.flatten(callbacks)) if callbacks else []


def _end_batches(callbacks: list[keras.callbacks.Callback], batch: int, logs: Logs) -> None:
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.TerminateOnNaN):
            callback.on_batch_end(batch, logs)


# Progress


class _Progress:
    """Keras's bar on a terminal, a line an epoch elsewhere; one bar for all epochs where there are many."""

    def __init__(self, verbose: str | int, epochs: int) -> None:
        terminal = sys.stdout.isatty() or "ipykernel" in sys.modules
        self.verbose = int(verbose) if verbose != "auto" else 1 if terminal else 2
        self.epochs = epochs
        self.every = math.ceil(epochs / 20) if verbose == "auto" and epochs > MANY_EPOCHS else 1
        self.one_bar = epochs > MANY_EPOCHS
        self.bar: Any = None

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


def _number(value: Any) -> str:
    return f"{value:.4f}" if abs(np.mean(value)) > 1e-3 else f"{value:.4e}"
