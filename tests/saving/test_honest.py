"""Models that people make, and that no check may turn away."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from saving.examples import sequential
from tables import record_honest

from toolkit import load, save
from toolkit.saving.comparing import _weights


def trained(model, loss="mse", **settings):
    model.compile(**{"optimizer": "adam", "loss": loss, **settings})
    shapes = [(model.input_shape[0] or 4, *model.input_shape[1:])]
    x = np.random.default_rng(0).integers(0, 2, shapes[0]).astype(model.inputs[0].dtype)
    y = np.zeros([each or len(x) for each in model.output_shape])
    model.fit(x, y, batch_size=len(x), verbose=0)
    return model


def characters(batch=128, steps=64, units=256):
    """A usual RNN of characters that keeps its states from batch to batch."""
    return sequential(
        layers.Embedding(65, 32),
        layers.LSTM(units, stateful=True, return_sequences=True),
        layers.Dense(65),
        shape=(steps,),
        batch_size=batch,
    )


def in_a_row(count=300, functional=False):
    model = sequential(*[layers.Dense(4) for _ in range(count)])
    return keras.Model(model.inputs, model.outputs) if functional else model


def functional_in_a_row(count=300):
    tensor = inputs = keras.Input((4,))
    for _ in range(count):
        tensor = layers.Dense(4, activation="relu")(tensor)
    return keras.Model(inputs, tensor)


def residual(blocks=100):
    tensor = inputs = keras.Input((8, 8, 3))
    for _ in range(blocks):
        inner = layers.Conv2D(3, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(tensor)))
        tensor = layers.Add()([tensor, inner])
    return keras.Model(inputs, tensor)


def categorical(count=100):
    inputs = [keras.Input((1,), dtype="string", name=f"column{number}") for number in range(count)]
    parts = []
    for tensor in inputs:
        index = layers.StringLookup(vocabulary=["a", "b"])(tensor)
        parts.append(layers.Flatten()(layers.Embedding(4, 2)(index)))
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(parts)))


def many_outputs(count=200):
    inputs = keras.Input((4,))
    return keras.Model(inputs, [layers.Dense(1)(inputs) for _ in range(count)])


def unrolled_cell(steps=100):
    inputs, cell = keras.Input((steps, 3)), layers.GRUCell(4)
    states = [layers.Dense(4)(inputs[:, 0])]
    for step in range(steps):
        output, states = cell(inputs[:, step], states)
    return keras.Model(inputs, output)


def bidirectional(count=40):
    parts = [layers.Bidirectional(layers.LSTM(2, return_sequences=True)) for _ in range(count)]
    return sequential(*parts, shape=(5, 3))


def wordy(count=300_000):
    layer = layers.StringLookup()
    layer.set_vocabulary([f"w{number}" for number in range(count)])
    return sequential(layer, shape=(1,), dtype="string")


def constant(size=450):
    inputs = keras.Input((size,))
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype("float32")
    return keras.Model(inputs, keras.ops.matmul(inputs, matrix))


def segmenting(classes=1_500):
    model = sequential(layers.Dense(classes))
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanIoU(classes)])
    return model


def doubled():
    return trained(sequential(layers.Dense(4, dtype="float64"), layers.Dense(1, dtype="float64")))


def losing(loss="mse", optimizer="sgd"):
    model = sequential(layers.Dense(2, name="first"), layers.Dense(2))
    model.compile(optimizer, loss)
    return model


def quantized_for_training():
    model = sequential(layers.Dense(2))
    model.layers[0].quantize("float8")
    return model


def mapped():
    optimizers = keras.optimizers
    by_name = optimizers.OptimizerMap(optimizers.Adam(), {".*first/.*": optimizers.SGD()})
    return trained(losing(), optimizer=optimizers.MultiOptimizer(by_name))


@keras.saving.register_keras_serializable(package="test_honest")
class Centering(layers.Layer):
    """Has an array, a function of TensorFlow, and keeps what it saw last."""

    def __init__(self, mean, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.mean, self.activation = mean, keras.activations.get(activation)

    def call(self, x):
        self.last = x
        return self.activation(x - keras.ops.convert_to_tensor(self.mean, x.dtype))

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        return super().get_config() | {"mean": np.asarray(self.mean).tolist(), "activation": activation}


@keras.saving.register_keras_serializable(package="test_honest")
class Turning(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), dtype="complex64", initializer="ones")

    def call(self, x):
        return keras.ops.real(keras.ops.cast(x, "complex64") * self.factor)


half = np.float32(0.5)
HONEST = {
    "dropout by NumPy": lambda: sequential(layers.Dropout(half)),
    "rescaling by NumPy": lambda: sequential(layers.Rescaling(np.float32(1 / 255))),
    "shape by NumPy": lambda: sequential(layers.Reshape(np.array([3, 1]))),
    "kernel by NumPy": lambda: sequential(layers.Conv1D(2, (np.int64(2),)), shape=(4, 3)),
    "optimizer by NumPy": lambda: losing(optimizer=keras.optimizers.Adam(clipnorm=half)),
    "loss by NumPy": lambda: losing(keras.losses.BinaryCrossentropy(label_smoothing=half)),
    "array, function of TensorFlow and kept tensor": lambda: sequential(
        Centering(np.ones(3, "float32"), tf.nn.relu)
    ),
    "complex numbers": lambda: sequential(Turning()),
    "float8": quantized_for_training,
    "map of optimizers": mapped,
    "stateful RNN of characters": lambda: trained(characters(8, 16, 32)),
    "large stateful RNN": characters,
    "300 layers in a row": in_a_row,
    "300 layers in a row, functional": functional_in_a_row,
    "100 residual blocks": residual,
    "100 categorical inputs": categorical,
    "200 outputs": many_outputs,
    "cell unrolled by hand": unrolled_cell,
    "40 bidirectional layers": bidirectional,
    "300,000 words": wordy,
    "constant of 450 x 450": constant,
    "MeanIoU of 1,500 classes": segmenting,
    "float64 under float32": doubled,
    "NASNetMobile": lambda: keras.applications.NASNetMobile(weights=None, classes=10),
}


SLOW = ["300 layers in a row", "NASNetMobile", "100 residual blocks"]  # Keras takes long to load them


@pytest.mark.filterwarnings("ignore:last of centering")
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow) if each in SLOW else each for each in HONEST]
)
def test_an_honest_model_is_saved_and_loads(name, tmp_path):
    model = HONEST[name]()
    loaded = load(save(model, tmp_path / "model.keras"))
    assert len(loaded.weights) == len(model.weights)
    assert all(np.array_equal(*pair) for pair in _weights(model, loaded))
    record_honest("that people make", "equal")


def freeze(model):
    model.layers[0].trainable = False


def unfreeze(model):
    model.layers[1].trainable = True


def quantize(model):
    model.layers[1].quantize("int8")


@pytest.mark.parametrize("change", [freeze, unfreeze, quantize])
def test_a_model_that_was_changed_after_training_is_saved_and_its_optimizer_starts_anew(change, tmp_path):
    model = sequential(layers.Dense(4), layers.Dense(3, trainable=change is not unfreeze), layers.Dense(1))
    trained(model)
    change(model)
    with pytest.warns(UserWarning, match="the state of the optimizer is that of other weights") as caught:
        save(model, tmp_path / "model.keras")
    (told,) = (each for each in caught if each.category is UserWarning)
    assert told.filename == __file__
    with pytest.warns(UserWarning, match="Compile a model again"):
        loaded = load(tmp_path / "model.keras")
    assert loaded.optimizer.iterations == 0
    assert all(np.array_equal(*pair) for pair in zip(model.weights, loaded.weights, strict=True))
    trained(loaded)


def test_a_quantized_model_with_lora_comes_back_with_its_predictions(tmp_path):
    model = sequential(layers.Dense(8), layers.Dense(2))
    model.layers[0].quantize("int8")
    model.layers[0].enable_lora(2)
    with pytest.warns(UserWarning, match="enable_lora"):
        loaded = load(save(model, tmp_path / "model.keras"))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-4, atol=1e-5)
