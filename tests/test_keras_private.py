"""What the private names of Keras must mean that the toolkit relies on, one test a function of `_keras`."""

import concurrent.futures
import contextlib
import inspect
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from keras import layers
from keras.src import backend

from toolkit import _keras, _tensorflow


@pytest.mark.parametrize("module", [_keras, _tensorflow])
def test_each_function_has_its_test(module):
    functions = inspect.getmembers(module, inspect.isfunction)
    own = {name for name, each in functions if each.__module__ == module.__name__ and name[0] != "_"}
    tests = (ROOT / f"tests/test{module.__name__.rpartition('.')[2]}_private.py").read_text()
    assert own
    assert [name for name in own if f"\ndef test_{name}(" not in tests] == []


# Saving and loading

CODE = {"class_name": "__lambda__", "config": {"value": ["", None, None]}}


@pytest.fixture(autouse=True)
def mode_as_before():
    yield
    _keras.global_state.set_global_attribute("safe_mode_saving", None)


def test_safe_mode():
    assert _keras.safe_mode() is None
    keras.config.enable_unsafe_deserialization()
    assert _keras.safe_mode() is False


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
        given.assign([1, 2])
        kernel = model.layers[0].kernel
        kernel.assign(3 * np.ones((3, 2)))
        with pytest.raises(ValueError, match="must match"):
            model.layers[0].bias.assign([1, 2, 3])
        there.assign([5, 6])
        optimizer, slot = keras.optimizers.SGD(), keras.Variable(never, shape=(2,))
        optimizer.assign(slot, there)
        optimizer.assign(there, [7, 8])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(keras.Variable, "ones", (2,)).result()
    assert [tuple(variable.shape) for variable in declared] == [(3, 2), (2,), (2,), (2,)]
    for variable, value in (
        (of_a_value, 2),
        (given, [1, 2]),
        (kernel, 3),
        (elsewhere, 1),
        (there, [7, 8]),
        (slot, [5, 6]),
    ):
        np.testing.assert_array_equal(variable, np.broadcast_to(value, variable.shape))
    np.testing.assert_array_equal(keras.Variable("ones", shape=(2,)), [1, 1])  # and values are made again


def test_initialize():
    declared = []
    with _keras.declared_into(declared):
        layers.Dense(2, kernel_initializer=never, bias_initializer="ones").build((None, 3))
        declared[0].assign(np.zeros((3, 2)))
    for variable in declared:
        _keras.initialize(variable)
    np.testing.assert_array_equal(declared[0], np.zeros((3, 2)))  # which it had
    np.testing.assert_array_equal(declared[1], [1, 1])
    declared[1].assign_add([1, 1])


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
    arrays = {}
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(
            lambda name, each: arrays.update({f"/{name}": each[()]}) if hasattr(each, "shape") else None
        )
    return *models, arrays, tmp_path / "assets"


def test_load_state(tmp_path):
    model, other, arrays, assets = stored(tmp_path)
    assert len(arrays) == 8
    loaded = set()
    _keras.load_state(other, arrays, assets, loaded)
    assert other.optimizer.iterations == 7
    assert next(each for each in other.layers if hasattr(each, "get_vocabulary")).get_vocabulary()[1:] == [
        "b",
        "c",
    ]
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    assert {id(other), id(other.layers[-1]), id(other.optimizer)} <= loaded
    shutil.rmtree(assets)
    other.layers[-1].bias.assign([5, 5])
    other.compile("adam", "mse")
    other.optimizer.build(other.trainable_variables)
    _keras.load_state(other, arrays, assets, loaded)
    assert other.optimizer.iterations == 7
    np.testing.assert_array_equal(other.layers[-1].bias, [5, 5])  # which had its state
    with pytest.raises(ValueError, match="could not be loaded"):
        _keras.load_state(keras.Sequential([keras.Input((3,)), layers.Dense(9)]), arrays, assets, set())


def test_state_differences(tmp_path):
    model, other, arrays, assets = stored(tmp_path)
    assert _keras.state_differences(model, arrays, assets) == set()
    found = _keras.state_differences(other, {**arrays, "/more/vars/0": np.ones(2)}, assets)
    (vocabulary,) = assets.rglob("*.txt")
    vocabulary = vocabulary.relative_to(tmp_path).as_posix()
    assert found == {"/layers/dense/vars/0", "/optimizer/vars/0", "/more/vars/0", vocabulary}
    (assets / "more.txt").write_text("")
    assert _keras.state_differences(model, arrays, assets) == {"assets/more.txt"}
    shutil.rmtree(assets)
    assert _keras.state_differences(model, arrays, assets) == {vocabulary}
    for bias in (np.zeros(2, "float16"), np.zeros((1, 2), "float32"), np.zeros(2, "int32")):
        another = keras.Sequential([keras.Input((7,)), layers.Dense(2)])
        another.layers[0].save_own_variables = lambda store, bias=bias: store.__setitem__("1", bias)
        assert "/layers/dense/vars/1" in _keras.state_differences(another, arrays, assets)


def test_what_a_layer_stores_by_names_of_its_own(tmp_path):
    """A layer may look at the names, and give them parts."""
    seen, layer = [], layers.Dense(2)
    layer.load_own_variables = lambda store: seen.append(
        (list(store.keys()), len(store), "a" in store, "b" in store, store["a/x"])
    )
    model = keras.Sequential([keras.Input((3,)), layer])
    _keras.load_state(
        model, {"/layers/dense/vars/c": 1, "/layers/dense/vars/a/x": 2}, tmp_path / "none", set()
    )
    assert seen == [(["a", "c"], 2, True, False, 2)]


def test_same_bits():
    one = np.array([[1.0, np.nan], [0.0, 2.0]], "float32")
    assert _keras.same_bits(one, one.copy(order="F"))
    assert not _keras.same_bits(one, -one)
    assert not _keras.same_bits(np.zeros(2, "float32"), -np.zeros(2, "float32"))
    assert not _keras.same_bits(np.zeros(2, "float32"), np.zeros(2, "int32"))
    assert not _keras.same_bits(np.zeros((1, 2)), np.zeros(2))
    assert _keras.same_bits(np.array(1), np.array(1))
    assert _keras.same_bits(np.zeros((0, 3)), np.zeros((0, 3)))
    half = keras.ops.convert_to_numpy(keras.ops.ones((2,), "bfloat16"))
    assert _keras.same_bits(half, half.copy())


def test_as_array():
    half = keras.ops.ones((2,), "bfloat16")
    for value in (half, keras.Variable(half), np.array(half), [1.0, 2.0], 3):
        np.testing.assert_array_equal(_keras.as_array(value), np.array(value))
        assert _keras.as_array(value).dtype == np.array(value).dtype


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


# Training


def dense_model(**options):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile(**({"optimizer": "sgd", "loss": "mse"} | options))
    return model


def test_random_seed():
    keras.utils.set_random_seed(3)
    assert _keras.random_seed() == 3


def test_is_own():
    class Mine(layers.Dense):
        pass

    def mse(y, y_pred):
        return y - y_pred

    for theirs in (
        layers.Dense(1),
        layers.Dense,
        keras.losses.mean_squared_error,
        keras.callbacks.History(),
        keras.optimizers.SGD(),
    ):
        assert _keras.is_own(theirs)
    for mine in (Mine(1), Mine, mse, "mse", None):
        assert not _keras.is_own(mine)


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


def test_build_optimizer():
    paths = []
    for train in (_keras.build_optimizer, lambda model: model.fit(np.ones((2, 2)), np.ones(2), verbose=0)):
        keras.utils.clear_session()
        model = dense_model(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Nadam()))
        train(model)
        paths.append([variable.path for variable in model.optimizer.variables])
    assert paths[0] == paths[1]
    _keras.build_optimizer(model)  # does nothing to what is built
    assert int(model.optimizer.iterations) == 1


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


def test_graph_outputs():
    inputs = keras.Input((2,))
    named = keras.Model(inputs, {"price": layers.Dense(3)(inputs), "sold": [layers.Dense(1)(inputs)]})
    outputs = _keras.graph_outputs(named)
    assert keras.tree.map_structure(lambda output: output.shape, outputs, none_is_leaf=False) == {
        "price": (None, 3),
        "sold": [(None, 1)],
    }
    alone = keras.Sequential([inputs, layers.Dense(3)])
    assert _keras.graph_outputs(alone).shape == (None, 3)
    assert _keras.graph_outputs(keras.Sequential([layers.Dense(3)])) is None


@pytest.mark.parametrize(
    "name",
    [
        *("fit", "evaluate", "make_train_function", "make_test_function", "_make_function"),
        *("train_on_batch", "test_on_batch"),
    ],
)
def test_own_loop(name):
    own = type("Own", (keras.Sequential,), {name: lambda *args, **kwargs: None})
    assert _keras.own_loop(own()) == name
    model = keras.Sequential()
    setattr(model, name, print)
    assert _keras.own_loop(model) == name
    assert _keras.own_loop(type("Plain", (keras.Sequential,), {"train_step": print})()) == ""


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


@pytest.mark.parametrize("width", [2, 32, 39])  # 32 columns and more come in slices
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, np.bool_])
def test_quick_sparse_products(dtype, width):
    hold_quick_sparse_products(dtype, width)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_quick_sparse_products_on_a_gpu(dtype):
    with tf.device("GPU:0"):
        hold_quick_sparse_products(dtype, 39)


def hold_quick_sparse_products(dtype, width):
    dense = np.array([[0, 2, 0], [0, 0, 0], [1, 0, 3], [0, 0, 0]], dtype)  # with rows that are empty
    sparse = tf.sparse.from_dense(dense)
    sparse = tf.SparseTensor(  # the last entry twice
        tf.concat([sparse.indices, sparse.indices[-1:]], 0),
        tf.concat([sparse.values, sparse.values[-1:]], 0),
        sparse.dense_shape,
    )
    kernel = tf.Variable(np.arange(3 * width, dtype=np.float32).reshape(3, width))
    found = []
    for quick in (False, True):
        with contextlib.ExitStack() as stack, tf.GradientTape() as tape:
            if quick:
                stack.enter_context(_keras.quick_sparse_products())
            product = keras.ops.matmul(sparse, kernel)
            loss = tf.reduce_sum(product**2)
        found.append([product, tf.convert_to_tensor(tape.gradient(loss, kernel))])
    for kerass, ours in zip(*found, strict=True):
        assert ours.dtype == kerass.dtype
        np.testing.assert_allclose(ours, kerass, rtol=1e-6)
    with _keras.quick_sparse_products():
        np.testing.assert_array_equal(keras.ops.matmul(dense, kernel), keras.ops.matmul(dense, kernel))
        vector = keras.ops.matmul(sparse, tf.ones(3))
    np.testing.assert_allclose(vector, keras.ops.matmul(sparse, tf.ones(3)))


def test_quick_sparse_products_are_those_of_one_thread():
    sparse, dense = tf.sparse.eye(3), tf.ones((3, 2))
    before = backend.numpy.matmul

    def multiply():
        return keras.ops.matmul(sparse, dense)

    def trace(turns):
        for _ in range(turns):
            with _keras.quick_sparse_products():
                tf.function(lambda: keras.ops.matmul(sparse, dense)).get_concrete_function()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(trace, 20) for _ in range(4)]:
            each.result()
        assert backend.numpy.matmul is before
        with _keras.quick_sparse_products():
            kinds = [
                {operation.type for operation in traced.graph.get_operations()}
                for traced in (
                    tf.function(multiply).get_concrete_function(),
                    pool.submit(tf.function(multiply).get_concrete_function).result(),
                )
            ]
    assert ["SparseTensorDenseMatMul" in each for each in kinds] == [True, False]
    assert backend.numpy.matmul is before


def test_what_quick_sparse_products_leave_to_keras_is_told(caplog, monkeypatch):
    caplog.set_level("INFO", "toolkit.training")
    with _keras.quick_sparse_products():
        keras.ops.matmul(tf.sparse.eye(3), tf.ones((3, 2), tf.bfloat16))
    assert "a sparse product of float32 and bfloat16, ranks 2 and 2, is Keras's" in caplog.messages
    monkeypatch.delattr(backend.numpy, "matmul")  # as a later Keras may have it
    with _keras.quick_sparse_products():
        pass
