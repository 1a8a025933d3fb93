"""Word numbers as vectors of 0 and 1 (`multi_hot`); sentences as word numbers and back (`encode`, `decode`).

`multi_hot` is much faster and leaner than the books' loop over rows (at float64 that loop fills 2 GB for the
IMDB reviews), and it refuses the index -1, which the loop would have written to the last column.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from toolkit.data.tokens import INDEX_FROM, MARKS, PADDING, START, UNKNOWN

_MARKS_TO_BLANKS = str.maketrans(dict.fromkeys(MARKS, " "))
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
_BLOCK_BYTES = 8_000_000  # of the working memory that one block of rows may take: it stays in the cache


def multi_hot(sequences: Any, num_words: int, *, dtype: npt.DTypeLike = "uint8", sparse: bool = False) -> Any:
    """Turn sequences of indices into vectors of 0 and 1: which words occur, not where or how often.

    Lists and arrays give NumPy or SciPy, tensors give tensors, on the device that holds them; inside
    `tf.data.Dataset.map` and a `tf.function` too. Both kinds agree element for element.

    Args:
        sequences: n rows of integers in `0..num_words - 1`: a list of lists, an object array or pandas Series
            of lists, a 2-D integer array or DataFrame, a `tf.RaggedTensor` or an integer `tf.Tensor`. A
            tensor of rank 1 is one row.
        num_words: Number of columns.
        dtype: Element type. uint8 takes a quarter of the memory of float32, and Keras casts each batch.
        sparse: Return `scipy.sparse.csr_array` (tensors: `tf.SparseTensor`), which `fit` takes as it is.

    Returns:
        Array or tensor of shape `(n, num_words)`; `(num_words,)` for a tensor of rank 1.

    Raises:
        ValueError: An index is negative or too large (the message gives row and value), or a row is no
            list of integers. Tensors raise `tf.errors.InvalidArgumentError`.

    Source: Chollet, Deep Learning with Python, section 3.4 (the loop `vectorize_sequences`).

    >>> multi_hot([[0, 2], [1, 1]], num_words=4)
    array([[1, 0, 1, 0],
           [0, 1, 0, 0]], dtype=uint8)
    >>> multi_hot([[0, 2], [1, -1]], num_words=4)
    Traceback (most recent call last):
    ValueError: `sequences` must hold indices in 0..3. Received: -1 in row 1.
    """
    if not isinstance(num_words, int | np.integer) or num_words < 1:
        raise ValueError(f"`num_words` must be a positive integer. Received: {num_words!r}")
    tensorflow = sys.modules.get("tensorflow")  # a tensor cannot come from a TensorFlow not yet imported
    if tensorflow and isinstance(sequences, tensorflow.Tensor | tensorflow.RaggedTensor):
        return _multi_hot_tensor(tensorflow, sequences, num_words, np.dtype(dtype).name, sparse)
    flat, starts = _flatten(sequences)
    if flat.size and (flat.min() < 0 or flat.max() >= num_words):
        place = int(np.flatnonzero((flat < 0) | (flat >= num_words))[0])
        row = int(np.searchsorted(starts, place, side="right")) - 1
        raise ValueError(
            f"`sequences` must hold indices in 0..{num_words - 1}. Received: {flat[place]} in row {row}."
        )
    return (_csr if sparse else _dense)(flat, starts, (len(starts) - 1, int(num_words)), np.dtype(dtype))


def encode(text: str, word_index: Mapping[str, int], *, num_words: int | None = None) -> list[int]:
    """Turn a sentence into indices, the way Keras's IMDB and Reuters sets were made.

    Args:
        text: Plain text; case and punctuation are dropped, apostrophes are kept.
        word_index: Word to rank, from 1, as `Dataset.word_index` gives it.
        num_words: Indices from this one on become 2, "unknown word".

    Returns:
        Indices: 1 (start), then one for each word: its rank + 3, or 2 for an unknown word.

    Raises:
        TypeError: `text` is no string, or `word_index` no mapping.

    >>> encode("Great, GREAT film!", {"film": 1, "great": 2})
    [1, 5, 5, 4]
    """
    if not isinstance(text, str):
        raise TypeError(f"`text` must be a string. Received: {text!r:.60}")
    _check_word_index(word_index)
    ranks = (word_index.get(word) for word in text.lower().translate(_MARKS_TO_BLANKS).split())
    indices = (UNKNOWN if rank is None else rank + INDEX_FROM for rank in ranks)
    return [START, *(UNKNOWN if num_words is not None and index >= num_words else index for index in indices)]


def decode(sequence: Iterable[int], word_index: Mapping[str, int], *, index_from: int = INDEX_FROM) -> str:
    """Turn the indices of a review or newswire back into words.

    Args:
        sequence: Indices. The first `index_from` are reserved: 0 (padding) and 1 (start) are left out.
        word_index: Word to rank, from 1, as `Dataset.word_index` gives it.
        index_from: What was added to each rank.

    Returns:
        Words with single spaces between them; "?" for each index that stands for no word.

    Raises:
        TypeError: `word_index` is no mapping.

    >>> decode([1, 5, 2, 4], {"film": 1, "great": 2})
    'great ? film'
    """
    _check_word_index(word_index)
    words = {rank + index_from: word for word, rank in word_index.items()}
    left_out = [index for index in (PADDING, START) if index < index_from]
    return " ".join(words.get(int(index), "?") for index in sequence if index not in left_out)


def _check_word_index(word_index: Any) -> None:
    if not isinstance(word_index, Mapping):
        raise TypeError(f"`word_index` must map words to ranks. Received: {word_index!r:.60}")


def _flatten(sequences: Any) -> tuple[IntArray, IntArray]:
    """Return all indices in one array, and where each row starts; last, where the last one ends."""
    if hasattr(sequences, "iloc"):  # pandas, whose [] takes labels, and whose tables are lists of columns
        sequences = np.asarray(sequences)
    if isinstance(sequences, np.ndarray) and sequences.ndim == 2 and sequences.dtype.kind in "iu":
        return sequences.reshape(-1), np.arange(len(sequences) + 1) * sequences.shape[1]
    if isinstance(sequences, str | Mapping) or not hasattr(sequences, "__len__"):
        raise ValueError(f"`sequences` must be a list of lists of integers. Received: {type(sequences)}")
    rows = [np.asarray(row) for row in sequences]
    for number, row in enumerate(rows):
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise ValueError(
                "`sequences` must be a list of lists of integers. "
                f"Received: {sequences[number]!r:.60} (dtype {row.dtype}) as row {number}."
            )
    filled = [row for row in rows if row.size]
    flat = np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)
    if flat.dtype.kind == "f":  # NumPy's common type of int64 and uint64
        flat = np.concatenate(filled, dtype=np.int64, casting="unsafe")
    return flat, np.cumsum([0, *map(len, rows)])


def _dense(flat: IntArray, starts: IntArray, shape: tuple[int, int], dtype: Any) -> Any:
    size = shape[0] * shape[1] * dtype.itemsize
    memory = np.zeros(size + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64  # a multiple of 64 bytes: TensorFlow takes it as it is, without a copy
    result = memory[start : start + size].view(dtype).reshape(shape)
    rows_per_block = max(1, _BLOCK_BYTES // (shape[1] * result.itemsize))
    for first in range(0, shape[0], rows_per_block):
        block = result[first : first + rows_per_block]
        bounds = starts[first : first + len(block) + 1]
        rows = np.repeat(np.arange(len(block)), np.diff(bounds))
        block[rows, flat[bounds[0] : bounds[-1]]] = 1
    return result


def _csr(flat: IntArray, starts: IntArray, shape: tuple[int, int], dtype: Any) -> Any:
    # SciPy sorts each row and adds up repeated words; the sums are then replaced by ones.
    narrow = np.int32 if max(len(flat), *shape) <= np.iinfo(np.int32).max else np.int64
    counts = np.ones(len(flat), dtype=np.uint8)
    matrix = scipy.sparse.csr_array((counts, flat.astype(narrow), starts.astype(narrow)), shape=shape)
    matrix.sum_duplicates()
    matrix.data = np.ones(matrix.nnz, dtype=dtype)
    matrix.indices = matrix.indices.copy()  # SciPy may leave them in the memory that held the repeated ones
    return matrix


def _multi_hot_tensor(tf: Any, sequences: Any, num_words: int, dtype: str, sparse: bool) -> Any:
    if isinstance(sequences, tf.RaggedTensor):
        values, rows, count = sequences.flat_values, sequences.value_rowids(), sequences.nrows()
    elif sequences.shape.rank in (1, 2):
        matrix = sequences[tf.newaxis] if sequences.shape.rank == 1 else sequences
        count, length = tf.unstack(tf.shape(matrix, out_type=tf.int64))
        values, rows = tf.reshape(matrix, [-1]), tf.repeat(tf.range(count), length)
    else:
        raise ValueError(f"`sequences` must have rank 1 or 2. Received: shape {sequences.shape}")
    if not values.dtype.is_integer or values.shape.rank != 1:
        raise ValueError(f"`sequences` must hold rows of integers. Received: {sequences!r:.80}")
    values, rows, count = (tf.cast(tensor, tf.int64) for tensor in (values, rows, count))
    wrong = (values < 0) | (values >= num_words)
    report = [f"`sequences` must hold indices in 0..{num_words - 1}. Received:", values[wrong][:1]]
    check = tf.debugging.Assert(~tf.reduce_any(wrong), [*report, "in row", rows[wrong][:1]])
    with tf.control_dependencies([check]):
        places = tf.stack([rows, values], axis=1)
    # float32, because not every device has an integer scatter.
    zeros = tf.zeros(tf.stack([count, tf.constant(num_words, tf.int64)]))
    result = tf.cast(tf.tensor_scatter_nd_update(zeros, places, tf.ones_like(rows, tf.float32)), dtype)
    result = tf.ensure_shape(result, [None, num_words])
    if not isinstance(sequences, tf.RaggedTensor) and sequences.shape.rank == 1:
        result = result[0]
    return tf.sparse.from_dense(result) if sparse else result
