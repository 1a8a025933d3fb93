"""Walk downhill six ways: optimizers in a valley and on a net, each at its own learning rate.

Teaches   What momentum, Nesterov, Adagrad, RMSprop and Adam make of the same gradients; a grid of
          learning rates, as each wants its own; training in rounds, for as long as the validation
          loss falls.
Data      MNIST, a part of it: 5,000 images to train on, 3,000 to validate, 10,000 to test.
Source    Géron, Hands-On Machine Learning, chapters 10 and 11.
Takes     25 s
Try next  --epochs 5: do the same rates win? --round-epochs 10: what does it cost?
"""

import keras
import numpy as np
from keras import layers, optimizers
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeClassifier

import toolkit
from toolkit.drawing import mark_epoch
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.904 to 0.924.
EXPECTED = {"test_accuracy": (0.89, 0.94)}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"round_epochs": 1}
RATES = [0.0001, 0.001, 0.01, 0.1, 1.0]
# For each optimizer: a function that makes it from a learning rate, and a good rate for the valley.
OPTIMIZERS = {
    # A step against the gradient, of rate * gradient.
    "SGD": (lambda rate: optimizers.SGD(learning_rate=rate), 0.035),
    # To that step it adds 0.9 of the step before, as a ball rolls on.
    "momentum": (lambda rate: optimizers.SGD(learning_rate=rate, momentum=0.9), 0.01),
    # The same, with the gradient from a point ahead, to which the momentum alone would lead: see
    # the lesson backprop.
    "Nesterov": (
        lambda rate: optimizers.SGD(learning_rate=rate, momentum=0.9, nesterov=True),
        0.01,
    ),
    # Divides the step of each weight by the root of the sum of its squared gradients so far, which
    # makes up for how steep its direction is. The sum grows, so all steps shrink.
    "Adagrad": (lambda rate: optimizers.Adagrad(learning_rate=rate), 0.5),
    # The same with a moving average in place of the sum: it forgets, and the steps need not shrink.
    "RMSprop": (lambda rate: optimizers.RMSprop(learning_rate=rate), 0.1),
    # RMSprop with momentum: the step follows a moving average of the gradients.
    "Adam": (lambda rate: optimizers.Adam(learning_rate=rate), 0.2),
}


def valley(x, y):
    """A long floor along x, and sides along y that are 50 times as steep; lowest at (0, 0)."""
    return 0.5 * x**2 + 25 * y**2


def walk(optimizer: keras.Optimizer) -> np.ndarray:
    """Return the optimizer's path through the valley, of shape (61, 2)."""
    point = keras.Variable([-5.0, 1.0])
    path = [point.numpy()]
    for _ in range(60):
        gradient = point * [1.0, 50.0]  # the derivatives of the valley: x, and 50 y
        optimizer.apply([gradient], [point])  # one step, as `fit` takes it for all weights
        path.append(point.numpy())
    return np.array(path)


def build_model(optimizer: keras.Optimizer) -> keras.Model:
    """A small net for images."""
    model = keras.Sequential(
        [
            keras.Input(shape=(784,)),
            layers.Dense(units=32, activation="relu"),
            layers.Dense(units=10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def build_grid() -> list[keras.Model]:
    """One net for each optimizer and each learning rate."""
    models = []
    for make, _ in OPTIMIZERS.values():
        for rate in RATES:
            models.append(build_model(make(rate)))
    return models


def main(run: Run, *, epochs: int = 1, round_epochs: int = 2) -> None:
    """Draw the paths, search the learning rates, and train on with the best for as long as it pays.

    Args:
        epochs: Passes over the training rows at each point of the grid.
        round_epochs: Passes before each look at the validation loss, which decides to go on or not.
    """
    # 1. Data: few images, so that 30 nets are soon trained. The test rows score the baselines and,
    #    in step 6, the last model. Until then no choice looks at them.
    (images, labels), (test_images, y_test) = run.data.mnist()
    x = images[:8000].reshape(-1, 784).astype("float32") / 255  # (8000, 784)
    y = labels[:8000]
    x_test = test_images.reshape(-1, 784).astype("float32") / 255  # (10000, 784)
    rows, watched = np.split(np.arange(len(x)), [len(x) * 5 // 8])  # 5,000 and 3,000

    # 2. Baselines: always the most frequent class, and a linear model. (run.score prints a score,
    #    beside the range in which it is expected, if it has one.)
    frequent = np.bincount(y[rows]).argmax()
    run.score(baseline_accuracy=np.mean(y_test == frequent))
    # A large alpha keeps the weights small.
    linear = RidgeClassifier(alpha=100).fit(x[rows], y[rows])
    run.score(linear_accuracy=linear.score(x_test, y_test))

    # 3. A walk through a valley: in two dimensions one can see what each optimizer does.
    paths = {name: walk(make(rate)) for name, (make, rate) in OPTIMIZERS.items()}
    run.figure("valley.png", draw_paths(paths))

    # 4. The same six on a net, each with five learning rates. toolkit.fit_many does what model.fit
    #    would do for each net in turn, only faster: nets that are alike are trained together.
    models = build_grid()
    print(f"Training {len(models)} nets ...")
    histories = toolkit.fit_many(
        models,
        x,
        y,
        splits=[(rows, watched)] * len(models),  # for each net: rows to train on, and to validate
        epochs=epochs,
        verbose=0,
    )
    losses = np.array([history.history["val_loss"][-1] for history in histories])  # (30,)
    table = losses.reshape(len(OPTIMIZERS), len(RATES))  # (6, 5)
    print_losses(table)
    run.figure("rates.png", draw_rates(table, epochs))

    # 5. Rounds: train on with the best for as long as the validation loss falls. A second `fit`
    #    goes on where the first one stopped, for the model keeps its weights, and the optimizer its
    #    velocity or moving averages. (toolkit.fit is model.fit with the same arguments, only
    #    faster: one call of TensorFlow takes many steps, where model.fit makes a call a batch.)
    model = models[losses.argmin()]
    curves = histories[losses.argmin()].history
    loss = losses.min()
    lowest = np.inf
    done = epochs
    log = keras.callbacks.CSVLogger(run.path("history.csv"), append=True)  # all rounds in one file
    while loss < lowest:
        lowest = loss
        best_weights = model.get_weights()
        history = toolkit.fit(
            model,
            x[rows],
            y[rows],
            initial_epoch=done,  # the number of epochs behind us
            epochs=done + round_epochs,  # the number at which to stop
            validation_data=(x[watched], y[watched]),
            callbacks=[log],
        )
        done += round_epochs
        loss = history.history["val_loss"][-1]
        for key, values in history.history.items():
            curves[key] += values
    model.set_weights(best_weights)  # for the last round made it worse
    axes = toolkit.plot_history(curves, title="MNIST: training in rounds", unit="cross-entropy")
    mark_epoch(axes, done - round_epochs, "weights kept")
    run.figure("loss.png", axes)

    # 6. One look at the test rows.
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    toolkit.save(model, run.path("model.keras"))
    probabilities = model.predict(x_test[:1], verbose=0)  # (1, 10)
    print(f"First test image: a {probabilities.argmax()}, in truth a {y_test[0]}")


# The rest is no part of the lesson: a table and two figures.


def print_losses(table: np.ndarray) -> None:
    """Print the validation losses, a row an optimizer and a column a learning rate."""
    print("Loss of the validation rows by learning rate:")
    print(f"{'':<10}" + "".join(f"{rate:>9}" for rate in RATES))
    for name, losses in zip(OPTIMIZERS, table, strict=True):
        print(f"{name:<10}" + "".join(f"{loss:>9.3f}" for loss in losses))


def draw_paths(paths: dict) -> Figure:
    """Draw each path on the lines of equal height, in a panel of its own: they cross too often."""
    x, y = np.meshgrid(np.linspace(-5.5, 1.5), np.linspace(-1.2, 1.2))
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    figure.suptitle("60 steps down a valley, from the left to the lowest point (cross)")
    grid = figure.subplots(3, 2, sharex=True, sharey=True)
    for axes, (name, path) in zip(grid.flat, paths.items(), strict=True):
        axes.contour(x, y, valley(x, y), levels=15, colors="lightgrey")
        axes.plot(path[:, 0], path[:, 1], ".-")
        axes.plot(0, 0, "k+", markersize=12)
        axes.set(title=f"{name}, rate {OPTIMIZERS[name][1]}")
    figure.supxlabel("x, along the floor")
    figure.supylabel("y, across it")
    return figure


def draw_rates(table: np.ndarray, epochs: int) -> Axes:
    """Draw the validation loss of each optimizer over the learning rate."""
    axes = Figure(figsize=(6.4, 4.4), layout="constrained").subplots()
    for name, losses in zip(OPTIMIZERS, table, strict=True):
        axes.semilogx(RATES, losses, "o-", label=name)
    axes.set(title=f"MNIST, after epoch {epochs}: each optimizer wants its own rate")
    axes.set(xlabel="learning rate", ylabel="validation loss (cross-entropy)")
    axes.figure.legend(loc="outside lower center", ncols=3)
    return axes


if __name__ == "__main__":
    cli(main)
