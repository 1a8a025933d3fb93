"""The data sets of `keras.datasets`: from their verified files, or else from the embedded sample."""

import gzip
import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.data import files, sample
from toolkit.data.tokens import INDEX_FROM, START, UNKNOWN, Array, Part, TokenOptions

Mode = Literal["auto", "real", "sample"]
_DIGITS = tuple("0123456789")
_CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"


class DataNotFoundError(FileNotFoundError):
    """The real files of a data set were not found and could not be downloaded."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a data set came from, for a report."""

    name: str  # as `Data` names it
    source: Literal["real", "sample"]
    files: dict[str, str]  # the sha256 of each file that was read, by its name; empty for the sample
    reason: str  # why the sample was used; empty for real data


@dataclass(frozen=True, eq=False)
class Dataset(Origin):
    """Training and test rows, and what they are. Unpacks as the loaders of `keras.datasets` do.

    Attributes:
        x_train, x_test: Images: uint8, shape `(n, 28, 28)`. Texts: an object array, shape `(n,)`, of int32
            arrays. Houses: float, shape `(n, columns)`.
        y_train, y_test: Their labels, or prices, shape `(n,)`.
        class_names: The name of each label; empty for houses.
        feature_names: The name of each column; empty for images and texts.
        best: Of the sample only: the test accuracy (houses: mean absolute error) of the rule behind the
            generated data, which their noise keeps from 1 (0); of real digits, that of the nearest image.
        name, source, files, reason: As in `Origin`.

    >>> data = Data("sample")
    >>> dataset = data.imdb(num_words=100)
    >>> (x_train, y_train), (x_test, y_test) = dataset
    >>> x_train.shape, x_train[0].dtype, dataset.class_names, dataset.best
    ((2000,), dtype('int32'), ('negative', 'positive'), 0.9)
    >>> data.used[0].name, data.used[0].source
    ('imdb', 'sample')
    >>> dataset.word_index["the"]
    1
    """

    x_train: Array = field(repr=False)
    y_train: Array = field(repr=False)
    x_test: Array = field(repr=False)
    y_test: Array = field(repr=False)
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    best: float | None = None
    _word_index: bytes = field(default=b"", repr=False)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        yield self.x_train, self.y_train
        yield self.x_test, self.y_test

    @cached_property
    def word_index(self) -> dict[str, int]:
        """Each word's rank by frequency, from 1: the token less `index_from`. Only texts have it."""
        if not self._word_index:
            raise ValueError(f"`word_index` is there for imdb and reuters only. Received: {self.name}")
        index: dict[str, int] = json.loads(self._word_index)
        return index


class Data:
    """Loads data sets: the real ones where they can be had, the embedded sample where not.

    A file is looked for in `folder`, `$KERAS_HOME/datasets` and `~/.keras/datasets`, then downloaded through
    Keras. It counts only when its sha256 is Keras's own, and it is parsed from the very bytes that were
    hashed. Nothing is ever deleted or replaced.

    The methods take the arguments of `load_data` in `keras.datasets`. In all of them `seed` is that of the
    shuffling of the rows, and `test_split` the share of these that become test rows, from 0 up to but
    without 1.

    Args:
        mode: "auto" as above; "real" fails where "auto" would fall back; "sample" looks for nothing.
        folder: Where to look first, and where downloads go; the files lie in it or in its `datasets`.
        on_load: Called with each `Dataset` that was loaded. Without it, a fallback to the sample warns.

    Attributes:
        used: The `Origin` of each data set that was loaded, in order.

    Raises:
        ValueError: If `mode` is none of the three, or an argument of a method is out of range.
        DataNotFoundError: From each method, in mode "real": what is missing, and where to put it.

    >>> (x_train, y_train), (x_test, y_test) = Data("sample").mnist()
    >>> x_train.shape, x_train.dtype, y_test[:3]
    ((1500, 28, 28), dtype('uint8'), array([2, 2, 9], dtype=uint8))
    """

    def __init__(
        self,
        mode: Mode = "auto",
        folder: str | Path | None = None,
        on_load: Callable[[Dataset], None] | None = None,
    ) -> None:
        if mode not in ("auto", "real", "sample"):
            raise ValueError(f"`mode` must be 'auto', 'real' or 'sample'. Received: {mode!r}")
        self.mode, self.folder, self.on_load = mode, folder, on_load
        self.used: list[Origin] = []

    def mnist(self) -> Dataset:
        """Handwritten digits: 60,000 + 10,000 images.

        Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits" (CC BY-SA 3.0).
        """
        return self._images("mnist", _DIGITS)

    def fashion_mnist(self) -> Dataset:
        """Pictures of clothes: 60,000 + 10,000 images in ten classes. The sample shows digits.

        Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST" (MIT licence).

        >>> Data("sample").fashion_mnist().class_names[3]
        '3'
        """
        return self._images("fashion_mnist", tuple(_CLOTHES.split(", ")))

    def imdb(
        self,
        *,
        num_words: int | None = None,
        skip_top: int = 0,
        maxlen: int | None = None,
        seed: int | None = 113,
        start_char: int | None = START,
        oov_char: int | None = UNKNOWN,
        index_from: int = INDEX_FROM,
    ) -> Dataset:
        """Film reviews, negative (0) or positive (1): 25,000 + 25,000 texts.

        Does what `keras.datasets.imdb.load_data` does, which is not quite what its docstring says.

        Args:
            num_words: Tokens from this number on become `oov_char`. Tokens, not words: the commonest
                `num_words - index_from` words stay. None (or 0) stands for the largest token there is,
                so that this one token is cut.
            skip_top: Tokens below this number become `oov_char`, the start token among them.
            maxlen: Texts of this many tokens or more, counting the start token, are dropped, not cut.
                None (or 0) keeps all. It must leave a training and a test text.
            seed: As in each method of `Data`.
            start_char: The token that each text begins with; None for none.
            oov_char: The token in place of those left out; None removes them.
            index_from: Added to each word's rank to make its token.

        Source: Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.

        >>> x_train = Data("sample").imdb(num_words=50).x_train
        >>> int(x_train[0][0]), max(int(x.max()) for x in x_train)
        (1, 49)
        """
        options = TokenOptions(num_words, skip_top, maxlen, seed, start_char, oov_char, index_from)
        return self._texts("imdb", ("negative", "positive"), options)

    def reuters(
        self,
        *,
        num_words: int | None = None,
        skip_top: int = 0,
        maxlen: int | None = None,
        test_split: float = 0.2,
        seed: int | None = 113,
        start_char: int | None = START,
        oov_char: int | None = UNKNOWN,
        index_from: int = INDEX_FROM,
    ) -> Dataset:
        """Newswires on 46 topics: 8,982 + 2,246 texts. 237 of the test texts also stand in training.

        Takes the arguments of `imdb`, and `test_split`.

        Source: Lewis, Reuters-21578 (free for research use).

        >>> dataset = Data("sample").reuters()
        >>> len(dataset.class_names), dataset.class_names[dataset.y_train[0]]
        (46, 'earn')
        """
        options = TokenOptions(num_words, skip_top, maxlen, seed, start_char, oov_char, index_from)
        return self._texts("reuters", tuple(sample.table("reuters")), options, test_split)

    def boston_housing(self, *, test_split: float = 0.2, seed: int | None = 113) -> Dataset:
        """House prices in thousands of dollars: 404 + 102 rows, 13 columns, float64.

        Column "B" encodes race: fit for this study, not for any decision.

        Source: Harrison, Rubinfeld, "Hedonic housing prices and the demand for clean air", 1978.

        >>> Data("sample").boston_housing().x_train.shape
        (404, 13)
        """
        return self._houses("boston_housing", None, test_split, seed)

    def california_housing(
        self, *, version: Literal["large", "small"] = "large", test_split: float = 0.2, seed: int | None = 113
    ) -> Dataset:
        """House prices in dollars, by district: 20,640 rows ("small": the first 600), 8 columns, float32.

        The columns are the raw counts and co-ordinates of `feature_names`, not the averages that Keras's
        docstring lists.

        Source: Pace, Barry, "Sparse Spatial Autoregressions", 1997.

        >>> Data("sample").california_housing(version="small").x_test.shape
        (120, 8)
        """
        if version not in ("large", "small"):
            raise ValueError(f"`version` must be 'large' or 'small'. Received: {version!r}")
        rows = 600 if version == "small" else None
        return self._houses("california_housing", rows, test_split, seed)

    def _images(self, name: str, class_names: tuple[str, ...]) -> Dataset:
        origin, contents = self._find(name)
        best = None
        if not contents:
            x, y = sample.digits()
            arrays = [x[:1500], y[:1500], x[1500:], y[1500:]]
            class_names, best = _DIGITS, 293 / 297  # that of the nearest training image
        elif name == "mnist":
            npz = np.load(io.BytesIO(contents[0]))
            arrays = [npz[key] for key in ("x_train", "y_train", "x_test", "y_test")]
        else:
            arrays = [_read_idx(content) for content in contents]
        return self._loaded(origin, *arrays, class_names=class_names, best=best)

    def _texts(
        self, name: str, class_names: tuple[str, ...], options: TokenOptions, test_split: float | None = None
    ) -> Dataset:
        if test_split is not None:
            _check_split(test_split)
        origin, contents = self._find(name)
        parts, word_index = (_real_texts(contents[0]), contents[1]) if contents else sample.texts(name)
        x, y, truth, start = options.apply(parts)
        if test_split is not None:
            start = int(len(x) * (1 - test_split))
        best = None if contents or start == len(x) else float((y == truth)[start:].mean())
        arrays = (x[:start], y[:start], x[start:], y[start:])
        return self._loaded(origin, *arrays, class_names=class_names, best=best, _word_index=word_index)

    def _houses(self, name: str, rows: int | None, test_split: float, seed: int | None) -> Dataset:
        _check_split(test_split)
        random = np.random.RandomState(seed)
        origin, contents = self._find(name)
        if contents:
            npz = np.load(io.BytesIO(contents[0]))
            x, y = npz["x"], npz["y"]
            truth = y
        else:
            x, y, truth = sample.houses(name)
        order = random.permutation(len(x[:rows]))
        start = int(len(order) * (1 - test_split))
        train, test = order[:start], order[start:]
        best = None if contents or not len(test) else float(np.abs(y - truth)[test].mean())
        arrays = (x[train], y[train], x[test], y[test])
        return self._loaded(origin, *arrays, feature_names=tuple(sample.table(name)), best=best)

    def _find(self, name: str) -> tuple[Origin, list[bytes]]:
        """Where a data set comes from, and the verified contents of its files (none: take the sample)."""
        if self.mode == "sample":
            return Origin(name=name, source="sample", files={}, reason="the sample was asked for"), []
        places = files.places(self.folder)
        problems: list[str] = []
        contents = {file: files.read(file, places, problems) for file in files.FILES[name]}
        try:
            for file in contents:
                contents[file] = contents[file] or files.fetch(file, places)
        except OSError as error:
            problems.append(f"download failed: {error}")
        missing = [file for file, content in contents.items() if not content]
        if not missing:
            if problems:  # wrong files that did no harm, as the right ones were found elsewhere
                warnings.warn("; ".join(problems), stacklevel=4)
            hashes = {Path(file).name: files.SHA256[file] for file in contents}
            return Origin(name=name, source="real", files=hashes, reason=""), list(contents.values())
        reason = "; ".join([f"{', '.join(missing)} not found", *problems])
        message = (
            f"The real {name} cannot be had: {reason}.\nLooked in {', '.join(map(str, places))}.\n"
            "Put these there (`python -m toolkit.data FOLDER` fetches them where there is a network):"
        )
        message += "".join(f"\n  {files.address(file)}\n    as {places[0] / file}" for file in missing)
        if self.mode == "real":
            raise DataNotFoundError(message)
        if self.on_load is None:
            warnings.warn(f"{message}\nThe embedded sample is used instead.", stacklevel=4)
        return Origin(name=name, source="sample", files={}, reason=reason), []

    def _loaded(self, origin: Origin, *arrays: Any, **about: Any) -> Dataset:
        dataset = Dataset(*arrays, **(vars(origin) | about))
        self.used.append(origin)
        if self.on_load is not None:
            self.on_load(dataset)
        return dataset


def _check_split(test_split: float) -> None:
    if not 0 <= test_split < 1:
        raise ValueError(f"`test_split` must be at least 0 and less than 1. Received: {test_split}")


def _read_idx(content: bytes) -> Array:
    """The array in a gzipped idx file of bytes: magic number, shape, values."""
    content = gzip.decompress(content)
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()  # writable


def _real_texts(content: bytes) -> Iterable[Part]:
    """One part after the other, because as Python lists each of them takes over 100 MB."""
    npz = np.load(io.BytesIO(content))

    def read_rows(part: str) -> Any:
        # Buffered, because unpickling from the bare stream takes twice as long. The sha256 was verified.
        stream = io.BufferedReader(io.BytesIO(npz.zip.read(f"x{part}.npy")), 1 << 20)
        return np.lib.format.read_array(stream, allow_pickle=True)

    for part in ("",) if "x" in npz else ("_train", "_test"):
        labels = npz[f"y{part}"]
        yield read_rows(part), labels, labels
