import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers

from toolkit import training
from toolkit.training import fit

RNG = np.random.default_rng(0)
X = RNG.random((75, 6), dtype=np.float32)
Y = (X @ RNG.random((6, 1), dtype=np.float32)).astype(np.float32)
LABELS = (X[:, 0] * 3).astype(np.int64)
TOKENS = RNG.integers(0, 20, (75, 7))
IMAGES = RNG.integers(0, 256, (75, 8, 8, 1)).astype(np.uint8)


def sequential(*inner, optimizer="sgd", loss="mse", shape=(6,), metrics=("mae",), **options):
    model = keras.Sequential([keras.Input(shape), *inner])
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics), **options)
    return model


def dense(**options):
    return sequential(layers.Dense(8, activation="relu"), layers.Dense(1), **options)


def classifier(loss="sparse_categorical_crossentropy", **options):
    return sequential(layers.Dense(3, activation="softmax"), loss=loss, metrics=["accuracy"], **options)


class Doubling(keras.Model):
    """A train_step of its own, whose logs have names of their own."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(1)

    def call(self, x):
        return self.inner(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = 2 * tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"doubled": loss}


def custom_step():
    model = Doubling()
    model.compile("sgd", loss="mse")
    return model


def two_in_two_out():
    a, b = keras.Input((6,), name="a"), keras.Input((7,), name="b")
    hidden = layers.Concatenate()([a, b])
    price, kind = layers.Dense(1, name="price")(hidden), layers.Dense(3, activation="softmax", name="kind")(hidden)
    model = keras.Model({"a": a, "b": b}, {"price": price, "kind": kind})
    losses = {"price": "mse", "kind": "sparse_categorical_crossentropy"}
    model.compile("adam", loss=losses, metrics={"price": ["mae"], "kind": ["accuracy"]})
    return model


def lists_in_out():
    a, b = keras.Input((6,)), keras.Input((7,))
    hidden = layers.Concatenate()([a, b])
    model = keras.Model([a, b], [layers.Dense(1)(hidden), layers.Dense(2)(hidden)])
    model.compile("sgd", loss=["mse", "mae"], loss_weights=[1.0, 0.5])
    return model


def masked(cell):
    embedding = layers.Embedding(20, 4, mask_zero=True)
    return sequential(embedding, cell, layers.Dense(1), shape=(7,), optimizer="adam")


schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.8)
optimizers = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "clipnorm": lambda: keras.optimizers.Adam(0.01, clipnorm=0.1),
    "schedule": lambda: keras.optimizers.SGD(schedule),
    "ema": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3),
}
weights = np.linspace(0.1, 2.0, 75).astype(np.float32)
norm = layers.BatchNormalization
TABLE = {  # name: (model, x, y, arguments)
    **{name: (lambda make=make: dense(optimizer=make()), X, Y, {}) for name, make in optimizers.items()},
    "embedding": (lambda: masked(layers.GlobalAveragePooling1D()), TOKENS, Y, {}),
    "lstm": (lambda: masked(layers.LSTM(4)), TOKENS, Y, {}),
    "gru": (lambda: masked(layers.GRU(4)), TOKENS.astype(np.uint8), Y, {}),
    "conv": (
        lambda: sequential(layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1), shape=(8, 8, 1)),
        IMAGES, Y, {},
    ),
    "batch normalization": (lambda: sequential(norm(), layers.Dense(1)), X, Y, {}),
    "regularizer": (lambda: sequential(layers.Dense(1, kernel_regularizer="l2", activity_regularizer="l1")), X, Y, {}),
    "dicts": (two_in_two_out, {"a": X, "b": TOKENS}, {"price": Y, "kind": LABELS}, {}),
    "lists": (lists_in_out, [X, TOKENS], [Y, np.hstack([Y, Y])], {}),
    "sample weights": (lambda: dense(weighted_metrics=["mse"]), X, Y, {"sample_weight": weights}),
    "class weights": (classifier, X, LABELS, {"class_weight": {0: 0.5, 2: 3.0}}),
    "validation data": (dense, X, Y, {"validation_data": (X[:20], Y[:20], weights[:20])}),
    "fewer rows than a batch": (dense, X, Y, {"batch_size": 200}),
    "no uneven batch": (dense, X[:64], Y[:64], {"validation_split": 0.5}),
    "initial epoch": (dense, X, Y, {"initial_epoch": 3}),
    "custom train_step": (custom_step, X, Y, {}),
    "csr": (lambda: dense(), scipy.sparse.csr_matrix(X * (X > 0.6)), Y, {}),
    "lists of numbers": (dense, X.astype(np.float64), Y, {}),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE)
def test_numbers_of_model_fit(row):
    build, x, y, arguments = TABLE[row]
    arguments = {"validation_split": 0.2, "epochs": 5, "verbose": 0, "shuffle": False, "batch_size": 16} | arguments
    models = []
    histories = []
    for ours in (False, True):
        keras.utils.set_random_seed(1)
        models.append(build())
        train = (lambda *a, model=models[-1], **k: fit(model, *a, **k)) if ours else models[-1].fit
        histories.append(train(x, y, **arguments))
    theirs, ours = (history.history for history in histories)
    assert list(theirs) == list(ours)
    assert all(type(value) is float for values in ours.values() for value in values)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)
    for expected, weight in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-7)
    assert histories[0].epoch == histories[1].epoch
    assert int(models[0].optimizer.iterations) == int(models[1].optimizer.iterations) > 0


def test_mixed_precision():
    losses = []
    for ours in (False, True):
        keras.utils.set_random_seed(1)
        model = sequential(layers.Dense(8, dtype="mixed_float16"), layers.Dense(1), optimizer="adam")
        assert isinstance(model.optimizer, keras.optimizers.Optimizer)
        train = (lambda *a, model=model, **k: fit(model, *a, **k)) if ours else model.fit
        losses.append(train(X, Y, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_xla_gives_the_same_numbers():
    histories = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        histories.append(fit(dense(), X, Y, epochs=3, verbose=0, jit=jit).history["loss"])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-5)


def test_xla_that_cannot_compile_falls_back(monkeypatch):
    model = sequential(layers.Lambda(lambda x: tf.numpy_function(lambda v: v, [x], tf.float32).__getitem__(...)), layers.Dense(1))
    del model
    class Host(layers.Layer):
        def call(self, x):
            values = tf.numpy_function(lambda v: v + 1, [x], tf.float32)
            return tf.ensure_shape(values, x.shape)

    keras.utils.set_random_seed(1)
    expected = sequential(layers.Dense(1), Host())
    keras.utils.set_random_seed(1)
    model = sequential(layers.Dense(1), Host())
    del expected
    with pytest.warns(UserWarning, match="XLA cannot compile this model, so the plain graph runs"):
        history = fit(model, X, Y, epochs=2, verbose=0, jit=True)
    assert len(history.history["loss"]) == 2
    assert int(model.optimizer.iterations) == 2 * 3
