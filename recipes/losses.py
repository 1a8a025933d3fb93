"""Know each loss and metric three ways: its formula, its name in Keras, the target that wants it.

Teaches   Errors of quantities, hinges, cross-entropies, accuracies, each a line of NumPy and equal to Keras;
          CTC, by listing its alignments; the loss that a target wants; what outliers do to mse, mae, Huber.
Data      Random numbers; the 404 prices of Boston housing, in thousands of dollars.
Source    Gulli and Pal, Deep Learning with Keras, chapter 1; Graves et al., ICML 2006 (CTC).
Takes     3 s
Try next  --wrong-prices 150, then 250: when does mae give way? For "aa", why are there fewer alignments?
"""

from itertools import groupby, product

import keras
import numpy as np
from matplotlib.figure import Figure

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: mse_shift 8.41 to 11.37, mae_shift 0.37 to 0.87, huber_shift 0.28 to 0.58.
EXPECTED = {"difference": (0, 1e-5), "mse_shift": (6.5, 13.5), "mae_shift": (0, 1.5), "huber_shift": (0, 1)}
QUICK = {"wrong_prices": 10}

FORMULAS = {  # y is the target, p the prediction; Keras also keeps logarithms and divisors off 0
    "mse": lambda y, p: np.mean((y - p) ** 2),
    "root_mean_squared_error": lambda y, p: np.sqrt(np.mean((y - p) ** 2)),
    "mae": lambda y, p: np.mean(abs(y - p)),
    "mape": lambda y, p: 100 * np.mean(abs((y - p) / y)),
    "msle": lambda y, p: np.mean(np.log((1 + y) / (1 + p)) ** 2),
    "huber": lambda y, p: np.mean(np.where(abs(y - p) < 1, (y - p) ** 2 / 2, abs(y - p) - 1 / 2)),
    "hinge": lambda y, p: np.mean(np.maximum(1 - y * p, 0)),  # y is -1 or 1
    "squared_hinge": lambda y, p: np.mean(np.maximum(1 - y * p, 0) ** 2),
    "binary_crossentropy": lambda y, p: -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),  # y is 0 or 1
    "binary_accuracy": lambda y, p: np.mean(y == (p > 0.5)),
    "categorical_crossentropy": lambda y, p: -np.mean(np.log((y * p).sum(1))),  # a row of y has a single 1
    "categorical_accuracy": lambda y, p: np.mean((y * p).sum(1) == p.max(1)),
    "top_k_categorical_accuracy": lambda y, p: np.mean((y * p).sum(1) >= np.sort(p)[:, -5]),  # k is 5
    "categorical_hinge": lambda y, p: np.mean(np.maximum(1 + ((1 - y) * p).max(1) - (y * p).sum(1), 0)),
}
SPARSE = ["categorical_crossentropy", "categorical_accuracy", "top_k_categorical_accuracy"]


def ctc(label, p):
    """The alignments: a symbol a step that, repeats merged and then blanks (0) left out, give the label."""
    paths = product(range(p.shape[1]), repeat=len(p))
    paths = [path for path in paths if [symbol for symbol, _ in groupby(path) if symbol] == label]
    return paths, -np.log(sum(np.prod(p[range(len(p)), path]) for path in paths))


def main(run: Run, *, wrong_prices: int = 20) -> None:
    """Compare each formula with Keras, list what CTC adds up, and let wrong prices pull at three losses.

    Args:
        wrong_prices: Prices that get a zero too many.
    """
    # 1. Which loss do targets like these want? And does each formula equal Keras?
    (_, prices), _ = run.data.boston_housing()
    random, differences = np.random.default_rng(run.seed), []
    kinds = {"": random.uniform(1, 9, (2, 500, 1))}  # quantities
    kinds["binary"] = random.integers(2, size=(500, 1)), random.random((500, 1))
    kinds["categorical"] = np.eye(10)[random.integers(10, size=500)], random.dirichlet(np.ones(10), 500)
    for y in (*(y for y, _ in kinds.values()), kinds["categorical"][0].argmax(1)):
        print(toolkit.head(y))
    kinds["hinge"] = random.choice([-1, 1], (500, 1)), random.normal(size=(500, 1))
    for name in (*FORMULAS, *(f"sparse_{name}" for name in SPARSE)):
        y, p = next(kinds[kind] for kind in ("categorical", "binary", "hinge", "") if kind in name)
        formula = FORMULAS[name.removeprefix("sparse_")](y, p)
        measure = keras.losses.huber if name == "huber" else keras.metrics.get(name)  # huber is only a loss
        ours = np.mean(measure(y.argmax(1) if name.startswith("sparse_") else y, p.astype("float32")))
        print(f"{name:<34} formula {formula:9.5f}, Keras {ours:9.5f}")
        differences.append(abs(formula - ours) / max(1, formula))

    # 2. CTC: the label is shorter than the input, and nobody says which step stands for which symbol.
    logits, label = random.normal(size=(4, 3)).astype("float32"), [1, 2]  # 4 steps; blank, a, b
    paths, formula = ctc(label, np.array(keras.ops.softmax(logits)))
    print(f"{len(paths)} ways to write ab:", *("".join("-ab"[symbol] for symbol in path) for path in paths))
    differences.append(abs(formula - float(keras.losses.CTC()(np.array([label]), logits[np.newaxis]))))
    run.score(difference=max(differences))

    # 3. One guess for all prices: where is each loss lowest, and how far do wrong prices pull it away?
    typed = prices * np.where(random.permutation(len(prices)) < wrong_prices, 10, 1)
    guesses = np.linspace(10, 1.5 * typed.mean(), 1000)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    figure.suptitle(f"Best guess of {len(prices)} prices: all right; {wrong_prices} with a zero too many")
    for axes, name in zip(figure.subplots(1, 3), ("mse", "mae", "huber"), strict=True):
        lowest = []
        for y, title in ((prices, "right"), (typed, "wrong")):
            curve = np.array([FORMULAS[name](y, guess) for guess in guesses])
            lowest.append(guesses[curve.argmin()])
            (line,) = axes.plot(guesses, curve / curve.min(), label=f"{title} prices")
            axes.axvline(lowest[-1], color=line.get_color(), linestyle="dotted")
        axes.set(xlabel="guess", ylabel="loss / lowest loss", ylim=(0.9, 3.4))
        axes.set(title="{}: {:.1f}, {:.1f}".format(name, *lowest))
        axes.legend(loc="upper center")
        run.score(**{f"{name}_shift": lowest[1] - lowest[0]})
    run.figure("outliers.png", figure)


if __name__ == "__main__":
    cli(main)
