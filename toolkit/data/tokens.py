"""How words' ranks become Keras's tokens: its constants and its loaders' options, on one flat array."""

import itertools
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit._garbage import uncollected

Array = NDArray[Any]
Part = tuple[Array, Array, Array]  # rows, labels, and the labels before the sample's noise came in

PADDING, START, UNKNOWN = 0, 1, 2  # what stands for no word
INDEX_FROM = 3  # added to a word's rank, from 1, to make its token: no word has 3
MARKS = string.punctuation.replace("'", "")  # what Keras's texts were cut at, beside blanks


@dataclass(frozen=True)
class TokenOptions:
    """The options of Keras's loaders that say how ranks become tokens."""

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

    def apply(self, parts: Iterable[Part]) -> tuple[Array, Array, Array, int]:
        """Rows, labels and true labels of all parts, and where the second part starts.

        Keras's loaders do it list by list, and this on one flat array.
        """
        random = np.random.RandomState(self.seed)
        tokens, lengths, labels, truths = [], [], [], []
        with uncollected():  # millions of new objects
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
