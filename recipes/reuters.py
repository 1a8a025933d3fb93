"""Sort newswires into 46 topics.

Teaches   One of many classes: softmax, integer or one-hot labels, the score of a random guess, the
          bottleneck of a layer narrower than the number of classes, a report for each topic.
Data      Reuters: 8,982 + 2,246 newswires, 46 topics of very different size. 10.6% of the test
          newswires also stand in the training set, half of them with another topic.
Source    Chollet, Deep Learning with Python, section 3.5.
Published 0.777 to 0.785
Takes     25 s
Try next  --units 4 (the bottleneck); --units 32 or 128; --one-hot: the same result?
"""

from functools import partial

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import ConfusionMatrixDisplay, classification_report, confusion_matrix

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.789 to 0.804.
EXPECTED = {"baseline_accuracy": (0.36, 0.37), "linear_accuracy": (0.8, 0.82), "test_accuracy": (0.775, 0.81)}
QUICK = {"epochs": 2}


def build_model(units: int, one_hot: bool) -> keras.Model:
    """Two hidden layers, and a probability for each of the 46 topics."""
    model = keras.Sequential([keras.Input(shape=(10_000,), sparse=True)])
    model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(46, activation="softmax"))
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    return model


def main(
    run: Run, *, units: int = 64, one_hot: bool = False, epochs: int = 20, batch_size: int = 512
) -> None:
    """Train, choose the number of epochs, train again, and score the test newswires.

    Args:
        units: Width of the two hidden layers.
        one_hot: Give each label as a row with a single 1, not as an integer.
        epochs: Passes over the training rows, enough of them to see overfitting.
        batch_size: Newswires a step.
    """
    # 1. Data: a newswire is a list of word ranks; it becomes a vector that says which words occur.
    data = run.data.reuters(num_words=10_000)
    (train_news, y), (test_news, y_test), topics = *data, data.class_names
    print(f'A newswire, topic "{topics[y[0]]}": {toolkit.decode(train_news[0], data.word_index)[:150]} ...')
    x, x_test = (toolkit.multi_hot(news, 10_000, sparse=True) for news in (train_news, test_news))
    encode = partial(keras.utils.to_categorical, num_classes=46) if one_hot else np.asarray
    seen = {tuple(news) for news in train_news}
    overlap = np.mean([tuple(news) in seen for news in test_news])
    print(f"{overlap:.1%} of the test newswires also stand in the training set.")

    # 2. Baselines: always the largest topic, a random guess, and a linear model on the same vectors.
    shuffled = np.random.default_rng(run.seed).permutation(y_test)
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()))
    run.score(baseline_random_accuracy=np.mean(y_test == shuffled))
    linear = RidgeClassifier(alpha=100, tol=0.01).fit(x.astype("float32"), y)
    run.score(linear_accuracy=linear.score(x_test, y_test))

    # 3. Train, and watch the last ninth of the rows. toolkit.fit is model.fit, one compiled call an epoch.
    model = build_model(units, one_hot)
    watch = {"validation_split": 1 / 9, "callbacks": [run.log()], "checkpoint": run.keep()}
    history = toolkit.fit(model, x, encode(y), epochs=epochs, batch_size=batch_size, **watch)
    run.figure("accuracy.png", toolkit.plot_history(history, "accuracy"))
    best_epochs = int(np.argmin(history.history["val_loss"])) + 1
    print(f"The validation loss is lowest after epoch {best_epochs}.")

    # 4. A fresh model on every training row, for that many epochs; then one look at the test rows.
    model = build_model(units, one_hot)
    toolkit.fit(model, x, encode(y), epochs=best_epochs, batch_size=batch_size, checkpoint=run.keep("all"))
    run.score(test_accuracy=model.evaluate(x_test, encode(y_test), verbose=0, return_dict=True)["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 5. Use it: where is it right, and what does it take for what?
    probabilities = model.predict(x_test, batch_size=batch_size, verbose=0)
    guesses, words = probabilities.argmax(axis=1), toolkit.decode(test_news[0], data.word_index)
    print(f'"{topics[guesses[0]]}" with probability {probabilities[0].max():.2f}: {words[:100]} ...')
    largest = np.bincount(y_test).argsort()[:-11:-1]
    names = [topics[topic] for topic in largest]
    print(classification_report(y_test, guesses, labels=largest, target_names=names, zero_division=0))
    axes = Figure(figsize=(6.4, 6.0), layout="constrained").subplots()
    confusion = confusion_matrix(y_test, guesses, labels=largest)
    ConfusionMatrixDisplay(confusion, display_labels=names).plot(ax=axes, xticks_rotation=60, colorbar=False)
    axes.set_title("The ten largest topics of the test set")
    run.figure("confusion.png", axes)


if __name__ == "__main__":
    cli(main)
