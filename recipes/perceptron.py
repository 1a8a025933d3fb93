"""One unit learns AND and OR and cannot learn XOR; two layers of units can.

Teaches   The perceptron's learning rule; its decision boundary, a straight line; two layers by hand; why
          no gradient trains a step function, and what sigmoid and relu change in its place.
Data      Points made here, a cloud at each corner of a square: 200 to train on, 200 to validate, 200 to test.
Source    Géron, Hands-On Machine Learning, chapter 10; Minsky and Papert, Perceptrons, 1969.
Takes     9 s
Try next  --noise 0.3: does one unit still come to rest? --units 2: does XOR succeed with every --seed?
"""

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_and and test_or 0.98 to 1, test_xor 0.25 to 0.58, test_accuracy 1.
EXPECTED = {"test_and": (0.96, 1), "test_or": (0.96, 1), "test_xor": (0.2, 0.8), "test_accuracy": (0.98, 1)}
QUICK = {"epochs": 3}


def fires(x, weights):  # the last weight is the bias, as if each row ended in a 1
    return np.c_[x, np.ones(len(x))] @ weights > 0


def train_perceptron(x, y, epochs: int):
    """The learning rule: a wrong answer moves the weights toward the right one."""
    weights, epoch, mistakes = np.zeros(x.shape[1] + 1), 0, 1
    while mistakes and epoch < epochs:  # after an epoch without a mistake nothing would ever move again
        epoch, mistakes = epoch + 1, 0
        for row, target in zip(x, y, strict=True):
            error = int(target) - int(fires([row], weights)[0])  # 0 for a right answer, else 1 or -1
            weights += 0.1 * error * np.append(row, 1)  # 0.1 is the learning rate
            mistakes += abs(error)
    print(f"Epoch {epoch}: {mistakes} mistakes, weights and bias {weights.round(2)}")
    return weights


def two_layers(x):
    """XOR by hand: a unit for OR, a unit for AND, and a third for OR but not AND."""
    hidden = np.stack([fires(x, [1, 1, -0.5]), fires(x, [1, 1, -1.5])], axis=1)
    return fires(hidden, [1, -1, -0.5])


def main(run: Run, *, units: int = 8, epochs: int = 40, noise: float = 0.1) -> None:
    """Train one unit on three questions, and two layers on the one that it cannot learn.

    Args:
        units: Width of the hidden layer.
        epochs: Passes over the training points; the learning rule may need fewer.
        noise: Standard deviation of a cloud; the corners are at a distance of 1.
    """
    # 1. Data: two inputs, each of them 0 or 1 and some noise, and three questions about them.
    corners = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (150, 1))
    x = corners + np.random.default_rng(run.seed).normal(scale=noise, size=corners.shape)
    questions = {"AND": corners.all(axis=1), "OR": corners.any(axis=1), "XOR": corners.sum(axis=1) == 1}
    x, x_val, x_test = np.split(x, 3)
    drawn, plane = {}, np.argwhere(np.ones((200, 200)))[:, ::-1] / 100 - 0.5  # from -0.5 to 1.5

    # 2. One unit and the learning rule. XOR keeps it moving: no line has all four corners right.
    for name, targets in questions.items():
        y, y_val, y_test = np.split(targets, 3)
        weights = train_perceptron(x, y, epochs)
        run.score(**{f"test_{name.lower()}": np.mean(fires(x_test, weights) == y_test)})
        drawn[f"{name}, one unit"] = fires(plane, weights), y_test

    # 3. XOR again, by a linear model, and by two layers, set by hand or trained by gradients.
    linear = LogisticRegression().fit(x, y)
    run.score(baseline_accuracy=np.mean(~y_test), linear_accuracy=linear.score(x_test, y_test))
    run.score(by_hand_accuracy=np.mean(two_layers(x_test) == y_test))
    drawn["XOR, by hand"] = two_layers(plane), y_test
    step = lambda z: (1 + ops.sign(z)) / 2  # noqa: E731  flat on both sides: its gradient is 0
    for name, activation in {"step": step, "sigmoid": "sigmoid", "relu": "relu"}.items():
        model = keras.Sequential([layers.Dense(units, activation), layers.Dense(1, "sigmoid")])
        model.build((None, 2))
        model.compile(optimizer=keras.optimizers.Adam(0.05), loss="binary_crossentropy", metrics=["accuracy"])
        before, watch = model.get_weights()[0], {"callbacks": [run.log(f"{name}.csv")], "verbose": 0}
        # toolkit.fit is model.fit, one compiled call an epoch.
        toolkit.fit(model, x, y, validation_data=(x_val, y_val), epochs=epochs, batch_size=20, **watch)
        run.score(**{f"{name}_moved": np.abs(model.get_weights()[0] - before).max()})
        drawn[f"XOR, {name}"] = model.predict(plane, batch_size=1000, verbose=0)[:, 0] > 0.5, y_test
    run.score(test_accuracy=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 4. Draw who answers what, where: one unit divides the plane by a straight line, two layers need not.
    del drawn["XOR, step"]  # two_layers has shown what steps can do
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    for axes, (name, (answers, y_test)) in zip(figure.subplots(2, 3).flat, drawn.items(), strict=True):
        axes.imshow(answers.reshape(200, 200), "RdBu", alpha=0.4, origin="lower", extent=(-0.5, 1.5) * 2)
        axes.plot(*x_test[~y_test].T, "C3x", *x_test[y_test].T, "C0.", markersize=3)
        axes.set(title=name, xlabel="first input", ylabel="second input")
        axes.legend(["0", "1"], loc="center")
    run.figure("boundaries.png", figure)


if __name__ == "__main__":
    cli(main)
