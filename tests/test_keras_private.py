"""What the private names of Keras must mean that the toolkit relies on, one test a function of `_keras`."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

from toolkit import _keras


def test_each_function_has_its_test():
    functions = inspect.getmembers(_keras, inspect.isfunction)
    own = {f"test_{name}" for name, function in functions if function.__module__ == _keras.__name__}
    assert own - set(globals()) == set()


# Saving and loading

CODE = {"class_name": "__lambda__", "config": {"value": ["", None, None]}}


@pytest.fixture(autouse=True)
def mode_as_before():
    yield
    _keras.set_safe_mode(None)


def test_safe_mode():
    assert _keras.safe_mode() is None
    keras.config.enable_unsafe_deserialization()
    assert _keras.safe_mode() is False


def test_set_safe_mode():
    keras.config.enable_unsafe_deserialization()
    _keras.set_safe_mode(None)
    with pytest.raises(ValueError, match="Python lambda"):
        keras.saving.deserialize_keras_object(CODE)


def test_safe_mode_scope():
    keras.config.enable_unsafe_deserialization()
    with (
        _keras.safe_mode_scope(True),
        pytest.raises(ValueError, match="Python lambda"),
    ):
        keras.saving.deserialize_keras_object(CODE, safe_mode=False)
    with _keras.safe_mode_scope(False), pytest.raises(Exception) as caught:  # noqa: PT011 (of any kind)
        keras.saving.deserialize_keras_object(CODE)  # which then reads code that is empty
    assert "Python lambda" not in str(caught.value)


def test_sharing_scope():
    shared = layers.Dense(2)
    with _keras.sharing_scope():
        configs = [keras.saving.serialize_keras_object(shared) for _ in range(2)]
    with _keras.sharing_scope():
        one, other = map(keras.saving.deserialize_keras_object, configs)
    assert one is other
    assert keras.saving.deserialize_keras_object(configs[0]) is not one


def test_declared_into():
    class Limited(list):
        def append(self, variable):
            assert variable.shape != (9,), "too many"
            super().append(variable)

    def never(shape, dtype):
        raise AssertionError("a value was made")

    declared = Limited()
    with _keras.declared_into(declared):
        layer = layers.Dense(2, kernel_initializer=never)
        layer.build((None, 3))
        with pytest.raises(AssertionError, match="too many"):
            keras.Variable(never, shape=(9,))
        assert keras.ops.shape(layers.Dense(2)(keras.Input((3,)))) == (None, 2)
    assert [variable.shape for variable in declared[:2]] == [(3, 2), (2,)]
    assert len(declared) == 4
    np.testing.assert_array_equal(keras.Variable("ones", shape=(2,)), [1, 1])  # and values are made again


def test_compile_settings():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    assert _keras.compile_settings(model) == {}
    metric = keras.metrics.MeanSquaredError()
    model.compile("sgd", "mse", metrics=[metric])
    settings = _keras.compile_settings(model)
    assert (settings["loss"], settings["metrics"]) == ("mse", [metric])


def test_all_layers():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model = keras.Sequential([keras.Input((2,)), inner, layers.TimeDistributed(layers.Dense(1))][:2])
    assert {*model.layers, *inner.layers, model} <= set(_keras.all_layers(model))
    wrapped = layers.TimeDistributed(inner)
    assert inner.layers[0] in _keras.all_layers(keras.Sequential([wrapped]))


def test_functional():
    model = keras.Sequential([keras.Input((2,), name="x"), layers.Dense(1)])
    assert isinstance(_keras.functional(model), keras.Model)
    assert _keras.functional(model).input.shape == (None, 2)
    plain = keras.Model(model.inputs, model.outputs)
    assert _keras.functional(plain) is plain
