"""Small data sets in files like Keras's own, and stand-ins for what would download them."""

import contextlib
import gzip
import importlib
import io
import json
import socket
import types
from pathlib import Path

import keras  # noqa: F401 (first of all: the tests put something else in its place)
import numpy as np
import pytest

from toolkit.data import Data, files

PLACES = files.places(None)  # before the tests hide them
NAMES = ["mnist", "fashion_mnist", "imdb", "reuters", "boston_housing", "california_housing"]


def fake_keras(get_file):
    return types.SimpleNamespace(utils=types.SimpleNamespace(get_file=get_file))


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def ragged(rows):
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def small_files():
    """Each data set's files, as Keras has them, but small."""
    random = np.random.RandomState(3)

    def texts(n):
        return ragged([random.randint(1, 30, random.randint(1, 12)).tolist() for _ in range(n)])

    def idx(array):
        shape = np.array(array.shape, ">i4").tobytes()
        return gzip.compress(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())

    images = [random.randint(0, 256, (n, 28, 28)).astype(np.uint8) for n in (5, 3)]
    labels = [random.randint(0, 10, n).astype(np.uint8) for n in (5, 3)]
    words = json.dumps({f"word{rank}": rank for rank in range(1, 30)}).encode()
    return {
        "mnist.npz": npz_bytes(x_train=images[0], y_train=labels[0], x_test=images[1], y_test=labels[1]),
        "fashion-mnist/train-images-idx3-ubyte.gz": idx(images[0]),
        "fashion-mnist/train-labels-idx1-ubyte.gz": idx(labels[0]),
        "fashion-mnist/t10k-images-idx3-ubyte.gz": idx(images[1]),
        "fashion-mnist/t10k-labels-idx1-ubyte.gz": idx(labels[1]),
        "imdb.npz": npz_bytes(
            x_train=texts(40), y_train=np.arange(40) % 2, x_test=texts(30), y_test=np.arange(30) % 2
        ),
        "imdb_word_index.json": words,
        "reuters.npz": npz_bytes(x=texts(50), y=np.arange(50) % 46),
        "reuters_word_index.json": words,
        "boston_housing.npz": npz_bytes(x=random.rand(21, 13), y=random.rand(21)),
        "california_housing.npz": npz_bytes(
            x=random.rand(700, 8).astype(np.float32), y=random.rand(700).astype(np.float32)
        ),
    }


SMALL = small_files()


def write(folder, files=SMALL):
    for file, content in files.items():
        path = Path(folder) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def snapshot(folder):
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def load(name, data, **options):
    return getattr(data, name)(**options)


def assert_same(ours, theirs):
    """Element for element, types of the labels included."""
    for (x, y), (keras_x, keras_y) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(y, keras_y)
        assert y.dtype == keras_y.dtype or not len(y)
        if x.dtype == object:
            assert [row.tolist() for row in x] == [list(row) for row in keras_x]
            assert all(row.dtype == np.int32 for row in x)
        else:
            np.testing.assert_array_equal(x, keras_x)
            assert x.dtype == keras_x.dtype


@contextlib.contextmanager
def keras_loader(name, folder):
    """`keras.datasets.NAME.load_data`, reading the files in `folder`, whatever Keras's own folder is."""
    with pytest.MonkeyPatch.context() as patch:
        loader = importlib.import_module(f"keras.src.datasets.{name}")

        def get_file(fname, origin=None, file_hash=None, cache_subdir="datasets"):
            return str(folder / Path(cache_subdir).relative_to("datasets") / fname)

        patch.setattr(loader, "get_file", get_file)
        yield loader.load_data


def sends(files, calls=None):
    """A stand-in for Keras's `get_file`: writes what `files` says, or raises it."""

    def get_file(name, origin, cache_dir, cache_subdir):
        if calls is not None:
            calls.append((name, socket.getdefaulttimeout()))
        content = files(origin) if callable(files) else files[name]
        if isinstance(content, BaseException):
            Path(cache_dir, cache_subdir, name).write_bytes(b"half")
            raise content
        path = Path(cache_dir, cache_subdir, name)
        path.write_bytes(content)
        return str(path)

    return fake_keras(get_file)


def by_name():
    return {Path(file).name: content for file, content in SMALL.items()}


def real_data(name):
    """The folder of the real files, and what reads them; without them, tests marked `real` are skipped."""
    folder = next(place for place in PLACES if (place / files.FILES[name][0]).exists())
    return folder, Data("real", folder)
