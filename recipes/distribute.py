"""Train one net on several devices, and in several processes: each takes a share of every batch.

Teaches   Data-parallel training: gradients of the shares of a batch, added up and divided once, are
          those of one device; MirroredStrategy with model.fit; several workers with a loop of our
          own; a worker that is killed; what the traffic costs, when it pays.
Data      MNIST: 10,000 of the training images, 10,000 test images, of 28 x 28 pixels.
Source    Géron, Hands-On Machine Learning, chapter 19, on training across several devices.
Takes     40 s
Try next  --workers 3. In `own_step`, give own_gradients len(x) in the place of batch_size; or take
          "relu" in the place of "tanh": what becomes of the differences?
"""

import os
import signal

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.linear_model import RidgeClassifier

import toolkit
from toolkit.drawing import draw_costs
from toolkit.run import Run, cli
from toolkit.workers import devices, run_workers, time_calls

# Seeds 0 to 9: test_accuracy 0.925 to 0.932, differences 2e-8 to 8e-7 (ranks: 0).
EXPECTED = {
    "test_accuracy": (0.915, 0.94),
    "gradient_difference": (0, 1e-6),
    "devices_difference": (0, 1e-5),
    "workers_difference": (0, 1e-5),
    "rank_difference": (0, 0),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 1}


# Read the numbered steps below first: they say when each of these functions is called.
def build_model(units: int) -> keras.Model:
    """Build and compile a net with one hidden layer."""
    # Why not "relu"? Several devices add in another order, so the last digits of sums differ. These
    # may decide whether the slope of relu is 0 or 1, but the slope of tanh hardly changes.
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(units=units, activation="tanh"),
            layers.Dense(units=10, activation="softmax"),
        ]
    )
    # SGD is gradient descent. With this momentum each step adds 0.9 of the step before, which the
    # optimizer remembers for each weight.
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=0.2, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)  # now, to be in the saved file, too
    return model


def own_gradients(model: keras.Model, x, y, batch_size: int) -> list:
    """Return what some rows add to the gradients of the whole batch, which has batch_size rows."""
    with tf.GradientTape() as tape:  # notes what is computed, to find the gradients afterwards
        probabilities = model(x, training=True)  # (rows, 10)
        losses = keras.losses.sparse_categorical_crossentropy(y, probabilities)  # (rows,)
        # Not the mean of these rows, but their part of the mean of all rows of the batch.
        loss = tf.reduce_sum(losses) / batch_size
    return tape.gradient(loss, model.trainable_variables)  # one array for each array of weights


def train_on_devices(rank: int, saved, x, y, batch_size: int, epochs: int) -> np.ndarray:
    """Train the model of the file `saved` on two devices of one process; return its weights."""
    # A strategy says how devices work together. "Mirrored": each has a copy of all weights, takes a
    # share of each batch, and after each step the copies are equal again. (keras.distribution is no
    # help with TensorFlow: one device gets all rows.) Devices are GPUs, or parts of the processor.
    strategy = tf.distribute.MirroredStrategy(devices(at_least=2))
    with strategy.scope():  # what is made in here has a copy on each device
        model = keras.saving.load_model(saved)  # compiled, as it was saved
    model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return flat(model.get_weights())


def make_step(strategy: tf.distribute.Strategy, model: keras.Model):
    """Return a function that takes a step: on the rows of this worker, and together with others."""

    def own_step(x, y, batch_size):
        gradients = own_gradients(model, x, y, batch_size)
        # Here is the traffic. The model was made in the scope of a strategy, so its optimizer sends
        # these gradients to the others, waits for theirs, and adds them all up. Then each worker
        # moves its own copy of the weights by the same sum: all copies stay alike.
        model.optimizer.apply(gradients, model.trainable_variables)

    # strategy.run calls own_step as a part of the strategy. tf.function makes a graph of it, once.
    return tf.function(lambda *rows: strategy.run(own_step, args=rows))


def train_worker(rank: int, saved, x, y, batch_size: int, epochs: int, killed: int | None):
    """Go on with a saved model, as worker number `rank`; return the weights after each epoch."""
    # run_workers has set a variable, TF_CONFIG: the address of each worker, and which one this is.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # waits until all are connected
    count = strategy.num_replicas_in_sync  # copies of the model: one in each worker
    with strategy.scope():
        model = keras.saving.load_model(saved)
    step = make_step(strategy, model)
    starts = range(0, len(x), batch_size)  # of the batches: as many as steps in an epoch
    done = int(model.optimizer.iterations.numpy()) // len(starts)  # epochs so far
    weights = []
    for epoch in range(done, epochs):
        for start in starts:
            if rank == killed and epoch == epochs // 2 and start >= len(x) // 2:
                os.kill(os.getpid(), signal.SIGKILL)  # as if its power had failed
            stop = min(start + batch_size, len(x))
            own = slice(start + rank, stop, count)  # of the batch, every count-th row from rank on
            try:
                step(x[own], y[own], stop - start)  # x[own] of 2 workers: (100, 28, 28)
            except tf.errors.UnavailableError as error:  # a connection broke while it waited
                raise ConnectionError(f"epoch {epoch + 1} needs a worker that is gone") from error
        weights.append(flat(model.get_weights()))
        print(f"epoch {epoch + 1}: the weights add up to {weights[-1].sum():.6f}")
        if rank == 0:  # one of them saves for all
            toolkit.save(model, saved)
    return weights


def time_steps(rank: int, x, y, cases: list[tuple[int, int]]) -> list[list[float]]:
    """Return the seconds of a step for each case: alone on all rows; with others on a share."""
    # Outside of any scope, get_strategy gives the one that shares nothing.
    strategies = [tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy()]
    times = []
    for rows, units in cases:
        times.append([])
        for strategy in strategies:
            with strategy.scope():
                model = build_model(units)
            count = strategy.num_replicas_in_sync  # alone it is 1, and the share is all rows
            share = slice(rank % count, rows, count)
            times[-1].append(time_calls(make_step(strategy, model), x[share], y[share], rows))
    return times


def main(run: Run, *, workers: int = 2, epochs: int = 4, batch_size: int = 200) -> None:
    """Train on one device, on two, and in several processes, of which one is killed.

    Args:
        workers: Processes that train together.
        epochs: Passes over the training rows.
        batch_size: Rows in each step, of all devices or workers together.
    """
    # 1. Data: few rows, as most of the time goes into the start of processes.
    (x, y), (x_test, y_test) = run.data.mnist()
    x, y = x[:10_000], y[:10_000]  # (10000, 28, 28), (10000,)

    # 2. Baselines: the most frequent digit, and a linear model. Its alpha keeps its weights small.
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()))
    linear = RidgeClassifier(alpha=1e6).fit(x.reshape(-1, 784).astype("float32"), y)
    run.score(linear_accuracy=linear.score(x_test.reshape(-1, 784), y_test))

    # 3. The idea: the loss is a mean over the rows of a batch, so its gradient is a sum over rows,
    #    divided by their number. Shares of the rows give parts of that sum, wherever they are
    #    computed. Take all parts away from the gradient of the whole batch: 0 must be left.
    tf.config.experimental.enable_tensor_float_32_execution(False)  # lets a GPU keep all digits
    model = build_model(units=128)
    saved = toolkit.save(model, run.path("model.keras"))  # all trainings begin with its weights
    left = flat(own_gradients(model, x[:batch_size], y[:batch_size], batch_size))  # (101770,)
    for rank in range(workers):
        rows = slice(rank, batch_size, workers)  # every workers-th row of the batch
        left -= flat(own_gradients(model, x[rows], y[rows], batch_size))
    run.score(gradient_difference=abs(left).max())

    # 4. One device, to compare with. (toolkit.fit does the same as model.fit, only faster: one call
    #    of TensorFlow takes many steps.) shuffle=False: all trainings see the same batches.
    toolkit.fit(
        model, x, y, batch_size=batch_size, epochs=epochs, shuffle=False, callbacks=[run.log()]
    )
    wanted = flat(model.get_weights())
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    print(f"The first test image is a {model.predict(x_test[:1], verbose=0).argmax()}.")

    # 5. Two devices of a new process, for they must be set up before TensorFlow runs its first
    #    operation. run_workers(function, *arguments) calls function(rank, *arguments) in `count`
    #    processes, by default 1, with rank 0, 1, ...; it returns a list with the result of each.
    plan = (saved, x, y, batch_size, epochs)
    (trained,) = run_workers(train_on_devices, *plan)  # (101770,)
    run.score(devices_difference=abs(trained - wanted).max())

    # 6. Several processes, as if on several machines, by our own steps: there model.fit fails in
    #    Keras 3.15. The last worker is killed halfway: without its rows sums are wrong, all stop.
    try:
        run_workers(train_worker, *plan, workers - 1, count=workers)
    except ChildProcessError as error:
        print("One worker is killed on purpose:", error)

    # 7. New processes, of which none is killed (None), go on from the last file: the half epoch is
    #    lost, and done again. All end as one device did. Axes of weights: worker, epoch, number.
    weights = np.array(run_workers(train_worker, *plan, None, count=workers))  # (2, 2, 101770)
    run.score(workers_difference=abs(weights[0, -1] - wanted).max())
    run.score(rank_difference=np.ptp(weights, axis=0).max())  # the largest minus the smallest

    # 8. The price. A hidden unit has 784 weights for the pixels, 1 bias, and 10 weights for the
    #    digits: so 795 gradients a unit travel in each step. With more rows a step, each worker
    #    has more to compute for the same traffic: there it can pay.
    cases = [(rows, units) for rows in (200, 2000) for units in (16, 128, 1024)]
    times = run_workers(time_steps, x, y, cases, count=workers)[0]  # as worker 0 measures them
    print(f"rows a step, hidden units: seconds a step alone, and with {workers} workers")
    for (rows, units), (alone, together) in zip(cases, times, strict=True):
        print(f"{rows:11}, {units:12}: {alone:20.4f}, {together:8.4f}")
    run.figure("costs.png", draw_costs(cases, times, ["alone", f"{workers} workers"], data="MNIST"))


def flat(arrays: list) -> np.ndarray:
    """Return all numbers of some arrays in one row."""
    return np.concatenate([np.ravel(array) for array in arrays])


if __name__ == "__main__":
    cli(main)
