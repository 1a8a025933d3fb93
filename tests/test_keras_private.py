"""What the private names of Keras must mean that the toolkit relies on, one test a function of `_keras`."""

import concurrent.futures
import inspect
import shutil
import zipfile

import h5py
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


def never(shape, dtype):
    raise AssertionError("a value was made")


def test_declared_into():
    declared, there = [], keras.Variable("zeros", shape=(2,))
    with _keras.declared_into(declared):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2, kernel_initializer=never)])
        of_a_value = keras.Variable(2.0)
        given = keras.Variable(never, shape=(2,))
        with pytest.raises(AssertionError, match="a value was made"):
            given.assign([1, 2])
        kernel = model.layers[0].kernel
        kernel._initializer = keras.initializers.Ones()
        kernel.assign(3 * np.ones((3, 2)))
        there.assign([5, 6])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(keras.Variable, "ones", (2,)).result()
    assert [tuple(variable.shape) for variable in declared] == [(3, 2), (2,), (2,)]
    for variable, value in ((of_a_value, 2), (kernel, 3), (elsewhere, 1), (there, [5, 6])):
        np.testing.assert_array_equal(variable, np.broadcast_to(value, variable.shape))
    np.testing.assert_array_equal(keras.Variable("ones", shape=(2,)), [1, 1])  # and values are made again


def test_initialize():
    declared = []
    with _keras.declared_into(declared):
        layers.Dense(2, kernel_initializer=never, bias_initializer="ones").build((None, 3))
    for variable, zeros in zip(declared, (True, False), strict=True):
        _keras.initialize(variable, zeros)
        _keras.initialize(variable, not zeros)  # it has its value
    np.testing.assert_array_equal(declared[0], np.zeros((3, 2)))
    np.testing.assert_array_equal(declared[1], [1, 1])
    declared[0].assign_add(np.ones((3, 2)))


def stored(tmp_path):
    """Save a model with weights, optimizer state and a vocabulary; give another one, and the parts."""
    models = []
    for _ in range(2):
        inputs = [keras.Input((3,)), keras.Input((1,), dtype="string")]
        lookup = layers.StringLookup(output_mode="one_hot", max_tokens=4, pad_to_max_tokens=True)
        lookup.adapt(["a", "b"])
        out = layers.Dense(2)(layers.concatenate([inputs[0], lookup(inputs[1])]))
        model = keras.Model(inputs, out)
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        models.append(model)
    models[0].optimizer.iterations.assign(7)
    models[0].layers[2].set_vocabulary(["b", "c"])
    models[0].save(tmp_path / "model.keras")
    zipfile.ZipFile(tmp_path / "model.keras").extractall(tmp_path)
    names = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(lambda name, each: names.append(f"/{name}") if hasattr(each, "shape") else None)
    return *models, set(names), tmp_path / "model.weights.h5", tmp_path / "assets"


def test_load_state(tmp_path):
    model, other, names, weights, assets = stored(tmp_path)
    assert len(names) == 8
    _keras.load_state(other, weights, assets)
    assert other.optimizer.iterations == 7
    assert next(each for each in other.layers if hasattr(each, "get_vocabulary")).get_vocabulary()[1:] == [
        "b",
        "c",
    ]
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    shutil.rmtree(assets)
    _keras.load_state(other, weights, assets)
    with pytest.raises(ValueError, match="could not be loaded"):
        _keras.load_state(keras.Sequential([keras.Input((3,)), layers.Dense(9)]), weights, assets)


def test_state_differences(tmp_path):
    model, other, names, weights, assets = stored(tmp_path)
    assert _keras.state_differences(model, names, weights, assets) == set()
    found = _keras.state_differences(other, {*names, "/more/vars/0"}, weights, assets)
    (vocabulary,) = assets.rglob("*.txt")
    vocabulary = vocabulary.relative_to(tmp_path).as_posix()
    assert found == {"/layers/dense/vars/0", "/optimizer/vars/0", "/more/vars/0", vocabulary}
    (assets / "more.txt").write_text("")
    assert _keras.state_differences(model, names, weights, assets) == {"assets/more.txt"}
    shutil.rmtree(assets)
    assert _keras.state_differences(model, names, weights, assets) == {vocabulary}
    for bias in (np.zeros(2, "float16"), np.zeros((1, 2), "float32"), np.zeros(2, "int32")):
        another = keras.Sequential([keras.Input((7,)), layers.Dense(2)])
        another.layers[0].save_own_variables = lambda store, bias=bias: store.__setitem__("1", bias)
        assert "/layers/dense/vars/1" in _keras.state_differences(another, names, weights, assets)


def test_same_bits():
    one = np.array([[1.0, np.nan], [0.0, 2.0]], "float32")
    assert _keras.same_bits(one, one.copy(order="F"))
    assert not _keras.same_bits(one, -one)
    assert not _keras.same_bits(np.zeros(2, "float32"), -np.zeros(2, "float32"))
    assert _keras.same_bits(np.array(1), np.array(1))
    half = keras.ops.convert_to_numpy(keras.ops.ones((2,), "bfloat16"))
    assert _keras.same_bits(half, half.view("V2"))


def test_quick_walk(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.Dropout(0.5), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((2, 3)), np.ones((2, 1)), verbose=0)
    kinds = {each: _keras.saving_lib.get_attr_skipset(each) for each in ("Layer", "Metric", "Optimizer")}
    model.save_weights(tmp_path / "plain.weights.h5")
    with _keras.quick_walk():
        model.save_weights(tmp_path / "quick.weights.h5")
        for kind, names in kinds.items():
            assert _keras.saving_lib.get_attr_skipset(kind) == names
            assert _keras.saving_lib.get_attr_skipset(kind) is _keras.saving_lib.get_attr_skipset(kind)
    assert not hasattr(_keras.saving_lib.get_attr_skipset, "cache_info")
    plain, quick = ((tmp_path / f"{name}.weights.h5").read_bytes() for name in ("plain", "quick"))
    assert len(plain) == len(quick)


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
