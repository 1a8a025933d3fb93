"""The engine for one model: many of its steps in one compiled call; and `Pace`, how many, for a stack too."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit import _keras, _tensorflow
from toolkit.training.arrays import Feed, RowNumbers
from toolkit.training.members import Member
from toolkit.training.progress import warn

CALL_SECONDS = 0.3  # what one compiled call may take: the progress bar and Ctrl-C wait no longer
Heard = Callable[[int, Any], None]  # hears of the steps that are done, and of the last one's logs


class Pace:
    """How many steps fit into a call of `CALL_SECONDS`."""

    def __init__(self) -> None:
        self.steps = 1

    def measure(self, done: int, seconds: float) -> None:
        """Learn from a call how long the next one may be."""
        self.steps = max(1, min(self.steps * 64, int(done * CALL_SECONDS / max(seconds, 1e-9))))


class Alone:
    """One model, trained by its own `train_step`.

    Args:
        member: The model and its rows.
        training: The table that its training rows are in.
        validation: The table that its validation rows are in.
    """

    reads = writes = False  # callbacks see and change the model itself

    def __init__(self, member: Member, training: Feed, validation: Feed) -> None:
        self.members = [member]
        self.model, settings = member.model, member.settings
        model = self.model

        def use_xla(steps: int) -> bool:
            return settings.use_xla(model, training.table, steps)

        build_what_a_batch_would(model, training)
        validation_rows = member.validation_rows
        if settings.validation_steps is not None:
            validation_rows = validation_rows[: settings.validation_steps * settings.validation_batch_size]
        self.validation_rows = validation_rows
        in_order = np.array_equal(validation_rows, np.arange(len(validation_rows)))
        watched = any(isinstance(each, keras.callbacks.TerminateOnNaN) for each in member.callbacks)
        sizes = settings.batch_size, settings.validation_batch_size
        self.steps = math.ceil(len(member.rows) / sizes[0])
        self.training = _Steps(
            model, model.train_step, training, use_xla, len(member.rows), sizes[0], watched
        )
        self.testing = _Steps(
            model,
            model.test_step,
            validation,
            use_xla,
            len(validation_rows),
            sizes[1],
            fixed=True,
            in_order=in_order,
        )
        self.finite: Any = None

    def reset(self, members: list[Member]) -> None:
        """Let the metrics begin anew."""
        self.model.reset_metrics()

    def train(self, epoch: int, heard: Heard) -> list[dict[str, Any]]:
        """Take the steps of an epoch and return the logs, in a list of one."""
        member, model = self.members[0], self.model
        if self.finite is None and member.settings.check_finite and model.built:
            self._watch_weights()
        steps = self.steps
        if model.stop_training:  # before the first batch: Keras looks after it
            steps = model.steps_per_execution

        def hear(done: int, logs: Any) -> bool:
            heard(done, logs)
            for callback in member.callbacks:
                if isinstance(callback, keras.callbacks.TerminateOnNaN):
                    callback.on_batch_end(done - 1, _keras.to_python(logs))
            return bool(model.stop_training)

        logs = self.training(member.order(epoch)[: steps * member.settings.batch_size], hear)
        return [self._logs(logs)]

    def test(self) -> list[dict[str, Any]]:
        """Validate and return the logs, in a list of one."""
        self.model.reset_metrics()
        return [self._logs(self.testing(self.validation_rows, lambda done, logs: False))]

    def _logs(self, logs: Any) -> dict[str, Any]:
        """Prefer the metrics to the last step's logs, as `model.fit` does, where both have the same names."""
        if _has_own_logs(self.model):
            metrics = self.model.get_metrics_result()
            if isinstance(logs, dict) and set(logs) == set(metrics):
                logs = metrics
        return dict(logs)

    def all_finite(self) -> list[bool]:
        """Say whether all weights are finite that were so at the start."""
        if self.finite is None:  # the first epoch has built the model
            self._watch_weights(all_of_them=True)
        return [bool(self.finite())]

    def _watch_weights(self, all_of_them: bool = False) -> None:
        """Note which weights are finite: a constant of infinity is no divergence."""
        floats = [each for each in self.model.weights if keras.backend.is_float_dtype(each.dtype)]
        finite = [each for each in floats if all_of_them or _is_finite(each)]
        self.finite = lambda: all(map(_is_finite, finite))
        if tf.config.list_logical_devices("GPU"):  # which would have to send the weights
            function = tf.function(lambda: _all_finite(finite), autograph=False)
            self.finite = function.get_concrete_function()

    def load(self, members: list[Member]) -> None:
        """Take what callbacks have changed: nothing to do, as they change the model itself."""

    def store(self, members: list[Member]) -> None:
        """Give the models their weights: nothing to do, as they are trained themselves."""


def _is_finite(weight: Any) -> bool:
    return bool(np.isfinite(np.asarray(tf.convert_to_tensor(weight))).all())


def _all_finite(weights: list[Any]) -> tf.Tensor:
    return tf.reduce_all(
        [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight))) for weight in weights]
    )


def _has_own_logs(model: keras.Model) -> bool:
    """Say whether the logs of a step may be other than the results that the metrics have after it."""
    names = ("train_step", "test_step", "compute_metrics", "get_metrics_result")
    if not all(map(_keras.is_own, _metrics_of(model))):
        return True
    return any(
        name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name) for name in names
    )


def _metrics_of(model: keras.Model) -> list[keras.metrics.Metric]:
    passed = keras.tree.flatten(_keras.compile_settings(model))
    return [*model.metrics, *(each for each in passed if isinstance(each, keras.metrics.Metric))]


def build_what_a_batch_would(model: keras.Model, feed: Feed) -> None:
    """Create what Keras makes when it sees the first batch: in a trace, it would cost a second trace."""
    y_pred = _keras.graph_outputs(model)
    if not model.built or y_pred is None or _has_own_logs(model):
        return
    _, y, _ = keras.utils.unpack_x_y_sample_weight(feed.table.spec())
    if model.trainable_variables:
        _keras.build_optimizer(model)
    _keras.build_compiled(model, y, y_pred)


class _Steps:
    """Many steps in one compiled call."""

    def __init__(
        self,
        model: keras.Model,
        step: Callable[[Any], Any],
        feed: Feed,
        use_xla: Callable[[int], bool],
        rows: int,
        batch_size: int,
        watched: bool = False,
        fixed: bool = False,
        in_order: bool = False,
    ) -> None:
        # Where all batches are full, Keras tells the model their size; else one trace serves all sizes.
        size = batch_size if rows % batch_size == 0 else None

        def traced(batch: Any, number: tf.Tensor) -> Any:
            with _keras.quick_sparse_products():
                return step(feed.table.pack(batch, number))

        self.step = tf.function(
            traced,
            input_signature=[feed.table.cut_signature(size), tf.TensorSpec((), tf.int64)],
            autograph=False,
        )
        self.feed = feed
        self.size = size
        self.use_xla = use_xla
        self.batch_size = batch_size
        self.stride = model.steps_per_execution
        self.watched = watched
        self.fixed = fixed  # whether the rows come in the same order again
        self.in_order = in_order
        self.functions: dict[int, Any] = {}  # by the size of the batch
        self.plain: Any = None  # the graph without XLA, which takes batches of any size
        self.pace = Pace()

    def __call__(self, rows: RowNumbers, heard: Callable[[int, Any], bool]) -> Any:
        """Take the rows in batches and return the last logs; `heard` says after a call whether to stop."""
        full = len(rows) // self.batch_size
        batches = rows[: full * self.batch_size].reshape(full, self.batch_size)
        arguments = self._arguments(batches) if full else None
        rest = rows[full * self.batch_size :]
        logs: Any = {}
        done = 0
        while done < full:
            started = time.perf_counter()
            stop = min(done + self.pace.steps, full)
            reached, logs = self._call(arguments, done, stop, full)
            reached = int(reached)  # waits for the device
            self.pace.measure(reached - done, time.perf_counter() - started)
            done = reached
            if heard(done, logs) and self.watched:
                return logs
        if len(rest):
            _, logs = self._call(self._arguments(rest[None]), 0, 1, 1)
            heard(done + 1, logs)
        return logs

    def _arguments(self, order: RowNumbers) -> tuple[Any, tf.Tensor]:
        tensors = self.feed.tensors_for(order, self.batch_size, fixed=self.fixed)
        return tensors, tf.convert_to_tensor(order)

    def _call(self, batches: Any, start: int, stop: int, steps: int) -> Any:
        size = batches[1].shape[1]
        arguments = *batches, tf.constant(start), tf.constant(stop)
        if size in self.functions:
            return self.functions[size](*arguments)
        if not self.use_xla(steps):
            self.plain = self.plain or self._compile(jit=False)
            self.functions[size] = self.plain
            return self.plain(*arguments)
        self.functions[size] = self._compile(jit=True)
        try:
            return self.functions[size](*arguments)
        except tf.errors.OpError as error:  # XLA compiles before it computes: the model is as it was
            warn_no_xla(error)
            self.use_xla = lambda _: False
            del self.functions[size]
            return self._call(batches, start, stop, steps)

    def _compile(self, jit: bool) -> Any:
        number, order = tf.TensorSpec((), tf.int32), tf.TensorSpec((None, self.size), tf.int64)
        # A concrete function spares the look-up of a trace at each call.
        function = tf.function(
            self._loop if jit else self._overlapping_loop, autograph=False, jit_compile=jit
        )
        tensors = self.feed.table.signature(self.batch_size)
        with _tensorflow.steady_names():
            return function.get_concrete_function(tensors, order, number, number)

    def _goes_on(self, i: tf.Tensor, stop: tf.Tensor, logs: Any) -> tf.Tensor:
        if not self.watched or not isinstance(logs, dict) or "loss" not in logs:
            return i < stop
        looks = (i % self.stride) == 0  # Keras lets callbacks look after so many steps
        return (i < stop) & ~(looks & ~tf.reduce_all(tf.math.is_finite(logs["loss"])))

    def _no_logs(self) -> Any:
        logs = self.step.get_concrete_function().structured_outputs
        return tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), logs)

    def _cut(self, tensors: Any, order: tf.Tensor, i: tf.Tensor, as_words: bool = False) -> Any:
        return self.feed.table.cut(tensors, order, i, self.in_order, as_words)

    def _loop(self, tensors: Any, order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> Any:
        size = tf.shape(order, tf.int64)[1]
        return tf.while_loop(
            lambda i, logs: self._goes_on(i, stop, logs),
            lambda i, _: (i + 1, self.step(self._cut(tensors, order, i), size)),
            (start, self._no_logs()),
        )

    def _overlapping_loop(self, tensors: Any, order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> Any:
        """Cut the next batch while the step is taken: neither waits for the other."""
        size = tf.shape(order, tf.int64)[1]
        return tf.while_loop(
            lambda i, logs, _: self._goes_on(i, stop, logs),
            lambda i, _, batch: (
                i + 1,
                self.step(batch, size),
                self._cut(tensors, order, tf.minimum(i + 1, stop - 1), as_words=True),
            ),
            (start, self._no_logs(), self._cut(tensors, order, start, as_words=True)),
        )[:2]


def warn_no_xla(error: tf.errors.OpError) -> None:
    """Say that XLA cannot compile a model, and why."""
    reason = str(error.message).strip().splitlines()[0][:200]
    warn(f"XLA cannot compile this model, so the plain graph runs: {reason}")
