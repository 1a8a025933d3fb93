"""Walk downhill six ways: optimizers in a valley and on a net, each at its own learning rate.

Teaches   What momentum, Nesterov, Adagrad, RMSprop and Adam make of the same gradients; a grid of learning
          rates, as each wants its own; training in rounds, for as long as the validation loss falls.
Data      MNIST, a part of it: 5,000 images to train on, 3,000 to validate, 10,000 to test.
Source    Géron, Hands-On Machine Learning, chapters 10 and 11.
Takes     25 s
Try next  --epochs 5: do the same rates win? --round-epochs 10: what does it cost?
"""

import keras
import numpy as np
from keras import layers, optimizers
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeClassifier

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.904 to 0.924.
EXPECTED = {"test_accuracy": (0.89, 0.94)}
QUICK = {"round_epochs": 1}
RATES = [0.0001, 0.001, 0.01, 0.1, 1.0]
OPTIMIZERS = {  # each with a learning rate for the valley
    "SGD": (optimizers.SGD, 0.035),
    "momentum": (lambda rate: optimizers.SGD(rate, momentum=0.9), 0.01),
    "Nesterov": (lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True), 0.01),
    "Adagrad": (optimizers.Adagrad, 0.5),
    "RMSprop": (optimizers.RMSprop, 0.1),
    "Adam": (optimizers.Adam, 0.2),
}


def valley(x, y):
    return 0.5 * x**2 + 25 * y**2  # a long floor, and sides 50 times as steep; lowest at (0, 0)


def walk(optimizer: keras.Optimizer) -> np.ndarray:
    """Return the optimizer's path through the valley, of shape (61, 2)."""
    point, path = keras.Variable([-5.0, 1.0]), [[-5.0, 1.0]]
    for _ in range(60):
        optimizer.apply([point * [1.0, 50.0]], [point])  # the gradient of the valley: x along, 50 y across
        path.append(point.numpy())
    return np.array(path)


def build_model(optimizer: keras.Optimizer) -> keras.Model:
    model = keras.Sequential([keras.Input((784,)), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(run: Run, *, epochs: int = 1, round_epochs: int = 2) -> None:
    """Draw the paths, search the learning rates, and train on with the best until it gets no better.

    Args:
        epochs: Passes over the training rows at each point of the grid.
        round_epochs: Passes before each look at the validation loss, which decides whether to go on.
    """
    # 1. Data, a part to train on and a part to choose by, and the baselines. The test rows wait.
    (x, y), (x_test, y_test) = run.data.mnist()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:8000], x_test))
    y, (rows, watched) = y[:8000], np.split(np.arange(len(x)), [len(x) * 5 // 8])
    linear = RidgeClassifier(alpha=100).fit(x[rows], y[rows]).score(x_test, y_test)
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y[rows]).argmax()), linear_accuracy=linear)

    # 2. The grid of optimizers and rates: fit_many is model.fit for many, one compiled call an epoch.
    models = [build_model(make(rate)) for make, _ in OPTIMIZERS.values() for rate in RATES]
    histories = toolkit.fit_many(models, x, y, [(rows, watched)] * len(models), epochs=epochs, verbose=0)
    losses = np.reshape([history.history["val_loss"][-1] for history in histories], (-1, len(RATES)))
    upper, lower = Figure(figsize=(6.4, 8.0), layout="constrained").subplots(2)
    grid = np.meshgrid(np.linspace(-5.5, 1), np.linspace(-1.2, 1.2))
    upper.contour(*grid, valley(*grid), levels=15, colors="lightgrey")
    for (name, (make, rate)), loss in zip(OPTIMIZERS.items(), losses, strict=True):
        upper.plot(*walk(make(rate)).T, ".-", label=f"{name}, rate {rate}")
        lower.loglog(RATES, loss, "o-", label=name)
        print(f"{name:<8}  loss of the validation rows by rate:", *loss.round(3))
    upper.set(title="60 steps through a valley", xlabel="along", ylabel="across")
    lower.set(title=f"MNIST, epoch {epochs}", xlabel="learning rate", ylabel="validation loss")
    upper.legend()
    run.figure("optimizers.png", lower.legend())

    # 3. Train on with the best, round by round: fit takes up weights and optimizer as it finds them.
    model, loss, lowest = models[losses.argmin()], losses.min(), np.inf
    log = keras.callbacks.CSVLogger(run.path("history.csv"), append=True)
    while loss < lowest:
        lowest, weights, epochs = loss, model.get_weights(), epochs + round_epochs
        options = {"validation_data": (x[watched], y[watched]), "initial_epoch": epochs - round_epochs}
        history = toolkit.fit(model, x[rows], y[rows], epochs=epochs, callbacks=[log], **options)
        loss = history.history["val_loss"][-1]
    model.set_weights(weights)
    run.figure("loss.png", toolkit.plot_history(run.path("history.csv")))
    run.score(test_accuracy=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"])
    toolkit.save(model, run.path("model.keras"))
    print(f"First test image: a {model.predict(x_test[:1], verbose=0).argmax()}, in truth a {y_test[0]}")


if __name__ == "__main__":
    cli(main)
