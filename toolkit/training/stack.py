"""The engine for many equal models: their weights stacked, and trained as one model."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from toolkit import _keras, _tensorflow
from toolkit.training import alike
from toolkit.training.alone import Heard, Pace, build_what_a_batch_would, warn_no_xla
from toolkit.training.arrays import Feed, RowNumbers
from toolkit.training.batches import Batches
from toolkit.training.members import Member

# Stacked models validate on so many rows at once: all that they may have for losses and metrics are sums or
# means over rows, so that the batches do not matter.
VALIDATION_ROWS = 1024
_REST_SIZES = 6  # each size of a batch is compiled: more of them cost more than a stack gives


def has_too_many_sizes(members: list[Member]) -> bool:
    """Say whether the splits differ so much in length that a stack does not pay."""
    settings = members[0].settings
    rests = len(Batches([member.rows for member in members], settings.batch_size).rest)
    validation_rows = [member.validation_rows for member in members]
    if len(validation_rows[0]):
        rests += len(Batches(validation_rows, settings.validation_batch_size).rest)
    return rests > _REST_SIZES


class Stack:
    """Equal models trained as one: each weight is stacked to shape `(models, size)`, for one optimizer.

    Two axes, whatever the shape of the weight, so that a column of learning rates fits every weight. The
    forward pass is the first model's, vectorized over the models.

    Args:
        members: The models and their rows.
        training: The table that all training rows are in.
        validation: The table that all validation rows are in.
    """

    def __init__(self, members: list[Member], training: Feed, validation: Feed) -> None:
        _tensorflow.complete_vectorized_map()
        self.members = members
        self.feeds = training, validation
        self.settings = settings = members[0].settings
        self.template = members[0].model
        self.training = Batches([member.rows for member in members], settings.batch_size)
        self.steps = self.training.steps
        self.validation = None
        test_order: tuple[RowNumbers, list[RowNumbers]] = np.zeros(0, np.int64), []
        if len(members[0].validation_rows):
            size = max(settings.validation_batch_size, VALIDATION_ROWS)
            self.validation = Batches([member.validation_rows for member in members], size)
            test_order = self.validation.order(replace(settings, shuffle=False), 0)
        self.test_order = _to_tensors(test_order)
        callbacks = [callback for member in members for callback in member.callbacks]
        self.reads = not all(map(alike.is_blind, callbacks))
        self.writes = not all(map(alike.is_reader, callbacks))
        self.pace = Pace()
        self.test_logs: list[dict[str, Any]] = []
        self.finite = np.ones(len(members), bool)
        self._stack_variables()
        self._compile(settings.use_xla(self.template, training.table, self.training.steps))

    def _stack_variables(self) -> None:
        models = [member.model for member in self.members]
        for model in models:
            build_what_a_batch_would(model, self.feeds[0])
        count = len(models)
        template = self.template
        self.shapes = [variable.shape for variable in template.trainable_variables]
        self.weights = [
            keras.Variable(np.stack(column).reshape(count, -1), name=f"stacked_{i}")
            for i, column in enumerate(_values(model.trainable_variables for model in models))
        ]
        self.state = [
            tf.Variable(np.stack(column))
            for column in _values(model.non_trainable_variables for model in models)
        ]
        self.constants = [
            tf.stack(column) for column in zip(*(_constants(model) for model in models), strict=True)
        ]
        self.variables = [
            *template.trainable_variables,
            *template.non_trainable_variables,
            *template.metrics_variables,
        ]
        template.reset_metrics()
        initial = [tf.convert_to_tensor(variable) for variable in template.metrics_variables]
        self.empty_metrics = [tf.stack([value] * count) for value in initial]
        self.metrics = self.empty_metrics  # of the last step that was taken
        self.names = [list(model.get_metrics_result()) for model in models]
        self.kept_finite = [
            np.isfinite(value.numpy()).reshape(count, -1).all(axis=1)
            for value in (*self.weights, *self.state)
            if keras.backend.is_float_dtype(value.dtype)
        ]
        self._stack_optimizer()

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
            else:
                self.counters.append((variable, column))
        self._load_counters(self.members)

    def _load_counters(self, members: list[Member]) -> None:
        chosen = [i for i, member in enumerate(self.members) if member in members]
        for counter, column in self.counters:
            values = [column[i].numpy() for i in chosen]
            if not all(np.array_equal(value, values[0]) for value in values):
                raise ValueError(
                    f"The optimizers' {counter.name} must be equal in models that train as one. "
                    f"Received: {[value.item() for value in values]}"
                )
            counter.assign(values[0])

    def load(self, members: list[Member]) -> None:
        """Take what callbacks have changed in the models; in those that have stopped it does not matter."""
        for stacked, column in self._pairs():
            stacked.assign(np.stack([variable.numpy() for variable in column]).reshape(stacked.shape))
        self._load_counters(members)
        if self.rates is not None:
            self.rates.assign([[float(member.model.optimizer.learning_rate)] for member in self.members])

    def store(self, members: list[Member]) -> None:
        """Give the members' models all that they would have if each had trained alone."""
        chosen = [i for i, member in enumerate(self.members) if member in members]
        for stacked, column in self._pairs():
            values = stacked.numpy()
            for i in chosen:
                column[i].assign(values[i].reshape(column[i].shape))
        for counter, column in self.counters:
            for i in chosen:
                column[i].assign(counter)
        metrics = [self.members[i].model.metrics_variables for i in range(len(self.members))]
        for values, column in zip(self.metrics, zip(*metrics, strict=True), strict=True):
            for i in chosen:
                column[i].assign(values[i])

    def _pairs(self) -> list[tuple[Any, tuple[Any, ...]]]:
        """Return each stacked variable with that of each model."""
        models = [member.model for member in self.members]
        weights = zip(*(model.trainable_variables for model in models), strict=True)
        state = zip(*(model.non_trainable_variables for model in models), strict=True)
        return [
            *zip(self.weights, weights, strict=True),
            *zip(self.state, state, strict=True),
            *self.slots,
        ]

    def reset(self, members: list[Member]) -> None:
        """Let metrics begin anew: those of the models need not, as no callback of a stack sees them then."""

    def train(self, epoch: int, heard: Heard) -> list[dict[str, Any]]:
        """Train, and validate in the same call; return the logs of training, one a model."""
        order, rest = _to_tensors(self.training.order(self.settings, epoch))
        metrics = self.empty_metrics
        done = 0
        while done < self.training.full:
            stop = min(done + self.pace.steps, self.training.full)
            started = time.perf_counter()
            metrics = self._call("_train", order, tf.constant(done), tf.constant(stop), metrics)
            metrics[0].numpy()  # waits for the device
            self.pace.measure(stop - done, time.perf_counter() - started)
            done = stop
            heard(done, {})
        logs, self.metrics, test_logs, finite = self._call("_finish", rest, *self.test_order, metrics)
        self.test_logs = self._by_model(test_logs)
        self.finite = finite.numpy()
        return self._by_model(logs)

    def test(self) -> list[dict[str, Any]]:
        """Return the logs of the validation that followed the training."""
        return self.test_logs

    def all_finite(self) -> list[bool]:
        """Say of each model whether all weights are finite that were so at the start."""
        return self.finite.tolist()

    def _by_model(self, logs: dict[str, Any]) -> list[dict[str, Any]]:
        """Part the logs, and call each metric as the model itself calls it."""
        values = [np.asarray(value).tolist() for value in logs.values()]
        return [
            dict(zip(names, (value[i] for value in values), strict=False)) if values else {}
            for i, names in enumerate(self.names)
        ]

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self, name)(*arguments)
        except tf.errors.OpError as error:  # XLA compiles before it computes: the weights are as they were
            if not self.jit:
                raise
            warn_no_xla(error)
            self._compile(jit=False)
            return getattr(self, name)(*arguments)

    def _compile(self, jit: bool) -> None:
        def compiled(function: Callable[..., Any], jit: bool, *signature: Any) -> Any:
            with _tensorflow.steady_names():
                traced = tf.function(function, autograph=False, jit_compile=jit)
                return traced.get_concrete_function(*signature)

        order, rest = _to_tensors(self.training.order(self.settings, 0))
        number = tf.constant(0)
        if self.training.full:
            self._train = compiled(self._train_loop, jit, order, number, number, self.empty_metrics)
        # It takes few steps, which do not always earn back what XLA costs.
        finish_jit = jit and self.settings.use_xla(self.template, self.feeds[0].table, 1)
        self._finish = compiled(self._end_of_epoch, finish_jit, rest, *self.test_order, self.empty_metrics)
        self.jit = jit

    def _train_loop(self, order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor, metrics: Any) -> Any:
        return _loop(self._train_step, order, start, stop, metrics)

    def _end_of_epoch(self, rest: Any, test_order: Any, test_rest: Any, metrics: Any) -> Any:
        """Take the uneven last batches, and validate."""
        metrics = self._take_rest(self.training, rest, self._train_step, metrics, trains=True)
        logs = self._results(metrics)
        test_logs: Any = {}
        if self.validation is not None:
            metrics = self.empty_metrics
            if self.validation.full:
                full = tf.constant(self.validation.full)
                metrics = _loop(self._test_step, test_order, tf.constant(0), full, metrics)
            metrics = self._take_rest(self.validation, test_rest, self._test_step, metrics, trains=False)
            test_logs = self._results(metrics)
        return logs, metrics, test_logs, self._which_are_finite()

    def _which_are_finite(self) -> tf.Tensor:
        floats = [
            value for value in (*self.weights, *self.state) if keras.backend.is_float_dtype(value.dtype)
        ]
        flat = [tf.reshape(tf.convert_to_tensor(value), (len(self.members), -1)) for value in floats]
        finite = [
            tf.reduce_all(tf.math.is_finite(value), axis=1) | ~kept
            for value, kept in zip(flat, self.kept_finite, strict=True)
        ]
        return tf.reduce_all(finite, axis=0)

    def _train_step(self, indices: tf.Tensor, metrics: Any) -> Any:
        gradients, state, metrics = self._vectorized(self.feeds[0], indices, metrics, trains=True)
        flat = [tf.reshape(gradient, (len(self.members), -1)) for gradient in gradients]
        self.optimizer.apply_gradients(zip(flat, self.weights, strict=True))
        for variable, value in zip(self.state, state, strict=True):
            variable.assign(value)
        return metrics

    def _test_step(self, indices: tf.Tensor, metrics: Any) -> Any:
        return self._vectorized(self.feeds[1], indices, metrics, trains=False)

    def _vectorized(self, feed: Feed, indices: tf.Tensor, metrics: Any, trains: bool) -> Any:
        """Take a step of all models, up to the update of their weights."""
        count = len(self.members)
        leaves = [tf.gather(parts[0], indices) for parts in feed.tensors]
        pairs = zip(self.weights, self.shapes, strict=True)
        weights = [tf.reshape(tf.convert_to_tensor(variable), (count, *shape)) for variable, shape in pairs]
        state = [tf.convert_to_tensor(variable) for variable in self.state]
        size = indices.shape[1]
        return tf.vectorized_map(
            lambda arguments: self._step_of_one(arguments, feed.table.structure, size, trains),
            (weights, state, self.constants, metrics, leaves),
            fallback_to_while_loop=False,
        )

    def _step_of_one(self, arguments: Any, structure: Any, size: int, trains: bool) -> Any:
        """Take one model's step, up to the update of its weights, as `train_step` does."""
        weights, state, constants, metrics, leaves = arguments
        template: Any = self.template
        mapping = zip(self.variables, [*weights, *state, *metrics], strict=True)
        with (
            tf.GradientTape(watch_accessed_variables=False) as tape,
            _with_constants(template, constants),
            keras.StatelessScope(mapping) as scope,
        ):
            tape.watch(weights)
            data = keras.tree.pack_sequence_as(structure, leaves)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            y_pred = template(x, training=trains)
            loss = template.compute_loss(x, y, y_pred, sample_weight, training=trains)
            _keras.loss_tracker(template).update_state(loss, sample_weight=size)
            template.compute_metrics(x, y, y_pred, sample_weight)
            loss = self.optimizer.scale_loss(loss)
            state = [scope.get_current_value(variable) for variable in template.non_trainable_variables]
            metrics = [scope.get_current_value(variable) for variable in template.metrics_variables]
        if not trains:
            return metrics
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)]
        return gradients, state, metrics

    def _take_rest(self, batches: Batches, rest: Any, step: Any, metrics: Any, trains: bool) -> Any:
        """Take the steps in which not all models have the same number of rows, by those that have it."""
        changed = [*self.weights, *self.state, *(slot for slot, _ in self.slots)] if trains else []
        counters = [counter for counter, _ in self.counters] if trains else []
        for i, (indices, (number, size, mask)) in enumerate(zip(rest, batches.rest, strict=True)):
            before = [tf.identity(variable) for variable in changed]
            counted = [tf.identity(counter) for counter in counters]
            after = step(tf.ensure_shape(indices, (len(self.members), size)), metrics)
            if mask.all():
                metrics = after
                continue
            metrics = [_where(mask, new, old) for new, old in zip(after, metrics, strict=True)]
            for variable, old in zip(changed, before, strict=True):
                variable.assign(_where(mask, variable, old))
            same_step_again = i + 1 < len(batches.rest) and batches.rest[i + 1][0] == number
            if same_step_again:
                for counter, old in zip(counters, counted, strict=True):
                    counter.assign(old)
        return metrics

    def _results(self, metrics: Any) -> Any:
        def of_model(values: Any) -> Any:
            with keras.StatelessScope(zip(self.template.metrics_variables, values, strict=True)):
                return list(self.template.get_metrics_result().values())

        values = tf.vectorized_map(of_model, metrics, fallback_to_while_loop=False)
        return dict(zip(self.names[0], values, strict=True))


def _values(variables: Any) -> Iterator[list[npt.NDArray[Any]]]:
    """Return for each variable its value in every model."""
    return map(list, zip(*([each.numpy() for each in of_model] for of_model in variables), strict=True))


def _loop(step: Any, order: tf.Tensor, start: Any, stop: Any, metrics: Any) -> Any:
    return tf.while_loop(
        lambda i, _: i < stop, lambda i, metrics: (i + 1, step(order[i], metrics)), (start, metrics)
    )[1]


def _to_tensors(order: tuple[RowNumbers, list[RowNumbers]]) -> tuple[tf.Tensor, list[tf.Tensor]]:
    return tf.convert_to_tensor(order[0]), [tf.convert_to_tensor(rest) for rest in order[1]]


def _where(mask: npt.NDArray[np.bool_], new: Any, old: Any) -> tf.Tensor:
    new = tf.convert_to_tensor(new)
    return tf.where(mask.reshape(-1, *[1] * (new.shape.rank - 1)), new, old)


def _slots(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    return [variable for variable in optimizer.variables if variable is not optimizer.learning_rate]


def _normalizations(model: keras.Model) -> list[keras.layers.Normalization]:
    return [layer for layer in _keras.all_layers(model) if isinstance(layer, keras.layers.Normalization)]


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
