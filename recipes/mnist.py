"""Read handwritten digits with one hidden layer, and look at the ones it gets wrong.

Teaches   Images as arrays; a softmax classifier; validation apart from test; a look at the
          mistakes.
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
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 2}


def build_model(units: int, one_hot: bool) -> keras.Model:
    """Build and compile a network that turns an image into a probability for each of 10 classes."""
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28)),
            # Gray values come as bytes, 0 to 255. A network learns best from small numbers.
            layers.Rescaling(scale=1 / 255),
            layers.Flatten(),  # (28, 28) becomes (784,)
            layers.Dense(units, activation="relu"),
            # Softmax makes the 10 outputs positive and their sum 1, as probabilities are.
            layers.Dense(10, activation="softmax"),
        ]
    )
    # Both losses are the same formula, -log of the probability of the true class. "Sparse" only
    # says that a label comes as an integer.
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    # "rmsprop" is gradient descent that divides the step of each weight by the recent size of its
    # gradients.
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    return model


def encode_labels(y: np.ndarray, one_hot: bool) -> np.ndarray:
    """Leave the labels as they are, or make 3, say, a row [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]."""
    if one_hot:
        return keras.utils.to_categorical(y, num_classes=10)  # (n, 10)
    return y  # (n,)


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
    # 1. Data. An image is a square of gray values, its label an integer.
    data = run.data.mnist() if dataset == "mnist" else run.data.fashion_mnist()
    # (data.source, in the titles of the figures, is "real" or, without the files, "sample".)
    (x, y), (x_test, y_test) = data  # x: (60000, 28, 28), uint8; y: (60000,), 0 to 9
    names = data.class_names
    image = x[0]  # (28, 28)
    print(f'The first image, "{names[y[0]]}", is an array of shape {image.shape}, {image.dtype},')
    print(f"with gray values from {image.min()} to {image.max()}.")
    targets = encode_labels(y, one_hot)
    test_targets = encode_labels(y_test, one_hot)

    # 2. Baselines: always the most frequent class, and a linear model on 5,000 of the images. (All
    # 60,000 would help it little.) run.score prints a score, beside the range in which it is
    # expected.
    most_frequent = np.bincount(y).argmax()
    run.score(baseline_accuracy=np.mean(y_test == most_frequent))
    pixels = x[:5000].reshape(-1, 784) / 255  # (5000, 784)
    # A small C keeps the weights small, and a large tol ends the search for them early.
    linear = LogisticRegression(C=0.1, tol=1e-3).fit(pixels, y[:5000])
    run.score(linear_accuracy=linear.score(x_test.reshape(-1, 784) / 255, y_test))

    # 3. Training, on five sixths of the images. The rest are for validation: after each epoch they
    # are scored, but no weight learns from them. (validation_split takes the last rows.)
    model = build_model(units, one_hot)
    # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
    # TensorFlow takes many steps, where model.fit makes a call for each batch.
    history = toolkit.fit(
        model,
        x,
        targets,
        validation_split=1 / 6,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=[run.log()],  # writes each epoch's scores into history.csv
        checkpoint=run.keep(),  # the toolkit's own: a run that is interrupted can go on (--resume)
    )
    best_epochs = int(np.argmax(history.history["val_accuracy"])) + 1  # index 0 is epoch 1
    axes = toolkit.plot_history(history, "accuracy")
    axes.set_title(f"{data.name} ({data.source} data): accuracy after each epoch")
    run.figure("accuracy.png", axes)

    # 4. The final model: a fresh one, on all training images, for the best number of epochs. Then
    # one look at the test images. They had no say in any choice, so their score holds for new
    # images, too.
    model = build_model(units, one_hot)
    toolkit.fit(
        model,
        x,
        targets,
        epochs=best_epochs,
        batch_size=batch_size,
        checkpoint=run.keep("all"),  # under another name than that of the first training
    )
    scores = model.evaluate(x_test, test_targets, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 5. Use it. The guess is the class with the highest of the ten probabilities. Large batches are
    # quicker here, and change nothing.
    probabilities = model.predict(x_test, batch_size=1024, verbose=0)  # (10000, 10)
    guesses = probabilities.argmax(axis=1)  # (10000,)
    highest = probabilities[0].max()
    print(f'The first test image is "{names[guesses[0]]}", with probability {highest:.3f}.')

    # 6. The mistakes. Would you have known?
    wrong = np.flatnonzero(guesses != y_test)  # the numbers of these rows
    print(f"{len(wrong)} of {len(y_test)} test images are wrong.")
    titles = [f"{names[guesses[row]]} ({names[y_test[row]]})" for row in wrong[:20]]
    figure = draw_images(x_test[wrong[:20]], titles)
    figure.suptitle(f"{data.name} ({data.source} data), first mistakes: guess (truth)")
    run.figure("mistakes.png", figure)


def draw_images(images: np.ndarray, titles: list[str]) -> Figure:
    """Draw up to 20 images in rows of 5, each under its title."""
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    panels = figure.subplots(4, 5, subplot_kw={"xticks": [], "yticks": []}).flat
    for axes, image, title in zip(panels, images, titles, strict=False):
        axes.imshow(image, cmap="gray_r")
        axes.set_title(title, fontsize=9)
    return figure


if __name__ == "__main__":
    cli(main)
