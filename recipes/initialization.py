"""Start a deep net so that signals neither vanish nor explode: initializers and batch normalization.

Teaches   Why a deep net may learn nothing: the variance of activations and of gradients, layer by layer;
          sigmoid and relu from N(0, 1) weights against Glorot's and He's; what batch normalization mends.
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
from sklearn.linear_model import RidgeClassifier

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 4: glorot_ratio 5e-12 to 7e-12, he_ratio 0.8 to 1.7, test_accuracy 0.782 to 0.803.
EXPECTED = {"glorot_ratio": (0, 1e-6), "he_ratio": (0.02, 50), "test_accuracy": (0.76, 0.83)}
QUICK = {"hidden_layers": 3, "epochs": 1}
STARTS = {  # N(0, 1) takes no notice of the width; the others hold the variance through a layer
    "sigmoid_normal": ("sigmoid", initializers.RandomNormal(stddev=1.0)),
    "sigmoid_glorot": ("sigmoid", initializers.GlorotNormal()),
    "relu_normal": ("relu", initializers.RandomNormal(stddev=1.0)),
    "relu_he": ("relu", initializers.HeNormal()),
}


def build_model(start: str, norm: bool, hidden_layers: int, units: int) -> keras.Model:
    """Many hidden layers, each with batch normalization before its activation, or without."""
    model, (activation, initializer) = keras.Sequential([keras.Input((784,))]), STARTS[start]
    for _ in range(hidden_layers):
        model.add(layers.Dense(units, kernel_initializer=initializer.clone()))
        model.add(layers.BatchNormalization(momentum=0.9) if norm else layers.Identity())  # soon settled
        model.add(layers.Activation(activation))
    model.add(layers.Dense(10, activation="softmax"))
    sgd = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer=sgd, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def variances(model: keras.Model, x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """Return the variance of each hidden layer's activations, and that of the loss's gradients by them."""
    signal, activations = tf.constant(x), []
    with tf.GradientTape() as tape:
        for layer in model.layers:
            signal = layer(signal, training=True)
            activations += [signal] if isinstance(layer, layers.Activation) else []
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, signal))
    signals = activations, tape.gradient(loss, activations)
    return [[np.asarray(each, "float64").var() for each in part] for part in signals]


def main(run: Run, *, hidden_layers: int = 10, units: int = 100, epochs: int = 3) -> None:
    """Measure the signals, then train, and score the best.

    Args:
        hidden_layers: Number of hidden layers.
        units: Width of each of them.
        epochs: Passes over the training rows.
    """
    # 1. Data, scaled to mean 0 and variance 1, and the baselines. The test rows wait until step 3.
    (x, y), (x_test, y_test) = run.data.fashion_mnist()
    x, y = x[:10_000], y[:10_000]
    rows, watched = np.split(np.arange(len(x)), 2)
    mean, std = x[rows].mean(), x[rows].std()
    x, x_test = ((part.reshape(-1, 784).astype("float32") - mean) / std for part in (x, x_test))
    linear = RidgeClassifier(alpha=1000).fit(x[rows], y[rows]).score(x_test, y_test)
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y[rows]).argmax()), linear_accuracy=linear)

    # 2. Before training: what goes forward through the layers, and what comes back?
    figure, models, ratios = Figure(figsize=(6.4, 6.0), layout="constrained"), {}, {}
    for norm, column in zip((False, True), figure.subplots(2, 2, sharey="row").T, strict=True):
        for start in STARTS:
            models[start + "_norm" * norm] = model = build_model(start, norm, hidden_layers, units)
            signals = variances(model, x[:500], y[:500])
            ratios[start, norm] = signals[1][0] / signals[1][-1]  # of the gradients: first layer by last
            for axes, signal, name in zip(column, signals, ("activations", "gradients"), strict=True):
                axes.semilogy(range(1, hidden_layers + 1), signal, ".-", label=start)
                axes.set(title=name + ", batch norm" * norm, xlabel="hidden layer", ylabel="variance")
    run.figure("variances.png", axes.legend())
    run.score(glorot_ratio=ratios["sigmoid_glorot", False], he_ratio=ratios["relu_he", False])

    # 3. Train them at once: fit_many is model.fit for many, one compiled call an epoch.
    del models["relu_normal"]  # its first loss is beyond all numbers
    options = {"epochs": epochs, "callbacks": [[run.log(f"{name}.csv")] for name in models], "verbose": 0}
    histories = toolkit.fit_many([*models.values()], x, y, [(rows, watched)] * len(models), **options)
    accuracy = {name: each.history["val_accuracy"][-1] for name, each in zip(models, histories, strict=True)}
    print("Accuracy on the validation rows:", *(f"{name} {value:.3f}" for name, value in accuracy.items()))
    model = models[max(accuracy, key=accuracy.get)]
    run.score(test_accuracy=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"])
    print(f"First test image: class {model.predict(x_test[:1], verbose=0).argmax()}, in truth {y_test[0]}")
    toolkit.save(model, run.path("model.keras"))


if __name__ == "__main__":
    cli(main)
