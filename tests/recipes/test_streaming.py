import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import ROOT

import toolkit
from recipes.streaming import build_model, main, stream
from toolkit.records import prepare, reader
from toolkit.run import Run

NAMES = ["reuters", "boston_housing", "mnist", "imdb"]


def load(name, num_words=100_000, mode="sample"):
    words = {"num_words": num_words} if name in ("reuters", "imdb") else {}
    return getattr(toolkit.Data(mode), name)(**words)


def counted(rows):
    """Count the rows, each with its label, whatever their order."""
    return Counter((np.asarray(x).dtype.name, np.asarray(x).tobytes(), float(y)) for x, y in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def reuters(folder):
    """The builder, and what reads its rows."""
    data = load("reuters")
    return prepare(data, folder), reader(data, 10_000)


def labels(dataset):
    return [int(label) for _, batch in dataset for label in batch]


@pytest.mark.parametrize(
    ("name", "num_words"), [*((name, 10_000) for name in NAMES), ("reuters", 50), ("imdb", 50)]
)
def test_the_records_are_the_rows_of_the_other_recipes_each_once(name, num_words, folder):
    data = load(name)
    records, read = prepare(data, folder), reader(data, num_words)
    for split, (x, y) in zip(("train", "test"), load(name, num_words), strict=True):
        rows = records.as_dataset(split, as_supervised=True).map(lambda x, y: (read(x), y))
        assert counted(tfds.as_numpy(rows)) == counted(zip(x, y, strict=True))


@pytest.mark.real
def test_every_review_comes_back_as_the_very_numbers_that_it_had(tmp_path):
    data = load("imdb", mode="real")
    records = prepare(data, tmp_path)
    (x, y), _ = load("imdb", 10_000, mode="real")
    rows = records.as_dataset("train", as_supervised=True).map(lambda x, y: (reader(data, 10_000)(x), y))
    assert counted(tfds.as_numpy(rows)) == counted(zip(x, y, strict=True))


@pytest.mark.parametrize("name", ["reuters", "imdb"])
def test_the_model_sees_the_vectors_of_the_in_memory_way(name, folder):
    data = load(name)
    batches = stream(prepare(data, folder), "test", reader(data, 10_000))
    assert batches.element_spec[0].shape.as_list() == [None, 10_000]
    x, y = load(name, 10_000).x_test, data.y_test
    streamed = itertools.chain.from_iterable(zip(*batch, strict=True) for batch in tfds.as_numpy(batches))
    assert counted(streamed) == counted(zip(toolkit.multi_hot(x, 10_000), y, strict=True))


def test_a_review_is_read_as_it_would_be_encoded():
    data = load("imdb")
    for text in (
        "A GREAT film!",
        "<br /><br />it's (really) bad...",
        "xyzzy, the\tfilm",
        "",
        "one-two_three\n",
    ):
        for num_words in (20, 10_000):
            wanted = toolkit.encode(text, data.word_index, num_words=num_words)
            assert reader(data, num_words)(tf.constant(text)).numpy().tolist() == wanted


def test_a_word_that_was_cut_stays_unknown(tmp_path):
    data = load("imdb", 20)
    rows = (
        prepare(data, tmp_path)
        .as_dataset("test", as_supervised=True)
        .map(lambda x, y: (reader(data, 20)(x), y))
    )
    assert counted(tfds.as_numpy(rows)) == counted(zip(data.x_test, data.y_test, strict=True))


@pytest.mark.parametrize(("name", "theirs"), [("mnist", "mnist"), ("imdb", "imdb_reviews")])
def test_tfds_reads_the_files_with_its_own_builder(name, theirs, folder):
    data = load(name)
    prepare(data, folder)
    splits, info = tfds.load(theirs, data_dir=folder, download=False, with_info=True, as_supervised=True)
    own = tfds.builder_cls(theirs)
    assert (type(info._builder), info.module_name) == (own, own.__module__)
    assert info.features["label"].num_classes == len(data.class_names)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": len(data.x_train),
        "test": len(data.x_test),
    }
    first = next(iter(tfds.as_numpy(splits["test"])))[0]
    if name == "mnist":
        assert (first.shape, first.dtype) == ((28, 28, 1), "uint8")
    else:
        assert set(first.decode().split(" ")) <= set(data.word_index)


@pytest.mark.parametrize("name", ["reuters", "boston_housing"])
def test_tfds_knows_our_builders_by_name(name, folder, tmp_path):
    data = load(name)
    prepare(data, folder)
    assert len(tfds.load(name, data_dir=folder, download=False, split="test")) == len(data.x_test)
    with pytest.raises(FileNotFoundError, match=f"{name} cannot be downloaded"):
        tfds.builder(name, data_dir=tmp_path)._split_generators(None)


def test_what_tfds_has_prepared_is_used_as_it_is(tmp_path):
    """TFDS's own download holds the reviews as they were written, and a third split."""
    data = load("imdb")
    theirs = tfds.builder("imdb_reviews", data_dir=tmp_path)
    lengths = {"train": len(data.x_train), "test": len(data.x_test), "unsupervised": 3}
    review = {"text": "Not BAD, this film!<br />", "label": "pos"}
    theirs._split_generators = lambda dl_manager: {
        split: ((number, review) for number in range(length)) for split, length in lengths.items()
    }
    theirs._make_download_manager = lambda **_: SimpleNamespace(downloaded_size=0)
    theirs.download_and_prepare()
    records = prepare(data, tmp_path)
    assert {split: info.num_examples for split, info in records.info.splits.items()} == lengths
    wanted = toolkit.multi_hot([toolkit.encode("not bad this film br", data.word_index)], 10_000)
    for x, y in tfds.as_numpy(stream(records, "test", reader(data, 10_000))):
        assert np.array_equal(x, np.repeat(wanted, len(x), axis=0))
        assert set(y) == {1}


def test_they_are_written_once(folder, capsys):
    def written():
        return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}

    for name in NAMES:
        prepare(load(name), folder)
    before = written()
    capsys.readouterr()
    for name in NAMES:
        prepare(load(name), folder)
    assert written() == before
    assert capsys.readouterr() == ("", "")


def test_files_of_other_data_are_refused(folder):
    prepare(load("reuters"), folder)
    other = toolkit.Data("sample").reuters(test_split=0.5)
    with pytest.raises(ValueError, match=r"reuters/1.0.0 must hold \d+ rows of train. Received: \d+"):
        prepare(other, folder)


def test_slices_are_disjoint_and_cover(reuters):
    records, read = reuters
    rows = records.info.splits["train"].num_examples
    everything = sorted(labels(stream(records, "train", read)))
    for folds in (2, 3):
        cuts = [100 * fold // folds for fold in range(folds + 1)]
        held = []
        for low, high in itertools.pairwise(cuts):
            part = labels(stream(records, f"train[{low}%:{high}%]", read))
            assert len(labels(stream(records, f"train[:{low}%]+train[{high}%:]", read))) == rows - len(part)
            held += part
        assert sorted(held) == everything


def test_a_buffer_of_one_keeps_the_order_and_a_larger_one_does_not_lose_a_row(reuters):
    plain = labels(stream(reuters[0], "train", reuters[1]))
    assert plain == labels(stream(reuters[0], "train", reuters[1]))
    shuffled = labels(stream(reuters[0], "train", reuters[1], 5000))
    assert shuffled != plain
    assert sorted(shuffled) == sorted(plain)


def test_fit_on_the_stream_is_fit_in_memory_on_the_same_rows_in_the_same_order(reuters):
    records, read = reuters
    rows = list(tfds.as_numpy(records.as_dataset("train", as_supervised=True)))
    x, y = toolkit.multi_hot([row for row, _ in rows], 10_000), np.array([label for _, label in rows])
    weights = []
    for way in ("stream", "memory"):
        keras.utils.set_random_seed(0)
        model = build_model((10_000,), toolkit.head(y))
        if way == "stream":
            model.fit(stream(records, "train", read), shuffle=False, verbose=0)
        else:
            toolkit.fit(model, x, y, batch_size=32, shuffle=False, verbose=0)
        weights.append(np.concatenate([weight.ravel() for weight in model.get_weights()]))
    np.testing.assert_allclose(*weights, atol=1e-4)


def test_it_asks_no_network(tmp_path):
    """Every connection would raise, and a look-up of a name, too; and TFDS's catalogue, which asks in C++."""
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"the network was asked: {args}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import toolkit
from recipes.streaming import prepare, reader, stream, tfds
tfds.core.community.community_register = refuse
names = {"reuters": "reuters", "boston_housing": "boston_housing", "mnist": "mnist", "imdb": "imdb_reviews"}
for name, theirs in names.items():
    data = getattr(toolkit.Data("sample"), name)()
    records = prepare(data, sys.argv[1])
    assert list(stream(records, "train[:1%]", reader(data, 10_000)))
    assert len(tfds.load(theirs, data_dir=sys.argv[1], download=False, split="test")) == len(data.x_test)
assert set(names.values()) <= set(tfds.list_builders())
try:
    tfds.builder("no_such_data")
except tfds.core.DatasetNotFoundError:
    print("done")
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "done"


@pytest.mark.slow
def test_the_run_that_writes_the_records_gives_the_numbers_of_a_later_one_in_a_study_too(tmp_path):
    metrics = []
    for folder in ("streaming/first", "streaming/second", "streaming/study/seed=0"):
        (tmp_path / folder).mkdir(parents=True)
        keras.utils.set_random_seed(0)
        run = Run("streaming", tmp_path / folder, toolkit.Data("sample"), 0, {}, True)
        main(run, dataset="boston_housing", epochs=2)
        metrics.append(run.metrics)
        keras.utils.clear_session()
    assert metrics[0] == metrics[1] == metrics[2]
    assert {"test_mae", "memory_mae"} <= set(metrics[0])
    assert [path.parent.name for path in tmp_path.rglob("boston_housing")] == ["sample"]  # written once


@pytest.mark.parametrize("folds", [1, 101])
def test_folds_that_cannot_be_are_refused_before_any_work(folds):
    with pytest.raises(ValueError, match=f"`folds` must be .* Received: {folds}$"):
        main(None, folds=folds)
