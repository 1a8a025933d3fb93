"""Train on a stream of record files, which may be larger than the memory.

Teaches   Records, written once by a builder of TensorFlow Datasets (TFDS), or by one of ours; map,
          cache, shuffle buffer, multi-hot vectors batch by batch, prefetch; k-fold by slices of a
          split; what it costs.
Data      Reuters, Boston housing, MNIST or IMDB, from the files that Keras loads, too.
Source    Géron, Hands-On Machine Learning, chapter 13; Chollet, Deep Learning with Python, 3.5.
Takes     60 s
Try next  --dataset imdb; --buffer 1: what becomes of the score? --dataset mnist, and then in Python
          tfds.load("mnist", data_dir="runs/records/real"): what does it give?
"""

from time import perf_counter
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge, RidgeClassifier

import toolkit
from toolkit.memory import PeakMemory
from toolkit.records import Read, prepare, reader
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.797 to 0.809, memory_accuracy 0.794 to 0.809.
EXPECTED = {"test_accuracy": (0.77, 0.82), "memory_accuracy": (0.77, 0.82)}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 1}
Records = tfds.core.DatasetBuilder  # a short name for the type of what reads record files
NUM_WORDS = 10_000  # the most frequent words; every other word counts as unknown


def stream(records: Records, split: str, read: Read, buffer: int = 1) -> tf.data.Dataset:
    """Return batches of (x, y), shuffled as far as the buffer reaches."""
    config = tfds.ReadConfig(try_autocache=False)  # we choose what to cache, below
    # as_supervised: rows as pairs (x, y), and not as dictionaries.
    rows = records.as_dataset(split, as_supervised=True, read_config=config)
    rows = rows.map(lambda x, y: (read(x), y))  # now x is a list of word numbers, or an array
    # The first epoch reads the files, the others read this cache. It lies in the memory; what is
    # too large for that is kept in a file by cache("FILE"), or read anew by leaving this line out.
    rows = rows.cache()
    # A stream cannot be shuffled as a whole: each row is drawn from the next ones, as many of them
    # as the buffer holds.
    rows = rows.shuffle(buffer)
    batches = rows.ragged_batch(32)  # ragged: texts are not of one length
    if isinstance(batches.element_spec[0], tf.RaggedTensorSpec):  # the rows are texts
        # Only here do texts become multi-hot vectors: 10,000 numbers, a 1 for each word that
        # occurs, and 0 for all others. 32 of them fit into any memory.
        batches = batches.map(lambda x, y: (toolkit.multi_hot(x, NUM_WORDS), y))
    batches = batches.prefetch(1)  # the next batch is made while the model trains on this one
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1  # more threads would hold more rows at a time
    return batches.with_options(options)


def build_model(shape: tuple[int, ...], head: toolkit.Head) -> keras.Model:
    """Two hidden layers on multi-hot vectors or numbers, and the output that the labels need."""
    model = keras.Sequential([keras.Input(shape=shape)])
    if shape != (NUM_WORDS,):
        # Images and numbers are scaled by mean and deviation, but nobody has seen all rows of a
        # stream. So this takes those of each batch. For use after training it keeps running means
        # of both: 0.9 of the old mean, and 0.1 of what the batch has.
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.Flatten())
    model.add(layers.Dense(units=64, activation="relu"))
    model.add(layers.Dense(units=64, activation="relu"))
    model.add(head.layer())
    model.compile(optimizer="rmsprop", loss=head.loss, metrics=[head.metric])
    return model


def main(
    run: Run,
    *,
    dataset: Literal["reuters", "boston_housing", "mnist", "imdb"] = "reuters",
    folds: int = 2,
    epochs: int = 4,
    buffer: int = 5000,
) -> None:
    """Write record files, cross-validate and train on the stream, and do the same in memory.

    Args:
        dataset: What to stream.
        folds: Slices of the training rows, each of which validates once.
        epochs: Passes over the training rows, enough of them to see overfitting.
        buffer: Rows among which the shuffle draws the next one.
    """
    if not 2 <= folds <= 100:  # slices are cut by percent, in step 3
        raise ValueError(f"`folds` must be from 2 to 100. Received: {folds}")

    # 1. Record files. The first run writes them, all others find them. Texts are stored with all of
    #    their words: which of them are rare is decided when they are read. A builder writes the
    #    files, and reads them. TFDS has one for MNIST and one for IMDB; Reuters and Boston have one
    #    of ours, in toolkit/records.py.
    data = load(run, dataset)
    folder = run.shared("records") / data.source
    print(f"Record files: {folder}")
    records = prepare(data, folder)
    # A function that turns what is stored of a row into numbers. Rare words become 2, "unknown".
    read = reader(data, NUM_WORDS)

    # 2. What the model needs to know: the shape of a row, and the kind of the labels.
    is_text = data.x_train.dtype == object  # texts are lists of different lengths
    shape = (NUM_WORDS,) if is_text else data.x_train.shape[1:]
    head = toolkit.head(data.y_train)  # output layer, loss and metric for such labels

    # 3. Cross-validation chooses the number of epochs. TFDS cuts the rows into slices by percent.
    curves = []
    for fold in range(folds):
        low = 100 * fold // folds
        high = 100 * (fold + 1) // folds
        train = stream(records, f"train[:{low}%]+train[{high}%:]", read, buffer)
        held_out = stream(records, f"train[{low}%:{high}%]", read)
        model = build_model(shape, head)
        print(f"Fold {fold + 1} of {folds}")
        history = model.fit(
            train,
            validation_data=held_out,
            epochs=epochs,
            shuffle=False,  # the stream does that
            verbose=2,
        )
        curves.append(history.history)
        # Without this the process would grow with each model. It makes Keras forget its random
        # seed, too, so that is set again.
        keras.utils.clear_session()
        keras.utils.set_random_seed(run.seed)
    title = f"{dataset}, streamed: cross-validation by slices"
    run.figure("folds.png", toolkit.plot_folds(curves, head.metric, title=title))
    mean_loss = np.mean([curve["val_loss"] for curve in curves], axis=0)  # (epochs,)
    best_epochs = int(mean_loss.argmin()) + 1

    # 4. All training rows: how fast is the stream, and how lean? Then one look at the test rows.
    model = build_model(shape, head)
    train = stream(records, "train", read, buffer)
    started = perf_counter()
    with PeakMemory() as streamed:
        model.fit(train, epochs=best_epochs, shuffle=False, callbacks=[run.log()], verbose=2)
    print_cost("streamed", best_epochs * len(data.y_train), started, streamed)
    scores = model.evaluate(stream(records, "test", read), verbose=0, return_dict=True)
    # `score` calls run.score, which prints a score beside the range where it is expected, if any.
    score(run, f"test_{head.metric}", scores[head.metric])
    toolkit.save(model, run.path("model.keras"))

    # 5. The same in memory: all vectors at once. Here we can use toolkit.fit, which takes the
    #    arguments of model.fit and does the same, only faster: one call of TensorFlow takes many
    #    steps, where model.fit makes a call for each batch. It wants all rows in memory.
    model = build_model(shape, head)
    started = perf_counter()
    with PeakMemory() as held:
        (x, y), (x_test, y_test) = in_memory(data, is_text)  # x: (rows, *shape), y: (rows,)
        toolkit.fit(model, x, y, batch_size=32, epochs=best_epochs)
    print_cost("from memory", best_epochs * len(y), started, held)
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    score(run, f"memory_{head.metric}", scores[head.metric])
    print_guess(model, x_test[:1], y_test[0])
    score_baselines(run, head.metric, (x, y), (x_test, y_test))


# The rest is no part of the lesson: four data sets, of two kinds, in one way.


def load(run: Run, dataset: str) -> toolkit.Dataset:
    """Load a data set; a text with all of its words."""
    if dataset == "reuters":
        return run.data.reuters(num_words=100_000)
    if dataset == "imdb":
        return run.data.imdb(num_words=100_000)
    return run.data.mnist() if dataset == "mnist" else run.data.boston_housing()


def in_memory(data: toolkit.Dataset, is_text: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test rows as the stream gives them: rare words 2, then multi-hot."""
    if not is_text:
        return list(data)
    parts = []
    for texts, labels in data:
        known = [np.where(text < NUM_WORDS, text, 2) for text in texts]
        parts.append((toolkit.multi_hot(known, NUM_WORDS), labels))
    return parts


def print_guess(model: keras.Model, x: np.ndarray, truth: float) -> None:
    """Print what the model says of one row: its most probable class, or its price."""
    guess = model.predict(x, verbose=0)[0]
    print(f"The first test row: {guess[0] if len(guess) == 1 else guess.argmax()}, truth {truth}")


def print_cost(way: str, rows: int, started: float, memory: PeakMemory) -> None:
    """Print how fast rows have come since the time `started`, and what memory that has added."""
    speed = rows / (perf_counter() - started)
    print(f"{speed:,.0f} rows a second {way}, {memory.added:.0f} MB more than the process held")


def score(run: Run, name: str, value: float) -> None:
    """Record a score whose name depends on the data set: an accuracy, or a mean absolute error."""
    run.score(**{name: value})


def score_baselines(run: Run, metric: str, train: tuple, test: tuple) -> None:
    """Score the most frequent label or the mean, and a linear model."""
    (x, y), (x_test, y_test) = train, test
    x = csr_array(x.reshape(len(x), -1), dtype="float32")
    x_test = csr_array(x_test.reshape(len(x_test), -1), dtype="float32")
    if metric == "mae":
        guesses = Ridge(alpha=100).fit(x, y).predict(x_test)  # alpha keeps the weights small
        score(run, "baseline_mae", abs(y.mean() - y_test).mean())
        score(run, "linear_mae", abs(guesses - y_test).mean())
    else:
        linear = RidgeClassifier(alpha=100).fit(x, y)
        score(run, "baseline_accuracy", np.mean(y_test == np.bincount(y).argmax()))
        score(run, "linear_accuracy", linear.score(x_test, y_test))


if __name__ == "__main__":
    cli(main)
