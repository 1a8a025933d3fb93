"""Know each loss and metric three ways: its formula, its name in Keras, the target that wants it.

Teaches   Errors of quantities, hinges, cross-entropies, accuracies, each a line of NumPy and equal
          to Keras; CTC, by listing its alignments; the loss that a target wants; what outliers do
          to mse, mae, Huber.
Data      Random numbers; the 404 prices of Boston housing, in thousands of dollars.
Source    Gulli and Pal, Deep Learning with Keras, chapter 1; Graves et al., ICML 2006 (CTC).
Takes     3 s
Try next  --wrong-prices 150, then 250: when does mae give way? In step 5 make `word`
          [1, 1], which is "aa": why are there fewer alignments?
"""

import itertools

import keras
import numpy as np
from matplotlib.figure import Figure

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: mse_shift 8.41 to 11.37, mae_shift 0.37 to 0.87, huber_shift 0.28 to 0.58.
EXPECTED = {
    "difference": (0, 1e-5),
    "mse_shift": (6.5, 13.5),
    "mae_shift": (0, 1.5),
    "huber_shift": (0, 1),
}
# No option makes it shorter: a quick run is the whole lesson.
QUICK = {}

# A table for each kind of target, from Keras's name to the formula: y is the target, p the
# prediction. Keras's own formulas differ only in keeping logarithms and divisors away from 0.

# The target is a quantity, and the prediction is another one.
QUANTITIES = {
    "mse": lambda y, p: np.mean((y - p) ** 2),  # mean squared error
    "root_mean_squared_error": lambda y, p: np.sqrt(np.mean((y - p) ** 2)),
    "mae": lambda y, p: np.mean(abs(y - p)),  # mean absolute error
    "mape": lambda y, p: 100 * np.mean(abs((y - p) / y)),  # the same in percent of the target
    "msle": lambda y, p: np.mean(np.log((1 + y) / (1 + p)) ** 2),  # of log(1 + y)
    # A square for errors below 1, a straight line for larger ones, which therefore count less.
    "huber": lambda y, p: np.mean(np.where(abs(y - p) < 1, (y - p) ** 2 / 2, abs(y - p) - 1 / 2)),
}
# The target is 0 or 1, and the prediction is the probability of 1.
TWO_CLASSES = {
    "binary_crossentropy": lambda y, p: -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
    "binary_accuracy": lambda y, p: np.mean(y == (p > 0.5)),
}
# The target is -1 or 1, and the prediction is any number. The loss is 0 only where that number is
# on the right side of 0 and at least 1 away from it.
SIGNS = {
    "hinge": lambda y, p: np.mean(np.maximum(1 - y * p, 0)),
    "squared_hinge": lambda y, p: np.mean(np.maximum(1 - y * p, 0) ** 2),
}
# The target is a row with a single 1, and the prediction is a row of probabilities. The product
# y * p is 0 but for the probability of the true class, so its sum is that probability.
ONE_HOT = {
    "categorical_crossentropy": lambda y, p: -np.mean(np.log((y * p).sum(axis=1))),
    "categorical_accuracy": lambda y, p: np.mean((y * p).sum(axis=1) == p.max(axis=1)),
    # Is the true class among the five that have the highest probabilities?
    "top_k_categorical_accuracy": lambda y, p: np.mean((y * p).sum(axis=1) >= np.sort(p)[:, -5]),
    # The true class should be ahead of all others by 1. (1 - y) * p are those of the others.
    "categorical_hinge": lambda y, p: np.mean(
        np.maximum(1 - (y * p).sum(axis=1) + ((1 - y) * p).max(axis=1), 0)
    ),
}
# Three of these formulas again, for a target that is the number of the class:
# p[np.arange(len(y)), y] picks from each row the probability of its true class.
INTEGERS = {
    "sparse_categorical_crossentropy": lambda y, p: -np.mean(np.log(p[np.arange(len(y)), y])),
    "sparse_categorical_accuracy": lambda y, p: np.mean(p.argmax(axis=1) == y),
    "sparse_top_k_categorical_accuracy": lambda y, p: np.mean(
        p[np.arange(len(y)), y] >= np.sort(p)[:, -5],
    ),
}


def compare(formulas: dict, y: np.ndarray, p: np.ndarray) -> float:
    """Print what each formula and Keras give, and return the largest difference.

    Where the values are above 1, it is the difference divided by the value.
    """
    largest = 0.0
    for name, formula in formulas.items():
        ours = formula(y, p)
        # Keras knows each of these names as a metric, too, but Huber's only as a loss.
        measure = keras.losses.huber if name == "huber" else keras.metrics.get(name)
        # The metrics return the mean over the rows, Huber's loss a value for each row.
        theirs = np.mean(measure(y, p.astype("float32")))
        print(f"  {name:<34} formula {ours:9.5f}, Keras {theirs:9.5f}")
        largest = max(largest, abs(ours - theirs) / max(1, ours))
    return largest


def ctc(label: list[int], p: np.ndarray) -> tuple[list[tuple[int, ...]], float]:
    """List the alignments of a label, and return them and the loss: -log of their probability.

    An alignment names a symbol for each step. Where a symbol repeats itself, the repeats are
    merged; then the blanks, symbol 0, are left out. What remains must be the label.
    """
    steps, symbols = p.shape  # p: the probability of each symbol at each step
    alignments = []
    probability = 0.0
    for path in itertools.product(range(symbols), repeat=steps):  # one symbol a step, every way
        merged = [symbol for symbol, _ in itertools.groupby(path)]  # (1, 1, 0, 2) becomes [1, 0, 2]
        if [symbol for symbol in merged if symbol != 0] == label:
            alignments.append(path)
            # The probability of a path is the product of those of its symbols, one a step.
            probability += np.prod(p[np.arange(steps), path])
    return alignments, -np.log(probability)


def main(run: Run, *, wrong_prices: int = 20) -> None:
    """Compare formulas with Keras, list what CTC adds up, let wrong prices pull at three losses.

    Args:
        wrong_prices: Prices that get a zero too many.
    """
    # 1. Quantities. Does each formula give what Keras gives? Random targets and predictions will do
    # to see it. (The prices wait for step 6.)
    # The head of a network is its end. toolkit.head looks at the targets, and names the output
    # layer, the loss and the metric that go with them.
    data = run.data.boston_housing()
    right = data.y_train  # (404,), the prices of the training rows
    if wrong_prices > len(right):
        raise ValueError(f"`wrong_prices` must be at most {len(right)}. Received: {wrong_prices}")
    random = np.random.default_rng(run.seed)
    y, p = random.uniform(low=1, high=9, size=(2, 500, 1))  # y and p: (500, 1)
    print("Quantities:", toolkit.head(y))
    differences = [compare(QUANTITIES, y, p)]

    # 2. Two classes, and the probability of one of them.
    y = random.integers(2, size=(500, 1))
    p = random.random(size=(500, 1))
    print("Two classes:", toolkit.head(y))
    differences.append(compare(TWO_CLASSES, y, p))

    # 3. Many classes. The target is a row with a single 1, or an integer.
    labels = random.integers(10, size=500)  # (500,)
    y = np.eye(10)[labels]  # (500, 10)
    p = random.dirichlet(np.ones(10), size=500)  # (500, 10), positive, the sum of each row is 1
    print("Many classes, one-hot:", toolkit.head(y))
    differences.append(compare(ONE_HOT, y, p))
    print("Many classes, integers:", toolkit.head(labels))
    differences.append(compare(INTEGERS, labels, p))

    # 4. Two classes as -1 and 1, and any number as the prediction: support vector machines are
    # trained so.
    y = random.choice([-1, 1], size=(500, 1))
    p = random.normal(size=(500, 1))
    print("Two classes, as signs:")
    differences.append(compare(SIGNS, y, p))

    # 5. CTC. In speech there are, say, 4 moments of sound and only 2 letters, and nobody says which
    # moment stands for which letter. The loss is -log of the probability of all the ways together
    # in which the moments may spell the word.
    # Logits are scores that softmax turns into probabilities. Keras's loss takes logits, and does
    # that itself; our formula takes the probabilities.
    logits = random.normal(size=(4, 3)).astype("float32")  # 4 steps; a blank, "a" and "b"
    word = [1, 2]  # "ab"
    alignments, ours = ctc(word, np.array(keras.ops.softmax(logits)))
    # Keras wants a batch, here of one word: labels (1, 2) and logits (1, 4, 3).
    theirs = float(keras.losses.CTC()(np.array([word]), logits[np.newaxis]))
    differences.append(abs(ours - theirs))
    letters = np.array(["-", "a", "b"])  # the blank is written as a dash
    spelled = ["".join(letters[list(alignment)]) for alignment in alignments]
    print(f'{len(spelled)} ways to write "{"".join(letters[word])}" in 4 steps:', *spelled)
    # run.score prints a score, beside the range in which it is expected, if it has one.
    run.score(difference=max(differences))

    # 6. Outliers. If you had to guess one and the same price for all houses, which guess has the
    # lowest loss? And how far is it pulled away by some prices with a zero too many?
    is_wrong = random.permutation(len(right)) < wrong_prices  # (404,), True in 20 random places
    wrong = np.where(is_wrong, 10 * right, right)
    guesses = np.linspace(10, 1.5 * wrong.mean(), num=1000)
    right_losses = {}
    wrong_losses = {}
    for name in ("mse", "mae", "huber"):
        formula = QUANTITIES[name]
        right_losses[name] = np.array([formula(right, guess) for guess in guesses])  # (1000,)
        wrong_losses[name] = np.array([formula(wrong, guess) for guess in guesses])
        shift = guesses[wrong_losses[name].argmin()] - guesses[right_losses[name].argmin()]
        run.score(**{f"{name}_shift": shift})
    title = f"{data.name} ({data.source} data): one guess for all prices, and its loss"
    run.figure("outliers.png", draw_losses(title, guesses, right_losses, wrong_losses))


def draw_losses(title: str, guesses: np.ndarray, right_losses: dict, wrong_losses: dict) -> Figure:
    """Draw each loss over the guesses, for right and for wrong prices, with its lowest point."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, name in zip(panels, right_losses, strict=True):
        best = []
        for prices, losses in {"right": right_losses[name], "wrong": wrong_losses[name]}.items():
            best.append(guesses[losses.argmin()])
            (line,) = axes.plot(guesses, losses / losses.min(), label=f"{prices} prices")
            axes.axvline(best[-1], color=line.get_color(), linestyle="dotted")
        axes.set_title(f"{name}: best guess\n{best[0]:.1f}, then {best[1]:.1f}")
        axes.set_ylim(0.9, 3.4)
    panels[0].set_ylabel("loss / lowest loss")
    panels[1].set_xlabel("guess, in 1,000 dollars (dotted: the best one)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    cli(main)
