import re
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers

from toolkit.training import alone, arrays, fit

RNG = np.random.default_rng(0)
X = RNG.random((75, 6), dtype=np.float32)
Y = (X @ RNG.random((6, 1), dtype=np.float32)).astype(np.float32)
LABELS = (X[:, 0] * 3).astype(np.int64)
TOKENS = RNG.integers(0, 20, (75, 7))
WEIGHTS = np.linspace(0.1, 2.0, 75).astype(np.float32)
IMAGES = RNG.integers(0, 256, (75, 8, 8, 1)).astype(np.uint8)


def sequential(*inner, optimizer="sgd", loss="mse", shape=(6,), metrics=("mae",), **options):
    model = keras.Sequential([keras.Input(shape), *inner])
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics), **options)
    return model


def dense(**options):
    return sequential(layers.Dense(8, activation="relu"), layers.Dense(1), **options)


def classifier(loss="sparse_categorical_crossentropy", **options):
    return sequential(layers.Dense(3, activation="softmax"), loss=loss, metrics=["accuracy"], **options)


def masked(cell):
    embedding = layers.Embedding(20, 4, mask_zero=True)
    return sequential(embedding, cell, layers.Dense(1), shape=(7,), optimizer="adam")


@pytest.mark.parametrize("scaled", [False, True])
def test_mixed_precision(scaled):
    losses = []
    for ours in (False, True):
        keras.utils.set_random_seed(1)
        optimizer = keras.optimizers.Adam()
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)
        model = sequential(layers.Dense(8, dtype="mixed_float16"), layers.Dense(1), optimizer=optimizer)
        train = (lambda *a, model=model, **k: fit(model, *a, **k)) if ours else model.fit
        losses.append(train(X, Y, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_xla_gives_the_same_numbers():
    histories = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        arguments = {"epochs": 3, "batch_size": 4, "validation_split": 0.5, "verbose": 0}
        history = fit(dense(), X, Y, jit=jit, **arguments).history
        histories.append(history["loss"] + history["val_loss"])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-5)


@pytest.mark.parametrize("rows", [75, 64])  # with an uneven last batch, and without
def test_xla_compiles_recurrent_layers(rows):
    losses = []
    for jit in (False, True):  # a warning that XLA cannot compile it would be an error here
        keras.utils.set_random_seed(1)
        model = masked(layers.LSTM(4))
        history = fit(model, TOKENS[:rows], Y[:rows], batch_size=16, epochs=2, verbose=0, jit=jit)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


class OnTheHost(layers.Layer):
    """An op that XLA does not know."""

    def call(self, x):
        return tf.ensure_shape(tf.numpy_function(lambda values: values + 1, [x], tf.float32), x.shape)


def test_xla_that_cannot_compile_falls_back():
    losses = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        model = sequential(OnTheHost(), layers.Dense(1))
        if not jit:
            losses.append(fit(model, X, Y, epochs=2, verbose=0, jit=False).history["loss"])
    with pytest.warns(UserWarning, match="XLA cannot compile this model, so the plain graph runs"):
        losses.append(fit(model, X, Y, epochs=2, verbose=0, jit=True).history["loss"])
    assert losses[0] == losses[1]
    assert int(model.optimizer.iterations) == 2 * 3


FRESH = """
import keras, numpy as np
from toolkit.training import alone, arrays, fit
keras.utils.set_random_seed(7)
x, y = np.random.rand(80, 5), np.random.rand(80)
layers = keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(1)
model = keras.Sequential([keras.Input((5,)), *layers])
model.compile("adam", loss="mse")
print(repr(fit(model, x, y, epochs=3, verbose=0, validation_split=0.25).history))
"""


def test_same_seed_same_history_in_a_fresh_process():
    runs = [
        subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert "val_loss" in runs[0]


def test_shuffles_by_seed_and_epoch():
    seen = []

    class Spy(keras.Model):
        def train_step(self, data):
            seen_rows.assign(tf.concat([seen_rows[1:], [data[0][0, 0]]], 0))
            return {"loss": tf.constant(0.0)}

    x = np.arange(50, dtype=np.float32)[:, None]
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        seen_rows = tf.Variable(tf.zeros(100))
        model = Spy()
        model.compile("sgd")
        fit(model, x, x, batch_size=1, epochs=2, verbose=0)
        seen.append(seen_rows.numpy())
        assert sorted(seen[-1][:50]) == sorted(seen[-1][50:]) == list(range(50))  # each epoch sees all rows
        assert list(seen[-1][:50]) != list(seen[-1][50:])
    assert list(seen[0]) == list(seen[1]) != list(seen[2])


def test_dropout_draws_anew_each_step():
    model = sequential(layers.Dropout(0.5), layers.Dense(1), optimizer=keras.optimizers.SGD(0.0))
    losses = fit(model, X, Y, batch_size=75, epochs=4, shuffle=False, verbose=0).history["loss"]
    assert len(set(losses)) == 4


def test_goes_on_where_it_stopped():
    keras.utils.set_random_seed(1)
    whole = dense(optimizer="adam")
    keras.utils.set_random_seed(1)
    parts = dense(optimizer="adam")
    expected = whole.fit(X, Y, epochs=6, shuffle=False, verbose=0).history["loss"]
    losses = fit(parts, X, Y, epochs=2, shuffle=False, verbose=0).history["loss"]
    losses += parts.fit(X, Y, epochs=2, shuffle=False, verbose=0).history["loss"]
    losses += fit(parts, X, Y, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert parts.predict(X, verbose=0).shape == (75, 1)


def test_is_not_traced_again():
    traces = []

    class Counting(layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x

    def change(epoch, rate):
        return rate / 2

    callbacks = [keras.callbacks.LearningRateScheduler(change)]
    model = sequential(Counting(), layers.Dense(1))
    traces.clear()
    fit(model, X, Y, epochs=6, validation_split=0.2, verbose=0, callbacks=callbacks)
    assert (
        len([shape for shape in traces if shape[0] is None]) == 2
    )  # training and validation, all their batches


def test_sees_data_of_another_dtype_as_model_fit_does():
    keras.utils.set_random_seed(1)
    model = sequential(layers.Flatten(), layers.Dense(1), shape=(8, 8, 1))
    seen = []
    model.train_step = lambda data, step=model.train_step: (seen.append(data[0].dtype), step(data))[1]
    fit(model, IMAGES, Y, verbose=0)
    assert set(seen) == {tf.uint8}


def test_refuses_data_that_do_not_fit_the_device(monkeypatch):
    monkeypatch.setattr(arrays, "free_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"fit the device's free memory, 1,000 bytes.*Received: 2,100 bytes"):
        fit(dense(), X, Y, verbose=0)


@pytest.mark.parametrize("start", [0, 64, 4, 16])
def test_memory_is_shared_where_it_can_be(start, monkeypatch):
    monkeypatch.setattr(arrays, "SHARED_BYTES", 1)
    memory = np.zeros(X.nbytes + 128, np.uint8)
    start += -memory.ctypes.data % 64
    x = memory[start : start + X.nbytes].view(np.float32).reshape(X.shape)
    x[:] = X
    (tensor,) = arrays.upload(x, share=True)
    x[0, 0] = 7.0
    assert (tensor[0, 0] == 7.0) == (x.ctypes.data % 64 == 0)
    x[0, 0] = X[0, 0]
    losses = []
    for data in (X, x):
        keras.utils.set_random_seed(1)
        losses.append(fit(dense(), data, Y, epochs=2, validation_split=0.2, verbose=0).history["loss"])
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(x, X)
    for other in (x[::2], x.astype("S"), x.astype(bool)):
        np.testing.assert_array_equal(arrays.upload(other, share=True)[0].numpy(), other)


@pytest.mark.parametrize("columns", [6, 1 << 17])  # coordinates in 16 bits, and in 32
def test_csr_rows_of_any_width_give_the_numbers_of_model_fit(columns):
    x = scipy.sparse.csr_matrix(
        (X.ravel(), np.arange(450) * 290 % columns, np.arange(0, 451, 6)), (75, columns)
    )
    losses = []
    for ours in (False, True):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((columns,), sparse=True), layers.Dense(1)])
        model.compile("sgd", loss="mse")
        train = (lambda *a, model=model, **k: fit(model, *a, **k)) if ours else model.fit
        losses.append(train(x, Y, epochs=3, batch_size=16, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize("rows", [slice(60), slice(60, None), slice(0)])
def test_rows_of_a_split_share_the_memory_of_a_csr_matrix(rows):
    whole = scipy.sparse.csr_array(X * (X > 0.6))
    (part,) = arrays.to_table(whole, None, None).take(rows).leaves
    np.testing.assert_array_equal(part.toarray(), whole.toarray()[rows])
    for name in ("data", "indices") if part.nnz else ():
        assert np.shares_memory(getattr(part, name), getattr(whole, name))


def test_callbacks_at_epochs(tmp_path):
    keras.utils.set_random_seed(1)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, float(self.model.optimizer.learning_rate), sorted(logs)))

    model = dense(optimizer=keras.optimizers.SGD(0.1))
    history = fit(
        model, X, Y, epochs=4, validation_split=0.2, verbose=0,
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1)),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
            keras.callbacks.TerminateOnNaN(),
            Watch(),
        ],
    )  # fmt: skip
    assert [rate for _, rate, _ in seen] == pytest.approx([0.1, 0.05, 0.1 / 3, 0.025])
    assert seen[0][2] == ["learning_rate", "loss", "mae", "val_loss", "val_mae"]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    best = keras.models.load_model(tmp_path / "best.keras").evaluate(X[60:], Y[60:], verbose=0)[0]
    assert best == pytest.approx(min(history.history["val_loss"]), rel=1e-5)


def test_tensorboard_gets_the_epochs_of_model_fit(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = []
    for ours in (False, True):
        keras.utils.set_random_seed(1)
        model, folder = dense(), tmp_path / str(ours)
        train = (lambda *a, model=model, **k: fit(model, *a, **k)) if ours else model.fit
        board = keras.callbacks.TensorBoard(folder, write_graph=False)
        train(X, Y, epochs=3, validation_split=0.2, shuffle=False, verbose=0, callbacks=[board])
        values = {}
        for part in ("train", "validation"):
            events = EventAccumulator(str(folder / part)).Reload()
            for tag in events.Tags()["tensors"]:
                values[part, tag] = [
                    (e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)
                ]
        written.append(values)
    theirs, ours = written
    assert set(theirs) == set(ours) >= {("train", "epoch_loss"), ("validation", "epoch_mae")}
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=str(name))


def test_learning_rate_that_a_callback_sets_is_used():
    keras.utils.set_random_seed(1)
    model = dense(optimizer=keras.optimizers.SGD(0.1))
    stop = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate if epoch == 0 else 0.0)
    losses = fit(model, X, Y, epochs=3, shuffle=False, verbose=0, callbacks=stop).history["loss"]
    assert losses[0] > losses[1] == losses[2]


def test_reduce_on_plateau_and_early_stopping_restore_the_best():
    keras.utils.set_random_seed(1)
    model = dense(optimizer=keras.optimizers.SGD(0.05))
    rise = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate if epoch < 2 else 1.0)
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
    history = fit(model, X, Y, epochs=20, validation_split=0.2, verbose=0, callbacks=[rise, stop]).history
    assert len(history["loss"]) < 20
    restored = model.evaluate(X[60:], Y[60:], verbose=0)[0]
    assert restored == pytest.approx(min(history["val_loss"]), rel=1e-5)

    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e9)
    fit(model, X, Y, epochs=4, verbose=0, callbacks=plateau)
    assert float(model.optimizer.learning_rate) < 1.0


class EveryBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class EveryTestBatch(keras.callbacks.Callback):
    def on_test_batch_begin(self, batch, logs=None):
        pass


@pytest.mark.parametrize(
    ("callback", "hook"),
    [
        (EveryBatch(), "EveryBatch, which has on_train_batch_end"),
        (EveryTestBatch(), "EveryTestBatch, which has on_test_batch_begin"),
        (
            keras.callbacks.LambdaCallback(on_train_batch_begin=print),
            "LambdaCallback, which has on_train_batch_begin",
        ),
        (
            keras.callbacks.ModelCheckpoint("x.keras", save_freq=5),
            "ModelCheckpoint, which has on_train_batch_end",
        ),
        (
            keras.callbacks.TensorBoard("logs", update_freq=2),
            "TensorBoard, which has on_train_batch_begin",
        ),
        (print, "must be keras.callbacks.Callback objects"),
    ],
)
def test_refuses_callbacks_that_need_every_batch(callback, hook):
    with pytest.raises(TypeError, match=hook):
        fit(dense(), X, Y, callbacks=[callback], verbose=0)


def test_terminate_on_nan_stops_at_the_epoch():
    model = dense(optimizer=keras.optimizers.SGD(1e20))
    fit(model, X, Y, epochs=9, verbose=0, callbacks=keras.callbacks.TerminateOnNaN())
    assert len(model.history.epoch) < 9
    with pytest.raises(RuntimeError, match="NaN or Inf loss"):
        fit(model, X, Y, epochs=9, verbose=0, callbacks=keras.callbacks.TerminateOnNaN(raise_error=True))


def test_weights_that_are_not_finite_stop_the_run():
    model = sequential(layers.Dense(8, activation="relu"), layers.Dense(1))
    spoil = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: (
            epoch == 2 and model.layers[0].kernel.assign(np.full((6, 8), np.nan))
        )
    )
    with pytest.raises(
        FloatingPointError, match=r"must stay finite\. Received: NaN or infinity after epoch 3"
    ):
        fit(model, X, Y, epochs=5, verbose=0, callbacks=spoil)
    assert len(model.history.history["loss"]) == 2
    assert model.predict(X, verbose=0).shape == (75, 1)


def test_interrupt_stops_within_a_call_of_a_third_of_a_second():
    steps, sent = [], []

    class Slow(layers.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(self.wait, [x], tf.float32), x.shape)

        def wait(self, x):
            time.sleep(0.005)  # or more, on a busy machine: then fewer steps are in a call
            steps.append(len(sent))
            return x

    model = sequential(Slow(), layers.Dense(1))
    fit(model, X, Y, epochs=1, batch_size=1, verbose=0, jit=False)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                timer = threading.Timer(0.3, lambda: (sent.append(0), signal.raise_signal(signal.SIGINT)))
                timer.start()

    x = np.repeat(X, 20, axis=0)
    with pytest.raises(KeyboardInterrupt):
        fit(
            model,
            x,
            np.repeat(Y, 20, axis=0),
            epochs=9,
            batch_size=1,
            verbose=0,
            jit=False,
            callbacks=Interrupt(),
        )
    assert steps.count(1) <= 2 * alone.CALL_SECONDS / 0.005  # of 1,500 in the epoch
    assert len(model.history.history["loss"]) == 1
    assert np.isfinite(model.predict(X[:2], verbose=0)).all()


def with_value(array, place, value):
    array = array.copy()
    array[place] = value
    return array


SPARSE = scipy.sparse.csr_matrix(with_value(X * (X > 0.6), (3, 2), np.inf))
SOFTMAX = np.eye(3, dtype=np.float32)[LABELS]


@pytest.mark.parametrize(
    ("build", "x", "y", "arguments", "message"),
    [
        (dense, with_value(X, (3, 2), np.nan), Y, {}, "`x` must be finite. Received: nan in row 3, column 2"),
        (dense, SPARSE, Y, {}, "`x` must be finite. Received: inf in row 3, column 2"),
        (dense, X.astype(np.float64) * 1e300, Y, {}, "`x` must be finite. Received: inf in row 0, column 0"),
        (dense, X, with_value(Y, 5, np.inf), {}, "`y` must be finite. Received: inf in row 5, column 0"),
        (
            dense,
            X,
            Y,
            {"sample_weight": with_value(WEIGHTS, 5, np.nan)},
            "`sample_weight` must be finite. Received: nan in row 5",
        ),
        (dense, X, Y[:70], {}, "`y` must have as many rows as x, n=75. Received: 70"),
        (
            dense,
            X,
            Y,
            {"validation_data": (X[:5], Y[:4])},
            "`validation y` must have as many rows as x, n=5. Received: 4",
        ),
        (dense, X[:0], Y[:0], {}, "`x` must have at least one row"),
        (dense, {}, Y, {}, "`x` must be an array, or hold some. Received: {}"),
        (dense, X.astype(str), Y, {}, "`x` must hold numbers, as the model's inputs do. Received: strings"),
        (dense, [[1, 2], [3]], Y, {}, "`x` must have rows of equal length"),
        (dense, X, Y, {"batch_size": 0}, "`batch_size` must be a whole number, 1 or more. Received: 0"),
        (dense, X, Y, {"validation_split": 1.0}, "`validation_split` must leave rows on both sides"),
        (
            classifier,
            X,
            with_value(LABELS, 9, 3),
            {},
            "`y` must be classes from 0 to 2. Received: 3 in row 9",
        ),
        (
            classifier,
            X,
            with_value(LABELS, 9, -1),
            {},
            "`y` must be classes from 0 to 2. Received: -1 in row 9",
        ),
        (classifier, X, SOFTMAX, {}, "`y` must be class numbers for sparse_categorical_crossentropy"),
        (lambda: classifier("categorical_crossentropy"), X, LABELS, {}, "`y` must be one-hot, 3 columns"),
        (
            lambda: dense(loss="binary_crossentropy"),
            X,
            LABELS,
            {},
            "`y` must be labels from 0 to 1. Received: 2",
        ),
        (
            classifier,
            X,
            LABELS,
            {"class_weight": {"0": 2.0}},
            "`class_weight` must have whole numbers as keys. Received: '0'",
        ),
        (
            classifier,
            X,
            LABELS,
            {"class_weight": {0: 2.0}, "sample_weight": WEIGHTS},
            "`class_weight` must be None",
        ),
        (lambda: keras.Sequential([layers.Dense(1)]), X, Y, {}, "`model` must be a compiled keras.Model"),
        (lambda: dense(run_eagerly=True), X, Y, {}, "run_eagerly=False"),
        (lambda: "m", X, Y, {}, "`model` must be a compiled keras.Model. Received: str"),
        (dense, X, Y.astype(str), {}, "`y` must hold numbers: turn labels into class numbers first"),
        (dense, X, Y, {"validation_data": X}, "`validation_data` must be (x, y) or (x, y, sample_weight)"),
        (dense, X, Y, {"steps_per_epoch": 2}, "`steps_per_epoch` must be None"),
        (
            dense,
            X,
            Y,
            {"validation_split": 0.2, "validation_steps": 9},
            "`validation_steps` must be at most 1",
        ),
        (dense, X, Y, {"validation_freq": 0}, "`validation_freq` must be a whole number, 1 or more"),
        (dense, X, Y, {"shuffle": "batch"}, "`shuffle` must be True or False; use model.fit"),
    ],
)
def test_refuses_before_training(build, x, y, arguments, message):
    model = build()
    before = getattr(model, "get_weights", list)()
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(model, x, y, verbose=0, **arguments)
    after = getattr(model, "get_weights", list)()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_label_that_the_loss_ignores_is_no_error():
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    assert fit(classifier(loss), X, with_value(LABELS, 9, -1), verbose=0).history["loss"]


def test_refuses_labels_outside_the_classes_of_a_subclass():
    class Unbuilt(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(3, activation="softmax")

        def call(self, x):
            return self.inner(x)

    model = Unbuilt()
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="Received: 3 in row 9"):
        fit(model, X, with_value(LABELS, 9, 3), verbose=0)
    assert len(fit(model, X, LABELS, epochs=2, verbose=0).history["loss"]) == 2


@pytest.mark.parametrize("x", [tf.data.Dataset.range(3), (i for i in range(3)), "x.csv"])
def test_refuses_datasets_and_generators(x):
    with pytest.raises(TypeError, match=r"use model\.fit for datasets and generators"):
        fit(dense(), x, Y, verbose=0)


def test_refuses_a_distribution_strategy():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = dense()
    with pytest.raises(ValueError, match=r"one device; use model\.fit"):
        fit(model, X, Y, verbose=0)


def test_takes_tensors_and_lists():
    keras.utils.set_random_seed(1)
    expected = fit(dense(), X, Y, verbose=0).history["loss"]
    for x, y in ((tf.constant(X), tf.constant(Y)), (X.tolist(), Y.tolist())):
        keras.utils.set_random_seed(1)
        assert fit(dense(), x, y, verbose=0).history["loss"] == expected


def test_prints_a_line_an_epoch_where_there_is_no_terminal(capsys):
    fit(dense(), X, Y, epochs=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("Epoch 2/3 - ")
    assert re.search(r" - loss: \d\.\d{4} - mae: \d\.\d{4}$", lines[1])
    fit(dense(), X, Y, epochs=200)
    assert len(capsys.readouterr().out.splitlines()) <= 21


def test_bar_moves_within_a_long_epoch(monkeypatch, capsys):
    monkeypatch.setattr(alone, "CALL_SECONDS", 0.0)  # one step a call
    monkeypatch.setattr(keras.utils.Progbar, "update", lambda self, current, *a, **k: print("at", current))
    fit(dense(), X, Y, batch_size=25, epochs=2, verbose=1)
    assert capsys.readouterr().out.split("\n")[:5] == ["Epoch 1/2", "at 1", "at 2", "at 3", "at 3"]
