import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import decode, encode, multi_hot

rows_of_words = st.lists(st.lists(st.integers(0, 11), max_size=9), max_size=6)


def definition(sequences, num_words):
    """Return the books' loop, at its simplest."""
    result = np.zeros((len(sequences), num_words), dtype="uint8")
    for row, sequence in enumerate(sequences):
        for index in sequence:
            result[row, index] = 1
    return result


@given(rows_of_words)
@settings(deadline=None)
def test_every_form_of_input_and_output_agrees_with_the_definition(sequences):
    wanted = definition(sequences, 12)
    objects = np.empty(len(sequences), dtype=object)
    objects[:] = [np.array(row, dtype=np.int32) for row in sequences]
    ragged = tf.ragged.constant(sequences, ragged_rank=1, dtype=tf.int32)
    for given_ in (sequences, objects, ragged):
        np.testing.assert_array_equal(multi_hot(given_, 12), wanted)
    csr = multi_hot(sequences, 12, sparse=True)
    assert isinstance(csr, scipy.sparse.csr_array)
    assert csr.has_canonical_format
    np.testing.assert_array_equal(csr.toarray(), wanted)
    np.testing.assert_array_equal(tf.sparse.to_dense(multi_hot(ragged, 12, sparse=True)), wanted)


@given(st.integers(0, 5), st.integers(0, 7), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_matrices_of_indices_agree_with_the_definition(n, length, seed):
    matrix = np.random.default_rng(seed).integers(0, 12, (n, length))
    wanted = definition(matrix, 12)
    np.testing.assert_array_equal(multi_hot(matrix, 12), wanted)
    np.testing.assert_array_equal(multi_hot(tf.constant(matrix), 12), wanted)


def test_what_pandas_holds_is_taken_row_by_row_whatever_its_labels():
    sequences = [[0, 3], [1, 1], [2, 0]]
    wanted = definition(sequences, 4)
    np.testing.assert_array_equal(multi_hot(pd.Series(sequences, index=[9, 1, 1]), 4), wanted)
    np.testing.assert_array_equal(multi_hot(pd.DataFrame(sequences, columns=["a", "b"]), 4), wanted)
    with pytest.raises(ValueError, match=r"Received: 4 in row 1\."):
        multi_hot(pd.Series([[1], [4]], index=[8, 9]), 4)
    with pytest.raises(ValueError, match=r"Received: 'bad' .* as row 1\."):
        multi_hot(pd.Series([[1], "bad"], index=[8, 9]), 4)
    with pytest.raises(ValueError, match=r"array\(\[1\.5, 2\. *\]\) .* as row 0\."):
        multi_hot(pd.DataFrame({"first": [1.5, 2.5], "second": [2.0, 3.0]}), 4)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "float32", "float64"])
def test_dtype_is_kept_by_both_faces(dtype):
    sequences = [[0, 2, 2], [1]]
    array = multi_hot(sequences, 3, dtype=dtype)
    tensor = multi_hot(tf.ragged.constant(sequences), 3, dtype=dtype)
    csr = multi_hot(sequences, 3, dtype=dtype, sparse=True)
    assert array.dtype == csr.dtype == tensor.dtype.as_numpy_dtype == np.dtype(dtype)
    np.testing.assert_array_equal(array, definition(sequences, 3).astype(dtype))
    np.testing.assert_array_equal(csr.toarray(), array)
    np.testing.assert_array_equal(tensor, array)


def test_a_word_that_occurs_more_often_than_a_byte_can_count_is_still_one():
    assert multi_hot([[5] * 256], 6, sparse=True).toarray().tolist() == [[0, 0, 0, 0, 0, 1]]
    assert multi_hot([[1, 2, 3, 3]], 6, sparse=True).indices.base is None  # no room for what was repeated


def test_blocks_of_rows_leave_no_seam(monkeypatch):
    generator = np.random.default_rng(0)
    sequences = [generator.integers(0, 50, generator.integers(0, 9)) for _ in range(23)]
    whole = multi_hot(sequences, 50)
    monkeypatch.setattr("toolkit.text._BLOCK_BYTES", 200)  # four rows a block
    np.testing.assert_array_equal(multi_hot(sequences, 50), whole)


@pytest.mark.parametrize("bad", [-1, 10, 2**31])
def test_an_index_out_of_range_is_refused_with_row_and_value(bad):
    sequences = [[1], [], [2, bad]]
    with pytest.raises(ValueError, match=rf"0\.\.9\. Received: {bad} in row 2"):
        multi_hot(sequences, 10)
    with pytest.raises(ValueError, match=f"{bad} in row 2"):
        multi_hot(sequences, 10, sparse=True)
    ragged = tf.ragged.constant(sequences, dtype=tf.int64)
    message = rf"(?s)0\.\.9\. Received:.*{bad}.*in row.*2"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        multi_hot(ragged, 10)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(lambda rows: multi_hot(rows, 10))(ragged)


@pytest.mark.parametrize(
    "bad",
    [[1, 2], [[1.0, 2.0]], [["a"]], [[1, None]], [[[1]]], "abc", 5, [[True, False]], np.zeros((2, 2)), None],
    ids=str,
)
def test_what_is_no_list_of_rows_is_refused(bad):
    with pytest.raises(ValueError, match="must be a list of lists of integers"):
        multi_hot(bad, 10)


@pytest.mark.parametrize("num_words", [0, -3, 2.5, "10"])
def test_num_words_must_be_a_positive_integer(num_words):
    with pytest.raises(ValueError, match="`num_words` must be a positive integer"):
        multi_hot([[0]], num_words)


def test_it_works_in_a_data_pipeline_and_in_a_function():
    sequences = [[0, 3], [1, 1, 2], [4]]
    wanted = definition(sequences, 5)
    rows = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(sequences))
    one_by_one = rows.map(lambda row: multi_hot(row, 5)).batch(3)
    batched = rows.ragged_batch(3).map(lambda rows: multi_hot(rows, 5))
    compiled = tf.function(lambda rows: multi_hot(rows, 5))(tf.ragged.constant(sequences))
    for result in (next(iter(one_by_one)), next(iter(batched)), compiled):
        np.testing.assert_array_equal(result, wanted)
    assert batched.element_spec.shape == (None, 5)


@pytest.mark.gpu
def test_a_tensor_on_the_gpu_stays_there():
    with tf.device("GPU:0"):
        result = multi_hot(tf.constant([[0, 3], [1, 1]]), 5, dtype="float32")
    assert "GPU" in result.device
    np.testing.assert_array_equal(result, definition([[0, 3], [1, 1]], 5))


@given(st.lists(st.sampled_from(["good", "bad", "film", "it's"]), max_size=8))
def test_decode_undoes_encode(words):
    index = {"good": 1, "bad": 2, "film": 3, "it's": 4}
    text = " ".join(words)
    assert decode(encode(text, index), index) == text


def test_encode_drops_case_and_punctuation_and_marks_what_it_does_not_know():
    index = {"a": 1, "great": 2, "film": 9}
    assert encode("A GREAT--film!!\n(zyx)", index) == [1, 4, 5, 12, 2]
    assert encode("a great film", index, num_words=12) == [1, 4, 5, 2]


def test_decode_with_another_index_from():
    assert decode([1, 2], {"a": 1, "b": 2}, index_from=0) == "a b"


@pytest.mark.real
def test_a_real_review_reads_as_text():
    from toolkit import Data

    dataset = Data("real").imdb()
    review = decode(dataset.x_train[0], dataset.word_index)
    assert review.startswith("this film was just brilliant casting location scenery story direction")
    assert encode(review, dataset.word_index) == dataset.x_train[0].tolist()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_dense_vectors_start_where_tensorflow_needs_no_copy(dtype):
    for columns in (1, 3, 50):
        assert multi_hot([[0]] * 7, columns, dtype=dtype).ctypes.data % 64 == 0
