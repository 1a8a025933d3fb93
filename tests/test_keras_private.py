"""What the private names of Keras must mean that the toolkit relies on, one test a function of `_keras`."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from toolkit import _keras


def test_each_function_has_its_test():
    functions = inspect.getmembers(_keras, inspect.isfunction)
    own = {
        f"test_{name}"
        for name, function in functions
        if function.__module__ == _keras.__name__ and not name.startswith("_")
    }
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


# Training


def dense_model(**options):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile(**({"optimizer": "sgd", "loss": "mse"} | options))
    return model


def test_random_seed():
    keras.utils.set_random_seed(3)
    assert _keras.random_seed() == 3


def test_to_python():
    logs = {"mae": tf.constant(0.5), "each": np.ones(2), "all": {"b": 1, "a": 2}}
    assert list(_keras.to_python(logs)) == ["a", "b", "each", "mae"]  # sorted, what is nested in its place
    assert type(_keras.to_python(logs)["mae"]) is float
    assert _keras.to_python(logs)["each"].shape == (2,)
    assert _keras.to_python(None) == {}


def test_first_epoch(tmp_path):
    model = dense_model()
    assert not _keras.first_epoch(model)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    model.fit(np.ones((2, 2)), np.ones(2), epochs=2, verbose=0, callbacks=[backup])
    model.fit(np.ones((2, 2)), np.ones(2), epochs=3, verbose=0, callbacks=[backup])
    assert _keras.first_epoch(model) == 2


def test_changed_since_compile():
    model = dense_model()
    assert _keras.changed_since_compile(model) == []
    model.layers[0].trainable = False
    model.add(layers.Dense(3))
    assert set(_keras.changed_since_compile(model)) == {layer.name for layer in model.layers}
    model.compile("sgd", loss="mse")
    assert _keras.changed_since_compile(model) == []


def test_compilation():
    model = dense_model()
    first = _keras.compilation(model)
    assert _keras.compilation(model) is first
    model.compile("sgd", loss="mse")
    assert _keras.compilation(model) is not first


def test_build_compiled():
    model = dense_model(metrics=["mae", keras.metrics.AUC(name="area")], loss=["mse"])
    _keras.build_compiled(model, keras.KerasTensor((None, 1)), model.outputs[0])
    _keras.build_compiled(model, None, None)  # does nothing to what is built
    assert list(model.get_metrics_result()) == ["loss", "mae", "area"]


def test_output_spec():
    model = keras.Sequential([layers.Dropout(0.5), layers.Dense(3)])
    spec = _keras.output_spec(model, keras.KerasTensor((None, 2)))
    assert spec.shape == (None, 3)
    assert model.layers[1].kernel.shape == (2, 3)
    assert model.layers[0].seed_generator.state.numpy()[1] == 0  # nothing was drawn


def test_build_symbolically():
    model = keras.Sequential([layers.Dense(3)])
    model.compile("adam", loss="mse", metrics=["mae"])
    _keras.build_symbolically(model, (keras.KerasTensor((None, 2)), keras.KerasTensor((None, 3))))
    assert model.built
    assert model.optimizer.built
    assert int(model.optimizer.iterations) == 0
    assert list(model.get_metrics_result()) == ["loss", "mae"]


def test_loss_tracker():
    model = dense_model()
    assert _keras.loss_tracker(model) is model.metrics[0]
    assert _keras.loss_tracker(model).name == "loss"


@pytest.mark.parametrize(
    ("options", "needs"),
    [({"update_freq": "epoch"}, False), ({"update_freq": 3}, True), ({"profile_batch": 2}, True)],
)
def test_needs_batches(options, needs):
    assert _keras.needs_batches(keras.callbacks.TensorBoard(**options)) == needs


@pytest.mark.gpu
def test_gpu_memory():
    assert _keras.gpu_memory() > 1 << 30


def test_complete_vectorized_map():
    _keras.complete_vectorized_map()
    seeds = tf.constant([[1, 2], [3, 4]])
    drawn = tf.vectorized_map(
        lambda seed: tf.random.stateless_uniform((5,), seed), seeds, fallback_to_while_loop=False
    )
    for row, seed in zip(drawn, seeds, strict=True):  # as each alone
        np.testing.assert_array_equal(row, tf.random.stateless_uniform((5,), seed))
    bits = tf.vectorized_map(lambda x: tf.bitcast(x, tf.int32), tf.ones((2, 3)), fallback_to_while_loop=False)
    np.testing.assert_array_equal(bits, tf.bitcast(tf.ones((2, 3)), tf.int32))
