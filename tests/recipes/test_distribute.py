import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import toolkit
from recipes.distribute import build_model, flat, own_gradients, train_on_devices, train_worker
from toolkit.workers import run_workers

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (330, 28, 28), dtype=np.uint8)  # the last batch of 60 is half full
Y = RNG.integers(0, 10, 330).astype("uint8")
EPOCHS, BATCH = 4, 60


@pytest.fixture
def saved(tmp_path):
    keras.utils.set_random_seed(0)
    toolkit.save(build_model(units=8), tmp_path / "model.keras")
    return tmp_path / "model.keras"


def one_device(saved):
    """Return the weights after each epoch of model.fit."""
    model, weights = keras.saving.load_model(saved), []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(flat(model.get_weights()))
    )
    model.fit(X, Y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[keep])
    return np.array(weights)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_of_the_gradient_add_up_to_it(count):
    model = build_model(units=8)
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy()(Y, model(X))
    wanted = flat(tape.gradient(loss, model.trainable_variables))
    parts = [flat(own_gradients(model, X[n::count], Y[n::count], len(X))) for n in range(count)]
    np.testing.assert_allclose(sum(parts), wanted, atol=1e-6)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_all_ranks_hold_the_same_weights_after_every_epoch_and_they_are_those_of_one_device(count, saved):
    wanted = one_device(saved)
    weights = np.array(run_workers(train_worker, saved, X, Y, BATCH, EPOCHS, None, count=count))
    assert weights.shape == (count, *wanted.shape)
    for rank in weights:
        np.testing.assert_array_equal(rank, weights[0])
    np.testing.assert_allclose(weights[0], wanted, atol=1e-5)
    assert not np.allclose(wanted[-1], wanted[0], atol=1e-3)  # they have moved


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_stops_the_other_soon_and_new_ones_go_on_to_the_same_numbers(killed, saved, tmp_path):
    other = tmp_path / "other.keras"
    other.write_bytes(saved.read_bytes())
    wanted = run_workers(train_worker, other, X, Y, BATCH, EPOCHS, None, count=2)[0]
    with pytest.raises(ChildProcessError) as error:
        run_workers(train_worker, saved, X, Y, BATCH, EPOCHS, killed, count=2)
    text = str(error.value)
    assert f"worker {killed}: killed by SIGKILL" in text
    assert f"worker {1 - killed}: ConnectionError: epoch 3 needs a worker that is gone" in text
    assert float(re.search(r"within (\S+) s", text)[1]) < 15
    weights = run_workers(train_worker, saved, X, Y, BATCH, EPOCHS, None, count=2)
    for rank in weights:
        np.testing.assert_array_equal(rank, wanted[-2:])  # of the last two epochs, every bit


@pytest.mark.slow
def test_a_worker_that_falls_silent_stops_the_other_within_15_seconds(saved, capsys):
    """As a machine does that is cut off: no connection is closed."""

    def train(rank, *plan):
        import os
        import signal
        import threading
        import time

        from recipes.distribute import train_worker

        def fall_silent():
            print("silent", time.time(), flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)

        if rank == 1:
            threading.Timer(15, fall_silent).start()
        try:
            train_worker(rank, *plan)
        except ConnectionError as error:
            raise RuntimeError(f"{time.time()} {error}") from error

    with pytest.raises(ChildProcessError) as error:
        run_workers(train, saved, X, Y, BATCH, 1_000_000, None, count=2, patience=1)
    stopped = re.search(r"RuntimeError: (\S+) epoch \d+ needs a worker that is gone", str(error.value))
    silent = re.search(r"silent (\S+)", capsys.readouterr().out)
    assert 0 < float(stopped[1]) - float(silent[1]) < 15
    assert "worker 1: it waited more than 1 s" in str(error.value)


def test_two_devices_of_one_process_give_the_numbers_of_one(saved):
    wanted = one_device(saved)[-1]
    (weights,) = run_workers(train_on_devices, saved, X, Y, BATCH, EPOCHS)
    np.testing.assert_allclose(weights, wanted, atol=1e-5)


def test_keras_distribution_leaves_all_rows_to_one_device_as_the_lesson_says():
    def where(rank, x):
        import keras

        from recipes.distribute import build_model
        from toolkit.workers import devices

        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices(at_least=2)))
        output = build_model(units=8)(x)
        return len(output), output.device

    ((rows, device),) = run_workers(where, X[:BATCH])
    assert rows == BATCH
    assert device.endswith(":0")


def test_keras_distribution_leaves_all_of_a_training_to_one_device():
    """What the lesson says. When this fails, Keras has learned it: the lesson must be changed."""

    def train(rank):
        import warnings

        import keras
        import numpy as np

        from recipes.distribute import build_model
        from toolkit.workers import devices

        names = devices(at_least=2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
            model, seen = build_model(units=8), []
            x, y = np.zeros((40, 28, 28), "uint8"), np.zeros(40, "uint8")

            class Look(keras.layers.Layer):
                def call(self, inputs):
                    seen.append((inputs.shape[0], inputs.device))
                    return inputs

            looking = keras.Sequential([keras.Input((28, 28)), Look(), *model.layers])
            looking.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", run_eagerly=True)
            seen.clear()
            looking.fit(x, y, batch_size=20, verbose=0)
        return seen

    (seen,) = run_workers(train)
    assert {rows for rows, _ in seen} == {20}
    assert len({device for _, device in seen}) == 1


def test_model_fit_fails_in_several_processes():
    """What the lesson says. When this fails, Keras has mended it: `make_step` is no longer needed."""

    def fit(rank):
        import numpy as np
        import tensorflow as tf

        from recipes.distribute import build_model

        with tf.distribute.MultiWorkerMirroredStrategy().scope():
            model = build_model(units=8)
        model.fit(np.zeros((40, 28, 28), "uint8"), np.zeros(40, "uint8"), verbose=0)

    with pytest.raises(ChildProcessError, match=r"Attempt to convert a value \(PerReplica"):
        run_workers(fit, count=2)
