"""Start a deep net so that signals neither vanish nor explode: initializers, batch normalization.

Teaches   Why a deep net may learn nothing: the variance of activations and of gradients, layer by
          layer; weights from N(0, 1) against Glorot's, He's and PyTorch's default, by formula and
          measured; what batch normalization mends.
Data      Fashion-MNIST, a part of it: 5,000 images to train on, 5,000 to validate, 10,000 to test.
Source    Géron, Hands-On Machine Learning, chapter 11; Glorot and Bengio, 2010; He et al., 2015.
Takes     45 s
Try next  --hidden-layers 3: which ones learn now? --hidden-layers 20: which still do? --units 20
"""

import keras
import numpy as np
import tensorflow as tf
from keras import initializers, layers
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.linear_model import RidgeClassifier

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: glorot_ratio 4e-12 to 9e-12, he_ratio 0.7 to 2.3, test_accuracy 0.789 to 0.809.
EXPECTED = {"glorot_ratio": (0, 1e-6), "he_ratio": (0.02, 50), "test_accuracy": (0.76, 0.83)}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"hidden_layers": 3, "epochs": 1}

# How much of a signal's mean square does a relu layer pass on? (Its variance goes the same way:
# the sums lie symmetrically around 0, in a bell, so after relu the variance is a fixed part of the
# mean square, 1 - 1/pi of it.)
# Let n be the number of its inputs. A unit adds up n products of an input and a weight, so its sum
# has n times the variance of a weight, times the mean square of the inputs. Relu makes 0 of the
# negative sums, and so halves their mean square. A layer thus passes on a share of n/2 times the
# variance of its weights. It should be 1: a share of 1/2 leaves a thousandth after ten layers.
STARTS = {
    # Variance 1, whatever n is, makes large sums. So most sigmoids lie near 0 or 1, where their
    # slope is nearly 0, and little of a gradient comes back.
    "sigmoid_normal": ("sigmoid", initializers.RandomNormal(stddev=1.0)),
    # Variance 2/(n + units), which is 1/n where n = units. A gradient that comes back is multiplied
    # by the slope of the sigmoid, 1/4 at most: so a layer leaves 1/16 of its variance, or less.
    "sigmoid_glorot": ("sigmoid", initializers.GlorotNormal()),
    # Variance 1. Share: n/2.
    "relu_normal": ("relu", initializers.RandomNormal(stddev=1.0)),
    # The default of PyTorch's Linear, written there as kaiming_uniform_(a=sqrt(5)): uniform from
    # -1/sqrt(n) to 1/sqrt(n), so of variance 1/(3n). Share: 1/6. (PyTorch draws the biases, too;
    # here they begin with 0.) Keras divides the scale by n, the "fan in", to get the variance.
    "relu_pytorch": (
        "relu",
        initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform"),
    ),
    # Variance 2/n. Share: 1.
    "relu_he": ("relu", initializers.HeNormal()),
}


def build_model(start: str, norm: bool, hidden_layers: int, units: int) -> keras.Model:
    """Many hidden layers, each with batch normalization before its activation, or without."""
    activation, initializer = STARTS[start]
    model = keras.Sequential([keras.Input(shape=(784,))])
    for _ in range(hidden_layers):
        # An initializer has a random seed, and draws the same weights each time. Every layer gets a
        # clone of it, which has a seed of its own.
        model.add(layers.Dense(units, kernel_initializer=initializer.clone()))
        if norm:
            # In training it brings each unit's sums to mean 0 and variance 1 over the batch, and
            # then scales and shifts them by two trained numbers: whatever the weights are, the
            # signal stays of one size. For use after training it keeps moving averages of mean and
            # variance. A momentum of 0.9, not the usual 0.99, lets these settle within the few
            # steps of this training.
            model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.Activation(activation))
    model.add(layers.Dense(10, activation="softmax"))
    # Here the momentum says that each step adds 0.9 of the step before.
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=0.01, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def variances(model: keras.Model, x: np.ndarray, y: np.ndarray) -> tuple[list, list]:
    """Return the variances of each layer's activations, and of the gradients.

    These are the gradients of the loss with respect to the activations.
    """
    signal = tf.constant(x)  # (rows, 784)
    activations = []
    with tf.GradientTape() as tape:
        for layer in model.layers:
            signal = layer(signal, training=True)  # normalization takes mean and variance of x
            if isinstance(layer, layers.Activation):
                activations.append(signal)  # (rows, units)
        losses = keras.losses.sparse_categorical_crossentropy(y, signal)  # (rows,)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, activations)  # one for each activation, of the same shape
    # float64, so that squares of tiny gradients do not become 0, however many layers there are.
    forward = [np.var(np.asarray(each, dtype="float64")) for each in activations]
    backward = [np.var(np.asarray(each, dtype="float64")) for each in gradients]
    return forward, backward


def main(run: Run, *, hidden_layers: int = 10, units: int = 100, epochs: int = 3) -> None:
    """Measure the signals, then train, and score the best.

    Args:
        hidden_layers: Number of hidden layers.
        units: Width of each of them.
        epochs: Passes over the training rows.
    """
    # 1. Data. The images are scaled to mean 0 and variance 1, so that signals begin at size 1.
    (images, labels), (test_images, y_test) = run.data.fashion_mnist()
    x = images[:10_000].reshape(-1, 784).astype("float32")  # (10000, 784)
    y = labels[:10_000]
    x_test = test_images.reshape(-1, 784).astype("float32")
    rows, watched = np.split(np.arange(len(x)), 2)  # 5000 to train on, 5000 to validate
    mean = x[rows].mean()
    deviation = x[rows].std()
    x = (x - mean) / deviation
    x_test = (x_test - mean) / deviation

    # 2. Baselines: always the most frequent class, and a linear model. (run.score prints a score,
    # beside the range in which it is expected, if it has one.)
    frequent = np.bincount(y[rows]).argmax()
    run.score(baseline_accuracy=np.mean(y_test == frequent))
    # A large alpha keeps the weights small.
    linear = RidgeClassifier(alpha=1000).fit(x[rows], y[rows])
    run.score(linear_accuracy=linear.score(x_test, y_test))

    # 3. Before any training: what goes forward through the layers, and what comes back?
    models = {}
    signals = {}
    for start in STARTS:
        models[start] = build_model(start, norm=False, hidden_layers=hidden_layers, units=units)
        models[f"{start}_norm"] = build_model(
            start, norm=True, hidden_layers=hidden_layers, units=units
        )
    for name, model in models.items():
        signals[name] = variances(model, x[:500], y[:500])
    run.figure("variances.png", draw_variances(signals))
    print_shares(signals, units)

    # What comes back to the first layer, as a part of what comes back to the last: near 1, all
    # layers learn; near 0, the first ones do not.
    gradients = {name: backward for name, (_, backward) in signals.items()}
    run.score(glorot_ratio=gradients["sigmoid_glorot"][0] / gradients["sigmoid_glorot"][-1])
    run.score(he_ratio=gradients["relu_he"][0] / gradients["relu_he"][-1])

    # 4. Train all but one: with ten layers the first loss of relu_normal is about a billion, and
    # after a step or two its weights are so far off that it gives NaN, or the same for each image.
    # toolkit.fit_many does what model.fit would do for each net in turn, only faster: nets that are
    # alike are trained together.
    del models["relu_normal"]
    print(f"Training {len(models)} nets ...")
    histories = toolkit.fit_many(
        list(models.values()),
        x,
        y,
        splits=[(rows, watched)] * len(models),
        names=list(models),
        epochs=epochs,
        callbacks=[[run.log(f"{name}.csv")] for name in models],
        verbose=0,
    )
    accuracies = [history.history["val_accuracy"][-1] for history in histories]
    for name, accuracy in zip(models, accuracies, strict=True):
        print(f"{name:<20} accuracy on the validation rows {accuracy:.3f}")

    # 5. The best of them: one look at the test rows.
    name = list(models)[np.argmax(accuracies)]
    model = models[name]
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    probabilities = model.predict(x_test[:1], verbose=0)  # (1, 10)
    print(f"Best: {name}. First test image: {probabilities.argmax()}, in truth {y_test[0]}")
    toolkit.save(model, run.path("model.keras"))


# The rest is no part of the lesson: a table and a figure.


def print_shares(signals: dict, units: int) -> None:
    """Print the share of the variance that a relu layer passes on, by formula and measured."""
    formulas = {"relu_normal": units / 2, "relu_pytorch": 1 / 6, "relu_he": 1.0}
    for start, share in formulas.items():
        forward, _ = signals[start]
        measured = (forward[-1] / forward[0]) ** (1 / max(1, len(forward) - 1))
        print(f"{start:<13} a layer passes on {share:.3g} by formula, {measured:.3g} as measured")


def draw_variances(signals: dict) -> Figure:
    """Draw the variances by layer: activations above, gradients below, normalized at the right."""
    figure = Figure(figsize=(6.4, 6.8), layout="constrained")
    figure.suptitle("Fashion-MNIST, before training: the variance in each hidden layer")
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for number, (name, both) in enumerate(signals.items()):
        column = number % 2
        for row, variance in enumerate(both):
            places = range(1, len(variance) + 1)
            grid[row, column].semilogy(places, variance, ".-", color=f"C{number // 2}", label=name)
    grid[0, 0].set(title="without batch normalization", ylabel="variance of the activations")
    grid[0, 1].set(title="with batch normalization")
    grid[1, 0].set(xlabel="hidden layer", ylabel="variance of the gradients")
    grid[1, 1].set(xlabel="hidden layer")
    grid[1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    lines, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    cli(main)
