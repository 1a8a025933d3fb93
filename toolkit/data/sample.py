"""The embedded sample: data like the real ones, small, the same everywhere, and of known best score."""

import configparser
import functools
import json
from pathlib import Path

import numpy as np

from toolkit.data.tokens import Array, Part


@functools.cache
def _tables() -> configparser.ConfigParser:
    """Names and words, in a file beside this one."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # keep capitals
    parser.read(Path(__file__).with_name("sample.ini"), encoding="utf-8")
    return parser


def table(name: str) -> dict[str, list[float]]:
    """Return what a data set has by name: its columns or topics, with some numbers about each.

    >>> list(table("reuters"))[:3], table("boston_housing")["TAX"]
    (['cocoa', 'grain', 'veg-oil'], [187.0, 711.0, 1.5])
    """
    return {key: list(map(float, numbers.split())) for key, numbers in _tables()[name].items()}


def words(kind: str) -> list[str]:
    """Return the words of a kind: negative, positive or neutral.

    >>> words("negative")[:3]
    ['bad', 'worst', 'awful']
    """
    return _tables()["words"][kind].split()


def digits() -> tuple[Array, Array]:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8, enlarged to 28 x 28."""
    from sklearn.datasets import load_digits

    small = load_digits()
    order = np.random.RandomState(0).permutation(len(small.images))
    pixels = np.round(small.images[order] * (255 / 16)).astype(np.uint8)
    large = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    return large, small.target[order].astype(np.uint8)


def texts(name: str) -> tuple[list[Part], bytes]:
    """Texts as arrays of ranks, with some words that tell the label among neutral ones; and the word index.

    3,000 reviews: the true label is the side with more words, and every tenth label is flipped.
    2,259 newswires: each names its topic, and every tenth has a label drawn from all of them.
    """
    random = np.random.RandomState(0)
    signals = []
    if name == "imdb":
        signal_words, longest = words("negative") + words("positive"), 200
        truth = np.arange(3000) % 2
        for side in truth:
            count = random.randint(5, 16)
            more = random.randint(count * 2 // 3 + 1, count + 1)
            sides = (random.permutation(40)[: count - more], random.permutation(40)[:more])
            signals.append(np.concatenate([sides[1 - side], 40 + sides[side]]))
    else:
        signal_words, longest = list(table("reuters")), 100
        truth = np.repeat(np.arange(46), [max(5, int(count) // 5) for (count,) in table("reuters").values()])
        signals += [np.repeat(topic, random.randint(1, 4)) for topic in truth]

    vocabulary = signal_words + words("neutral")
    weights = 1 / np.arange(1, len(vocabulary) - len(signal_words) + 1)  # Zipf's law
    rows = []
    for signal in signals:
        count = random.randint(20, longest + 1) - len(signal)
        neutral = random.choice(len(weights), count, p=weights / weights.sum())
        rows.append(random.permutation(np.concatenate([signal, len(signal_words) + neutral])))
    counts = np.bincount(np.concatenate(rows), minlength=len(vocabulary))
    ranks = np.argsort(np.argsort(-counts, kind="stable")) + 1
    x = np.empty(len(rows), object)
    x[:] = [ranks[row] for row in rows]
    word_index = json.dumps(dict(zip(vocabulary, ranks.tolist(), strict=True))).encode()

    if name == "imdb":
        y = np.where(np.arange(3000) // 2 % 10 == 0, 1 - truth, truth)
        return [(x[part], y[part], truth[part]) for part in (slice(2000), slice(2000, None))], word_index
    y = np.where(np.arange(len(truth)) % 10 == 0, random.permutation(truth), truth)
    return [(x, y, truth)], word_index


def houses(name: str) -> tuple[Array, Array, Array]:
    """Columns of the real names and ranges, prices with noise, and prices without."""
    random = np.random.RandomState(0)
    columns, boston = table(name), name == "boston_housing"
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
