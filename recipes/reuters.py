"""Sort newswires into 46 topics.

Teaches   One of many classes: softmax, integer or one-hot labels, the score of a random guess, the
          bottleneck of a layer narrower than the number of classes, a report for each topic.
Data      Reuters: 8,982 + 2,246 newswires, 46 topics of very different size. 10.6% of the test
          newswires also stand in the training set, half of them with another topic.
Source    Chollet, Deep Learning with Python, section 3.5.
Published 0.777 to 0.785
Takes     12 s
Try next  --units 4 (the bottleneck); --units 32 or 128; --one-hot: the same result?
"""

import keras
import numpy as np
from keras import layers
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import ConfusionMatrixDisplay, classification_report

import toolkit
from toolkit.drawing import mark_epoch
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.789 to 0.804.
EXPECTED = {
    "baseline_accuracy": (0.36, 0.37),
    "linear_accuracy": (0.8, 0.82),
    "test_accuracy": (0.775, 0.81),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 2}
NUM_WORDS = 10_000  # the most frequent words; every other word counts as unknown
TOPICS = 46


def build_model(units: int, one_hot: bool) -> keras.Model:
    """Build and compile a network that turns a newswire into a probability for each topic."""
    model = keras.Sequential(
        [
            # The rows come as a sparse matrix, which stores only what is not 0: see step 2.
            keras.Input(shape=(NUM_WORDS,), sparse=True),
            # What a layer drops, no later layer can bring back. With fewer units than there are
            # topics, a hidden layer becomes a bottleneck: try --units 4.
            layers.Dense(units, activation="relu"),
            layers.Dense(units, activation="relu"),
            # Softmax makes the 46 outputs positive and their sum 1, as probabilities are.
            layers.Dense(TOPICS, activation="softmax"),
        ]
    )
    # Both losses are the same formula, -log of the probability of the true class. "Sparse" here
    # only says that a label comes as an integer.
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    # "rmsprop" is gradient descent that divides the step of each weight by the recent size of its
    # gradients.
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    return model


def encode_labels(y: np.ndarray, one_hot: bool) -> np.ndarray:
    """Leave the labels as they are, or make 3, say, a row of zeros but for a 1 at index 3."""
    if one_hot:
        return keras.utils.to_categorical(y, num_classes=TOPICS)  # (n, 46)
    return y  # (n,)


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
    # 1. Data. A newswire is a list of word numbers, its label the number of its topic.
    data = run.data.reuters(num_words=NUM_WORDS)
    (news, y), (test_news, y_test) = data  # 8,982 lists of different lengths, and y: (8982,)
    text = toolkit.decode(news[0], data.word_index)  # one string, as long as the newswire
    print(f'A newswire, topic "{data.class_names[y[0]]}": {text[:150]} ...')
    training_news = {tuple(sequence) for sequence in news}
    repeated = [tuple(sequence) in training_news for sequence in test_news]
    print(f"{np.mean(repeated):.1%} of the test newswires also stand in the training set.")

    # 2. Vectors. A newswire becomes 10,000 numbers: 1 for each word that occurs in it, else 0.
    # Nearly all of them are 0. A sparse matrix stores only the ones, and means the same.
    x = toolkit.multi_hot(news, NUM_WORDS, sparse=True)  # (8982, 10000)
    x_test = toolkit.multi_hot(test_news, NUM_WORDS, sparse=True)  # (2246, 10000)
    targets = encode_labels(y, one_hot)
    test_targets = encode_labels(y_test, one_hot)

    # 3. Baselines: always the largest topic, a random guess, and a linear model on the same
    # vectors. The random guess has each topic as often as it occurs, because it is the truth,
    # shuffled. run.score prints a score, beside the range in which it is expected, if it has one.
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()))
    shuffled = np.random.default_rng(run.seed).permutation(y_test)
    run.score(baseline_random_accuracy=np.mean(y_test == shuffled))
    # A large alpha keeps the weights small, and a large tol ends the search for them early. (As
    # float32, because scikit-learn would make float64 of whole numbers, twice as large.)
    linear = RidgeClassifier(alpha=100, tol=0.01).fit(x.astype("float32"), y)
    run.score(linear_accuracy=linear.score(x_test, y_test))

    # 4. Training, on eight ninths of the newswires. The rest are for validation: after each epoch
    # they are scored, but no weight learns from them. (validation_split takes the last rows.)
    model = build_model(units, one_hot)
    # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
    # TensorFlow takes many steps, where model.fit makes a call for each batch.
    history = toolkit.fit(
        model,
        x,
        targets,
        validation_split=1 / 9,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=[run.log()],  # writes each epoch's scores into history.csv
        checkpoint=run.keep(),  # the toolkit's own: a run that is interrupted can go on (--resume)
    )
    # The loss chooses, not the accuracy: it also counts how sure the model was, so it jumps less.
    best_epochs = int(np.argmin(history.history["val_loss"])) + 1  # index 0 is epoch 1
    print(f"The validation loss is lowest after epoch {best_epochs}.")
    axes = toolkit.plot_history(history, "accuracy")
    mark_epoch(axes, best_epochs, "chosen by validation loss")
    axes.set_title(f"{data.name} ({data.source} data): accuracy after each epoch")
    run.figure("accuracy.png", axes)

    # 5. The final model: a fresh one, on all training rows, for that many epochs. Then one look at
    # the test rows.
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

    # 6. Use it. The guess is the topic with the highest of the 46 probabilities.
    probabilities = model.predict(x_test, batch_size=batch_size, verbose=0)  # (2246, 46)
    guesses = probabilities.argmax(axis=1)  # (2246,)
    text = toolkit.decode(test_news[0], data.word_index)
    print(f'"{data.class_names[guesses[0]]}", it says of this newswire: {text[:100]} ...')
    print(f"It gives that topic a probability of {probabilities[0].max():.2f}.")

    # 7. A report for each topic. One accuracy hides that some topics are known far better than
    # others. Precision: how many of the newswires that it put into a topic belong there? Recall:
    # how many of the newswires of a topic did it find?
    ten_largest = np.bincount(y_test).argsort()[::-1][:10]
    names = [data.class_names[topic] for topic in ten_largest]
    print(
        classification_report(
            y_true=y_test,
            y_pred=guesses,
            labels=ten_largest,
            target_names=names,
            zero_division=0,  # a topic that was never guessed has no precision: print 0 for it
        )
    )

    # 8. The mistakes: which topic is taken for which? In the figure a row is a true topic, and a
    # column is a guess. It counts the newswires whose topic and guess are both among the ten.
    axes = draw_confusion(y_test, guesses, ten_largest, names)
    axes.set_title(f"{data.name} ({data.source} data): the ten largest topics")
    run.figure("confusion.png", axes)


def draw_confusion(y, guesses, labels: np.ndarray, names: list[str]) -> Axes:
    """Draw a table: how often was each true label given each guess, of those in `labels`?"""
    axes = Figure(figsize=(6.4, 6.0), layout="constrained").subplots()
    ConfusionMatrixDisplay.from_predictions(
        y_true=y,
        y_pred=guesses,
        labels=labels,
        display_labels=names,
        xticks_rotation=60,
        colorbar=False,
        ax=axes,
    )
    axes.set_xlabel("predicted topic")
    axes.set_ylabel("true topic")
    return axes


if __name__ == "__main__":
    cli(main)
