"""What can be held about GPUs where there is none: each operation of our graphs has a kernel for one.

TensorFlow's wheel registers the kernels of GPUs whether it finds one or not. Where there is one, it agrees
with the CPU.
"""

import concurrent.futures
import multiprocessing
import os
from typing import NamedTuple

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers
from tensorflow.python.eager import context
from tensorflow.python.framework import kernels
from training.models import LABELS, SERIES, TOKENS, X, Y

import toolkit

# Operations, and one of their types, that have no kernel for a GPU, on purpose, and why.
ON_THE_CPU = {
    ("Const", "string"): "messages of errors",
    ("Unpack", "uint64"): "the seeds of dropout in a stack, a few numbers",
    ("ScatterNd", "bool"): "RMSprop's own, for the rows of an Embedding that have a gradient",
}


class Operation(NamedTuple):
    """An operation with the types that choose its kernel."""

    name: str
    types: frozenset[tuple[str, int]]


def classifier(*hidden, shape, sparse=False, optimizer="rmsprop"):
    output = layers.Dense(3, activation="softmax")
    model = keras.Sequential([keras.Input(shape, sparse=sparse), *hidden, output])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def perceptron(optimizer="rmsprop", **options):
    hidden = [layers.Dense(4, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.5)]
    return classifier(*hidden, shape=X.shape[1:], optimizer=optimizer, **options)


def fit(model, x, y=LABELS, **options):
    toolkit.fit(model, x, y, epochs=2, batch_size=7, validation_split=0.25, verbose=0, **options)
    return [model]


def images():
    convolutions = [layers.Rescaling(1 / 255), layers.Conv2D(3, 3, activation="relu"), layers.MaxPooling2D()]
    pixels = np.random.default_rng(0).integers(0, 256, (len(X), 8, 8, 1)).astype("uint8")
    return fit(classifier(*convolutions, layers.Flatten(), shape=(8, 8, 1), optimizer="adam"), pixels)


def words():
    recurrent = [layers.Embedding(20, 3), layers.LSTM(3)]
    return fit(classifier(*recurrent, shape=TOKENS.shape[1:]), TOKENS)


def sparse():
    return fit(
        classifier(layers.Dense(4), shape=X.shape[1:], sparse=True),
        scipy.sparse.csr_matrix(X > 0.5, dtype=np.uint8),
    )


def many():
    splits = toolkit.kfold(len(X), 3, seed=0)
    models = [perceptron() for _ in splits]
    toolkit.fit_many(models, X, LABELS, splits, epochs=2, batch_size=7, verbose=0)
    return models


def hot():
    tf.function(lambda rows: toolkit.multi_hot(rows, 9))(tf.ragged.constant([[1, 2], [3]]))


def scaled(scaler):
    tf.function(scaler.fit(Y[:, None]))(tf.ones((2, 1)))


WORK = {
    "fit": lambda: fit(perceptron(), X),
    "fit with weights": lambda: fit(perceptron("adam"), X, sample_weight=np.ones(len(X))),
    "fit by momentum": lambda: fit(perceptron(keras.optimizers.SGD(0.1, momentum=0.9)), X),
    "fit of images": images,
    "fit of words": words,
    "fit of series": lambda: fit(classifier(layers.GRU(3), shape=SERIES.shape[1:]), SERIES),
    "fit of CSR rows": sparse,
    "fit_many": many,
    "multi_hot": hot,
    "Standardizer": lambda: scaled(toolkit.Standardizer),
    "MinMaxNormalizer": lambda: scaled(toolkit.MinMaxNormalizer),
}


def operations(work):
    """Return the operations of all graphs that run in the meantime."""
    with context.collect_graphs(optimized=True) as graphs:
        work()
    assert graphs
    found = set()
    for graph in graphs:
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        for node in nodes:
            types = {(name, value.type) for name, value in node.attr.items() if value.type}
            found.add(Operation(node.op, frozenset(types)))
    return found


def runs_on_a_gpu(operation):
    types = dict(operation.types)
    for kernel in kernels.get_registered_kernels_for_op(operation.name).kernel:
        fits = all(
            constraint.name not in types or types[constraint.name] in constraint.allowed_values.list.type
            for constraint in kernel.constraint
        )
        if fits and kernel.device_type in ("GPU", "DEFAULT"):
            return True
    return False


def on_purpose(operation):
    return any((operation.name, tf.as_dtype(dtype).name) in ON_THE_CPU for _, dtype in operation.types)


@pytest.mark.parametrize("name", WORK)
def test_each_operation_has_a_kernel_for_a_gpu(name):
    without = {each for each in operations(WORK[name]) if not runs_on_a_gpu(each)}
    assert not {each for each in without if not on_purpose(each)}


def test_an_operation_without_one_would_be_found():
    strings = operations(lambda: tf.function(tf.strings.lower)(tf.constant(["A"])))
    assert not all(runs_on_a_gpu(each) for each in strings)
    pixels = Operation("GatherV2", frozenset({("Tparams", tf.uint8.as_datatype_enum)}))
    assert not runs_on_a_gpu(pixels)


def stopped(epoch, logs):
    if epoch == 1:
        raise KeyboardInterrupt


def trained(name, folder):
    """Train, be interrupted and go on, save and load, and return the numbers of all models."""
    keras.utils.set_random_seed(0)
    if name == "resume":
        model = perceptron("adam")
        initial = model.get_weights()
        options = {"epochs": 4, "batch_size": 7, "verbose": 0, "checkpoint": folder / "checkpoint"}
        stop = keras.callbacks.LambdaCallback(on_epoch_end=stopped)
        with pytest.raises(KeyboardInterrupt):
            toolkit.fit(model, X, LABELS, callbacks=[stop], **options)
        model.set_weights(initial)
        toolkit.fit(model, X, LABELS, callbacks=[keras.callbacks.LambdaCallback()], **options)
        models = [model]
    else:
        models = WORK[name]()
    models = [toolkit.load(toolkit.save(each, folder / "model.keras")) for each in models]
    return [each.get_weights() for each in models]


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*(name for name in WORK if "fit" in name), "resume"])
def test_a_gpu_gives_the_numbers_of_the_cpu(name, tmp_path, monkeypatch):
    ours = trained(name, tmp_path)
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "-1")
    spawn = multiprocessing.get_context("spawn")
    (tmp_path / "cpu").mkdir()
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        wanted = pool.submit(trained, name, tmp_path / "cpu").result()
    for model, expected in zip(ours, wanted, strict=True):
        for number, array in zip(model, expected, strict=True):
            np.testing.assert_allclose(number, array, rtol=1e-2, atol=1e-3)
