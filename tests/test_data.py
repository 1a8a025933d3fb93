import contextlib
import gzip
import hashlib
import http.server
import importlib
import io
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import warnings
import zlib
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import BernoulliNB
from sklearn.neighbors import KNeighborsClassifier

from toolkit import data as module
from toolkit.data import Data, DataNotFoundError, Dataset, download

NAMES = ["mnist", "fashion_mnist", "imdb", "reuters", "boston_housing", "california_housing"]
PLACES = module._places(None)  # before the tests hide them


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    """No test sees this machine's own data, its network, or what another test has remembered."""

    def no_network(*_, **__):
        raise Exception("URL fetch failure") from None

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setattr(module, "_unreachable", "")
    monkeypatch.setitem(sys.modules, "keras", fake_keras(no_network))
    before = socket.getdefaulttimeout()
    yield
    after = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before)
    assert after == before  # what a download sets is put back


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


@pytest.fixture
def small(monkeypatch):
    """The module takes the small files for Keras's own."""
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in SMALL.items()}
    monkeypatch.setattr(module, "_SHA256", hashes)
    return SMALL


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


# What Keras's own loaders return


@contextlib.contextmanager
def keras_loader(name, folder):
    """`keras.datasets.NAME.load_data`, reading the files in `folder`, whatever Keras's own folder is."""
    with pytest.MonkeyPatch.context() as patch:
        loader = importlib.import_module(f"keras.src.datasets.{name}")

        def get_file(fname, origin=None, file_hash=None, cache_subdir="datasets"):
            return str(folder / Path(cache_subdir).relative_to("datasets") / fname)

        patch.setattr(loader, "get_file", get_file)
        yield loader.load_data


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("small"))


token_options = {
    "num_words": st.none() | st.integers(0, 40),
    "skip_top": st.integers(0, 12),
    "maxlen": st.none() | st.integers(0, 14),
    "seed": st.integers(0, 2**32 - 1),
    "start_char": st.none() | st.integers(0, 50),
    "oov_char": st.none() | st.integers(0, 50),
    "index_from": st.integers(0, 6),
}


@pytest.mark.parametrize("name", ["imdb", "reuters"])
def test_texts_equal_those_of_keras_whatever_the_options(name, small_folder):
    split = {"test_split": st.floats(0, 0.999)} if name == "reuters" else {}

    @settings(max_examples=60, deadline=None)
    @given(options=st.fixed_dictionaries({**token_options, **split}))
    def check(options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's own, from Keras's code
            try:
                theirs = load_data(**options)
                if not any(len(y) for _, y in theirs):
                    raise ValueError("what Keras says of imdb only")
            except ValueError:
                with pytest.raises(ValueError, match="`maxlen` must leave some texts"):
                    load(name, data, **options)
                return
        assert_same(load(name, data, **options), theirs)

    with pytest.MonkeyPatch.context() as patch, keras_loader(name, small_folder) as load_data:
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in SMALL.items()}
        patch.setattr(module, "_SHA256", hashes)
        data = Data("real", small_folder)
        check()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", {}),
        ("fashion_mnist", {}),
        *(("boston_housing", {"test_split": split, "seed": 7}) for split in (0, 0.2, 0.33, 0.99)),
        ("california_housing", {}),
        ("california_housing", {"version": "small", "test_split": 0.5}),
    ],
)
def test_images_and_houses_equal_those_of_keras(name, options, small, small_folder):
    with keras_loader(name, small_folder) as load_data:
        theirs = load_data(**options)
    dataset = load(name, Data("real", small_folder), **options)
    assert_same(dataset, theirs)
    assert dataset.x_train.flags.writeable


def test_the_rows_are_cut_from_one_array(small, small_folder):
    dataset = Data("real", small_folder).imdb()
    bases = {id(row.base) for row in [*dataset.x_train, *dataset.x_test]}
    assert len(bases) == 1


def test_rows_of_equal_length_stay_rows(monkeypatch, tmp_path):
    content = npz_bytes(x=ragged([[1, 2], [3, 4], [5, 6]]), y=np.arange(3))
    files = {"reuters.npz": content, "reuters_word_index.json": b"{}"}
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    monkeypatch.setattr(module, "_SHA256", hashes)
    assert Data("real", write(tmp_path / "here", files)).reuters().x_train.shape == (2,)


# Bad arguments


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imdb", {"num_words": -1}, "`num_words` must not be negative. Received: -1"),
        ("imdb", {"num_words": 1e4}, "`num_words` must be a whole number. Received: 10000.0"),
        ("imdb", {"skip_top": -1}, "`skip_top` must not be negative. Received: -1"),
        ("imdb", {"skip_top": None}, "`skip_top` must be a whole number. Received: None"),
        ("imdb", {"maxlen": -5}, "`maxlen` must not be negative. Received: -5"),
        ("imdb", {"index_from": None}, "`index_from` must be a whole number. Received: None"),
        ("imdb", {"start_char": "a"}, "`start_char` must be a whole number. Received: 'a'"),
        ("imdb", {"seed": -1}, "`seed` must not be negative. Received: -1"),
        ("imdb", {"seed": 2**32}, "Seed must be between 0 and 2"),
        ("reuters", {"test_split": 1}, "`test_split` must be at least 0 and less than 1. Received: 1"),
        ("reuters", {"test_split": -0.1}, "`test_split` must be at least 0"),
        ("boston_housing", {"test_split": 1.5}, "`test_split` must be at least 0"),
        ("boston_housing", {"seed": -1}, "Seed must be between 0 and 2"),
        ("california_housing", {"version": "big"}, "`version` must be 'large' or 'small'. Received: 'big'"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(name, options, message, monkeypatch):
    def find(*_):
        raise AssertionError("files were looked for first")

    monkeypatch.setattr(Data, "_find", find)
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        load(name, Data("sample"), **options)


def test_a_mode_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"`mode` must be 'auto', 'real' or 'sample'. Received: 'fake'"):
        Data("fake")


# Where the files come from


def test_the_record_says_what_was_read(small, small_folder):
    seen = []
    data = Data("real", small_folder, on_load=seen.append)
    dataset = data.imdb()
    assert seen == [dataset]
    record = data.used[0]
    assert (record.name, record.source, record.reason) == ("imdb", "real", "")
    assert record.files == {file: module._SHA256[file] for file in ("imdb.npz", "imdb_word_index.json")}
    assert not isinstance(record, Dataset)  # it keeps no array alive
    assert dataset.best is None
    assert dataset.word_index["word29"] == 29
    with pytest.raises(ValueError, match=r"`word_index` is there for imdb and reuters only. Received: mnist"):
        _ = data.mnist().word_index


@pytest.mark.parametrize(
    "where", ["folder", "folder/datasets", "KERAS_HOME", "home", "~folder", "~KERAS_HOME"]
)
def test_each_place_is_looked_in(where, small, tmp_path, monkeypatch):
    home = tmp_path / "home"
    folder = None
    if where == "folder":
        folder = write(tmp_path / "data")
    elif where == "folder/datasets":
        write(tmp_path / "data" / "datasets")
        folder = str(tmp_path / "data")
    elif where == "KERAS_HOME":
        write(tmp_path / "keras" / "datasets")
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    elif where == "home":
        write(home / ".keras" / "datasets")
    elif where == "~folder":
        write(home / "mine")
        folder = "~/mine"
    else:
        write(home / "keras" / "datasets")
        monkeypatch.setenv("KERAS_HOME", "~/keras")
    data = Data("real", folder)
    for name in NAMES:
        assert load(name, data).source == "real"


def test_the_folder_comes_first(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    places = module._places(tmp_path / "data")
    assert places == [tmp_path / "data", tmp_path / "keras/datasets", tmp_path / "home/.keras/datasets"]
    (tmp_path / "data" / "datasets").mkdir(parents=True)
    assert module._places(tmp_path / "data")[:2] == [tmp_path / "data/datasets", tmp_path / "data"]


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("opened"),))


def wrong_contents(file):
    content = SMALL[file]
    other = {"imdb.npz": "reuters.npz", "imdb_word_index.json": "reuters.npz"}[file]
    return {
        "flipped": content[:50] + bytes([content[50] ^ 1]) + content[51:],
        "truncated": content[:-1],
        "empty": b"",
        "swapped": SMALL[other],
        "hostile": npz_bytes(x_train=ragged([Bomb()]), y_train=[0], x_test=ragged([Bomb()]), y_test=[0]),
    }


@pytest.mark.parametrize("file", ["imdb.npz", "imdb_word_index.json"])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "empty", "swapped", "hostile"])
def test_a_wrong_file_is_named_and_left_alone_and_not_opened(file, fault, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = wrong_contents(file)[fault]
    folder = write(tmp_path / "data", {**SMALL, file: content})
    before = snapshot(folder)
    with pytest.raises(DataNotFoundError) as error:
        Data("real", folder).imdb()
    message = str(error.value)
    assert f"{folder / file} is a wrong file and was left alone" in message
    assert hashlib.sha256(content).hexdigest() in message
    assert module._SHA256[file] in message
    with pytest.warns(UserWarning, match="The embedded sample is used instead"):
        dataset = Data("auto", folder).imdb()
    assert dataset.source == "sample"
    assert file in dataset.reason
    assert dataset.word_index["the"] == 1  # rows and index come from the same source
    assert snapshot(folder) == before
    assert not Path("opened").exists()


@pytest.mark.parametrize("file", SMALL)
def test_a_wrong_file_of_any_data_set_is_named(file, small, tmp_path):
    name = next(name for name, files in module._FILES.items() if file in files)
    content = SMALL[file]
    for wrong in (
        content[:-1],
        bytes([content[0] ^ 1]) + content[1:],
        b"",
        next(iter(set(SMALL.values()) - {content})),
    ):
        folder = write(tmp_path / "data", {**SMALL, file: wrong})
        with pytest.raises(DataNotFoundError, match=f"{Path(file).name} is a wrong file and was left alone"):
            load(name, Data("real", folder))
        assert (folder / file).read_bytes() == wrong


def test_the_hostile_file_would_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert Path("opened").exists()


def test_a_wrong_file_does_not_end_the_search(small, tmp_path):
    folder = write(tmp_path / "data", {**SMALL, "mnist.npz": b"wrong"})
    write(tmp_path / "home/.keras/datasets")
    with pytest.warns(UserWarning, match="mnist.npz is a wrong file and was left alone"):
        assert Data("auto", folder).mnist().source == "real"


def test_a_file_that_cannot_be_read_is_named(small, tmp_path):
    (tmp_path / "data" / "mnist.npz").mkdir(parents=True)
    with pytest.raises(DataNotFoundError, match=r"mnist.npz cannot be read \("):
        Data("real", tmp_path / "data").mnist()


def test_a_file_that_changes_after_it_was_verified_does_no_harm(small, tmp_path, monkeypatch):
    folder = write(tmp_path / "data")
    check = module._difference

    def check_then_swap(file, content):
        (folder / file).write_bytes(b"swapped")
        return check(file, content)

    monkeypatch.setattr(module, "_difference", check_then_swap)
    dataset = Data("real", folder).imdb()
    assert len(dataset.x_train) == 40
    assert dataset.word_index["word1"] == 1


def test_a_folder_that_can_only_be_read_is_enough(small, tmp_path):
    folder = write(tmp_path / "data")
    before = snapshot(folder)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for name in NAMES:
            assert load(name, Data("real", folder)).source == "real"
        assert snapshot(folder) == before
    finally:
        folder.chmod(0o755)
        (folder / "fashion-mnist").chmod(0o755)


def test_what_is_missing_is_listed_with_its_address_and_place(small, tmp_path):
    folder = write(tmp_path / "data", {"imdb_word_index.json": SMALL["imdb_word_index.json"]})
    with pytest.raises(FileNotFoundError) as error:
        Data("real", folder).imdb()
    message = str(error.value)
    url = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/imdb.npz"
    assert f"  {url}\n    as {folder / 'imdb.npz'}" in message
    assert "imdb_word_index.json" not in message  # it is there
    assert str(tmp_path / "home/.keras/datasets") in message
    assert "download failed: URL fetch failure" in message


def test_the_addresses_and_hashes_are_those_of_keras():
    for name in NAMES:
        source = Path(importlib.import_module(f"keras.src.datasets.{name}").__file__).read_text()
        for file in module._FILES[name]:
            assert Path(file).name in source
            assert module._url(file).rsplit("/", 1)[0] in source
            if file.endswith(".npz"):
                assert module._SHA256[file] in source


def test_the_sample_is_not_silent(small, tmp_path):
    with pytest.warns(UserWarning, match="The real mnist cannot be had") as caught:
        dataset = Data().mnist()
    assert caught[0].filename == __file__  # the warning points at the caller
    assert dataset.source == "sample"
    assert "mnist.npz not found" in dataset.reason
    seen = []
    Data(on_load=seen.append).boston_housing()  # whoever listens is told, and not warned as well
    assert seen[0].source == "sample"
    assert seen[0].reason


def test_the_mode_sample_looks_for_nothing(small, small_folder):
    data = Data("sample", small_folder)
    assert [load(name, data).source for name in NAMES] == ["sample"] * 6
    assert [used.name for used in data.used] == NAMES


def test_importing_the_module_waits_for_nothing():
    code = "import sys, toolkit.data; print({'keras', 'tensorflow', 'sklearn'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout == "set()\n"


# Downloads


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


def test_what_is_missing_is_downloaded_verified_and_kept(small, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "keras", sends(by_name(), calls))
    folder = tmp_path / "data"
    for name in NAMES:
        assert load(name, Data("auto", folder)).source == "real"
    assert snapshot(folder) == {str(folder / file): content for file, content in SMALL.items()}
    assert [name for name, _ in calls] == [Path(file).name for file in SMALL]
    assert all(seconds <= 10 for _, seconds in calls)
    load("imdb", Data("real", folder))
    assert len(calls) == len(SMALL)  # nothing is fetched twice


@pytest.mark.parametrize(
    ("failure", "remembered"),
    [
        (urllib.error.URLError(OSError("no route")), True),
        (TimeoutError("timed out"), True),
        (urllib.error.HTTPError("url", 404, "Not Found", None, None), False),
        (urllib.error.ContentTooShortError("retrieval incomplete", None), False),
        (OSError(28, "No space left on device"), False),
        (b"<html>please log in</html>", False),
        (SMALL["mnist.npz"][:-1], False),
    ],
    ids=lambda value: value.decode(errors="replace")[:6] if isinstance(value, bytes) else None,
)
def test_a_download_that_fails_leaves_nothing(failure, remembered, small, tmp_path, monkeypatch):
    def get_file(origin):
        if not isinstance(failure, urllib.error.URLError):
            return failure
        wrapped = Exception(f"URL fetch failure on {origin}")  # what Keras makes of it
        wrapped.__context__ = failure
        return wrapped

    calls = []
    monkeypatch.setitem(sys.modules, "keras", sends(get_file, calls))
    folder = tmp_path / "data" / "deep"
    tmp_path.joinpath("data").mkdir()
    with pytest.raises(DataNotFoundError, match="download failed"):
        Data("real", folder).mnist()
    assert list(tmp_path.joinpath("data").iterdir()) == []
    with pytest.raises(DataNotFoundError, match="download failed"):
        Data("real", folder).boston_housing()
    assert len(calls) == (1 if remembered else 2)  # nobody waits twice for a network that is not there


def test_an_interrupted_download_leaves_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", sends({"mnist.npz": KeyboardInterrupt()}))
    tmp_path.joinpath("data").mkdir()
    with pytest.raises(KeyboardInterrupt):
        Data("auto", tmp_path / "data").mnist()
    assert list(tmp_path.joinpath("data").iterdir()) == []


def test_a_download_replaces_no_file(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    folder = write(tmp_path / "data", {"mnist.npz": b"mine"})
    with pytest.warns(UserWarning, match="mnist.npz is a wrong file and was left alone"):
        assert Data("auto", folder).mnist().source == "real"
    assert snapshot(folder) == {str(folder / "mnist.npz"): b"mine"}


def test_a_file_system_without_links_will_do(small, tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("not supported")

    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert Data("real", tmp_path / "data").mnist().source == "real"
    assert snapshot(tmp_path / "data") == {str(tmp_path / "data" / "mnist.npz"): SMALL["mnist.npz"]}
    other = write(tmp_path / "other", {"mnist.npz": b"mine"})
    with pytest.warns(UserWarning, match="left alone"):
        assert Data("real", other).mnist().source == "real"
    assert snapshot(other) == {str(other / "mnist.npz"): b"mine"}


def test_a_download_goes_to_the_first_place_that_can_be_written_to(small, tmp_path, monkeypatch):
    make = module.tempfile.TemporaryDirectory

    def refuse(prefix, dir):  # noqa: A002
        if Path(dir) == tmp_path / "data":
            raise PermissionError("read-only")
        return make(prefix=prefix, dir=dir)

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", refuse)
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    assert Data("real", tmp_path / "data").mnist().source == "real"
    assert (tmp_path / "home/.keras/datasets/mnist.npz").exists()
    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", lambda **_: refuse("", tmp_path / "data"))
    with pytest.raises(DataNotFoundError, match="no folder to write to"):
        Data("real", tmp_path / "data").boston_housing()


def test_threads_load_side_by_side(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    folder = tmp_path / "data"
    barrier = threading.Barrier(6)
    results = []

    def work(name):
        barrier.wait()
        results.append(load(name, Data("real", folder)))

    threads = [threading.Thread(target=work, args=[name]) for name in ["imdb", "reuters", "mnist"] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    names = [*module._FILES["imdb"], *module._FILES["reuters"], "mnist.npz"]
    assert snapshot(folder) == {str(folder / file): SMALL[file] for file in names}
    assert module.gc.isenabled()


def test_processes_load_side_by_side(small, small_folder, tmp_path):
    """Two at once fetch the same file, slowly: each gets it, one copy stays."""
    code = f"""
import pathlib, sys, time, types
from toolkit import data
def get_file(name, origin, cache_dir, cache_subdir):
    time.sleep(0.5)
    content = (pathlib.Path({str(small_folder)!r}) / name).read_bytes()
    with open(pathlib.Path(cache_dir, name), "wb") as file:
        for byte in range(0, len(content), 4096):
            file.write(content[byte : byte + 4096])
            time.sleep(0.005)
sys.modules["keras"] = types.SimpleNamespace(utils=types.SimpleNamespace(get_file=get_file))
data._SHA256 = {module._SHA256!r}
print(data.Data("real", {str(tmp_path / "data")!r}).california_housing().source)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["real\n", "real\n"]
    file = "california_housing.npz"
    assert snapshot(tmp_path / "data") == {str(tmp_path / "data" / file): SMALL[file]}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the small files; those named in `broken` break off in the middle."""

    broken: frozenset[str] = frozenset()

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        content = by_name().get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if name in self.broken else content)

    def log_message(self, *_):
        pass


class SilentHandler(Handler):
    """Takes the question and gives no answer."""

    def do_GET(self):
        time.sleep(3)


class PageHandler(Handler):
    """A proxy that wants to be logged in to."""

    def do_GET(self):
        page = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)


class SlowHandler(Handler):
    """Sends little by little, for longer than nothing may come."""

    def do_GET(self):
        content = by_name()[self.path.rsplit("/", 1)[-1]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), len(content) // 8):
            self.wfile.write(content[start : start + len(content) // 8])
            self.wfile.flush()
            time.sleep(0.15)


@pytest.fixture
def server(monkeypatch):
    """Keras's own `get_file`, and a server on this machine that it asks."""
    monkeypatch.setitem(sys.modules, "keras", keras)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    monkeypatch.setattr(
        module, "_url", lambda file: f"http://127.0.0.1:{httpd.server_port}/{Path(file).name}"
    )
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_keras_fetches_the_files(small, server, tmp_path, capsys):
    for name in NAMES:
        assert load(name, Data("real", tmp_path / "data")).source == "real"
    assert snapshot(tmp_path / "data").keys() == {str(tmp_path / "data" / file) for file in SMALL}
    assert "Downloading data from" in capsys.readouterr().err  # what a recipe prints are results


def test_the_page_of_a_proxy_is_named_as_such(small, server, tmp_path):
    server.RequestHandlerClass = PageHandler
    with pytest.raises(DataNotFoundError, match="sent a wrong file \\(it is a web page, perhaps a proxy's"):
        Data("real", tmp_path / "data").mnist()
    assert snapshot(tmp_path) == {}
    write(tmp_path / "data", {"mnist.npz": b"<html><body>Please log in"})  # as a browser or curl leaves it
    with pytest.raises(
        DataNotFoundError, match=r"mnist.npz is a wrong file and was left alone \(it is a web page"
    ):
        Data("real", tmp_path / "data").mnist()


def test_a_server_that_does_not_answer_is_not_waited_for(small, server, tmp_path, monkeypatch):
    assert max(module._CONNECT_SECONDS, module._STALL_SECONDS) <= 15
    monkeypatch.setattr(module, "_STALL_SECONDS", 0.5)
    server.RequestHandlerClass = SilentHandler
    started = time.perf_counter()
    with pytest.raises(DataNotFoundError, match="nothing came for 0 s"):
        Data("real", tmp_path / "data").mnist()
    with pytest.raises(DataNotFoundError, match="nothing came"):
        Data("real", tmp_path / "data").boston_housing()
    assert time.perf_counter() - started < 2.5
    assert snapshot(tmp_path) == {}


def test_a_slow_server_is_waited_for_while_something_comes(small, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STALL_SECONDS", 0.7)
    server.RequestHandlerClass = SlowHandler
    assert Data("real", tmp_path / "data").california_housing().source == "real"


@pytest.mark.slow
def test_two_processes_that_ask_one_server_both_end_well(small, server, tmp_path):
    server.RequestHandlerClass = SlowHandler
    code = f"""
from toolkit import data
data._SHA256 = {module._SHA256!r}
data._url = lambda file: "http://127.0.0.1:{server.server_port}/" + file
print(data.Data("real", {str(tmp_path / "data")!r}).california_housing().source)
"""
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["real\n", "real\n"]
    assert list(snapshot(tmp_path / "data")) == [str(tmp_path / "data/california_housing.npz")]


def test_a_connection_that_breaks_off_does_not_count(small, server, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "broken", {"mnist.npz"})
    with pytest.raises(DataNotFoundError, match="retrieval incomplete"):
        Data("real", tmp_path / "data").mnist()
    assert snapshot(tmp_path) == {}
    assert Data("real", tmp_path / "data").boston_housing().source == "real"  # the server is there


def test_a_server_that_is_not_there_is_asked_once(small, server, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(module, "_url", lambda file: f"http://127.0.0.1:{port}/{file}")
    with pytest.raises(DataNotFoundError, match="Connection refused"):
        Data("real", tmp_path / "data").mnist()
    assert "Connection refused" in module._unreachable
    assert snapshot(tmp_path) == {}


# The command


def test_the_command_fetches_and_verifies(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    assert download(tmp_path, "mnist")
    assert download(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{tmp_path / 'mnist.npz'}: fetched", f"{tmp_path / 'mnist.npz'}: ok"]
    assert lines[2:] == [f"{tmp_path / file}: fetched" for file in list(SMALL)[1:]]


def test_the_command_says_what_is_wrong(small, tmp_path, monkeypatch, capsys):
    write(tmp_path, {"mnist.npz": b"wrong"})
    calls = []
    monkeypatch.setitem(sys.modules, "keras", sends({"boston_housing.npz": Exception("no")}, calls))
    assert not download(tmp_path, "mnist")
    assert not download(tmp_path, "boston_housing")
    wrong, unreachable = capsys.readouterr().out.splitlines()
    assert "is a wrong file and was left alone (its sha256 is" in wrong
    assert unreachable == f"{tmp_path / 'boston_housing.npz'}: unreachable: no"
    assert [name for name, _ in calls] == ["boston_housing.npz"]
    assert (tmp_path / "mnist.npz").read_bytes() == b"wrong"


def test_the_command_takes_the_folder_of_keras_by_default(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert download(only="mnist")
    assert (tmp_path / "keras/datasets/mnist.npz").exists()


@pytest.mark.parametrize(
    ("sent", "status"), [(SMALL["mnist.npz"], 0), (b"half", 1), (KeyboardInterrupt(), 130)]
)
def test_the_status_of_the_command(sent, status, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras", sends({"mnist.npz": sent}))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setattr(sys, "argv", ["download", str(tmp_path / "data"), "--only", "mnist"])
    assert module._main() == status
    assert len(snapshot(tmp_path)) == (status == 0)


# The sample


@pytest.mark.parametrize(
    ("name", "shapes", "types"),
    [
        ("mnist", [(1500, 28, 28), (297, 28, 28)], ("uint8", "uint8")),
        ("fashion_mnist", [(1500, 28, 28), (297, 28, 28)], ("uint8", "uint8")),
        ("imdb", [(2000,), (1000,)], ("object", "int64")),
        ("reuters", [(1794,), (449,)], ("object", "int64")),
        ("boston_housing", [(404, 13), (102, 13)], ("float64", "float64")),
        ("california_housing", [(1600, 8), (400, 8)], ("float32", "float32")),
    ],
)
def test_the_sample_looks_like_the_real_thing(name, shapes, types):
    dataset = load(name, Data("sample"))
    again = load(name, Data("sample"))
    assert [x.shape for x, _ in dataset] == shapes
    for (x, y), (same_x, same_y) in zip(dataset, again, strict=True):
        assert (x.dtype, y.dtype) == types
        assert len(x) == len(y)
        np.testing.assert_array_equal(y, same_y)
        assert all(np.array_equal(row, same) for row, same in zip(x, same_x, strict=True))
    if x.dtype == object:
        assert x[0].dtype == np.int32
    if dataset.class_names:
        assert y.max() < len(dataset.class_names)
        assert len(set(dataset.y_train)) == len(dataset.class_names)
    else:
        assert x.shape[1] == len(dataset.feature_names)


def test_the_sample_is_the_same_everywhere():
    """Integers only: the last digit of a float may differ between machines."""
    data = Data("sample")
    checks = [zlib.crc32(np.concatenate(load(name, data).x_train).tobytes()) for name in NAMES[:4]]
    assert checks == [3413850663, 3413850663, 2710387574, 334394680]


def words_of(dataset, index_from=3):
    names = {rank + index_from: word for word, rank in dataset.word_index.items()}
    return [{names[token] for token in row[1:]} for row in dataset.x_test]


def test_reviews_can_be_told_as_well_as_best_says():
    dataset = Data("sample").imdb(maxlen=500, num_words=1000)
    negative, positive = set(module._NEGATIVE.split()), set(module._POSITIVE.split())
    guesses = [len(words & positive) > len(words & negative) for words in words_of(dataset)]
    assert np.mean(guesses == dataset.y_test) == dataset.best == 0.9
    assert abs(np.mean(dataset.y_train) - 0.5) < 0.01


def test_newswires_can_be_told_as_well_as_best_says():
    dataset = Data("sample").reuters(num_words=1000)
    topics = {name: number for number, name in enumerate(dataset.class_names)}
    guesses = [topics[(words & topics.keys()).pop()] for words in words_of(dataset)]
    assert np.mean(guesses == dataset.y_test) == pytest.approx(dataset.best)
    assert 0.85 < dataset.best < 0.95
    shares = Counter(dataset.y_train.tolist())
    assert [topic for topic, _ in shares.most_common(2)] == [3, 4]  # earn, acq, as in Reuters
    assert min(shares.values()) >= 2


@pytest.mark.parametrize(("name", "lowest"), [("imdb", 0.85), ("reuters", 0.7)])
def test_texts_can_be_learned_but_not_beyond_best(name, lowest):
    dataset = load(name, Data("sample"))
    (x_train, y_train), (x_test, y_test) = dataset

    def presence(rows):
        return np.array([np.isin(np.arange(300), row) for row in rows])

    score = BernoulliNB(alpha=0.1).fit(presence(x_train), y_train).score(presence(x_test), y_test)
    assert lowest < score <= dataset.best


def test_digits_can_be_told_as_well_as_best_says():
    dataset = Data("sample").mnist()
    (x_train, y_train), (x_test, y_test) = ((x.reshape(len(x), -1).astype(int), y) for x, y in dataset)
    assert KNeighborsClassifier(1).fit(x_train, y_train).score(x_test, y_test) == dataset.best
    assert (dataset.x_train.min(), dataset.x_train.max()) == (0, 255)
    assert dataset.class_names == tuple("0123456789")
    assert not np.any(dataset.x_train[:, :2]) and not np.any(dataset.x_train[:, :, -2:])  # noqa: PT018


@pytest.mark.parametrize(("name", "noise"), [("boston_housing", 2), ("california_housing", 20_000)])
def test_houses_can_be_learned_but_not_beyond_best(name, noise):
    dataset = load(name, Data("sample"))
    (x_train, y_train), (x_test, y_test) = dataset
    baseline = np.abs(y_test - np.median(y_train)).mean()
    model = LinearRegression().fit(x_train, y_train)
    error = np.abs(model.predict(x_test) - y_test).mean()
    assert dataset.best < error < baseline / 2
    assert dataset.best == pytest.approx(noise * np.sqrt(2 / np.pi), rel=0.25)  # of normal noise
    assert y_train.min() > 0


@pytest.mark.parametrize("name", ["imdb", "reuters"])
def test_the_ranks_of_the_sample_are_by_frequency(name):
    dataset = load(name, Data("sample"), start_char=None, index_from=0, num_words=1000)
    counts = np.bincount(np.concatenate([*dataset.x_train, *dataset.x_test]))[1:]
    assert list(counts) == sorted(counts, reverse=True)
    assert sorted(dataset.word_index.values()) == list(range(1, len(counts) + 1))


def test_the_sample_obeys_the_options():
    def load_sample(**options):
        return Data("sample").imdb(**options)

    everything = load_sample(num_words=1000)
    short = load_sample(num_words=1000, maxlen=100)
    kept = [row.tolist() for row in everything.x_train if len(row) < 100]
    assert [row.tolist() for row in short.x_train] == kept
    few = load_sample(num_words=20, skip_top=5)
    for row, full in zip(few.x_test, everything.x_test, strict=True):
        assert row.tolist() == [token if 5 <= token < 20 else 2 for token in full]
    assert Data("sample").reuters(test_split=0).best is None
    assert Data("sample").boston_housing(test_split=0).best is None


def test_a_dataset_can_be_sent_to_another_process():
    dataset = pickle.loads(pickle.dumps(Data("sample").imdb()))
    assert dataset.word_index["the"] == 1
    assert len(repr(dataset)) < 500


# The real data


def real_data(name):
    """The folder of the real files, and what reads them; without them, tests marked `real` are skipped."""
    folder = next(place for place in PLACES if (place / module._FILES[name][0]).exists())
    return folder, Data("real", folder)


@pytest.mark.real
def test_the_real_imdb_equals_that_of_keras():
    folder, data = real_data("imdb")
    dataset = data.imdb(num_words=10_000)
    with keras_loader("imdb", folder) as load_data:
        assert_same(dataset, load_data(num_words=10_000))
    assert [int(y.sum()) for _, y in dataset] == [12_500, 12_500]
    assert dataset.x_train[0][:6].tolist() == [1, 14, 22, 16, 43, 530]
    assert dataset.class_names[dataset.y_train[0]] == "positive"
    names = {rank + 3: word for word, rank in dataset.word_index.items()}
    assert " ".join(names.get(token, "?") for token in dataset.x_train[0][:8]) == (
        "? this film was just brilliant casting location"
    )


@pytest.mark.real
def test_the_real_imdb_equals_that_of_keras_with_every_option():
    folder, data = real_data("imdb")
    options = {
        "skip_top": 20,
        "maxlen": 200,
        "seed": 5,
        "start_char": None,
        "oov_char": None,
        "index_from": 4,
    }
    with keras_loader("imdb", folder) as load_data:
        assert_same(data.imdb(**options), load_data(**options))


@pytest.mark.real
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_words": 10_000, "test_split": 0.3, "seed": 1},
        {"maxlen": 100, "skip_top": 10, "oov_char": None},
        {"start_char": None, "index_from": 0},
    ],
)
def test_the_real_reuters_equals_that_of_keras(options):
    folder, data = real_data("reuters")
    dataset = data.reuters(**options)
    with keras_loader("reuters", folder) as load_data:
        assert_same(dataset, load_data(**options))
    if not options:
        assert (len(dataset.x_train), len(dataset.x_test), int(dataset.y_train[0])) == (8982, 2246, 3)
        counts = np.bincount(np.concatenate([dataset.y_train, dataset.y_test]))
        topics = zip(dataset.class_names, counts.reshape(-1, 1).tolist(), strict=True)
        assert dict(topics) == module._TOPICS
        keras_names = importlib.import_module("keras.src.datasets.reuters").get_label_names()
        assert dataset.class_names == keras_names
        training = {row.tobytes() for row in dataset.x_train}
        assert sum(row.tobytes() in training for row in dataset.x_test) == 237


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", {}),
        ("fashion_mnist", {}),
        ("boston_housing", {}),
        ("boston_housing", {"test_split": 0.5, "seed": 9}),
        ("california_housing", {}),
        ("california_housing", {"version": "small"}),
    ],
)
def test_real_images_and_houses_equal_those_of_keras(name, options):
    folder, data = real_data(name)
    dataset = load(name, data, **options)
    with keras_loader(name, folder) as load_data:
        assert_same(dataset, load_data(**options))
    if name == "mnist":
        assert dataset.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert dataset.x_train.mean() == pytest.approx(33.3184, abs=1e-4)
    if name == "fashion_mnist":
        assert dataset.class_names[dataset.y_train[0]] == "Ankle boot"
    if name == "boston_housing" and not options:
        assert [len(x) for x, _ in dataset] == [404, 102]
        assert dataset.x_train[:, dataset.feature_names.index("RM")].mean() == pytest.approx(6.27, abs=0.05)
    if options == {"version": "small"}:
        assert [len(x) for x, _ in dataset] == [480, 120]


@pytest.mark.real
@pytest.mark.parametrize("name", ["boston_housing", "california_housing"])
def test_the_sample_keeps_to_the_real_ranges(name):
    _, data = real_data(name)
    real, sample = load(name, data), load(name, Data("sample"))
    real_x = np.concatenate([x for x, _ in real])
    low, high = real_x.min(axis=0), real_x.max(axis=0)
    margin = 0.05 * (high - low)
    assert (sample.x_train >= low - margin).all()
    assert (sample.x_train <= high + margin).all()
    assert sample.y_train.mean() == pytest.approx(real.y_train.mean(), rel=0.3)
