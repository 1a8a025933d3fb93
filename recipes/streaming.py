"""Train on a stream of record files, which may be larger than the memory.

Teaches   Records, written once by a TFDS builder, its own or ours (toolkit/records.py); map, cache, shuffle
          buffer, multi-hot vectors batch by batch, prefetch; k-fold by slices of a split; what it costs.
Data      TFDS's mnist and imdb_reviews, from Keras's files; Reuters and Boston, which TFDS lacks.
Source    Géron, Hands-On Machine Learning, chapter 13; Chollet, Deep Learning with Python, section 3.5.
Takes     60 s
Try next  --dataset imdb; --buffer 1; --dataset mnist, then tfds.load("mnist", data_dir="runs/records/real")
"""

import resource
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
from toolkit.records import Read, prepare, reader
from toolkit.run import Run, cli

# Seeds 0 to 4: test_accuracy 0.796 to 0.803, memory_accuracy 0.796 to 0.811, peak_megabytes 914 to 943.
EXPECTED = {"test_accuracy": (0.77, 0.82), "memory_accuracy": (0.77, 0.82), "peak_megabytes": (200, 1000)}
QUICK = {"epochs": 1}
Name = Literal["reuters", "boston_housing", "mnist", "imdb"]


def stream(records: tfds.core.DatasetBuilder, split: str, read: Read, buffer: int = 1) -> tf.data.Dataset:
    """Return batches of (x, y), shuffled as far as the buffer reaches."""
    rows = records.as_dataset(split, as_supervised=True, read_config=tfds.ReadConfig(try_autocache=False))
    rows = rows.map(lambda x, y: (read(x), y)).cache().shuffle(buffer).ragged_batch(32)  # or cache(file)
    if isinstance(rows.element_spec[0], tf.RaggedTensorSpec):  # lists are cached, for vectors are long
        rows = rows.map(lambda x, y: (toolkit.multi_hot(x, 10_000), y))
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1  # more threads would hold more memory
    return rows.prefetch(1).with_options(options)  # the next batch is made while this one is trained on


def build_model(shape: tuple[int, ...], head: toolkit.Head) -> keras.Model:
    """Two hidden layers on multi-hot vectors, or on numbers, scaled by what streams past."""
    scale = [] if shape == (10_000,) else [layers.BatchNormalization(momentum=0.9), layers.Flatten()]
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    model = keras.Sequential([keras.Input(shape), *scale, *hidden, head.layer()])
    model.compile(optimizer="rmsprop", loss=head.loss, metrics=[head.metric])
    return model


def main(run: Run, *, dataset: Name = "reuters", folds: int = 2, epochs: int = 4, buffer: int = 5000) -> None:
    """Write record files, cross-validate and train on the stream, and do the same in memory.

    Args:
        dataset: What to stream.
        folds: Slices of the training rows, each of which validates once.
        epochs: Passes over the training rows, enough of them to see overfitting.
        buffer: Rows among which the shuffle draws the next one.
    """
    # 1. Record files, written by the first run, with every word in them.
    text = {"num_words": 100_000} if dataset in ("reuters", "imdb") else {}
    data = getattr(run.data, dataset)(**text)
    records, read = prepare(data, run.folder.parents[1] / "records" / data.source), reader(data, 10_000)

    # 2. Cross-validation by slices. It is model.fit here, for toolkit.fit wants all rows in memory.
    shape, head, curves = (10_000,) if text else data.x_train.shape[1:], toolkit.head(data.y_train), []
    for low, high in [(100 * fold // folds, 100 * (fold + 1) // folds) for fold in range(folds)]:
        train = stream(records, f"train[:{low}%]+train[{high}%:]", read, buffer)
        watch = {"validation_data": stream(records, f"train[{low}%:{high}%]", read), "verbose": 0}
        curves.append(build_model(shape, head).fit(train, epochs=epochs, shuffle=False, **watch).history)
        keras.utils.clear_session()  # or the process would grow with each model
    best_epochs = int(np.mean([curve["val_loss"] for curve in curves], axis=0).argmin()) + 1
    run.figure("folds.png", toolkit.plot_folds(curves, head.metric))

    # 3. All training rows, one look at the test rows, and the most memory that the process has held.
    model, train, started = build_model(shape, head), stream(records, "train", read, buffer), perf_counter()
    model.fit(train, epochs=best_epochs, shuffle=False, callbacks=[run.log()], verbose=2)
    print(f"{best_epochs * len(data.y_train) / (perf_counter() - started):,.0f} rows a second streamed")
    run.score(**{f"test_{head.metric}": model.evaluate(stream(records, "test", read), verbose=0)[1]})
    run.score(peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
    toolkit.save(model, run.path("model.keras"))

    # 4. The same in memory, and the baselines: the most frequent label or the mean, and a linear model.
    parts = [([np.where(row < 10_000, row, 2) for row in x], y) for x, y in data] if text else data
    (x, y), (x_test, y_test) = [(toolkit.multi_hot(x, 10_000) if text else x, y) for x, y in parts]
    model, started = build_model(shape, head), perf_counter()
    toolkit.fit(model, x, y, epochs=best_epochs, batch_size=32, verbose=0)
    print(f"{best_epochs * len(y) / (perf_counter() - started):,.0f} rows a second from memory")
    run.score(**{f"memory_{head.metric}": model.evaluate(x_test, y_test, verbose=0)[1]})
    x, x_test = (csr_array(part.reshape(len(part), -1), dtype="float32") for part in (x, x_test))
    typical, kind = (y.mean(), Ridge) if head.metric == "mae" else (np.bincount(y).argmax(), RidgeClassifier)
    for name, guess in (("baseline", typical), ("linear", kind(alpha=100).fit(x, y).predict(x_test))):
        score = abs(guess - y_test) if head.metric == "mae" else guess == y_test
        run.score(**{f"{name}_{head.metric}": score.mean()})


if __name__ == "__main__":
    cli(main)
