"""Train one net on several devices, and in several processes: each takes a share of every batch.

Teaches   Data-parallel training: share the rows out, add the gradients up, divide once, and the
          numbers are those of one device; MirroredStrategy with model.fit; several workers with
          a loop of our own; a worker that is killed; what the traffic costs, and when it pays.
Data      MNIST: 10,000 of the training images, 10,000 test images, of 28 x 28 pixels.
Source    Géron, Hands-On Machine Learning, chapter 19, on training across several devices.
Takes     40 s
Try next  --workers 3. In `own_step`, let each worker divide by its own rows; or take "relu" in the
          place of "tanh": what becomes of the differences?
"""

import os
import signal
from time import perf_counter

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.linear_model import RidgeClassifier

import toolkit
from toolkit.drawing import draw_costs
from toolkit.run import Run, cli
from toolkit.workers import devices, run_workers

# Seeds 0 to 9: test_accuracy 0.925 to 0.932; seeds 0 and 1: differences 3e-8 to 8e-7.
EXPECTED = {
    "test_accuracy": (0.915, 0.94),
    "gradient_difference": (0, 1e-6),
    "devices_difference": (0, 1e-5),
    "workers_difference": (0, 1e-5),
    "rank_difference": (0, 0),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 1}


def build_model(units: int) -> keras.Model:
    """Build and compile a net with one hidden layer."""
    # Where numbers are added in another order, the last digit of the sum differs. "tanh" keeps that
    # small. "relu" has a kink at 0: on which side of it a sum falls may hang on its last digit.
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(units=units, activation="tanh"),
            layers.Dense(units=10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=0.2, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)  # its memory is saved, and shared, from now on
    return model


def own_gradients(model: keras.Model, x, y, batch_size: int) -> list:
    """Return the gradients for some rows of a batch: their part of those for the whole batch."""
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(y, model(x, training=True))
        # Not the mean of these rows, but their part of the mean of all rows of the batch.
        loss = tf.reduce_sum(losses) / batch_size
    return tape.gradient(loss, model.trainable_variables)


def train_on_devices(rank: int, saved, x, y, batch_size: int, epochs: int) -> np.ndarray:
    """Train a saved model by model.fit on the devices of one process; return the weights."""
    names = devices(at_least=2)  # GPUs; where there are none, two parts of the processor
    strategy = tf.distribute.MirroredStrategy(names)
    with strategy.scope():  # what is made in here has a copy on each device
        model = keras.saving.load_model(saved)
    model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)

    # keras.distribution promises the same. On TensorFlow it takes the devices and, without a word,
    # leaves all rows to one of them. So never use it there.
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
    output = build_model(units=8)(x[:batch_size])
    print(f"keras.distribution has {len(names)} devices: all {len(output)} rows on {output.device}")
    return flat(model.get_weights())


def make_step(strategy: tf.distribute.Strategy, model: keras.Model):
    """Return a function that takes a step: on the rows of this worker, and together with others."""

    # Several processes need a loop of our own: model.fit of Keras 3.15 cannot read their shares.
    def own_step(x, y, batch_size):
        gradients = own_gradients(model, x, y, batch_size)
        # Here is the traffic: the optimizer adds up the gradients of all workers, and then moves
        # the weights, of which each worker has a copy. All copies move alike, so they stay alike.
        model.optimizer.apply(gradients, model.trainable_variables)

    return tf.function(lambda *rows: strategy.run(own_step, args=rows), reduce_retracing=True)


def train_worker(rank: int, saved, x, y, batch_size: int, epochs: int, killed: int | None):
    """Go on with a saved model, as one of several workers; return the weights after each epoch."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # meets the others, named in TF_CONFIG
    count = strategy.num_replicas_in_sync
    with strategy.scope():
        model = keras.saving.load_model(saved)
    step = make_step(strategy, model)
    starts = range(0, len(x), batch_size)
    done = int(model.optimizer.iterations.numpy()) // len(starts)  # the file has counted the steps
    weights = []
    for epoch in range(done, epochs):
        for start in starts:
            if rank == killed and epoch == epochs // 2 and start >= len(x) // 2:
                os.kill(os.getpid(), signal.SIGKILL)  # as if its power had failed
            batch = slice(start, start + batch_size)
            try:  # its own rows: every count-th one of the batch, from number `rank` on
                step(x[batch][rank::count], y[batch][rank::count], len(x[batch]))
            except tf.errors.UnavailableError as error:
                raise ConnectionError(f"epoch {epoch + 1} needs a worker that is gone") from error
        weights.append(flat(model.get_weights()))
        print(f"epoch {epoch + 1}: the weights add up to {weights[-1].sum():.6f}")
        if rank == 0:  # one of them saves for all
            toolkit.save(model, saved)
    return weights


def time_step(strategy, x, y, rank: int, units: int) -> float:
    """Return the seconds that a step takes, for a net of so many hidden units."""
    with strategy.scope():
        model = build_model(units)
    step = make_step(strategy, model)
    count = strategy.num_replicas_in_sync
    clock = []
    for _ in range(12):
        step(x[rank::count], y[rank::count], len(x))
        clock.append(perf_counter())
    return np.median(np.diff(clock[3:]))  # the first steps are slow: TensorFlow translates them


def time_steps(rank: int, x, y, cases: list[tuple[int, int]]) -> list[list[float]]:
    """Time steps for each case, on all rows alone, and on a share of them together with others."""
    # Outside of any scope, `get_strategy` gives the one that shares nothing.
    strategies = [tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy()]
    times = []
    for rows, units in cases:
        times.append([time_step(each, x[:rows], y[:rows], rank, units) for each in strategies])
    return times


def main(run: Run, *, workers: int = 2, epochs: int = 4, batch_size: int = 200) -> None:
    """Train on one device, on two, and in several processes, of which one is killed.

    Args:
        workers: Processes that train together.
        epochs: Passes over the training rows.
        batch_size: Rows a step, of all devices or workers together.
    """
    # 1. Data: few rows, as most of the time goes into the start of processes.
    (x, y), (x_test, y_test) = run.data.mnist()
    x, y = x[:10_000], y[:10_000]  # (10000, 28, 28), (10000,)

    # 2. Baselines: the most frequent digit, and a linear model. (run.score prints a score, beside
    #    the range in which it is expected, if it has one.)
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()))
    linear = RidgeClassifier(alpha=1e6).fit(x.reshape(-1, 784).astype("float32"), y)
    run.score(linear_accuracy=linear.score(x_test.reshape(-1, 784), y_test))

    # 3. The idea: a gradient is a sum over rows. So shares of the rows give parts of that sum,
    #    wherever they are computed; added up, they are the gradient of the whole batch.
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU rounds less, then
    model = build_model(units=128)
    saved = run.path("model.keras")
    toolkit.save(model, saved)  # all trainings begin with the weights in this file
    whole = flat(own_gradients(model, x[:batch_size], y[:batch_size], batch_size))
    for rank in range(workers):
        rows = slice(rank, batch_size, workers)  # every workers-th row of the batch
        whole -= flat(own_gradients(model, x[rows], y[rows], batch_size))
    run.score(gradient_difference=abs(whole).max())  # what is left of it

    # 4. One device, to compare with. toolkit.fit is model.fit with the same arguments, only faster:
    #    one call of TensorFlow takes many steps. Unshuffled: in all trainings the same batches.
    toolkit.fit(
        model, x, y, batch_size=batch_size, epochs=epochs, shuffle=False, callbacks=[run.log()]
    )
    wanted = flat(model.get_weights())
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    print(f"The first test image is a {model.predict(x_test[:1], verbose=0).argmax()}.")

    # 5. Two devices of one process. (run_workers calls a function in new processes.)
    plan = (saved, x, y, batch_size, epochs)
    (trained,) = run_workers(train_on_devices, *plan)
    run.score(devices_difference=abs(trained - wanted).max())

    # 6. Several processes, as if on several machines. One is killed halfway, and all must stop.
    try:
        run_workers(train_worker, *plan, workers - 1, count=workers)
    except ChildProcessError as error:
        print(error)

    # 7. New processes go on from the last file, and end with the numbers of one device.
    weights = np.array(run_workers(train_worker, *plan, None, count=workers))
    run.score(workers_difference=abs(weights[0, -1] - wanted).max())  # (workers, epochs, numbers)
    run.score(rank_difference=np.ptp(weights, axis=0).max())  # largest minus smallest of all ranks

    # 8. The price: in each step 795 gradients of each hidden unit travel, however few the rows.
    cases = [(rows, units) for rows in (200, 2000) for units in (16, 128, 1024)]
    times = run_workers(time_steps, x, y, cases, count=workers)[0]  # as worker 0 has them
    print(f"rows a step, hidden units: seconds a step alone, and with {workers} workers")
    for (rows, units), (alone, together) in zip(cases, times, strict=True):
        print(f"{rows:11}, {units:12}: {alone:20.4f}, {together:8.4f}")
    run.figure("costs.png", draw_costs(cases, times, ["alone", f"{workers} workers"]))


def flat(arrays: list) -> np.ndarray:
    """Return all numbers of some arrays in one row."""
    return np.concatenate([np.ravel(array) for array in arrays])


if __name__ == "__main__":
    cli(main)
