import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.initialization import STARTS, build_model, variances

X = np.random.default_rng(0).normal(size=(500, 784)).astype("float32")
Y = np.arange(500) % 10


def signals(start, norm, hidden_layers=8):
    keras.utils.set_random_seed(0)
    return variances(build_model(start, norm, hidden_layers, 100), X, Y)


@pytest.mark.parametrize("start", STARTS)
def test_batch_normalization_holds_any_start(start):
    activations, gradients = signals(start, True)
    assert max(activations) / min(activations) < 2
    assert max(gradients) / min(gradients) < 1000


def test_without_it_only_he_goes_with_relu_and_glorots_sigmoid_vanishes():
    activations, gradients = signals("relu_he", False)
    assert 0.1 < activations[0] / activations[-1] < 10
    assert 0.02 < gradients[0] / gradients[-1] < 50
    activations, gradients = signals("relu_normal", False)
    # Each layer of n = 100 relu units multiplies the second moment by n / 2.
    growth = (activations[-1] / activations[0]) ** (1 / 7)
    assert growth == pytest.approx(50, rel=0.5)
    assert gradients[0] / gradients[-1] > 1e9
    gradients = signals("sigmoid_glorot", False)[1]
    assert gradients[0] / gradients[-1] < 1e-6


def test_pytorchs_weights_lie_within_their_bound_and_pass_on_a_sixth():
    keras.utils.set_random_seed(0)
    model = build_model("relu_pytorch", False, 8, 100)
    for layer in model.layers[2:-1:2]:
        kernel = layer.kernel.numpy()
        assert 0.99 / 10 < abs(kernel).max() <= 1 / 10
        assert kernel.var() == pytest.approx(1 / 300, rel=0.05)
    activations, _ = variances(model, X, Y)
    assert (activations[-1] / activations[0]) ** (1 / 7) == pytest.approx(1 / 6, rel=0.2)


def test_the_variance_of_the_gradients_is_that_of_finite_differences():
    model = build_model("sigmoid_normal", False, 1, 3)
    first, activation, last = model.layers
    hidden = activation(first(X[:4]))

    def loss(hidden):
        losses = keras.losses.sparse_categorical_crossentropy(Y[:4], last(hidden))
        return float(tf.reduce_mean(losses))

    step = 1e-2
    slopes = np.zeros((4, 3))
    for place in np.ndindex(4, 3):
        shift = np.zeros((4, 3), "float32")
        shift[place] = step
        slopes[place] = (loss(hidden + shift) - loss(hidden - shift)) / (2 * step)
    activations, gradients = variances(model, X[:4], Y[:4])
    assert gradients[0] == pytest.approx(slopes.var(), rel=0.01)
    assert activations[0] == pytest.approx(np.var(hidden), rel=1e-4)
