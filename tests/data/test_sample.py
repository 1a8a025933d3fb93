import zlib
from collections import Counter

import numpy as np
import pytest
from data.small import NAMES, load, real_data
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import BernoulliNB
from sklearn.neighbors import KNeighborsClassifier

from toolkit.data import Data, sample


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
    negative, positive = set(sample.words("negative")), set(sample.words("positive"))
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
