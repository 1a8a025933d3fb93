"""Read handwritten digits with one hidden layer, and look at the ones it gets wrong.

Teaches   Images as arrays; a softmax classifier; validation apart from test; a look at the mistakes.
Data      MNIST: 60,000 + 10,000 images of 28 x 28 pixels; or Fashion-MNIST, of the same shape.
Source    Chollet, Deep Learning with Python, section 2.1.
Published 0.9777 to 0.980
Takes     22 s
Try next  --dataset fashion_mnist; --units 16; --epochs 20: what do the two curves do?
          --one-hot: does anything change?
"""

from typing import Literal

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.978 to 0.981.
EXPECTED = {
    "baseline_accuracy": (0.11, 0.12),
    "linear_accuracy": (0.9, 0.91),
    "test_accuracy": (0.974, 0.984),
}
QUICK = {"epochs": 1}


def build_model(units: int, one_hot: bool) -> keras.Model:
    """One hidden layer, and a probability for each of the 10 classes."""
    # Grey values 0..255 become 0..1 inside the model; outside they stay bytes.
    model = keras.Sequential([keras.Input(shape=(28, 28)), layers.Rescaling(1 / 255), layers.Flatten()])
    model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    return model


def main(
    run: Run,
    *,
    dataset: Literal["mnist", "fashion_mnist"] = "mnist",
    one_hot: bool = False,
    units: int = 512,
    epochs: int = 5,
    batch_size: int = 128,
) -> None:
    """Train, look at the curve, score the test images, and draw the mistakes.

    Args:
        dataset: Digits, or articles of clothing.
        one_hot: Give each label as a row with a single 1, not as an integer.
        units: Width of the hidden layer.
        epochs: Passes over the training rows.
        batch_size: Images a step.
    """
    # 1. Data: a look at one image.
    data = getattr(run.data, dataset)()
    (x, y), (x_test, y_test), names = *data, data.class_names
    print(f"{names[y[0]]}: {x[0].shape} pixels, {x.dtype}, grey values {x[0].min()} to {x[0].max()}")
    encode = keras.utils.to_categorical if one_hot else np.asarray

    # 2. Baselines: always the most frequent class, and a linear model on 5,000 of the images.
    linear = LogisticRegression(C=0.1, tol=1e-3).fit(x[:5000].reshape(-1, 784) / 255, y[:5000])
    majority = np.mean(y_test == np.bincount(y).argmax())
    run.score(baseline_accuracy=majority, linear_accuracy=linear.score(x_test.reshape(-1, 784) / 255, y_test))

    # 3. Train, and watch the last sixth of the rows. toolkit.fit is model.fit, one compiled call an epoch.
    model = build_model(units, one_hot)
    watch = {"validation_split": 1 / 6, "callbacks": [run.log()], "checkpoint": run.keep()}
    history = toolkit.fit(model, x, encode(y), epochs=epochs, batch_size=batch_size, **watch)
    run.figure("accuracy.png", toolkit.plot_history(history, "accuracy"))
    best_epochs = int(np.argmax(history.history["val_accuracy"])) + 1

    # 4. A fresh model on every training image, for the best number of epochs; one look at the test images.
    model = build_model(units, one_hot)
    toolkit.fit(model, x, encode(y), epochs=best_epochs, batch_size=batch_size, checkpoint=run.keep("all"))
    run.score(test_accuracy=model.evaluate(x_test, encode(y_test), verbose=0, return_dict=True)["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 5. Use it, and look at what it gets wrong.
    probabilities = model.predict(x_test, batch_size=1024, verbose=0)
    guesses = probabilities.argmax(axis=1)
    print(f"The first test image is {names[guesses[0]]}, with probability {probabilities[0].max():.3f}.")
    wrong = np.flatnonzero(guesses != y_test)[:20]
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    figure.suptitle(f"The first {len(wrong)} mistakes: guess (truth)")
    grid = figure.subplots(4, 5, subplot_kw={"xticks": [], "yticks": []})
    for axes, row in zip(grid.flat, wrong, strict=False):
        axes.imshow(x_test[row], cmap="gray_r")
        axes.set_title(f"{names[guesses[row]]} ({names[y_test[row]]})", fontsize=9)
    run.figure("mistakes.png", figure)


if __name__ == "__main__":
    cli(main)
