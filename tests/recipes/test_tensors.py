import hypothesis
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest

from recipes import tensors


@hypothesis.given(arrays.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 4), max_dims=3))
def test_broadcasting_is_that_of_numpy(shapes):
    (shape,) = shapes.input_shapes
    y = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if shapes.result_shape == (2, 3, 4):
        np.testing.assert_array_equal(tensors.naive_broadcast(y, (2, 3, 4)), np.broadcast_to(y, (2, 3, 4)))
        np.testing.assert_array_equal(tensors.naive_add(np.ones((2, 3, 4)), y), 1 + y + np.zeros((2, 3, 4)))


def test_the_example_of_the_lesson():
    y = np.random.default_rng(0).normal(size=(32, 10))
    z = tensors.naive_broadcast(y, (64, 3, 32, 10))
    assert z.shape == (64, 3, 32, 10)
    assert (z == y).all()


@pytest.mark.parametrize("shape", [(3, 2), (), (2, 3, 4)])
def test_relu_works_at_any_rank_and_keeps_the_dtype(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    z = tensors.naive_relu(x)
    assert (z.dtype, z.shape) == (x.dtype, x.shape)
    np.testing.assert_array_equal(z, np.maximum(x, 0))


def test_products_are_those_of_numpy():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(4, 3)), random.normal(size=(3, 5))
    np.testing.assert_allclose(tensors.naive_vector_dot(x[0], y[:, 0]), x[0] @ y[:, 0])
    np.testing.assert_allclose(tensors.naive_matrix_vector_dot(x, y[:, 0]), x @ y[:, 0])
    np.testing.assert_allclose(tensors.naive_matrix_dot(x, y), x @ y)


def test_shapes_that_do_not_fit_are_refused():
    x = np.ones((2, 3))
    for shape in ((3, 2), (2, 4), (4, 3), (2,), (2, 2, 3), (2, 3, 1)):
        with pytest.raises((ValueError, IndexError)):
            tensors.naive_add(x, np.ones(shape))
    for wrong in (lambda: tensors.naive_matrix_dot(x, x), lambda: tensors.naive_vector_dot(x[0], x[:, 0])):
        with pytest.raises(ValueError, match="zip"):
            wrong()
