"""Each name that `alike` lists as proven is trained in a stack and alone, to the same numbers."""

import keras
import numpy as np
import pytest
from keras import layers

from toolkit import fit, fit_many
from toolkit.training import alike

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
ROWS = 22
SPLITS = [
    (np.arange(14), np.arange(14, 22)),
    (np.arange(8, 22), np.arange(8)),
]  # the last batch of 4 has 2 rows
FLAT, SERIES, IMAGES = (6,), (5, 4), (6, 6, 2)
TOKENS = RNG.integers(0, 9, (ROWS, 5))

LAYERS = {  # name: shape of the input, what stands between it and the last layer
    "InputLayer": (FLAT, lambda: []),
    "Dense": (FLAT, lambda: [layers.Dense(3, "relu", kernel_regularizer="l2")]),
    "EinsumDense": (SERIES, lambda: [layers.EinsumDense("abc,cd->abd", (5, 3), bias_axes="d")]),
    "Activation": (FLAT, lambda: [layers.Activation("tanh")]),
    "ReLU": (FLAT, lambda: [layers.ReLU(max_value=0.5)]),
    "LeakyReLU": (FLAT, lambda: [layers.LeakyReLU()]),
    "PReLU": (FLAT, lambda: [layers.PReLU("ones")]),
    "ELU": (FLAT, lambda: [layers.ELU()]),
    "Softmax": (FLAT, lambda: [layers.Softmax()]),
    "Identity": (FLAT, lambda: [layers.Identity()]),
    "Flatten": (SERIES, lambda: [layers.Flatten()]),
    "Reshape": (FLAT, lambda: [layers.Reshape((3, 2))]),
    "Permute": (SERIES, lambda: [layers.Permute((2, 1))]),
    "RepeatVector": (FLAT, lambda: [layers.RepeatVector(2)]),
    "Dropout": (FLAT, lambda: [layers.Dropout(0.4)]),
    "SpatialDropout1D": (SERIES, lambda: [layers.SpatialDropout1D(0.4)]),
    "SpatialDropout2D": (IMAGES, lambda: [layers.SpatialDropout2D(0.4)]),
    "GaussianNoise": (FLAT, lambda: [layers.GaussianNoise(0.1)]),
    "GaussianDropout": (FLAT, lambda: [layers.GaussianDropout(0.3)]),
    "BatchNormalization": (FLAT, lambda: [layers.BatchNormalization()]),
    "LayerNormalization": (FLAT, lambda: [layers.LayerNormalization()]),
    "UnitNormalization": (FLAT, lambda: [layers.UnitNormalization()]),
    "Normalization": (FLAT, lambda: [layers.Normalization(mean=np.arange(6.0), variance=np.arange(6.0) + 1)]),
    "Rescaling": (FLAT, lambda: [layers.Rescaling(0.5)]),
    "MaxPooling1D": (SERIES, lambda: [layers.MaxPooling1D()]),
    "MaxPooling2D": (IMAGES, lambda: [layers.MaxPooling2D()]),
    "GlobalMaxPooling1D": (SERIES, lambda: [layers.GlobalMaxPooling1D()]),
    "GlobalMaxPooling2D": (IMAGES, lambda: [layers.GlobalMaxPooling2D()]),
    "GlobalAveragePooling1D": (SERIES, lambda: [layers.GlobalAveragePooling1D()]),
    "GlobalAveragePooling2D": (IMAGES, lambda: [layers.GlobalAveragePooling2D()]),
    "ZeroPadding1D": (SERIES, lambda: [layers.ZeroPadding1D()]),
    "ZeroPadding2D": (IMAGES, lambda: [layers.ZeroPadding2D()]),
    "Cropping1D": (SERIES, lambda: [layers.Cropping1D()]),
    "Sequential": (FLAT, lambda: [keras.Sequential([layers.Dense(3)])]),
}
MERGING = ["Concatenate", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]
LABELS = {"BinaryCrossentropy", "Hinge", "SquaredHinge", "BinaryAccuracy", "AUC", "Precision", "Recall"}
CLASSES = ["CategoricalCrossentropy", "CategoricalHinge", "CategoricalAccuracy"]
NUMBERS = ["SparseCategoricalCrossentropy", "SparseCategoricalAccuracy"]


def hold(caplog, build, x, y, **options):
    """Train two models in a stack, and each alone, and compare all that comes out."""
    caplog.set_level("INFO", "toolkit.training")
    options = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": 0} | options
    results = []
    for together in (True, False):
        keras.utils.clear_session(free_memory=False)
        models = [build(i) for i in range(2)]
        keras.utils.set_random_seed(9)
        if together:
            histories = fit_many(models, x, y, SPLITS, **options)
        else:
            histories = [
                fit(model, x[rows], y[rows], validation_data=(x[tests], y[tests]), **options)
                for model, (rows, tests) in zip(models, SPLITS, strict=True)
            ]
        results.append((models, histories))
    assert caplog.records[0].getMessage() == "2 models as one stack"
    (stacked, their_histories), (alone, histories) = results
    for theirs, history in zip(their_histories, histories, strict=True):
        assert list(theirs.history) == list(history.history)
        for name, values in history.history.items():
            np.testing.assert_allclose(theirs.history[name], values, rtol=2e-5, atol=1e-6, err_msg=name)
    for model, other in zip(stacked, alone, strict=True):
        for a, b in zip(
            [*model.variables, *model.optimizer.variables],
            [*other.variables, *other.optimizer.variables],
            strict=True,
        ):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-4, atol=2e-6, err_msg=a.path)


def of(shape, inner, i, last=1, activation=None, optimizer=None, loss="mse", metrics=("mae",)):
    keras.utils.set_random_seed(i)
    optimizer = optimizer or keras.optimizers.SGD(1e-4 if len(shape) > 1 else 0.01)
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Dense(shape[-1]),
            *inner(),
            layers.Flatten(),
            layers.Dense(last, activation),
        ]
    )
    model.compile(optimizer, loss=loss, metrics=list(metrics))
    return model


def data(shape):
    x = RNG.random((ROWS, *shape), dtype=np.float32)
    return x, x.reshape(ROWS, -1).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, caplog):
    shape, inner = LAYERS[name]
    hold(caplog, lambda i: of(shape, inner, i), *data(shape))


@pytest.mark.parametrize("name", MERGING)
def test_layers_that_merge(name, caplog):
    def build(i):
        keras.utils.set_random_seed(i)
        x = keras.Input(FLAT)
        y = layers.Dense(1)(getattr(layers, name)()([layers.Dense(3)(x), layers.Dense(3, "relu")(x)]))
        model = keras.Model(x, y)
        model.compile("sgd", loss="mse")
        return model

    hold(caplog, build, *data(FLAT))


@pytest.mark.parametrize("optimizer", alike.SPARSE_OPTIMIZERS)
def test_embedding(optimizer, caplog):
    def build(i):
        keras.utils.set_random_seed(i)
        model = keras.Sequential(
            [keras.Input((5,)), layers.Embedding(9, 3), layers.GlobalAveragePooling1D(), layers.Dense(1)]
        )
        model.compile(optimizer, loss="mse")
        return model

    hold(caplog, build, TOKENS, TOKENS.mean(axis=1, keepdims=True))


@pytest.mark.parametrize("name", alike.OPTIMIZERS)
def test_optimizers(name, caplog):
    def build(i):
        optimizer = getattr(keras.optimizers, name)(0.01 * (i + 1))
        return of(FLAT, lambda: [layers.Dense(3, "tanh")], i, optimizer=optimizer)

    hold(caplog, build, *data(FLAT))


def fitting(name):
    """Return labels that go with a loss or metric, and the last layer's size and activation."""
    if name in LABELS:
        return RNG.integers(0, 2, (ROWS, 1)).astype(np.float32), 1, "sigmoid"
    classes = RNG.integers(0, 3, ROWS)
    if name in NUMBERS:
        return classes, 3, "softmax"
    if name in CLASSES:
        return np.eye(3, dtype=np.float32)[classes], 3, "softmax"
    return RNG.random((ROWS, 1), dtype=np.float32) + 1, 1, "softplus"


@pytest.mark.parametrize("name", alike.LOSSES)
def test_losses(name, caplog):
    y, last, activation = fitting(name)

    def build(i):
        loss = getattr(keras.losses, name)()
        return of(FLAT, list, i, last, activation, loss=loss, metrics=[])

    hold(caplog, build, data(FLAT)[0], y)


@pytest.mark.parametrize("name", alike.METRICS + alike.COUNTS)
def test_metrics(name, caplog):
    y, last, activation = fitting(name)

    def build(i):
        metric = getattr(keras.metrics, name)(name="metric")
        loss = "sparse_categorical_crossentropy" if name in NUMBERS else "mse"
        return of(FLAT, list, i, last, activation, loss=loss, metrics=[metric])

    hold(caplog, build, data(FLAT)[0], y)


def test_every_listed_layer_is_held():
    assert {*LAYERS, *MERGING, "Embedding", "Functional"} == set(alike.LAYERS)
