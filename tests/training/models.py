"""Small data and models that the cases share."""

import keras
import numpy as np
from keras import layers

RNG = np.random.default_rng(0)
N = 40  # rows: two batches of 16 and one of 8
X = RNG.random((N, 6), dtype=np.float32)
Y = (X @ RNG.random((6, 1), dtype=np.float32)).astype(np.float32)
TWO = np.hstack([Y, 1 - Y])
LABELS = (X[:, 0] * 3).astype(np.int64)
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
BINARY = (X[:, :1] > 0.5).astype(np.float32)
TOKENS = RNG.integers(0, 20, (N, 7))
SERIES = RNG.random((N, 5, 3), dtype=np.float32)
IMAGES = RNG.integers(0, 256, (N, 8, 8, 1)).astype(np.uint8)
WEIGHTS = np.linspace(0.1, 2.0, N, dtype=np.float32)
WORDS = np.array(["red", "green", "blue", "red"] * (N // 4))


def sequential(*inner, optimizer="sgd", loss="mse", shape=(6,), metrics=("mae",), dtype=None, **options):
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *inner])
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics), **options)
    return model


def dense(last=1, activation=None, **options):
    """Make a hidden layer and an output."""
    inner = layers.Dense(4, activation="relu"), layers.Dense(last, activation=activation)
    return sequential(*inner, **options)


def classifier(loss="sparse_categorical_crossentropy", metrics=("accuracy",), **options):
    return dense(3, "softmax", loss=loss, metrics=metrics, **options)


def binary(loss="binary_crossentropy", metrics=("accuracy",), **options):
    return dense(1, "sigmoid", loss=loss, metrics=metrics, **options)


def functional(inputs, outputs, optimizer="sgd", loss="mse", **options):
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=optimizer, loss=loss, **options)
    return model


def two_in_two_out(optimizer="adam", **options):
    """Take and give dicts."""
    a, b = keras.Input((6,), name="a"), keras.Input((7,), name="b")
    hidden = layers.Concatenate()([a, b])
    price = layers.Dense(1, name="price")(hidden)
    kind = layers.Dense(3, activation="softmax", name="kind")(hidden)
    losses = {"price": "mse", "kind": "sparse_categorical_crossentropy"}
    options = {"loss": losses, "metrics": {"price": ["mae"], "kind": ["accuracy"]}} | options
    return functional({"a": a, "b": b}, {"price": price, "kind": kind}, optimizer, **options)


def lists_in_out(**options):
    """Take and give lists, of layers without names."""
    a, b = keras.Input((6,)), keras.Input((7,))
    hidden = layers.Concatenate()([a, b])
    options = {"optimizer": "adam", "loss": ["mse", "mae"], "loss_weights": [1.0, 0.5]} | options
    return functional([a, b], [layers.Dense(1)(hidden), layers.Dense(2)(hidden)], **options)


class Inner(keras.Model):
    """A subclass of one hidden layer, for others to change."""

    def __init__(self, units=1):
        super().__init__()
        self.hidden = layers.Dense(4, activation="relu")
        self.outer = layers.Dense(units)

    def call(self, x):
        return self.outer(self.hidden(x))


def compiled(model, optimizer="sgd", loss="mse", **options):
    model.compile(optimizer=optimizer, loss=loss, **options)
    return model


class Meter(keras.callbacks.Callback):
    """Keep what the metrics hold after each epoch."""

    def __init__(self):
        super().__init__()
        self.held = []

    def on_epoch_end(self, epoch, logs=None):
        self.held.append([variable.numpy() for variable in self.model.metrics_variables])


class Seer(keras.callbacks.Callback):
    """Keep what can be seen at each call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def sees(self, hook, epoch, logs):
        model = self.model
        steps = int(model.optimizer.iterations)
        # Before the first step Keras may not have made the weights: nobody needs to wait with them.
        total = sum(float(keras.ops.sum(keras.ops.abs(w))) for w in model.weights) if steps else 0.0
        seen = [hook, epoch, dict(logs or {}), total, steps, model.stop_training]
        self.calls.append(seen)

    def on_train_begin(self, logs=None):
        self.sees("train begin", None, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.sees("epoch begin", epoch, logs)

    def on_test_begin(self, logs=None):
        self.sees("test begin", None, logs)

    def on_test_end(self, logs=None):
        self.sees("test end", None, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.sees("epoch end", epoch, logs)

    def on_train_end(self, logs=None):
        self.sees("train end", None, logs)


class At(keras.callbacks.Callback):
    """Do something in one hook, at one epoch if it has any."""

    def __init__(self, hook, action, epoch=None):
        super().__init__()
        self.hook = hook
        self.epoch = epoch
        self.action = action

    def acts(self, hook, epoch=None):
        if hook == self.hook and epoch in (None, self.epoch):
            self.action(self.model)

    def on_train_begin(self, logs=None):
        self.acts("on_train_begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.acts("on_epoch_begin", epoch)

    def on_test_begin(self, logs=None):
        self.acts("on_test_begin")

    def on_test_end(self, logs=None):
        self.acts("on_test_end")

    def on_epoch_end(self, epoch, logs=None):
        self.acts("on_epoch_end", epoch)

    def on_train_end(self, logs=None):
        self.acts("on_train_end")


def stop(model):
    model.stop_training = True
