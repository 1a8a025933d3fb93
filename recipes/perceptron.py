"""One unit learns AND and OR and cannot learn XOR; two layers of units can.

Teaches   The perceptron's learning rule; its decision boundary, a straight line; two layers by
          hand; why no gradient trains a step function, and why a sigmoid or a relu can be trained.
Data      Points made here, a cloud at each corner of a square: 200 to train on, 200 to validate,
          200 to test.
Source    Géron, Hands-On Machine Learning, chapter 10; Minsky and Papert, Perceptrons, 1969.
Takes     9 s
Try next  --noise 0.3: does one unit still come to rest? --units 2: does XOR succeed with every
          --seed?
"""

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.drawing import draw_regions, square
from toolkit.run import Run, cli

# Seeds 0 to 9: test_and and test_or 0.98 to 1, test_xor 0.25 to 0.58, test_accuracy 1.
EXPECTED = {
    "test_and": (0.96, 1),
    "test_or": (0.96, 1),
    "test_xor": (0.2, 0.8),
    "test_accuracy": (0.98, 1),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 3}
LEARNING_RATE = 0.1


def fires(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Tell for each point whether a unit answers 1: whether its weighted sum is above 0.

    The last weight is the bias. It is added to the sum, as if each point ended in a 1.
    """
    return x @ weights[:-1] + weights[-1] > 0


def train_perceptron(x: np.ndarray, y: np.ndarray, epochs: int) -> np.ndarray:
    """Train one unit: each wrong answer moves the weights toward the right one."""
    weights = np.zeros(x.shape[1] + 1)
    epoch = 0
    mistakes = 1
    # In an epoch without a mistake no weight moves, so none would ever move again.
    while mistakes > 0 and epoch < epochs:
        epoch += 1
        mistakes = 0
        for point, target in zip(x, y, strict=True):
            error = int(target) - int(fires(point, weights))  # 0 for a right answer, else 1 or -1
            # To add the point to the weights raises its weighted sum, and to subtract it lowers
            # that sum: each time toward the target.
            weights += LEARNING_RATE * error * np.append(point, 1)
            mistakes += abs(error)
    print(f"  Epoch {epoch}: {mistakes} mistakes, weights and bias {weights.round(2)}")
    return weights


def two_layers(x: np.ndarray) -> np.ndarray:
    """Answer XOR with weights set by hand: "x1 or x2, but not both"."""
    either = fires(x, np.array([1, 1, -0.5]))  # the sum of both inputs is above 0.5
    both = fires(x, np.array([1, 1, -1.5]))  # the sum is above 1.5
    hidden = np.stack([either, both], axis=1)  # (n, 2): the first layer's answers
    return fires(hidden, np.array([1, -1, -0.5]))  # "either" pulls up, "both" pulls down


def step(z):
    """Answer 0 below 0 and 1 above, as the perceptron does. Its slope is 0 on both sides."""
    return (1 + keras.ops.sign(z)) / 2


def build_model(units: int, activation) -> keras.Model:
    """Build and compile two layers: some hidden units, and one that gives a probability."""
    model = keras.Sequential(
        [
            keras.Input(shape=(2,)),
            layers.Dense(units, activation=activation),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    # Adam is gradient descent with a step size of its own for each weight. The loss is -log of the
    # probability that the model gave to the right answer: 0 if that was 1, and large near 0.
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=0.05),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    return model


def main(run: Run, *, units: int = 8, epochs: int = 40, noise: float = 0.1) -> None:
    """Train one unit on three questions, and two layers on the one that it cannot learn.

    Args:
        units: Width of the hidden layer.
        epochs: Passes over the training points; the learning rule may need fewer.
        noise: Standard deviation of a cloud; the corners are at a distance of 1.
    """
    # 1. Data: two inputs, each 0 or 1 and some noise, and three yes-or-no questions about them.
    corners = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (150, 1))  # (600, 2)
    random = np.random.default_rng(run.seed)
    points = corners + random.normal(scale=noise, size=corners.shape)  # (600, 2)
    questions = {
        "AND": corners.all(axis=1),  # (600,), True where both inputs are 1
        "OR": corners.any(axis=1),
        "XOR": corners.sum(axis=1) == 1,  # one of them, but not both
    }
    x, x_val, x_test = np.split(points, 3)  # (200, 2) each
    # For the figure: the points of the whole plane, and what each unit or network answers there.
    plane = square(-0.5, 1.5)  # (40000, 2)
    answers = {}

    # 2. One unit and the learning rule. It answers 1 on one side of a straight line. No line has
    # the corners of XOR on the right sides, so there it goes on making mistakes and moving.
    for question, targets in questions.items():
        y, _, y_test = np.split(targets, 3)  # (200,) each
        print(f"One unit learns {question}:")
        weights = train_perceptron(x, y, epochs)
        accuracy = np.mean(fires(x_test, weights) == y_test)
        # The same as run.score(test_and=accuracy), and so on: it prints a score, beside the range
        # in which it is expected, if it has one.
        run.score(**{f"test_{question.lower()}": accuracy})
        answers[f"{question}, one unit"] = fires(plane, weights)

    # 3. Baselines for XOR: always the same answer, right for half of the points, and a linear
    # model, which has only a line, too. Two layers of units can do it, with weights set by hand:
    # two units have a line each, and a third one joins their answers.
    y, y_val, y_test = np.split(questions["XOR"], 3)
    run.score(baseline_accuracy=np.mean(y_test == (y.mean() > 0.5)))
    linear = LogisticRegression().fit(x, y)
    run.score(linear_accuracy=linear.score(x_test, y_test))
    run.score(by_hand_accuracy=np.mean(two_layers(x_test) == y_test))
    answers["XOR, by hand"] = two_layers(plane)

    # 4. Two layers, trained by gradients. How far does training move the weights of the hidden
    # layer? With steps not at all: a small change of a weight changes no unit's answer, so the
    # gradient is 0. A sigmoid is a step made smooth, and relu, max(z, 0), has slope 1 above 0: both
    # learn.
    print(f"Training two layers for {epochs} epochs, with step, sigmoid and relu ...")
    for name, activation in {"step": step, "sigmoid": "sigmoid", "relu": "relu"}.items():
        model = build_model(units, activation)
        # Keras calls the weights of a layer, without its biases, the kernel.
        first_kernel = model.get_weights()[0]  # (2, units), before training
        # toolkit.fit is model.fit with the same arguments, only faster: one call of TensorFlow
        # takes many steps, where model.fit makes a call for each batch.
        toolkit.fit(
            model,
            x,
            y,
            validation_data=(x_val, y_val),
            epochs=epochs,
            batch_size=20,
            callbacks=[run.log(f"{name}.csv")],  # writes each epoch's scores into this file
            verbose=0,
        )
        moved = np.abs(model.get_weights()[0] - first_kernel).max()
        run.score(**{f"{name}_kernel_moved": moved})
        if name != "step":  # its hidden layer still has its first, random weights: no picture
            probability = model.predict(plane, batch_size=1000, verbose=0)[:, 0]  # (40000,)
            answers[f"XOR, {name}"] = probability > 0.5

    # 5. One look at the test points, with the last model, relu.
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 6. Draw who answers what, where. One unit cuts the plane along a line; two layers need not.
    figure = draw_answers(answers, questions, plane, x_test)
    figure.suptitle("Made-up test points: the marks show the truth, the plane the answers")
    run.figure("boundaries.png", figure)


def draw_answers(answers: dict, questions: dict, plane: np.ndarray, x_test: np.ndarray) -> Figure:
    """Draw a panel for each learner: its answers over the plane, and the test points."""
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for axes, (title, answer) in zip(panels, answers.items(), strict=True):
        question = title.split(",")[0]  # "AND", "OR" or "XOR"
        truth = np.split(questions[question], 3)[2]  # (200,), of the test points
        draw_regions(axes, plane, answer, x_test, truth)
        axes.set(title=title, xlabel="first input", ylabel="second input")
        axes.label_outer()  # only the outer panels keep the names of their axes
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    cli(main)
