"""Data sets as record files, by TensorFlow Datasets (TFDS): its own builders, and ours for what it lacks.

TFDS asks a builder three questions: what is a row, which splits are there, and which rows do they hold. It
writes the answers to files once, and streams them from there ever after. What a row is, TFDS's builders of
`mnist` and `imdb_reviews` say, and ours, here, of `reuters` and `boston_housing`. `prepare` answers the rest
from arrays, where TFDS would download: no network is asked. `reader` turns rows back into what they were.
"""

import contextlib
import functools
import io
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds  # type: ignore[import-untyped]

from toolkit import _files
from toolkit.data.tokens import INDEX_FROM, MARKS, START, UNKNOWN

Read: TypeAlias = Callable[[tf.Tensor], tf.Tensor]
_LEFT_OUT = "\ufffd"  # in place of a word that was cut: no vocabulary has it


def _examples(builder: Any, x: Iterable[Any], y: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row under a number, as the builder names its two parts."""
    names = builder.info.supervised_keys
    for number, row in enumerate(zip(x, y, strict=True)):
        yield number, dict(zip(names, row, strict=True))


class _Ours(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
    """A builder of what TFDS lacks. Subclasses say what a row is, and `tfds.load` knows them by name."""

    VERSION = tfds.core.Version("1.0.0")
    x: Any
    y: Any
    _generate_examples = _examples

    def _info(self) -> Any:
        features = tfds.features.FeaturesDict({"x": self.x, "y": self.y})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("x", "y"))

    def _split_generators(self, dl_manager: Any) -> Any:
        raise FileNotFoundError(f"{self.name} cannot be downloaded; `toolkit.records.prepare` writes it.")


@functools.cache
def _introduce() -> None:
    """Tell TFDS of our builders, and to look for no others: it would ask the network for its community's."""
    tfds.core.visibility.set_availables([tfds.core.visibility.DatasetType.TFDS_PUBLIC])

    class Reuters(_Ours):
        """Newswires as numbers, each with one of 46 topics."""

        x = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        y = tfds.features.ClassLabel(num_classes=46)

    class BostonHousing(_Ours):
        """Houses as 13 numbers, each with its price."""

        # As bytes, or the numbers would become float32.
        x = tfds.features.Tensor(shape=(13,), dtype=np.float64, encoding="bytes")
        y = tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes")


def prepare(data: Any, folder: str | Path) -> Any:
    """Return the TFDS builder of a data set; first write its files, unless they are there.

    They lie where TFDS looks: `tfds.load("mnist", data_dir=folder, download=False)` reads them too, and what
    TFDS itself has downloaded to `folder` is used as it is.

    Args:
        data: A `Dataset` of `toolkit.Data` with Keras's tokens: mnist, imdb, reuters or boston_housing. A
            word that was cut from it is missing in the files, too: `num_words=100_000` cuts none.
        folder: What TFDS calls `data_dir`.

    Returns:
        A `tfds.core.DatasetBuilder` with the splits "train" and "test". `as_dataset(..., as_supervised=True)`
        gives uint8 `(28, 28, 1)` for mnist; a string for imdb, words with blanks between them; int32
        `(length,)` for reuters; float64 `(13,)` for boston_housing. Labels are int64, prices float64.
        TFDS's third split of imdb_reviews, "unsupervised", is left out: Keras's file has none.

    Raises:
        ValueError: If there are other numbers of rows in `folder` than in `data`.
        tfds.core.DatasetNotFoundError: If neither TFDS nor this module has a builder of `data`.

    >>> import tempfile, toolkit
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = prepare(toolkit.Data("sample").boston_housing(), folder)
    ...     half = tfds.load("boston_housing", data_dir=folder, download=False, split="train[50%:]")
    >>> records.name, len(half)
    ('boston_housing', 202)
    """
    state = random.getstate()
    _introduce()
    parts = dict(zip(("train", "test"), data, strict=True))
    Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
    with _files.locked(Path(folder).expanduser() / f".{data.name}.lock"):  # the runs of a study come at once
        builder = tfds.builder("imdb_reviews" if data.name == "imdb" else data.name, data_dir=folder)
        builder._split_generators = lambda dl_manager: {
            split: _examples(builder, _rows(data, x), y) for split, (x, y) in parts.items()
        }
        builder._make_download_manager = lambda **_: SimpleNamespace(downloaded_size=0)  # nothing is fetched
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # it would tell of a download, and there is none
            builder.download_and_prepare()
    # TFDS has drawn from Python's numbers, and so will Keras: the same ones with files or without.
    random.setstate(state)
    for split, (_, y) in parts.items():
        if (rows := builder.info.splits[split].num_examples) != len(y):
            raise ValueError(f"{builder.data_dir} must hold {len(y)} rows of {split}. Received: {rows}")
    return builder


def _rows(data: Any, x: Any) -> Iterator[Any]:
    """Yield rows as TFDS's features want them: images with a channel, reviews as words."""
    words = {rank + INDEX_FROM: word for word, rank in data.word_index.items()} if data.name == "imdb" else {}
    for row in x:
        if words:
            yield " ".join(words.get(token, _LEFT_OUT) for token in row.tolist() if token > START)
        else:
            yield row[..., np.newaxis] if row.ndim == 2 else row


def reader(data: Any, num_words: int) -> Read:
    """Return what turns a row of the record files back into a row of `data`, inside `tf.data.Dataset.map`.

    Args:
        data: What `prepare` was given.
        num_words: Tokens from this number on become 2, "unknown word", as in `toolkit.Data`.

    Returns:
        A function of one row. A review may be TFDS's own, too, in capitals and with punctuation.

    >>> import toolkit
    >>> read = reader(toolkit.Data("sample").imdb(), num_words=1000)
    >>> read(tf.constant("The, THE xyzzy")).numpy()
    array([1, 4, 4, 2], dtype=int32)
    """
    if data.name == "reuters":
        return lambda row: tf.where(row < num_words, row, UNKNOWN)
    if data.name != "imdb":
        return lambda row: tf.reshape(row, data.x_train.shape[1:])
    tokens = {word: rank + INDEX_FROM for word, rank in data.word_index.items()}
    tokens = {word: token for word, token in tokens.items() if token < num_words}
    tokens["<start>"] = START  # no word of a review, for those have no marks
    marks = f"[{re.escape(MARKS)}]"
    pairs = tf.lookup.KeyValueTensorInitializer(list(tokens), list(tokens.values()))
    table = tf.lookup.StaticHashTable(pairs, default_value=UNKNOWN)

    def read(row: tf.Tensor) -> tf.Tensor:
        text = tf.strings.lower(row)  # A to Z only, as in Keras's texts, whose word index has an "À"
        return table.lookup(tf.strings.split("<start> " + tf.strings.regex_replace(text, marks, " ")))

    return read
