"""Read handwritten digits with one hidden layer, and look at the ones it gets wrong.

Teaches   Images as arrays of grey values; a softmax classifier with 10 outputs; a validation set
          apart from the test set; what the mistakes look like.
Data      MNIST: 60,000 + 10,000 images of 28 x 28 pixels; or Fashion-MNIST, of the same shape.
Source    Chollet, Deep Learning with Python, section 2.1.
Published 0.9777 to 0.980
Try next  --dataset fashion_mnist; --units 16; --epochs 20: what do the two curves do?
          --labels one_hot: does anything change?
"""

from typing import Literal

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.run import Run, cli

EXPECTED = {"baseline_accuracy": (0.11, 0.12), "linear_accuracy": (0.9, 0.93), "test_accuracy": (0.974, 0.984)}
QUICK = {"epochs": 1}


def build_model(units: int, labels: str) -> keras.Model:
    """One hidden layer, and a probability for each of the 10 classes."""
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28)),
            layers.Rescaling(1 / 255),  # grey values 0..255 become 0..1 in the model, so they stay bytes outside
            layers.Flatten(),
            layers.Dense(units, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    loss = "categorical_crossentropy" if labels == "one_hot" else "sparse_categorical_crossentropy"
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    return model


def main(
    run: Run,
    *,
    dataset: Literal["mnist", "fashion_mnist"] = "mnist",
    labels: Literal["integer", "one_hot"] = "integer",
    units: int = 512,
    epochs: int = 5,
    batch_size: int = 128,
) -> None:
    """Train, look at the curve, score the test images, and draw the mistakes.

    Args:
        dataset: Digits, or articles of clothing.
        labels: Each label as an integer, or as a row with a single 1.
        units: Width of the hidden layer.
        epochs: Passes over the training rows.
        batch_size: Images a step.
    """
    # 1. Data.
    data = getattr(run.data, dataset)()
    (x, y), (x_test, y_test) = data
    print(f"An image: shape {x[0].shape}, {x.dtype}, grey values {x[0].min()} to {x[0].max()}: {data.class_names[y[0]]}")
    encode = keras.utils.to_categorical if labels == "one_hot" else np.asarray

    # 2. Baselines: always the most frequent class, and a linear model on 5,000 of the images.
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()))
    linear = LogisticRegression(C=0.1, max_iter=200).fit(x[:5000].reshape(-1, 784) / 255, y[:5000])
    run.score(linear_accuracy=linear.score(x_test.reshape(-1, 784) / 255, y_test))

    # 3. Train, and watch the last sixth of the rows, which training does not see.
    # toolkit.fit is model.fit, one compiled call an epoch.
    model = build_model(units, labels)
    log = keras.callbacks.CSVLogger(run.path("history.csv"))
    history = toolkit.fit(
        model, x, encode(y), epochs=epochs, batch_size=batch_size, validation_split=1 / 6, callbacks=[log]
    )
    toolkit.plot_history(history, "accuracy").figure.savefig(run.path("accuracy.png"))
    best_epochs = int(np.argmax(history.history["val_accuracy"])) + 1
    print(f"The validation accuracy is highest after epoch {best_epochs}.")

    # 4. A fresh model on every training image, for that many epochs; then one look at the test images.
    model = build_model(units, labels)
    toolkit.fit(model, x, encode(y), epochs=best_epochs, batch_size=batch_size)
    run.score(test_accuracy=model.evaluate(x_test, encode(y_test), verbose=0, return_dict=True)["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 5. Use it, and look at what it gets wrong.
    probabilities = model.predict(x_test, batch_size=1024, verbose=0)
    guesses = probabilities.argmax(axis=1)
    print(f"The first test image: {data.class_names[guesses[0]]}, {probabilities[0].max():.1%} sure.")
    wrong = np.flatnonzero(guesses != y_test)[:20]
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    figure.suptitle(f"The first {len(wrong)} mistakes: guess (truth)")
    for axes, row in zip(figure.subplots(4, 5).flat, wrong, strict=False):
        axes.imshow(x_test[row], cmap="gray_r")
        axes.set_title(f"{data.class_names[guesses[row]]} ({data.class_names[y_test[row]]})", fontsize=9)
    for axes in figure.axes:
        axes.axis("off")
    figure.savefig(run.path("mistakes.png"))


if __name__ == "__main__":
    cli(main)
