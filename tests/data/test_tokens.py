import hashlib
import importlib
import warnings

import numpy as np
import pytest
from data.small import SMALL, assert_same, keras_loader, load, npz_bytes, ragged, real_data, write
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data import Data, files, sample

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
        patch.setattr(files, "SHA256", hashes)
        data = Data("real", small_folder)
        check()


def test_the_rows_are_cut_from_one_array(small, small_folder):
    dataset = Data("real", small_folder).imdb()
    bases = {id(row.base) for row in [*dataset.x_train, *dataset.x_test]}
    assert len(bases) == 1


def test_rows_of_equal_length_stay_rows(monkeypatch, tmp_path):
    content = npz_bytes(x=ragged([[1, 2], [3, 4], [5, 6]]), y=np.arange(3))
    contents = {"reuters.npz": content, "reuters_word_index.json": b"{}"}
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    monkeypatch.setattr(files, "SHA256", hashes)
    assert Data("real", write(tmp_path / "here", contents)).reuters().x_train.shape == (2,)


@pytest.mark.real
@pytest.mark.slow
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
        assert dict(topics) == sample.table("reuters")
        keras_names = importlib.import_module("keras.src.datasets.reuters").get_label_names()
        assert dataset.class_names == keras_names
        training = {row.tobytes() for row in dataset.x_train}
        assert sum(row.tobytes() in training for row in dataset.x_test) == 237
