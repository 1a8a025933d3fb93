"""Sort newswires into 46 topics.

Teaches   One of many classes: softmax, integer or one-hot labels, what a random guess would score, why a
          layer narrower than the number of classes is a bottleneck, a report for each topic.
Data      Reuters: 8,982 + 2,246 newswires, 46 topics of very different size; 10,000 words.
          10.6% of the test newswires also stand in the training set, half of them with another topic.
Source    Chollet, Deep Learning with Python, section 3.5.
Published 0.777 to 0.785
Try next  --units 4 (the bottleneck); --units 32 or 128; --labels one_hot: the same result?
"""

from typing import Literal

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, classification_report

import toolkit
from toolkit.run import Run, cli

EXPECTED = {
    "baseline_accuracy": (0.36, 0.37),
    "linear_accuracy": (0.78, 0.81),
    "test_accuracy": (0.775, 0.81),
}
QUICK = {"epochs": 2}


def build_model(units: int, labels: str) -> keras.Model:
    """Two hidden layers, and a probability for each of the 46 topics."""
    model = keras.Sequential(
        [
            keras.Input(shape=(10_000,)),
            layers.Dense(units, activation="relu"),
            layers.Dense(units, activation="relu"),
            layers.Dense(46, activation="softmax"),
        ]
    )
    loss = "categorical_crossentropy" if labels == "one_hot" else "sparse_categorical_crossentropy"
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    return model


def main(
    run: Run,
    *,
    units: int = 64,
    labels: Literal["integer", "one_hot"] = "integer",
    epochs: int = 20,
    batch_size: int = 512,
) -> None:
    """Train, choose the number of epochs, train again, and score the test newswires.

    Args:
        units: Width of the two hidden layers.
        labels: Each label as an integer, or as a row with a single 1.
        epochs: Passes over the training rows, enough of them to see overfitting.
        batch_size: Newswires a step.
    """
    # 1. Data.
    data = run.data.reuters(num_words=10_000)
    (train_news, y), (test_news, y_test) = data
    topics = data.class_names
    print(f'A newswire, topic "{topics[y[0]]}": {toolkit.decode(train_news[0], data.word_index)[:150]} ...')
    x, x_test = (toolkit.multi_hot(news, 10_000, sparse=True) for news in (train_news, test_news))
    encode = (lambda y: keras.utils.to_categorical(y, 46)) if labels == "one_hot" else np.asarray
    seen = {tuple(news) for news in train_news}
    print(f"{np.mean([tuple(news) in seen for news in test_news]):.1%} of the test rows also stand in training.")

    # 2. Baselines: always the largest topic, a random guess, and a linear model on the same vectors.
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()))
    run.score(baseline_random_accuracy=np.mean(y_test == np.random.default_rng(run.seed).permutation(y_test)))
    linear = LogisticRegression(max_iter=30).fit(x.astype("float32"), y)
    run.score(linear_accuracy=linear.score(x_test, y_test))

    # 3. Train, and watch the last ninth of the rows, which training does not see.
    # toolkit.fit is model.fit, one compiled call an epoch.
    model = build_model(units, labels)
    log = keras.callbacks.CSVLogger(run.path("history.csv"))
    fit = {"batch_size": batch_size, "validation_split": 1 / 9, "callbacks": [log]}
    history = toolkit.fit(model, x, encode(y), epochs=epochs, **fit)
    toolkit.plot_history(history, "accuracy").figure.savefig(run.path("accuracy.png"))
    best_epochs = int(np.argmin(history.history["val_loss"])) + 1
    print(f"The validation loss is lowest after epoch {best_epochs}.")

    # 4. A fresh model on every training row, for that many epochs; then one look at the test rows.
    model = build_model(units, labels)
    toolkit.fit(model, x, encode(y), epochs=best_epochs, batch_size=batch_size)
    run.score(test_accuracy=model.evaluate(x_test, encode(y_test), verbose=0, return_dict=True)["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 5. Use it: where is it right, and what does it take for what?
    probabilities = model.predict(x_test, batch_size=batch_size, verbose=0)
    guesses = probabilities.argmax(axis=1)
    words = toolkit.decode(test_news[0], data.word_index)
    print(f'"{topics[guesses[0]]}" with probability {probabilities[0].max():.2f}: {words[:100]} ...')
    largest = np.bincount(y_test).argsort()[:-11:-1]
    names = [topics[topic] for topic in largest]
    print(classification_report(y_test, guesses, labels=largest, target_names=names, zero_division=0))
    axes = Figure(figsize=(6.4, 6.0), layout="constrained").subplots()
    ConfusionMatrixDisplay.from_predictions(
        y_test, guesses, labels=largest, display_labels=names, ax=axes, xticks_rotation=60, colorbar=False
    )
    axes.set_title("The ten largest topics of the test set")
    axes.figure.savefig(run.path("confusion.png"))


if __name__ == "__main__":
    cli(main)
