"""Cases of `fit`: its arguments, its kinds of data, its callbacks and Keras's settings."""

import collections
import functools

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf
from keras import callbacks, layers, losses
from training.cases_plain import VALIDATION, case
from training.models import (
    BINARY,
    LABELS,
    TOKENS,
    TWO,
    WEIGHTS,
    At,
    Inner,
    Seer,
    X,
    Y,
    binary,
    classifier,
    compiled,
    dense,
    lists_in_out,
    sequential,
    stop,
    two_in_two_out,
)

SPARSE = scipy.sparse.csr_matrix(X * (X > 0.6))
Pair = collections.namedtuple("Pair", "left right")
HELD_OUT = (X[:10], Y[:10])


def fresh(*made):
    """Make callbacks anew for each run."""
    return lambda folder: [make(folder) if takes_a_folder(make) else make() for make in made]


def takes_a_folder(make):
    return getattr(make, "__code__", None) is not None and make.__code__.co_argcount == 1


ARGUMENTS = {
    "batch_size above the rows": case(dense, batch_size=100, **VALIDATION),
    "batch_size 1": case(dense, batch_size=1, epochs=1),
    "batch_size None": case(dense, batch_size=None),
    "batches without a rest": case(dense, X[:32], Y[:32]),
    "validation_data with weights": case(dense, validation_data=(*HELD_OUT, WEIGHTS[:10])),
    "validation_data in a list": case(dense, validation_data=list(HELD_OUT)),
    "validation_data of another length": case(dense, validation_data=(X[:3], Y[:3])),
    "validation_split beside validation_data": case(dense, validation_data=HELD_OUT, validation_split=0.5),
    "validation_split of weighted rows": case(
        lambda: dense(weighted_metrics=["mae"]), sample_weight=WEIGHTS, **VALIDATION
    ),
    "validation_freq 2": case(dense, epochs=5, validation_freq=2, callbacks=fresh(Seer), **VALIDATION),
    "validation_freq a list": case(dense, epochs=5, validation_freq=[1, 4], **VALIDATION),
    "validation_batch_size": case(lambda: binary("dice"), X, BINARY, validation_batch_size=3, **VALIDATION),
    "validation_steps": case(dense, validation_steps=2, validation_batch_size=3, validation_data=HELD_OUT),
    "steps_per_epoch": case(dense, steps_per_epoch=2, epochs=2, refused="steps_per_epoch"),
    "initial_epoch": case(dense, initial_epoch=1, **VALIDATION),
    "initial_epoch at the end": case(dense, initial_epoch=3, callbacks=fresh(Seer), **VALIDATION),
    "initial_epoch behind the end": case(dense, initial_epoch=7),
    "epochs 0": case(dense, epochs=0, callbacks=fresh(Seer), **VALIDATION),
    "epochs 0, an unbuilt model": case(lambda: compiled(Inner()), epochs=0),
    "epochs 0 with a moving average": case(
        lambda: dense(optimizer=keras.optimizers.SGD(0.1, use_ema=True)), epochs=0
    ),
    "initial_epoch at the end with a moving average": case(
        lambda: trained(dense(optimizer=keras.optimizers.SGD(0.1, use_ema=True))), initial_epoch=3
    ),
    "a second call": case(lambda: trained(dense(optimizer="adam")), **VALIDATION),
    "no Keras seed": case(
        lambda: sequential(layers.Dense(4), layers.Dropout(0.5), layers.Dense(1)), seed=None
    ),
    "jit=True of ours": case(lambda: dense(optimizer="adam"), ours={"jit": True}, **VALIDATION),
    "jit=True of ours, of two outputs": case(
        two_in_two_out,
        {"a": X, "b": TOKENS},
        {"price": Y, "kind": LABELS},
        ours={"jit": True},
        rtol=1e-4,
        **VALIDATION,
    ),
    "class_weight beside sample_weight": case(
        classifier, X, LABELS, class_weight={0: 2.0}, sample_weight=WEIGHTS, raises=ValueError
    ),
    "class_weight of a class that is not there": case(classifier, X, LABELS, class_weight={1: 2.0, 7: 3.0}),
    "uncompiled": case(lambda: keras.Sequential([keras.Input((6,)), layers.Dense(1)]), raises=ValueError),
    "rows that do not match": case(dense, X, Y[:-1], raises=ValueError),
}


def trained(model, x=X, y=Y):
    """Return a model that has been trained by `model.fit` before."""
    model.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    return model


DATA = {
    "data in float64": case(dense, X.astype(np.float64), Y.astype(np.float64), **VALIDATION),
    "data in float16": case(dense, X.astype(np.float16), Y),
    "data in int32": case(dense, (X * 10).astype(np.int32), Y, **VALIDATION),
    "data in uint8": case(dense, (X * 10).astype(np.uint8), (Y * 10).astype(np.uint8)),
    "data in bool": case(binary, X > 0.5, BINARY.astype(bool), **VALIDATION),
    "data in int64 labels of one column": case(classifier, X, LABELS[:, None]),
    "data of flat targets": case(dense, X, Y[:, 0], **VALIDATION),
    "data out of order in memory": case(dense, np.asfortranarray(X), Y[::-1]),
    "data in CSR": case(dense, SPARSE, Y, **VALIDATION),
    "data in a tf.Tensor": case(dense, tf.constant(X), tf.constant(Y), **VALIDATION),
    "data in a tf.Tensor of bfloat16": case(dense, tf.cast(X, tf.bfloat16), Y),
    "data in a tf.SparseTensor": case(dense, lambda: tf.sparse.from_dense(X * (X > 0.6)), Y),
    "data in a ragged tensor": case(
        lambda: ragged(),
        lambda: tf.RaggedTensor.from_row_lengths(TOKENS.ravel()[:80], [1, 3] * 20),
        Y,
        refused="[Rr]agged",
    ),
    "data in a tf.data.Dataset": case(
        dense,
        lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(16),
        None,
        batch_size=None,
        refused="dataset",
    ),
    "data with NaN in y, masked by the loss": case(
        lambda: dense(loss=masking, metrics=()), X, lambda: with_nan(Y)
    ),
    "data with infinity in y, of a user's loss": case(
        lambda: dense(loss=lambda y, p: keras.ops.mean(keras.ops.exp(-y) * p, -1), metrics=()),
        X,
        lambda: np.where(Y > 1.5, np.inf, Y).astype("float32"),
    ),
    "data with NaN in x": case(dense, lambda: with_nan(X), Y, refused=r"x.*finite.*nan"),
    "data with an optional input": case(lambda: optional(), {"a": X, "b": None}, Y),
    "data in a namedtuple": case(lambda: lists_in_out(), Pair(X, TOKENS), [Y, TWO]),
    "data for an output without a loss": case(
        lambda: lists_in_out(loss=["mse", None], loss_weights=None), [X, TOKENS], [Y, None]
    ),
    "data without a loss for an output in a dict": case(
        lambda: two_in_two_out(loss={"price": "mse"}, metrics=None), {"a": X, "b": TOKENS}, {"price": Y}
    ),
    "data in a dict with a key too many": case(
        two_in_two_out, {"a": X, "b": TOKENS, "c": X}, {"price": Y, "kind": LABELS}
    ),
    "data in a dict, in another order": case(
        two_in_two_out, {"b": TOKENS, "a": X}, {"kind": LABELS, "price": Y}, **VALIDATION
    ),
    "data for two outputs by name of auto-named layers": case(
        lambda: lists_in_out(), [X, TOKENS], {"dense": Y, "dense_1": TWO}
    ),
}


def masking(y, y_pred):
    present = keras.ops.logical_not(keras.ops.isnan(y))
    squares = keras.ops.square(keras.ops.where(present, y, y_pred) - y_pred)
    return keras.ops.sum(squares, -1)


def with_nan(array):
    array = array.copy()
    array[3, 0] = np.nan
    return array


def ragged():
    inner = layers.Embedding(20, 4), layers.GlobalAveragePooling1D(), layers.Dense(1)
    return sequential(*inner, shape=(None,), dtype="int64")


class Optional(keras.Model):
    def __init__(self):
        super().__init__()
        self.one = layers.Dense(1)

    def call(self, inputs):
        b = inputs.get("b")
        return self.one(inputs["a"]) if b is None else self.one(inputs["a"]) + b


def optional():
    return compiled(Optional())


def wide():
    """Make data of more than a megabyte, aligned so that TensorFlow could compute on their own memory."""
    memory = np.empty(N_WIDE * 6 * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    rows = memory[start : start + N_WIDE * 6 * 4].view(np.float32).reshape(N_WIDE, 6)
    rows[:] = np.resize(X, rows.shape)
    return rows


N_WIDE = 50_000


class Doubles(keras.callbacks.Callback):
    """Change the user's array while it is trained on."""

    array = None

    def on_epoch_end(self, epoch, logs=None):
        Doubles.array *= 0.5


def remembered(make):
    """Let a callback know the array that is trained on."""

    def x():
        Doubles.array = make()
        return Doubles.array

    return x


CALLBACKS = {
    "callback that sees everything": case(dense, callbacks=fresh(Seer), **VALIDATION),
    "callback early stopping": case(
        dense,
        epochs=8,
        callbacks=fresh(lambda: callbacks.EarlyStopping("loss", patience=1, min_delta=0.2)),
        **VALIDATION,
    ),
    "callback early stopping, the best weights": case(
        lambda: dense(optimizer=keras.optimizers.SGD(0.8)),
        epochs=8,
        callbacks=fresh(lambda: callbacks.EarlyStopping(patience=2, restore_best_weights=True)),
        **VALIDATION,
    ),
    "callback reduce on plateau": case(
        dense,
        epochs=6,
        callbacks=fresh(lambda: callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.3)),
        **VALIDATION,
    ),
    "callback learning rate scheduler": case(
        dense, callbacks=fresh(lambda: callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5))
    ),
    "callback model checkpoint": case(
        dense,
        callbacks=fresh(
            lambda folder: callbacks.ModelCheckpoint(
                folder / "{epoch}-{val_loss:.2f}.keras", save_best_only=True
            )
        ),
        **VALIDATION,
    ),
    "callback checkpoint of weights": case(
        dense,
        callbacks=fresh(
            lambda folder: callbacks.ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True)
        ),
    ),
    "callback csv logger": case(
        lambda: dense(metrics=["mae", "mse"]),
        callbacks=fresh(lambda folder: callbacks.CSVLogger(folder / "log.csv")),
        **VALIDATION,
    ),
    "callback lambda": case(
        dense,
        callbacks=fresh(
            lambda: callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(more=epoch + 0.5))
        ),
        **VALIDATION,
    ),
    "callback changes the logs": case(
        dense,
        callbacks=fresh(
            lambda: callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.pop("mae")), Seer
        ),
    ),
    "callback terminate on NaN": case(dense, callbacks=fresh(callbacks.TerminateOnNaN, Seer)),
    "callback terminate on NaN in mid-epoch": case(
        lambda: dense(optimizer=keras.optimizers.SGD(1e18)),
        epochs=4,
        batch_size=4,
        callbacks=fresh(callbacks.TerminateOnNaN),
        ours={"check_finite": False},
    ),
    "callback tensorboard": case(
        dense, callbacks=fresh(lambda folder: callbacks.TensorBoard(folder / "logs")), **VALIDATION
    ),
    "callback swaps the moving average": case(
        lambda: dense(optimizer=keras.optimizers.SGD(0.1, use_ema=True)),
        callbacks=fresh(lambda: callbacks.SwapEMAWeights(swap_on_epoch=True), Seer),
        **VALIDATION,
    ),
    "callback backup": case(
        dense, callbacks=fresh(lambda folder: callbacks.BackupAndRestore(folder / "backup"))
    ),
    "callback history of one's own": case(dense, callbacks=fresh(callbacks.History, Seer), **VALIDATION),
    "callbacks in a tuple": case(dense, callbacks=lambda folder: (Seer(),), **VALIDATION),
    **{
        f"callback stops in {hook}": case(
            dense, epochs=4, callbacks=fresh(functools.partial(At, hook, stop, 1), Seer), **VALIDATION
        )
        for hook in ("on_train_begin", "on_epoch_begin", "on_test_begin", "on_test_end", "on_epoch_end")
    },
    "callback stops before the first epoch": case(
        dense, epochs=4, callbacks=fresh(lambda: At("on_epoch_begin", stop, 0))
    ),
    "callback changes the learning rate": case(
        lambda: dense(optimizer="adam"),
        callbacks=fresh(
            lambda: At("on_epoch_begin", lambda model: setattr(model.optimizer, "learning_rate", 0.1), 1),
            Seer,
        ),
    ),
    "callback changes the weights": case(
        dense,
        callbacks=fresh(
            lambda: At(
                "on_epoch_end", lambda model: model.layers[0].kernel.assign(model.layers[0].kernel * 2), 1
            )
        ),
        **VALIDATION,
    ),
    "callback changes x in place": case(dense, remembered(lambda: X.copy()), Y, callbacks=fresh(Doubles)),
    "callback changes a large x in place": case(
        dense, remembered(wide), lambda: np.resize(Y, (N_WIDE, 1)), batch_size=5000, callbacks=fresh(Doubles)
    ),
    "callback evaluates the model": case(
        dense,
        callbacks=fresh(
            lambda: At("on_epoch_end", lambda model: model.evaluate(X, Y, 16, verbose=0), 1), Seer
        ),
        **VALIDATION,
    ),
    "callback freezes a layer for a while": case(
        dense,
        callbacks=fresh(
            lambda: At("on_epoch_begin", freeze, 1),
            lambda: At("on_train_end", lambda model: freeze(model, False)),
        ),
    ),
    "callback of every batch": case(
        dense,
        callbacks=fresh(lambda: callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)),
        refused="every batch.*LambdaCallback",
    ),
    "callback saves every fourth batch": case(
        dense,
        callbacks=fresh(lambda folder: callbacks.ModelCheckpoint(folder / "m.keras", save_freq=4)),
        refused="ModelCheckpoint",
    ),
}


def freeze(model, frozen=True):
    model.layers[0].trainable = not frozen


half = {"rtol": 2e-2, "atol": 2e-2}
SETTINGS = {
    "policy mixed_float16": case(
        lambda: dense(optimizer="adam"), policy="mixed_float16", **half, **VALIDATION
    ),
    "policy mixed_bfloat16": case(
        lambda: dense(optimizer="adam"), policy="mixed_bfloat16", **half, **VALIDATION
    ),
    "policy bfloat16": case(dense, policy="bfloat16", **half),
    "policy float16": case(dense, policy="float16", **half),
    "policy float64": case(lambda: dense(optimizer="adam"), policy="float64", **VALIDATION),
    "policy of one layer": case(
        lambda: sequential(layers.Dense(4, dtype="mixed_float16"), layers.Dense(1)), **half
    ),
    "floatx bfloat16": case(dense, floatx="bfloat16", **half),
    "floatx float16": case(dense, floatx="float16", **half),
    "floatx float64": case(dense, floatx="float64", **VALIDATION),
    "compiled run_eagerly": case(lambda: dense(run_eagerly=True), refused="run_eagerly"),
    "compiled jit_compile": case(lambda: dense(jit_compile=True), **VALIDATION),
    "compiled steps_per_execution": case(
        lambda: dense(steps_per_execution=4), callbacks=fresh(Seer), **VALIDATION
    ),
    "compiled without auto_scale_loss": case(
        lambda: dense(auto_scale_loss=False), policy="mixed_float16", **half
    ),
    "compiled loss by a user's own function called binary_crossentropy": case(
        lambda: dense(loss=binary_crossentropy), X, 3 * Y
    ),
    "compiled loss by a user's own class called BinaryCrossentropy": case(
        lambda: dense(loss=BinaryCrossentropy()), X, 3 * Y
    ),
    "compiled again": case(lambda: again(), **VALIDATION),
    "a layer made untrainable, not compiled again": case(lambda: untrainable()),
    "a layer made untrainable after a training": case(
        lambda: untrainable(trained(dense())), refused="compiled again after layers were added, frozen"
    ),
    "a layer added, not compiled again": case(lambda: longer()),
    "infinity among the weights": case(lambda: bounded()),
    "no trainable weights": case(
        lambda: sequential(layers.Rescaling(2.0), layers.GlobalAveragePooling1D(), shape=(6, 1)),
        X[..., None],
        Y,
    ),
}


def binary_crossentropy(y, y_pred):
    return keras.ops.mean(keras.ops.abs(y - y_pred), -1)


class BinaryCrossentropy(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), -1)


def again():
    model = trained(dense())
    model.compile("adam", loss="mae", metrics=["mse"])
    return model


def untrainable(model=None):
    model = dense() if model is None else model
    model.layers[0].trainable = False
    return model


def longer():
    model = sequential(layers.Dense(4), optimizer="adam", metrics=())
    model.add(layers.Dense(1))
    return model


class Bounded(layers.Layer):
    def build(self, shape):
        self.lowest = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(-np.inf), trainable=False
        )

    def call(self, x):
        return keras.ops.maximum(x, self.lowest)


def bounded():
    return sequential(Bounded(), layers.Dense(1))


CASES = ARGUMENTS | DATA | CALLBACKS | SETTINGS
