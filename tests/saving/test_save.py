import gc
import hashlib
import os
import random
import socket
import subprocess
import sys
import time
import warnings

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import layers
from saving.examples import (
    Forgetful,
    Hiding,
    Sound,
    Unbuilt,
    Unregistered,
    WithoutConfig,
    built,
    names,
    sequential,
    unregistered,
)

from toolkit import load, save


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input(shape=(3,)), layers.Dense(4), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model


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
        "notes": ".saving-notes",
        "odd": f".saving-{host}-{10**30}-0123abcd",
        "foreign": ".saving-",
    }
    for name in folders.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").write_bytes(b"half")
    for old in ("old", "notes"):
        os.utime(tmp_path / folders[old], (time.time() - 2 * 86_400,) * 2)
    save(model, tmp_path / "model.keras")
    left = {key for key, name in folders.items() if (tmp_path / name).exists()}
    assert left == {"alive", "elsewhere", "odd", "foreign", "notes"}


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
        (
            lambda: built(Forgetful, factor=2.0),
            "factor of forgetful.* is 2.0 and would be 1.0.*each argument",
        ),
        (lambda: built(Hiding, 2.0), "the predictions are not"),
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


def test_names_arguments_that_are_swapped(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    with pytest.raises(
        TypeError, match=r"`path` must be a file name, after the model\. Received: Sequential"
    ):
        save(tmp_path / "model.keras", model)


@keras.saving.register_keras_serializable(package="used")
class Used(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = layers.Dense(1)

    def build(self, shape):
        self.hidden.build(shape)
        super().build(shape)

    def call(self, x):
        return self.hidden(x)


def test_a_class_that_was_used_is_saved_without_a_warning(tmp_path):
    model, x, y = Used(), np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    model.compile("adam", loss="mse")
    model.fit(x, y, validation_split=0.5, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    with warnings.catch_warnings(action="error", category=UserWarning):
        save(model, tmp_path / "model.keras")
    np.testing.assert_array_equal(load(tmp_path / "model.keras")(x), model(x))


@pytest.mark.parametrize("on", [True, False])
def test_garbage_is_collected_afterwards_if_it_was_before(on, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    (tmp_path / "none.keras").write_bytes(b"none")
    gc.enable() if on else gc.disable()
    try:
        load(save(model, tmp_path / "model.keras"))
        assert gc.isenabled() == on
        with pytest.raises(ValueError, match="is refused"):
            load(tmp_path / "none.keras")
        assert gc.isenabled() == on
    finally:
        gc.enable()
