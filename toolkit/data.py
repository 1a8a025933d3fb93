"""The data sets of `keras.datasets`, verified, and an embedded sample for when they cannot be had.

`python -m toolkit.data [FOLDER]` fetches all of them for use without a network.
"""

import argparse
import contextlib
import gc
import gzip
import hashlib
import io
import itertools
import json
import os
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mode = Literal["auto", "real", "sample"]
Folder = str | Path | None
Table = dict[str, list[float]]  # numbers by name
_Part = tuple[Array, Array, Array]  # rows, labels, and the labels before the sample's noise came in

# As `sha256sum` writes it; Keras publishes the same of the .npz files, and of the others less or nothing.
_CHECKSUMS = """\
731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1  mnist.npz
3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84  fashion-mnist/train-images-idx3-ubyte.gz
a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845  fashion-mnist/train-labels-idx1-ubyte.gz
346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073  fashion-mnist/t10k-images-idx3-ubyte.gz
67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5  fashion-mnist/t10k-labels-idx1-ubyte.gz
69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f  imdb.npz
027313fe9a320280f3bf0fac5baf58c4a683cf39a7ed9c3d3d3912bde4284cf6  imdb_word_index.json
d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916  reuters.npz
9b56000edc4b34a32e89fd5a23b2605594682c74efcf7d8f4e2a5514b771e633  reuters_word_index.json
f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5  boston_housing.npz
1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f  california_housing.npz
"""
_SHA256 = {file: sha256 for sha256, file in map(str.split, _CHECKSUMS.splitlines())}
_NAMES = ("mnist", "fashion-mnist", "imdb", "reuters", "boston_housing", "california_housing")
_FILES = {name.replace("-", "_"): [file for file in _SHA256 if file.startswith(name)] for name in _NAMES}
_CONNECT_SECONDS = 10.0
_STALL_SECONDS = 12.0
_download_lock = threading.Lock()
_unreachable = ""  # why this process could not connect: the next data set does not wait again


def _table(text: str) -> Table:
    """The numbers of each `name:number:number`, by its name."""
    return {name: list(map(float, rest)) for name, *rest in (entry.split(":") for entry in text.split())}


_DIGITS = tuple("0123456789")
_CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
# By label: the topic, and the number of newswires that Reuters has of it.
_TOPICS = _table(
    "cocoa:67 grain:537 veg-oil:94 earn:3972 acq:2423 wheat:22 copper:62 housing:19 money-supply:177 "
    "coffee:126 sugar:154 trade:473 reserves:62 ship:209 cotton:28 carcass:29 crude:543 nat-gas:51 cpi:86 "
    "money-fx:682 interest:339 gnp:127 meal-feed:22 alum:53 oilseed:81 gold:123 tin:32 strategic-metal:19 "
    "livestock:58 retail:23 ipi:57 iron-steel:52 rubber:42 heat:16 jobs:57 lei:16 bop:60 zinc:21 orange:22 "
    "pet-chem:29 dlr:46 gas:38 silver:16 wpi:27 hog:17 lead:19"
)
_NEGATIVE = (
    "bad worst awful boring terrible waste poor stupid horrible dull worse lame ridiculous mess annoying "
    "disappointing weak pointless predictable mediocre dreadful pathetic painful tedious crap ugly fails "
    "unfunny badly cheap clumsy wooden shallow flat forgettable laughable lazy bland avoid garbage"
)
_POSITIVE = (
    "great best love excellent wonderful beautiful perfect amazing superb brilliant enjoyed favorite fun "
    "moving touching masterpiece outstanding delightful charming powerful hilarious gripping fantastic "
    "incredible loved classic stunning memorable clever fresh warm honest subtle rich magnificent tender "
    "witty inspired terrific flawless"
)
_NEUTRAL = (
    "the a and of to is in it that this as for was with but on be have are not you an at by one from all who "
    "they so about there some when or if what would more up which she out were their only can after into "
    "time than then will other do no had been much first its made make also two him because any new over how "
    "very where while before through said could year people them her his he we our your these those most "
    "many such own same under between against during each both few last next still even back now here again "
    "down off too every week month day night morning company report house street city town country world "
    "state group part place number point case side way room door water film movie story scene plot actor "
    "camera music script character market bank price share percent million government minister official "
    "president spokesman statement meeting talks plan agreement today yesterday friday"
)
# Columns: name, lowest and highest value, and how much the values crowd towards the lowest (1: not at all).
_BOSTON = _table(
    "CRIM:0.006:89:8 ZN:0:100:6 INDUS:0.46:27.7:1.3 CHAS:0:1:1 NOX:0.385:0.871:1.6 RM:4.5:8.3:1.1 "
    "AGE:2.9:100:0.6 DIS:1.13:12.1:2 RAD:1:24:2 TAX:187:711:1.5 PTRATIO:12.6:22:0.7 B:0.32:396.9:0.15 "
    "LSTAT:1.73:37.97:1.8"
)
_CALIFORNIA = _table(
    "longitude:-124.3:-114.3:1 latitude:32.5:41.9:2 housing_median_age:1:52:0.9 total_rooms:2:39320:9 "
    "total_bedrooms:1:6445:9 population:3:35682:15 households:1:6082:9 median_income:0.5:15:3"
)


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
        self, mode: Mode = "auto", folder: Folder = None, on_load: Callable[[Dataset], None] | None = None
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
        start_char: int | None = 1,
        oov_char: int | None = 2,
        index_from: int = 3,
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
        mapping = _Mapping(num_words, skip_top, maxlen, seed, start_char, oov_char, index_from)
        return self._texts("imdb", ("negative", "positive"), mapping)

    def reuters(
        self,
        *,
        num_words: int | None = None,
        skip_top: int = 0,
        maxlen: int | None = None,
        test_split: float = 0.2,
        seed: int | None = 113,
        start_char: int | None = 1,
        oov_char: int | None = 2,
        index_from: int = 3,
    ) -> Dataset:
        """Newswires on 46 topics: 8,982 + 2,246 texts. 237 of the test texts also stand in training.

        Takes the arguments of `imdb`, and `test_split`.

        Source: Lewis, Reuters-21578 (free for research use).

        >>> dataset = Data("sample").reuters()
        >>> len(dataset.class_names), dataset.class_names[dataset.y_train[0]]
        (46, 'earn')
        """
        mapping = _Mapping(num_words, skip_top, maxlen, seed, start_char, oov_char, index_from)
        return self._texts("reuters", tuple(_TOPICS), mapping, test_split)

    def boston_housing(self, *, test_split: float = 0.2, seed: int | None = 113) -> Dataset:
        """House prices in thousands of dollars: 404 + 102 rows, 13 columns, float64.

        Column "B" encodes race: fit for this study, not for any decision.

        Source: Harrison, Rubinfeld, "Hedonic housing prices and the demand for clean air", 1978.

        >>> Data("sample").boston_housing().x_train.shape
        (404, 13)
        """
        return self._houses("boston_housing", _BOSTON, None, test_split, seed)

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
        return self._houses("california_housing", _CALIFORNIA, rows, test_split, seed)

    def _images(self, name: str, class_names: tuple[str, ...]) -> Dataset:
        origin, files = self._find(name)
        best = None
        if not files:
            x, y = _sample_digits()
            arrays = [x[:1500], y[:1500], x[1500:], y[1500:]]
            class_names, best = _DIGITS, 293 / 297  # that of the nearest training image
        elif name == "mnist":
            npz = np.load(io.BytesIO(files[0]))
            arrays = [npz[key] for key in ("x_train", "y_train", "x_test", "y_test")]
        else:
            arrays = [_read_idx(content) for content in files]
        return self._loaded(origin, *arrays, class_names=class_names, best=best)

    def _texts(
        self, name: str, class_names: tuple[str, ...], mapping: "_Mapping", test_split: float | None = None
    ) -> Dataset:
        if test_split is not None:
            _check_split(test_split)
        origin, files = self._find(name)
        parts, word_index = (_real_texts(files[0]), files[1]) if files else _sample_texts(name)
        x, y, truth, start = mapping.apply(parts)
        if test_split is not None:
            start = int(len(x) * (1 - test_split))
        best = None if files or start == len(x) else float((y == truth)[start:].mean())
        arrays = (x[:start], y[:start], x[start:], y[start:])
        return self._loaded(origin, *arrays, class_names=class_names, best=best, _word_index=word_index)

    def _houses(
        self, name: str, columns: Table, rows: int | None, test_split: float, seed: int | None
    ) -> Dataset:
        _check_split(test_split)
        random = np.random.RandomState(seed)
        origin, files = self._find(name)
        if files:
            npz = np.load(io.BytesIO(files[0]))
            x, y = npz["x"], npz["y"]
            truth = y
        else:
            x, y, truth = _sample_houses(columns)
        order = random.permutation(len(x[:rows]))
        start = int(len(order) * (1 - test_split))
        train, test = order[:start], order[start:]
        best = None if files or not len(test) else float(np.abs(y - truth)[test].mean())
        arrays = (x[train], y[train], x[test], y[test])
        return self._loaded(origin, *arrays, feature_names=tuple(columns), best=best)

    def _find(self, name: str) -> tuple[Origin, list[bytes]]:
        """Where a data set comes from, and the verified contents of its files (none: take the sample)."""
        if self.mode == "sample":
            return Origin(name=name, source="sample", files={}, reason="the sample was asked for"), []
        places = _places(self.folder)
        problems: list[str] = []
        contents = {file: _read(file, places, problems) for file in _FILES[name]}
        try:
            for file in contents:
                contents[file] = contents[file] or _fetch(file, places)
        except OSError as error:
            problems.append(f"download failed: {error}")
        missing = [file for file, content in contents.items() if not content]
        if not missing:
            if problems:  # wrong files that did no harm, as the right ones were found elsewhere
                warnings.warn("; ".join(problems), stacklevel=4)
            hashes = {Path(file).name: _SHA256[file] for file in contents}
            return Origin(name=name, source="real", files=hashes, reason=""), list(contents.values())
        reason = "; ".join([f"{', '.join(missing)} not found", *problems])
        message = (
            f"The real {name} cannot be had: {reason}.\nLooked in {', '.join(map(str, places))}.\n"
            "Put these there (`python -m toolkit.data FOLDER` fetches them where there is a network):"
        )
        message += "".join(f"\n  {_url(file)}\n    as {places[0] / file}" for file in missing)
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


def download(folder: Folder = None, only: str | None = None) -> bool:
    """Fetches what is missing, verifies what is there, prints one line a file; tells whether all are right.

    Args:
        folder: Where to; by default the folder of data sets that Keras itself uses.
        only: One data set instead of all six.

    Raises:
        ValueError: If `only` is no data set.

    >>> download(only="mnits")
    Traceback (most recent call last):
    ValueError: `only` must be one of mnist, ... Received: 'mnits'
    """
    if only not in (None, *_FILES):
        raise ValueError(f"`only` must be one of {', '.join(_FILES)}. Received: {only!r}")
    place = _places(folder)[0]
    failures = 0
    for file in itertools.chain.from_iterable([_FILES[only]] if only else _FILES.values()):
        problems: list[str] = []
        state = "ok"
        if not _read(file, [place], problems) and not problems:
            state = "fetched"
            try:
                _fetch(file, [place])
            except OSError as error:
                problems.append(f"unreachable: {error}")
        failures += len(problems)
        print(f"{place / file}: {problems[0] if problems else state}", flush=True)
    return not failures


def _url(file: str) -> str:
    return f"https://storage.googleapis.com/tensorflow/tf-keras-datasets/{Path(file).name}"


def _places(folder: Folder) -> list[Path]:
    """The folders to look in; downloads go to the first that can be written to."""
    places = [Path(os.environ.get("KERAS_HOME") or "~/.keras", "datasets"), Path("~/.keras/datasets")]
    if folder is not None:
        places.insert(0, Path(folder))
        if (below := Path(folder, "datasets")).expanduser().is_dir():
            places.insert(0, below)
    return list(dict.fromkeys(place.expanduser() for place in places))


def _read(file: str, places: Iterable[Path], problems: list[str]) -> bytes:
    """The content of the first right file, or b"". What is wrong with others goes into `problems`."""
    for path in (place / file for place in places):
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(f"{path} cannot be read ({error.strerror})")
            continue
        if not (difference := _difference(file, content)):
            return content
        problems.append(f"{path} is a wrong file and was left alone ({difference})")
    return b""


def _difference(file: str, content: bytes) -> str:
    """What is wrong with the content of a file, or ""."""
    received, wanted = hashlib.sha256(content).hexdigest(), _SHA256[file]
    page = content[:200].lstrip().lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))
    kind = "it is a web page, perhaps a proxy's or a log-in's; " if page else ""
    return "" if received == wanted else f"{kind}its sha256 is {received}, not {wanted}"


def _fetch(file: str, places: Iterable[Path]) -> bytes:
    """Downloads a file through Keras into the first place that can be written to.

    It gets its name there only when it is whole and verified. A failure, which raises an OSError, leaves
    nothing behind.
    """
    global _unreachable
    with _download_lock, contextlib.ExitStack() as stack:
        if _unreachable:
            raise ConnectionError(_unreachable)
        for target in (place / file for place in places):
            with contextlib.suppress(OSError):
                parent = next(folder for folder in target.parents if folder.is_dir())
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".download-", dir=parent))
                break
        else:
            raise PermissionError("no folder to write to")
        stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(_CONNECT_SECONDS)
        download = Path(folder, target.name)
        try:
            _receive(_url(file), download)
            content = download.read_bytes()
        except Exception as error:  # Keras raises nothing narrower
            cause = error.__context__ or error
            reason = str(getattr(cause, "reason", error))
            if type(cause) is urllib.error.URLError or isinstance(cause, TimeoutError | ConnectionError):
                _unreachable = reason
            raise ConnectionError(reason) from error
        if difference := _difference(file, content):
            raise ConnectionError(f"{_url(file)} sent a wrong file ({difference})")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(download)  # unlike a rename, never replaces a file
        except FileExistsError:
            pass  # another process was quicker, or a wrong file is in the way
        except OSError:  # a file system without links
            if not target.exists():
                download.rename(target)
        return content


def _receive(url: str, path: Path) -> None:
    """Downloads into an empty folder; raises TimeoutError when that has not grown for some seconds.

    The time-out of sockets is one for each address that a name stands for, and there may be a dozen.
    """
    import keras  # here, because files that are on the disk should not wait for TensorFlow

    failures: list[BaseException] = []

    def work() -> None:
        try:
            keras.utils.get_file(path.name, origin=url, cache_dir=path.parent, cache_subdir="")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    size, since = -1, time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):  # the progress bar is not a result
        thread.start()
        while thread.is_alive():
            thread.join(0.05)
            with contextlib.suppress(OSError):  # a file that is just being renamed
                before, size = size, sum(part.stat().st_size for part in path.parent.iterdir())
                if size != before:
                    since = time.monotonic()
            if time.monotonic() - since > _STALL_SECONDS:
                raise TimeoutError(f"nothing came for {_STALL_SECONDS:.0f} s")
    if failures:
        raise failures[0]


def _check_split(test_split: float) -> None:
    if not 0 <= test_split < 1:
        raise ValueError(f"`test_split` must be at least 0 and less than 1. Received: {test_split}")


def _read_idx(content: bytes) -> Array:
    """The array in a gzipped idx file of bytes: magic number, shape, values."""
    content = gzip.decompress(content)
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()  # writable


def _real_texts(content: bytes) -> Iterable[_Part]:
    """One part after the other, because as Python lists each of them takes over 100 MB."""
    npz = np.load(io.BytesIO(content))

    def read_rows(part: str) -> Any:
        # Buffered, because unpickling from the bare stream takes twice as long. The sha256 was verified.
        stream = io.BufferedReader(io.BytesIO(npz.zip.read(f"x{part}.npy")), 1 << 20)
        return np.lib.format.read_array(stream, allow_pickle=True)

    for part in ("",) if "x" in npz else ("_train", "_test"):
        labels = npz[f"y{part}"]
        yield read_rows(part), labels, labels


@dataclass(frozen=True)
class _Mapping:
    """How ranks become tokens, on one flat array: what Keras's loaders do list by list."""

    num_words: int | None
    skip_top: int
    maxlen: int | None
    seed: int | None
    start_char: int | None
    oov_char: int | None
    index_from: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("skip_top", "index_from") or value is not None:
                if not isinstance(value, int | np.integer):
                    raise ValueError(f"`{name}` must be a whole number. Received: {value!r}")
                if value < 0 and not name.endswith("_char"):
                    raise ValueError(f"`{name}` must not be negative. Received: {value}")
        np.random.RandomState(self.seed)  # refuses a seed that is too large

    def apply(self, parts: Iterable[_Part]) -> tuple[Array, Array, Array, int]:
        """Rows, labels and true labels of all parts, and where the second part starts."""
        random = np.random.RandomState(self.seed)
        tokens, lengths, labels, truths = [], [], [], []
        collecting = gc.isenabled()
        gc.disable()  # the garbage collector would walk millions of new objects over and over
        try:
            for rows, label, truth in parts:
                order = random.permutation(len(rows))
                length = np.fromiter(map(len, rows), np.int64, len(rows))
                if self.maxlen:
                    order = order[length[order] + (self.start_char is not None) < self.maxlen]
                if not len(order):
                    raise ValueError(f"`maxlen` must leave some texts. Received: {self.maxlen}")
                rows, length = rows[order], length[order]
                tokens.append(np.fromiter(itertools.chain.from_iterable(rows), np.int32, length.sum()))
                lengths.append(length)
                labels.append(label[order])
                truths.append(truth[order])
                del rows  # before the next part is read
        finally:
            if collecting:
                gc.enable()
        flat = np.concatenate(tokens)
        flat += self.index_from
        bounds = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        if self.start_char is not None:
            flat = np.insert(flat, bounds[:-1], self.start_char)
            bounds += np.arange(len(bounds))
        keep = (flat >= self.skip_top) & (flat < (self.num_words or flat.max()))
        if self.oov_char is not None:
            flat[~keep] = self.oov_char
        else:
            bounds = np.concatenate([[0], np.cumsum(keep)])[bounds]
            flat = flat[keep]
        x = np.empty(len(bounds) - 1, object)
        for row, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
            x[row] = flat[start:end]
        return x, np.concatenate(labels), np.concatenate(truths), len(labels[0])


def _sample_digits() -> tuple[Array, Array]:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8, enlarged to 28 x 28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))
    pixels = np.round(digits.images[order] * (255 / 16)).astype(np.uint8)
    large = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    return large, digits.target[order].astype(np.uint8)


def _sample_texts(name: str) -> tuple[list[_Part], bytes]:
    """Texts as arrays of ranks, with some words that tell the label among neutral ones; and the word index.

    3,000 reviews: the true label is the side with more words, and every tenth label is flipped.
    2,259 newswires: each names its topic, and every tenth has a label drawn from all of them.
    """
    random = np.random.RandomState(0)
    signals = []
    if name == "imdb":
        signal_words, longest = f"{_NEGATIVE} {_POSITIVE}".split(), 200
        truth = np.arange(3000) % 2
        for side in truth:
            count = random.randint(5, 16)
            more = random.randint(count * 2 // 3 + 1, count + 1)
            sides = (random.permutation(40)[: count - more], random.permutation(40)[:more])
            signals.append(np.concatenate([sides[1 - side], 40 + sides[side]]))
    else:
        signal_words, longest = list(_TOPICS), 100
        truth = np.repeat(np.arange(46), [max(5, int(count) // 5) for (count,) in _TOPICS.values()])
        signals += [np.repeat(topic, random.randint(1, 4)) for topic in truth]

    words = signal_words + _NEUTRAL.split()
    weights = 1 / np.arange(1, len(words) - len(signal_words) + 1)  # Zipf's law
    texts = []
    for signal in signals:
        count = random.randint(20, longest + 1) - len(signal)
        neutral = random.choice(len(weights), count, p=weights / weights.sum())
        texts.append(random.permutation(np.concatenate([signal, len(signal_words) + neutral])))
    counts = np.bincount(np.concatenate(texts), minlength=len(words))
    ranks = np.argsort(np.argsort(-counts, kind="stable")) + 1
    rows = np.empty(len(texts), object)
    rows[:] = [ranks[text] for text in texts]
    word_index = json.dumps(dict(zip(words, ranks.tolist(), strict=True))).encode()

    if name == "imdb":
        y = np.where(np.arange(3000) // 2 % 10 == 0, 1 - truth, truth)
        return [(rows[part], y[part], truth[part]) for part in (slice(2000), slice(2000, None))], word_index
    y = np.where(np.arange(len(truth)) % 10 == 0, random.permutation(truth), truth)
    return [(rows, y, truth)], word_index


def _sample_houses(columns: Table) -> tuple[Array, Array, Array]:
    """Columns of the real names and ranges, prices with noise, and prices without."""
    random = np.random.RandomState(0)
    boston = "CRIM" in columns
    low, high, power = np.array(list(columns.values())).T
    x = low + (high - low) * random.random_sample((506 if boston else 2000, len(columns))) ** power
    value = dict(zip(columns, x.T, strict=True))  # views: what is changed here is changed in x
    if boston:
        value["CHAS"][:] = value["CHAS"] > 0.93
        rooms, poverty = value["RM"] - 6.3, np.sqrt(value["LSTAT"])
        truth = 36 + 4 * rooms + 2.5 * rooms**2 - 4.5 * poverty - 12 * (value["NOX"] - 0.5)
        return x, truth + random.normal(0, 2, len(x)), truth
    near_coast = np.exp(-((value["longitude"] + 122) ** 2) / 4)
    truth = 60_000 + 40_000 * value["median_income"] ** 0.9 + 60_000 * near_coast
    y = truth + random.normal(0, 20_000, len(x))
    return x.astype(np.float32), y.astype(np.float32), truth.astype(np.float32)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="download", description="Fetches and verifies the data sets.")
    parser.add_argument("folder", nargs="?", help="where to (default: the folder that Keras itself uses)")
    parser.add_argument("--only", choices=_FILES, help="one data set instead of all six")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return 0 if download(arguments.folder, arguments.only) else 1
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on: what is complete stays.")
        return 130


if __name__ == "__main__":
    raise SystemExit(_main())
