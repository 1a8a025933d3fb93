import hashlib
import os
import random
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from keras import layers

import toolkit
from toolkit import load, save
from toolkit import saving as module


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input(shape=(3,)), layers.Dense(4), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model


@keras.saving.register_keras_serializable(package="test_saving")
class Sound(keras.Model):
    def __init__(self, units=4, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out, self.factor = layers.Dense(units), layers.Dense(1), factor

    def build(self, shape):
        self.hidden.build(shape)
        self.out.build((shape[0], self.hidden.units))

    def call(self, x):
        return self.factor * self.out(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.hidden.units, "factor": self.factor}


@keras.saving.register_keras_serializable(package="test_saving")
class Unbuilt(Sound):
    def build(self, shape):
        """Leave the sublayers to the first call, as the trap has it."""


@keras.saving.register_keras_serializable(package="test_saving")
class WithoutConfig(keras.Model):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.out = np.asarray(scale), layers.Dense(1)

    def build(self, shape):
        self.out.build(shape)

    def call(self, x):
        return self.out(x * self.scale)


@keras.saving.register_keras_serializable(package="test_saving")
class Forgetful(Sound):
    def get_config(self):
        config = super().get_config()
        del config["factor"]
        return config


@keras.saving.register_keras_serializable(package="test_saving")
class OwnVariable(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = keras.Variable(1.0)

    def call(self, x):
        return self.scale * x


@keras.saving.register_keras_serializable(package="test_saving")
class Sampling(keras.layers.Layer):
    """Draws at prediction, too, as a variational autoencoder does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


@keras.saving.register_keras_serializable(package="test_saving")
class Unseeded(keras.layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class Unregistered(layers.Dense):
    pass


def unregistered(y_true, y_pred):
    return keras.ops.mean(y_true - y_pred)


def built(cls, *args, **kwargs):
    model = cls(*args, **kwargs)
    model(np.ones((2, 3), "float32"))
    return model


def sequential(*parts, shape=(3,), **kwargs):
    return keras.Sequential([keras.Input(shape=shape, **kwargs), *parts])


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# Save


def test_predictions_and_further_training_are_equal_after_a_round_trip(model, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 32, 3)).astype("float32")
    model.fit(x, y[:, :1], epochs=2, verbose=0)
    loaded = load(save(model, tmp_path / "model.keras"))
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for either in (model, loaded):
        either.fit(x, y[:, :1], epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_model_that_was_compiled_but_not_trained_comes_back_whole(model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = load(save(model, tmp_path / "model.keras"))
        assert len(loaded.optimizer.variables) == 10
        model.optimizer.built = False
        plain = keras.Sequential.from_config(model.get_config())
        plain.compile("adam", "mse")
        plain.save(
            tmp_path / "plain.keras"
        )  # Keras stores two of ten variables, and warns when it loads them
        assert load(tmp_path / "plain.keras").optimizer.iterations == 0


def test_the_checksum_beside_a_file_is_right(model, tmp_path):
    path = save(model, tmp_path / "model.keras")
    assert names(tmp_path) == ["model.keras", "model.keras.sha256"]
    digest, name = (tmp_path / "model.keras.sha256").read_text().split("  ")
    assert (digest, name) == (hashlib.sha256(path.read_bytes()).hexdigest(), "model.keras\n")
    assert load(path, sha256=digest.upper()).count_params() == model.count_params()
    with pytest.raises(ValueError, match=f"another file: its sha256 is {digest}, not {'0' * 64}"):
        load(path, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"64 hexadecimal digits\. Received: 'abc'"):
        load(path, sha256="abc")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(model, tmp_path, monkeypatch):
    path = save(model, tmp_path / "model.keras")
    old = path.read_bytes()

    def fail(self, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Sequential, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save(model, path)
    assert path.read_bytes() == old
    assert names(tmp_path) == ["model.keras", "model.keras.sha256"]


def test_a_save_goes_through_a_link_and_takes_the_place_of_the_old_file(model, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.keras").symlink_to(tmp_path / "there/model.keras")
    for units in (1, 2):
        save(sequential(layers.Dense(units)), tmp_path / "link.keras")
    assert (tmp_path / "link.keras").is_symlink()
    assert names(tmp_path / "there") == ["model.keras", "model.keras.sha256"]
    assert load(tmp_path / "link.keras").count_params() == 8


def test_what_a_link_points_to_may_have_any_name(model, tmp_path):
    (tmp_path / "link.keras").symlink_to(tmp_path / "model.bin")
    save(model, tmp_path / "link.keras")
    assert names(tmp_path) == ["link.keras", "model.bin", "model.bin.sha256"]
    assert load(tmp_path / "link.keras").count_params() == model.count_params()
    (tmp_path / "lost.keras").symlink_to(tmp_path / "none/model.keras")
    with pytest.raises(OSError, match="must be a file name in a folder that is there"):
        save(model, tmp_path / "lost.keras")


def test_a_name_that_is_no_text_is_a_name(model, tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.keras")
    try:
        path.touch()
    except (OSError, UnicodeError):
        pytest.skip("no such names here")
    save(model, path)
    digest, name = path.with_name(f"{path.name}.sha256").read_bytes().split(b"  ")
    assert name == b"\xff.keras\n"
    assert load(path, sha256=digest.decode()).count_params() == model.count_params()


def test_strays_of_dead_processes_are_cleared_and_those_of_live_ones_stay(model, tmp_path):
    host = socket.gethostname()
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    folders = {
        "dead": f".saving-{host}-{dead.pid}-0123abcd",
        "alive": f".saving-{host}-{os.getpid()}-0123abcd",
        "elsewhere": ".saving-another-host-1-0123abcd",
        "old": ".saving-another-host-1-ffffffff",
        "odd": f".saving-{host}-{10**30}-0",
        "foreign": ".saving-",
    }
    for name in folders.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").write_bytes(b"half")
    os.utime(tmp_path / folders["old"], (time.time() - 2 * 86_400,) * 2)
    save(model, tmp_path / "model.keras")
    left = {key for key, name in folders.items() if (tmp_path / name).exists()}
    assert left == {"alive", "elsewhere", "odd", "foreign"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([layers.Dense(1)]), r"must be built.*model\.build\(\(None, columns\)\)"),
        (lambda: layers.Dense(1), "must be a Keras model"),
        (lambda: sequential(Unregistered(1)), "'Unregistered'.*register_keras_serializable"),
        (lambda: sequential(layers.Dense(1, activation=lambda x: x)), "holds a lambda"),
        (lambda: sequential(layers.Lambda(lambda x: 2 * x)), "is a Lambda, which holds code"),
        (lambda: built(Unbuilt), r"/hidden/vars/0.*\n.*self\.hidden\.build\(shape\)"),
        (lambda: built(WithoutConfig, [1.0, 2.0, 3.0]), r"def get_config\(self\)"),
        (lambda: built(Forgetful, factor=2.0), "the predictions are not"),
        (lambda: sequential(OwnVariable()), r"use add_weight\(shape"),
        (lambda: sequential(layers.LSTM(2, unroll=True), shape=(4, 3)), "Save it with unroll=False"),
    ],
)
def test_a_model_that_would_not_come_back_is_refused_with_the_way_out(make, message, tmp_path):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        save(make(), tmp_path / "model.keras")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": keras.losses.Huber(delta=3.0)}, r'"delta": 3\.0.*"delta": 1\.0.*registered function'),
        ({"loss": unregistered}, "'unregistered'.*register_keras_serializable"),
        ({"loss": "mse", "metrics": [unregistered]}, "'unregistered'.*register_keras_serializable"),
    ],
)
def test_a_loss_or_metric_that_would_not_come_back_is_refused(settings, message, model, tmp_path):
    model.compile("sgd", **settings)
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path / "model.keras")
    assert names(tmp_path) == []


def test_two_classes_of_one_name_are_told_apart(tmp_path):
    @keras.saving.register_keras_serializable(package="test_saving")
    class Twin(Sound):
        pass

    first = built(Twin)
    keras.saving.register_keras_serializable(package="test_saving")(type("Twin", (Sound,), {}))
    with pytest.raises(ValueError, match="another class is registered under its name"):
        save(first, tmp_path / "model.keras")


def test_where_a_file_cannot_go_is_said_before_any_work(model, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        save(model, tmp_path / "model.h5")
    with pytest.raises(OSError, match="must be a file name in a folder that is there"):
        save(model, tmp_path / "none/model.keras")
    (tmp_path / "model.keras").mkdir()
    with pytest.raises(OSError, match="must be a file name in a folder that is there"):
        save(model, tmp_path / "model.keras")


def test_saving_and_loading_change_no_random_number_and_no_state(tmp_path):
    dropped = sequential(layers.LSTM(3, stateful=True), layers.Dropout(0.5), shape=(4, 3), batch_size=2)
    dropped(np.ones((2, 4, 3)))
    before = [np.array(variable) for variable in dropped.variables]

    def later():
        random.seed(1)
        keras.utils.set_random_seed(1)
        yield
        yield (
            random.random(),
            np.random.random(),  # noqa: NPY002 (the state that must not change)
            layers.Dense(2).get_config(),
            float(keras.random.normal(())),
        )

    numbers = []
    for steps in (lambda: None, lambda: load(save(dropped, tmp_path / "model.keras"))):
        each = later()
        next(each)
        steps()
        numbers.append((*next(each)[:2], np.array(keras.initializers.GlorotUniform()((2, 2))).tolist()))
    assert numbers[0] == numbers[1]
    for variable, value in zip(dropped.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_saved_model_of_main_comes_back_in_a_new_process(tmp_path):
    code = """
import sys, keras, numpy as np, toolkit
@keras.saving.register_keras_serializable(package="here")
class Mine(keras.layers.Dense):
    pass
path = sys.argv[1]
if len(sys.argv) == 2:
    toolkit.save(keras.Sequential([keras.Input((2,)), Mine(1)]), path)
print(toolkit.load(path).predict(np.ones((1, 2)), verbose=0).tolist())
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, tmp_path / "model.keras"]
    out = [subprocess.check_output([*command, *more], env=env, text=True) for more in ([], ["load"])]
    assert out[0] == out[1]


# Checkpoint


def test_a_checkpoint_keeps_the_best_epoch(model, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 32, 3)).astype("float32")
    y = y[:, :1]
    checkpoint = toolkit.Checkpoint(tmp_path / "best.keras", monitor="val_loss")
    options = {"validation_data": (x[:8], y[:8]), "epochs": 4, "verbose": 0, "shuffle": False}
    model.compile(keras.optimizers.SGD(0.9), "mse")
    losses = model.fit(x, y, callbacks=[checkpoint], **options).history["val_loss"]
    assert checkpoint.best == min(losses)
    assert load(checkpoint.path).evaluate(x[:8], y[:8], verbose=0) == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize("fit", ["keras", "toolkit"])
def test_a_checkpoint_without_a_score_keeps_the_last_epoch(fit, model, tmp_path):
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    checkpoint = toolkit.Checkpoint(tmp_path / "last.keras")
    options = {"epochs": 2, "verbose": 0, "callbacks": [checkpoint]}
    model.fit(x, y, **options) if fit == "keras" else toolkit.fit(model, x, y, **options)
    loaded = load(tmp_path / "last.keras")
    assert loaded.optimizer.iterations == 2
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_checkpoints_of_many_models_hold_each_its_own(tmp_path):
    models = [sequential(layers.Dense(1)) for _ in range(2)]
    for model in models:
        model.compile("sgd", "mse")
    x, y = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    splits = toolkit.kfold(8, 2)
    callbacks = [[toolkit.Checkpoint(tmp_path / f"{number}.keras")] for number in range(2)]
    toolkit.fit_many(models, x, y[:, :1], splits, epochs=2, verbose=0, callbacks=callbacks)
    for number, model in enumerate(models):
        loaded = load(tmp_path / f"{number}.keras")
        np.testing.assert_allclose(loaded.get_weights()[0], model.get_weights()[0], rtol=1e-6)


def test_a_checkpoint_says_what_it_cannot_watch(model, tmp_path):
    with pytest.raises(ValueError, match=r"`mode` must be 'min' or 'max'\. Received: 'auto'"):
        toolkit.Checkpoint(tmp_path / "best.keras", "loss", "auto")
    checkpoint = toolkit.Checkpoint(tmp_path / "best.keras", "val_acc", "max")
    with pytest.raises(ValueError, match=r"`monitor` must be one of loss, mae. Received: 'val_acc'"):
        model.fit(np.ones((4, 3)), np.ones(4), verbose=0, callbacks=[checkpoint])
    checkpoint.set_model(model)
    for score, best in ((0.5, 0.5), (float("nan"), 0.5), (0.4, 0.5), (0.6, 0.6)):
        checkpoint.on_epoch_end(0, {"val_acc": score})
        assert checkpoint.best == best


# What Keras can save, loads


IMAGE, VOLUME, ROWS, TEXT = (8, 8, 3), (4, 4, 4, 2), (6, 4), (1,)
LAYERS = {
    **dict.fromkeys(
        [
            *("ELU", "Flatten", "Identity", "LayerNormalization"),
            *("LeakyReLU", "Masking", "PReLU", "RMSNormalization", "ReLU", "Softmax", "UnitNormalization"),
            *("BatchNormalization", "GlobalAveragePooling1D", "GlobalMaxPooling1D"),
            *("MaxPooling1D", "Cropping1D", "UpSampling1D", "ZeroPadding1D", "ActivityRegularization"),
            *("Normalization",),
        ],
        (ROWS, {}),
    ),
    **dict.fromkeys(
        ["AlphaDropout", "Dropout", "GaussianDropout", "SpatialDropout1D"], (ROWS, {"rate": 0.5})
    ),
    **dict.fromkeys(
        [
            *("AutoContrast", "AugMix", "Cropping2D", "GlobalAveragePooling2D"),
            *("GlobalMaxPooling2D", "MaxPooling2D", "RandAugment", "RandomFlip", "RandomGrayscale"),
            *("RandomErasing", "RandomPerspective", "UpSampling2D", "ZeroPadding2D"),
            *("ContrastLimitedAdaptiveHistogramEqualization", "RandomInvert"),
        ],
        (IMAGE, {}),
    ),
    **dict.fromkeys(
        [
            *(
                "AveragePooling3D",
                "Cropping3D",
                "GlobalAveragePooling3D",
                "GlobalMaxPooling3D",
                "MaxPooling3D",
            ),
            *("UpSampling3D", "ZeroPadding3D"),
        ],
        (VOLUME, {}),
    ),
    "GaussianNoise": (ROWS, {"stddev": 0.5}),
    **{f"AveragePooling{n}D": (shape, {"pool_size": 2}) for n, shape in enumerate((ROWS, IMAGE, VOLUME), 1)},
    "RandomZoom": (IMAGE, {"height_factor": 0.1}),
    "Cropping3D": (VOLUME, {"cropping": 1}),
    **dict.fromkeys(
        [
            "RandomBrightness",
            "RandomContrast",
            "RandomRotation",
            "RandomHue",
            "RandomSharpness",
        ],
        (IMAGE, {"factor": 0.2}),
    ),
    **dict.fromkeys(
        ["RandomSaturation", "RandomColorDegeneration", "RandomGaussianBlur", "RandomElasticTransform"],
        (IMAGE, {"factor": 0.2}),
    ),
    "RandomHue": (IMAGE, {"factor": 0.2, "value_range": [0, 1]}),
    "RandomPosterization": (IMAGE, {"factor": 4}),
    "RandomColorJitter": (IMAGE, {"brightness_factor": 0.1}),
    "RandomTranslation": (IMAGE, {"height_factor": 0.1, "width_factor": 0.1}),
    **dict.fromkeys(["CenterCrop", "RandomCrop", "Resizing"], (IMAGE, {"height": 4, "width": 4})),
    "Solarization": (IMAGE, {}),
    "SpatialDropout2D": (IMAGE, {"rate": 0.5}),
    "SpatialDropout3D": (VOLUME, {"rate": 0.5}),
    **{
        f"Adaptive{kind}Pooling{rank}D": (shape, {"output_size": 2})
        for kind in ("Average", "Max")
        for rank, shape in ((1, ROWS), (2, IMAGE), (3, VOLUME))
    },
    "Activation": (ROWS, {"activation": "tanh"}),
    "Dense": (ROWS, {"units": 5, "kernel_regularizer": "l2", "bias_constraint": "non_neg"}),
    "EinsumDense": (ROWS, {"equation": "abc,cd->abd", "output_shape": (None, 5), "bias_axes": "d"}),
    "GroupNormalization": (ROWS, {"groups": 2}),
    "SpectralNormalization": (ROWS, {"layer": layers.Dense(3)}),
    "Permute": (ROWS, {"dims": (2, 1)}),
    "RepeatVector": ((4,), {"n": 3}),
    "Reshape": (ROWS, {"target_shape": (4, 6)}),
    "Rescaling": (ROWS, {"scale": 1 / 255}),
    "TimeDistributed": (ROWS, {"layer": layers.Dense(3)}),
    "Bidirectional": (ROWS, {"layer": layers.LSTM(3)}),
    **dict.fromkeys(["GRU", "LSTM", "SimpleRNN"], (ROWS, {"units": 3})),
    "RNN": (ROWS, {"cell": [layers.LSTMCell(3), layers.GRUCell(2), layers.SimpleRNNCell(2)]}),
    "ConvLSTM1D": ((3, 6, 2), {"filters": 2, "kernel_size": 3}),
    "ConvLSTM2D": ((3, 6, 6, 2), {"filters": 2, "kernel_size": 3}),
    "ConvLSTM3D": ((2, 4, 4, 4, 2), {"filters": 2, "kernel_size": 3}),
    **{
        f"Conv{rank}D{kind}": (shape, {"filters": 2, "kernel_size": 2})
        for kind in ("", "Transpose")
        for rank, shape in ((1, ROWS), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"{kind}Conv{rank}D": (shape, {"kernel_size": 2, **more})
        for kind, more in (("Depthwise", {}), ("Separable", {"filters": 2}))
        for rank, shape in ((1, ROWS), (2, IMAGE))
    },
    "Embedding": ((6,), {"input_dim": 7, "output_dim": 2}),
    "ReversibleEmbedding": ((6,), {"input_dim": 7, "output_dim": 2}),
    "CategoryEncoding": ((6,), {"num_tokens": 7}),
    "Discretization": (ROWS, {"bin_boundaries": [-1.0, 0.0, 1.0]}),
    "Hashing": ((1,), {"num_bins": 5}),
    "IntegerLookup": (TEXT, {"vocabulary": [3, 1, 2]}),
    "StringLookup": (TEXT, {"vocabulary": ["a", "b"]}),
    "TextVectorization": (TEXT, {"vocabulary": ["a", "b"], "output_sequence_length": 3}),
    "MelSpectrogram": ((800,), {"fft_length": 64, "sequence_stride": 32, "num_mel_bins": 8}),
    "STFTSpectrogram": ((200, 1), {"frame_length": 32, "frame_step": 16, "fft_length": 64}),
    "Pipeline": (ROWS, {"layers": [layers.Dense(3), layers.ReLU()]}),
}
OF_TWO = {
    **{name: {} for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")},
    **{name: {} for name in ("AdditiveAttention", "Attention")},
    "Dot": {"axes": -1},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 2},
    "GroupQueryAttention": {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 2},
}
# No layers for a model, parts of layers, and what takes dicts of images and boxes.
OTHERS = {"InputLayer", "InputSpec", "Layer", "Wrapper", "LSTMCell", "GRUCell", "SimpleRNNCell"}
OTHERS |= {"StackedRNNCells", "MixUp", "CutMix", "MaxNumBoundingBoxes", "HashedCrossing"}
OF_KERAS = {
    "Equalization",
    "RandomShear",
}  # Keras 3.15.1 makes no model of the one, and loads none of the other


def round_trip(model, tmp_path):
    """Save and load, which compares all weights and predictions; and compare here, without the helpers."""
    loaded = load(save(model, tmp_path / "model.keras"))
    assert len(loaded.weights) == len(model.weights)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    return loaded


def test_each_layer_of_keras_is_seen_to():
    known = {getattr(layers, name) for name in {*LAYERS, *OF_TWO, *OTHERS, *OF_KERAS, *module._FORBIDDEN}}
    assert {name for name in dir(layers) if isinstance(getattr(layers, name), type)} == {
        name
        for name in dir(layers)
        if isinstance(getattr(layers, name), type) and getattr(layers, name) in known
    }


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_model_of_each_layer_comes_back(name, tmp_path):
    shape, options = LAYERS[name]
    dtype = "string" if name in ("StringLookup", "TextVectorization") else None
    dtype = "int64" if name in ("IntegerLookup", "Hashing", "CategoryEncoding") else dtype
    model = sequential(getattr(layers, name)(**options), shape=shape, dtype=dtype)
    round_trip(model, tmp_path)


@pytest.mark.parametrize("name", sorted(OF_TWO))
def test_a_model_of_each_layer_with_two_inputs_comes_back(name, tmp_path):
    one, other = keras.Input(ROWS), keras.Input(ROWS)
    layer = getattr(layers, name)(**OF_TWO[name])
    attention = name in ("MultiHeadAttention", "GroupQueryAttention")
    out = layer(one, other) if attention else layer([one, other])
    round_trip(keras.Model([one, other], out), tmp_path)


SETTINGS = {  # what the classes need that cannot be made without arguments
    **{
        f"{one}At{other}": (0.5,)
        for one, other in (("Sensitivity", "Specificity"), ("Specificity", "Sensitivity"))
    },
    **{"PrecisionAtRecall": (0.5,), "RecallAtPrecision": (0.5,), "MeanIoU": (2,), "OneHotMeanIoU": (2,)},
    **{"IoU": (2, [0]), "OneHotIoU": (2, [0]), "MeanMetricWrapper": None, "Metric": None, "Loss": None},
    **{
        "Optimizer": None,
        "LossScaleOptimizer": (keras.optimizers.Adam(),),
        "MultiOptimizer": None,
        "OptimizerMap": None,
    },
}


def classes_of(module):
    """Make one object of each class of a module of Keras."""
    classes = {value for value in vars(module).values() if isinstance(value, type)}
    settings = {cls: SETTINGS.get(cls.__name__, ()) for cls in sorted(classes, key=lambda cls: cls.__name__)}
    return [cls(*arguments) for cls, arguments in settings.items() if arguments is not None]


def test_each_loss_and_metric_of_keras_comes_back(model, tmp_path):
    for number, loss in enumerate(classes_of(keras.losses)):
        model.compile("sgd", loss)
        assert isinstance(load(save(model, tmp_path / f"{number}.keras")).loss, type(loss))
    metrics = classes_of(keras.metrics)
    model.compile("sgd", "mse", metrics=metrics)
    save(model, tmp_path / "metrics.keras")
    assert len(metrics) > 30


@pytest.mark.parametrize("name", ["AUC", "F1Score", "FBetaScore", "R2Score"])
def test_a_metric_that_makes_its_variables_when_it_trains_comes_back(name, model, tmp_path):
    model.compile("sgd", "mse", metrics=[getattr(keras.metrics, name)()])
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    round_trip(model, tmp_path)


@pytest.mark.parametrize(("trained", "here"), [("mixed_float16", "float32"), ("float32", "mixed_float16")])
@pytest.mark.parametrize("functional", [False, True])
def test_a_model_comes_back_where_another_precision_is_set(trained, here, functional, tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    try:
        keras.config.set_dtype_policy(trained)
        model = sequential(layers.Dense(4), layers.Dense(1))
        if functional:
            model = keras.Model(model.inputs, model.outputs)
        model.compile("adam", "mse")
        model.fit(x, x[:, :1], verbose=0)
        save(model, tmp_path / "model.keras")
        keras.config.set_dtype_policy(here)
        loaded = load(tmp_path / "model.keras")
        assert type(loaded.optimizer) is type(model.optimizer)
        for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
        load(save(loaded, tmp_path / "again.keras"))
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_loss_that_is_code_comes_back_from_a_trusted_file(model, tmp_path):
    model.compile("sgd", lambda y_true, y_pred: (y_true - y_pred) ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of code in a file
        model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="holds code"):
        load(tmp_path / "model.keras")
    assert load(tmp_path / "model.keras", trusted=True).loss(np.ones(2), np.zeros(2)).shape == (2,)


@pytest.mark.parametrize("optimizer", classes_of(keras.optimizers), ids=lambda each: type(each).__name__)
def test_each_optimizer_of_keras_comes_back_with_its_state(optimizer, model, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    model.compile(optimizer, "mse")
    model.fit(x, y[:, :1], verbose=0)
    loaded = load(save(model, tmp_path / "model.keras"))
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


@keras.saving.register_keras_serializable(package="test_saving")
class TwoArguments(Sound):
    def build(self, x_shape, y_shape):
        super().build(x_shape)

    def call(self, x, y, training=None):
        return super().call(x) + y


def nested():
    shared = layers.Dense(3, name="shared")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.ReLU()])
    inputs = {"one": keras.Input((3,), name="one"), "other": keras.Input((3,), name="other")}
    both = [inner(shared(inputs["one"])), shared(inputs["other"]) * 2.0 + keras.ops.ones((3,))]
    return keras.Model(inputs, {"sum": keras.ops.concatenate(both, axis=-1)[:, 1:], "plain": both[0]})


def quantized():
    model = sequential(layers.Dense(8), layers.Dense(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layer of inputs, which has nothing to quantize
        model.quantize("int8")
    return model


def ragged():
    words = layers.TextVectorization(vocabulary=["a", "b"], ragged=True)
    return sequential(words, shape=(1,), dtype="string")


def scheduled():
    model = sequential(layers.Dense(2, kernel_initializer="orthogonal", kernel_regularizer="l1"))
    decay = keras.optimizers.schedules.CosineDecay(0.1, 10**6, warmup_steps=10**5)
    model.compile(keras.optimizers.AdamW(decay, use_ema=True), "mse")
    return model


@pytest.mark.parametrize(
    "make",
    [
        nested,
        quantized,
        ragged,
        scheduled,
        lambda: sequential(layers.Dense(2), Sampling()),
        lambda: sequential(layers.Dense(2, dtype="mixed_float16"), layers.Dense(1, dtype="bfloat16")),
        lambda: sequential(layers.Conv2D(2, 5), layers.MaxPool2D(4), shape=(None, None, 1)),
        lambda: sequential(
            layers.Embedding(9, 2), layers.LSTM(3, stateful=True), shape=(None,), batch_size=2
        ),
        lambda: sequential(layers.Dense(2, activation=toolkit_test_function)),
        lambda: built(keras.Sequential, [layers.Dense(2), layers.BatchNormalization()]),
    ],
)
def test_what_models_are_made_of_comes_back(make, tmp_path):
    round_trip(make(), tmp_path)


@keras.saving.register_keras_serializable(package="test_saving")
def toolkit_test_function(x):
    return x / 2


def test_a_model_of_two_arguments_comes_back(tmp_path):
    model = TwoArguments()
    model(np.ones((2, 3), "float32"), np.ones((2, 1), "float32"))
    round_trip(model, tmp_path)


def test_a_model_for_which_no_rows_can_be_made_is_saved_with_a_word(tmp_path):
    @keras.saving.register_keras_serializable(package="test_saving")
    class Picky(Sound):
        def call(self, x):
            if x.shape[0] != 7:
                raise ValueError("seven rows, please")
            return super().call(x)

    model = Picky()
    model.build((None, 3))
    with pytest.warns(UserWarning, match="only weights were compared"):
        assert load(save(model, tmp_path / "model.keras")).count_params() == model.count_params()


def test_a_model_of_random_predictions_is_saved_with_a_word(tmp_path):
    with pytest.warns(UserWarning, match="predictions are random"):
        save(sequential(layers.Dense(2), Unseeded()), tmp_path / "model.keras")
