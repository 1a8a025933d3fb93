import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT

import toolkit
from recipes.streaming import build_model, stream
from toolkit.records import Records


@pytest.fixture(scope="module")
def reuters():
    return toolkit.Data("sample").reuters(num_words=10_000)


@pytest.fixture(scope="module")
def records(reuters, tmp_path_factory):
    records = Records(reuters, tmp_path_factory.mktemp("records"))
    records.write()
    return records


def labels(dataset):
    return [int(label) for _, batch in dataset for label in batch]


def test_the_records_hold_every_row_once(reuters, records):
    for split, (x, y) in zip(("train", "test"), reuters, strict=True):
        wanted = sorted((*map(int, row), -1, int(label)) for row, label in zip(x, y, strict=True))
        rows = tfds.as_numpy(records.as_dataset(split, as_supervised=True))
        assert sorted((*map(int, row), -1, int(label)) for row, label in rows) == wanted


@pytest.mark.parametrize(("name", "shape"), [("boston_housing", (13,)), ("mnist", (28, 28))])
def test_numbers_come_back_as_they_were(name, shape, tmp_path):
    data = getattr(toolkit.Data("sample"), name)()
    records = Records(data, tmp_path)
    records.write()
    rows = [row for row, _ in tfds.as_numpy(records.as_dataset("test", as_supervised=True))]
    assert rows[0].shape == shape
    assert rows[0].dtype == data.x_test.dtype
    assert np.sum(rows, dtype="float64") == pytest.approx(data.x_test.sum(dtype="float64"))


def test_they_are_written_once(reuters, records, capsys):
    def written():
        return {path: path.stat().st_mtime_ns for path in Path(records.data_dir).iterdir()}

    before = written()
    Records(reuters, Path(records.data_dir).parents[1]).write()
    assert written() == before
    assert capsys.readouterr() == ("", "")


def test_slices_are_disjoint_and_cover(records):
    rows = records.info.splits["train"].num_examples
    everything = sorted(labels(stream(records, "train")))
    for folds in (2, 3):
        cuts = [100 * fold // folds for fold in range(folds + 1)]
        held = []
        for low, high in itertools.pairwise(cuts):
            part = labels(stream(records, f"train[{low}%:{high}%]"))
            assert len(labels(stream(records, f"train[:{low}%]+train[{high}%:]"))) == rows - len(part)
            held += part
        assert sorted(held) == everything


def test_a_buffer_of_one_keeps_the_order_and_a_larger_one_does_not_lose_a_row(records):
    plain = labels(stream(records, "train"))
    assert plain == labels(stream(records, "train"))
    shuffled = labels(stream(records, "train", 5000))
    assert shuffled != plain
    assert sorted(shuffled) == sorted(plain)


def test_fit_on_the_stream_is_fit_in_memory_on_the_same_rows_in_the_same_order(reuters, records):
    rows = list(tfds.as_numpy(records.as_dataset("train", as_supervised=True)))
    x, y = toolkit.multi_hot([row for row, _ in rows], 10_000), np.array([label for _, label in rows])
    weights = []
    for way in ("stream", "memory"):
        keras.utils.set_random_seed(0)
        model = build_model((10_000,), toolkit.head(reuters.y_train))
        if way == "stream":
            model.fit(stream(records, "train"), shuffle=False, verbose=0)
        else:
            toolkit.fit(model, x, y, batch_size=32, shuffle=False, verbose=0)
        weights.append(np.concatenate([weight.ravel() for weight in model.get_weights()]))
    np.testing.assert_allclose(*weights, atol=1e-4)


def test_it_asks_no_network(tmp_path):
    """Every connection would raise, and a look-up of a name, too."""
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"the network was asked: {args}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from recipes.streaming import Records, stream
import toolkit
records = Records(toolkit.Data("sample").boston_housing(), sys.argv[1])
records.write()
print(len(list(stream(records, "train[:50%]"))))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=env, check=False
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.splitlines()[-1]) > 0
